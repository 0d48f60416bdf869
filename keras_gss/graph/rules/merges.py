"""Several tensors into one, position by position: their channels share one fate."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_operations, register_rule
from keras_gss.graph.rules.elementwise import mapped
from keras_gss.graph.units import FIXED


@register_rule(layers.Add)
def add(call: Call) -> Signal | list[Signal]:
    """The sum of constants is constant."""
    return merge(call, lambda values: sum(values))


@register_rule(layers.Subtract)
def subtract(call: Call) -> Signal | list[Signal]:
    """First minus second."""
    return merge(call, lambda values: values[0] - values[1])


@register_rule(layers.Average)
def average(call: Call) -> Signal | list[Signal]:
    """The mean of all inputs."""
    return merge(call, lambda values: sum(values) / len(values))


@register_rule(layers.Maximum)
def maximum(call: Call) -> Signal | list[Signal]:
    """The largest input."""
    return merge(call, lambda values: np.max(np.broadcast_arrays(*values), axis=0))


@register_rule(layers.Minimum)
def minimum(call: Call) -> Signal | list[Signal]:
    """The smallest input."""
    return merge(call, lambda values: np.min(np.broadcast_arrays(*values), axis=0))


@register_rule(layers.Multiply)
def multiply(call: Call) -> Signal | list[Signal]:
    """Zero times anything is zero."""
    return merge(call, product)


@register_operations("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Divide", "TrueDivide")
def binary_operation(call: Call) -> Signal | list[Signal]:
    """`x + y` and its kin, between tensors or with a number."""
    arguments = [*call.args, *call.kwargs.values()]
    kind = type(call.operation).__name__
    if len(call.inputs) == 2:
        if kind in ("Divide", "TrueDivide"):
            return call.barrier("divides by a tensor")
        merged = {
            "Add": lambda values: values[0] + values[1],
            "Subtract": lambda values: values[0] - values[1],
            "Multiply": product,
            "Maximum": lambda values: np.maximum(*values),
            "Minimum": lambda values: np.minimum(*values),
        }[kind]
        return merge(call, merged)
    others = [a for a in arguments if not isinstance(a, Signal)]
    if any(np.size(keras.ops.convert_to_numpy(other)) > 1 for other in others):
        return call.barrier("combines channels with an array held in the graph")
    if not isinstance(arguments[0], Signal) and kind in ("Divide", "TrueDivide"):
        return call.barrier("divides by a tensor")

    def function(value: keras.KerasTensor) -> keras.KerasTensor:
        return call.operation.call(*(value if isinstance(a, Signal) else a for a in arguments))

    return call.like(mapped(call, function, call.x.value))


def product(values: list[np.ndarray]) -> np.ndarray:
    """Returns the product of constants; zero times anything is zero."""
    total = values[0]
    for value in values[1:]:
        total = np.where((total == 0) | (value == 0), 0.0, total * value)
    return total


def merge(call: Call, function: Callable[[list[Any]], Any]) -> Signal | list[Signal]:
    """Ties the inputs position by position; one that is broadcast along channels stays whole."""
    shape = call.shapes[0]
    if any(len(signal.shape) != len(shape) for signal in call.inputs):
        return call.barrier("combines tensors of different ranks")
    broadcast: list[Signal] = []
    tied: list[np.ndarray] = []
    varies = [any(s.labels.shape[axis] > 1 for s in call.inputs) for axis in range(len(shape))]
    for signal in call.inputs:
        spreads = any(
            own == 1 and full != 1 and vary
            for own, full, vary in zip(signal.shape, shape, varies, strict=True)
        )
        if spreads:
            broadcast.append(signal)
        else:
            tied.append(signal.labels)
    for labels in tied[1:]:
        call.tie(tied[0], labels)
    for signal in broadcast:
        _spread(call, signal, np.broadcast_arrays(*tied)[0] if tied else np.array(FIXED))
    labels = np.broadcast_arrays(*tied)[0] if tied else np.array(FIXED)
    return call.signal(labels, function([signal.value for signal in call.inputs]))


def _spread(call: Call, signal: Signal, others: np.ndarray) -> None:
    """Ties a tensor to those it is broadcast over where it meets one unit, and fixes it elsewhere.

    Where it is fixed, so is what it meets, if that could shrink along an axis that both have.
    """
    why = f"is broadcast over other channels by '{call.layer.name}'"
    if others.ndim != len(signal.shape):
        call.trace.units.fix(signal.labels, why)
        return
    along = [own == 1 and full != 1 for own, full in zip(signal.shape, call.shapes[0], strict=True)]
    first = others[tuple(slice(1) if each else slice(None) for each in along)]
    several = (others != first).any(tuple(np.flatnonzero(along)), keepdims=True)
    own, first, several = np.broadcast_arrays(signal.labels, first, several)
    call.trace.units.fix(own[several], why)
    if any(size > 1 and not each for size, each in zip(others.shape, along, strict=True)):
        call.trace.units.fix(others[np.broadcast_to(several, others.shape)], why)
    call.tie(own[~several], first[~several])


@register_rule(layers.Concatenate)
def concatenate(call: Call) -> Signal | list[Signal]:
    """Units and constants side by side."""
    return _concatenate(call, call.operation.axis)


@register_operations("Concatenate")
def concatenate_operation(call: Call) -> Signal | list[Signal]:
    """`keras.ops.concatenate`."""
    return _concatenate(call, call.operation.axis)


def _concatenate(call: Call, axis: int) -> Signal | list[Signal]:
    rank = len(call.shapes[0])
    axis = axis if axis < 0 else axis - 1
    if not -rank <= axis < rank:
        return call.barrier("joins tensors along the batch axis")
    axis %= rank
    parts = call.inputs
    if any(signal.shape[axis] is None for signal in parts):
        parts = [call.collapse(signal, (axis,)) for signal in parts]
        for signal in parts[1:]:
            call.tie(parts[0].labels, signal.labels)
        value = parts[0].value
        for signal in parts[1:]:
            value = np.where(value == signal.value, value, np.nan)
        return call.signal(parts[0].labels, value)
    labels = _side_by_side([s.labels for s in parts], [s.shape[axis] for s in parts], axis)
    value = _side_by_side([s.value for s in parts], [s.shape[axis] for s in parts], axis)
    out = call.signal(labels, value)
    if _joins_space(parts, axis, out.labels.size > out.labels.shape[axis]):
        # what is cut from one part alone would leave a ragged tensor
        return Signal(out.shape, call.collapse(out, (axis,)).labels, out.value)
    return out


def _joins_space(parts: list[Signal], axis: int, elsewhere: bool) -> bool:
    """Tells whether some part carries the same units all along the axis.

    Where the axis has length 1, it is space if no part has channels there but some `elsewhere`.
    """
    movable = [part for part in parts if (part.labels != FIXED).any()]
    if len(parts[0].shape) > 1 and any(
        part.labels.shape[axis] < part.shape[axis] for part in movable
    ):
        return True
    channels = any(part.labels.shape[axis] > 1 for part in parts)
    return elsewhere and not channels and bool(movable)


def _side_by_side(arrays: list[np.ndarray], sizes: list[int], axis: int) -> np.ndarray:
    """Concatenates along `axis`, every other axis broadcast to what all have in common."""
    common = [max(a.shape[k] for a in arrays) for k in range(arrays[0].ndim)]
    full = []
    for array, size in zip(arrays, sizes, strict=True):
        common[axis] = size
        full.append(np.broadcast_to(array, common))
    return np.concatenate(full, axis)
