"""Spred: the l1 penalty without its kink, by training two factors of every weight."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss import norms
from keras_gss._checks import check_factor
from keras_gss.procedures.base import Procedure
from keras_gss.procedures.losses import AddedLosses
from keras_gss.procedures.reparametrise import Reparametrised


class Spred(Procedure):
    """Trains U and V with W = U * V elementwise, under alpha (||U||_2^2 + ||V||_2^2).

    Its minima are those of the loss with the l1 penalty 2 alpha ||W||_1, and it is smooth. U is set
    out at sgn(W) sqrt|W| and V at sqrt|W|, so that a weight that is zero stays zero. The penalty is
    part of the loss, not a decoupled decay. Source: Ziyin & Wang, "spred: Solving L1 Penalty with
    SGD", ICML 2023.

    Works on Keras 3 models: on the trainable kernels and embeddings of Dense, EinsumDense,
    Embedding, convolutional, recurrent and attention layers, and of any layer that reads its kernel
    as an attribute. What is left as it is, a warning names.

    Args:
        alpha: strength, finite and >= 0; half that of the l1 penalty it amounts to.

    Raises:
        ValueError: an argument out of its range, named in the message.
        TypeError, ValueError: in `begin`, a model without a kernel that could be replaced.

    Example:
    >>> import keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[4.0], [-9.0]])])
    >>> factors = gss.Spred(alpha=0.5)
    >>> trained = factors.begin(model)
    >>> [weight.ravel().tolist() for weight in trained.get_weights()]
    [[2.0, -3.0], [2.0, 3.0]]
    >>> float(sum(trained.losses))  # |4| + |-9|
    13.0
    >>> factors.end(trained).get_weights()[0].ravel().tolist()
    [4.0, -9.0]
    """

    takes_penalty = False

    def __init__(self, alpha: float) -> None:
        self.alpha = check_factor("alpha", alpha)

    def begin(self, model: keras.Model) -> keras.Model:
        """Replaces the kernels by products, in place."""
        self._factors = Reparametrised(model, "Spred", split=_roots, compute=ops.multiply)
        variables = [v for pair in self._factors.pairs for v in (pair.first, pair.second)]
        self._losses = AddedLosses(model, [(v, self._decay) for v in variables])
        return model

    def end(self, model: keras.Model) -> keras.Model:
        """Multiplies the factors, in place."""
        self._losses.remove()
        self._factors.undo()
        return model

    def _decay(self, factor: Any) -> Any:
        return self.alpha * ops.sum(ops.square(norms.as_float(factor)))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"alpha": self.alpha}


def _roots(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(np.abs(w))
    return np.sign(w) * root, root
