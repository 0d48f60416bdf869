"""Random functional Keras models with planted dead neurons, for testing `slim` and `find_groups`.

`random_case(rng)` draws everything from one `random.Random`-like object, so that a seed names a case
(tests/fuzz.py) and Hypothesis can shrink one (`st.randoms(use_true_random=False)`).
Every layer is made by evaluating one line of Keras source; `Case.source()` prints them all.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import layers, ops
from liveness_oracle import FIXED, Oracle

CHANNEL_WEIGHTS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")


@dataclass(eq=False)
class Piece:
    """One layer or operation of a program; a shared layer is one piece met by several steps."""

    kind: str
    family: str  # how the oracle treats it: Oracle._label_<family>, Oracle._value_<family>
    code: str
    info: dict
    layer: keras.layers.Layer | None = None
    path: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()  # of its first input, without the batch
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def channel_matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """Per (input, output) channel: whether any weight joins them, and the sum of their taps."""
        w = self.weights
        if "pointwise_kernel" in w:
            deep = w["depthwise_kernel"]
            taps = deep.reshape(-1, *deep.shape[-2:])
            point = w["pointwise_kernel"].reshape(*deep.shape[-2:], -1)
            live = taps.any(axis=0)[..., None] & (point != 0)
            total = taps.sum(axis=0)[..., None] * point
            return live.any(axis=1), total.sum(axis=1)
        if "recurrent_kernel" in w:  # read: the inputs, then the units themselves
            both = np.concatenate([w["kernel"], w["recurrent_kernel"]])
            return both.reshape(len(both), self.gates, -1).any(axis=1), both
        kernel = w["kernel"].reshape(-1, *w["kernel"].shape[-2:])
        live, total = kernel.any(axis=0), kernel.sum(axis=0)
        if self.groups > 1:
            blocks = self.blocks()
            return tuple(np.tile(each, (self.groups, 1)) * blocks for each in (live, total))
        return (live.T, total.T) if self.info["transposed"] else (live, total)

    @property
    def groups(self) -> int:
        return self.info.get("groups", 1)

    @property
    def gates(self) -> int:
        """How many columns of a recurrent layer's kernels make one unit; 1 for other layers."""
        return self.info.get("gates", 1)

    def blocks(self) -> np.ndarray:
        """Bool (inputs, filters): which channel is read by which filter of a grouped layer."""
        rows, filters = self.weights["kernel"].shape[-2:]
        own = np.ones((rows, filters // self.groups), bool)
        return np.kron(np.eye(self.groups, dtype=bool), own)

    def bias(self) -> np.ndarray | float:
        return self.weights.get("bias", 0.0)


@dataclass
class Step:
    piece: Piece
    inputs: tuple[int, ...]
    output: int


@dataclass
class Program:
    """What the oracle reads: the steps in order, with nested models replayed in place."""

    steps: list[Step] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    @property
    def pieces(self) -> list[Piece]:
        return list({id(step.piece): step.piece for step in self.steps}.values())


@dataclass(frozen=True)
class Tensor:
    id: int
    value: keras.KerasTensor
    shape: tuple[int, ...]
    moved: bool = False  # channels no longer on the last axis


class Dice:
    """Draws small integers only; 0 is always the simplest outcome, so that shrinking simplifies."""

    def __init__(self, rng):
        self.rng = rng

    def chance(self, probability: float) -> bool:
        return self.rng.randrange(100) >= 100 - round(100 * probability)

    def integer(self, low: int, high: int) -> int:
        return low + self.rng.randrange(high - low + 1)

    def choice(self, values):
        return values[self.rng.randrange(len(values))]

    def weighted(self, table: dict):
        return self.choice([key for key, weight in table.items() for _ in range(weight)])


ACTIVATIONS = {
    '"relu"': ("relu", 4),
    '"sigmoid"': ("sigmoid", 2),
    '"tanh"': ("tanh", 2),
    '"elu"': ("elu", 1),
    '"gelu"': ("gelu", 1),
    '"softplus"': ("softplus", 1),
    '"leaky_relu"': ("leaky_relu", 1),
    '"silu"': ("silu", 1),
    '"hard_sigmoid"': ("hard_sigmoid", 1),
    '"softsign"': ("softsign", 1),
}
ELEMENTWISE = {
    'layers.Activation("relu"': ("relu", 3),
    "layers.ReLU(": ("relu", 2),
    'layers.Activation("sigmoid"': ("sigmoid", 2),
    'layers.Activation("softplus"': ("softplus", 1),
    "layers.ReLU(max_value=6.0": ("relu6", 1),
    "layers.ELU(": ("elu", 1),
    "layers.LeakyReLU(": ("leaky_relu_0.3", 2),
    "layers.Dropout(0.3": ("linear", 2),
    "layers.GaussianNoise(0.3": ("linear", 1),
    "layers.Rescaling(0.5, offset=0.25": ("x * 0.5 + 0.25", 1),
    "ops.relu({0})": ("relu", 2),
    "ops.sigmoid({0})": ("sigmoid", 1),
    "ops.tanh({0})": ("tanh", 1),
    "ops.softplus({0})": ("softplus", 1),
    "ops.gelu({0})": ("gelu_tanh", 1),
    "{0} * 0.5 + 1.0": ("x * 0.5 + 1", 2),
    "1.0 - {0}": ("1 - x", 1),
    "{0} / 2.0": ("x / 2", 1),
    "-{0}": ("-x", 1),
    "ops.multiply({0}, 2.0)": ("2 * x", 1),
    "ops.subtract({0}, 0.25)": ("x - 0.25", 1),
}
MERGE_CODE = {
    "add": ("layers.Add(", "ops.add({0}, {1})", "{0} + {1}"),
    "subtract": ("layers.Subtract(", "ops.subtract({0}, {1})", "{0} - {1}"),
    "multiply": ("layers.Multiply(", "ops.multiply({0}, {1})", "{0} * {1}"),
    "average": ("layers.Average(", "({0} + {1}) / 2.0"),
    "maximum": ("layers.Maximum(", "ops.maximum({0}, {1})"),
    "minimum": ("layers.Minimum(", "ops.minimum({0}, {1})"),
}


class Builder:
    """Grows one functional model (or one nested in it) and records what it did in a `Program`."""

    def __init__(self, dice: Dice, prefix: str, dtype: str, depth: int = 0):
        self.dice, self.prefix, self.dtype, self.depth = dice, prefix, dtype, depth
        self.program = Program()
        self.lines: list[str] = []
        self.counts: Counter = Counter()
        self.tensors: dict[int, Tensor] = {}
        self.shared: list[Piece] = []
        self.by_name = False

    # ---- recording ---------------------------------------------------------------------------

    def _tensor(self, value, moved=False) -> Tensor:
        shape = tuple(int(n) for n in value.shape[1:])
        self.program.shapes.append(shape)
        tensor = Tensor(len(self.program.shapes) - 1, value, shape, moved)
        self.tensors[tensor.id] = tensor
        return tensor

    def input(self, shape: tuple[int, ...]) -> Tensor:
        name = self.name("input")
        code = f"layers.Input({shape}, dtype={self.dtype!r}, name={name!r})"
        tensor = self._tensor(eval(code))
        self.program.inputs.append(tensor.id)
        self.lines.append(f"t{tensor.id} = {code}")
        return tensor

    def name(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"{self.prefix}{kind.lower()}{self.counts[kind]}"

    def apply(self, kind: str, family: str, code: str, *inputs: Tensor, **info) -> Tensor:
        """A new layer ("layers.Dense(3, ") or operation ("ops.relu({0})") on `inputs`."""
        moved = info.pop("moved", inputs[0].moved)
        piece = Piece(kind, family, code, info, shape=inputs[0].shape)
        if code.startswith("layers."):
            name = self.name(kind.split("(")[0])
            piece.path = (name,)
            separator = "" if code.endswith("(") or code.endswith(", ") else ", "
            piece.code = f"{code}{separator}dtype={self.dtype!r}, name={name!r})"
            piece.layer = eval(piece.code)
            self.lines.append(f"{name} = {piece.code}")
        return self.call(piece, *inputs, moved=moved)

    def call(self, piece: Piece, *inputs: Tensor, moved: bool | None = None) -> Tensor:
        values = [t.value for t in inputs]
        names = [f"t{t.id}" for t in inputs]
        if piece.layer is None:
            namespace = {"ops": ops, **dict(zip(names, values, strict=True))}
            code = piece.code.format(*names)
            out = eval(code, namespace)
        else:
            out = piece.layer(values if len(values) > 1 else values[0])
            joined = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
            code = f"{piece.path[-1]}({joined})"
        tensor = self._tensor(out, inputs[0].moved if moved is None else moved)
        self.program.steps.append(Step(piece, tuple(t.id for t in inputs), tensor.id))
        self.lines.append(f"t{tensor.id} = {code}")
        return tensor

    # ---- layers with weights ------------------------------------------------------------------

    def _activation(self, softmax=True) -> tuple[str, str]:
        if self.dice.chance(0.45):
            if softmax and self.dice.chance(0.06):
                return 'activation="softmax", ', "softmax"
            code = self.dice.weighted({code: w for code, (_, w) in ACTIVATIONS.items()})
            return f"activation={code}, ", ACTIVATIONS[code][0]
        return "", "linear"

    def _bias(self) -> str:
        return "use_bias=False, " if self.dice.chance(0.3) else ""

    def _window(self, t: Tensor, preserve=False, causal=False, equal_strides=False) -> dict:
        """Kernel size, strides, dilation and padding that fit the places of `t`."""
        dice, places = self.dice, t.shape[:-1]
        size = tuple(min(dice.weighted({2: 2, 1: 3, 3: 3}), n) for n in places)
        padding = dice.weighted({"valid": 2, "same": 4, "causal": 1 if causal else 0})
        strides, dilation = (1,) * len(places), (1,) * len(places)
        if preserve:
            padding = "same"
        elif dice.chance(0.3):
            strides = tuple(min(dice.integer(1, 3), n) for n in places)
            if equal_strides or dice.chance(0.5):
                strides = (strides[0],) * len(places)
            if dice.chance(0.3):
                strides, padding = size, dice.choice(["same", "valid"])
                if equal_strides and len(set(strides)) > 1:
                    strides = (1,) * len(places)
        elif dice.chance(0.1):
            dilation = (2,) * len(places)
            if any((k - 1) * 2 + 1 > n for k, n in zip(size, places, strict=True)):
                dilation = (1,) * len(places)
        return {"kernel_size": size, "strides": strides, "dilation": dilation, "padding": padding}

    @staticmethod
    def _window_code(window: dict) -> str:
        one = window["strides"][0] if len(window["strides"]) == 1 else window["strides"]
        code = f"{window['kernel_size']}, strides={one}, padding={window['padding']!r}, "
        if max(window["dilation"]) > 1:
            code += f"dilation_rate={window['dilation']}, "
        return code

    def width(self) -> int:
        return self.dice.integer(2, 6)

    def dense(self, t: Tensor, units: int | None = None, softmax=True) -> Tensor:
        code, activation = self._activation(softmax)
        code = f"layers.Dense({units or self.width()}, {code}{self._bias()}"
        window = {"kernel_size": (), "strides": (), "dilation": (), "padding": "valid"}
        return self.apply(
            "Dense", "linear", code, t, activation=activation, transposed=False, **window
        )

    def conv(self, t: Tensor, units: int | None = None, preserve=False, one=False) -> Tensor:
        rank = len(t.shape) - 1
        window = self._window(t, preserve, causal=rank == 1)
        if one:
            unit = (1,) * rank
            window = {"kernel_size": unit, "strides": unit, "dilation": unit, "padding": "same"}
        code, activation = self._activation()
        code = (
            f"layers.Conv{rank}D({units or self.width()}, {self._window_code(window)}{code}"
            f"{self._bias()}"
        )
        return self.apply(
            f"Conv{rank}D", "linear", code, t, activation=activation, transposed=False, **window
        )

    def conv_transpose(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        size = tuple(self.dice.integer(1, 3) for _ in range(rank))
        strides = tuple(
            self.dice.weighted({1: 2, 2: 1 if max(t.shape[:-1]) < 5 else 0}) for _ in size
        )
        if self.dice.chance(0.2):
            size = strides = (1,) * rank
        window = {
            "kernel_size": size,
            "strides": strides,
            "dilation": (1,) * rank,
            "padding": self.dice.choice(["valid", "same"]),
        }
        code, activation = self._activation(softmax=False)
        code = (
            f"layers.Conv{rank}DTranspose({self.width()}, {self._window_code(window)}{code}"
            f"{self._bias()}"
        )
        kind = f"Conv{rank}DTranspose"
        window["padding"] = "valid"  # whether it pads plays no part in what it can absorb
        return self.apply(kind, "linear", code, t, activation=activation, transposed=True, **window)

    def depthwise(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        window = self._window(t, equal_strides=True)
        if max(window["dilation"]) > 1 or len(set(window["strides"])) > 1:
            window["dilation"] = window["strides"] = (1,) * rank
        multiplier = self.dice.integer(1, 2) if t.shape[-1] <= 4 else 1
        code, activation = self._activation(softmax=False)
        code = f"depth_multiplier={multiplier}, {code}{self._bias()}"
        kind = f"DepthwiseConv{rank}D"
        code = f"layers.{kind}({self._window_code(window)}{code}"
        return self.apply(kind, "channelwise", code, t, activation=activation, **window)

    def grouped(self, t: Tensor) -> Tensor:
        """A convolution in two groups of at least two channels each, in and out."""
        rank = len(t.shape) - 1
        if t.shape[-1] < 4 or t.shape[-1] % 2:
            t = self.dense(t, 4, softmax=False)
        window = self._window(t)
        code, activation = self._activation(softmax=False)
        code = f"{self.dice.choice([4, 6])}, {self._window_code(window)}groups=2, {code}"
        code = f"layers.Conv{rank}D({code}{self._bias()}"
        info = {"activation": activation, "transposed": False, "groups": 2, **window}
        return self.apply(f"Conv{rank}D(groups)", "linear", code, t, **info)

    def recurrent(self, t: Tensor) -> Tensor:
        kind, gates = self.dice.choice(
            [("SimpleRNN", 1), ("LSTM", 4), ("GRU", 3), ("GRU", 3), ("LSTM", 4)]
        )
        code = f"layers.{kind}({self.dice.integer(2, 4)}, "
        code += self.dice.choice(["return_sequences=True, ", "", "go_backwards=True, "])
        if kind == "GRU":
            code += self.dice.choice(["", "reset_after=False, "])
        window = {"kernel_size": (), "strides": (), "dilation": (), "padding": "valid"}
        return self.apply(
            kind, "linear", code, t, activation="linear", transposed=False, gates=gates, **window
        )

    def einsum(self, t: Tensor) -> Tensor:
        code, activation = self._activation(softmax=False)
        window = {"kernel_size": (), "strides": (), "dilation": (), "padding": "valid"}
        # Not "...": over several places Keras infers their sizes in reverse order.
        places = "abc"[: len(t.shape) - 1]
        equation = f"z{places}x,xy->z{places}y"
        shape = (*t.shape[:-1], self.width())
        code = f'layers.EinsumDense("{equation}", {shape}, bias_axes="y", {code}'
        return self.apply(
            "EinsumDense", "linear", code, t, activation=activation, transposed=False, **window
        )

    def normalised(self, t: Tensor) -> Tensor:
        """What normalises over places alone, whose constants are not followed."""
        kind = self.dice.choice(["LayerNormalization", "UnitNormalization", "Softmax"])
        axes = list(range(1, len(t.shape)))
        return self.apply(f"{kind}(places)", "places", f"layers.{kind}(axis={axes}, ", t)

    def separable(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        window = self._window(t, equal_strides=True)
        if max(window["dilation"]) > 1 or len(set(window["strides"])) > 1:
            window["dilation"] = window["strides"] = (1,) * rank
        code, activation = self._activation(softmax=False)
        code = f"depth_multiplier={self.dice.integer(1, 2)}, {code}{self._bias()}"
        kind = f"SeparableConv{rank}D"
        code = f"layers.{kind}({self.width()}, {self._window_code(window)}{code}"
        return self.apply(
            kind, "linear", code, t, activation=activation, transposed=False, **window
        )

    def prelu(self, t: Tensor) -> Tensor:
        """One slope per channel."""
        axes = list(range(1, len(t.shape)))
        return self.apply("PReLU", "channelwise", f"layers.PReLU(shared_axes={axes}, ", t)

    def norm(self, t: Tensor) -> Tensor:
        kind = "BatchNormalization"
        epsilon = self.dice.choice([1e-3, 1e-2])
        code = f"layers.{kind}(epsilon={epsilon}, "
        if self.dice.chance(0.15):
            code += self.dice.choice(["center=False, ", "scale=False, "])
        return self.apply(kind, "channelwise", code, t, epsilon=epsilon)

    # ---- layers without weights ---------------------------------------------------------------

    def elementwise(self, t: Tensor) -> Tensor:
        code = self.dice.weighted({code: w for code, (_, w) in ELEMENTWISE.items()})
        kind = code[7:].split("(")[0] if code.startswith("layers.") else code.format("x")
        return self.apply(kind, "elementwise", code, t, function=ELEMENTWISE[code][0])

    def pool(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        size = tuple(min(self.dice.integer(1, 2), n) for n in t.shape[:-1])
        # Keras' own operations fail on JAX where the strides are left to the window's size.
        if self.dice.chance(0.2) and self.dtype == "float32" and not ON_JAX:
            kind = self.dice.choice(["max_pool", "average_pool"])
            code = f"ops.{kind}({{0}}, {size}, padding='valid')"
            return self.apply(f"ops.{kind}", "spatial", code, t)
        if rank == 3 and self.dtype == "float64":
            return self.crop(t)  # TensorFlow pools no float64 volumes on a CPU
        kind = f"{self.dice.choice(['Max', 'Average'])}Pooling{rank}D"
        padding = self.dice.choice(["valid", "same"])
        return self.apply(kind, "spatial", f"layers.{kind}({size}, padding={padding!r}", t)

    def pad(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        if max(t.shape[:-1]) > 8:
            return self.elementwise(t)
        amounts = [(self.dice.integer(0, 1), 1) for _ in range(rank)]
        code = tuple(amounts) if rank > 1 else amounts[0]
        kind = f"ZeroPadding{rank}D"
        return self.apply(kind, "spatial", f"layers.{kind}({code}", t, pads=True)

    def crop(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        amounts = [(1, 0) if n > 2 else (0, 0) for n in t.shape[:-1]]
        code = tuple(amounts) if rank > 1 else amounts[0]
        kind = f"Cropping{rank}D"
        return self.apply(kind, "spatial", f"layers.{kind}({code}", t)

    def upsample(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        if max(t.shape[:-1]) > 4:
            return self.elementwise(t)
        kind = f"UpSampling{rank}D"
        code = f"layers.{kind}(2"
        if rank == 2 and self.dice.chance(0.3):
            code += ', interpolation="bilinear"'
        return self.apply(kind, "spatial", code, t)

    def global_pool(self, t: Tensor, keepdims=False) -> Tensor:
        rank = len(t.shape) - 1
        if self.dice.chance(0.2):
            kind = self.dice.choice(["mean", "max"])
            code = f"ops.{kind}({{0}}, axis={tuple(range(1, rank + 1))}, keepdims={keepdims})"
            return self.apply(f"ops.{kind}", "spatial", code, t)
        kind = f"Global{self.dice.choice(['Average', 'Max'])}Pooling{rank}D"
        code = f"layers.{kind}({'keepdims=True' if keepdims else ''}"
        return self.apply(kind, "spatial", code, t)

    def flatten(self, t: Tensor) -> Tensor:
        form = self.dice.weighted({"flatten": 4, "permute": 3, "reshape": 2, "ops": 1})
        if form == "permute" and not t.moved:
            t = self.permute(t)
        size = math.prod(t.shape)
        if form == "reshape":
            return self.mover(t, "Reshape", f"layers.Reshape(({size},)", lambda x: x.reshape(-1))
        if form == "ops":
            code = f"ops.reshape({{0}}, (-1, {size}))"
            return self.mover(t, "ops.reshape", code, lambda x: x.reshape(-1))
        return self.mover(t, "Flatten", "layers.Flatten(", lambda x: x.reshape(-1))

    def mover(self, t: Tensor, kind: str, code: str, move, moved=False, **info) -> Tensor:
        return self.apply(kind, "mover", code, t, move=move, moved=moved, **info)

    def permute(self, t: Tensor, back=False) -> Tensor:
        order = (
            (*range(1, len(t.shape)), 0) if back else (len(t.shape) - 1, *range(len(t.shape) - 1))
        )

        def move(x):
            return np.transpose(x, order)

        code = f"layers.Permute({tuple(i + 1 for i in order)}"
        if self.dice.chance(0.2):
            code = f"ops.transpose({{0}}, {(0, *(i + 1 for i in order))})"
        return self.mover(t, "Permute", code, move, moved=not back)

    def permute_there_and_back(self, t: Tensor) -> Tensor:
        return self.permute(self.elementwise(self.permute(t)), back=True)

    def join_places(self, t: Tensor) -> Tensor:
        """(rows, columns, channels) -> (rows * columns, channels)."""
        shape = (math.prod(t.shape[:-1]), t.shape[-1])
        if shape[0] > 40:
            return self.pool(t)
        return self.mover(t, "Reshape", f"layers.Reshape({shape}", lambda x: x.reshape(shape))

    def to_places(self, t: Tensor) -> Tensor:
        """A vector of units -> (places, channels): units at the same channel must go together."""
        size = t.shape[0]
        places = self.dice.choice([n for n in (2, 3, 1) if size % n == 0])
        shape = (places, size // places)
        code = f"layers.Reshape({shape}"
        return self.mover(t, "Reshape", code, lambda x: x.reshape(shape), ties=True)

    def barrier(self, t: Tensor) -> Tensor:
        kinds = ["GroupNormalization"]
        if t.shape[-1] > 1:  # one channel is not normalised together with others
            kinds += ["LayerNormalization", "Softmax", "UnitNormalization", "RMSNormalization"]
        half = t.shape[-1] // 2
        if len(t.shape) == 3 and half >= 2 and t.shape[-1] % 2 == 0:
            kinds += ["Conv2D(one filter a group)"]
        if len(t.shape) == 2:
            kinds += ["RNN", "Bidirectional"]
        kind = self.dice.choice(kinds)
        code = {
            "GroupNormalization": "layers.GroupNormalization(1, ",
            "Conv2D(one filter a group)": f"layers.Conv2D({half}, 1, groups={half}, ",
            "RNN": f"layers.RNN(layers.GRUCell(2, dtype={self.dtype!r}), ",
            "Bidirectional": f"layers.Bidirectional(layers.RNN(layers.GRUCell(2, dtype={self.dtype!r}), dtype={self.dtype!r}), ",
        }
        if kind in code:
            return self.apply(kind, "barrier", code[kind], t)
        return self.apply(kind, "barrier", f"layers.{kind}(", t)

    # ---- several tensors ----------------------------------------------------------------------

    def preserving(self, t: Tensor, units: int | None = None) -> Tensor:
        """A layer with weights that keeps the places of `t`."""
        if len(t.shape) == 1 or self.dice.chance(0.15):
            return self.dense(t, units)
        return self.conv(t, units, preserve=True, one=self.dice.chance(0.4))

    def branch(self, t: Tensor, units: int | None = None) -> Tensor:
        if self.dice.chance(0.5):
            t = self.preserving(t)
        if self.dice.chance(0.4):
            t = self.elementwise(t)
        t = self.preserving(t, units)
        if self.dice.chance(0.4):
            t = self.norm(t)
        return self.elementwise(t) if self.dice.chance(0.3) else t

    def merge(self, a: Tensor, b: Tensor, kind: str | None = None) -> Tensor:
        kind = kind or self.dice.weighted(
            {"add": 5, "subtract": 1, "multiply": 2, "average": 1, "maximum": 1, "minimum": 1}
        )
        code = self.dice.choice(MERGE_CODE[kind])
        name = kind.capitalize() if code.startswith("layers.") else code.format("x", "y")
        return self.apply(name, "merge", code, a, b, merge=kind)

    def residual(self, t: Tensor) -> Tensor:
        other = self.branch(t, t.shape[-1])
        first = t if self.dice.chance(0.6) else self.branch(t, t.shape[-1])
        return self.merge(first, other)

    def concatenate(self, t: Tensor) -> Tensor:
        a = t if self.dice.chance(0.3) else self.branch(t)
        b = t if self.dice.chance(0.1) else self.branch(t)
        axis = -1
        if len(t.shape) > 1 and a.shape[-1] == b.shape[-1] and self.dice.chance(0.7):
            axis = 1

        def move(x, y):
            return np.concatenate([x, y], axis=axis - 1 if axis > 0 else axis)

        code = f"layers.Concatenate(axis={axis}"
        if self.dice.chance(0.3):
            code = f"ops.concatenate([{{0}}, {{1}}], axis={axis})"
        kind = code.split("(")[0].replace("layers.", "")
        return self.apply(kind, "mover", code, a, b, move=move, ties=axis > 0)

    def squeeze_excite(self, t: Tensor) -> Tensor:
        gate = self.global_pool(t, keepdims=self.dice.chance(0.5))
        gate = self.dense(gate)
        if self.dice.chance(0.5):
            gate = self.elementwise(gate)
        gate = self.dense(gate, t.shape[-1], softmax=False)
        shape = (1,) * (len(t.shape) - 1) + t.shape[-1:]
        if gate.shape != shape:
            code = f"layers.Reshape({shape}"
            gate = self.mover(gate, "Reshape", code, lambda x: x.reshape(shape))
        return self.merge(t, gate, "multiply")

    def _can_share(self, piece: Piece, t: Tensor) -> bool:
        if piece.family == "barrier" or len(piece.shape) != len(t.shape):
            return False
        if piece.kind == "EinsumDense":  # its places' sizes are arguments
            return piece.shape == t.shape
        pairs = zip(piece.shape[:-1], t.shape[:-1], strict=True)
        return piece.shape[-1] == t.shape[-1] and all(old <= new for old, new in pairs)

    def again(self, t: Tensor) -> Tensor:
        """A layer met before, or else a new one met twice at once."""
        fitting = [p for p in self.shared if self._can_share(p, t)]
        if fitting:
            return self.call(self.dice.choice(fitting), t)
        other = self.elementwise(t)
        mine = [self.norm, self.preserving]
        if len(t.shape) in (2, 3) and t.shape[-1] <= 4:
            mine.append(self.depthwise)
        first = self.dice.choice(mine)(t)
        piece = self.program.steps[-1].piece
        second = self.call(piece, other)
        if self.dice.chance(0.3):
            return self.merge(first, second)

        def move(x, y):
            return np.concatenate([x, y], axis=-1)

        return self.apply(
            "Concatenate", "mover", "layers.Concatenate(", first, second, move=move, ties=False
        )

    def nested(self, t: Tensor) -> Tensor:
        """A model as a layer, sometimes met twice; names inside may repeat names outside."""
        name = self.name("nested")
        prefix = "" if self.dice.chance(0.5) else f"{name}_"
        child = Builder(self.dice, prefix, self.dtype, self.depth + 1)
        inner = child.input(t.shape)
        out = child.grow(inner, self.dice.integer(1, 3))
        if out.id == inner.id or out.moved:
            return self.elementwise(t)
        model = child.model([inner], [out], name)
        for piece in child.program.pieces:
            if piece.path:
                piece.path = (name, *piece.path)
        lines, child.lines = child.lines, []
        self.lines += [f"def make_{name}():", *("    " + line for line in lines)]
        self.lines += [f"    return keras.Model(t{inner.id}, t{out.id}, name={name!r})"]
        self.lines += [f"{name} = make_{name}()"]
        result = self._replay(child.program, model, t, name)
        if out.shape == t.shape and self.dice.chance(0.4):
            result = self._replay(child.program, model, result, name)
        elif self.dice.chance(0.3):
            other = self._replay(child.program, model, self.elementwise(t), name)
            result = self.merge(result, other)
        return result

    def _replay(self, inner: Program, model, t: Tensor, name: str) -> Tensor:
        ids = {inner.inputs[0]: t.id}
        for step in inner.steps:
            if step.output not in ids:
                self.program.shapes.append(inner.shapes[step.output])
                ids[step.output] = len(self.program.shapes) - 1
            inputs = tuple(ids[i] for i in step.inputs)
            self.program.steps.append(Step(step.piece, inputs, ids[step.output]))
        last = ids[inner.outputs[0]]
        tensor = Tensor(last, model(t.value), self.program.shapes[last])
        self.tensors[last] = tensor
        self.lines.append(f"t{last} = {name}(t{t.id})")
        return tensor

    # ---- growing --------------------------------------------------------------------------------

    def step(self, t: Tensor) -> Tensor:
        rank = len(t.shape) - 1
        table = {self.dense: 3 if rank else 8, self.elementwise: 5, self.norm: 4, self.residual: 5}
        table |= {
            self.concatenate: 2,
            self.again: 2,
            self.barrier: 1 if self.dice.chance(0.4) else 0,
        }
        if self.depth < 2:
            table[self.nested] = 2
        if rank:
            table |= {self.conv: 8, self.conv_transpose: 2, self.pool: 2, self.pad: 3, self.crop: 1}
            table |= {self.upsample: 1, self.squeeze_excite: 1, self.permute_there_and_back: 1}
            table |= {self.grouped: 1, self.normalised: 1}
        if rank in (1, 2):
            table |= {self.depthwise: 3, self.separable: 2}
        if rank == 1:
            table[self.recurrent] = 3
        table[self.einsum] = 1
        table[self.prelu] = 1
        if rank > 1:
            table[self.join_places] = 1
        if not rank:
            table[self.to_places] = 1
        out = self.dice.weighted(table)(t)
        piece = self.program.steps[-1].piece
        if piece.family in ("linear", "channelwise") and len(piece.path) == 1:
            self.shared.append(piece)
        return out

    def grow(self, t: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            t = self.step(t)
        if self.depth:
            self.program.outputs = [t.id]
        return t

    def head(self, t: Tensor) -> Tensor:
        if len(t.shape) > 1:
            if self.dice.chance(0.1):
                return t
            t = self.global_pool(t) if self.dice.chance(0.3) else self.flatten(t)
        if self.dice.chance(0.3):
            t = self.dense(t)
            t = self.elementwise(t) if self.dice.chance(0.3) else t
        return t if self.dice.chance(0.05) else self.dense(t, self.dice.integer(1, 3))

    def model(self, inputs: list[Tensor], outputs: list[Tensor], name: str) -> keras.Model:
        values = [[t.value for t in group] for group in (inputs, outputs)]
        values = [group if len(group) > 1 else group[0] for group in values]
        if len(inputs) + len(outputs) > 2 and self.dice.chance(0.2):
            self.by_name = True
            values = [
                {t.value.name: t.value for t in inputs},
                {f"head{i}": t.value for i, t in enumerate(outputs)},
            ]
        return keras.Model(*values, name=name)


def _sequential(builder: Builder) -> keras.Model | None:
    """The same chain as a Sequential model, where it is one and every layer is met once."""
    program, at = builder.program, builder.program.inputs[0]
    chain = []
    for step in program.steps:
        if step.inputs != (at,) or len(step.piece.path) != 1 or step.piece.layer in chain:
            return None
        chain.append(step.piece.layer)
        at = step.output
    if program.outputs != [at]:
        return None
    tensor = builder.tensors[program.inputs[0]]
    first = layers.Input(tensor.shape, dtype=builder.dtype, name="input1")
    return keras.Sequential([first, *chain], name="sequence")


@dataclass
class Case:
    """A generated model with its weights set, what was planted in it and what the oracle expects."""

    model: keras.Model
    program: Program
    oracle: Oracle
    dtype: str
    planted: list[tuple[str, Piece, np.ndarray]]
    lines: list[str]
    seed: int
    by_name: bool  # inputs and outputs are dicts

    def inputs(self, batch: int = 4, seed: int = 0):
        rng = np.random.default_rng(seed)
        arrays = [rng.normal(size=(batch, *tuple(t.shape)[1:])) for t in self.model.inputs]
        arrays = [a.astype(self.dtype) for a in arrays]
        if self.by_name:
            return {t.name: a for t, a in zip(self.model.inputs, arrays, strict=True)}
        return arrays if len(arrays) > 1 else arrays[0]

    def has(self, family: str) -> bool:
        return any(piece.family == family for piece in self.program.pieces)

    def kinds(self) -> Counter:
        """How often each kind of layer, merge and planted death occurs (deaths: survived or cut)."""
        counted = Counter(step.piece.kind for step in self.program.steps)
        counted += Counter(
            f"{how}: {'kept' if self.oracle.kept(units).all() else 'cut'}"
            for how, _, units in self.planted
        )
        met = Counter(id(step.piece) for step in self.program.steps if step.piece.weights)
        counted["shared layer"] = sum(n > 1 for n in met.values())
        depths = {len(p.path) for p in self.program.pieces if p.path}
        counted["nested model"] = max(depths, default=1) > 1
        counted["Sequential"] = isinstance(self.model, keras.Sequential)
        counted["several inputs"] = len(self.program.inputs) > 1
        counted["several outputs"] = len(self.program.outputs) > 1
        counted["rescued from width 0"] = bool(self.oracle.rescued)
        counted["folds a constant"] = self.oracle.folds()
        counted["float64"] = self.dtype == "float64"
        return +counted

    def source(self) -> str:
        """Keras source of the model and of its zeros (the other weights are as generated)."""
        lines = ["import keras", "from keras import layers, ops", *self.lines]
        for piece in self.program.pieces:
            for name, value in piece.weights.items():
                if name in CHANNEL_WEIGHTS or name == "gamma" or not value.all():
                    zeros = np.round(value, 3).tolist() if value.size <= 40 else value.shape
                    lines.append(f"# {'/'.join(piece.path)}.{name} = {zeros}")
        return "\n".join(lines)


def _random_weights(case_seed: int, pieces: list[Piece], dtype: str) -> None:
    rng = np.random.default_rng(case_seed)
    for piece in pieces:
        for variable in piece.layer.weights if piece.layer is not None else ():
            name = variable.path.split("/")[-1]
            shape = tuple(variable.shape)
            value = rng.uniform(0.4, 1.4, shape)
            if name != "moving_variance":
                value *= rng.choice([-1.0, 1.0], shape)
            if name in CHANNEL_WEIGHTS:
                value *= 1.5 / math.sqrt(max(1, math.prod(shape) / shape[-1]))
            piece.weights[name] = value.astype(dtype)


def _zero_incoming(piece: Piece, units: np.ndarray, mine: np.ndarray) -> None:
    columns = np.isin(mine, units)
    if "recurrent_kernel" in piece.weights:
        for name in ("kernel", "recurrent_kernel"):
            piece.weights[name][:, np.tile(columns, piece.gates)] = 0
    elif piece.info["transposed"]:
        piece.weights["kernel"][..., columns, :] = 0
    elif "pointwise_kernel" in piece.weights:
        piece.weights["pointwise_kernel"][..., columns] = 0
    else:
        piece.weights["kernel"][..., columns] = 0


def _zero_outgoing(piece: Piece, rows: np.ndarray, columns=slice(None)) -> None:
    if "recurrent_kernel" in piece.weights:
        inputs = len(piece.weights["kernel"])
        units = np.arange(len(piece.weights["recurrent_kernel"]))[columns]
        gates = (np.arange(piece.gates) * len(rows[inputs:]))[:, None] + np.ravel(units)
        for name, mine in (("kernel", rows[:inputs]), ("recurrent_kernel", rows[inputs:])):
            piece.weights[name][np.ix_(mine, gates.ravel())] = 0
    elif piece.groups > 1:
        kernel = piece.weights["kernel"]
        mask = np.zeros((len(rows), kernel.shape[-1]), bool)
        mask[rows, columns] = True
        mask &= piece.blocks()
        kernel[..., mask.reshape(piece.groups, -1, kernel.shape[-1]).any(axis=0)] = 0
    elif piece.info["transposed"]:
        kernel = np.moveaxis(piece.weights["kernel"], -1, -2)
        kernel[..., rows, columns] = 0
    elif "pointwise_kernel" in piece.weights:
        deep = np.repeat(rows, piece.weights["depthwise_kernel"].shape[-1])
        piece.weights["pointwise_kernel"][..., deep, columns] = 0
    else:
        piece.weights["kernel"][..., rows, columns] = 0


def _plant(dice: Dice, oracle: Oracle) -> list[tuple[str, Piece, np.ndarray]]:
    """Zero weights so that units die, or look as if they did; returns (how, where, units)."""
    pieces = [p for p in oracle.program.pieces if p.weights]
    linear = [p for p in pieces if p.family == "linear"]
    planted = []
    for piece in pieces:
        if piece.family not in ("linear", "channelwise"):
            continue
        own = oracle.units[id(piece)] if piece.family == "linear" else oracle.passed[id(piece)]
        for index, unit in enumerate(own):
            if not dice.chance(0.3):
                continue
            roots = oracle.roots(own)
            members = [
                (p, oracle.roots(oracle.units[id(p)]) == roots[index])
                for p in linear
                if (oracle.roots(oracle.units[id(p)]) == roots[index]).any()
            ]
            if piece.kind == "PReLU":
                continue
            if piece.family == "channelwise":
                how = "zero gamma" if piece.kind == "BatchNormalization" else "zero taps"
                name = "gamma" if how == "zero gamma" else "kernel"
                if name not in piece.weights:
                    continue
                at = (..., index) if name == "gamma" else (..., index, slice(None))
                if name == "kernel" and piece.weights["kernel"].shape[-1] > 1 and dice.chance(0.2):
                    how, at = "some zero taps", (..., index, 0)
                piece.weights[name][at] = -0.0 if dice.chance(0.2) else 0.0
                planted.append((how, piece, np.array([unit])))
                continue
            how = dice.weighted(
                {
                    "incoming": 5,
                    "outgoing": 3,
                    "incoming of one branch": 8 if len(members) > 1 else 0,
                    "outgoing but one": 1,
                    "incoming but tiny": 1,
                    "only to the dead": 1,
                }
            )
            if roots[index] == FIXED:
                if dice.chance(0.7):
                    continue
                how = "incoming of what must stay"
                _zero_incoming(piece, own[[index]], own)
            if how in ("incoming", "incoming but tiny"):
                for member, columns in members:
                    mine = oracle.units[id(member)]
                    _zero_incoming(member, mine[columns], mine)
                    if "bias" in member.weights and dice.chance(0.25):
                        member.weights["bias"][..., np.tile(columns, member.gates)] = 0.0
                if how == "incoming but tiny":
                    kernel = piece.weights.get("pointwise_kernel", piece.weights.get("kernel"))
                    at = (0,) * (kernel.ndim - 2)
                    at += (index, 0) if piece.info["transposed"] else (0, index)
                    kernel[at] = 1e-30
            elif how == "incoming of one branch":
                _zero_incoming(piece, own[[index]], own)
            elif roots[index] != FIXED:
                for sink in linear:
                    rows = oracle.roots(oracle.sinks[id(sink)].rows[0]) == roots[index]
                    if not rows.any():
                        continue
                    columns = slice(None)
                    if how == "outgoing but one":
                        columns = slice(1, None)
                    elif how == "only to the dead":
                        theirs = oracle.units[id(sink)]
                        columns = slice(1, None)
                        for next_sink in linear:
                            theirs_rows = oracle.roots(oracle.sinks[id(next_sink)].rows[0])
                            dead = theirs_rows == oracle.find(int(theirs[0]))
                            if dead.any():
                                _zero_outgoing(next_sink, dead)
                    if columns == slice(None):
                        _zero_outgoing(sink, rows)
                    else:
                        count = len(oracle.units[id(sink)])
                        for column in range(*columns.indices(count)):
                            _zero_outgoing(sink, rows, column)
            planted.append((how, piece, np.array([unit])))
    if dice.chance(0.1) and linear:
        piece = dice.choice(linear)
        for name in CHANNEL_WEIGHTS:
            if name in piece.weights:
                mask = np.random.default_rng(dice.integer(0, 999)).random(piece.weights[name].shape)
                piece.weights[name] *= mask < 0.4
        planted.append(("scattered zeros", piece, oracle.units[id(piece)][:0]))
    return planted


# JAX computes in float64 only where a whole process is told to, and Keras' layers not even then.
ON_JAX = keras.backend.backend() == "jax"
INPUT_SHAPES = {1: 4, 2: 3, 3: 6, 4: 1}


def random_case(rng, size: int | None = None, seed: int = -1, dtype: str | None = None) -> Case:
    """One model with planted deaths; `rng` is a `random.Random`, `size` how many blocks it has."""
    dice = Dice(rng)
    dtype = dtype or ("float64" if dice.chance(0.25) and not ON_JAX else "float32")
    builder = Builder(dice, "", dtype)

    def shape():
        rank = dice.weighted(INPUT_SHAPES)
        places = [dice.integer(3, 4) if rank == 4 else dice.integer(3, 6) for _ in range(rank - 1)]
        return (*places, dice.integer(1, 4))

    first = shape()
    tensors = [builder.input(first)]
    while len(tensors) < 2 and dice.chance(0.25):
        tensors.append(builder.input(first if dice.chance(0.6) else shape()))
    size = dice.integer(1, 4) if size is None else size
    grown = []
    for tensor in tensors:
        out = builder.grow(tensor, max(1, size // len(tensors)))
        grown.append(out)
    inputs, outputs = tensors, []
    if len(grown) == 2:
        a, b = grown
        if a.shape == b.shape and dice.chance(0.7):
            grown = [builder.merge(a, b)]
        elif dice.chance(0.7):
            a = a if len(a.shape) == 1 else builder.flatten(a)
            b = b if len(b.shape) == 1 else builder.flatten(b)

            def move(x, y):
                return np.concatenate([x, y])

            code = "layers.Concatenate("
            joined = builder.apply("Concatenate", "mover", code, a, b, move=move)
            grown = [builder.dense(joined)]
    outputs = [builder.head(t) for t in grown]
    if dice.chance(0.2):
        candidates = [t for t in builder.tensors.values() if t.id not in builder.program.inputs]
        other = dice.choice(candidates)
        if not other.moved and dice.chance(0.7):
            other = builder.head(other)
        if other.id not in [t.id for t in outputs]:
            outputs.append(other)
    builder.program.outputs = [t.id for t in outputs]
    model = builder.model(inputs, outputs, "random_model")
    if len(inputs) == 1 and len(outputs) == 1 and dice.chance(0.3):
        model = _sequential(builder) or model
    oracle = Oracle(builder.program)
    case_seed = dice.integer(0, 10**6)
    planted = []
    for attempt in range(5):
        _random_weights(case_seed + attempt, builder.program.pieces, dtype)
        planted = _plant(dice, oracle)
        oracle.run()
        if (oracle.folds() or dice.chance(0.1)) and (not oracle.rescued or dice.chance(0.1)):
            break
    for piece in builder.program.pieces:
        for variable in piece.layer.weights if piece.layer is not None else ():
            variable.assign(piece.weights[variable.path.split("/")[-1]])
    return Case(
        model, builder.program, oracle, dtype, planted, builder.lines, seed, builder.by_name
    )
