"""Thresholds: from a trained model to the masks that say which weights stay.

A threshold is any object with `masks(model, granularity) -> {id(variable): boolean array}`.
"""

from dataclasses import dataclass, fields
from typing import Protocol

import keras
import numpy as np

from keras_gss._checks import check_choice, check_factor, check_flag, check_integer, reject
from keras_gss.pruning.emptied import keep_strongest, round_widths
from keras_gss.pruning.pieces import Masks, Survey, survey

_PIECE = 2**16  # numbers in float64 at a time

GRANULARITIES = ("element", "neuron")


class HasMasks(Protocol):
    """What `prune` asks of a threshold."""

    def masks(self, model: keras.Model, granularity: str) -> Masks:
        """Returns `{id(variable): mask}`, True where a weight stays, for variables of `model`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Threshold:
    """Base of the thresholds here; a subclass says where the limit lies.

    Args:
        biases: whether biases are compared too ("element"). At "neuron" granularity a neuron's
            bias goes with the neuron.
        inputs: whether input features are compared like neurons ("neuron").
        also: further kinds of weights to compare ("element"): the constraint's argument less
            "_constraint", such as "gamma" or "embeddings". By default normalisation scales and
            shifts, embeddings and PReLU slopes are left alone.
        keep_strongest: what would be left empty keeps its strongest weight or neuron; otherwise
            `prune` refuses to empty it.
        round_to: integer >= 1 ("neuron"): of every NeuronGroup the strongest of those that would
            go stay, until it is as wide as a multiple of this; where too few are left to fill one,
            it keeps what the threshold keeps. Some runtimes compute widths like 8 or 16 faster.

    Raises:
        ValueError: an argument is out of its range; in `masks`, `round_to` is above 1 at another
            granularity than "neuron".

    Example:
    >>> import keras, numpy as np
    >>> from dataclasses import dataclass
    >>> from keras_gss.pruning import Threshold
    >>> @dataclass(frozen=True)
    ... class QuantileThreshold(Threshold):
    ...     fraction: float
    ...
    ...     def limit(self, values):
    ...         return np.quantile(np.abs(values), self.fraction)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    >>> (mask,) = QuantileThreshold(0.5).masks(model, "element").values()
    >>> int(mask.sum())
    4
    """

    biases: bool = True
    inputs: bool = False
    also: tuple[str, ...] = ()
    keep_strongest: bool = False
    round_to: int = 1

    def __post_init__(self) -> None:
        for name in ("biases", "inputs", "keep_strongest"):
            object.__setattr__(self, name, check_flag(name, getattr(self, name)))
        several = isinstance(self.also, (tuple, list, set, frozenset))
        if not several or not all(isinstance(kind, str) for kind in self.also):
            raise reject("also", "a tuple of names such as ('gamma',)", self.also)
        object.__setattr__(self, "also", tuple(self.also))
        object.__setattr__(self, "round_to", check_integer("round_to", self.round_to, minimum=1))

    def __repr__(self) -> str:
        arguments = sorted(fields(self), key=lambda field: bool(field.kw_only))
        values = [(field, self._said(field.name)) for field in arguments]
        given = [f"{field.name}={text}" for field, text in values if text != repr(field.default)]
        return f"{type(self).__name__}({', '.join(given)})"

    def _said(self, name: str) -> str:
        """Returns the text of an argument in `repr`."""
        return repr(getattr(self, name))

    def limit(self, values: np.ndarray) -> float:
        """Returns the strength below which a member goes.

        Args:
            values: the weights of the tensor ("element") or, in one dimension, all in- and
                outgoing weights of the NeuronGroup ("neuron").
        """
        raise NotImplementedError

    def masks(self, model: keras.Model, granularity: str) -> Masks:
        """Returns `{id(variable): mask}`, True where a weight stays, for what is compared.

        Args:
            model: a built Keras 3 model.
            granularity: "element" or "neuron".
        """
        found = self._survey(model, granularity)
        return self._masks(found, [self.limit(piece.values) for piece in found.pieces])

    def _survey(self, model: keras.Model, granularity: str) -> Survey:
        check_choice("granularity", granularity, GRANULARITIES)
        check_rounding(self.round_to, granularity)
        return survey(model, granularity, biases=self.biases, inputs=self.inputs, also=self.also)

    def _masks(self, found: Survey, limits: list[float]) -> Masks:
        pairs = zip(found.pieces, limits, strict=True)
        keeps = [piece.strengths >= np.float64(limit) for piece, limit in pairs]
        if self.keep_strongest:
            keep_strongest(found, keeps)
        if self.round_to > 1:
            round_widths(found, keeps, self.round_to)
        return found.masks(keeps)


def standard_deviation(values: np.ndarray) -> float:
    """Returns the population's, in float64, without a copy of all values in float64."""
    mean = np.mean(values, dtype=np.float64)
    flat, squares = values.reshape(-1), np.float64(0.0)
    for begin in range(0, flat.size, _PIECE):
        piece = flat[begin : begin + _PIECE] - mean
        squares += np.square(piece, out=piece).sum()
    return float(np.sqrt(squares / flat.size))


def check_rounding(round_to: int, granularity: str) -> None:
    """Raises `ValueError` if widths are to be rounded where single weights are compared."""
    if round_to > 1 and granularity != "neuron":
        raise ValueError(
            "`round_to` rounds numbers of neurons, which takes granularity='neuron'. Received: "
            f"round_to={round_to}, granularity={granularity!r}"
        )


@dataclass(frozen=True, repr=False)
class StdThreshold(Threshold):
    """Zeroes what is small beside the spread of its tensor or its NeuronGroup; the paper's rule.

    At "element" granularity a weight goes when `|w| < ratio * std(tensor)`, for every kernel and
    bias of the model. At "neuron" granularity a neuron goes when the root-mean-square of its in-
    and outgoing weights is less than `ratio * std` of all in- and outgoing weights of its
    NeuronGroup. `std` is the population's, in float64.

    Args:
        ratio: a finite number >= 0; 0 zeroes nothing.
        biases, inputs, also, keep_strongest, round_to: see `Threshold`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    >>> model.set_weights([np.array([[1.0, -2.0], [0.1, 2.0]])])
    >>> (mask,) = gss.StdThreshold(ratio=0.3).masks(model, "element").values()
    >>> mask.tolist()
    [[True, True], [False, True]]
    """

    ratio: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "ratio", check_factor("ratio", self.ratio))

    def limit(self, values: np.ndarray) -> float:
        """Returns `ratio * std(values)`."""
        return self.ratio * standard_deviation(values)


@dataclass(frozen=True, repr=False)
class AbsoluteThreshold(Threshold):
    """Zeroes weights with `|w| < value`, or neurons whose root-mean-square weight is below it.

    Args:
        value: a finite number >= 0; 0 zeroes nothing.
        biases, inputs, also, keep_strongest, round_to: see `Threshold`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[1.0], [1e-4]])])
    >>> (mask,) = gss.AbsoluteThreshold(1e-3).masks(model, "element").values()
    >>> mask.tolist()
    [[True], [False]]
    """

    value: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", check_factor("value", self.value))

    def limit(self, values: np.ndarray) -> float:
        """Returns `value`, whatever the weights are."""
        return self.value
