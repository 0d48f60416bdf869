"""A slow, independent computation of what `keras_gss.slim` must leave of a generated model.

Written from the contract (graph-notes.md), not from the library: every tensor is held element by element,
as an array of unit labels and an array of constants of its full per-sample shape, so that flattening,
permuting and concatenating are plain NumPy. See `random_models.Program` for what it reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

VARIES = np.nan
FIXED = 0


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[float])(x)


FUNCTIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "leaky_relu_0.3": lambda x: np.where(x > 0, x, 0.3 * x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "relu6": lambda x: np.clip(x, 0, 6),
    "x * 0.5 + 1": lambda x: x * 0.5 + 1.0,
    "1 - x": lambda x: 1.0 - x,
    "x / 2": lambda x: x / 2.0,
    "-x": lambda x: -x,
    "2 * x": lambda x: 2.0 * x,
    "x - 0.25": lambda x: x - 0.25,
    "x * 0.5 + 0.25": lambda x: x * 0.5 + 0.25,
    "softsign": lambda x: x / (1 + np.abs(x)),
}


def _function(name: str, x: np.ndarray) -> np.ndarray:
    """`FUNCTIONS[name]` where `x` is a number, VARIES elsewhere."""
    known = ~np.isnan(x)
    return np.where(known, FUNCTIONS[name](np.where(known, x, 1.0)), VARIES)


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


MERGES = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": _multiply,
    "average": lambda a, b: (a + b) / 2,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def channel_values(values: np.ndarray) -> np.ndarray:
    """One constant per channel (last axis), VARIES where it is not the same number everywhere."""
    flat = values.reshape(-1, values.shape[-1])
    # spread is NaN when any element varies
    spread = flat.max(axis=0) - flat.min(axis=0)
    return np.where(spread <= 1e-9 * (1 + np.abs(flat[0])), flat[0], VARIES)


def pads(info: dict, shape: tuple[int, ...]) -> bool:
    """Whether a convolution or depthwise convolution computes any padding on this input."""
    if info["padding"] == "valid":
        return False
    sizes = zip(shape[:-1], info["kernel_size"], info["strides"], info["dilation"], strict=True)
    for length, size, stride, dilation in sizes:
        reach = (size - 1) * dilation + 1
        if info["padding"] == "causal":
            if reach > 1:
                return True
        elif (math.ceil(length / stride) - 1) * stride + reach > length:
            return True
    return False


@dataclass
class Sink:
    """The contracted axis of one layer: its units, per call its constants and which it can absorb."""

    rows: list[np.ndarray] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)
    absorbed: list[np.ndarray] = field(default_factory=list)

    def absorbable(self) -> np.ndarray:
        """A shared layer absorbs an input only if every call brings the same constant."""
        same = np.ones(len(self.constants[0]), bool)
        for values in self.constants[1:]:
            same &= np.isclose(values, self.constants[0], rtol=1e-9, atol=0)
        return same & np.all(self.absorbed, axis=0)


class Oracle:
    """Labels, constants and liveness of a `random_models.Program`."""

    def __init__(self, program):
        self.program = program
        self.parent = [FIXED]
        self.units: dict[int, np.ndarray] = {}
        self.sinks: dict[int, Sink] = {}
        self.passed: dict[int, np.ndarray] = {}
        self.labels: dict[int, np.ndarray] = {}
        self.values: dict[int, np.ndarray] = {}
        for tensor in program.inputs:
            self.labels[tensor] = np.zeros(program.shapes[tensor], int)
        for step in program.steps:
            self._label(step)
        for tensor in program.outputs:
            self._tie(self.labels[tensor], FIXED)

    # ---- units -------------------------------------------------------------------------------

    def find(self, unit: int) -> int:
        while self.parent[unit] != unit:
            unit = self.parent[unit]
        return unit

    def roots(self, units: np.ndarray) -> np.ndarray:
        return np.array([self.find(int(u)) for u in np.ravel(units)], int).reshape(np.shape(units))

    def _tie(self, a: np.ndarray, b) -> None:
        for x, y in np.broadcast(a, b):
            x, y = sorted((self.find(int(x)), self.find(int(y))))
            self.parent[y] = x

    def _tie_places(self, labels: np.ndarray) -> np.ndarray:
        """Tie each channel (last axis) with itself at every place; the common labels, per channel."""
        flat = labels.reshape(-1, labels.shape[-1])
        self._tie(flat, flat[0])
        return flat[0]

    def _new_units(self, count: int) -> np.ndarray:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def _label(self, step) -> None:
        piece, shape = step.piece, self.program.shapes[step.output]
        given = [self.labels[tensor] for tensor in step.inputs]
        self.labels[step.output] = getattr(self, f"_label_{piece.family}")(piece, given, shape)

    def _label_linear(self, piece, given, shape):
        rows = self._tie_places(given[0])
        if piece.groups > 1:
            self._tie(
                *np.broadcast_arrays(
                    rows.reshape(piece.groups, -1), rows[: len(rows) // piece.groups]
                )
            )
        if id(piece) not in self.units:
            new = self._new_units(shape[-1] // piece.groups)
            self.units[id(piece)] = np.tile(new, piece.groups)
            if piece.info["activation"] == "softmax":
                self._tie(self.units[id(piece)], FIXED)
        if piece.gates > 1 or piece.kind == "SimpleRNN":
            rows = np.concatenate([rows, self.units[id(piece)]])
        sink = self.sinks.setdefault(id(piece), Sink())
        if sink.rows:
            self._tie(rows, sink.rows[0])
        sink.rows.append(rows)
        return np.broadcast_to(self.units[id(piece)], shape).copy()

    def _label_channelwise(self, piece, given, shape):
        labels = self._tie_places(given[0])
        if id(piece) in self.passed:
            self._tie(labels, self.passed[id(piece)])
        self.passed[id(piece)] = labels
        labels = np.repeat(labels, shape[-1] // len(labels))
        return np.broadcast_to(labels, shape).copy()

    def _label_elementwise(self, piece, given, shape):
        return given[0]

    def _label_spatial(self, piece, given, shape):
        return np.broadcast_to(self._tie_places(given[0]), shape).copy()

    def _label_places(self, piece, given, shape):
        return np.broadcast_to(self._tie_places(given[0]), shape).copy()

    def _label_mover(self, piece, given, shape):
        labels = piece.info["move"](*given)
        if piece.info.get("ties"):
            self._tie_places(labels)
        return labels

    def _label_merge(self, piece, given, shape):
        a, b = np.broadcast_arrays(*given)
        self._tie(a, b)
        return a.copy()

    def _label_barrier(self, piece, given, shape):
        for labels in given:
            self._tie(labels, FIXED)
        return np.zeros(shape, int)

    # ---- constants -----------------------------------------------------------------------------

    def run(self) -> Oracle:
        """Read the weights: find the constants, then what is needed; returns self."""
        for sink in self.sinks.values():
            sink.constants, sink.absorbed = [], []
        for tensor in self.program.inputs:
            self.values[tensor] = np.full(self.program.shapes[tensor], VARIES)
        for step in self.program.steps:
            given = [self.values[tensor] for tensor in step.inputs]
            shape = self.program.shapes[step.output]
            value = getattr(self, f"_value_{step.piece.family}")(step.piece, given, shape)
            self.values[step.output] = np.broadcast_to(value, shape)
        self._find_needed()
        return self

    def _value_linear(self, piece, given, shape):
        incoming = channel_values(given[0])
        if "recurrent_kernel" in piece.weights:
            return self._value_recurrent(piece, incoming)
        live, total = piece.channel_matrix()
        info = piece.info
        whole = not info["transposed"] or (set(info["kernel_size"]) | set(info["strides"]) == {1})
        exact = whole and not pads(info, given[0].shape)
        absorbed = (incoming == 0) | (~np.isnan(incoming) & exact)
        sink = self.sinks[id(piece)]
        sink.constants.append(incoming)
        sink.absorbed.append(absorbed)
        folded = np.where(absorbed, np.nan_to_num(incoming), 0.0) @ np.where(live, total, 0.0)
        constant = ~np.any(live & ~absorbed[:, None], axis=0)
        value = np.where(constant, piece.bias() + folded, VARIES)
        if info["activation"] == "softmax":
            return np.full_like(value, VARIES)
        return _function(info["activation"], value)

    def _value_recurrent(self, piece, incoming):
        """A unit stays at its first state, zero, if nothing ever reaches its candidate gate."""
        w, units = piece.weights, len(piece.weights["recurrent_kernel"])
        first = 2 * units if piece.gates > 2 else 0
        silent = []
        for unit in range(units):
            column = w["kernel"][incoming != 0, first + unit]
            biases = w["bias"].reshape(-1, piece.gates * units)[:, first + unit]
            silent.append(not column.any() and not biases.any())
        for _ in range(units):
            heard = w["recurrent_kernel"][~np.array(silent)][:, first : first + units].any(axis=0)
            silent = [quiet and not loud for quiet, loud in zip(silent, heard, strict=True)]
        state = np.where(silent, 0.0, VARIES)
        sink = self.sinks[id(piece)]
        sink.constants.append(np.concatenate([incoming, state]))
        sink.absorbed.append(~np.isnan(sink.constants[-1]))
        return state

    def _value_places(self, piece, given, shape):
        return VARIES

    def _value_channelwise(self, piece, given, shape):
        incoming = channel_values(given[0])
        if piece.kind == "BatchNormalization":
            w = piece.weights
            gamma = w.get("gamma", np.ones(shape[-1]))
            scale = gamma / np.sqrt(w["moving_variance"] + piece.info["epsilon"])
            moved = _multiply(scale, incoming - w["moving_mean"])
            return moved + w.get("beta", 0.0)
        if piece.kind == "PReLU":
            alpha = piece.weights["alpha"].reshape(-1)
            return np.where(incoming > 0, incoming, alpha * incoming)
        kernel = piece.weights["kernel"].reshape(-1, *piece.weights["kernel"].shape[-2:])
        live, total = kernel.any(axis=0).ravel(), kernel.sum(axis=0).ravel()
        incoming = np.repeat(incoming, shape[-1] // len(incoming))
        fine = (incoming == 0) | (not pads(piece.info, given[0].shape))
        value = np.where(live, np.where(fine, incoming * total, VARIES), 0.0) + piece.bias()
        return _function(piece.info["activation"], value)

    def _value_elementwise(self, piece, given, shape):
        return _function(piece.info["function"], given[0])

    def _value_spatial(self, piece, given, shape):
        value = channel_values(given[0])
        return np.where(value == 0, 0.0, VARIES) if piece.info.get("pads") else value

    def _value_mover(self, piece, given, shape):
        return piece.info["move"](*given)

    def _value_merge(self, piece, given, shape):
        return MERGES[piece.info["merge"]](*given)

    def _value_barrier(self, piece, given, shape):
        return VARIES

    # ---- liveness ------------------------------------------------------------------------------

    def _find_needed(self) -> None:
        pieces = [p for p in self.program.pieces if id(p) in self.units]
        edges: dict[int, set[int]] = {}
        for piece in pieces:
            sink = self.sinks[id(piece)]
            live = piece.channel_matrix()[0] & ~sink.absorbable()[:, None]
            rows, columns = self.roots(sink.rows[0]), self.roots(self.units[id(piece)])
            for i, j in zip(*np.nonzero(live), strict=True):
                edges.setdefault(columns[j], set()).add(rows[i])
        self.needed: set[int] = set()
        self._need(FIXED, edges)
        self.rescued = 0
        self.read = set(self.needed)
        for step in self.program.steps:
            labels = self.roots(self.labels[step.output])
            if not np.isin(labels, list(self.needed)).any():
                self.rescued += 1
                self.needed.add(int(labels.flat[0]))

    def _need(self, unit: int, edges: dict[int, set[int]]) -> None:
        waiting = [unit]
        while waiting:
            unit = waiting.pop()
            if unit not in self.needed:
                self.needed.add(unit)
                waiting.extend(edges.get(unit, ()))

    def kept(self, units: np.ndarray) -> np.ndarray:
        """Bool array: which of these units stay."""
        return np.isin(self.roots(units), list(self.needed))

    def expected_weights(self, piece) -> dict[str, np.ndarray]:
        """What `slim` must leave of the weights of `piece`; biases are given without what is folded.

        A unit kept only because its layer needs a width of 1 is folded like the cut ones: whatever
        reads it must find a zero weight.
        """
        w = dict(piece.weights)
        if piece.family == "linear":
            rows = self.kept(self.sinks[id(piece)].rows[0])
            columns = self.kept(self.units[id(piece)])
            silent = rows & ~self.is_read(self.sinks[id(piece)].rows[0])
            if "recurrent_kernel" in w:
                inputs, gates = len(w["kernel"]), np.tile(columns, piece.gates)
                out = {"bias": w["bias"][..., gates]}
                for name, part in (
                    ("kernel", slice(inputs)),
                    ("recurrent_kernel", slice(inputs, None)),
                ):
                    quiet = np.where(silent[part, None], 0, w[name])
                    out[name] = quiet[rows[part]][:, gates]
                return {name: out[name] for name in w}
            if piece.groups > 1:
                rows, silent = (each[: len(each) // piece.groups] for each in (rows, silent))
            if piece.info["transposed"]:
                w["kernel"] = np.where(silent, 0, w["kernel"])
            elif "pointwise_kernel" in w:
                deep = np.repeat(silent, w["depthwise_kernel"].shape[-1])
                w["pointwise_kernel"] = np.where(deep[:, None], 0, w["pointwise_kernel"])
            else:
                w["kernel"] = np.where(silent[:, None], 0, w["kernel"])
            out = {} if "bias" not in w else {"bias": w["bias"][columns]}
            if piece.info["transposed"]:
                return {"kernel": w["kernel"][..., columns, :][..., rows], **out}
            if "pointwise_kernel" in w:
                deep = np.repeat(rows, w["depthwise_kernel"].shape[-1])
                return {
                    "depthwise_kernel": w["depthwise_kernel"][..., rows, :],
                    "pointwise_kernel": w["pointwise_kernel"][..., deep, :][..., columns],
                    **out,
                }
            return {"kernel": w["kernel"][..., rows, :][..., columns], **out}
        if piece.family == "channelwise":
            stay = self.kept(self.passed[id(piece)])
            if piece.kind in ("BatchNormalization", "PReLU"):
                return {name: value[..., stay] for name, value in w.items()}
            out = {"kernel": w["kernel"][..., stay, :]}
            if "bias" in w:
                out["bias"] = w["bias"][np.repeat(stay, w["kernel"].shape[-1])]
            return out
        return dict(w)

    def folded(self, piece) -> np.ndarray:
        """What the bias of `piece` gains from the constants that nothing needs, per kept unit."""
        sink = self.sinks[id(piece)]
        live, total = piece.channel_matrix()
        gone = ~self.is_read(sink.rows[0]) & sink.absorbable()
        constant = np.where(gone, np.nan_to_num(sink.constants[0]), 0.0)
        if "recurrent_kernel" in piece.weights:  # of two rows of biases the first one gains it
            added = np.zeros_like(piece.weights["bias"], dtype=float)
            added.reshape(-1, total.shape[-1])[0] = constant @ total
            return added[..., np.tile(self.kept(self.units[id(piece)]), piece.gates)]
        return (constant @ np.where(live, total, 0.0))[self.kept(self.units[id(piece)])]

    def is_read(self, units: np.ndarray) -> np.ndarray:
        """Bool array: which of these units are needed, not only kept for a width of 1."""
        return np.isin(self.roots(units), list(self.read))

    def gains_bias(self, piece) -> bool:
        """Whether a non-zero constant is folded into a needed unit of `piece`."""
        sink = self.sinks[id(piece)]
        constants = np.nan_to_num(sink.constants[0])
        gone = ~self.is_read(sink.rows[0]) & sink.absorbable() & (constants != 0)
        live = piece.channel_matrix()[0] & self.is_read(self.units[id(piece)])
        return bool((live & gone[:, None]).any())

    def folds(self) -> bool:
        """Whether any layer of the program has a non-zero constant folded into it."""
        return any(self.gains_bias(p) for p in self.program.pieces if id(p) in self.units)

    # ---- groups --------------------------------------------------------------------------------

    def axis_roots(self, piece, name: str, axis: int) -> np.ndarray:
        """Per position along one axis of one weight: the root of the unit that owns it, or FIXED."""
        length = piece.weights[name].shape[axis]
        from_end = axis - piece.weights[name].ndim
        if piece.family == "linear":
            rows, columns = self.sinks[id(piece)].rows[0], self.units[id(piece)]
            axes = {-2: rows[:length] if from_end == -2 else rows, -1: columns}
            if "recurrent_kernel" in piece.weights:
                gates = np.tile(columns, piece.gates)
                axes = {-2: columns if name == "recurrent_kernel" else rows[:length], -1: gates}
                if name == "bias":
                    axes = {-1: gates}
                return self.roots(axes.get(from_end, np.zeros(length, int)))
            if piece.info["transposed"]:
                axes = {-2: columns, -1: rows}
            if name == "pointwise_kernel":
                axes[-2] = np.repeat(rows, length // len(rows)) if from_end == -2 else rows
            if name == "depthwise_kernel":
                axes = {-2: rows}
            if name == "bias":
                axes = {-1: columns}
        elif piece.family == "channelwise":
            passed = self.passed[id(piece)]
            axes = {-2: passed} if name == "kernel" else {-1: passed}
            if name == "bias":
                axes = {-1: np.repeat(passed, length // len(passed))}
        else:
            axes = {}
        return self.roots(axes.get(from_end, np.zeros(length, int)))

    def removable_units(self) -> dict[int, frozenset]:
        """Every unit that may be cut, with the weight axes (piece, name, axis) that it owns."""
        owned: dict[int, set] = {}
        for piece in self.program.pieces:
            for name, value in piece.weights.items():
                for axis in range(value.ndim):
                    for root in np.unique(self.axis_roots(piece, name, axis)).tolist():
                        owned.setdefault(root, set()).add((id(piece), name, axis))
        made = [self.roots(units).tolist() for units in self.units.values()]
        return {
            root: frozenset(owned[root])
            for root in {root for roots in made for root in roots} - {FIXED}
        }
