"""Models as `.keras` files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_gss._keras import library_of, own_objects

SUFFIX = ".keras"
FLOAT64 = True


def require() -> None:
    """Passes: what reads and writes `.keras` files is what the model is made of."""


def write(model: keras.Model, path: Path) -> None:
    """Writes a model."""
    model.save(path)


def load(path: Path, model: keras.Model) -> Callable[[Any], Any]:
    """Returns the inference call of a model that was written from `model`."""
    # safe_mode guards against strangers' files; this one was written a moment ago.
    loaded = library_of(model).models.load_model(
        path, custom_objects=own_objects(model), compile=False, safe_mode=False
    )
    return lambda inputs: loaded(inputs, training=False)
