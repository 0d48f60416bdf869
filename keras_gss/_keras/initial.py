"""Initial values that nobody will read: whatever lies there, instead of random numbers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.initializers import random_initializers

from keras_gss._keras.library import empty_tensor

_here = threading.local()


class _Random:
    """Keras' random numbers as its initializers ask for them, but for threads that want none."""

    def __init__(self, keras_random: Any):
        self.keras_random = keras_random

    def __getattr__(self, name: str) -> Any:
        drawn = getattr(self.keras_random, name)
        if name in ("normal", "truncated_normal", "uniform") and getattr(_here, "unset", False):
            return _unset
        return drawn


def _unset(shape: Any, *_: Any, dtype: Any = None, **__: Any) -> Any:
    if keras.backend.backend() == "tensorflow":  # where zeros would lie in memory three times
        return empty_tensor(tuple(shape), dtype or "float32")[0]
    return ops.convert_to_tensor(np.zeros(shape, "float32"), dtype)


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """While this lasts, the random initializers of Keras 3 draw nothing in this thread.

    A model whose weights are all assigned next takes no time for random numbers then: on JAX, which
    compiles every shape of them, a tenth of a second for each.
    """
    if not isinstance(random_initializers.random, _Random):
        random_initializers.random = _Random(random_initializers.random)
    before, _here.unset = getattr(_here, "unset", False), True
    try:
        yield
    finally:
        _here.unset = before
