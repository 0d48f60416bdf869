"""One walk over a model's graph: which neuron every channel of every tensor carries.

Every tensor becomes a `Signal`: the unit (neuron) at each channel position, and the constant that
position provably holds. The rules of `keras_gss.graph.rules` say what one kind of layer does to
signals; everything else (groups, liveness, counting, cutting) reads what the walk recorded.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_gss import _keras
from keras_gss.graph.call import Call
from keras_gss.graph.records import Edge, Listed, Rescale, Resize, Signal, WeightAxis, Work
from keras_gss.graph.registry import rule_for
from keras_gss.graph.units import FIXED, Units

_MAX_INPUT_FEATURES = 2**20
OUTPUT = "is the model's output"


@dataclass(eq=False)
class Trace:
    """What the walk found; made by `trace`."""

    model: keras.Model
    numeric: bool
    values: Mapping[int, np.ndarray]
    units: Units = field(default_factory=Units)
    axes: dict[tuple[int, int], WeightAxis] = field(default_factory=dict)
    edges: dict[Any, Edge] = field(default_factory=dict)
    resizes: dict[tuple[int, str], Resize] = field(default_factory=dict)
    rescales: dict[int, Rescale] = field(default_factory=dict)
    listed: dict[tuple[int, str], Listed] = field(default_factory=dict)
    work: list[Work] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    inputs: list[tuple[Any, Signal]] = field(default_factory=list)
    outputs: list[Signal] = field(default_factory=list)
    fresh: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    least: list[tuple[np.ndarray, int]] = field(default_factory=list)
    equal: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    borders: list[tuple[str, np.ndarray]] = field(default_factory=list)
    uncounted: dict[str, str] = field(default_factory=dict)

    def read(self, variable: Any) -> np.ndarray:
        """Returns the value that a variable holds, or is supposed to hold."""
        value = self.values.get(id(variable))
        return _keras.to_numpy(variable) if value is None else value

    def positions(self) -> dict[int, int]:
        """Returns `{id(kernel): how often it is applied to one sample}`, over all its calls."""
        total: dict[int, int] = {}
        for entry in self.work:
            total[id(entry.variable)] = total.get(id(entry.variable), 0) + entry.positions
        return total

    def resize(self, operation: Any, key: str, signal: Signal, compute: Callable) -> None:
        """Declares a config entry; calls of one shared layer get one size by tying their units."""
        first = self.resizes.setdefault(
            (id(operation), key), Resize(operation, key, signal, compute)
        )
        if first.signal is not signal:
            if signal.labels.shape in (first.signal.labels.shape, first.signal.shape):
                reason = f"'{operation.name}' is shared and one of its inputs must stay whole"
                self.units.tie(first.signal.labels, signal.labels, reason)
            else:
                reason = f"'{operation.name}' is shared by tensors of different shapes"
                self.units.fix(first.signal.labels, reason)
                self.units.fix(signal.labels, reason)


def trace(
    model: keras.Model, values: Mapping[int, np.ndarray] | None = None, numeric: bool = True
) -> Trace:
    """Walks a model's graph once, in time linear in its nodes and weights.

    Args:
        model: a built Sequential or functional model (checked by the caller).
        values: `{id(variable): array}`, what some variables are supposed to hold.
        numeric: read the weights too; without it only ties and slices are found.

    Returns:
        The `Trace`.
    """
    found = Trace(model, numeric, values or {})
    signals = []
    for source in _keras.sources(model):
        signal = _input_signal(found.units, source)
        found.inputs.append((source.layer, signal))
        signals.append(signal)
    found.outputs = _walk(found, model, signals, "")
    for signal in found.outputs:
        found.units.fix(signal.labels, OUTPUT)
    _fix_foreign_uses(found)
    return found


def _input_signal(units: Units, source: _keras.Source) -> Signal:
    shape = source.shape[1:]
    sizes = [size or 1 for size in shape]
    if math.prod(sizes) > _MAX_INPUT_FEATURES:
        sizes = [1] * (len(sizes) - 1) + sizes[-1:]
    if keras.backend.is_float_dtype(source.dtype):
        labels = units.fresh(math.prod(sizes)).reshape(sizes)
    else:
        labels = np.full((1,) * len(shape), FIXED)
    return Signal(shape, labels, np.full((1,) * len(shape), np.nan))


def _walk(found: Trace, model: keras.Model, inputs: list[Signal], prefix: str) -> list[Signal]:
    signals = {}
    for source, signal in zip(_keras.sources(model), inputs, strict=True):
        signals[id(source.tensor)] = signal
        batch, *declared = source.shape

        def resized(sizes: tuple, batch=batch, declared=declared) -> tuple:
            if len(sizes) < len(declared):  # used features that form no rectangle, in one line
                return (batch, *sizes)
            known = (None if old is None else new for old, new in zip(declared, sizes, strict=True))
            return (batch, *known)

        found.resize(source.layer, source.shape_key, signal, resized)
    for node in _keras.nodes(model):
        call = Call(found, prefix + node.layer.name, node, signals)
        outputs = _apply(call, prefix)
        found.signals.extend(outputs)
        for tensor, signal in zip(node.outputs, outputs, strict=True):
            signals[id(tensor)] = signal
    return [signals[id(tensor)] for tensor in _keras.outputs(model)]


def _apply(call: Call, prefix: str) -> list[Signal]:
    operation, layer = call.operation, call.layer
    if _keras.is_graph(layer) and len(call.inputs) == len(_keras.sources(layer)):
        return _walk(call.trace, layer, call.inputs, f"{prefix}{layer.name}/")
    rule = rule_for(operation)
    if rule is None:
        return call.barrier(_without_rule(layer))
    if not call.batched:
        return call.barrier("works on a tensor without a batch axis")
    if _keras.replaces_weights(layer):
        return call.barrier("holds quantized or LoRA weights; cut before quantizing")
    why = _keras.why_not_rebuilt(layer)
    if why:
        return call.barrier(f"is not built by its own `get_config`: {why[:-1]}")
    outputs = rule(call)
    return [outputs] if isinstance(outputs, Signal) else list(outputs)


def _without_rule(layer: Any) -> str:
    if not _keras.is_layer(layer):
        return "is an operation without a rule: put it into a layer that you teach a rule"
    if type(layer).__name__ == "Lambda":
        return "has no rule: write it with `keras.ops`, or as a layer that you teach a rule"
    if _keras.is_model(layer):
        return "has no rule: build it as a functional model instead of with a `call` of its own"
    return "has no rule: teach one with `gss.register_rule`"


def _fix_foreign_uses(found: Trace) -> None:
    """Fixes weights that another layer than their own also holds: one cut would break the other."""
    owners: dict[int, set[int]] = {}
    for _, layer in _keras.leaf_layers(found.model):
        for variable in layer.weights:
            owners.setdefault(id(variable), set()).add(id(layer))
    for axis in found.axes.values():
        if len(owners.get(id(axis.variable), ())) > 1:
            found.units.fix(
                axis.labels, f"shares the weight '{_keras.path_of(axis.variable)}' between layers"
            )
