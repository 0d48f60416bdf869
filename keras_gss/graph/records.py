"""What the walk over a graph writes down: signals of tensors, owners of weights, kernels' maps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


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

    `inputs` are the units read, shape `(inputs,)`, `outputs` those made, of any shape. `bits` tells
    whether any tap joins the two, a row of packed bits per input, for there may be as many as
    weights; `value`, shape `(inputs,)`, is the constant every call brings; `constant` are the
    positions of those that may be one and not zero, and `sums`, shape `(constant, *bias.shape)`,
    what their taps add up to; `absorbs` tells whether such a one can be folded into the bias
    exactly.
    """

    path: str
    layer: keras.Layer
    bias: Any
    inputs: np.ndarray
    outputs: np.ndarray
    bits: np.ndarray
    value: np.ndarray
    constant: np.ndarray
    sums: np.ndarray
    absorbs: bool

    def blocked(self) -> np.ndarray:
        """Returns which inputs cannot be folded away: they vary, or a border would show them."""
        return np.isnan(self.value) | ((self.value != 0) & (not self.absorbs))

    def joined(self, chosen: np.ndarray) -> np.ndarray:
        """Returns which inputs any tap joins to `chosen` outputs, bool and laid out like those."""
        return np.asarray((self.bits & np.packbits(chosen)).any(1))


@dataclass(frozen=True, eq=False)
class Resize:
    """A config entry that follows the widths that remain: `config[key] = compute(sizes)`."""

    operation: Any
    key: str
    signal: Signal
    compute: Callable[[tuple[int | None, ...]], Any]


@dataclass(frozen=True, eq=False)
class Rescale:
    """A weight that is multiplied by `compute(width, width that remains)` of some units."""

    variable: Any
    labels: np.ndarray
    compute: Callable[[int, int], float]


@dataclass(frozen=True, eq=False)
class Listed:
    """A config entry with a number per unit: `config[key]` is what remains of `values`."""

    operation: Any
    key: str
    values: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Work:
    """One use of a kernel: every entry is multiplied `positions` times for one sample."""

    path: str
    variable: Any
    positions: int
