"""Soft pruning: the weakest go to zero after every epoch, and may come back in the next."""

from typing import Any

import keras
import numpy as np

from keras_gss._checks import check_choice, check_threshold
from keras_gss._keras import to_numpy
from keras_gss.graph import find_groups
from keras_gss.procedures.base import AfterEpoch, Procedure
from keras_gss.pruning.pieces import Masks, Part
from keras_gss.pruning.thresholds import GRANULARITIES, HasMasks


class SoftPruning(Procedure):
    """Soft filter pruning: after every epoch the weakest are set to zero and go on being trained.

    Of a neuron only its incoming kernels are set to zero: with its bias and its readers left, it
    can grow again. In the end the weights are as they were before the last time, for a threshold to
    make the final zeros. Source: He, Kang, Dong, Fu,
    Yang, IJCAI 2018, who take the same share of every layer, by the l2 norm of the incoming kernel:
    `MagnitudeThreshold(fraction, per_layer=True)`, whose norm here is over the outgoing ones too.

    Args:
        threshold: who is weakest: a threshold; a budget is resolved once, when training begins, so
            that the same share of weights or neurons is zeroed after each epoch.
        granularity: "neuron" or "element".

    Raises:
        TypeError: `threshold` has no `masks`.
        ValueError: `granularity` is another word.

    Example:
    >>> import numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[3.0], [-4.0]])])
    >>> soft = SoftPruning(gss.MagnitudeThreshold(fraction=0.5), granularity="element")
    >>> model = soft.begin(model)
    >>> soft.update(0)
    >>> print(model.get_weights()[0][:, 0])
    [ 0. -4.]
    """

    def __init__(self, threshold: HasMasks, granularity: str = "neuron") -> None:
        self.threshold = check_threshold("threshold", threshold)
        self.granularity = check_choice("granularity", granularity, GRANULARITIES)
        self.inputs = self.granularity == "neuron" and _takes_inputs(threshold)

    def begin(self, model: keras.Model) -> keras.Model:
        """Settles how much is zeroed; the model stays as it is."""
        self._model = model
        self._settled = settled(self.threshold, model, self.granularity)
        self._whole = [keras.Variable(to_numpy(v), trainable=False) for v in model.weights]
        return model

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callback that sets weights to zero."""
        return [AfterEpoch(self.update)]

    def update(self, epoch: int) -> None:
        """Sets the weakest to zero."""
        masks = self._settled.masks(self._model, self.granularity)
        if self.granularity == "neuron":
            masks = incoming_only(self._model, masks, self.inputs)
        for variable, whole in zip(self._model.weights, self._whole, strict=True):
            whole.assign(to_numpy(variable))
            if id(variable) in masks:
                variable.assign(to_numpy(whole) * masks[id(variable)])

    def state(self) -> list[Any]:
        """Returns the weights as they were before the last zeroing."""
        return self._whole

    def end(self, model: keras.Model) -> keras.Model:
        """Puts the weights back that were zeroed last, in place."""
        for variable, whole in zip(self._model.weights, self._whole, strict=True):
            variable.assign(to_numpy(whole))
        return model

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, the threshold as text."""
        return {"threshold": repr(self.threshold), "granularity": self.granularity}

    def __repr__(self) -> str:
        return f"SoftPruning({self.threshold!r}, granularity={self.granularity!r})"


def settled(threshold: Any, model: keras.Model, granularity: str) -> Any:
    """Returns what a budget comes to for a model as it is now; another threshold as it is."""
    resolves = hasattr(threshold, "resolve")
    return threshold.resolve(model, granularity) if resolves else threshold


def _takes_inputs(threshold: Any) -> bool:
    return bool(getattr(getattr(threshold, "by", None) or threshold, "inputs", False))


def incoming_only(model: keras.Model, masks: Masks, inputs: bool = False) -> Masks:
    """Returns masks of the incoming kernels alone for the neurons that `masks` zeroes.

    Input features, which have no incoming kernels, keep the masks of their outgoing ones.

    Args:
        model: the model.
        masks: as a threshold makes them for neurons.
        inputs: whether they zero input features too.
    """
    found: dict[int, Any] = {}
    for group in find_groups(model, inputs=inputs):
        own = (*group.incoming, *group.outgoing)
        if not own or not all(id(piece.weight) in masks for piece in own):
            continue
        stays = np.zeros(group.size, bool)
        for piece in own:
            others = tuple(k for k in range(len(piece.weight.shape)) if k != piece.axis)
            owned = piece.index >= 0
            any_stays = np.asarray(masks[id(piece.weight)].any(axis=others))
            np.logical_or.at(stays, piece.index[owned], any_stays[owned])
        for piece in group.incoming or group.outgoing:
            mask = Part(piece.weight, piece.axis, piece.index).spread(stays)
            found[id(piece.weight)] = np.logical_and(found.get(id(piece.weight), True), mask)
    return found
