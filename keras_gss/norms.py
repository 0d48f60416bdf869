"""The penalties as pure functions of tensors: one equation, one function.

Written on `keras.ops`, so they run and differentiate on every Keras backend. Half-precision
tensors are computed in float32. Gradients are finite everywhere; where a norm has none (at a
zero group) they are the subgradient of least norm, 0. Those of `safe_sqrt` and `power_sums`, of
which a training step under a penalty consists, are written out: fewer operations than backends
derive, and no temporaries of a weight's size but one.

Source: "Learning Compact Neural Networks via Generalized Structured Sparsity", called the
paper; the equation numbers are the paper's.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops, tree

from keras_gss._checks import check_axes, check_choice, check_positive, reject
from keras_gss._keras import in_tensorflow_xla, sum_of_squares

# Squares under this flush to zero on some devices, so that a group of norm under 1.1e-19 is a
# zero group on all of them.
TINY = float(np.finfo(np.float32).tiny)

LOWEST = float(np.finfo(np.float32).min)

# Into how many slices a sum is folded, see `_folded_sum`: 4 and 8 are alike, 14 is slower.
FOLDS = 4

# The norm of a neuron under which the forms with r < 1 stop getting steeper (`gss_structure`).
# Far below what any threshold keeps, far above where float32 loses digits.
FLOOR = 1e-4

Axes = int | Sequence[int]


def as_float(x):
    """Returns `x` as a tensor of at least 32 bits: float16 and bfloat16 become float32."""
    x = ops.convert_to_tensor(x)
    half = str(ops.dtype(x)) in ("float16", "bfloat16")
    # On TensorFlow the cast is also what reads a variable: none may enter a custom gradient.
    return ops.cast(x, "float32" if half else ops.dtype(x))


def safe_sqrt(x):
    """Returns sqrt(x) for x >= 0, with the gradient 1 / (2 sqrt(x)), and 0 at x = 0."""
    return _safe_sqrt(as_float(x))


@ops.custom_gradient
def _safe_sqrt(x):
    root = _root(x)
    return root, lambda upstream: _over(0.5 * upstream, root)


def _root(x):
    return ops.where(x <= TINY, 0.0, ops.sqrt(x))  # false for NaN, which has to show


def _over(x, root):
    """Returns x / root, and 0 where the root is 0.

    The last operation of a gradient: what XLA finds cheaper it would repeat for every weight.
    """
    return x / ops.where(ops.equal(root, 0.0), np.inf, root)


def magnitude(x):
    """Returns |x|, with the gradient 0 at x = 0; that of `ops.abs` is 1 there on JAX."""
    return x * ops.stop_gradient(ops.sign(x))


def power_sums(w, p: int, axes: Sequence[int], valued: bool = True) -> tuple:
    """Returns, for each of `axes`, sum |w|^p over all the other axes: ||w_j||_p^p of its slices j.

    The gradient by w of sum_k <u_k, s_k> is p |w|^(p-1) sgn(w) times the sum of the u_k, each
    broadcast from its axis.

    Args:
        w: tensor of any rank.
        p: 1 or 2.
        axes: non-negative axes of `w`, without repetitions.
        valued: False for zeros in place of the sums, with the gradients of the sums, which do not
            depend on them.

    Returns:
        For each axis a tensor of shape (w.shape[axis],), at least in float32.

    Example:
    >>> rows, columns = power_sums(np.array([[3.0, 0.0], [4.0, -2.0]]), p=1, axes=(0, 1))
    >>> ops.convert_to_numpy(rows).tolist(), ops.convert_to_numpy(columns).tolist()
    ([3.0, 6.0], [7.0, 2.0])
    """

    @ops.custom_gradient
    def sums_of(w):
        rank = len(w.shape)
        others = [tuple(each for each in range(rank) if each != axis) for axis in axes]

        def gradient(*upstream):
            # JAX passes one tuple, TensorFlow one argument per sum.
            shapes = [[-1 if each == axis else 1 for each in range(rank)] for axis in axes]
            pairs = zip(tree.flatten(upstream), shapes, strict=True)
            along = [ops.reshape(p * each, shape) for each, shape in pairs]
            return (w if p == 2 else ops.sign(w)) * sum(along[1:], start=along[0])

        if not valued:
            return tuple(ops.zeros((w.shape[axis],), ops.dtype(w)) for axis in axes), gradient
        apart = [size for axis, size in enumerate(w.shape) if axis not in axes]
        if keras.backend.backend() == "jax" and rank > 2 and math.prod(apart) > 1:
            return tuple(_sums_of_sums(w, p, axes)), gradient
        if keras.backend.backend() == "tensorflow" and p == 2 and not in_tensorflow_xla():
            return tuple(sum_of_squares(w, rest) for rest in others), gradient
        total = _folded_sum if in_tensorflow_xla() else ops.sum
        sums = zip(_powers(w, p, len(axes)), others, strict=True)
        return tuple(total(powers, axis=rest) for powers, rest in sums), gradient

    return sums_of(as_float(w))


def _powers(w, p: int, count: int) -> list:
    """Returns |w|^p so many times: on JAX each is another expression.

    XLA merges equal expressions. What it needs for one sum it computes while it adds up, what it
    needs for two it writes to memory first. A bound that no weight comes near is one operation
    that it cannot know to do nothing; on the last expression it would cost more.
    """
    power = ops.square if p == 2 else ops.abs
    if keras.backend.backend() != "jax":
        return [power(w)] * count
    bounds = [LOWEST / (k + 1) for k in range(count - 1)]
    return [*(power(ops.maximum(w, bound)) for bound in bounds), power(w)]


def _sums_of_sums(w, p: int, axes: Sequence[int]) -> list:
    """Returns the sums of `power_sums`, for which |w|^p is first added up along all other axes.

    What JAX's XLA for CPUs needs twice, and what it turns into windows (sums along more than 32
    entries), it writes to memory. Like this that is nothing of a kernel's size. The bounds keep
    it from making one sum of two.
    """
    shape: list[int] = []
    first: list[int] = []
    second: list[int] = []
    for axis, size in enumerate(w.shape):
        if axis not in axes:
            windows = next(n for n in range(max(1, -(-size // 32)), size + 1) if size % n == 0)
            second += [len(shape) - len(first)] * (windows > 1)
            shape += [windows] * (windows > 1)
            first.append(len(shape))
            size //= windows
        shape.append(size)
    power, own = ops.square if p == 2 else ops.abs, sorted(axes)
    small = power(ops.reshape(w, shape))
    for summed in (first, second):
        if summed:
            small = ops.maximum(ops.sum(small, axis=tuple(summed)), LOWEST)
    others = [tuple(k for k, each in enumerate(own) if each != axis) for axis in axes]
    return [ops.sum(small, axis=other) if other else small for other in others]


def _folded_sum(x, axis: tuple[int, ...]):
    """Returns what `ops.sum` does, after adding up the quarters of `x` along the longest axis.

    TensorFlow's XLA for CPUs turns a sum along more than 32 entries into windows, which it
    computes one number at a time; slices it adds with vector instructions. (That of JAX gains
    nothing by it, and TensorFlow without XLA loses.)
    """
    along = max(axis, key=lambda each: x.shape[each], default=0)
    if not axis or x.shape[along] <= 32:
        return ops.sum(x, axis=axis)
    ends = [x.shape[along] // FOLDS * each for each in range(1, FOLDS + 1)]
    *slices, rest = ops.split(x, ends, axis=along)
    total = ops.sum(sum(slices[1:], start=slices[0]), axis=axis)
    return total + ops.sum(rest, axis=axis) if rest.shape[along] else total


def norm(x, order: int, axes: Sequence[int]):
    """Returns the l1 or l2 norm (`order` 1 or 2) of `x` along `axes`, which stay with size 1.

    Without axes every entry is a vector of its own, whose norm is its magnitude.
    """
    if not axes:
        return magnitude(x)
    if order == 1:
        return ops.sum(magnitude(x), axis=tuple(axes), keepdims=True)
    return safe_sqrt(ops.sum(ops.square(x), axis=tuple(axes), keepdims=True))


def split_axes(shape: Sequence[int], inner: Axes, middle: Axes) -> tuple[tuple[int, ...], ...]:
    """Returns `inner` and `middle` as non-negative axes of a kernel of the given shape.

    Raises:
        ValueError: an axis out of range, named twice, or in both.

    Example:
    >>> split_axes((5, 5, 3, 8), inner=(0, 1, 2), middle=-1)
    ((0, 1, 2), (3,))
    """
    rank = len(shape)
    resolved = []
    for name, axes in (
        ("inner", check_axes("inner", inner)),
        ("middle", check_axes("middle", middle)),
    ):
        if any(not -rank <= axis < rank for axis in axes):
            expected = f"axes from {-rank} to {rank - 1} for a kernel of shape {tuple(shape)}"
            raise reject(name, expected, axes)
        resolved.append(check_axes(name, [axis % rank for axis in axes]))
    if set(resolved[0]) & set(resolved[1]):
        raise reject("middle", f"free of the axes of inner={inner}", middle)
    return tuple(resolved)


def nested_norm(w, inner: Axes, middle: Axes, orders: Sequence[int]):
    """Returns the three-level mixed norm of a kernel.

    Args:
        w: tensor of any rank.
        inner: axes within a subgroup, normed first with `orders[0]`.
        middle: axes that index the subgroups of a group, normed next with `orders[1]`.
            The axes in neither index the groups, normed last with `orders[2]`.
        orders: three numbers, each 1 or 2.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: axes out of range, repeated or in both.

    Example:
    >>> float(nested_norm([[3.0, 0.0], [4.0, -2.0]], inner=0, middle=1, orders=(2, 1, 2)))
    7.0
    """
    w = as_float(w)
    inner, middle = split_axes(w.shape, inner, middle)
    subgroups = norm(w, orders[0], inner)
    groups = norm(subgroups, orders[1], middle)
    return ops.sum(norm(groups, orders[2], tuple(range(len(w.shape)))))


def gss121(w, inner: Axes = (0,), middle: Axes = (1,)):
    """GSS121, eq. 1: sum_g sqrt( sum_{g' in g} ||w_{g,g'}||_1^2 ), a scalar.

    Example:
    >>> float(gss121([[3.0, 0.0], [0.0, -4.0]], inner=0, middle=1))
    5.0
    """
    return nested_norm(w, inner, middle, orders=(1, 2, 1))


def gss212(w, inner: Axes = (0,), middle: Axes = (1,), squared: bool = False):
    """GSS212: sqrt( sum_g ( sum_{g' in g} ||w_{g,g'}||_2 )^2 ), or without the outer root.

    The squared form makes the subgroups compete even where there is one group, of which the
    root form is only the group lasso.

    Example:
    >>> float(gss212([[3.0, 0.0], [4.0, -2.0]], inner=0, middle=1, squared=True))
    49.0
    """
    root = nested_norm(w, inner, middle, orders=(2, 1, 2))
    return ops.square(root) if squared else root


def deep_gss121(incoming, outgoing):
    """Deep GSS121, eq. 2-3, for one layer of neurons: sum_j sqrt(||in_j||_1^2 + ||out_j||_1^2).

    Args:
        incoming: shape (neurons,), the l1 norms of the neurons' incoming weights.
        outgoing: shape (neurons,), the l1 norms of the neurons' outgoing weights.

    Returns:
        A scalar tensor.
    """
    return ops.sum(safe_sqrt(ops.square(as_float(incoming)) + ops.square(as_float(outgoing))))


def gss_element(incoming, outgoing):
    """Element-wise deep GSS212, squared: sum_j (||in_j||_1^2 + ||out_j||_1^2), a scalar.

    Args:
        incoming: shape (neurons,), the l1 norms of the neurons' incoming weights.
        outgoing: shape (neurons,), the l1 norms of the neurons' outgoing weights.
    """
    return ops.sum(ops.square(as_float(incoming)) + ops.square(as_float(outgoing)))


def gss_structure(strengths, p: int = 2, q: int = 2, floor: float = FLOOR):
    """Structured deep GSS212 and its (p, q) family: || (||w_j||_p)_j ||_r^p, 1/r = 1/p + 1/q.

    With s_j = ||w_j||_p^p and t = q / (p + q) this is ( sum_j s_j^t )^(1/t). For (2, 2), the
    paper's squared form, it is exactly that. The others have r < 1 and an unbounded gradient
    at a weak neuron; there s^t is replaced by s * max(s, floor^p)^(t - 1), the same for a
    neuron of norm 0 or >= `floor` and, in between, linear in s. So every derivative by a weight
    is at most p/t * floor^(r - 1) * (sum_j s_j^t)^(p/q) in magnitude.

    Args:
        strengths: shape (neurons,), s_j = ||w_j||_p^p over all weights of neuron j.
        p: 1 or 2, the norm of a neuron's weights.
        q: 1 or 2, the norm that bounds the selection variables.
        floor: the norm > 0 of a neuron below which the slope stays as it is.

    Returns:
        A scalar tensor.

    Example:
    >>> float(gss_structure(np.array([9.0, 16.0, 0.0]), p=2, q=2))
    49.0
    >>> float(gss_structure(np.array([9.0, 16.0, 0.0]), p=1, q=1))
    49.0
    """
    return gss_structures([strengths], p, q, floor)[0]


def gss_structures(groups: Sequence, p: int = 2, q: int = 2, floor: float = FLOOR):
    """Returns `gss_structure` of the strengths of each group, shape (groups,).

    What is done to every strength is done to those of all groups at once: a training step has fewer
    operations then, each of which costs more than its arithmetic. TensorFlow's XLA loses as much
    where it reads slices of what was joined.
    """
    p, q, floor = _checked(p, q, floor)
    groups = [as_float(each) for each in groups]
    joined = [[each] for each in groups] if in_tensorflow_xla() else [groups]
    found = [_structures(join(each), sizes_of(each), p, q, floor) for each in joined]
    return join(found)


def join(vectors: Sequence):
    """Returns the vectors one after another as one."""
    return vectors[0] if len(vectors) == 1 else ops.concatenate(vectors)


def sizes_of(vectors: Sequence) -> list[int]:
    """Returns how many entries each of the vectors has."""
    return [each.shape[0] for each in vectors]


def _structures(strengths, sizes: Sequence[int], p: int, q: int, floor: float):
    """Returns what `gss_structures` does of strengths that are joined, so many of each group."""
    if not p == q == 2:
        return ops.power(_sums(_floored_power(strengths, p, q, floor), sizes), (p + q) / q)

    @ops.custom_gradient
    def squares_of_sums_of_roots(strengths):
        roots = _root(strengths)
        sums = _sums(roots, sizes)

        def gradient(upstream):
            return _over(_repeated(upstream * sums, sizes), roots)

        return ops.square(sums), gradient

    return squares_of_sums_of_roots(strengths)


def _sums(vector, sizes: Sequence[int]):
    """Returns the sum of the first `sizes[0]` entries, that of the next `sizes[1]`, ..."""
    parts = ops.split(vector, np.cumsum(sizes)[:-1].tolist()) if len(sizes) > 1 else [vector]
    return ops.stack([ops.sum(each) for each in parts])


def _repeated(vector, sizes: Sequence[int]):
    """Returns the first entry `sizes[0]` times, the next `sizes[1]` times, ..."""
    if len(sizes) == 1:
        return vector
    return ops.take(vector, np.repeat(np.arange(len(sizes), dtype="int32"), sizes), axis=0)


def selection_variables(strengths, p: int = 2, q: int = 2, floor: float = FLOOR):
    """The best shares a_j of the neurons: a_j = s_j^(1/(p+q)) / ( sum_k s_k^(q/(p+q)) )^(1/q).

    They minimise `selected_sum` over a >= 0, ||a||_q <= 1. A neuron weaker than `floor` gets
    the share of one that strong, which bounds the gradient while a share is held over several
    steps. No gradient passes through the result.

    Args:
        strengths: shape (neurons,), as in `gss_structure`.
        p: as in `gss_structure`.
        q: as in `gss_structure`.
        floor: as in `gss_structure`.

    Returns:
        Shape (neurons,), all positive.
    """
    p, q, floor = _checked(p, q, floor)
    strengths = ops.stop_gradient(as_float(strengths))
    total = ops.sum(_floored_power(strengths, p, q, floor))
    total = ops.where(total > TINY, total, 1.0)
    return ops.power(ops.maximum(strengths, floor**p), 1 / (p + q)) / ops.power(total, 1 / q)


def selected_sum(strengths, selection, p: int = 2):
    """The variational form of `gss_structure`: sum_j s_j / a_j^p, a scalar.

    At the selection variables of these very strengths the value is that of the closed form
    and, by the envelope theorem, so is the gradient with a held fixed; with the floor, for
    neurons of norm 0 or >= `floor`.

    Args:
        strengths: shape (neurons,), s_j = ||w_j||_p^p.
        selection: shape (neurons,), a_j > 0.
        p: 1 or 2.

    Example:
    >>> strengths = np.array([9.0, 16.0, 0.0])
    >>> round(float(selected_sum(strengths, selection_variables(strengths))), 4)
    49.0
    """
    return ops.sum(as_float(strengths) / ops.power(selection, check_choice("p", p, (1, 2))))


def held_sums(groups: Sequence, powers, values):
    """What the `selected_sum` of each group was earlier, with the gradients that they have now.

    Args:
        groups: for each group s_j = ||w_j||_p^p, shape (neurons,); only their gradients count.
        powers: a_j^p > 0 of the selection variables a_j that are held, of all groups one after
            another in one vector.
        values: shape (groups,), the sums at the step when the selection variables were chosen.

    Returns:
        Shape (groups,).

    Example:
    >>> float(held_sums([np.array([9.0, 16.0])], np.array([2.0, 2.0]), np.array([49.0]))[0])
    49.0
    """
    powers, values = (ops.stop_gradient(as_float(each)) for each in (powers, values))
    sizes = sizes_of(groups)

    @ops.custom_gradient
    def of(strengths):
        return values + 0.0, lambda upstream: _repeated(upstream, sizes) / powers  # see `_over`

    return of(join([as_float(each) for each in groups]))


def _floored_power(strengths, p, q, floor):
    return strengths * ops.power(ops.maximum(strengths, floor**p), -p / (p + q))


def _checked(p, q, floor):
    p, q = check_choice("p", p, (1, 2)), check_choice("q", q, (1, 2))
    return p, q, check_positive("floor", floor)
