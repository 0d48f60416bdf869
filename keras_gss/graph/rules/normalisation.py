"""Layers that relate positions of a tensor to each other: they leave the width they act on whole.

A mean, a variance or a norm over channels changes when one of them goes, even an unread or a
constant one, so no cut of that width is exact. Channels on any other axis pass through.
"""

import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule
from keras_gss.graph.rules.linear import neurons
from keras_gss.graph.units import FIXED

TOGETHER = "normalises over the channels together, so that each depends on all"


@register_rule(
    layers.LayerNormalization, layers.RMSNormalization, layers.UnitNormalization, layers.Softmax
)
def along_axes(call: Call) -> Signal | list[Signal]:
    """Weights, if any, lie along the axes that are normalised over, which no cut touches."""
    axes = call.operation.axis
    rank = len(call.x.shape) + 1
    axes = sorted(axis % rank - 1 for axis in ([axes] if isinstance(axes, int) else axes))
    last = list(range(rank - 1 - len(axes), rank - 1))
    if isinstance(call.operation, layers.RMSNormalization) and axes != last:
        return call.barrier("has a scale that Keras lays along the last axes, whatever `axis` says")
    labels = call.x.labels
    first = labels[tuple(slice(1) if axis in axes else slice(None) for axis in range(rank - 1))]
    together = (labels != first).any(tuple(axes), keepdims=True)
    if axes[0] < 0 or together.all():
        return call.barrier(TOGETHER)
    # Where channels lie beside what has none, as after a concatenation along another axis.
    mixed = labels[np.broadcast_to(together, labels.shape)]
    call.trace.units.fix(mixed, f"feeds '{call.layer.name}', which {TOGETHER}")
    call.keep_masks(call.x)
    return call.signal(np.where(together, FIXED, first), np.nan)


@register_rule(layers.GroupNormalization)
def group_normalization(call: Call) -> Signal | list[Signal]:
    """Whole groups of channels may go; with as many groups as channels, every single channel."""
    layer = call.operation
    axis = layer.axis if layer.axis < 0 else layer.axis - 1
    if layer.groups == 1:
        return call.barrier(TOGETHER)
    labels, _ = call.along(call.x, axis)
    groups = labels.reshape(layer.groups, -1)
    call.tie(groups[:, :1], groups)
    for name in ("gamma", "beta"):
        call.declare(name, 0, labels)
    call.resize("groups", neurons(groups[:, 0]), lambda sizes: sizes[0])
    emitted = np.full(len(labels), np.nan)
    if call.numeric and layer.scale:
        shift = call.read("beta") if layer.center else np.zeros(len(labels))
        emitted = np.where(call.read("gamma") == 0, shift, np.nan)
    return call.signal(call.spread(labels, axis), call.spread(emitted, axis))
