"""Layers with a kernel: they read the channels of their input and make neurons of their own."""

import math
import re

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
    call.work("kernel", spatial_shape(layer, call.shapes[0]))
    absorbs = not pads(layer, call.x.shape)
    if layer.groups > 1:
        return _grouped_convolution(call, absorbs)
    return _linear(call, channel_axis(layer), kernel=(-2, -1), width="filters", absorbs=absorbs)


def _grouped_convolution(call: Call, absorbs: bool) -> Signal | list[Signal]:
    """`kernel` (..., inputs / groups, filters): every group reads its own inputs by the same rows.

    All groups must stay of one size, so channels at the same place of every group share a fate.
    """
    layer = call.operation
    rows, filters = layer.kernel.shape[-2], layer.filters // layer.groups
    if rows == 1 or filters == 1:
        return call.barrier(
            f"convolves in {layer.groups} groups with one channel in or out: a `DepthwiseConv` can "
            "lose channels"
        )
    axis = channel_axis(layer)
    labels, value = call.along(call.x, axis)
    members = labels.reshape(layer.groups, rows)
    call.tie(members[:1], members)
    outputs = np.tile(call.units(filters), layer.groups)
    call.declare("kernel", -2, members[0], "outgoing")
    call.declare("kernel", -1, outputs, "incoming")
    call.declare("bias", 0, outputs)
    call.resize("filters", neurons(outputs), lambda sizes: sizes[0])
    emitted = np.full(len(outputs), np.nan)
    if call.numeric:
        own_group = np.kron(np.eye(layer.groups), np.ones((rows, filters)))
        sums, nonzero = (
            own_group * np.tile(taps, (layer.groups, 1)) for taps in tap_sums(call.read("kernel"))
        )
        emitted = call.edge((labels, value), outputs, nonzero != 0, sums, absorbs)
    out = call.signal(call.spread(outputs, axis), call.spread(emitted, axis))
    return activate(call, out, layer.activation)


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
    call.resize("filters", neurons(outputs), lambda sizes: sizes[0])
    if call.numeric:
        taps, any_tap = tap_sums(call.read("depthwise_kernel"))
        points, any_point = tap_sums(call.read("pointwise_kernel"))
        points = points.reshape(*taps.shape, layer.filters)
        any_point = any_point.reshape(points.shape)
        emitted = call.edge(
            (labels, value),
            outputs,
            nonzero=(any_tap[..., None] & any_point).any(1),
            sums=np.einsum("im,imo->io", taps, points, dtype=np.float64),
            absorbs=not pads(layer, call.x.shape),
        )
        out = call.signal(out.labels, call.spread(emitted, axis))
    return activate(call, out, layer.activation)


@register_rule(layers.EinsumDense)
def einsum_dense(call: Call) -> Signal | list[Signal]:
    """Letters of the kernel are read (they are the input's too) or made (the output's).

    Where several are made, the neurons lie along the last, the same at all places of the others.
    """
    layer = call.operation
    source, kernel, target = re.split(",|->", layer.equation.replace("...", ""))
    read = [letter for letter in kernel if letter in source and letter not in target]
    made = [letter for letter in kernel if letter in target and letter not in source]
    right = re.search(r"\w\.\.\.", layer.equation)
    if right or len(read) + len(made) < len(kernel) or set(source) - set(target) - set(read):
        return call.barrier(f"computes '{layer.equation}', which is no matrix product")
    if not read or not made or ("..." not in layer.equation and source[0] != target[0]):
        return call.barrier(f"computes '{layer.equation}', which is no matrix product")
    made.sort(key=target.index)
    axes = {letter: source.index(letter) - len(source) for letter in read}
    varying = [letter for letter in read if call.x.labels.shape[axes[letter]] > 1]
    read.sort(key=lambda letter: (letter in varying, axes[letter]))
    labels, value = call.along(call.x, axes[read[-1]])
    own = call.units(layer.kernel.shape[kernel.index(made[-1])])
    axis = target.index(made[-1]) - len(target)
    bias = () if layer.bias is None else tuple(layer.bias.shape)
    wide = [k - len(bias) for k, size in enumerate(bias) if size > 1 and k - len(bias) != axis]
    if bias and (axis < -1 or (wide and bias[axis] == 1)):
        return call.barrier("adds a bias along another axis than the last, as Keras cannot always")
    if wide:
        # A bias (.., places, 1) would go astray in `ops.add` if another axis is of its length.
        call.at_least(own, 2)
    call.declare("kernel", kernel.index(read[-1]), labels, "outgoing")
    call.declare("kernel", kernel.index(made[-1]), own, "incoming")
    if bias and bias[-1] == len(own):
        call.declare("bias", -1, own)
    places = {k - len(call.x.shape) for k in range(len(call.x.shape))} - set(axes.values())
    call.work("kernel", tuple(call.x.shape[k] for k in places))

    def output_shape(sizes: tuple[int | None, ...]) -> list[int | None]:
        shape = list(layer.partial_output_shape)
        shape[axis] = sizes[0]
        return shape

    call.resize("output_shape", neurons(own), output_shape)
    emitted = np.full(len(own), np.nan)
    if call.numeric:
        order = [kernel.index(letter) for letter in (*read[:-1], read[-1], *made)]
        weights = np.transpose(call.read("kernel"), order)
        taps = tuple(range(len(read) - 1))
        nonzero = weights != 0
        sums = weights
        if taps:
            sums, nonzero = weights.sum(taps, dtype=np.float64), nonzero.any(taps)
        # laid out like the output from the first letter made on
        ending = target[target.index(made[0]) :]
        sizes = [weights.shape[len(read) + made.index(k)] if k in made else 1 for k in ending]
        outputs = own.reshape([len(own) if k == made[-1] else 1 for k in ending])
        nonzero = nonzero.reshape(-1, *sizes)
        others = tuple(k for k in range(1, nonzero.ndim) if outputs.shape[k - 1] == 1)
        emitted = call.edge(
            (labels, value),
            outputs,
            nonzero.any(others, keepdims=True),
            sums.reshape(-1, *sizes),
            absorbs=bias == tuple(sizes),
        )
    else:
        emitted = call.spread(emitted, axis)
    return activate(call, call.signal(call.spread(own, axis), emitted), layer.activation)


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
        sums, nonzero = tap_sums(weights)
        emitted = call.edge((labels, value), outputs, nonzero, sums, absorbs)
    call.resize(width, neurons(outputs), lambda sizes: sizes[0])
    out = call.signal(call.spread(outputs, axis), call.spread(emitted, axis))
    return activate(call, out, layer.activation)


def neurons(units: np.ndarray) -> Signal:
    """A layer's own neurons alone: the same at all its calls, whatever the places."""
    return Signal(units.shape, units, np.full(units.shape, np.nan))


def tap_sums(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds a kernel (taps..., a, b) up over its taps; also tells where any tap is not zero."""
    *taps, rows, columns = kernel.shape
    if math.prod(taps) == 1:  # as it is: in float64 it would take its memory twice more
        kernel = kernel.reshape(rows, columns)
        return kernel, kernel != 0
    axes = tuple(range(len(taps)))
    return kernel.sum(axes, dtype=np.float64), (kernel != 0).any(axes)
