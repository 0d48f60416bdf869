"""Penalties of other authors on groups: the rows and columns of kernels, or neurons.

Called with a kernel, each is the sum over the groups along its next to last axis, the inputs, and
over those along its last, the outputs, of a Dense or convolutional layer. Within `CrossLayer` the
groups are the neurons, and every sum over g below is one per neuron group.
"""

from typing import Any

import keras
from keras import ops

from keras_gss import _checks, norms, sparsity
from keras_gss.regularizers.penalty import Penalty


@keras.saving.register_keras_serializable("keras_gss")
class GroupLasso(Penalty):
    """The group lasso: factor * sum_g ||w_g||_2.

    Source: Yuan & Lin 2006; for the rows and columns of kernels, Wen et al. 2016.

    Args:
        factor: strength, finite and >= 0.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> float(GroupLasso(0.5)(ops.array([[3.0, 0.0], [4.0, 0.0]])))  # rows 3 and 4, columns 5, 0
    6.0
    """

    orders = (2,)

    def of_groups(self, squares: Any) -> Any:
        """Returns sum_g ||w_g||_2."""
        return ops.sum(norms.safe_sqrt(squares))


@keras.saving.register_keras_serializable("keras_gss")
class GroupHoyerSquare(Penalty):
    """The squared Hoyer measure of groups: factor * (sum_g ||w_g||_2)^2 / sum_g ||w_g||_2^2.

    Of k groups of one length it is k, at any scale; 0 if all are zero. Source: DeepHoyer, Yang,
    Wen, Li, ICLR 2020.

    Args:
        factor: strength, finite and >= 0.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> penalty = GroupHoyerSquare(1.0)(ops.array([[3.0, 0.0], [3.0, 0.0]]))
    >>> round(float(penalty), 4)  # two rows, one column
    3.0
    """

    orders = (2,)

    def of_groups(self, squares: Any) -> Any:
        """Returns (sum_g ||w_g||_2)^2 / sum_g ||w_g||_2^2."""
        return ops.square(sparsity.hoyer(norms.safe_sqrt(squares)))


@keras.saving.register_keras_serializable("keras_gss")
class ExclusiveLasso(Penalty):
    """The exclusive lasso: factor * sum_g ||w_g||_1^2; the weights of a group compete.

    Source: Zhou, Jin, Hoi 2010.

    Args:
        factor: strength, finite and >= 0.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> float(ExclusiveLasso(1.0)(ops.array([[3.0, 0.0], [4.0, 0.0]])))  # 9 + 16 and 49 + 0
    74.0
    """

    orders = (1,)

    def of_groups(self, lengths: Any) -> Any:
        """Returns sum_g ||w_g||_1^2."""
        return ops.sum(ops.square(lengths))


@keras.saving.register_keras_serializable("keras_gss")
class CGES(Penalty):
    """Combined group and exclusive sparsity: factor * sum_g ((1-mu) ||w_g||_2 + mu/2 ||w_g||_1^2).

    mu = 0 is the group lasso, mu = 1 half the exclusive lasso. Source: Yoon & Hwang, ICML 2017.

    Args:
        factor: strength, finite and >= 0.
        mu: from 0 to 1; or None for mu_l = l / L, which grows with depth. l = 1 .. L then counts
            the kernels, or within `CrossLayer` the neuron groups, in the order of the graph, so
            that the penalty has to be attached to a model.

    Raises:
        ValueError: an argument out of its range, named in the message; when called with a kernel
            of no model, mu=None.

    Example:
    >>> float(CGES(1.0, mu=0.5)(ops.array([[3.0, 0.0], [4.0, 0.0]])))  # 12 / 2 + 74 / 4
    24.5
    """

    orders = (1, 2)

    def __init__(self, factor: float, mu: float | None = None) -> None:
        super().__init__(factor)
        self.mu = None if mu is None else _checks.check_share("mu", float(mu))

    def of_layer(self, layer: int, layers: int) -> "CGES":
        """Returns the penalty for layer 1 .. `layers` of a model."""
        return self if self.mu is not None else CGES(self.factor, layer / layers)

    def of_groups(self, lengths: Any, squares: Any) -> Any:
        """Returns sum_g ((1 - mu) ||w_g||_2 + mu/2 ||w_g||_1^2)."""
        if self.mu is None:
            raise _checks.reject("mu", "a number from 0 to 1 unless the penalty is attached", None)
        group, exclusive = ops.sum(norms.safe_sqrt(squares)), ops.sum(ops.square(lengths))
        return (1 - self.mu) * group + self.mu / 2 * exclusive

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "mu": self.mu}


