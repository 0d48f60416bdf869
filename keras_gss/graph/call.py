"""One call of one layer, as a rule sees it: the vocabulary that rules are written in."""

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import tree

from keras_gss._keras import Node, argument_names, kinds, layer_view, shape_of
from keras_gss.graph.records import Edge, Listed, Rescale, Signal, WeightAxis, Work
from keras_gss.graph.units import FIXED

if TYPE_CHECKING:
    from keras_gss.graph.trace import Trace


class Call:
    """One call of one layer or operation: what a rule reads and the steps it is written in.

    Attributes:
        operation: the layer (or `keras.ops` operation) that is called, its attributes under the
            names of Keras 3 also where it is a layer of tf_keras.
        layer: the same object as its model holds it.
        inputs: the signals of all tensor arguments, in order.
        args, kwargs: the call's arguments, signals standing for tensors.
        shapes: the shapes of the outputs, without the batch axis.
    """

    def __init__(self, trace: "Trace", path: str, node: Node, signals: Mapping[int, Signal]):
        self.trace = trace
        self.path = path
        self.layer = node.layer
        self.operation = node.operation
        self.args = [_with_signals(x, signals) for x in node.args]
        self.kwargs = {name: _with_signals(x, signals) for name, x in node.kwargs.items()}
        self.inputs = _signals(self.args, self.kwargs)
        self.identity = id(node.layer)  # of `operation`, whichever view of it there is
        self.config = ""  # where the config of `operation` lies in that of `layer`
        self.times: int | None = 1  # how often `operation` is applied
        self.batched = all(len(t.shape) for t in (*node.inputs, *node.outputs))
        self.shapes = [tuple(tensor.shape[1:]) for tensor in node.outputs]

    def inside(
        self,
        attribute: str,
        config: str = "",
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        shapes: Sequence[tuple[int | None, ...]] = (),
        times: int | None = 1,
    ) -> "Call":
        """Returns the call of a sublayer, for its own rule or to declare its variables.

        Args:
            attribute: where the layer holds it, `"cell"` for instance, or `"layers.0.dense"`.
            config: where the layer's config holds the sublayer's: `"layer.config."`, or nothing
                if the layer builds it from arguments of its own.
            args: the sublayer's arguments, signals standing for tensors.
            kwargs: those given by name.
            shapes: the shapes of its outputs, without the batch axis.
            times: how often it is applied to one sample; None if that is not known.
        """
        inner = copy.copy(self)
        part = _part(self.operation, attribute)
        inner.operation, inner.identity = layer_view(part), id(part)
        inner.config = self.config + config
        inner.args, inner.kwargs = list(args), dict(kwargs or {})
        inner.inputs = _signals(inner.args, inner.kwargs)
        inner.shapes = list(shapes)
        inner.times = None if self.times is None or times is None else self.times * times
        return inner

    @property
    def arguments(self) -> dict[str, Any]:
        """The call's arguments by the names that the layer's `call` gives them in Keras 3."""
        bound = inspect.signature(self.operation.call).bind(*self.args, **self.kwargs)
        return argument_names(self.operation, dict(bound.arguments))

    @property
    def kind(self) -> Any:
        """The class in Keras 3 of what is called."""
        return kinds(self.operation)[-1]

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
        kind = type(self.layer).__name__
        for signal in self.inputs:
            self.trace.units.fix(
                signal.labels, f"feeds '{self.layer.name}' ({kind}), which {reason}"
            )
        self.trace.skipped.setdefault(self.path, f"{kind} {reason}")
        return [
            self.signal(np.full((1,) * len(shape), FIXED), np.nan, output)
            for output, shape in enumerate(self.shapes)
        ]

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Gives units at the same positions one fate."""
        self.trace.units.tie(
            first, second, f"is tied by '{self.layer.name}' to channels that must stay"
        )

    def keep_masks(self, *tensors: Signal) -> None:
        """Leaves the units of all inputs but `tensors` whole: they mask the call."""
        for signal in self.inputs:
            if not any(signal is each for each in tensors):
                self.trace.units.fix(signal.labels, f"masks '{self.layer.name}'")

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
        size = signal.shape[axis]
        labels, value = signal.labels.ravel(), signal.value.ravel()
        return (
            labels if labels.size == size else np.broadcast_to(labels, size),
            value if value.size == size else np.broadcast_to(value, size),
        )

    def spread(self, vector: np.ndarray, axis: int, output: int = 0) -> np.ndarray:
        """Lays a vector along one axis of the output, all others of length 1."""
        shape = [1] * len(self.shapes[output])
        shape[axis] = -1
        return vector.reshape(shape)

    def units(self, count: int, kind: str = "") -> np.ndarray:
        """Returns the layer's own neurons: new at its first call, the same at every later one.

        Args:
            count: how many.
            kind: tells apart several sets of neurons of one layer.
        """
        fresh, key = self.trace.fresh, (self.identity, kind)
        if key not in fresh:
            fresh[key] = self.trace.units.fresh(count)
        return fresh[key]

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
        axis %= len(shape_of(variable))
        new = WeightAxis(self.path, self.layer, variable, axis, labels, role)
        old = self.trace.axes.setdefault((id(variable), axis), new)
        if old is not new:
            self.tie(old.labels, labels)

    def resize(
        self, key: str, signal: Signal, compute: Callable[[tuple[int | None, ...]], Any]
    ) -> None:
        """Declares a config entry that follows the lengths of `signal`'s axes that remain."""
        self.trace.resize(self.layer, self.config + key, signal, compute)

    def listed(self, key: str, values: Any, labels: np.ndarray) -> None:
        """Declares a config entry that lists one number (or one for all) per channel.

        Args:
            key: the entry's key in the layer's config.
            values: the numbers, broadcastable to the shape of `labels`.
            labels: unit ids, shape `(channels,)`.
        """
        new = Listed(self.layer, key, np.broadcast_to(values, labels.shape), labels)
        old = self.trace.listed.setdefault((id(self.layer), key), new)
        if old is not new:
            self.tie(old.labels, labels)

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
            outputs: see `Edge`.
            nonzero: bool, `(inputs, *outputs.shape)`: whether any tap joins the two.
            sums: what the taps of all inputs add up to, shape `(inputs, *bias.shape)`; the kernel
                itself if there is one tap.
            absorbs: see `Edge`.
            bias: name of the bias variable.

        Returns:
            float64, in the shape of the bias: the constant of each output, NaN where it varies.
        """
        labels, value = inputs
        variable = self.variable(bias)
        can_have_bias = hasattr(self.operation, "use_bias") and not self.config
        absorbs = absorbs and (variable is not None or can_have_bias)
        constant = np.flatnonzero(np.nan_to_num(value))
        sums = sums[constant]
        ends = labels, outputs, _packed(nonzero, len(labels)), value
        edge = Edge(self.path, self.layer, variable, *ends, constant, sums, absorbs)
        varies = nonzero.any(0, where=edge.blocked().reshape(-1, *[1] * outputs.ndim))
        emitted = np.tensordot(value[constant], sums, 1)
        if variable is not None:
            emitted = emitted + self.trace.read(variable)
        known = self.trace.edges.setdefault(self.identity, edge)
        if known is not edge:
            known.value = np.where(known.value == value, value, np.nan)
            known.absorbs = known.absorbs and absorbs
        return np.where(varies, np.nan, emitted)

    def reads(self, inputs: np.ndarray, outputs: np.ndarray, nonzero: np.ndarray) -> None:
        """Says which units `outputs` need which `inputs` although no weight joins the two.

        Args:
            inputs: unit ids, shape `(inputs,)`.
            outputs: unit ids, any shape.
            nonzero: bool, broadcast to `(inputs, *outputs.shape)`.
        """
        shape = (len(inputs), *outputs.shape)
        bits = _packed(np.broadcast_to(nonzero, shape), len(inputs))
        ends = inputs, outputs, bits, np.full(len(inputs), np.nan)
        edge = Edge(self.path, self.layer, None, *ends, np.zeros(0, int), np.zeros((0, 1)), False)
        self.trace.edges[self.identity, len(self.trace.edges)] = edge

    def at_least(self, labels: np.ndarray, count: int) -> None:
        """Keeps this many of some units, although nothing may need them."""
        self.trace.least.append((labels, count))

    def as_many(self, first: np.ndarray, second: np.ndarray) -> None:
        """Keeps as many of some units as of others, although nothing may need them."""
        self.trace.equal.append((first, second))

    def rescale(self, name: str, labels: np.ndarray, compute: Callable[[int, int], float]) -> None:
        """Multiplies a variable by `compute(width, width that remains)` of some units."""
        variable = self.variable(name)
        if variable is not None:
            self.trace.rescales[id(variable)] = Rescale(variable, labels, compute)

    def padded(self, labels: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Returns constants, `(channels,)`, after zeros are put around them: only 0 stays one.

        The others are noted: their neurons stay because of the border.
        """
        shown = ~np.isnan(value) & (value != 0)
        self.trace.borders.append((self.path, labels[shown]))
        return np.where(value == 0, 0.0, np.nan)

    def work(self, name: str, shape: tuple[int | None, ...]) -> None:
        """Counts a kernel's use at every position of a tensor of this spatial shape."""
        if any(size is None for size in (*shape, self.times)):
            self.trace.uncounted[self.path] = "its spatial size is not known"
            return
        positions = math.prod(shape) * self.times
        self.trace.work.append(Work(self.path, self.variable(name), positions))


