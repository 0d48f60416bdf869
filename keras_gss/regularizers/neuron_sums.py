"""From the slices of a group to one number per neuron: l1 norms, or squared l2 norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from keras_gss import norms

if TYPE_CHECKING:
    from keras_gss.graph import NeuronGroup, WeightSlice


class Magnitudes:
    """|w|^p entry by entry, computed once per weight however many groups share the weight.

    Args:
        p: 1 or 2.
    """

    def __init__(self, p: int) -> None:
        self._power = norms.magnitude if p == 1 else ops.square
        self._computed: dict[int, Any] = {}

    def __call__(self, weight: Any) -> Any:
        """Returns |w|^p of a variable, at least in float32."""
        if id(weight) not in self._computed:
            self._computed[id(weight)] = self._power(norms.as_float(weight))
        return self._computed[id(weight)]


def neuron_sums(group: NeuronGroup, magnitudes: Magnitudes) -> tuple[Any, Any]:
    """Returns ||in_j||_p^p and ||out_j||_p^p of the neurons of a group, each of shape (size,).

    A weight that is in both slices of one neuron (w_jj of a recurrent kernel, or of a Dense layer
    applied to its own output) counts once, in out_j.
    """
    incoming = [
        _slice_sums(part, group.size, magnitudes, counted=group.outgoing) for part in group.incoming
    ]
    outgoing = [_slice_sums(part, group.size, magnitudes) for part in group.outgoing]
    return _total(incoming, group.size), _total(outgoing, group.size)


def fold(vector: Any, index: np.ndarray, size: int) -> Any:
    """Sums the entries of a vector by the neuron that owns them.

    Args:
        vector: shape (positions,).
        index: int, shape (positions,); the neuron 0 .. size - 1 that owns a position, or -1.
        size: the number of neurons.

    Returns:
        Shape (size,). The layouts that Keras layers produce cost a slice and a reshape.

    Example:
    >>> sums = fold(ops.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 1, 0, -1]), size=2)
    >>> ops.convert_to_numpy(sums).tolist()
    [5.0, 2.0]
    """
    owned = np.flatnonzero(index >= 0)
    if not owned.size:
        return ops.zeros((size,), dtype=ops.dtype(vector))
    start, stop = int(owned[0]), int(owned[-1]) + 1
    vector, index = vector[start:stop], index[start:stop]
    neurons, (repeats, rest) = np.arange(size), divmod(stop - start, size)
    if not rest and np.array_equal(index, np.tile(neurons, repeats)):
        return vector if repeats == 1 else ops.sum(ops.reshape(vector, (repeats, size)), axis=0)
    if not rest and np.array_equal(index, np.repeat(neurons, repeats)):
        return ops.sum(ops.reshape(vector, (size, repeats)), axis=1)
    segments = np.where(index < 0, size, index).astype("int32")
    return ops.segment_sum(vector, segments, num_segments=size + 1)[:size]


def _total(vectors: list[Any], size: int) -> Any:
    return sum(vectors[1:], start=vectors[0]) if vectors else ops.zeros((size,))


def _slice_sums(
    part: WeightSlice, size: int, magnitudes: Magnitudes, counted: tuple[WeightSlice, ...] = ()
) -> Any:
    values = magnitudes(part.weight)
    for other in counted:
        if other.weight is part.weight:
            values = _without(values, part, other)
    axes = tuple(axis for axis in range(len(values.shape)) if axis != part.axis)
    return fold(ops.sum(values, axis=axes), part.index, size)


def _without(values: Any, part: WeightSlice, other: WeightSlice) -> Any:
    """Zeroes the entries that `part` and `other` give to the same neuron."""
    mine, theirs = (_along(each, len(values.shape)) for each in (part, other))
    shared = (mine == theirs) & (mine >= 0)
    return ops.where(shared, 0.0, values) if shared.any() else values


def _along(part: WeightSlice, rank: int) -> np.ndarray:
    return np.asarray(part.index).reshape([-1 if axis == part.axis else 1 for axis in range(rank)])
