"""Layers with a kernel: they read the channels of their input and make neurons of their own."""

import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule
from keras_gss.graph.rules.elementwise import activate
from keras_gss.graph.rules.spatial import channel_axis, pads, spatial_shape


@register_rule(layers.Dense)
def dense(call: Call) -> Signal | list[Signal]:
    """`kernel` (inputs, units): contracts the last axis."""
    call.work("kernel", call.x.shape[:-1])
    return _linear(call, axis=-1, kernel=(0, 1), width="units", absorbs=True)


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def convolution(call: Call) -> Signal | list[Signal]:
    """`kernel` (..., inputs, filters): contracts the channel axis at every tap."""
    layer = call.operation
    if layer.groups > 1:
        call.work("kernel", spatial_shape(layer, call.shapes[0]))
        return call.barrier(f"convolves in {layer.groups} groups")
    call.work("kernel", spatial_shape(layer, call.shapes[0]))
    absorbs = not pads(layer, call.x.shape)
    return _linear(call, channel_axis(layer), kernel=(-2, -1), width="filters", absorbs=absorbs)


@register_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed_convolution(call: Call) -> Signal | list[Signal]:
    """`kernel` (..., filters, inputs): the number of taps that meet differs from place to place."""
    layer = call.operation
    call.work("kernel", spatial_shape(layer, call.x.shape))
    absorbs = all(n == 1 for n in (*layer.kernel_size, *layer.strides))
    return _linear(call, channel_axis(layer), kernel=(-1, -2), width="filters", absorbs=absorbs)


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_convolution(call: Call) -> Signal | list[Signal]:
    """A depthwise kernel (..., inputs, m), then a pointwise one (1, ..., inputs * m, filters)."""
    layer = call.operation
    axis = channel_axis(layer)
    labels, value = call.along(call.x, axis)
    outputs = call.units(layer.filters)
    middle = np.repeat(labels, layer.depth_multiplier)
    call.declare("depthwise_kernel", -2, labels)
    call.declare("pointwise_kernel", -2, middle, "outgoing")
    call.declare("pointwise_kernel", -1, outputs, "incoming")
    call.declare("bias", 0, outputs)
    places = spatial_shape(layer, call.shapes[0])
    call.work("depthwise_kernel", places)
    call.work("pointwise_kernel", places)
    out = call.signal(call.spread(outputs, axis), np.nan)
    call.resize("filters", _neurons(outputs), lambda sizes: sizes[0])
    if call.numeric:
        taps, any_tap = _tap_sums(call.read("depthwise_kernel"))
        points, any_point = _tap_sums(call.read("pointwise_kernel"))
        points = points.reshape(*taps.shape, layer.filters)
        any_point = any_point.reshape(points.shape)
        emitted = call.edge(
            (labels, value),
            outputs,
            nonzero=(any_tap[..., None] & any_point).any(1),
            sums=np.einsum("im,imo->io", taps, points),
            absorbs=not pads(layer, call.x.shape),
        )
        out = call.signal(out.labels, call.spread(emitted, axis))
    return activate(call, out, layer.activation)


def _linear(
    call: Call, axis: int, kernel: tuple[int, int], width: str, absorbs: bool
) -> Signal | list[Signal]:
    """A kernel whose axes `kernel` are (inputs, outputs) and whose other axes are taps."""
    layer = call.operation
    labels, value = call.along(call.x, axis)
    outputs = call.units(getattr(layer, width))
    call.declare("kernel", kernel[0], labels, "outgoing")
    call.declare("kernel", kernel[1], outputs, "incoming")
    call.declare("bias", 0, outputs)
    emitted = np.full(len(outputs), np.nan)
    if call.numeric:
        weights = np.moveaxis(call.read("kernel"), kernel, (-2, -1))
        sums, nonzero = _tap_sums(weights)
        emitted = call.edge((labels, value), outputs, nonzero, sums, absorbs)
    call.resize(width, _neurons(outputs), lambda sizes: sizes[0])
    out = call.signal(call.spread(outputs, axis), call.spread(emitted, axis))
    return activate(call, out, layer.activation)


def _neurons(units: np.ndarray) -> Signal:
    """A layer's own neurons alone: the same at all its calls, whatever the places."""
    return Signal(units.shape, units, np.full(units.shape, np.nan))


def _tap_sums(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds a kernel (taps..., a, b) up over its taps; also tells where any tap is not zero."""
    taps = tuple(range(kernel.ndim - 2))
    return kernel.sum(taps, dtype=np.float64), (kernel != 0).any(taps)
