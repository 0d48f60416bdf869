"""What every test module shares."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow's oneDNN convolution of one channel to an output of width 1 reads unset memory.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Most of the time on JAX goes to compiling what runs once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    """Makes a test draw the same numbers whichever ran before it."""
    keras.utils.set_random_seed(0)
