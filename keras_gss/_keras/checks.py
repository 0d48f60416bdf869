"""The check that every public call makes first."""

from typing import Any

import keras
import numpy as np

from keras_gss._keras.library import (
    is_model,
    is_tf_keras,
    library_of,
    path_of,
    tf_keras_if_imported,
    to_numpy,
)
from keras_gss._keras.walk import is_graph, leaf_layers


def check_model(model: Any, caller: str, values: bool = True) -> None:
    """Raises one clear error for a model that the library cannot work on.

    Args:
        model: what the user passed.
        caller: the public function's name, for the message.
        values: whether the weights' values matter, which are read then.

    Raises:
        TypeError: if `model` is no Sequential or functional model of Keras 3 or tf_keras, or holds
            layers of both.
        ValueError: if it is not built, or a weight is NaN or infinite.
        RuntimeError: a tf_keras model while Keras 3 computes with another backend than TensorFlow.
    """
    if not is_model(model):
        raise TypeError(
            f"`{caller}` expected a Keras 3 or tf_keras Sequential or functional model. "
            f"Received: {type(model).__module__}.{type(model).__name__}"
        )
    library = library_of(model)
    if library is not keras and keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"`{caller}`: tf_keras models need KERAS_BACKEND=tensorflow, and Keras runs on "
            f"'{keras.backend.backend()}'. Set it before the first import of Keras."
        )
    if isinstance(model, library.Sequential) and not _is_built(model):
        raise ValueError(
            f"`{caller}` needs a built model, and '{model.name}' has no weights yet. Give it a "
            f"`{library.__name__}.Input(shape)` as its first element, or call "
            "`model.build(input_shape)`."
        )
    if not is_graph(model):
        raise TypeError(
            f"`{caller}` needs the model's graph, and '{model.name}' "
            f"({type(model).__name__}) defines its own `call`. Build it as "
            f"`{library.__name__}.Model(inputs, outputs)`."
        )
    other = keras if library is not keras else tf_keras_if_imported()
    for path, layer in leaf_layers(model) if other else ():
        foreign = _foreign(layer, other.__name__)
        if foreign:
            raise TypeError(
                f"`{caller}`: '{model.name}' is a model of {library.__name__}, and '{path}' of it "
                f"holds a {foreign}, which its files could not be read with. Use "
                f"{library.__name__}'s own."
            )
    for variable in model.weights if values else ():
        value = to_numpy(variable)
        if _surely_finite(value):
            continue
        broken = int((~np.isfinite(value)).sum())
        if broken:
            raise ValueError(
                f"`{caller}` needs finite weights, and '{path_of(variable)}' of '{model.name}' "
                f"holds {broken} NaN or infinite values. Load the last good "
                "checkpoint, or train with a smaller learning rate."
            )


def _surely_finite(value: np.ndarray) -> bool:
    """Tells fast and without a temporary that nothing is NaN or infinite; large values may hide it.

    A sum of squares is NaN or infinite if an entry is.
    """
    entries = value.reshape(-1)
    return value.dtype.kind == "f" and bool(np.isfinite(np.dot(entries, entries)))


def _foreign(layer: Any, other: str) -> str | None:
    """Returns the name of an object that a layer holds of the other library, if it holds one."""
    for name, value in vars(layer).items():
        if name.endswith(("_regularizer", "_constraint", "_initializer")):
            kind = type(value)
            if kind.__module__.split(".")[0] == other:
                return f"{kind.__name__} of {other}"
    return None


def _is_built(model: Any) -> bool:
    return bool(model._graph_initialized if is_tf_keras(model) else model.built)
