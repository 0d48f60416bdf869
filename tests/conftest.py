"""What every test module shares."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow's oneDNN convolution of one channel to an output of width 1 reads unset memory.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Most of the time on JAX goes to compiling what runs once or, in other tests and processes, again.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import keras
import numpy as np
import pytest
from keras.src.backend import random

if keras.backend.backend() == "jax":
    # What initializers ask for is drawn by NumPy: JAX takes 0.1 s to compile each shape of it.
    def _drawn_by_numpy(name):
        drawn_by_jax = getattr(random, name)

        def draw(shape, *limits, dtype=None, seed=None, **named):
            if not isinstance(seed, int):
                return drawn_by_jax(shape, *limits, dtype=dtype, seed=seed, **named)
            names = {"mean": "loc", "stddev": "scale", "minval": "low", "maxval": "high"}
            named = {names[key]: value for key, value in named.items()}
            drawn = getattr(np.random.default_rng(seed), name)(*limits, size=shape, **named)
            return keras.ops.convert_to_tensor(drawn.astype("float32"), dtype)

        return draw

    random.uniform, random.normal = _drawn_by_numpy("uniform"), _drawn_by_numpy("normal")


@pytest.fixture(autouse=True)
def _seeded():
    """Makes a test draw the same numbers whichever ran before it."""
    keras.utils.set_random_seed(0)
