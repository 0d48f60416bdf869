"""Bayesian l1 trim: a trimmed penalty on the means of weights that are trained under noise."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss import norms
from keras_gss._checks import check_factor, check_width
from keras_gss._keras import in_training, track_noise, untrack_noise
from keras_gss.procedures.base import Procedure
from keras_gss.procedures.losses import AddedLosses
from keras_gss.procedures.reparametrise import Reparametrised, check_library
from keras_gss.regularizers import CrossLayer, GroupL1Trim
from keras_gss.regularizers.binding import Attachment


class BayesL1Trim(Procedure):
    """An interpretation of "Bayes l1trim": kernels have a Gaussian posterior with trimmed means.

    Every kernel is N(mu, sigma^2), elementwise. In training mu + sigma * noise is drawn anew for
    every batch; otherwise, and when training ends, the kernel is mu. The loss gains

        factor * sum over all but the h largest ||mu_j||_2 of each neuron group
        + kl * sum ( log(s / sigma) + sigma^2 / (2 s^2) - 1/2 ),

    the second sum being the divergence from the prior N(mu, s^2), centred at the means so that the
    trimmed penalty alone shrinks these. Source: Yun, Zheng, Yang, Lozano, Aravkin, "Trimming the l1
    Regularizer", ICML 2019, who put their penalty on the means of a Gaussian posterior; the prior,
    the draw per batch and the defaults are ours. `CrossLayer(GroupL1Trim(factor, h))` is the
    penalty without the noise.

    Works on Keras 3 models. The kernels of recurrent cells, and what else cannot be replaced, are
    trained without noise, with a warning.

    Args:
        factor: strength of the trimmed penalty, finite and >= 0.
        h: neurons of each group left free: an integer >= 0, or a float from 0 to 1, their share.
        deviation: s, the deviation of the prior and of every weight at first, > 0.
        kl: strength of the divergence, finite and >= 0; 1 / (number of training samples) makes it
            the variational bound.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument out of its range, named in the message.
        TypeError, ValueError: in `begin`, a model without neurons that could be removed.

    Example:
    >>> import keras_gss as gss
    >>> layers = [keras.layers.Dense(3), keras.layers.Dense(2)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> noisy = gss.BayesL1Trim(1e-3, h=1)
    >>> trained = noisy.begin(model)
    >>> x = np.ones((1, 4))
    >>> [float(ops.std(trained(x) - trained(x, training=noise))) > 0 for noise in (False, True)]
    [False, True]
    >>> model = noisy.end(trained)
    """

    takes_penalty = False

    def __init__(
        self,
        factor: float,
        h: float,
        deviation: float = 0.01,
        kl: float = 1e-5,
        inputs: bool = False,
    ) -> None:
        self._penalty = CrossLayer(GroupL1Trim(factor, h), inputs=inputs)
        self.factor, self.h = self._penalty.penalised.factor, self._penalty.penalised.h
        self.inputs = self._penalty.inputs
        self.deviation = check_width("deviation", deviation)
        self.kl = check_factor("kl", kl)

    def begin(self, model: keras.Model) -> keras.Model:
        """Puts noise on the kernels and the penalty on their means, in place."""
        check_library(model, "BayesL1Trim")
        # Before the kernels become something else: it is the first variable that holds the mean.
        self._attachment = Attachment(model, self._penalty, lasting=False)
        try:
            self._posteriors = Reparametrised(
                model, "BayesL1Trim", self._at_first, self._drawn, in_loops=False
            )
        except ValueError:
            self._attachment.remove()
            raise
        self._noise = track_noise(model, seed=0)
        deviations = [pair.second for pair in self._posteriors.pairs]
        self._losses = AddedLosses(model, [(each, self._divergence) for each in deviations])
        return model

    def end(self, model: keras.Model) -> keras.Model:
        """Makes the kernels their means, in place."""
        self._losses.remove()
        self._posteriors.undo()
        self._attachment.remove()
        untrack_noise(model, self._noise)
        return model

    def _at_first(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return w, np.full_like(w, np.log(self.deviation))

    def _drawn(self, mean: Any, log_deviation: Any) -> Any:
        if not in_training():
            return ops.convert_to_tensor(mean)
        mean, log_deviation = ops.convert_to_tensor(mean), ops.convert_to_tensor(log_deviation)
        noise = keras.random.normal(mean.shape, dtype=mean.dtype, seed=self._noise)
        return mean + ops.exp(log_deviation) * noise

    def _divergence(self, log_deviation: Any) -> Any:
        relative = norms.as_float(log_deviation) - np.log(self.deviation)
        return self.kl * ops.sum(ops.exp(2 * relative) / 2 - relative - 0.5)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        names = ("factor", "h", "deviation", "kl", "inputs")
        return {name: getattr(self, name) for name in names}
