"""One walk over a model's graph: which neuron every channel of every tensor carries.

Every tensor becomes a `Signal`: the unit (neuron) at each channel position, and the constant that
position provably holds. The rules of `keras_gss.graph.rules` say what one kind of layer does to
signals; everything else (groups, liveness, counting, cutting) reads what the walk recorded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_gss import _keras
from keras_gss.graph.units import FIXED, Units

_MAX_INPUT_FEATURES = 2**20
OUTPUT = "is the model's output"


@dataclass(frozen=True, eq=False)
class Signal:
    """What one tensor carries, per sample.

    Attributes:
        shape: the tensor's shape without the batch axis; `None` where unknown.
        labels: unit ids, one axis per axis of `shape`, of length 1 where all positions of the axis
            carry the same unit, else of full length.
        value: float64, laid out like `labels` (not necessarily collapsed alike): the number every
            sample holds there at inference, or NaN where it varies or is not known.
    """

    shape: tuple[int | None, ...]
    labels: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class WeightAxis:
    """One axis of one weight and the unit that owns each position along it."""

    path: str
    layer: keras.Layer
    variable: Any
    axis: int
    labels: np.ndarray
    role: str  # "incoming", "outgoing" or "companion"


@dataclass(eq=False)
class Edge:
    """How a layer with a kernel maps input channels to output channels, over all its calls.

    `nonzero` and `sums`, shape `(inputs, outputs)`, tell whether any tap joins the two channels
    and what the taps add up to; `value`, shape `(inputs,)`, is the constant every call brings;
    `absorbs` whether a non-zero constant input can be folded into the bias exactly.
    """

    path: str
    layer: keras.Layer
    bias: Any
    inputs: np.ndarray
    outputs: np.ndarray
    nonzero: np.ndarray
    sums: np.ndarray
    value: np.ndarray
    absorbs: bool

    def blocked(self) -> np.ndarray:
        """Returns which inputs cannot be folded away: they vary, or a border would show them."""
        return np.isnan(self.value) | ((self.value != 0) & (not self.absorbs))


@dataclass(frozen=True, eq=False)
class Resize:
    """A config entry that follows the widths that remain: `config[key] = compute(sizes)`."""

    operation: Any
    key: str
    signal: Signal
    compute: Callable[[tuple[int | None, ...]], Any]


@dataclass(frozen=True, eq=False)
class Work:
    """One use of a kernel: every entry is multiplied `positions` times for one sample."""

    path: str
    variable: Any
    positions: int


@dataclass(eq=False)
class Trace:
    """What the walk found; made by `trace`."""

    model: keras.Model
    numeric: bool
    values: Mapping[int, np.ndarray]
    units: Units = field(default_factory=Units)
    axes: dict[tuple[int, int], WeightAxis] = field(default_factory=dict)
    edges: dict[int, Edge] = field(default_factory=dict)
    resizes: dict[tuple[int, str], Resize] = field(default_factory=dict)
    work: list[Work] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    inputs: list[tuple[Any, Signal]] = field(default_factory=list)
    outputs: list[Signal] = field(default_factory=list)
    fresh: dict[int, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    uncounted: dict[str, str] = field(default_factory=dict)

    def read(self, variable: Any) -> np.ndarray:
        """Returns the value that a variable holds, or is supposed to hold."""
        value = self.values.get(id(variable))
        return _keras.to_numpy(variable) if value is None else value

    def resize(self, operation: Any, key: str, signal: Signal, compute: Callable) -> None:
        """Declares a config entry; calls of one shared layer get one size by tying their units."""
        first = self.resizes.setdefault(
            (id(operation), key), Resize(operation, key, signal, compute)
        )
        if first.signal is not signal:
            if first.signal.shape == signal.shape:
                reason = f"'{operation.name}' is shared and one of its inputs must stay whole"
                self.units.tie(first.signal.labels, signal.labels, reason)
            else:
                reason = f"'{operation.name}' is shared by tensors of different shapes"
                self.units.fix(first.signal.labels, reason)
                self.units.fix(signal.labels, reason)


class Call:
    """One call of one layer or operation: what a rule reads and the steps it is written in.

    Attributes:
        operation: the layer (or `keras.ops` operation) that is called.
        inputs: the signals of all tensor arguments, in order.
        args, kwargs: the call's arguments, signals standing for tensors.
        shapes: the shapes of the outputs, without the batch axis.
    """

    def __init__(self, trace: Trace, path: str, operation: Any, node: Any, lookup: Callable):
        self.trace = trace
        self.path = path
        self.operation = operation
        self.args, self.kwargs = tree.map_structure(
            lambda x: lookup(x) if isinstance(x, keras.KerasTensor) else x,
            (list(node.arguments.args), dict(node.arguments.kwargs)),
        )
        flat = tree.flatten((self.args, self.kwargs))
        self.inputs = [x for x in flat if isinstance(x, Signal)]
        self.batched = all(t.shape for t in (*node.input_tensors, *node.outputs))
        self.shapes = [tuple(tensor.shape[1:]) for tensor in node.outputs]

    @property
    def x(self) -> Signal:
        """The first input's signal."""
        return self.inputs[0]

    @property
    def numeric(self) -> bool:
        """Whether the walk reads weights (it need not to find groups)."""
        return self.trace.numeric

    @property
    def training(self) -> bool:
        """Whether the call is wired to behave as in training, `layer(x, training=True)`."""
        return bool(self.kwargs.get("training"))

    def variable(self, name: str) -> Any:
        """Returns the layer's variable of that attribute name, or None if it has none."""
        return getattr(self.operation, name, None)

    def read(self, name: str) -> np.ndarray:
        """Returns the value of the layer's variable `name`."""
        return self.trace.read(self.variable(name))

    def signal(self, labels: np.ndarray, value: np.ndarray | float, output: int = 0) -> Signal:
        """Makes an output signal; `labels` and `value` broadcast against the output's shape."""
        shape = self.shapes[output]
        value = np.asarray(value, dtype=np.float64)
        return Signal(shape, _rank(labels, len(shape)), _rank(value, len(shape)))

    def like(self, value: np.ndarray | float | None = None) -> Signal:
        """An output that carries the first input's units, with its constants or new ones."""
        return self.signal(self.x.labels, self.x.value if value is None else value)

    def barrier(self, reason: str) -> list[Signal]:
        """Leaves everything that this call touches whole.

        Args:
            reason: continues the sentence "'dense' feeds 'lambda' (Lambda), ...".
        """
        kind = type(self.operation).__name__
        for signal in self.inputs:
            self.trace.units.fix(
                signal.labels, f"feeds '{self.operation.name}' ({kind}), which {reason}"
            )
        self.trace.skipped.setdefault(self.path, f"{kind} {reason}")
        return [
            self.signal(np.full((1,) * len(shape), FIXED), np.nan, output)
            for output, shape in enumerate(self.shapes)
        ]

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Gives units at the same positions one fate."""
        self.trace.units.tie(
            first, second, f"is tied by '{self.operation.name}' to channels that must stay"
        )

    def collapse(self, signal: Signal, axes: tuple[int, ...]) -> Signal:
        """Ties the units along `axes`, so that each of these axes has one unit."""
        labels, value = signal.labels, signal.value
        for axis in axes:
            if labels.shape[axis] > 1:
                first = np.take(labels, [0], axis)
                self.tie(np.broadcast_to(first, labels.shape), labels)
                labels = first
            value = _uniform(value, axis)
        return Signal(signal.shape, labels, value)

    def along(self, signal: Signal, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns units and constants along one axis, ties made along all others.

        Returns:
            `(labels, value)`, both of shape `(signal.shape[axis],)`.
        """
        axis %= len(signal.shape)
        others = tuple(a for a in range(len(signal.shape)) if a != axis)
        signal = self.collapse(signal, others)
        size = (signal.shape[axis],)
        return (
            np.broadcast_to(signal.labels.ravel(), size),
            np.broadcast_to(signal.value.ravel(), size),
        )

    def spread(self, vector: np.ndarray, axis: int, output: int = 0) -> np.ndarray:
        """Lays a vector along one axis of the output, all others of length 1."""
        shape = [1] * len(self.shapes[output])
        shape[axis] = -1
        return np.reshape(vector, shape)

    def units(self, count: int) -> np.ndarray:
        """Returns the layer's own neurons: new at its first call, the same at every later one."""
        fresh = self.trace.fresh
        if id(self.operation) not in fresh:
            fresh[id(self.operation)] = self.trace.units.fresh(count)
        return fresh[id(self.operation)]

    def declare(self, name: str, axis: int, labels: np.ndarray, role: str = "companion") -> None:
        """Says which unit owns each position along one axis of the layer's variable `name`.

        Args:
            name: the variable's attribute name; nothing happens if the layer has none.
            axis: the variable's axis; negative counts from the end.
            labels: unit ids, shape `(variable.shape[axis],)`.
            role: `"incoming"` for a kernel whose slice makes the unit, `"outgoing"` for one whose
                slice reads it, `"companion"` for what is cut along but never penalised.
        """
        variable = self.variable(name)
        if variable is None:
            return
        axis %= len(variable.shape)
        new = WeightAxis(self.path, self.operation, variable, axis, labels, role)
        old = self.trace.axes.setdefault((id(variable), axis), new)
        if old is not new:
            self.tie(old.labels, labels)

    def resize(
        self, key: str, signal: Signal, compute: Callable[[tuple[int | None, ...]], Any]
    ) -> None:
        """Declares a config entry that follows the lengths of `signal`'s axes that remain."""
        self.trace.resize(self.operation, key, signal, compute)

    def edge(
        self,
        inputs: tuple[np.ndarray, np.ndarray],
        outputs: np.ndarray,
        nonzero: np.ndarray,
        sums: np.ndarray,
        absorbs: bool,
        bias: str = "bias",
    ) -> np.ndarray:
        """Records a channel-mixing map and returns the constants that it emits.

        Args:
            inputs: units and constants of the inputs, as `along` returns them.
            outputs: units of the outputs, shape `(outputs,)`.
            nonzero: see `Edge`.
            sums: see `Edge`.
            absorbs: see `Edge`.
            bias: name of the bias variable.

        Returns:
            float64, shape `(outputs,)`: the constant of each output, NaN where it varies.
        """
        labels, value = inputs
        variable = self.variable(bias)
        absorbs = absorbs and (variable is not None or hasattr(self.operation, "use_bias"))
        edge = Edge(
            self.path, self.operation, variable, labels, outputs, nonzero, sums, value, absorbs
        )
        varies = nonzero[edge.blocked()].any(0)
        emitted = np.nan_to_num(value) @ sums
        if variable is not None:
            emitted = emitted + self.trace.read(variable)
        known = self.trace.edges.setdefault(id(self.operation), edge)
        if known is not edge:
            known.value = np.where(known.value == value, value, np.nan)
            known.absorbs = known.absorbs and absorbs
        return np.where(varies, np.nan, emitted)

    def work(self, name: str, shape: tuple[int | None, ...]) -> None:
        """Counts a kernel's use at every position of a tensor of this spatial shape."""
        if any(size is None for size in shape):
            self.trace.uncounted[self.path] = "its spatial size is not known"
            return
        positions = int(np.prod(shape, dtype=np.int64))
        self.trace.work.append(Work(self.path, self.variable(name), positions))


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
    graph = _keras.graph_of(model)
    signals = []
    for tensor in graph.inputs:
        operation = tensor._keras_history.operation
        signal = _input_signal(found.units, tensor)
        found.inputs.append((operation, signal))
        signals.append(signal)
    found.outputs = _walk(found, model, signals, "")
    for signal in found.outputs:
        found.units.fix(signal.labels, OUTPUT)
    _fix_foreign_uses(found)
    return found


