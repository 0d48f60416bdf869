"""Distillation: finetuning that also learns from what the dense model holds for likely."""

import keras
import numpy as np

from keras_gss._losses import gives_probabilities
from keras_gss.compress.data import Data
from keras_gss.compress.phases import EVALUATION_BATCH

TEMPERATURE = 2.0


def one_hot(data: Data, model: keras.Model) -> Data:
    """Returns data whose labels have the shape of the model's output.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> one_hot((np.ones((2, 4)), np.array([0, 2])), model)[1]
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    inputs, labels = data
    output = model.outputs[0].shape
    if labels.ndim == len(output):
        return data
    return inputs, np.eye(output[-1], dtype="float32")[labels]


def soften(data: Data, teacher: keras.Model, share: float) -> Data:
    """Mixes what a teacher gives, softened by a temperature of 2, into one-hot labels.

    The cross-entropy with the mixture is the mixture of the two cross-entropies (Hinton, Vinyals
    and Dean 2015, with a temperature for the teacher only, so that no other loss is needed).

    Args:
        data: inputs and one-hot labels.
        teacher: a classifier for these inputs, logits or softmax.
        share: the teacher's part, from 0 to 1.

    Returns:
        The inputs and the mixed labels, float32.
    """
    inputs, labels = data
    outputs = teacher.predict(inputs, batch_size=EVALUATION_BATCH, verbose=0).astype("float64")
    if gives_probabilities(teacher):
        outputs = np.log(np.maximum(outputs, 1e-30))
    scaled = outputs / TEMPERATURE
    likely = np.exp(scaled - scaled.max(-1, keepdims=True))
    likely /= likely.sum(-1, keepdims=True)
    return inputs, ((1 - share) * labels + share * likely).astype("float32")
