import keras
import numpy as np
import oracles
import pytest
from keras import ops

from keras_gss import norms

PQ = [(2, 2), (1, 2), (2, 1), (1, 1)]
AXES = [
    ((0,), (1,)),
    ((1,), (0,)),
    ((0, 1), (2,)),
    ((0,), (1, 2)),
    ((-1,), (0,)),
    ((), (0, 1)),
    ((0, 2), ()),
    ((), ()),
    ((0, 1, 2), ()),
]


def kernel(seed=0, shape=(3, 4, 5)):
    w = np.random.default_rng(seed).normal(size=shape).astype("float32")
    w[0] = 0
    w[:, 1] = 0
    return w


def number(x):
    return float(ops.convert_to_numpy(x))


def close(actual, expected, tolerance=1e-6):
    assert number(actual) == pytest.approx(expected, rel=tolerance, abs=1e-30)


def same_gradient(function, oracle, w, tolerance=1e-4):
    """Compares the backend's gradient, where w is not 0, with differences of the oracle."""
    variable = keras.Variable(w)
    (found,) = oracles.gradients(lambda: function(variable), [variable])
    (expected,) = oracles.finite_differences(lambda v: oracle(v[0]), [w.astype("float64")])
    assert np.all(np.isfinite(found))
    assert np.all(found[w == 0] == 0)
    apart = np.abs(found - expected)[w != 0].max(initial=0)
    assert apart <= tolerance * np.abs(expected).max(initial=0)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axes", [(0,), (2,), (0, 2), (1, 0, 2)])
def test_power_sums_and_their_gradient_equal_the_oracle(p, axes):
    w = kernel(3)

    def oracle(v):
        return [(abs(v) ** p).sum(tuple({0, 1, 2} - {axis})) for axis in axes]

    found = norms.power_sums(w, p, axes)
    for sums, expected in zip(found, oracle(w.astype("float64")), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(sums), expected, rtol=1e-6)
    slopes = [np.random.default_rng(axis).normal(size=w.shape[axis]) for axis in axes]

    def weighted(sums, add):
        return sum(add(u * s) for u, s in zip(slopes, sums, strict=True))

    same_gradient(
        lambda v: weighted(norms.power_sums(v, p, axes), lambda x: ops.sum(ops.cast(x, "float32"))),
        lambda v: weighted(oracle(v), np.sum),
        w,
    )


def test_power_sums_of_vectors_and_in_float64():
    vector, matrix = np.array([-3.0, 0.0]), np.array([[1e-9, -1.0]])
    assert ops.convert_to_numpy(norms.power_sums(vector, 2, (0,))[0]).tolist() == [9, 0]
    (columns,) = norms.power_sums(ops.convert_to_tensor(matrix, "float64"), 1, (1,))
    np.testing.assert_allclose(ops.convert_to_numpy(columns), [1e-9, 1], rtol=1e-6)


@pytest.mark.parametrize("shape", [(70, 33), (5, 40, 32), (131,)])  # XLA's sums end at 32
def test_power_sums_compiled_by_xla_equal_the_oracle(shape):
    w = kernel(1, shape) if len(shape) > 1 else np.arange(131, dtype="float32")
    axes = range(len(shape))

    def sums(v):
        return norms.power_sums(v, 2, axes)

    if keras.backend.backend() == "jax":
        import jax

        found = jax.jit(sums)(w)
    else:
        import tensorflow as tf

        found = tf.function(sums, jit_compile=True)(tf.constant(w))
    for axis, each in zip(axes, found, strict=True):
        expected = (w.astype("float64") ** 2).sum(tuple({*axes} - {axis}))
        np.testing.assert_allclose(ops.convert_to_numpy(each), expected, rtol=1e-6)


def test_gradient_of_the_root():
    x = keras.Variable([0.0, 4.0, 0.25])
    (found,) = oracles.gradients(lambda: ops.sum(3 * norms.safe_sqrt(x)), [x])
    np.testing.assert_allclose(found, [0, 0.75, 3])


@pytest.mark.parametrize(("inner", "middle"), AXES)
def test_gss121_equals_the_oracle(inner, middle):
    w = kernel()
    close(norms.gss121(w, inner, middle), oracles.gss121(w, inner, middle))
    same_gradient(
        lambda v: norms.gss121(v, inner, middle), lambda v: oracles.gss121(v, inner, middle), w
    )


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("inner", "middle"), AXES)
def test_gss212_equals_the_oracle(inner, middle, squared):
    w = kernel(1)
    close(norms.gss212(w, inner, middle, squared), oracles.gss212(w, inner, middle, squared))
    same_gradient(
        lambda v: norms.gss212(v, inner, middle, squared),
        lambda v: oracles.gss212(v, inner, middle, squared),
        w,
    )


def group_lasso(w, axes):
    return np.sqrt((w**2).sum(axis=axes)).sum()


def exclusive_lasso(w, axes):
    return np.sqrt((np.abs(w).sum(axis=axes) ** 2).sum())


