"""Measures of sparsity by other authors, as pure functions of tensors: one equation, one function.

Like those of `keras_gss.norms` they are computed at least in float32, and their gradients are
finite everywhere and 0 at zero weights.
"""

from typing import Any

from keras import ops

from keras_gss import norms


def hoyer(lengths: Any) -> Any:
    """Returns ||x||_1 / ||x||_2 of a vector x >= 0, the ratio of Hoyer 2004; 0 at x = 0.

    Example:
    >>> round(float(hoyer(ops.array([3.0, 4.0, 0.0]))), 4)
    1.4
    """
    return ops.divide_no_nan(ops.sum(lengths), norms.safe_sqrt(ops.sum(ops.square(lengths))))


def trimmed_sum(lengths: Any, free: int) -> Any:
    """Returns the sum of a vector without its `free` largest entries, which get no gradient.

    Source: Yun, Zheng, Yang, Lozano, Aravkin, ICML 2019.

    Args:
        lengths: shape (n,), all >= 0.
        free: number of entries >= 0 to leave out; of equal entries the first go first.

    Returns:
        A scalar tensor; 0 where `free` >= n.

    Example:
    >>> float(trimmed_sum(ops.array([3.0, 4.0, 0.5]), free=1))
    3.5
    """
    free = min(free, lengths.shape[0])
    if not free:
        return ops.sum(lengths)
    _, largest = ops.top_k(ops.stop_gradient(lengths), free)
    # A mask, as the difference of two sums would lose the digits of what is left.
    kept = ops.scatter_update(
        ops.ones_like(lengths),
        ops.expand_dims(largest, -1),
        ops.zeros((free,), dtype=ops.dtype(lengths)),
    )
    return ops.sum(ops.stop_gradient(kept) * lengths)


def smoothed_root(squares: Any, width: float) -> Any:
    """Returns |x| of x^2, for |x| < m the polynomial -x^4 / 8m^3 + 3x^2 / 4m + 3m / 8.

    Twice differentiable where the two meet, and at least 3m/8, so that roots of it are smooth.

    Args:
        squares: x^2, of any shape.
        width: m > 0.

    Example:
    >>> [float(smoothed_root(ops.array(each), width=2.0)) for each in (0.0, 4.0, 9.0)]
    [0.75, 2.0, 3.0]
    """
    # Each branch stays within its range, so that no infinite gradient enters the other's.
    near = ops.minimum(squares / width**2, 1.0)
    polynomial = width * (0.375 + near * (0.75 - near / 8))
    return ops.where(squares < width**2, polynomial, ops.sqrt(ops.maximum(squares, width**2)))


def number_of(h: float, n: int) -> int:
    """Returns how many of `n` a number (an int) or a share (a float, rounded down) stands for.

    Example:
    >>> number_of(3, 10), number_of(0.25, 10)
    (3, 2)
    """
    return int(h * n) if isinstance(h, float) else h
