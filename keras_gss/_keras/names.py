"""What tf_keras calls otherwise than Keras 3: the same things under the names of Keras 3."""

import functools
import inspect
import operator
import sys
from collections.abc import Callable
from typing import Any

import keras

from keras_gss._keras.library import is_tf_keras

# TensorFlow functions, as a tf_keras graph records them, that have an operation in `keras.ops`.
_UNARY = {
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.elu": "Elu",
    "nn.selu": "Selu",
    "nn.silu": "Silu",
    "nn.tanh": "Tanh",
    "nn.sigmoid": "Sigmoid",
    "nn.softplus": "Softplus",
    "nn.softsign": "Softsign",
    "math.tanh": "Tanh",
    "math.sigmoid": "Sigmoid",
    "math.softplus": "Softplus",
    "math.abs": "Absolute",
    "math.negative": "Negative",
    "math.square": "Square",
    "math.sqrt": "Sqrt",
    "math.exp": "Exp",
    "math.sin": "Sin",
    "math.cos": "Cos",
    "math.sign": "Sign",
    "__operators__.neg": "Negative",
    "identity": "Identity",
}
_BINARY = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "__operators__.sub": "Subtract",
    "math.subtract": "Subtract",
    "__operators__.mul": "Multiply",
    "math.multiply": "Multiply",
    "__operators__.truediv": "TrueDivide",
    "math.truediv": "TrueDivide",
    "math.divide": "TrueDivide",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
}
_VARIABLES = {
    ("DepthwiseConv1D", "kernel"): "depthwise_kernel",
    ("DepthwiseConv2D", "kernel"): "depthwise_kernel",
}
_ACTIVATIONS = {"swish": "silu"}


def kinds(operation: Any) -> tuple[type | str, ...]:
    """Returns what a rule for a layer or operation may be filed under, best first.

    That is the layer's class and, for a layer of tf_keras, the class of that name in Keras 3; the
    name of the class for an operation of `keras.ops`, `"keras_hub.Name"` for a layer of KerasHub.
    """
    layer = operation.tf_keras_layer if isinstance(operation, _LayerView) else operation
    kind = type(layer)
    if is_tf_keras(layer) and kind.__module__.startswith("tf_keras.src."):
        # The layers of `applications` live in modules of the same names.
        own = sys.modules.get(kind.__module__.removeprefix("tf_"))
        home = keras.layers if ".layers." in kind.__module__ else own
        return kind, getattr(home, kind.__name__, kind)
    if not isinstance(layer, keras.Layer) and kind.__module__.startswith("keras.src.ops"):
        return (kind.__name__,)
    if kind.__module__.startswith("keras_hub.src."):
        return kind, f"keras_hub.{kind.__name__}"
    return (kind,)


def layer_view(layer: Any) -> Any:
    """Returns a layer with its attributes under the names of Keras 3."""
    return _LayerView(layer) if is_tf_keras(layer) else layer


class _LayerView:
    """A tf_keras layer whose attributes have the names and forms that Keras 3 gives them."""

    def __init__(self, layer: Any) -> None:
        self.tf_keras_layer = layer

    def __getattr__(self, name: str) -> Any:
        layer = self.tf_keras_layer
        name = _VARIABLES.get((type(layer).__name__, name), name)
        # What is public in Keras 3, such as `MultiHeadAttention.num_heads`, may be private here.
        value = getattr(layer, name) if hasattr(layer, name) else getattr(layer, f"_{name}")
        if (
            name == "axis" and isinstance(value, list) and len(value) == 1
        ):  # not that of Normalization
            return value[0]
        return value


def argument_names(operation: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a layer's call by the names that Keras 3 gives them.

    tf_keras calls the first one `inputs` throughout, Keras 3 that of a recurrent layer `sequences`.
    """
    if not isinstance(operation, _LayerView):
        return arguments
    counterpart: Any = kinds(operation)[-1]
    _, first, *_ = inspect.signature(counterpart.call).parameters
    return {first if name == "inputs" else name: v for name, v in arguments.items()}


def operation_view(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Returns a call in a tf_keras graph as a call that the rules understand.

    Args:
        layer: the layer called; a `TFOpLambda` stands for a TensorFlow function.
        args: its arguments.
        kwargs: its named arguments.

    Returns:
        `(operation, args, kwargs)`; the layer's view, if it is a layer or a function not known.
    """
    function = getattr(layer, "symbol", None) if type(layer).__name__ == "TFOpLambda" else None
    kwargs = {key: value for key, value in kwargs.items() if key != "name" or value is not None}
    numpy, nn = keras.src.ops.numpy, keras.src.ops.nn
    if function in _UNARY and len(args) == 1 and not kwargs:
        name = _UNARY[function]
        return getattr(nn if hasattr(nn, name) else numpy, name)(), args, kwargs
    if function in _BINARY and len(args) + len(kwargs) == 2:
        return getattr(numpy, _BINARY[function])(), (*args, *kwargs.values()), {}
    if function == "concat":
        values, axis = _bound(args, kwargs, "values", "axis")
        return numpy.Concatenate(axis=axis), (values,), {}
    if function == "math.reduce_mean":
        x, axis, keepdims = _bound(args, kwargs, "input_tensor", "axis", "keepdims")
        return numpy.Mean(axis=axis, keepdims=bool(keepdims)), (x,), {}
    return layer_view(layer), args, kwargs


def _bound(args: tuple[Any, ...], kwargs: dict[str, Any], *names: str) -> list[Any]:
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return [given.get(name) for name in names]


def activation_name(function: Callable) -> str | None:
    """Returns the name under which Keras 3 has an activation; None for a function of one's own.

    tf_keras' functions and those of `tf.nn` go by the names of Keras 3, although a few of them
    (tf_keras' hard_sigmoid) compute other numbers: call the function itself.
    """
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", None) or ""
    name = _ACTIVATIONS.get(name, name)
    if getattr(keras.activations, name, None) is function:
        return name
    builtin = module.startswith(("tf_keras.src.activations", "tensorflow.python.ops."))
    return name if builtin and hasattr(keras.activations, name) else None


def tensorflow_function(operation: Any) -> Callable | None:
    """Returns the TensorFlow function that computes what an operation of `keras.ops` does.

    None if the table above has none, or none with the operation's arguments.
    """
    import tensorflow as tf

    kind = type(operation).__name__
    if kind == "Concatenate":
        return functools.partial(tf.concat, axis=operation.axis)
    if kind == "Mean":
        return functools.partial(tf.reduce_mean, axis=operation.axis, keepdims=operation.keepdims)
    for name, counterpart in {**_UNARY, **_BINARY}.items():
        if counterpart == kind and not name.startswith("__"):
            return operator.attrgetter(name)(tf)
    return None
