"""How exactly a backend multiplies float32 numbers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Has accelerators multiply float32 numbers as such while it lasts.

    By default GPUs round them to TF32 and TPUs to bfloat16 first, so that two networks that compute
    the same differ by 1e-4 to 1e-2 of the largest output.
    """
    with _PRECISE.get(keras.backend.backend(), contextlib.nullcontext)():
        yield


def _jax() -> Any:
    import jax

    if _platform() == "cpu":  # precise anyway, and each operation would be compiled once more
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def _platform() -> str:
    import jax

    (device,) = jax.numpy.zeros(()).devices()
    return device.platform


@contextlib.contextmanager
def _tensorflow() -> Iterator[None]:
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


_PRECISE = {"jax": _jax, "tensorflow": _tensorflow}
