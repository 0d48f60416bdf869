"""Thresholds given by what may remain: how far to cut, by whatever rule, is searched for."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import keras
import numpy as np

from keras_gss._checks import check_fraction, reject
from keras_gss.count import count_values
from keras_gss.pruning.emptied import Masked, names_of_emptied
from keras_gss.pruning.pieces import Masks, Survey
from keras_gss.pruning.rankings import Ranking
from keras_gss.pruning.thresholds import StdThreshold, Threshold, standard_deviation


class BudgetError(ValueError):
    """A budget cannot be met without emptying a layer."""


@dataclass(frozen=True, repr=False)
class Budget(Threshold):
    """Base of `MacsBudget` and `ParamsBudget`; a subclass says what is counted."""

    unit: ClassVar[str] = ""
    fraction: float
    by: Ranking | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fraction", check_fraction("fraction", self.fraction))
        if self.by is None:
            return
        if not isinstance(self.by, Ranking):
            raise reject("by", "a ranking such as MagnitudeThreshold(), or None", self.by)
        given = [name for name, value in self._options().items() if value != _DEFAULTS[name]]
        if given:
            raise ValueError(
                f"`{given[0]}` is the ranking's to say: give it to {type(self.by).__name__}. "
                f"Received: {self!r}"
            )

    def cost(self, count: Any) -> int:
        """Returns what the budget limits, from a `Count`."""
        raise NotImplementedError

    def resolve(
        self, model: keras.Model, granularity: str, dense: keras.Model | None = None
    ) -> Threshold:
        """Returns the threshold that meets the budget and cuts least.

        By default it is the `StdThreshold` of the smallest ratio, with `by` that ranking with its
        largest fraction. Only levels at which one more weight or neuron goes are tried, by
        bisection, so the result leaves the largest cost within the budget wherever cutting more
        never costs more; if it does (constants that cease to cancel can revive a neuron), the best
        of the levels tried.

        Args:
            model: the model to prune.
            granularity: "element" or "neuron".
            dense: the model whose cost `fraction` is a fraction of; by default `model`.

        Raises:
            ValueError: the budget cannot be met without emptying a layer.
        """
        found, level = self._search(model, granularity, dense)
        return self._rule()._at(found, level)

    def masks(self, model: keras.Model, granularity: str) -> Masks:
        """Returns the masks of `resolve(model, granularity)`."""
        found, level = self._search(model, granularity)
        return self._masks_at(found, level)

    def _rule(self) -> Any:
        return self.by or _StdRatios(**self._options())

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _DEFAULTS}

    def _masks_at(self, found: Survey, level: float) -> Masks:
        rule = self._rule()
        return rule._masks(found, rule._limits(found, level))

    def _search(
        self, model: keras.Model, granularity: str, dense: keras.Model | None = None
    ) -> tuple[Survey, float]:
        found = self._rule()._survey(model, granularity)
        whole = self.cost(count_values(found.model if dense is None else dense, {}))
        budget = self.fraction * whole
        levels = self._rule()._levels(found)
        tried: list[tuple[float, float]] = []
        emptied: list[str] = []

        def meets(level: float) -> bool:
            nonlocal emptied
            masks = self._masks_at(found, level)
            names = names_of_emptied(found.weights, found.groups, found.values, masks)
            if names:
                emptied = names
                return True
            cost = self.cost(count_values(found.model, Masked(found.values, masks)))
            tried.append((cost, level))
            return cost <= budget

        low, high = 0, len(levels) - 1
        while low < high:
            middle = (low + high) // 2
            if meets(levels[middle]):
                high = middle
            else:
                low = middle + 1
        meets(levels[low])
        within = [(cost, -level) for cost, level in tried if cost <= budget]
        if not within:
            least = min(tried, default=None)
            raise BudgetError(self._refusal(found, budget, whole, least, emptied))
        _, level = max(within)
        return found, -level

    def _refusal(
        self,
        found: Survey,
        budget: float,
        whole: int,
        least: tuple[float, float] | None,
        emptied: list[str],
    ) -> str:
        reached = ""
        if least:
            at = self._rule()._name(found, least[1])
            reached = f"At best {least[0]:,} remain, at {at}. "
        limit = f"Beyond that these would be empty: {', '.join(emptied)}. " if emptied else ""
        fix = "a larger fraction or a model trained under a stronger penalty"
        if emptied:
            fix += ", or `keep_strongest=True`"
        return (
            f"`{type(self).__name__}(fraction={self.fraction})` allows {int(budget):,} of "
            f"{whole:,} {self.unit}. {reached}{limit}Use {fix}."
        )


_DEFAULTS = {each.name: each.default for each in fields(Threshold)}


@dataclass(frozen=True, repr=False)
class _StdRatios(Threshold):
    """The rule of a budget without ranking: a `StdThreshold`, the levels being its ratios."""

    def _levels(self, found: Survey) -> np.ndarray:
        """Returns ratios, ascending from 0, between which nothing changes; the last zeroes all."""
        changes = [np.zeros(1)]
        for piece in found.pieces:
            spread = standard_deviation(piece.values)
            if spread > 0:
                changes.append((piece.strengths / spread).ravel())
        at = np.unique(np.concatenate(changes))
        return np.concatenate([[0.0], (at[:-1] + at[1:]) / 2, [2 * at[-1]]])

    def _limits(self, found: Survey, level: float) -> list[float]:
        threshold = self._at(found, level)
        return [threshold.limit(piece.values) for piece in found.pieces]

    def _at(self, found: Survey, level: float) -> StdThreshold:
        return StdThreshold(level, **{name: getattr(self, name) for name in _DEFAULTS})

    def _name(self, found: Survey, level: float) -> str:
        return f"ratio {level:.6g}"


@dataclass(frozen=True, repr=False)
class MacsBudget(Budget):
    """Zeroes as little as leaves at most a fraction of the model's live MACs.

    The rule is `StdThreshold`'s, its ratio the smallest that meets the budget; `resolve` tells it.

    Args:
        fraction: of `count(model).live_macs` for the model passed, 0 < fraction <= 1.
        by: another rule than `StdThreshold`'s: a ranking such as `MagnitudeThreshold()` or
            `SNIP(x, y)`, the highest scores of which stay. It has the arguments below itself.
        biases, inputs, also, keep_strongest, round_to: see `Threshold`.

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
        by: another rule than `StdThreshold`'s: a ranking such as `MagnitudeThreshold()` or
            `SNIP(x, y)`, the highest scores of which stay. It has the arguments below itself.
        biases, inputs, also, keep_strongest, round_to: see `Threshold`.

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
