"""Layers that only move data: units and constants are moved alike, by NumPy."""

import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_operations, register_rule


@register_rule(layers.Flatten)
def flatten(call: Call) -> Signal | list[Signal]:
    """Row-major over the sample; `channels_first` moves the channels last before it."""
    x = call.x
    if call.operation.data_format == "channels_first" and len(x.shape) > 1:
        order = (*range(1, len(x.shape)), 0)
        x = Signal(
            tuple(x.shape[a] for a in order),
            np.transpose(x.labels, order),
            np.transpose(x.value, order),
        )
    return _reshape(call, x)


@register_rule(layers.Reshape)
def reshape(call: Call) -> Signal | list[Signal]:
    """A new shape for the same order of elements."""
    out = _reshape(call, call.x)
    if isinstance(out, Signal):
        call.resize("target_shape", out, _target)
    return out


@register_operations("Reshape")
def reshape_operation(call: Call) -> Signal | list[Signal]:
    """`keras.ops.reshape(x, (batch, ...))`."""
    batch = call.operation.newshape[0]
    if batch not in (-1, None):
        return call.barrier("fixes the batch size")
    out = _reshape(call, call.x)
    if isinstance(out, Signal):
        call.resize("newshape", out, lambda sizes: (-1, *sizes))
    return out


@register_rule(layers.Permute)
def permute(call: Call) -> Signal:
    """`dims` count from 1 and leave the batch out."""
    return _transpose(call, tuple(d - 1 for d in call.operation.dims))


@register_operations("Transpose")
def transpose_operation(call: Call) -> Signal | list[Signal]:
    """`keras.ops.transpose` that leaves the batch first."""
    axes = call.operation.axes
    axes = tuple(reversed(range(len(call.x.shape) + 1))) if axes is None else tuple(axes)
    if axes[0] != 0:
        return call.barrier("moves the batch axis")
    return _transpose(call, tuple(a - 1 for a in axes[1:]))


@register_operations("Roll")
def roll_operation(call: Call) -> Signal | list[Signal]:
    """`keras.ops.roll`: what moves along an axis has one fate all along it."""
    axes = call.operation.axis
    axes = [axes] if axes is None or isinstance(axes, int) else axes
    rank = len(call.x.shape) + 1
    if any(axis is None or axis % rank == 0 for axis in axes):
        return call.barrier("moves the batch axis")
    out = call.collapse(call.x, tuple(axis % rank - 1 for axis in axes))
    return call.signal(out.labels, out.value)


@register_operations("Cumsum")
def cumsum_operation(call: Call) -> Signal | list[Signal]:
    """`keras.ops.cumsum`: what is added up along an axis has one fate all along it."""
    axis = call.operation.axis
    if axis is None or axis % (len(call.x.shape) + 1) == 0:
        return call.barrier("adds up along the batch axis")
    out = call.collapse(call.x, (axis % (len(call.x.shape) + 1) - 1,))
    return call.signal(out.labels, np.where(out.value == 0, 0.0, np.nan))


@register_rule(layers.RepeatVector)
def repeat_vector(call: Call) -> Signal:
    """Copies of one vector along a new first axis."""
    return call.signal(call.x.labels[None], call.x.value[None])


def _transpose(call: Call, axes: tuple[int, ...]) -> Signal:
    return call.signal(np.transpose(call.x.labels, axes), np.transpose(call.x.value, axes))


def _reshape(call: Call, x: Signal) -> Signal | list[Signal]:
    """Reshapes to the call's output, then ties units so that every cut leaves a rectangle."""
    shape = call.shapes[0]
    if None in x.shape or None in shape or np.prod(x.shape) != np.prod(shape):
        # of unknown size, or the batch takes up places, as windows do: the channels may lie still
        channels = x.shape and shape and x.shape[-1] is not None and x.shape[-1] == shape[-1]
        if not channels or any(size > 1 for size in x.labels.shape[:-1]):
            return call.barrier("reshapes a tensor of unknown size, and its channels with it")
        labels, value = call.along(x, -1)
        return call.signal(call.spread(labels, -1), call.spread(value, -1))
    labels, value = (
        _collapse_equal(np.broadcast_to(array, x.shape).reshape(shape))
        for array in (x.labels, x.value)
    )
    out = call.signal(labels, value)
    varying = [axis for axis, size in enumerate(out.labels.shape) if size > 1]
    if shape and shape[-1] == 1 and x.shape and x.labels.shape[-1] > 1:
        # (n * 1) splits the channels as (n * m) does, of which it may be what an earlier cut left
        varying.append(len(shape) - 1)
    return Signal(out.shape, call.collapse(out, tuple(varying[:-1])).labels, out.value)


def _collapse_equal(array: np.ndarray) -> np.ndarray:
    """Gives length 1 to every axis along which nothing changes."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis)
        if ((array == first) | ((array != array) & (first != first))).all():
            array = first
    return array


def _target(sizes: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in sizes)
