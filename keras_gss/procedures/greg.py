"""Group-GReg: weight decay that grows on the weaker neurons."""

from typing import Any

import numpy as np

from keras_gss._checks import check_factor
from keras_gss.procedures.neuron_decay import NeuronDecay


class GroupGReg(NeuronDecay):
    """Growing regularisation of neurons: the weaker one is, the faster its weight decay grows.

    gamma_j is `factor` at first, and each epoch adds delta (max n - n_j) / (max n - min n + 1e-8),
    where n_j = ||w_j||_2 over all in- and outgoing weights of neuron j. Source: Wang, Qin, Zhang,
    Fu, "Neural Pruning via Growing Regularization", ICLR 2021, in the form that Torch-Pruning gives
    it for groups across layers; biases and normalisation scales are left out here.

    Args:
        factor: gamma at first, finite and >= 0.
        delta: what the weakest neuron's gamma grows by in an epoch, finite and >= 0.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument out of its range, named in the message; in `begin`, a model without
            neurons that could be removed.

    Example:
    >>> greg = GroupGReg(factor=0.5, delta=0.25)
    >>> greg.following(np.array([0.5, 0.5, 0.5]), norms=np.array([1.0, 2.0, 3.0])).round(4).tolist()
    [0.75, 0.625, 0.5]
    """

    def __init__(self, factor: float = 5e-4, delta: float = 1e-4, inputs: bool = False) -> None:
        super().__init__(factor, inputs)
        self.delta = check_factor("delta", delta)

    def first(self, norms: np.ndarray) -> np.ndarray:
        """Returns `factor` for every neuron."""
        return np.full_like(norms, self.factor)

    def following(self, gamma: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Returns gamma + delta (max n - n_j) / (max n - min n + 1e-8)."""
        return gamma + self.delta * (norms.max() - norms) / (norms.max() - norms.min() + 1e-8)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"factor": self.factor, "delta": self.delta, "inputs": self.inputs}
