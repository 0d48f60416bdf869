"""Group Pruner: weight decay that is stronger on the weaker neurons."""

import numpy as np

from keras_gss.procedures.neuron_decay import NeuronDecay


class GroupPruner(NeuronDecay):
    """Decay that falls off with a neuron's norm: factor for the strongest, 16 factor for the least.

    gamma_j = factor 16^((max n - n_j) / (max n - min n)), where n_j = ||w_j||_2 over all in- and
    outgoing weights of neuron j, is computed anew at the end of every epoch; it is `factor` for a
    group whose norms are all equal. Source: Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any
    Structural Pruning", CVPR 2023; biases and normalisation scales are left out here.

    Args:
        factor: strength, finite and >= 0.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument out of its range, named in the message; in `begin`, a model without
            neurons that could be removed.

    Example:
    >>> GroupPruner(factor=0.5).first(norms=np.array([1.0, 2.0, 3.0])).tolist()
    [8.0, 2.0, 0.5]
    """

    def first(self, norms: np.ndarray) -> np.ndarray:
        """Returns factor 16^((max n - n_j) / (max n - min n))."""
        spread = norms.max() - norms.min()
        return self.factor * 16 ** ((norms.max() - norms) / (spread if spread > 0 else 1.0))

    def following(self, gamma: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Returns the same for the norms at the end of the epoch."""
        return self.first(norms)
