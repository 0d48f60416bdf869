"""Penalties of other authors on single weights: of one kernel, or of each kernel of a model."""

from typing import Any

import keras
from keras import ops

from keras_gss import _checks, norms, sparsity
from keras_gss.regularizers.penalty import Penalty


@keras.saving.register_keras_serializable("keras_gss")
class L1(Penalty):
    """The lasso: factor * sum |w|.

    Source: Tibshirani 1996. Keras' own L1 has the value, but at zero weights the gradient 1 on
    JAX. HDF5 files of tf_keras name a class alone and take this one for theirs: save as `.keras`.

    Args:
        factor: strength, finite and >= 0.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> float(L1(0.5)(ops.array([[3.0, 0.0], [0.0, -4.0]])))
    3.5
    """

    def of_weights(self, w: Any) -> Any:
        """Returns sum |w|."""
        return ops.sum(norms.magnitude(w))


@keras.saving.register_keras_serializable("keras_gss")
class Hoyer(Penalty):
    """Hoyer's measure of a kernel: factor * ||w||_1 / ||w||_2, and 0 for a kernel of zeros.

    It does not change with the scale of the weights. Source: DeepHoyer, Yang, Wen, Li, ICLR 2020.

    Args:
        factor: strength, finite and >= 0.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> round(float(Hoyer(1.0)(ops.array([[3.0, 0.0], [0.0, -4.0]]))), 4)
    1.4
    """

    def of_weights(self, w: Any) -> Any:
        """Returns ||w||_1 / ||w||_2."""
        return sparsity.hoyer(norms.magnitude(w))


@keras.saving.register_keras_serializable("keras_gss")
class HoyerSquare(Penalty):
    """The squared Hoyer measure of a kernel: factor * ||w||_1^2 / ||w||_2^2, 0 at zero.

    It does not change with the scale of the weights, and of k equal weights it is k. Source:
    DeepHoyer, Yang, Wen, Li, ICLR 2020.

    Args:
        factor: strength, finite and >= 0.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> round(float(HoyerSquare(1.0)(ops.array([[3.0, 0.0], [0.0, -3.0]]))), 4)
    2.0
    """

    def of_weights(self, w: Any) -> Any:
        """Returns ||w||_1^2 / ||w||_2^2."""
        return ops.square(sparsity.hoyer(norms.magnitude(w)))


@keras.saving.register_keras_serializable("keras_gss")
class TransformedL1(Penalty):
    """Transformed l1: factor * sum (a + 1) |w| / (a + |w|).

    Between the number of non-zero weights, for a towards 0, and the l1 norm, for large a. Source:
    Ma, Miao, Niu, Zhang, arXiv 1901.01021.

    Args:
        factor: strength, finite and >= 0.
        a: finite and >= 1e-9.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> float(TransformedL1(1.0, a=1.0)(ops.array([[3.0, 0.0], [0.0, -1.0]])))
    2.5
    """

    def __init__(self, factor: float, a: float = 1.0) -> None:
        super().__init__(factor)
        self.a = _checks.check_width("a", a)

    def of_weights(self, w: Any) -> Any:
        """Returns sum (a + 1) |w| / (a + |w|)."""
        size = norms.magnitude(w)
        return (self.a + 1) * ops.sum(size / (self.a + size))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "a": self.a}


@keras.saving.register_keras_serializable("keras_gss")
class L1Trim(Penalty):
    """Trimmed l1: factor * sum |w| over all weights of a kernel but the h largest, which are free.

    Source: Yun, Zheng, Yang, Lozano, Aravkin, ICML 2019.

    Args:
        factor: strength, finite and >= 0.
        h: an integer >= 0, the number of free weights per kernel; or a float from 0 to 1, their
            share, rounded down.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> float(L1Trim(0.5, h=1)(ops.array([[3.0, 1.0], [0.0, -4.0]])))
    2.0
    """

    def __init__(self, factor: float, h: float) -> None:
        super().__init__(factor)
        self.h = _checks.check_number_or_share("h", h)

    def of_weights(self, w: Any) -> Any:
        """Returns the sum of all |w| but the h largest."""
        size = ops.reshape(norms.magnitude(w), (-1,))
        return sparsity.trimmed_sum(size, sparsity.number_of(self.h, size.shape[0]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "h": self.h}
