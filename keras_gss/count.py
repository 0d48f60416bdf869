"""What a model costs: parameters and multiply-accumulates, per layer and in total."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import keras
import numpy as np

from keras_gss import _keras
from keras_gss.graph.groups import groups_of
from keras_gss.graph.liveness import Liveness, liveness
from keras_gss.graph.trace import trace


@dataclass(frozen=True)
class LayerCount:
    """The cost of one layer, for one input sample.

    Attributes:
        name: the layer's path, `"nested/conv"` inside a nested model.
        kind: the layer's class name.
        shape: the shape of the layer's main kernel, or of its first weight.
        parameters: number of weights, normalisation statistics and biases included.
        nonzero_parameters: how many of them are not zero.
        weights: entries of kernels, without biases and normalisation (the paper's "parameters").
        nonzero_weights: how many of them are not zero.
        macs: multiply-accumulates by weights that execute, biases left out: a recurrent layer's at
            every step, an attention layer's in its projections. What attention multiplies without
            weights, queries by keys and scores by values, is not in it.
        live_macs: those between live inputs and live neurons (the paper's FLOPs): what is left
            once every neuron and input feature that can go has gone.
        nonzero_macs: those by weights that are not zero.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    nonzero_parameters: int
    weights: int
    nonzero_weights: int
    macs: int
    live_macs: int
    nonzero_macs: int


@dataclass(frozen=True)
class Count:
    """The cost of a model; totals are attributes of the names in `LayerCount`.

    Attributes:
        layers: one `LayerCount` per layer that has weights.
        uncounted: `{layer path: why its MACs are not counted}`.
        structure: `{group name: (neurons, live neurons)}` of every neuron group that can be cut
            and of the input features, in graph order.
    """

    layers: tuple[LayerCount, ...]
    uncounted: dict[str, str]
    structure: dict[str, tuple[int, int]]

    def _total(self, name: str) -> int:
        return sum(getattr(layer, name) for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Number of weights, biases and statistics."""
        return self._total("parameters")

    @property
    def nonzero_parameters(self) -> int:
        """How many of them are not zero."""
        return self._total("nonzero_parameters")

    @property
    def weights(self) -> int:
        """Kernel entries."""
        return self._total("weights")

    @property
    def nonzero_weights(self) -> int:
        """Kernel entries that are not zero (the paper's Tables 2-3)."""
        return self._total("nonzero_weights")

    @property
    def macs(self) -> int:
        """Multiply-accumulates that execute for one sample."""
        return self._total("macs")

    @property
    def live_macs(self) -> int:
        """Multiply-accumulates between live inputs and live neurons (the paper's Tables 4-5)."""
        return self._total("live_macs")

    @property
    def nonzero_macs(self) -> int:
        """Multiply-accumulates by weights that are not zero."""
        return self._total("nonzero_macs")

    def summary(self) -> str:
        """Returns a table, one line per layer and one for the total."""
        names = [f.name for f in fields(LayerCount) if f.name not in ("name", "kind", "shape")]
        rows = [("layer", "kind", "shape", *names)]
        for layer in self.layers:
            numbers = (f"{getattr(layer, name):,}" for name in names)
            rows.append((layer.name, layer.kind, "x".join(map(str, layer.shape)), *numbers))
        rows.append(("total", "", "", *(f"{self._total(name):,}" for name in names)))
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if k < 3 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines += [f"not counted: {path}: {why}" for path, why in self.uncounted.items()]
        return "\n".join(lines)


def count(model: keras.Model) -> Count:
    """Counts what a model holds and what one input sample costs.

    Args:
        model: a built Keras 3 Sequential or functional model.

    Returns:
        The `Count`.

    Raises:
        TypeError, ValueError: for a model without graph, weights, or with NaN weights.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300),
    ...                           keras.layers.Dense(100), keras.layers.Dense(10)])
    >>> gss.count(model).macs
    266200
    """
    _keras.check_model(model, "count")
    return count_values(_keras.without_wrappers(model), {})


def count_values(model: keras.Model, values: Mapping[int, np.ndarray]) -> Count:
    """Counts a model as if some of its variables, `{id(variable): array}`, held other values."""
    found = trace(model, values)
    live = liveness(found, inputs=True)
    work = found.positions()
    kernels = set(work) | {id(a.variable) for a in found.axes.values() if a.role != "companion"}
    uncounted = dict(found.uncounted)
    layers = []
    for path, layer in _keras.leaf_layers(model):
        if not layer.weights:
            continue
        held = [(v, found.read(v)) for v in layer.weights]
        own = [(v, value) for v, value in held if id(v) in kernels]
        costs = [_macs(live, v, value, work[id(v)]) for v, value in own if id(v) in work]
        if path in found.skipped and not own:
            uncounted.setdefault(path, found.skipped[path])
        macs = [sum(column) for column in zip(*costs, strict=True)] or [0, 0, 0]
        layers.append(
            LayerCount(
                name=path,
                kind=type(layer).__name__,
                shape=tuple((own or held)[0][1].shape),
                parameters=sum(value.size for _, value in held),
                nonzero_parameters=sum(int(np.count_nonzero(value)) for _, value in held),
                weights=sum(value.size for _, value in own),
                nonzero_weights=sum(int(np.count_nonzero(value)) for _, value in own),
                macs=macs[0],
                live_macs=macs[1],
                nonzero_macs=macs[2],
            )
        )
    structure = {
        group.name: (group.size, live.width(group))
        for group in groups_of(found, inputs=True)
        if group.removable or group.kind == "input"
    }
    return Count(tuple(layers), uncounted, structure)


def _macs(live: Liveness, variable, value: np.ndarray, positions: int) -> tuple[int, int, int]:
    shape = list(value.shape)
    for axis in range(len(shape)):
        declared = live.trace.axes.get((id(variable), axis))
        if declared is not None:
            shape[axis] = int(live.keep(declared.labels).sum())
    return (
        value.size * positions,
        int(np.prod(shape, dtype=np.int64)) * positions,
        int(np.count_nonzero(value)) * positions,
    )


@dataclass(frozen=True)
class Share:
    """How much of a model lies in neurons that can be cut, as fractions between 0 and 1.

    Attributes:
        parameters: of its weights, biases and statistics.
        macs: of its multiply-accumulates, as far as `count` counts them.
    """

    parameters: float
    macs: float

    def summary(self) -> str:
        """Returns one sentence."""
        return (
            f"{self.macs:.1%} of the multiply-accumulates and {self.parameters:.1%} of the "
            "parameters go when all but one neuron of every removable group go."
        )


def removable_share(model: keras.Model) -> Share:
    """Returns the share of a model's cost that `slim` could remove: 1 minus what must stay.

    What must stay is the cost with one neuron left in every removable group, and every other
    channel (inputs, outputs, groups with a reason to stay) left as it is.

    Args:
        model: a built Keras 3 Sequential or functional model.

    Returns:
        The `Share`.

    Example:
    >>> import keras
    >>> from keras_gss.count import removable_share
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5),
    ...                           keras.layers.Dense(5)])
    >>> removable_share(model).macs  # 4 * 1 + 1 * 5 of 4 * 5 + 5 * 5 stay
    0.8
    """
    _keras.check_model(model, "removable_share")
    found = trace(model, numeric=False)
    work = found.positions()
    stays: dict[int, dict[int, np.ndarray]] = {}
    for group in groups_of(found):
        for piece in (*group.incoming, *group.outgoing, *group.companions):
            if group.removable:
                axes = stays.setdefault(id(piece.weight), {})
                axes[piece.axis] = axes.get(piece.axis, True) & (piece.index <= 0)
    total, least = np.zeros(2), np.zeros(2)
    for variable in model.weights:
        shape = list(variable.shape)
        cost = np.array([1, work.get(id(variable), 0)])
        total += np.prod(shape, dtype=np.int64) * cost
        for axis, mask in stays.get(id(variable), {}).items():
            shape[axis] = int(mask.sum())
        least += np.prod(shape, dtype=np.int64) * cost
    parameters, macs = (1 - least / np.maximum(total, 1)).tolist()
    return Share(parameters, macs)
