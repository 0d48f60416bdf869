"""From the slices of a group to one number per neuron: l1 norms, or squared l2 norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from keras_gss import norms

if TYPE_CHECKING:
    from keras_gss.graph import NeuronGroup, WeightSlice


class PowerSums:
    """||w_j||_p^p of the slices of weights, computed once however many groups share a weight.

    Args:
        p: 1 or 2.
        groups: the groups that will be asked for.
        valued: see `norms.power_sums`.
    """

    def __init__(self, p: int, groups: Sequence[NeuronGroup], valued: bool = True) -> None:
        self._p = p
        self._valued = valued
        self._axes: dict[int, set[int]] = {}
        for group in groups:
            for part in (*group.incoming, *group.outgoing):
                self._axes.setdefault(id(part.weight), set()).add(part.axis)
        self._computed: dict[int, dict[int, Any]] = {}

    def __call__(self, part: WeightSlice, counted: Sequence[WeightSlice] = ()) -> Any:
        """Returns sum |w|^p over all axes but that of `part`, a vector, at least in float32.

        Entries that `part` and one of `counted` give to the same neuron are left out.
        """
        shared = [shared_entries(part, other) for other in counted if other.weight is part.weight]
        shared = [each for each in shared if each.any()]
        if shared:
            rest = ops.where(np.any(shared, axis=0), 0.0, norms.as_float(part.weight))
            return norms.power_sums(rest, self._p, (part.axis,), self._valued)[0]
        if id(part.weight) not in self._computed:
            axes = sorted(self._axes[id(part.weight)])
            sums = norms.power_sums(part.weight, self._p, axes, self._valued)
            self._computed[id(part.weight)] = dict(zip(axes, sums, strict=True))
        return self._computed[id(part.weight)][part.axis]


def neuron_sums(group: NeuronGroup, sums: PowerSums) -> tuple[Any, Any]:
    """Returns ||in_j||_p^p and ||out_j||_p^p of the neurons of a group, each of shape (size,).

    A weight that is in both slices of one neuron (w_jj of a recurrent kernel, or of a Dense layer
    applied to its own output) counts once, in out_j.
    """
    incoming, outgoing = _by_slice(group, sums)
    return _total(incoming, group.size), _total(outgoing, group.size)


def neuron_strengths(group: NeuronGroup, sums: PowerSums) -> Any:
    """Returns ||w_j||_p^p over all weights of the neurons of a group, shape (size,)."""
    incoming, outgoing = _by_slice(group, sums)
    return _total([*incoming, *outgoing], group.size)


def _by_slice(group: NeuronGroup, sums: PowerSums) -> tuple[list[Any], list[Any]]:
    incoming = [fold(sums(p, group.outgoing), p.index, group.size) for p in group.incoming]
    return incoming, [fold(sums(p), p.index, group.size) for p in group.outgoing]


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
    if (start, stop) != (0, len(index)):
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


def shared_entries(one: WeightSlice, other: WeightSlice) -> np.ndarray:
    """Tells which entries of a weight two slices give to the same neuron; bool, to broadcast."""
    mine, theirs = (_along(each) for each in (one, other))
    return (mine == theirs) & (mine >= 0)


def _along(part: WeightSlice) -> np.ndarray:
    rank = len(part.weight.shape)
    return np.asarray(part.index).reshape([-1 if axis == part.axis else 1 for axis in range(rank)])
