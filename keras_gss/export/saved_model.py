"""Models as folders that TensorFlow Serving and `tf.saved_model.load` read."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from keras_gss._keras import (
    Source,
    input_structure,
    is_tf_keras,
    leaf_layers,
    library_of,
    output_structure,
    sources,
)

SUFFIX = ""
FLOAT64 = True
SIGNATURE = "serving_default"
_ENDPOINT = "serve"


def require() -> None:
    """Raises `ImportError` if TensorFlow is absent."""
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "A SavedModel is written by TensorFlow on every backend: `pip install tensorflow`, or "
            "use format='keras'."
        ) from error


def write(model: keras.Model, path: Path, batch: int | None = None) -> None:
    """Writes a model for batches of any size, or of one."""
    archive = library_of(model).export.ExportArchive()
    specs = {id(source.tensor): _input_spec(source, batch) for source in sources(model)}
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
    if is_tf_keras(model):
        with _quiet(library_of(model)):
            archive.write_out(str(path))
    else:
        archive.write_out(str(path), verbose=False)


def load(path: Path, model: keras.Model) -> Callable[[Any], Any]:
    """Returns the inference call of a SavedModel that was written from `model`."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def call(inputs: Any) -> Any:
        return keras.tree.map_structure(
            lambda x: x.numpy(), loaded.serve(keras.tree.map_structure(tf.constant, inputs))
        )

    return call


def named_inputs(model: keras.Model, inputs: Any) -> dict[str, Any]:
    """Returns a model's inputs by the names that they have in the signature."""
    named = zip(sources(model), keras.tree.flatten(inputs), strict=True)
    return {_name(source): value for source, value in named}


def structured_outputs(model: keras.Model, named: dict[str, Any]) -> Any:
    """Returns outputs, given by their names in the signature, in the model's own structure."""
    structure = output_structure(model)
    if isinstance(structure, dict):
        return {name: named[name] for name in structure}
    size = len(keras.tree.flatten(structure))
    return keras.tree.pack_sequence_as(structure, [named[f"output_{i}"] for i in range(size)])


@contextmanager
def _quiet(tf_keras: ModuleType) -> Iterator[None]:
    """Keeps tf_keras from printing a line for every variable that it writes."""
    interactive = tf_keras.utils.is_interactive_logging_enabled()
    tf_keras.utils.disable_interactive_logging()
    try:
        yield
    finally:
        if interactive:
            tf_keras.utils.enable_interactive_logging()


def _input_spec(source: Source, batch: int | None) -> keras.InputSpec:
    return keras.InputSpec(shape=(batch, *source.shape[1:]), dtype=source.dtype, name=_name(source))


def _name(source: Source) -> str:
    # A tensor made by an unnamed `Input` changes its name on every rebuild, its layer not.
    # TensorFlow itself replaces only some of the characters that no argument name can have.
    return re.sub(r"[^A-Za-z0-9_]", "_", source.layer.name)


def _tensor_spec(spec: keras.InputSpec) -> Any:
    import tensorflow as tf

    return tf.TensorSpec(spec.shape, spec.dtype, spec.name)
