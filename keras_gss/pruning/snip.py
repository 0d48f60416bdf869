"""SNIP: which weights or neurons matter to the loss, before any training."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_gss._keras import gradients
from keras_gss._losses import loss_for
from keras_gss._samples import check_arrays, checksum
from keras_gss.graph import NeuronGroup
from keras_gss.pruning.pieces import Survey
from keras_gss.pruning.rankings import Ranking


@dataclass(frozen=True, repr=False, eq=False)
class SNIP(Ranking):
    """SNIP: the score of a weight is |w dL/dw| on one batch, that of a neuron its weights' sum.

    Meant for a model at its initialisation, which is then trained with the zeros fixed. A neuron's
    weights are all its in- and outgoing ones, in whatever layers. L is the cross-entropy that fits
    the labels, in training mode. Source: Lee, Ajanthan, Torr, ICLR 2019; they score single
    weights, biases not among them.

    Args:
        x: the inputs of one batch, an array or a list or dict of arrays as the model takes them.
        y: its labels: class numbers, or an array of the output's shape.
        fraction, per_layer, biases, inputs, also, keep_strongest, round_to: see `Ranking`.

    Raises:
        ValueError: an argument is out of its range; in use, a loss without a finite gradient.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(2)])
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 1, 0])
    >>> pruned = gss.prune(model, gss.MacsBudget(0.5, by=gss.SNIP(x, y)), granularity="neuron")
    >>> gss.count(pruned).live_macs  # 2 neurons of 5, each 4 + 2
    12
    """

    x: Any
    y: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "x", check_arrays("x", self.x))
        object.__setattr__(self, "y", check_arrays("y", self.y))
        check_arrays("x, y", (self.x, self.y))

    def scores(self, found: Survey) -> list[np.ndarray]:
        """Returns the sensitivities of the loss."""
        loss = loss_for(found.model, self.y)
        slopes = gradients(found.model, loss, self.x, self.y)
        products = {key: np.abs(found.values[key] * slope) for key, slope in slopes.items()}
        if not all(np.isfinite(each).all() for each in products.values()):
            raise ValueError("`SNIP` needs finite gradients: the loss on its batch has none.")
        return [
            products[id(piece.parts[0].variable)]
            if piece.group is None
            else sums_of_neurons(piece.group, products)
            for piece in found.pieces
        ]

    def _said(self, name: str) -> str:
        return f"<{checksum(getattr(self, name))}>" if name in "xy" else super()._said(name)


def sums_of_neurons(group: NeuronGroup, values: dict[int, np.ndarray]) -> np.ndarray:
    """Returns the sum of `values`, `{id(weight): array}`, over all slices of each neuron."""
    total = np.zeros(group.size)
    for piece in (*group.incoming, *group.outgoing):
        others = tuple(k for k in range(len(piece.weight.shape)) if k != piece.axis)
        along = values[id(piece.weight)].sum(axis=others, dtype=np.float64)
        owned = piece.index >= 0
        total += np.bincount(piece.index[owned], along[owned], minlength=group.size)
    return total
