"""Layers that masks would empty or leave at an odd width, and the strongest that fill them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_gss.graph import NeuronGroup, WeightSlice
from keras_gss.pruning.pieces import Masks, Survey
from keras_gss.pruning.weights import KERNELS, Weight

Values = Mapping[int, np.ndarray]


class Masked(Mapping[int, np.ndarray]):
    """`values` with zeros where `masks` is False, each made when asked for."""

    def __init__(self, values: Values, masks: Masks):
        self._values, self._masks = values, masks

    def __getitem__(self, key: int) -> np.ndarray:
        value = self._values[key]
        if key not in self._masks:
            return value
        return np.where(self._masks[key], value, np.zeros((), value.dtype))

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def emptied_kernels(
    weights: Sequence[Weight], before: Values, after: Values, masks: Masks
) -> list[Weight]:
    """Returns the kernels that held something `before` and hold only zeros `after`."""
    kernels = [w for w in weights if w.kind in KERNELS and id(w.variable) in masks]
    return [
        weight
        for weight in kernels
        if before[id(weight.variable)].any() and not after[id(weight.variable)].any()
    ]


def emptied_groups(
    groups: Sequence[NeuronGroup], before: Values, after: Values
) -> list[NeuronGroup]:
    """Returns the groups that had a neuron with both in- and outgoing weights, and have none."""
    return [
        group
        for group in groups
        if connected(group, before).any() and not connected(group, after).any()
    ]


def connected(group: NeuronGroup, values: Values) -> np.ndarray:
    """Returns which neurons have a non-zero incoming and a non-zero outgoing weight."""
    return _nonzero(group.incoming, values, group.size) & _nonzero(
        group.outgoing, values, group.size
    )


def names_of_emptied(
    weights: Sequence[Weight], groups: Sequence[NeuronGroup], before: Values, masks: Masks
) -> list[str]:
    """Returns what the masks would empty, in words for an error."""
    after = Masked(before, masks)
    kernels = emptied_kernels(weights, before, after, masks)
    layers = {id(weight.layer) for weight in kernels}
    return [f"'{weight.path}'" for weight in kernels] + [
        f"the neurons of '{group.name}'"
        for group in emptied_groups(groups, before, after)
        if not layers.intersection(id(piece.layer) for piece in group.incoming)
    ]


def keep_strongest(found: Survey, keeps: Sequence[np.ndarray]) -> None:
    """Brings back, in `keeps`, the strongest members of what would be emptied.

    Of a piece of neurons, that is its strongest neuron. Of an emptied kernel it is the entry of
    largest magnitude, of a group without a connected neuron the largest incoming and the largest
    outgoing entry of the neuron that is strongest by the weaker of the two; at neuron granularity
    an entry comes back with the neurons that it joins.
    """
    for piece, keep in zip(found.pieces, keeps, strict=True):
        neurons = piece.parts[0].axis is not None
        if neurons and keep.size and not keep.any() and piece.strengths.any():
            keep[np.argmax(piece.strengths)] = True
    while True:
        masks = found.masks(keeps)
        after = Masked(found.values, masks)
        entries = [
            entry
            for group in emptied_groups(found.groups, found.values, after)
            for entry in _best_entries(group, found.values)
        ] or [
            (weight.variable, _largest(np.abs(found.values[id(weight.variable)])))
            for weight in emptied_kernels(found.weights, found.values, after, masks)
        ]
        if not entries:
            return
        for piece, keep in zip(found.pieces, keeps, strict=True):
            for variable, position in entries:
                piece.revive(keep, variable, position)


def round_widths(found: Survey, keeps: Sequence[np.ndarray], multiple: int) -> None:
    """Brings back, in `keeps`, the strongest neurons that make the widths of groups multiples.

    A neuron counts if it has in- and outgoing weights: what has not, `slim` cuts anyway.
    """
    groups = [
        (piece, keep, connected(piece.group, found.values))
        for piece, keep in zip(found.pieces, keeps, strict=True)
        if piece.group is not None and piece.group.removable
    ]
    rounded = False
    while not rounded:  # what comes back may join what its partners' going had left loose
        rounded = True
        after = Masked(found.values, found.masks(keeps))
        for piece, keep, alive in groups:
            missing = -np.count_nonzero(connected(piece.group, after)) % multiple
            gone = np.flatnonzero(alive & ~keep)
            if 0 < missing <= len(gone):
                strongest = np.argsort(-piece.strengths[gone], kind="stable")
                keep[gone[strongest[:missing]]] = True
                rounded = False


def _best_entries(group: NeuronGroup, values: Values) -> list[tuple[Any, tuple[int, ...]]]:
    made = _strongest(group.incoming, values, group.size)
    read = _strongest(group.outgoing, values, group.size)
    best = int(np.argmax(np.minimum(made, read)))
    return [_best_entry(group.incoming, values, best), _best_entry(group.outgoing, values, best)]


def _best_entry(
    slices: Sequence[WeightSlice], values: Values, neuron: int
) -> tuple[Any, tuple[int, ...]]:
    entries = []
    for piece in slices:
        magnitudes = np.abs(np.moveaxis(values[id(piece.weight)], piece.axis, -1))
        mine = np.where(piece.index == neuron, magnitudes, -1)
        position = _largest(np.moveaxis(mine, -1, piece.axis))
        entries.append((np.abs(values[id(piece.weight)][position]), piece.weight, position))
    _, variable, position = max(entries, key=lambda entry: entry[0])
    return variable, position


def _nonzero(slices: Sequence[WeightSlice], values: Values, size: int) -> np.ndarray:
    """Returns which neurons have a weight in `slices` that is not zero."""
    found = np.zeros(size, bool)
    for piece in slices:
        others = tuple(k for k in range(len(piece.weight.shape)) if k != piece.axis)
        found[piece.index[(values[id(piece.weight)] != 0).any(others) & (piece.index >= 0)]] = True
    return found


def _strongest(slices: Sequence[WeightSlice], values: Values, size: int) -> np.ndarray:
    """Returns each neuron's largest magnitude in `slices`."""
    strongest = np.zeros(size)
    for piece in slices:
        others = tuple(k for k in range(len(piece.weight.shape)) if k != piece.axis)
        largest = np.abs(values[id(piece.weight)]).max(axis=others, initial=0)
        owned = piece.index >= 0
        np.maximum.at(strongest, piece.index[owned], largest[owned])
    return strongest


def _largest(magnitudes: np.ndarray) -> tuple[int, ...]:
    return tuple(int(k) for k in np.unravel_index(np.argmax(magnitudes), magnitudes.shape))
