"""Rankings: thresholds that put all members of a model in one order, and keep the first of them."""

from dataclasses import dataclass, replace

import keras
import numpy as np

from keras_gss._checks import check_flag, check_fraction, check_integer
from keras_gss.pruning.pieces import Masks, Survey
from keras_gss.pruning.thresholds import Threshold


@dataclass(frozen=True, kw_only=True, repr=False)
class Ranking(Threshold):
    """Base of the rankings: a subclass gives every weight or neuron a score, the highest stay.

    How many stay is said by `fraction`, or by a budget: `MacsBudget(0.12, by=ranking)`. What is
    zero already comes last and never stays: its zeros are fixed like those of the others that go.

    Args:
        fraction: of the weights or neurons compared, how many stay, 0 < fraction <= 1; equals of
            the last one stay too. To be left out where a budget decides.
        per_layer: keep the same share of every tensor or NeuronGroup, instead of one order for all.
        biases: whether biases are ranked too ("element").
        inputs, also, keep_strongest, round_to: see `Threshold`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
    >>> import keras, numpy as np
    >>> from dataclasses import dataclass
    >>> from keras_gss.pruning import Ranking
    >>> @dataclass(frozen=True)
    ... class Newest(Ranking):  # the neurons built last are worth most
    ...     def scores(self, found):
    ...         return [np.arange(piece.strengths.size) for piece in found.pieces]
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> masks = Newest(fraction=0.5).masks(model, "neuron")
    >>> print(masks[id(model.layers[0].bias)])
    [False False  True  True]
    """

    fraction: float | None = None
    per_layer: bool = False
    biases: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "per_layer", check_flag("per_layer", self.per_layer))
        if self.fraction is not None:
            object.__setattr__(self, "fraction", check_fraction("fraction", self.fraction))

    def scores(self, found: Survey) -> list[np.ndarray]:
        """Returns the score of each member, one array per piece of `found`, of its shape.

        Args:
            found: the model's weights or neurons: pieces, values, groups.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `scores`.")

    def masks(self, model: keras.Model, granularity: str) -> Masks:
        """Returns the masks that keep `fraction` of the members.

        Raises:
            ValueError: there is no `fraction`.
        """
        if self.fraction is None:
            raise ValueError(
                f"`{self!r}` does not say how many stay. Give it a fraction, as in "
                f"{type(self).__name__}(..., fraction=0.1), or use it in a budget, as in "
                "MacsBudget(0.1, by=...)."
            )
        found = self._survey(model, granularity)
        levels, every = self._levels(found), np.sort(self._all(found))[::-1]
        if not len(levels):
            return self._masks(found, self._limits(found, 0.0))
        level = max(levels[0], every[max(round(self.fraction * len(every)), 1) - 1])
        return self._masks(found, self._limits(found, level))

    def _survey(self, model: keras.Model, granularity: str) -> Survey:
        found = super()._survey(model, granularity)
        scores = [np.asarray(each, dtype=np.float64) for each in self.scores(found)]
        if self.per_layer:
            scores = [_ranks(each) for each in scores]
        pieces = [
            replace(piece, strengths=np.where(piece.strengths > 0, each, -np.inf))
            for piece, each in zip(found.pieces, scores, strict=True)
        ]
        return replace(found, pieces=tuple(pieces))

    def _all(self, found: Survey) -> np.ndarray:
        return np.concatenate([np.zeros(0), *(piece.strengths.ravel() for piece in found.pieces)])

    # What a budget asks of the rule by which it cuts: the levels to try, ascending; the limits of
    # the pieces at a level; and the threshold that a level stands for.

    def _levels(self, found: Survey) -> np.ndarray:
        levels = np.unique(self._all(found))
        return levels[levels > -np.inf]

    def _limits(self, found: Survey, level: float) -> list[float]:
        return [level] * len(found.pieces)

    def _at(self, found: Survey, level: float) -> Threshold:
        return replace(self, fraction=float(np.mean(self._all(found) >= level)))

    def _name(self, found: Survey, level: float) -> str:
        return f"fraction {np.mean(self._all(found) >= level):.6g}"


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Returns the share of the scores that are below each."""
    order = np.argsort(scores, axis=None, kind="stable")
    ranks = np.empty(scores.size)
    ranks[order] = np.arange(scores.size) / max(scores.size, 1)
    return ranks.reshape(scores.shape)


@dataclass(frozen=True, repr=False)
class MagnitudeThreshold(Ranking):
    """Global magnitude pruning: the weakest of all layers go.

    The strength of a weight is its magnitude, that of a neuron the root-mean-square of its in- and
    outgoing weights. Source: Han et al. 2015, with one order for all layers.

    Args:
        fraction, per_layer, biases, inputs, also, keep_strongest, round_to: see `Ranking`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    >>> model.set_weights([np.array([[1.0, -2.0], [0.1, 2.0]])])
    >>> (mask,) = gss.MagnitudeThreshold(fraction=0.5).masks(model, "element").values()
    >>> mask.tolist()
    [[False, True], [False, True]]
    """

    def scores(self, found: Survey) -> list[np.ndarray]:
        """Returns the members' strengths."""
        return [piece.strengths for piece in found.pieces]


@dataclass(frozen=True, repr=False)
class RandomThreshold(Ranking):
    """Random pruning: who stays is drawn by lot, the yardstick that a method has to beat.

    Args:
        seed: integer >= 0; the same seed draws the same members of the same model.
        fraction, per_layer, biases, inputs, also, keep_strongest, round_to: see `Ranking`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> (mask,) = gss.RandomThreshold(seed=1, fraction=0.25).masks(model, "element").values()
    >>> int(mask.sum())
    5
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seed", check_integer("seed", self.seed))

    def scores(self, found: Survey) -> list[np.ndarray]:
        """Returns random numbers."""
        draws = np.random.default_rng(self.seed)
        return [draws.random(piece.strengths.shape) for piece in found.pieces]