def l2(w, axes):
    return np.sqrt((w**2).sum())


def l1(w, axes):
    return np.abs(w).sum()


@pytest.mark.parametrize(
    ("penalty", "inner", "middle", "special", "axes"),
    [
        (norms.gss212, (0, 1), (2,), group_lasso, (0, 1)),
        (norms.gss212, (), (0, 1), exclusive_lasso, (0, 1)),
        (norms.gss212, (0, 1), (), l2, ()),
        (norms.gss212, (), (0, 1, 2), l1, ()),
        (norms.gss121, (), (0, 1), group_lasso, (0, 1)),
        (norms.gss121, (0, 1), (2,), exclusive_lasso, (0, 1)),
        (norms.gss121, (), (0, 1, 2), l2, ()),
        (norms.gss121, (0, 1), (), l1, ()),
    ],
)
def test_the_eight_special_cases(penalty, inner, middle, special, axes):
    w = kernel(2)
    close(penalty(w, inner, middle), special(w.astype("float64"), axes))
    same_gradient(lambda v: penalty(v, inner, middle), lambda v: special(v, axes), w)


def test_four_numbers_by_hand():
    w = [[3.0, 5.0], [4.0, -12.0]]
    close(norms.gss212(w, 0, 1), 5 + 13)
    close(norms.gss212(w, 0, (), squared=True), 25 + 169)
    close(norms.gss212(w, (), 0, squared=True), 49 + 289)
    close(norms.gss121(w, 0, 1), np.sqrt(49 + 289))
    close(norms.gss121(w, (), 0), 5 + 13)
    close(norms.gss121(w, (0, 1), ()), 24)


@pytest.mark.parametrize(
    ("inner", "middle", "message"),
    [
        ((2,), (1,), r"`inner` must be axes from -2 to 1 for a kernel of shape \(3, 4\)"),
        ((0,), (-3,), r"`middle` must be axes from -2 to 1"),
        ((0,), (-2,), r"`middle` must be free of the axes of inner=\(0,\)"),
        ((0, -2), (1,), r"`inner` must be a tuple of axes without repetitions"),
        ("0", (1,), r"`inner` must be an axis"),
    ],
)
def test_wrong_axes_are_refused(inner, middle, message):
    with pytest.raises(ValueError, match=message):
        norms.gss121(np.ones((3, 4)), inner, middle)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    # 90,000 exceeds float16, and bfloat16 has three digits.
    w = ops.cast(np.ones((300, 300)), dtype)
    assert ops.dtype(norms.gss121(w)) == "float32"
    close(norms.gss212(w, (), (0, 1)), 90000)
    close(norms.gss_element(ops.cast([300.0], dtype), ops.cast([0.0], dtype)), 90000)
    close(norms.deep_gss121(ops.cast([300.0], dtype), ops.cast([400.0], dtype)), 500)
    close(norms.gss_structure(ops.cast(np.ones(300), dtype)), 90000)


def test_nan_weights_show():
    w = np.array([[1.0, np.nan], [0.0, 2.0]])
    assert np.isnan(number(norms.gss121(w)))
    assert np.isnan(number(norms.gss212(w)))
    assert np.isnan(number(norms.deep_gss121(w[0], w[1])))
    assert np.isnan(number(norms.gss_element(w[0], w[1])))
    for p, q in PQ:
        assert np.isnan(number(norms.gss_structure(w[0], p, q)))
        assert np.isnan(ops.convert_to_numpy(norms.selection_variables(w[0], p, q))).any()


def test_deep_norms_by_hand():
    incoming, outgoing = np.array([3.0, 0.0, 5.0]), np.array([4.0, 0.0, 12.0])
    close(norms.deep_gss121(incoming, outgoing), 5 + 13)
    close(norms.gss_element(incoming, outgoing), 9 + 16 + 25 + 144)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        (2, 2, 49),
        (1, 2, (9 ** (2 / 3) + 16 ** (2 / 3)) ** 1.5),
        (1, 1, 49),
        (2, 1, (9 ** (1 / 3) + 16 ** (1 / 3)) ** 3),
    ],
)
def test_structure_by_hand(p, q, expected):
    close(norms.gss_structure(np.array([9.0, 0.0, 16.0]), p, q), expected, 1e-5)


@pytest.mark.parametrize(("p", "q"), PQ)
def test_structure_equals_the_oracle_below_and_above_the_floor(p, q):
    lengths = np.array([0.0, 1e-6, 9e-5, 1.1e-4, 1e-3, 0.2, 3.0])
    strengths = (lengths**p).astype("float32")
    close(norms.gss_structure(strengths, p, q), oracles.gss_structure(strengths, p, q))
    floor = 0.01
    close(
        norms.gss_structure(strengths, p, q, floor), oracles.gss_structure(strengths, p, q, floor)
    )


