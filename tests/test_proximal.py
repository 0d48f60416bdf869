import functools

import numpy as np
import pytest
from keras import ops

from keras_gss import proximal

CASES = range(30)


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def tolerance(x):
    """Returns what rounding may leave of a condition: JAX computes float64 input in float32."""
    return 1e-12 if ops.dtype(x) == "float64" else 1e-5


def case(seed, *shape):
    """Returns v with a zero subgroup now and then, and a strength from weak to annihilating."""
    random = np.random.default_rng(seed)
    v = random.normal(size=shape) * random.exponential(size=(*shape[:-1], 1))
    if seed % 5 == 0:
        v[..., 0, :] = 0
    return v, float(10 ** random.uniform(-2.5, 1))


def check_subgradient(v, x, slope, lengths_v, lengths_x, allowed):
    """Checks v - x against slope * d||x||: along x if x is not 0, else at most as long."""
    kept = lengths_x > 0
    direction = x / np.where(kept, lengths_x, 1)
    np.testing.assert_allclose((v - x) * kept, (slope * direction) * kept, atol=allowed)
    assert np.all((lengths_v <= slope + allowed) | kept)


@pytest.mark.parametrize("seed", CASES)
def test_prox_exclusive_meets_its_optimality_conditions(seed):
    v, lam = case(seed, 6, 4)
    found = proximal.prox_exclusive(v, lam)
    x, allowed = numpy(found), tolerance(found)
    lengths_v, lengths_x = (np.linalg.norm(each, axis=1, keepdims=True) for each in (v, x))
    check_subgradient(v, x, 2 * lam * lengths_x.sum(), lengths_v, lengths_x, allowed)


@functools.cache
def two_level(seed):
    v, lam = case(seed, 3, 4, 2)
    return v, lam, proximal.prox_two_level(v, lam)


@pytest.mark.parametrize("seed", CASES)
def test_prox_two_level_meets_its_optimality_conditions(seed):
    v, lam, found = two_level(seed)
    x, allowed = numpy(found), tolerance(found)
    lengths_v, lengths_x = (np.linalg.norm(each, axis=2, keepdims=True) for each in (v, x))
    sums = lengths_x.sum(axis=1, keepdims=True)
    omega = np.sqrt((sums**2).sum())
    if omega == 0:
        assert np.sqrt((lengths_v.max(axis=1) ** 2).sum()) <= lam + allowed
    else:
        slope = np.broadcast_to(lam * sums / omega, lengths_v.shape)
        check_subgradient(v, x, slope, lengths_v, lengths_x, 10 * allowed)


def test_the_cases_cover_partial_and_total_annihilation():
    dead = [(np.abs(numpy(two_level(seed)[2])).sum(axis=2) == 0).mean() for seed in CASES]
    assert 3 <= sum(share == 1 for share in dead) <= 15
    assert sum(0.1 < share < 1 for share in dead) >= 8


def minimum_on_grid(objective, v, points=401):
    """Returns the best point of a grid over the box that v and 0 span, and the grid's spacing."""
    axes = [np.linspace(min(value, 0), max(value, 0), points) for value in np.ravel(v)]
    grid = np.meshgrid(*axes, indexing="ij")
    best = np.unravel_index(np.argmin(objective(*grid)), grid[0].shape)
    return np.array([axis[at] for axis, at in zip(axes, best, strict=True)]), abs(v).max() / (
        points - 1
    )


