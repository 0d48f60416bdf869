"""Layers whose weights belong to the channels that pass through them."""

import keras
import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule
from keras_gss.graph.rules.elementwise import activate
from keras_gss.graph.rules.spatial import channel_axis, pads, spatial_shape


@register_rule(layers.BatchNormalization)
def batch_normalization(call: Call) -> Signal | list[Signal]:
    """At inference an affine map of each channel; a zero gamma makes any channel constant."""
    layer = call.operation
    axis = layer.axis if layer.axis < 0 else layer.axis - 1
    labels, value = call.along(call.x, axis)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        call.declare(name, 0, labels)
    if not call.numeric:
        return call.like()
    scale = call.read("gamma").astype(np.float64) if layer.scale else np.ones(len(labels))
    shift = call.read("beta").astype(np.float64) if layer.center else np.zeros(len(labels))
    if call.training:
        normal = np.full(len(labels), np.nan)
    else:
        mean, variance = call.read("moving_mean"), call.read("moving_variance")
        normal = (value - mean) / np.sqrt(variance.astype(np.float64) + layer.epsilon)
    emitted = np.where(scale == 0, shift, normal * scale + shift)
    return call.signal(call.spread(labels, axis), call.spread(emitted, axis))


@register_rule(layers.Normalization)
def normalization(call: Call) -> Signal | list[Signal]:
    """Subtracts a mean and divides by a deviation, adapted (weights) or given (config)."""
    layer = call.operation
    if len(layer.axis) > 1 or 0 in layer.axis:
        return call.barrier("normalises along several axes, or along the batch")
    mean, variance = (keras.ops.convert_to_numpy(v).ravel() for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.backend.epsilon())

    def emitted(value: np.ndarray) -> np.ndarray:
        return mean + value * deviation if layer.invert else (value - mean) / deviation

    if not layer.axis:
        return call.like(emitted(call.x.value))
    axis = layer.axis[0] if layer.axis[0] < 0 else layer.axis[0] - 1
    labels, value = call.along(call.x, axis)
    for name in ("mean", "variance"):
        call.declare(f"adapt_{name}", 0, labels)
        given = getattr(layer, f"input_{name}")
        if np.ndim(given):
            call.listed(name, given, labels)
    return call.signal(call.spread(labels, axis), call.spread(emitted(value), axis))


@register_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_convolution(call: Call) -> Signal | list[Signal]:
    """`kernel` (..., channels, multiplier): output i * multiplier + m belongs to channel i."""
    layer = call.operation
    axis = channel_axis(layer)
    labels, value = call.along(call.x, axis)
    outputs = np.repeat(labels, layer.depth_multiplier)
    call.declare("kernel", -2, labels)
    call.declare("bias", 0, outputs)
    call.work("kernel", spatial_shape(layer, call.shapes[0]))
    emitted = np.full(len(outputs), np.nan)
    if call.numeric:
        kernel = call.read("kernel")
        taps = tuple(range(kernel.ndim - 2))
        sums = kernel.sum(taps, dtype=np.float64).ravel()
        if pads(layer, call.x.shape):
            value = call.padded(labels, value)
        value = np.repeat(value, layer.depth_multiplier)
        empty = ~(kernel != 0).any(taps).ravel()
        bias = call.read("bias") if layer.use_bias else 0.0
        emitted = np.where(empty, 0.0, value * sums) + bias
    out = call.signal(call.spread(outputs, axis), call.spread(emitted, axis))
    return activate(call, out, layer.activation)


@register_rule(layers.PReLU)
def parametric_relu(call: Call) -> Signal:
    """`alpha`, one per position of the axes that are not shared."""
    shape = call.variable("alpha").shape
    x = call.x
    shared = {axis - 1 for axis in call.operation.shared_axes or ()}
    if x.labels.size > 1:  # else an axis of length 1 may be that of a single neuron
        shared |= {axis for axis, size in enumerate(shape) if size == 1}
    for axis in range(len(shape)):
        if axis not in shared:
            alone = call.collapse(x, tuple(a for a in range(len(shape)) if a != axis))
            labels = np.broadcast_to(alone.labels.ravel(), (shape[axis],))
            if alone.labels.size == 1 and shape[axis] > 1:
                continue
            call.declare("alpha", axis, labels)
            x = Signal(x.shape, alone.labels, x.value)
    if not call.numeric:
        return call.like()
    alpha, value = np.broadcast_arrays(call.read("alpha"), x.value)
    emitted = np.where(value >= 0, value, alpha * value)
    for axis in range(len(shape)):
        if x.labels.shape[axis] == 1 and emitted.shape[axis] > 1:
            first = np.take(emitted, [0], axis)
            emitted = np.where((emitted == first).all(axis, keepdims=True), first, np.nan)
    return call.signal(x.labels, emitted)