def _input_signal(units: Units, tensor: keras.KerasTensor) -> Signal:
    shape = tuple(tensor.shape[1:])
    sizes = [size or 1 for size in shape]
    if np.prod(sizes, dtype=np.int64) > _MAX_INPUT_FEATURES:
        sizes = [1] * (len(sizes) - 1) + sizes[-1:]
    if keras.backend.is_float_dtype(tensor.dtype):
        labels = units.fresh(int(np.prod(sizes))).reshape(sizes)
    else:
        labels = np.full((1,) * len(shape), FIXED)
    return Signal(shape, labels, np.full((1,) * len(shape), np.nan))


def _walk(found: Trace, model: keras.Model, inputs: list[Signal], prefix: str) -> list[Signal]:
    graph = _keras.graph_of(model)
    signals = {id(tensor): s for tensor, s in zip(graph.inputs, inputs, strict=True)}
    for tensor, signal in zip(graph.inputs, inputs, strict=True):
        layer, batch = tensor._keras_history.operation, tensor.shape[0]
        found.resize(layer, "batch_shape", signal, lambda sizes, batch=batch: (batch, *sizes))
    for node in _nodes(graph):
        call = Call(
            found, prefix + node.operation.name, node.operation, node, lambda t: signals[id(t)]
        )
        outputs = _apply(call, prefix)
        found.signals.extend(outputs)
        for tensor, signal in zip(node.outputs, outputs, strict=True):
            signals[id(tensor)] = signal
    return [signals[id(tensor)] for tensor in graph.outputs]


