"""Which neurons a model needs, given the values of its weights.

A neuron is needed when it reaches an output or a barrier, or when a non-zero weight carries it to a
needed neuron and it is not a constant which that neuron's bias can absorb exactly. Everything else
can be cut without changing what the model computes at inference.
"""

from dataclasses import dataclass

import numpy as np

from keras_gss.graph.groups import NeuronGroup
from keras_gss.graph.records import Edge
from keras_gss.graph.trace import Trace
from keras_gss.graph.units import FIXED

BORDER = "constant, but the layer's border would show their absence"
NO_BIAS = "constant, but the layer has no bias that could take them up"


@dataclass(frozen=True, eq=False)
class Liveness:
    """The fate of every unit of a trace.

    Attributes:
        trace: the numeric trace this was computed from.
        needed: bool per unit id: the model's output depends on it.
        kept: bool per unit id: needed, or kept so that no tensor becomes empty.
    """

    trace: Trace
    needed: np.ndarray
    kept: np.ndarray

    def keep(self, labels: np.ndarray) -> np.ndarray:
        """Returns which of `labels` stay, same shape."""
        return self.kept[labels]

    def folded(self, edge: Edge) -> np.ndarray:
        """Returns what the constant inputs that nothing needs add to a layer's bias, in its shape.

        A neuron that is kept only to keep its layer from vanishing is folded too: `silenced`.
        """
        needed = self.needed[edge.inputs[edge.constant]]
        value = np.where(needed, 0.0, np.nan_to_num(edge.value[edge.constant]))
        if not value.any():
            return np.zeros(edge.outputs.shape)
        return np.where(self.needed[edge.outputs], np.tensordot(value, edge.sums, 1), 0.0)

    def silenced(self, labels: np.ndarray) -> np.ndarray:
        """Returns which of `labels` stay although nothing needs them; nothing may read them."""
        return self.kept[labels] & ~self.needed[labels]

    def width(self, group: NeuronGroup) -> int:
        """Returns how many neurons of a group stay."""
        piece = (group.incoming or group.outgoing)[0]
        kept = self.keep(self.trace.axes[id(piece.weight), piece.axis].labels)
        return len(np.unique(piece.index[kept & (piece.index >= 0)]))

    def sizes(self, labels: np.ndarray, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape that remains of a tensor of this shape."""
        kept = self.keep(labels)
        axes = range(kept.ndim)
        return tuple(
            full
            if kept.shape[axis] == 1
            else int(kept.any(tuple(a for a in axes if a != axis)).sum())
            for axis, full in zip(axes, shape, strict=True)
        )


def liveness(trace: Trace, inputs: bool = False) -> Liveness:
    """Computes the least set of needed units, then keeps one where nothing would be left.

    Args:
        trace: a numeric trace.
        inputs: whether the model's input features may go too.

    Returns:
        The `Liveness`.
    """
    units = trace.units
    roots = units.roots(np.arange(len(units)))
    needed, _ = units.fixed()
    if not inputs:
        for _, signal in trace.inputs:
            needed[roots[signal.labels]] = True
    _spread_need(trace, roots, needed)
    kept = needed.copy()
    for labels in _everything_with_width(trace):
        if not kept[roots[labels]].any():
            kept[roots[labels.flat[0]]] = True
    for labels, least in trace.least:
        _keep_at_least(kept, np.unique(roots[labels]), least)
    for pair in trace.equal:
        first, second = (np.unique(roots[labels]) for labels in pair)
        _keep_at_least(kept, first, int(kept[second].sum()))
        _keep_at_least(kept, second, int(kept[first].sum()))
    return Liveness(trace, needed[roots], kept[roots])


def _keep_at_least(kept: np.ndarray, units: np.ndarray, least: int) -> None:
    missing = max(least - int(kept[units].sum()), 0)
    kept[units[~kept[units]][:missing]] = True


def _spread_need(trace: Trace, roots: np.ndarray, needed: np.ndarray) -> None:
    """Grows `needed` (by root, in place) to its least fixpoint, last layers first."""
    edges = [
        (roots[edge.inputs], roots[edge.outputs], edge, edge.blocked())
        for edge in reversed(trace.edges.values())
    ]
    changed = True
    while changed:
        changed = False
        for inputs, outputs, edge, blocked in edges:
            reached = inputs[blocked & edge.joined(needed[outputs])]
            if not needed[reached].all():
                needed[reached] = True
                changed = True


def _everything_with_width(trace: Trace) -> list[np.ndarray]:
    """The labels of all tensors and weight axes: none of them may lose its last unit."""
    tensors = [signal.labels for signal in trace.signals]
    inputs = [signal.labels for _, signal in trace.inputs]
    weights = [axis.labels for axis in trace.axes.values()]
    return [labels for labels in (*inputs, *tensors, *weights) if labels.size]


def border_constants(live: Liveness) -> dict[str, tuple[int, str]]:
    """Finds constant neurons that stay only because a border would show their absence.

    Returns:
        `{path of the reading layer: (how many, reason)}`.
    """
    roots = live.trace.units.roots(np.arange(len(live.trace.units)))
    found = {}
    for edge in live.trace.edges.values():
        constant = ~np.isnan(edge.value) & edge.blocked() & (roots[edge.inputs] != FIXED)
        count = int((constant & edge.joined(live.needed[edge.outputs])).sum())
        if count:
            found[edge.path] = (count, NO_BIAS if edge.bias is None else BORDER)
    for path, labels in live.trace.borders:
        count = int(live.needed[labels].sum())
        if count:
            found[path] = (count, BORDER)
    return found
