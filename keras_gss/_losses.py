"""The loss of a classifier, chosen by what the model gives and the labels look like."""

from typing import Any

import numpy as np

from keras_gss._keras import library_of, to_numpy
from keras_gss._probe import random_inputs


def loss_for(model: Any, labels: np.ndarray) -> Any:
    """Returns the cross-entropy that fits the labels' shape and what the model gives."""
    losses = library_of(model).losses
    one_hot = labels.ndim == len(model.outputs[0].shape)
    kind = losses.CategoricalCrossentropy if one_hot else losses.SparseCategoricalCrossentropy
    return kind(from_logits=not gives_probabilities(model))


def gives_probabilities(model: Any) -> bool:
    """Tells whether a classifier's outputs are probabilities; logits otherwise.

    They are if those of a few random inputs are: a softmax can stand in a nested model, be a
    function or come before a last reshape.
    """
    outputs = to_numpy(model(random_inputs(model, batch=4), training=False))
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1, atol=1e-2))
