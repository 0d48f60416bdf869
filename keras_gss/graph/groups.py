"""Neuron groups: which slices of which weights make and read the same neurons."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import keras
import numpy as np

from keras_gss import _keras
from keras_gss.graph.trace import OUTPUT, Trace, trace
from keras_gss.graph.units import FIXED


@dataclass(frozen=True, eq=False)
class WeightSlice:
    """One weight, cut along one axis into the slices that the neurons of a group own.

    Attributes:
        layer: the layer that owns the weight.
        weight: the variable.
        axis: the axis of `weight` along which the neurons lie, not negative.
        index: int, shape `(weight.shape[axis],)`: `index[i]` is the neuron (`0 .. size - 1`) that
            owns position `i`, or -1 where the position belongs to no neuron of the group.
    """

    layer: keras.Layer
    weight: Any
    axis: int
    index: np.ndarray

    @property
    def entries(self) -> int:
        """How many entries of the weight the neurons of the group own."""
        shape = _keras.shape_of(self.weight)
        owned = int(np.count_nonzero(self.index >= 0))
        return owned * math.prod(shape[: self.axis] + shape[self.axis + 1 :])

    def __repr__(self) -> str:
        return f"<WeightSlice of {_keras.path_of(self.weight)}, axis {self.axis}>"


@dataclass(frozen=True, eq=False)
class NeuronGroup:
    """A maximal set of neurons that share the same weight slices: one competition set.

    Attributes:
        name: path of the layer that makes the neurons, with `:heads`, `:keys`, `:values` or
            `:outputs` for those of an attention layer; unique in the model.
        size: number of neurons.
        incoming: slices of kernels that make the neurons.
        outgoing: slices of kernels that read the neurons.
        companions: slices of what rides along and is never penalised: biases, normalisation
            entries, depthwise kernels.
        removable: whether neurons of this group can be cut.
        reason: why not, a clause such as "feeds 'softmax' ...", or empty.
        kind: `"neuron"`, or `"input"` for the features of a model input.
        macs: the multiply-accumulates for one sample that go when one neuron goes, those of its
            in- and outgoing slices, as far as they are counted.
    """

    name: str
    size: int
    incoming: tuple[WeightSlice, ...]
    outgoing: tuple[WeightSlice, ...]
    companions: tuple[WeightSlice, ...]
    removable: bool
    reason: str
    kind: str
    macs: float = 0.0

    @property
    def parameters(self) -> float:
        """The weights that go when one neuron goes."""
        pieces = (*self.incoming, *self.outgoing, *self.companions)
        return sum(piece.entries for piece in pieces) / self.size

    def __repr__(self) -> str:
        made, read = (_layer_names(each) for each in (self.incoming, self.outgoing))
        ways = [f"made by {made}"] * bool(made) + [f"read by {read}"] * bool(read)
        return f"<NeuronGroup {self.name}: {', '.join([f'{self.size} neurons', *ways])}>"


class NeuronGroups(Sequence[NeuronGroup]):
    """The groups of a model, in the order of its graph.

    Attributes:
        skipped: `{layer path: reason}` for every layer that is left whole.
    """

    def __init__(self, groups: Sequence[NeuronGroup], skipped: dict[str, str]) -> None:
        self._groups = tuple(groups)
        self.skipped = skipped

    @overload
    def __getitem__(self, index: int) -> NeuronGroup: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[NeuronGroup, ...]: ...
    def __getitem__(self, index: int | slice) -> NeuronGroup | tuple[NeuronGroup, ...]:
        return self._groups[index]

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[NeuronGroup]:
        return iter(self._groups)

    def summary(self) -> str:
        """Returns a table of the groups, then one line for every layer left whole.

        Parameters and MACs are those that go with one neuron.
        """
        rows = [("group", "neurons", "parameters", "MACs", "made by", "read by", "")]
        for group in self:
            rows.append(
                (
                    group.name,
                    str(group.size),
                    f"{group.parameters:,.0f}",
                    f"{group.macs:,.0f}",
                    _layer_names(group.incoming) or "(model input)",
                    _layer_names(group.outgoing),
                    "" if group.removable else f"stays: {group.reason}",
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(6)] + [0]
        lines = [
            "  ".join(
                cell.rjust(width) if k in (1, 2, 3) else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * sum(widths, 10))
        if self.skipped:
            lines += ["", "left whole:"]
            lines += [f"  {path}: {reason}" for path, reason in self.skipped.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<NeuronGroups: {', '.join(f'{g.name} ({g.size})' for g in self)}>"


def find_groups(model: keras.Model, inputs: bool = False) -> NeuronGroups:
    """Finds the groups of neurons of a model, across layers.

    Neurons tied by residual additions, concatenations or shared layers land in one group with all
    their slices. A layer without a rule is left whole, with its neighbours, and named in
    `.skipped`; the model's output neurons are no groups.

    Args:
        model: a built Keras 3 Sequential or functional model, nested models included.
        inputs: add one group per model input, whose neurons are the input features.

    Returns:
        The `NeuronGroups`.

    Raises:
        TypeError: for an object without a graph, a subclassed model for instance.
        ValueError: for an unbuilt model.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([
    ...     keras.Input((784,)),
    ...     keras.layers.Dense(300, activation="relu", name="fc1"),
    ...     keras.layers.Dense(100, activation="relu", name="fc2"),
    ...     keras.layers.Dense(10, name="fc3"),
    ... ])
    >>> [(group.name, group.size) for group in gss.find_groups(model)]
    [('fc1', 300), ('fc2', 100)]
    """
    _keras.check_model(model, "find_groups", values=False)
    return groups_of(trace(model, numeric=False), inputs)


def groups_of(found: Trace, inputs: bool = False) -> NeuronGroups:
    """Gathers the units of a trace into groups; see `find_groups`."""
    units = found.units
    roots = units.roots(np.arange(len(units)))
    fixed, reasons = units.fixed()
    number, position = _partition(found, roots, fixed)
    slices = _slices(found, number[roots], position[roots])
    work = found.positions()
    paths = {id(axis.layer): axis.path for axis in found.axes.values()}
    kinds = {unit: kind for (_, kind), own in found.fresh.items() if kind for unit in own.tolist()}
    skipped = dict(found.skipped)
    groups: list[NeuronGroup] = []
    names: set[str] = set()
    input_names = {
        n: operation.name
        for operation, signal in found.inputs
        for n in _numbers_in(number[roots[signal.labels]])
    }
    outputs = {n for s in found.outputs for n in _numbers_in(number[roots[s.labels]])}
    for n, (first, size) in enumerate(zip(*_heads(number), strict=True)):
        made, read, along = (slices[n, role] for role in ("incoming", "outgoing", "companion"))
        reason = OUTPUT if n in outputs else reasons[first]
        if n in input_names:
            reason = reason or "is an input of the model"
        if not made and not (inputs and n in input_names):
            continue
        if reason:
            for piece in made:
                kind = type(piece.layer).__name__
                skipped.setdefault(paths[id(piece.layer)], f"{kind} {reason}")
        if reason == OUTPUT:
            continue
        name = paths[id(made[0].layer)] if made else input_names[n]
        name = _unique(f"{name}:{kinds[first]}" if first in kinds else name, names)
        groups.append(
            NeuronGroup(
                name=name,
                size=size,
                incoming=tuple(made),
                outgoing=tuple(read),
                companions=tuple(along),
                removable=not reason,
                reason=reason,
                kind="neuron" if made else "input",
                macs=sum(work.get(id(p.weight), 0) * p.entries for p in (*made, *read)) / size,
            )
        )
    return NeuronGroups(groups, skipped)


def _partition(found: Trace, roots: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the groups in graph order: neurons are together when they share all their slices.

    Returns:
        `(number, position)` per unit; -1 for units that are no root or touch no kernel.
    """
    signature = fixed.astype(np.uint64)
    in_kernel = np.zeros(len(roots), dtype=bool)
    touched = [(axis.labels, axis.role != "companion") for axis in found.axes.values()]
    touched += [(signal.labels, False) for _, signal in found.inputs]
    marks = np.random.default_rng(0).integers(2, 2**63, len(touched), dtype=np.uint64)
    for mark, (labels, is_kernel) in zip(marks, touched, strict=True):
        owned = roots[labels]  # what occurs twice is still marked once
        signature[owned] ^= mark
        if is_kernel:
            in_kernel[owned] = True
    in_kernel[FIXED] = False
    members = np.flatnonzero(in_kernel & (roots == np.arange(len(roots))))
    _, first, which = np.unique(signature[members], return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    number, position = np.full(len(roots), -1), np.full(len(roots), -1)
    number[members] = order[which]
    together = members[np.argsort(number[members], kind="stable")]
    sizes = np.bincount(number[members])
    position[together] = np.arange(len(together)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return number, position


def _heads(number: np.ndarray) -> tuple[list[int], list[int]]:
    """Returns the first unit and the size of every group, in the groups' order."""
    _, first, sizes = np.unique(number[number >= 0], return_index=True, return_counts=True)
    return np.flatnonzero(number >= 0)[first].tolist(), sizes.tolist()


def _numbers_in(owners: np.ndarray) -> list[int]:
    """Returns the distinct group numbers of units, ascending; much faster than `np.unique`."""
    return (np.flatnonzero(np.bincount(owners.ravel() + 1)) - 1).tolist()


def _slices(
    found: Trace, number: np.ndarray, position: np.ndarray
) -> dict[tuple[int, str], list[WeightSlice]]:
    slices: dict[tuple[int, str], list[WeightSlice]] = defaultdict(list)
    for axis in found.axes.values():
        owner, place = number[axis.labels], position[axis.labels]
        alone = owner.size > 0 and (owner == owner[0]).all()  # as nearly all are
        for n in [int(owner[0])] if alone else _numbers_in(owner):
            if n < 0:
                continue
            index = place if alone else np.where(owner == n, place, -1)
            piece = WeightSlice(axis.layer, axis.variable, axis.axis, index)
            slices[n, axis.role].append(piece)
    return slices


def _unique(name: str, names: set[str]) -> str:
    unique, count = name, 1
    while unique in names:
        count += 1
        unique = f"{name}:{count}"
    names.add(unique)
    return unique


def _layer_names(slices: Sequence[WeightSlice]) -> str:
    names = list(dict.fromkeys(piece.layer.name for piece in slices))
    more = [f"{len(names) - 2} more"] if len(names) > 3 else []
    return ", ".join([*names[:2], *more] if more else names)
