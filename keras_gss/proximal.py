"""Proximal operators of the penalties: prox_f(v) = argmin_x f(x) + ||x - v||^2 / 2.

The step size is already multiplied into `lam`. All but the fixed-selection step with p=2 reach
exact zeros. Source: the paper's penalties; derivations from their optimality conditions.
"""

from typing import Any

from keras import ops

from keras_gss import norms
from keras_gss._checks import check_choice, check_factor

BISECTIONS = 64


def prox_exclusive(v: Any, lam: float) -> Any:
    """Prox of the squared exclusive norm, lam * (sum_j ||x_j||_2)^2.

    Every row is shortened by the same tau = 2 lam * max_k S_k, where S_k = (sum of the k longest
    lengths) / (1 + 2 lam k): S_k grows as long as the k-th length survives.

    Args:
        v: shape (neurons, ...); v[j] holds the weights of neuron j. A vector is a set of neurons
            with one weight each.
        lam: finite and >= 0.

    Returns:
        x, shaped as `v`.

    Raises:
        ValueError: `lam` is no finite number >= 0.

    Example:
    >>> x = prox_exclusive(ops.array([3.0, -1.0, 0.5]), lam=0.5)
    >>> ops.convert_to_numpy(x).tolist()
    [1.5, 0.0, 0.0]
    """
    lam = check_factor("lam", lam)
    v = norms.as_float(v)
    lengths = _lengths(v, kept=1)
    return _shorten(v, lengths, 2 * lam * _best_share(lengths, 1.0, 2 * lam))


def prox_two_level(v: Any, lam: float) -> Any:
    """Prox of the root two-level norm, lam * sqrt( sum_g ( sum_{g' in g} ||x_{g,g'}||_2 )^2 ).

    The result is 0 if the dual norm of v, sqrt( sum_g max_{g'} ||v_{g,g'}||^2 ), is at most lam.
    Else, with Omega the value of the norm at the result, the rows of group g are shortened by
    tau_g = lam * max_k (sum of the k longest lengths) / (Omega + lam k), and Omega is where
    sqrt(sum_g tau_g^2) = lam, found by bisection.

    Args:
        v: shape (groups, subgroups, ...). A matrix has one weight in each subgroup.
        lam: finite and >= 0.

    Returns:
        x, shaped as `v`.

    Raises:
        ValueError: `lam` is no finite number >= 0.

    Example:
    >>> x = prox_two_level(ops.array([[3.0], [-4.0]]), lam=1.0)
    >>> ops.convert_to_numpy(x).round(4).tolist()
    [[2.4000000953674316], [-3.200000047683716]]
    """
    lam = check_factor("lam", lam)
    v = norms.as_float(v)
    lengths = _lengths(v, kept=2)

    def excess(omega):
        return ops.sum(ops.square(_best_share(lengths, omega, lam))) > 1

    def halve(_, bounds):
        low, high = bounds
        omega = (low + high) / 2
        below = excess(omega)
        return ops.where(below, omega, low), ops.where(below, high, omega)

    most = ops.sqrt(ops.sum(ops.square(ops.sum(lengths, axis=-1))))
    _, omega = ops.fori_loop(0, BISECTIONS, halve, (ops.zeros_like(most), most))
    vanishes = ops.sqrt(ops.sum(ops.square(ops.max(lengths, axis=-1)))) <= lam
    omega = ops.where(vanishes, 1.0, omega)
    shortened = _shorten(v, lengths, lam * _best_share(lengths, omega, lam))
    return ops.where(vanishes, ops.zeros_like(v), shortened)


def prox_gss121_neuron(incoming: Any, outgoing: Any, lam: float) -> tuple[Any, Any]:
    """Prox of the Deep GSS121 term of one neuron, lam * sqrt( ||in||_1^2 + ||out||_1^2 ).

    `prox_two_level` with the groups in and out and single weights as subgroups.

    Args:
        incoming: the neuron's incoming weights, shape (n,).
        outgoing: the neuron's outgoing weights, shape (m,).
        lam: finite and >= 0.

    Returns:
        The new incoming and outgoing weights.

    Example:
    >>> into, out = prox_gss121_neuron(ops.array([3.0, 0.1]), ops.array([-4.0]), lam=1.0)
    >>> ops.convert_to_numpy(into).round(2).tolist()
    [2.4000000953674316, 0.0]
    """
    incoming, outgoing = norms.as_float(incoming), norms.as_float(outgoing)
    n, m = incoming.shape[0], outgoing.shape[0]
    width = max(n, m)
    # The zeros that fill the shorter row come last among the lengths, where they change no share.
    rows = [ops.pad(incoming, (0, width - n)), ops.pad(outgoing, (0, width - m))]
    both = prox_two_level(ops.stack(rows), lam)
    return both[0, :n], both[1, :m]


def prox_selected(v: Any, lam: float, sources: Any, targets: Any, p: int = 2) -> Any:
    """Prox of the structured penalty of one kernel with the selection variables held.

    The weight between source neuron i and target neuron j costs lam |x|^p (1/a_i^p + 1/a_j^p).
    With p=1 that is a soft threshold at lam (1/a_i + 1/a_j); with p=2 a division by
    1 + 2 lam (1/a_i^2 + 1/a_j^2), which shrinks and reaches no zero.

    Args:
        v: kernel, shape (..., sources, targets).
        lam: finite and >= 0.
        sources: shape (sources,), a_i > 0; infinite for a source that is not penalised.
        targets: shape (targets,), a_j > 0; infinite for a target that is not penalised.
        p: 1 or 2.

    Returns:
        x, shaped as `v`.

    Raises:
        ValueError: `lam` is no finite number >= 0, or `p` is not 1 or 2.

    Example:
    >>> v = ops.array([[3.0, -1.0]])
    >>> x = prox_selected(v, 0.5, ops.array([1.0]), ops.array([1.0, 0.5]), p=1)
    >>> ops.convert_to_numpy(x).tolist()
    [[2.0, 0.0]]
    """
    lam, p = check_factor("lam", lam), check_choice("p", p, (1, 2))
    v = norms.as_float(v)
    sources, targets = norms.as_float(sources), norms.as_float(targets)
    cost = lam * (ops.power(sources, -p)[:, None] + ops.power(targets, -p)[None, :])
    if p == 2:
        return v / (1 + 2 * cost)
    return ops.where(ops.abs(v) <= cost, 0.0, v - ops.sign(v) * cost)


def _lengths(v, kept):
    """Returns the l2 norms over all axes but the first `kept` ones."""
    return ops.reshape(norms.norm(v, 2, tuple(range(kept, len(v.shape)))), v.shape[:kept])


def _best_share(lengths, offset, step):
    """Returns max_k (sum of the k largest lengths) / (offset + step k), along the last axis."""
    largest_first = ops.flip(ops.sort(lengths, axis=-1), axis=-1)
    count = ops.arange(1, lengths.shape[-1] + 1, dtype=ops.dtype(lengths))
    return ops.max(ops.cumsum(largest_first, axis=-1) / (offset + step * count), axis=-1)


def _shorten(v, lengths, tau):
    """Shortens every subgroup of `v` by the tau of its group, at most to zero."""
    tau = ops.expand_dims(tau, -1)
    dead = lengths <= tau  # false for NaN, which has to show
    lost = tau / ops.where(dead, 1.0, lengths)
    shape = (*lengths.shape, *[1] * (len(v.shape) - len(lengths.shape)))
    dead, lost = ops.reshape(dead, shape), ops.reshape(lost, shape)
    return ops.where(dead, 0.0, v - lost * v)