@keras.saving.register_keras_serializable("keras_gss")
class SparseGroupLasso(Penalty):
    """The sparse group lasso: factor * ((1 - alpha) sum_g ||w_g||_2 + alpha sum |w|).

    Every weight counts once in the second sum, however many groups it is in. alpha = 0 is the
    group lasso, alpha = 1 the lasso. Source: Simon, Friedman, Hastie, Tibshirani 2013, without
    their weighting by the groups' sizes; Scardapane et al. 2017.

    Args:
        factor: strength, finite and >= 0.
        alpha: from 0 to 1.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> float(SparseGroupLasso(1.0, alpha=0.5)(ops.array([[3.0, 0.0], [4.0, 0.0]])))  # (12 + 7) / 2
    9.5
    """

    orders = (2,)

    def __init__(self, factor: float, alpha: float = 0.5) -> None:
        super().__init__(factor)
        self.alpha = float(_checks.check_share("alpha", alpha))

    def of_weights(self, w: Any) -> Any:
        """Returns alpha sum |w|."""
        return self.alpha * ops.sum(norms.magnitude(w))

    def of_groups(self, squares: Any) -> Any:
        """Returns (1 - alpha) sum_g ||w_g||_2."""
        return (1 - self.alpha) * ops.sum(norms.safe_sqrt(squares))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "alpha": self.alpha}


@keras.saving.register_keras_serializable("keras_gss")
class GroupL1Trim(Penalty):
    """Trimmed group lasso: factor * sum ||w_g||_2 over all groups but the h largest, left free.

    Source: Yun, Zheng, Yang, Lozano, Aravkin, ICML 2019; their Bayesian version puts it on the
    means of a Gaussian posterior.

    Args:
        factor: strength, finite and >= 0.
        h: an integer >= 0, the number of groups left free, of the rows, of the columns or of each
            neuron group; or a float from 0 to 1, their share, rounded down.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> float(GroupL1Trim(1.0, h=1)(ops.array([[3.0, 0.0], [4.0, 0.0]])))  # row 3, column 0
    3.0
    """

    orders = (2,)

    def __init__(self, factor: float, h: float) -> None:
        super().__init__(factor)
        self.h = _checks.check_number_or_share("h", h)

    def of_groups(self, squares: Any) -> Any:
        """Returns the sum of all ||w_g||_2 but the h largest."""
        lengths = norms.safe_sqrt(squares)
        return sparsity.trimmed_sum(lengths, sparsity.number_of(self.h, lengths.shape[0]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "h": self.h}


@keras.saving.register_keras_serializable("keras_gss")
class SHSQGL12(Penalty):
    """An interpretation of "SHSQ-GL1/2": factor * (smoothed Hoyer-Square + ratio * group l1/2).

    No source defines it. Taken here: (sum s(w))^2 / sum s(w)^2 over a kernel's weights, plus
    ratio * sum_g s(||w_g||_2)^(1/2), where s is the smoothed magnitude of the literature on
    smoothed l1/2: |x|, and -x^4 / 8m^3 + 3x^2 / 4m + 3m / 8 for |x| < m.

    Args:
        factor: strength, finite and >= 0.
        ratio: strength of the second term relative to that of the first, finite and >= 0.
        m: the width of the smoothing, finite and >= 1e-9.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> penalty = SHSQGL12(1.0, ratio=1.0, m=1.0)(ops.array([[4.0, 4.0], [4.0, 4.0]]))
    >>> round(float(penalty), 4)  # 4, and four roots of sqrt(32)
    13.5137
    """

    orders = (2,)

    def __init__(self, factor: float, ratio: float = 1.0, m: float = 1e-3) -> None:
        super().__init__(factor)
        self.ratio = _checks.check_factor("ratio", ratio)
        self.m = _checks.check_width("m", m)

    def of_weights(self, w: Any) -> Any:
        """Returns (sum s(w))^2 / sum s(w)^2."""
        return ops.square(sparsity.hoyer(sparsity.smoothed_root(ops.square(w), self.m)))

    def of_groups(self, squares: Any) -> Any:
        """Returns ratio * sum_g s(||w_g||_2)^(1/2)."""
        return self.ratio * ops.sum(ops.sqrt(sparsity.smoothed_root(squares, self.m)))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "ratio": self.ratio, "m": self.m}
