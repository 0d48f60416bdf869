"""Writing a model to disk so that a failure never leaves half a model behind."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_gss._checks import check_choice, check_flag
from keras_gss._keras import (
    Source,
    check_model,
    input_structure,
    is_tf_keras,
    leaf_layers,
    library_of,
    own_objects,
    sources,
    without_wrappers,
)
from keras_gss._probe import (
    in_float64,
    max_difference,
    may_be_rounding,
    random_inputs,
    tolerance,
)

FORMATS = ("tf_saved_model", "keras")
_ENDPOINT = "serve"


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str = "tf_saved_model",
    overwrite: bool = False,
) -> Path:
    """Writes a model, loads it again, compares the outputs and only then puts it in place.

    A SavedModel has the endpoint `serve`, which is also the signature `serving_default`. Its
    inputs are named after the model's input layers (`_` for what is no letter or digit), its
    outputs as Keras names them (`output_0`, ... or the keys of a dict), and it takes batches of any
    size. It loads with `tf.saved_model.load` alone and holds every weight once, where
    `model.export` holds it twice.

    Args:
        model: a built Sequential or functional model of Keras 3 or tf_keras; it is not changed, and
            tfmot's pruning wrappers are left out of the file.
        path: the folder to make (`"tf_saved_model"`) or the `.keras` file (`"keras"`).
        format: `"tf_saved_model"` (needs TensorFlow on every backend) or `"keras"`.
        overwrite: replaces an earlier export. It is replaced only once the new one has passed
            its check. A folder that holds anything but a SavedModel is never replaced.

    Returns:
        The path written.

    Raises:
        ValueError: unknown format, a path whose ending is that of the other one, NaN weights.
        TypeError: `model` is no Sequential or functional model.
        FileExistsError: `path` exists, and `overwrite` is False or it is no earlier export.
        OSError: `path` cannot be written.
        ImportError: a SavedModel is asked for and TensorFlow is absent.
        RuntimeError: the reloaded model computes something else.

    Example:
    >>> import keras, tempfile
    >>> import keras_gss as gss
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> folder = tempfile.mkdtemp()
    >>> gss.export(model, f"{folder}/small").name
    'small'
    >>> gss.export(model, f"{folder}/small.keras", format="keras").name
    'small.keras'
    """
    check_model(model, "export")
    model = without_wrappers(model)
    target = check_target(path, format, overwrite)
    with staging(target) as staged:
        difference = _difference(model, _write(model, staged, format))
        allowed = tolerance(model)
        if may_be_rounding(model, difference):
            exact = in_float64(model)
            difference = _difference(
                exact, _write(exact, staged.with_name(f"float64{staged.suffix}"), format)
            )
        if not difference <= allowed:
            raise RuntimeError(
                f"The model written to '{path}' differs from '{model.name}' by {difference:.1e} of "
                f"the largest output on random inputs (allowed: {allowed:.0e}). Nothing was kept."
            )
        _put_in_place(staged, target)
    return Path(path)


def check_target(path: str | os.PathLike, format: str, overwrite: bool) -> Path:
    """Finds out whether `export` could write to a path, as far as that can be known before.

    Args:
        path: as for `export`, as are the other arguments and the errors raised.
        format: `"tf_saved_model"` or `"keras"`.
        overwrite: whether an earlier export may be replaced.

    Returns:
        The path, absolute and free of links.

    Raises:
        ValueError, FileExistsError, OSError, ImportError: as `export`.
    """
    check_choice("format", format, FORMATS)
    check_flag("overwrite", overwrite)
    target = Path(os.path.realpath(path))
    if format == "tf_saved_model":
        if target.suffix == ".keras":
            raise ValueError(
                f"`path` ends in '.keras', which a folder should not: pass format='keras' for a "
                f"file. Received: {path}"
            )
        _require_tensorflow()
    elif target.suffix != ".keras":
        raise ValueError(f"`path` must end in '.keras' for format 'keras'. Received: {path}")
    _check_replaceable(target, format, overwrite)
    with staging(target):
        return target


def _require_tensorflow() -> None:
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "A SavedModel is written by TensorFlow on every backend: `pip install tensorflow`, or "
            "use format='keras'."
        ) from error


def _check_replaceable(target: Path, format: str, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(
            f"'{target}' exists. Pass overwrite=True (--overwrite) to replace it."
        )
    earlier = target.is_file() if format == "keras" else (target / "saved_model.pb").is_file()
    if not earlier:
        raise FileExistsError(
            f"'{target}' exists and is no earlier export in the format '{format}', so it is not "
            "replaced. Choose another path."
        )


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Gives a path on the target's own file system, and removes it with all it holds at the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OSError(f"'{target}' cannot be written: {error.strerror}.") from error
    try:
        yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(staged: Path, target: Path) -> None:
    if staged.is_file() or not target.exists():
        staged.replace(target)
        return
    # No portable call swaps two folders: the old one steps aside, and back again on a failure.
    aside = staged.parent.with_name(f"{staged.parent.name}.previous")
    target.rename(aside)
    try:
        staged.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write(model: keras.Model, path: Path, format: str) -> Callable[[Any], Any]:
    """Writes a model and returns what was loaded again."""
    if format == "keras":
        model.save(path)
        return _load_keras(path, model)
    _write_saved_model(model, path)
    return _load_saved_model(path)


def _difference(model: keras.Model, reloaded: Callable[[Any], Any]) -> float:
    """Returns the largest difference on random inputs, per unit of the largest output."""
    largest = 0.0
    for batch in (1, 3):
        inputs = random_inputs(model, batch, seed=batch)
        difference, scale = max_difference(model(inputs, training=False), reloaded(inputs))
        largest = max(largest, difference / max(scale, 1.0))
    return largest


def _load_keras(path: Path, model: keras.Model) -> Callable[[Any], Any]:
    # safe_mode guards against strangers' files; this one was written a moment ago.
    loaded = library_of(model).models.load_model(
        path, custom_objects=own_objects(model), compile=False, safe_mode=False
    )
    return lambda inputs: loaded(inputs, training=False)


def _write_saved_model(model: keras.Model, path: Path) -> None:
    archive = library_of(model).export.ExportArchive()
    specs = {id(source.tensor): _input_spec(source) for source in sources(model)}
    signature = [keras.tree.map_structure(lambda x: specs[id(x)], input_structure(model))]
    if is_tf_keras(model):
        archive.track(model)
        archive.add_endpoint(
            _ENDPOINT,
            lambda inputs: model(inputs, training=False),
            keras.tree.map_structure(_tensor_spec, signature),
        )
    elif keras.backend.backend() == "tensorflow":
        archive.add_endpoint(_ENDPOINT, lambda inputs: model(inputs, training=False), signature)
        # Keras' own `track(model)` stores each Keras variable beside the tf.Variable it wraps.
        for name in ("variables", "trainable_variables", "non_trainable_variables"):
            values = [variable.value for variable in getattr(model, name)]
            archive.add_variable_collection(name, values)
        for _, layer in leaf_layers(model):
            if not layer.variables:  # may hold a lookup table, which is no variable
                archive.track(layer)
    else:
        archive.track_and_add_endpoint(_ENDPOINT, model, signature)
    archive.write_out(str(path), **({} if is_tf_keras(model) else {"verbose": False}))


def _input_spec(source: Source) -> keras.InputSpec:
    # A tensor made by an unnamed `Input` changes its name on every rebuild, its layer not.
    # TensorFlow itself replaces only some of the characters that no argument name can have.
    name = re.sub(r"[^A-Za-z0-9_]", "_", source.layer.name)
    return keras.InputSpec(shape=(None, *source.shape[1:]), dtype=source.dtype, name=name)


def _tensor_spec(spec: keras.InputSpec) -> Any:
    import tensorflow as tf

    return tf.TensorSpec(spec.shape, spec.dtype, spec.name)


def _load_saved_model(path: Path) -> Callable[[Any], Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def call(inputs: Any) -> Any:
        return keras.tree.map_structure(
            lambda x: x.numpy(), loaded.serve(keras.tree.map_structure(tf.constant, inputs))
        )

    return call
