"""Weight decay with a coefficient of its own for every neuron, that follows from the weights."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss._checks import check_factor, check_flag
from keras_gss._keras import track_state, untrack_state
from keras_gss.graph import NeuronGroup, find_groups
from keras_gss.procedures.base import AfterEpoch, Procedure
from keras_gss.procedures.losses import AddedLosses
from keras_gss.regularizers.neuron_sums import PowerSums, neuron_strengths


class NeuronDecay(Procedure):
    """Base: trains under sum_j gamma_j / 2 ||w_j||_2^2, over the neurons j of all groups.

    w_j are all in- and outgoing weights of neuron j, so that gamma_j w is added to their gradient.
    A subclass says what gamma is at first and at the end of every epoch.

    Args:
        factor: strength, finite and >= 0.
        inputs: whether the input features of the model are groups too.

    Attributes:
        gammas: while a model trains, one variable of shape (size,) for each group.
    """

    def __init__(self, factor: float = 5e-4, inputs: bool = False) -> None:
        self.factor = check_factor("factor", factor)
        self.inputs = check_flag("inputs", inputs)
        self.gammas: list[keras.Variable] = []

    def first(self, norms: np.ndarray) -> np.ndarray:
        """Returns gamma for a group of neurons with these norms ||w_j||_2, when training begins."""
        raise NotImplementedError(f"{type(self).__name__} does not define `first`.")

    def following(self, gamma: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Returns gamma after an epoch that went with `gamma` and ended with these norms."""
        raise NotImplementedError(f"{type(self).__name__} does not define `following`.")

    def begin(self, model: keras.Model) -> keras.Model:
        """Puts the loss on the model, in place."""
        found = find_groups(model, inputs=self.inputs)
        self._groups = [each for each in found if each.removable or each.kind == "input"]
        slices = (s for group in self._groups for s in (*group.incoming, *group.outgoing))
        kernels = [s.weight for s in slices if s.weight.trainable]
        if not kernels:
            raise ValueError(
                f"`{type(self).__name__}` finds no neurons in '{model.name}' that could be trained "
                "and removed."
            )
        self.gammas = [
            track_state(model, self.first(norms).astype("float32"), "gamma")
            for norms in neuron_norms(self._groups)
        ]
        self._losses = AddedLosses(model, [(kernels[0], lambda kernel: self._loss())])
        return model

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callback that updates gamma."""
        return [AfterEpoch(self.update)]

    def state(self) -> list[Any]:
        """Returns gamma of every group."""
        return self.gammas

    def end(self, model: keras.Model) -> keras.Model:
        """Takes the loss off, in place."""
        self._losses.remove()
        for gamma in self.gammas:
            untrack_state(model, gamma)
        return model

    def update(self, epoch: int) -> None:
        """Sets gamma to what follows at the end of an epoch."""
        for gamma, norms in zip(self.gammas, neuron_norms(self._groups), strict=True):
            gamma.assign(self.following(ops.convert_to_numpy(gamma), norms))

    def _loss(self) -> Any:
        sums = PowerSums(2, self._groups)
        squares = [neuron_strengths(group, sums) for group in self._groups]
        return sum(ops.sum(g * s) for g, s in zip(self.gammas, squares, strict=True)) / 2

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"factor": self.factor, "inputs": self.inputs}


def neuron_norms(groups: list[NeuronGroup]) -> list[np.ndarray]:
    """Returns ||w_j||_2 over the in- and outgoing weights of each neuron, float64, (size,)."""
    sums = PowerSums(2, groups)
    squares = [ops.convert_to_numpy(neuron_strengths(group, sums)) for group in groups]
    return [np.sqrt(each.astype("float64")) for each in squares]
