"""Pooling, padding, cropping, upsampling: what happens along space, channel by channel."""

from collections.abc import Iterable

import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_operations, register_rule


def channel_axis(layer: layers.Layer) -> int:
    """Returns the channel axis of a layer's tensors, the batch axis left out."""
    return 0 if layer.data_format == "channels_first" else -1


def spatial_shape(layer: layers.Layer, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Returns the shape without its channel axis."""
    return shape[1:] if channel_axis(layer) == 0 else shape[:-1]


def pads(layer: layers.Layer, shape: tuple[int | None, ...]) -> bool:
    """Tells whether a convolution over this input shape meets computed padding anywhere.

    `"same"` pads nothing where the windows tile the axis exactly, with 1x1 kernels for instance.
    """
    if layer.padding == "valid":
        return False
    sizes = spatial_shape(layer, shape)
    rank = len(sizes)
    for size, kernel, stride, dilation in zip(
        sizes,
        _per_axis(layer.kernel_size, rank),
        _per_axis(layer.strides, rank),
        _per_axis(layer.dilation_rate, rank),
        strict=True,
    ):
        extent = (kernel - 1) * dilation + 1
        if layer.padding == "causal" or size is None:
            needed = extent - 1
        else:
            needed = (-(-size // stride) - 1) * stride + extent - size
        if needed > 0:
            return True
    return False


def _per_axis(value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


@register_rule(
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
)
def keep_channels(call: Call) -> Signal:
    """A mean, maximum or copy of equal numbers is that number: constants pass through."""
    axis = _layer_axis(call.operation)
    labels, value = call.along(call.x, axis)
    return call.signal(call.spread(labels, axis), call.spread(value, axis))


@register_rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def zero_padding(call: Call) -> Signal:
    """Only a zero stays constant when zeros are put around it."""
    axis = _layer_axis(call.operation)
    labels, value = call.along(call.x, axis)
    if call.shapes[0] != call.x.shape or None in call.x.shape:
        value = call.padded(labels, value)
    return call.signal(call.spread(labels, axis), call.spread(value, axis))


@register_operations("Pad")
def pad_operation(call: Call) -> Signal | list[Signal]:
    """`keras.ops.pad` with zeros: around space, or new channels on one side, which are units too.

    A padded channel of its own is a constant zero; one that is added to a neuron shares its fate.
    """
    operation, x = call.operation, call.x
    widths = [tuple(width) for width in operation.pad_width]
    widths *= len(x.shape) + 1 if len(widths) == 1 else 1
    fill = [*call.args[1:], call.kwargs.get("constant_values")][0]
    if operation.mode != "constant" or (fill is not None and (np.ndim(fill) or fill != 0)):
        return call.barrier("pads with something else than zeros")
    if any(widths[0]):
        return call.barrier("pads the batch axis")
    space: list[int] = []
    channels: list[int] = []
    for axis, width in enumerate(widths[1:]):
        alone = axis == len(x.shape) - 1 and x.shape[axis] == 1
        if any(width):
            (channels if x.labels.shape[axis] > 1 or alone else space).append(axis)
    if len(channels) > 1:
        return call.barrier("pads more than one axis of channels")
    if not channels:
        labels, value = np.broadcast_arrays(x.labels, x.value)
        return call.signal(labels, call.padded(labels, value) if space else value)
    (axis,) = channels
    before, after = widths[axis + 1]
    if before and after:
        return call.barrier("pads channels on both sides: pad one side")
    labels, value = call.along(x, axis)
    if space:
        value = call.padded(labels, value)
    fresh = call.units(before + after)

    def remaining(sizes: tuple[int | None, ...]) -> list[list[int | None]]:
        width = [sizes[0], 0] if before else [0, sizes[0]]
        return [width if k == axis + 1 else list(each) for k, each in enumerate(widths)]

    call.resize("pad_width", Signal((len(fresh),), fresh, np.zeros(1)), remaining)
    order = -1 if before else 1
    labels = np.concatenate([labels, fresh][::order])
    value = np.concatenate([value, np.zeros(len(fresh))][::order])
    return call.signal(call.spread(labels, axis), call.spread(value, axis))


@register_rule(
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)
def global_pooling(call: Call) -> Signal:
    """One number per channel."""
    axis = channel_axis(call.operation)
    labels, value = call.along(call.x, axis)
    axis = axis if call.operation.keepdims else -1
    return call.signal(call.spread(labels, axis), call.spread(value, axis))


def _layer_axis(layer: layers.Layer) -> int:
    """The channel axis of a layer that may have no `data_format` (the 1D ones)."""
    return 0 if getattr(layer, "data_format", None) == "channels_first" else -1


@register_operations("MaxPool", "AveragePool")
def pool_operation(call: Call) -> Signal | Iterable[Signal]:
    """`keras.ops.max_pool` and `average_pool`."""
    return keep_channels(call)


@register_operations("Mean", "Max", "Min")
def reduction(call: Call) -> Signal | list[Signal]:
    """A mean or extreme over axes whose positions have one fate: global pooling, mostly."""
    operation = call.operation
    rank = len(call.x.shape)
    axes = operation.axis
    axes = (axes,) if isinstance(axes, int) else axes
    if axes is None or any(axis in (0, -rank - 1) for axis in axes):
        return call.barrier("reduces the batch axis")
    axes = tuple(axis % (rank + 1) - 1 for axis in axes)
    x = call.collapse(call.x, axes)
    if operation.keepdims:
        return call.signal(x.labels, x.value)
    return call.signal(np.squeeze(x.labels, axes), np.squeeze(x.value, axes))