def _nodes(graph: keras.Model) -> Iterator[Any]:
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)


def _apply(call: Call, prefix: str) -> list[Signal]:
    from keras_gss.graph.registry import rule_for

    operation = call.operation
    if _keras.is_graph(operation) and len(call.inputs) == len(_keras.graph_of(operation).inputs):
        return _walk(call.trace, operation, call.inputs, f"{prefix}{operation.name}/")
    rule = rule_for(operation)
    if rule is None:
        return call.barrier(
            "has no rule: teach one with `gss.register_rule`"
            if isinstance(operation, keras.Layer)
            else "is an operation without a rule"
        )
    if not call.batched:
        return call.barrier("works on a tensor without a batch axis")
    if getattr(operation, "lora_enabled", False) or getattr(operation, "quantization_mode", None):
        return call.barrier("holds quantized or LoRA weights; cut before quantizing")
    outputs = rule(call)
    return [outputs] if isinstance(outputs, Signal) else list(outputs)


def _fix_foreign_uses(found: Trace) -> None:
    """Fixes weights that another layer than their own also holds: one cut would break the other."""
    owners: dict[int, set[int]] = {}
    for _, layer in _keras.leaf_layers(found.model):
        for variable in layer.weights:
            owners.setdefault(id(variable), set()).add(id(layer))
    for axis in found.axes.values():
        if len(owners.get(id(axis.variable), ())) > 1:
            found.units.fix(axis.labels, f"shares the weight '{axis.variable.path}' between layers")


def _rank(array: np.ndarray, rank: int) -> np.ndarray:
    return np.reshape(array, (1,) * (rank - array.ndim) + array.shape)


def _uniform(value: np.ndarray, axis: int) -> np.ndarray:
    """Collapses one axis of constants: NaN where they differ along it."""
    first = np.take(value, [0], axis)
    same = (value == first).all(axis, keepdims=True)
    return np.where(same, first, np.nan)
