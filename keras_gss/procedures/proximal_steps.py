"""Proximal steps: between the epochs, neurons are shortened until the weakest are exactly zero."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss._checks import check_factor, check_flag
from keras_gss._keras import to_numpy
from keras_gss.graph import NeuronGroup, find_groups
from keras_gss.procedures.base import AfterEpoch, Procedure
from keras_gss.procedures.neuron_decay import neuron_norms
from keras_gss.proximal import prox_exclusive
from keras_gss.pruning.pieces import Part
from keras_gss.regularizers.neuron_sums import shared_entries


class ProximalSteps(Procedure):
    """Takes the step of GSS-structure that gradients cannot take: to exact zeros.

    After every epoch each group's neurons go through the prox of strength * (sum_j ||w_j||_2)^2,
    w_j being all in- and outgoing weights of neuron j: all are shortened by the same length, and
    those that are shorter vanish (`prox_exclusive`). One group follows the other, because a kernel
    belongs to two of them. Neurons of recurrent layers have weights in common, so that for these
    the prox has no closed form: there every weight is shortened by both its neurons, or by the one
    that it connects with itself.
    A vanished neuron can come back by its bias and normalisation alone.
    Source: the paper's penalty in the splitting of Combettes and Pesquet 2011.

    Args:
        strength: finite and >= 0; about the penalty's factor times the learning rate times the
            steps of an epoch.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument is out of its range; in `begin`, nothing could be removed.

    Example:
    >>> import numpy as np, keras_gss as gss
    >>> model = keras.Sequential([
    ...     keras.Input((1,)), keras.layers.Dense(2), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[3.0, 0.3]]), np.zeros(2), np.array([[4.0], [0.4]])])
    >>> proximal = gss.ProximalSteps(0.1)
    >>> model = proximal.begin(model)
    >>> proximal.update(0)
    >>> print(model.layers[0].kernel.numpy().round(2).tolist())  # 2 * 0.1 * 5 / (1 + 2 * 0.1) less
    [[2.5, 0.0]]
    """

    def __init__(self, strength: float, inputs: bool = False) -> None:
        self.strength = check_factor("strength", strength)
        self.inputs = check_flag("inputs", inputs)

    def begin(self, model: keras.Model) -> keras.Model:
        """Finds the groups; the model stays as it is."""
        found = find_groups(model, inputs=self.inputs)
        self._groups = [each for each in found if each.removable or each.kind == "input"]
        if not self._groups:
            raise ValueError(
                f"`ProximalSteps` finds no neurons in '{model.name}' that could be removed."
            )
        return model

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callback that takes the steps."""
        return [AfterEpoch(self.update)]

    def update(self, epoch: int) -> None:
        """Shortens the neurons of one group after the other."""
        for group in self._groups:
            (lengths,) = neuron_norms([group])
            shorter = ops.convert_to_numpy(prox_exclusive(lengths, self.strength))
            _multiply(group, shorter / np.where(lengths > 0, lengths, 1))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"strength": self.strength, "inputs": self.inputs}


def _multiply(group: NeuronGroup, scales: np.ndarray) -> None:
    """Multiplies all in- and outgoing weights of each neuron by a number of its own, once."""
    for piece in (*group.incoming, *group.outgoing):
        scale = Part(piece.weight, piece.axis, piece.index).spread(scales)
        if piece in group.incoming:  # what goes out of the same neuron too comes below
            for other in group.outgoing:
                if other.weight is piece.weight:
                    scale = np.where(shared_entries(piece, other), 1.0, scale)
        piece.weight.assign(to_numpy(piece.weight) * scale)