def _packed(nonzero: np.ndarray, inputs: int) -> np.ndarray:
    return np.packbits(nonzero.reshape(inputs, -1), axis=1)


def _part(layer: Any, attribute: str) -> Any:
    for name in attribute.split("."):
        layer = layer[int(name)] if name.isdigit() else getattr(layer, name)
    return layer


def _with_signals(argument: Any, signals: Mapping[int, Signal]) -> Any:
    """Returns an argument with signals for its tensors; most are a tensor or a plain value."""
    found = signals.get(id(argument))
    if found is None and isinstance(argument, (tuple, list, dict)):
        return tree.map_structure(lambda x: signals.get(id(x), x), argument)
    return argument if found is None else found


def _signals(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Signal]:
    found = []
    for argument in (*args, *(kwargs[name] for name in sorted(kwargs))):
        nested = isinstance(argument, (tuple, list, dict))
        leaves = tree.flatten(argument) if nested else [argument]
        found += [x for x in leaves if isinstance(x, Signal)]
    return found


def _rank(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _uniform(value: np.ndarray, axis: int) -> np.ndarray:
    """Collapses one axis of constants: NaN where they differ along it."""
    if value.shape[axis] == 1:
        return value
    first = np.take(value, [0], axis)
    same = (value == first).all(axis, keepdims=True)
    return np.where(same, first, np.nan)
