"""Gradual pruning: ever more of the weakest are fixed at zero while the rest is trained."""

from dataclasses import replace
from typing import Any

import keras

from keras_gss._checks import check_choice, check_fraction, check_integer, reject
from keras_gss._keras import Callback, is_tf_keras, to_numpy
from keras_gss.procedures.base import Procedure
from keras_gss.procedures.soft_pruning import settled
from keras_gss.pruning.budgets import Budget
from keras_gss.pruning.masks import FixedZeros, own_constraint
from keras_gss.pruning.rankings import Ranking
from keras_gss.pruning.thresholds import GRANULARITIES


class GradualPruning(Procedure):
    """Gradual pruning by a cubic schedule: quickly at first, while there is much to spare.

    From the beginning of epoch t = 1 .. epochs on, a share f + (1 - f) (1 - t / epochs)^3 of the
    weights or neurons stays; the others are fixed at zero. f is the threshold's fraction, or what
    a budget comes to when training begins. The zeros are there to stay if the threshold used
    afterwards is by a ranking too. Source: Zhu & Gupta 2017, who rank by magnitude.

    Args:
        threshold: a ranking with a fraction, or a budget by a ranking, such as
            `MacsBudget(0.1, by=MagnitudeThreshold())`.
        epochs: integer >= 1, the epochs after which f is reached.
        granularity: "neuron" or "element".

    Raises:
        ValueError: an argument is out of its range; in `begin`, a tf_keras model, for which tfmot's
            `PolynomialDecay` does the same.

    Example:
    >>> import keras_gss as gss
    >>> gradual = GradualPruning(gss.MagnitudeThreshold(fraction=0.2), epochs=4)
    >>> [round(gradual.fraction_at(epoch, final=0.2), 4) for epoch in range(5)]
    [0.5375, 0.3, 0.2125, 0.2, 0.2]
    """

    def __init__(
        self, threshold: Ranking | Budget, epochs: int, granularity: str = "neuron"
    ) -> None:
        budget = isinstance(threshold, Budget) and threshold.by is not None
        if not budget and not (isinstance(threshold, Ranking) and threshold.fraction is not None):
            raise reject(
                "threshold", "a ranking with a fraction or a budget by a ranking", threshold
            )
        self.threshold = threshold
        self.epochs = check_integer("epochs", epochs, minimum=1)
        self.granularity = check_choice("granularity", granularity, GRANULARITIES)
        ranking = threshold.by if isinstance(threshold, Budget) else threshold
        self.inputs = self.granularity == "neuron" and ranking.inputs

    def begin(self, model: keras.Model) -> keras.Model:
        """Settles the final fraction; the model stays as it is."""
        if is_tf_keras(model):
            raise ValueError(
                "`GradualPruning` is for Keras 3 models. For one of tf_keras use tfmot's "
                "`prune_low_magnitude` with `PolynomialDecay`, then `slim`."
            )
        self._model = model
        self._ranking = settled(self.threshold, model, self.granularity)
        self._before = [(v, own_constraint(v)) for v in model.trainable_variables]
        return model

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callback that fixes zeros."""
        return [_BeforeEpoch(self)]

    def end(self, model: keras.Model) -> keras.Model:
        """Gives the weights back the constraints they had, in place; the zeros stay for now."""
        for variable, constraint in self._before:
            variable.constraint = constraint
        return model

    def fraction_at(self, epoch: int, final: float) -> float:
        """Returns the share that stays during an epoch, counted from 0, if `final` stays at last.

        Source: Zhu & Gupta 2017, eq. 1, with an initial sparsity of 0.
        """
        check_fraction("final", final)
        return final + (1 - final) * max(1 - (epoch + 1) / self.epochs, 0.0) ** 3

    def update(self, epoch: int) -> None:
        """Fixes the zeros of an epoch."""
        final = self._ranking.fraction
        ranking = replace(self._ranking, fraction=self.fraction_at(epoch, final))
        masks = ranking.masks(self._model, self.granularity)
        for variable, constraint in self._before:
            if id(variable) in masks:
                mask = masks[id(variable)]
                variable.assign(to_numpy(variable) * mask)
                variable.constraint = FixedZeros(mask, constraint)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, the threshold as text."""
        return {
            "threshold": repr(self.threshold),
            "epochs": self.epochs,
            "granularity": self.granularity,
        }

    def __repr__(self) -> str:
        return (
            f"GradualPruning({self.threshold!r}, epochs={self.epochs}, "
            f"granularity={self.granularity!r})"
        )


class _BeforeEpoch(Callback):
    """Fixes the zeros of an epoch, and has Keras make a training step that keeps them."""

    def __init__(self, procedure: GradualPruning) -> None:
        super().__init__()
        self._procedure = procedure
        self._fixed = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if epoch < self._procedure.epochs or not self._fixed:
            self._procedure.update(epoch)
            self.model.make_train_function(force=True)
            self._fixed = True
