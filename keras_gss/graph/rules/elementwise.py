"""Functions of each number alone: units pass through, constants are mapped by the function."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_gss import _keras
from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_operations, register_rule, rule_for

# Every activation of Keras that maps each number alone; softmax, log_softmax, glu and sparsemax
# couple the channels and are left out.
_ALONE = frozenset(
    {
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu"),
        *("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu"),
        *("sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus"),
        *("sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold"),
    }
)


def activate(call: Call, signal: Signal, activation: Any) -> Signal | list[Signal]:
    """Applies a layer's `activation` to its output signal; one that couples channels fixes it."""
    if activation is None or _keras.activation_name(activation) == "linear":
        return signal
    if _keras.activation_name(activation) in _ALONE:
        return Signal(signal.shape, signal.labels, mapped(call, activation, signal.value))
    if rule_for(activation) is map_layer:
        return Signal(signal.shape, signal.labels, mapped(call, activation.call, signal.value))
    name = getattr(activation, "__name__", None) or getattr(activation, "name", str(activation))
    reason = f"applies the activation '{name}', which is not known to act on each channel alone"
    call.trace.units.fix(signal.labels, f"is made by '{call.layer.name}', which {reason}")
    return Signal(signal.shape, signal.labels, np.full_like(signal.value, np.nan))


def mapped(call: Call, function: Callable, value: np.ndarray) -> np.ndarray:
    """Returns the constants after `function`, NaN staying NaN."""
    known = ~np.isnan(value)
    if not call.numeric or not known.any():
        return value
    image = function(keras.ops.convert_to_tensor(np.where(known, value, 0.0)))
    return np.where(known, keras.ops.convert_to_numpy(image), np.nan)


@register_rule(layers.Activation)
def activation_layer(call: Call) -> Signal | list[Signal]:
    """The function decides: one that couples channels is a barrier."""
    function = call.operation.activation
    if _keras.activation_name(function) in _ALONE or rule_for(function) is map_layer:
        return activate(call, call.like(), function)
    name = getattr(function, "__name__", str(function))
    return call.barrier(f"applies '{name}', which is not known to act on each channel alone")


@register_rule(layers.ReLU, layers.LeakyReLU, layers.ELU)
def map_layer(call: Call) -> Signal:
    """An activation layer without weights."""
    return call.like(mapped(call, call.operation.call, call.x.value))


@register_rule(
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.Identity,
)
def identity(call: Call) -> Signal:
    """Does nothing at inference; a call wired with `training=True` makes constants vary."""
    return call.like(np.nan if call.training else None)


@register_rule(layers.Rescaling)
def rescaling(call: Call) -> Signal | list[Signal]:
    """`x * scale + offset` with numbers, or lists of one number per channel."""
    layer = call.operation
    pair = (layer.scale, layer.offset)
    if not any(np.ndim(numbers) for numbers in pair):
        return call.like(call.x.value * layer.scale + layer.offset)
    first = keras.config.image_data_format() == "channels_first"
    axis = 0 if first else -1
    sizes = (1, call.x.shape[axis])
    if any(np.ndim(n) > 1 or np.size(n) not in sizes for n in pair) or (
        first and (len(call.x.shape) != 3 or np.ndim(layer.offset))
    ):
        return call.barrier("scales by an array that is no list of one number per channel")
    labels, value = call.along(call.x, axis)
    for key, numbers in zip(("scale", "offset"), pair, strict=True):
        if np.ndim(numbers):
            call.listed(key, numbers, labels)
    emitted = value * np.asarray(layer.scale) + np.asarray(layer.offset)
    return call.signal(call.spread(labels, axis), call.spread(emitted, axis))


@register_operations(
    *("Relu", "Relu6", "Sigmoid", "Silu", "Tanh", "Tanhshrink", "Softplus", "Softsign", "Elu"),
    *("Selu", "Celu", "Gelu", "LeakyRelu", "HardSigmoid", "HardSilu", "HardTanh", "HardShrink"),
    *("SoftShrink", "Threshold", "Squareplus", "SparsePlus", "SparseSigmoid", "LogSigmoid"),
    *("Abs", "Absolute", "Negative", "Square", "Sqrt", "Exp", "Sin", "Cos", "Clip", "Sign"),
    *("Identity",),
)
def map_operation(call: Call) -> Signal:
    """A `keras.ops` function of one tensor, element by element."""
    return call.like(mapped(call, call.operation.call, call.x.value))


@register_operations("ZerosLike", "OnesLike")
def constant_operation(call: Call) -> Signal:
    """`keras.ops.zeros_like` and `ones_like`: as wide as their input, whose numbers go unread."""
    return call.like(float(type(call.operation).__name__ == "OnesLike"))
