"""Which library an object belongs to, and what the two call alike."""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_gss._keras.registry import register_with


def tf_keras_if_imported() -> ModuleType | None:
    """Returns the module `tf_keras` if this process has imported it; our classes are known to it.

    Until it has been imported, nobody can hold one of its objects.
    """
    tf_keras = sys.modules.get("tf_keras")
    if tf_keras is None or not hasattr(tf_keras, "layers"):  # it is being imported right now
        return None
    register_with(tf_keras)
    return tf_keras


def is_tf_keras(value: Any) -> bool:
    """Tells whether a layer or model is one of tf_keras; never imports it."""
    tf_keras = tf_keras_if_imported()
    return tf_keras is not None and isinstance(value, tf_keras.layers.Layer)


def library_of(model: Any) -> ModuleType:
    """Returns the module, `keras` or `tf_keras`, whose classes go with a layer or model."""
    return sys.modules["tf_keras"] if is_tf_keras(model) else keras


def is_layer(value: Any) -> bool:
    """Tells whether something is a layer (or model) of either library."""
    return isinstance(value, keras.Layer) or is_tf_keras(value)


def is_layer_class(kind: type) -> bool:
    """Tells whether a class is one of layers, in either library."""
    tf_keras = tf_keras_if_imported()
    return issubclass(kind, keras.Layer) or (
        tf_keras is not None and issubclass(kind, tf_keras.layers.Layer)
    )


def is_model(value: Any) -> bool:
    """Tells whether something is a model of either library."""
    return isinstance(value, library_of(value).Model)


def path_of(variable: Any) -> str:
    """Returns a variable's path, `"layer/kernel"`; a TensorFlow variable has a name only."""
    return getattr(variable, "path", None) or variable.name.removesuffix(":0")


def shape_of(variable: Any) -> tuple[int, ...]:
    """Returns a variable's shape; `variable.shape` makes a TensorFlow object of it every time."""
    shape = variable._shape if isinstance(variable, keras.Variable) else variable.shape
    return tuple(shape)


def dtype_of(variable: Any) -> str:
    """Returns the name of the dtype that a variable is stored in."""
    return keras.backend.standardize_dtype(variable.dtype)


def to_numpy(variable: Any) -> np.ndarray:
    """Returns a variable's value, not to be written to, in a dtype that NumPy can compute with."""
    if keras.backend.backend() == "tensorflow":  # where Keras would copy what may be gigabytes
        stored = variable.value if isinstance(variable, keras.Variable) else variable
        value = np.asarray(_read(stored))
    else:
        value = keras.ops.convert_to_numpy(variable)
    return value.astype(np.float32) if value.dtype.kind == "V" or value.itemsize == 2 else value


@dataclass(frozen=True, eq=False)
class Unwritten:
    """A variable's value that is made where it is to lie, so that it never takes memory twice.

    Attributes:
        shape: the value's.
        dtype: the value's.
        write: fills an array of that shape, whatever it held.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    write: Callable[[np.ndarray], None]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = np.empty(self.shape, dtype or self.dtype)
        self.write(value)
        return value


def assign(variable: Any, value: "np.ndarray | Unwritten") -> None:
    """Gives a variable a copy of a value; on TensorFlow one copy, where `assign` makes three."""
    stored = variable.value if isinstance(variable, keras.Variable) else variable
    plain = type(stored).__name__ == "ResourceVariable" and value.shape == tuple(stored.shape)
    tensor, memory = empty_tensor(value.shape, stored.dtype) if plain else (None, None)
    if memory is None:
        variable.assign(np.asarray(value))
        return
    if isinstance(value, Unwritten):
        value.write(memory)
    else:
        np.copyto(memory, value, casting="unsafe")
    import tensorflow as tf

    # A variable that was once written to by parts, with a scatter for instance, would be copied
    # whenever it is read.
    tf.raw_ops.AssignVariableOp(resource=stored.handle, value=tensor)


def empty_tensor(shape: tuple[int, ...], dtype: Any) -> tuple[Any, np.ndarray | None]:
    """Returns a new TensorFlow tensor, and its own memory to write its values to.

    Untouched, it takes no memory. For what NumPy cannot write to there is None instead.
    """
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU"):
        tensor = tf.raw_ops.Empty(shape=shape, dtype=dtype)
    view = np.asarray(tensor)  # cannot be written to
    if view.dtype.kind not in "fiub" or not np.shares_memory(view, np.asarray(tensor)):
        return tensor, None
    memory = (ctypes.c_ubyte * view.nbytes).from_address(view.ctypes.data)
    return tensor, np.ctypeslib.as_array(memory).view(view.dtype).reshape(view.shape)


def _read(stored: Any) -> Any:
    """Returns the tensor in a TensorFlow variable, at a third of what `read_value` costs."""
    if type(stored).__name__ != "ResourceVariable":  # wrapped, distributed, or a tensor already
        return stored.read_value() if hasattr(stored, "read_value") else stored
    import tensorflow as tf

    return tf.raw_ops.ReadVariableOp(resource=stored.handle, dtype=stored.dtype)