@pytest.mark.parametrize("lam", [0.0, 0.1, 0.3, 2.0])
@pytest.mark.parametrize("v", [[1.0, -0.9], [2.0, 0.3], [0.0, 1.0]])
def test_the_results_are_the_minima_of_a_grid_search(v, lam):
    v = np.array(v)

    def away(x, y):
        return ((x - v[0]) ** 2 + (y - v[1]) ** 2) / 2

    def check(found, penalty):
        best, spacing = minimum_on_grid(lambda x, y: lam * penalty(x, y) + away(x, y), v)
        np.testing.assert_allclose(numpy(found).ravel(), best, atol=2 * spacing)

    def selected(p):
        a = np.array([0.5, 2.0])
        cost = 1 / 0.8**p + 1 / a**p
        check(
            proximal.prox_selected(v[None, :], lam, np.array([0.8]), a, p),
            lambda x, y: cost[0] * abs(x) ** p + cost[1] * abs(y) ** p,
        )

    check(proximal.prox_exclusive(v, lam), lambda x, y: (abs(x) + abs(y)) ** 2)
    check(proximal.prox_exclusive(v[None, :], lam), lambda x, y: x**2 + y**2)
    check(proximal.prox_two_level(v[None, :], lam), lambda x, y: abs(x) + abs(y))
    check(proximal.prox_two_level(v[:, None], lam), np.hypot)
    neuron = proximal.prox_gss121_neuron(v[:1], v[1:], lam)
    check(ops.concatenate(neuron), np.hypot)
    selected(1)
    selected(2)


@pytest.mark.parametrize("seed", range(20))
def test_prox_gss121_of_a_neuron_with_unequal_slices(seed):
    random = np.random.default_rng(seed)
    incoming, outgoing = random.normal(size=7), random.normal(size=3)
    lam = random.uniform(0.05, 0.8)
    found = proximal.prox_gss121_neuron(incoming, outgoing, lam)
    allowed = 10 * tolerance(found[0])
    into, out = map(numpy, found)
    assert into.shape == (7,)
    assert out.shape == (3,)
    root = np.hypot(np.abs(into).sum(), np.abs(out).sum())
    assert root > 0
    for v, x in ((incoming, into), (outgoing, out)):
        slope = lam * np.abs(x).sum() / root
        check_subgradient(v, x, slope, np.abs(v), np.abs(x), allowed)


def test_no_strength_changes_nothing_and_zero_stays_zero():
    v = np.array([[3.0, -1.0], [0.5, 0.0]])
    for prox in (proximal.prox_exclusive, proximal.prox_two_level):
        np.testing.assert_allclose(numpy(prox(v, 0.0)), v)
        for lam in (0.0, 1.0):
            assert np.all(numpy(prox(np.zeros((2, 3)), lam)) == 0)


def test_selection_of_unpenalised_neurons_is_infinite():
    free = np.array([np.inf, np.inf])
    v = np.array([[3.0, -1.0], [0.0, 2.0]])
    for p in (1, 2):
        np.testing.assert_allclose(numpy(proximal.prox_selected(v, 5.0, free, free, p)), v)


def test_a_convolution_kernel_takes_its_selection_along_the_last_two_axes():
    v = np.ones((3, 3, 2, 1))
    found = proximal.prox_selected(v, 0.5, np.array([1.0, 0.5]), np.array([np.inf]), p=2)
    np.testing.assert_allclose(numpy(found)[1, 1, :, 0], [1 / 2, 1 / 5])


def test_nan_shows():
    v = np.array([[1.0, np.nan], [2.0, 3.0]])
    assert np.isnan(numpy(proximal.prox_exclusive(v, 0.1))).any()
    assert np.isnan(numpy(proximal.prox_two_level(v, 0.1))).any()
    for p in (1, 2):
        assert np.isnan(numpy(proximal.prox_selected(v, 0.1, v[1], v[1], p))[0, 1])


def test_half_precision_is_computed_in_float32():
    v = ops.cast(np.ones(4), "float16")
    assert ops.dtype(proximal.prox_exclusive(v, 1e-6)) == "float32"


@pytest.mark.parametrize("lam", [-1.0, float("nan"), True, "1"])
def test_a_wrong_strength_is_refused_by_name(lam):
    v = np.ones((2, 2))
    for call in (
        lambda: proximal.prox_exclusive(v, lam),
        lambda: proximal.prox_two_level(v, lam),
        lambda: proximal.prox_gss121_neuron(v[0], v[1], lam),
        lambda: proximal.prox_selected(v, lam, v[0], v[0]),
    ):
        with pytest.raises(ValueError, match="`lam` must be a finite number >= 0"):
            call()