@pytest.mark.parametrize(("p", "q"), PQ)
def test_the_gradient_by_a_weight_is_bounded_as_stated(p, q):
    t, r = q / (p + q), p * q / (p + q)
    for tiny in (1e-30, 1e-18, 1e-8, 0.99e-4, 1e-4, 1.01e-4, 1e-3):
        weights = keras.Variable([tiny, 0.7, 0.0, -2.0])
        strengths = abs(np.array([tiny, 0.7, 0.0, 2.0])) ** p
        total = oracles.gss_structure(strengths, p, q) ** t
        bound = p / t * norms.FLOOR ** (r - 1) * total ** (p / q)
        (found,) = oracles.gradients(
            lambda w=weights: norms.gss_structure(norms.magnitude(w) ** p, p, q), [weights]
        )
        assert np.abs(found).max() <= bound * (1 + 1e-5)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("sizes", [(3,), (1, 4), (2, 1, 5)])
def test_structures_of_many_groups_are_those_of_each(p, q, sizes):
    random = np.random.default_rng(0)
    groups = [random.random(size, dtype="float32") * (np.arange(size) != 1) for size in sizes]
    factors = np.arange(1.0, 1 + len(sizes), dtype="float32")  # another slope for each
    variables = [keras.Variable(each) for each in groups]
    one_by_one = [keras.Variable(each) for each in groups]

    def together():
        return ops.sum(factors * norms.gss_structures([v * 1.0 for v in variables], p, q))

    def apart():
        found = [norms.gss_structure(v * 1.0, p, q) for v in one_by_one]
        return sum(factor * each for factor, each in zip(factors, found, strict=True))

    close(together(), number(apart()))
    assert norms.gss_structures(groups, p, q).shape == (len(sizes),)
    both = oracles.gradients(together, variables), oracles.gradients(apart, one_by_one)
    for group, found, expected in zip(groups, *both, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert p * q < 4 or np.all(found[group == 0] == 0)
        assert np.any(found != 0)


def test_held_sums_slope_as_told_and_keep_their_values():
    groups = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
    powers, values = (np.array(x, "float32") for x in ([0.2, 0.25, 0.5], [8, 9]))

    def held():
        return ops.sum(
            np.array([1, 10], "float32")
            * norms.held_sums([v * 1.0 for v in groups], powers, values)
        )

    assert number(held()) == 98
    found = oracles.gradients(held, groups)
    for each, slopes in zip(found, ([5, 4], [20]), strict=True):
        np.testing.assert_allclose(each, slopes, rtol=1e-6)


@pytest.mark.parametrize(("p", "q"), PQ)
def test_selection_variables_minimise_the_selected_sum(p, q):
    random = np.random.default_rng(3)
    strengths = random.uniform(0.01, 4, 6)
    best = ops.convert_to_numpy(norms.selection_variables(strengths, p, q)).astype("float64")
    closed = oracles.gss_structure(strengths, p, q)
    assert (best**q).sum() == pytest.approx(1, rel=1e-6)
    close(norms.selected_sum(strengths, best, p), closed)
    for _ in range(200):
        other = best * np.exp(random.normal(scale=0.3, size=6))
        other /= (other**q).sum() ** (1 / q)
        assert (strengths / other**p).sum() >= closed * (1 - 1e-6)


@pytest.mark.parametrize(("p", "q"), PQ)
def test_selected_sum_has_value_and_gradient_of_the_closed_form(p, q):
    w = np.random.default_rng(4).normal(size=(5, 4)).astype("float32")
    w[:, 2] = 0
    w[:, 3] *= 1e-3
    weights = keras.Variable(w)

    def strengths():
        return ops.sum(norms.magnitude(weights) ** p, axis=0)

    def selected():
        return norms.selected_sum(strengths(), norms.selection_variables(strengths(), p, q), p)

    def closed():
        return norms.gss_structure(strengths(), p, q)

    close(selected(), number(closed()))
    (one,), (other,) = (oracles.gradients(form, [weights]) for form in (selected, closed))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert np.all(one[:, 2] == 0)


@pytest.mark.parametrize(("p", "q"), PQ)
def test_selection_is_finite_at_zero(p, q):
    found = ops.convert_to_numpy(norms.selection_variables(np.zeros(3), p, q))
    assert np.all(np.isfinite(found) & (found > 0))
    close(norms.selected_sum(np.zeros(3), found, p), 0)


@pytest.mark.parametrize(("p", "q"), PQ)
def test_no_gradient_passes_through_the_selection(p, q):
    strengths = keras.Variable([0.0, 1.0, 4.0])
    (found,) = oracles.gradients(
        lambda: ops.sum(norms.selection_variables(strengths, p, q)) + strengths[1], [strengths]
    )
    np.testing.assert_array_equal(found, [0, 1, 0])


@pytest.mark.parametrize("arguments", [{"p": 3}, {"q": 0}, {"p": True}, {"floor": 0}])
def test_wrong_exponents_and_floors_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        norms.gss_structure(np.ones(2), **arguments)
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        norms.selection_variables(np.ones(2), **arguments)
