"""What a threshold compares: the weights of one tensor, or the neurons of one NeuronGroup."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_gss._keras import to_numpy
from keras_gss.graph import NeuronGroup, WeightSlice, find_groups
from keras_gss.pruning.weights import Weight, compared, weights_of

Masks = Mapping[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class Part:
    """A variable that a piece zeroes: entry by entry, or along `axis` where `index` says whose."""

    variable: Any
    axis: int | None = None
    index: np.ndarray | None = None

    def spread(self, keep: np.ndarray) -> np.ndarray:
        """Returns the variable's mask if the piece's members `keep` stay; the others' go."""
        if self.axis is None:
            return keep
        along = np.append(keep, True)[self.index]  # index -1 is nobody's: it stays
        shape = [1] * len(self.variable.shape)
        shape[self.axis] = -1
        return np.broadcast_to(along.reshape(shape), tuple(self.variable.shape))


@dataclass(frozen=True, eq=False)
class Piece:
    """Members that are compared with one limit.

    Attributes:
        strengths: one per member: a weight's magnitude, or in float64 the root-mean-square of a
            neuron's in- and outgoing weights.
        spread: returns the weights whose spread may set the limit.
        parts: what is zeroed with the members.
        group: the neurons' group; None for the weights of a tensor.
    """

    strengths: np.ndarray
    spread: Callable[[], np.ndarray]
    parts: tuple[Part, ...]
    group: NeuronGroup | None = None

    @property
    def values(self) -> np.ndarray:
        """The weights whose spread may set the limit: of neurons a copy, made anew each time."""
        return self.spread()

    def revive(self, keep: np.ndarray, variable: Any, position: tuple[int, ...]) -> None:
        """Marks in `keep` the members that own the entry at `position` of `variable`."""
        for part in self.parts:
            if part.variable is not variable:
                continue
            if part.index is None or part.axis is None:
                keep[position] = True
            elif part.index[position[part.axis]] >= 0:
                keep[part.index[position[part.axis]]] = True


@dataclass(frozen=True, eq=False)
class Survey:
    """All that thresholds ask of a model, gathered once.

    Attributes:
        model: the model.
        pieces: what is compared.
        weights: the model's weights.
        values: `{id(variable): array}` of all of them.
        groups: the model's removable neuron groups.
    """

    model: keras.Model
    pieces: tuple[Piece, ...]
    weights: tuple[Weight, ...]
    values: Mapping[int, np.ndarray]
    groups: tuple[NeuronGroup, ...]

    def masks(self, keeps: Sequence[np.ndarray]) -> Masks:
        """Returns `{id(variable): mask}` if `keeps[k]` of the members of piece k stay."""
        masks: dict[int, np.ndarray] = {}
        for piece, keep in zip(self.pieces, keeps, strict=True):
            for part in piece.parts:
                mask = part.spread(keep)
                masks[id(part.variable)] = masks.get(id(part.variable), True) & mask
        return masks


def survey(
    model: keras.Model,
    granularity: str,
    *,
    biases: bool = True,
    inputs: bool = False,
    also: tuple[str, ...] = (),
) -> Survey:
    """Gathers what a threshold compares; see `StdThreshold` for the arguments.

    Warns of weights that stay dense because no constraint could keep their zeros.
    """
    found = find_groups(model, inputs=inputs)
    weights = tuple(weights_of(model))
    values = {id(weight.variable): to_numpy(weight.variable) for weight in weights}
    if granularity == "element":
        pieces, left = _tensors(weights, values, biases, also)
    else:
        chosen = [group for group in found if group.removable or group.kind == "input"]
        pieces, left = _neurons(chosen, weights, values)
    if left:
        warnings.warn(
            "These weights stay dense, because their layer's config has no constraint argument "
            f"of a known name that could keep their zeros: {', '.join(dict.fromkeys(left))}.",
            stacklevel=4,
        )
    groups = tuple(group for group in found if group.removable)
    return Survey(model, tuple(pieces), weights, values, groups)


def _tensors(
    weights: Sequence[Weight],
    values: Mapping[int, np.ndarray],
    biases: bool,
    also: tuple[str, ...],
) -> tuple[list[Piece], list[str]]:
    kinds = {weight.kind for weight in weights} - {""}
    if missing := set(also) - kinds:
        raise ValueError(
            f"`also` must name kinds of weights that the model has, among {sorted(kinds)}. "
            f"Not found: {sorted(missing)}"
        )
    taken, left = compared(weights, biases, also)
    pieces = []
    for weight in taken:
        value = values[id(weight.variable)]
        pieces.append(Piece(np.abs(value), partial(np.asarray, value), (Part(weight.variable),)))
    return pieces, [weight.path for weight in left]


def _neurons(
    groups: Iterable[NeuronGroup], weights: Sequence[Weight], values: Mapping[int, np.ndarray]
) -> tuple[list[Piece], list[str]]:
    by_id = {id(weight.variable): weight for weight in weights}
    pieces, left = [], []
    for group in groups:
        own = (*group.incoming, *group.outgoing)
        loose = [by_id[id(s.weight)].path for s in own if not by_id[id(s.weight)].kind]
        if loose:
            left += loose
            continue
        along = [s for s in group.companions if _zeroed_along(s, by_id)]
        parts = tuple(Part(s.weight, s.axis, s.index) for s in (*own, *along))
        spread = partial(_joined, own, values)
        pieces.append(Piece(neuron_strengths(group, values), spread, parts, group))
    return pieces, left


def _zeroed_along(piece: WeightSlice, by_id: Mapping[int, Weight]) -> bool:
    # A batch normalisation's mean goes to zero too, so that one without scale emits zero; its
    # variance stays, being divided by. Other companions without a constraint would not keep zeros.
    weight = by_id.get(id(piece.weight))
    mean = getattr(piece.layer, "moving_mean", None)
    return weight is not None and (bool(weight.kind) or piece.weight is mean)


def _joined(slices: Sequence[WeightSlice], values: Mapping[int, np.ndarray]) -> np.ndarray:
    found = [values[id(each.weight)] for each in slices]
    joined = np.empty(sum(each.entries for each in slices), np.result_type(*found))
    begin = 0
    for each, value in zip(slices, found, strict=True):
        owned, end = each.index >= 0, begin + each.entries
        value = value if owned.all() else np.compress(owned, value, each.axis)
        joined[begin:end] = value.reshape(-1)
        begin = end
    return joined


def neuron_strengths(group: NeuronGroup, values: Mapping[int, np.ndarray]) -> np.ndarray:
    """Returns the root-mean-square of the in- and outgoing weights of each neuron, float64."""
    squares, counts = np.zeros(group.size), np.zeros(group.size)
    for piece in (*group.incoming, *group.outgoing):
        value, owned = values[id(piece.weight)], piece.index >= 0
        after = math.prod(value.shape[piece.axis + 1 :])
        blocks = value.reshape(-1, len(owned), after)  # axes before it, it, those behind it
        sums = np.einsum("anb,anb->n", blocks, blocks, dtype=np.float64)[owned]
        owners = piece.index[owned]
        squares += np.bincount(owners, sums, minlength=group.size)
        counts += np.bincount(owners, minlength=group.size) * len(blocks) * after
    return np.sqrt(squares / np.maximum(counts, 1))
