"""Thresholds given by what may remain: the ratio of a `StdThreshold` is searched for."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_gss._checks import check_fraction
from keras_gss.count import count_values
from keras_gss.pruning.emptied import masked, names_of_emptied
from keras_gss.pruning.pieces import Masks, Survey
from keras_gss.pruning.thresholds import StdThreshold, Threshold


@dataclass(frozen=True, repr=False)
class Budget(Threshold):
    """Base of `MacsBudget` and `ParamsBudget`; a subclass says what is counted."""

    unit: ClassVar[str] = ""
    fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fraction", check_fraction("fraction", self.fraction))

    def cost(self, count: Any) -> int:
        """Returns what the budget limits, from a `Count`."""
        raise NotImplementedError

    def resolve(self, model: keras.Model, granularity: str) -> StdThreshold:
        """Returns the `StdThreshold` of the smallest ratio that meets the budget.

        Only ratios at which one more weight or neuron goes are tried, by bisection, so the result
        leaves the largest cost within the budget wherever a larger ratio never costs more; if it
        does (constants that cease to cancel can revive a neuron), the best of the ratios tried.

        Raises:
            ValueError: the budget cannot be met without emptying a layer.
        """
        return self._search(self._survey(model, granularity))

    def masks(self, model: keras.Model, granularity: str) -> Masks:
        """Returns the masks of `resolve(model, granularity)`."""
        found = self._survey(model, granularity)
        return _masks_at(self._search(found), found)

    def _search(self, found: Survey) -> StdThreshold:
        budget = self.fraction * self.cost(count_values(found.model, {}))
        ratios = _ratios(found)
        tried: list[tuple[float, float]] = []
        emptied: list[str] = []

        def meets(ratio: float) -> bool:
            nonlocal emptied
            masks = _masks_at(self._at(ratio), found)
            names = names_of_emptied(found.weights, found.groups, found.values, masks)
            if names:
                emptied = names
                return True
            cost = self.cost(count_values(found.model, masked(found.values, masks)))
            tried.append((cost, ratio))
            return cost <= budget

        low, high = 0, len(ratios) - 1
        while low < high:
            middle = (low + high) // 2
            if meets(ratios[middle]):
                high = middle
            else:
                low = middle + 1
        meets(ratios[low])
        within = [(cost, -ratio) for cost, ratio in tried if cost <= budget]
        if not within:
            raise ValueError(self._refusal(found, budget, min(tried, default=None), emptied))
        _, ratio = max(within)
        return self._at(-ratio)

    def _at(self, ratio: float) -> StdThreshold:
        return StdThreshold(
            ratio,
            biases=self.biases,
            inputs=self.inputs,
            also=self.also,
            keep_strongest=self.keep_strongest,
        )

    def _refusal(
        self,
        found: Survey,
        budget: float,
        least: tuple[float, float] | None,
        emptied: list[str],
    ) -> str:
        dense = self.cost(count_values(found.model, {}))
        reached = f"At best {least[0]:,} remain, at ratio {least[1]:.6g}. " if least else ""
        limit = f"Beyond that these would be empty: {', '.join(emptied)}. " if emptied else ""
        fix = "a larger fraction or a model trained under a stronger penalty"
        if emptied:
            fix += ", or `keep_strongest=True`"
        return (
            f"`{type(self).__name__}(fraction={self.fraction})` allows {int(budget):,} of "
            f"{dense:,} {self.unit}. {reached}{limit}Use {fix}."
        )


@dataclass(frozen=True, repr=False)
class MacsBudget(Budget):
    """Zeroes as little as leaves at most a fraction of the model's live MACs.

    The rule is `StdThreshold`'s, its ratio the smallest that meets the budget; `resolve` tells it.

    Args:
        fraction: of `count(model).live_macs` for the model passed, 0 < fraction <= 1.
        biases, inputs, also, keep_strongest: see `Threshold`.

    Raises:
        ValueError: an argument is out of its range; in `masks` and `resolve`, the budget cannot
            be met without emptying a layer.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> pruned = gss.prune(model, gss.MacsBudget(0.7), granularity="neuron")
    >>> gss.count(model).live_macs, gss.count(pruned).live_macs
    (18, 12)
    """

    unit: ClassVar[str] = "live MACs"

    def cost(self, count: Any) -> int:
        """Returns the live MACs of a `Count`."""
        return count.live_macs


@dataclass(frozen=True, repr=False)
class ParamsBudget(Budget):
    """Zeroes as little as leaves at most a fraction of the model's non-zero parameters.

    The rule is `StdThreshold`'s, its ratio the smallest that meets the budget; `resolve` tells it.

    Args:
        fraction: of `count(model).nonzero_parameters` for the model passed, 0 < fraction <= 1.
        biases, inputs, also, keep_strongest: see `Threshold`.

    Raises:
        ValueError: an argument is out of its range; in `masks` and `resolve`, the budget cannot
            be met without emptying a layer.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[1.0], [-2.0], [3.0], [-4.0]])])
    >>> pruned = gss.prune(model, gss.ParamsBudget(0.5))
    >>> print(keras.ops.convert_to_numpy(pruned.layers[0].kernel)[:, 0])
    [ 0.  0.  3. -4.]
    """

    unit: ClassVar[str] = "non-zero parameters"

    def cost(self, count: Any) -> int:
        """Returns the non-zero parameters of a `Count`."""
        return count.nonzero_parameters


def _masks_at(threshold: StdThreshold, found: Survey) -> Masks:
    return threshold._masks(found, [threshold.limit(piece.values) for piece in found.pieces])


def _ratios(found: Survey) -> np.ndarray:
    """Returns ratios, ascending from 0, between which nothing changes; the last zeroes all."""
    changes = [np.zeros(1)]
    for piece in found.pieces:
        spread = np.std(piece.values, dtype=np.float64)
        if spread > 0:
            changes.append((piece.strengths / spread).ravel())
    at = np.unique(np.concatenate(changes))
    return np.concatenate([[0.0], (at[:-1] + at[1:]) / 2, [2 * at[-1]]])
