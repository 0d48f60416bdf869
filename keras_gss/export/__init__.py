"""Writing a model to disk so that a failure never leaves half a model behind."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import keras

from keras_gss._checks import check_choice, check_flag
from keras_gss._keras import check_model, full_precision, without_wrappers
from keras_gss._probe import (
    in_float64,
    max_difference,
    may_be_rounding,
    random_inputs,
    tolerance,
    tolerance_elsewhere,
)
from keras_gss.export import keras_file, litert, onnx, saved_model
from keras_gss.export.files import check_replaceable, put_in_place, staging


class _Format(Protocol):
    """What each module of a format has."""

    SUFFIX: str  # of its files; "" for a folder
    FLOAT64: bool  # whether what runs it computes in float64 what TensorFlow does

    def require(self) -> None: ...
    def write(self, model: keras.Model, path: Path) -> None: ...
    def load(self, path: Path, model: keras.Model) -> Callable[[Any], Any]: ...


_FORMATS: dict[str, _Format] = {
    "tf_saved_model": saved_model,
    "keras": keras_file,
    "litert": litert,
    "onnx": onnx,
}
FORMATS = tuple(_FORMATS)


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
    `model.export` holds it twice. LiteRT and ONNX files have the same names; they are run by LiteRT
    and ONNX Runtime to be compared, on batches of 1 and 3.

    Args:
        model: a built Sequential or functional model of Keras 3 or tf_keras; it is not changed, and
            tfmot's pruning wrappers are left out of the file.
        path: the folder to make (`"tf_saved_model"`), or a file that ends in `.keras`, `.tflite`
            (`"litert"`) or `.onnx`.
        format: `"tf_saved_model"` (needs TensorFlow on every backend), `"keras"`, `"litert"`
            (computes in float32; a recurrent model takes one sample at a time, with a warning) or
            `"onnx"`. The last two need Keras on TensorFlow and `pip install 'keras-gss[litert]'`
            or `'keras-gss[onnx]'`.
        overwrite: replaces an earlier export. It is replaced only once the new one has passed
            its check. A folder that holds anything but a SavedModel is never replaced.

    Returns:
        The path written.

    Raises:
        ValueError: unknown format, a path whose ending is that of another one, NaN weights.
        TypeError: `model` is no Sequential or functional model.
        FileExistsError: `path` exists, and `overwrite` is False or it is no earlier export.
        OSError: `path` cannot be written.
        ImportError: a package that the format needs is absent.
        RuntimeError: the reloaded model computes something else; the format lacks an operation, or
            is not available on the backend.

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
        difference, allowed = _compare(model, _FORMATS[format], staged)
        if not difference <= allowed:
            raise RuntimeError(
                f"The model written to '{path}' differs from '{model.name}' by {difference:.1e} of "
                f"the largest output on random inputs (allowed: {allowed:.0e}). Nothing was kept."
            )
        put_in_place(staged, target)
    return Path(path)


def check_target(path: str | os.PathLike, format: str, overwrite: bool) -> Path:
    """Finds out whether `export` could write to a path, as far as that can be known before.

    Args:
        path: as for `export`, as are the other arguments and the errors raised.
        format: one of `FORMATS`.
        overwrite: whether an earlier export may be replaced.

    Returns:
        The path, absolute and free of links.

    Raises:
        ValueError, FileExistsError, OSError, ImportError, RuntimeError: as `export`.
    """
    check_choice("format", format, FORMATS)
    check_flag("overwrite", overwrite)
    target = Path(os.path.realpath(path))
    suffix = _FORMATS[format].SUFFIX
    if suffix and target.suffix != suffix:
        raise ValueError(f"`path` must end in '{suffix}' for format '{format}'. Received: {path}")
    if not suffix and format_of(target) != format:
        raise ValueError(
            f"`path` ends in '{target.suffix}', which a folder should not: pass "
            f"format='{format_of(target)}' for a file. Received: {path}"
        )
    _FORMATS[format].require()
    check_replaceable(target, format, overwrite)
    with staging(target):
        return target


def format_of(path: Path) -> str:
    """Returns the format whose ending a path has, or that of a folder.

    Example:
    >>> from pathlib import Path
    >>> from keras_gss.export import format_of
    >>> format_of(Path("small.onnx")), format_of(Path("serving/v1.2"))
    ('onnx', 'tf_saved_model')
    """
    of_files = {form.SUFFIX: name for name, form in _FORMATS.items()}
    return of_files.get(path.suffix, "tf_saved_model")


def _compare(model: keras.Model, form: _Format, path: Path) -> tuple[float, float]:
    """Writes a model and returns how far what was loaded again differs, and how far it may."""
    form.write(model, path)
    difference = _difference(model, form.load(path, model))
    if not form.FLOAT64:
        return difference, tolerance_elsewhere(model)
    if may_be_rounding(model, difference):
        exact, beside = in_float64(model), path.with_name(f"float64{path.suffix}")
        form.write(exact, beside)
        difference = _difference(exact, form.load(beside, exact))
    return difference, tolerance(model)


def _difference(model: keras.Model, reloaded: Callable[[Any], Any]) -> float:
    """Returns the largest difference on random inputs, per unit of the largest output."""
    largest = 0.0
    with full_precision():
        for batch in (1, 3):
            inputs = random_inputs(model, batch, seed=batch)
            difference, scale = max_difference(model(inputs, training=False), reloaded(inputs))
            largest = max(largest, difference / max(scale, 1.0))
    return largest
