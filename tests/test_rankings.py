"""Rankings: their scores against what defines them, and budgets that are met by them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss._keras import layer_inputs
from keras_gss.count import count_values
from keras_gss.pruning.emptied import Masked
from keras_gss.pruning.pfp import expected_levels, sensitivities

random = np.random.default_rng(0)


def dense_model(*widths, dtype="float32", activation="relu"):
    hidden = [layers.Dense(w, activation, dtype=dtype, name=f"d{w}") for w in widths[1:-1]]
    head = layers.Dense(widths[-1], dtype=dtype, name="head")
    return keras.Sequential([keras.Input((widths[0],), dtype=dtype), *hidden, head])


def conv_model():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu", name="c1"),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="c2"),
            layers.Flatten(),
            layers.Dense(5, activation="relu", name="fc"),
            layers.Dense(2, name="head"),
        ]
    )


def batch(model, samples=12, classes=2):
    shape = (samples, *model.inputs[0].shape[1:])
    return random.normal(size=shape).astype("float32"), random.integers(0, classes, samples)


def kernels(model):
    return [v for v in model.weights if v.name == "kernel"]


def kept(masks, model):
    return [masks[id(v)] for v in kernels(model)]


def test_magnitude_keeps_the_global_top_k():
    model = dense_model(6, 5, 4, 2)
    masks = gss.MagnitudeThreshold(fraction=0.3).masks(model, "element")
    assert set(masks) == {id(v) for v in kernels(model)}  # biases are not ranked
    flat = np.concatenate([np.abs(keras.ops.convert_to_numpy(v)).ravel() for v in kernels(model)])
    stay = np.concatenate([mask.ravel() for mask in kept(masks, model)])
    top = np.argsort(-flat)[: round(0.3 * flat.size)]
    np.testing.assert_array_equal(np.flatnonzero(stay), np.sort(top))


def test_magnitude_of_neurons_is_the_root_mean_square_over_all_layers():
    model = dense_model(6, 5, 4, 2)
    a, b, c = (keras.ops.convert_to_numpy(v) for v in kernels(model))
    rms = [
        np.sqrt((a**2).sum(0) + (b**2).sum(1)) / np.sqrt(10),
        np.sqrt((b**2).sum(0) + (c**2).sum(1)) / np.sqrt(7),
    ]
    limit = np.sort(np.concatenate(rms))[-4]
    masks = gss.MagnitudeThreshold(fraction=4 / 9).masks(model, "neuron")
    for layer, strengths in zip(model.layers, rms, strict=False):
        np.testing.assert_array_equal(masks[id(layer.bias)], strengths >= limit)


def test_per_layer_keeps_one_share_of_every_layer():
    model = dense_model(8, 6, 4, 2)
    kernels(model)[0].assign(100 * kernels(model)[0])
    masks = gss.MagnitudeThreshold(fraction=0.5, per_layer=True).masks(model, "element")
    assert [mask.mean() for mask in kept(masks, model)] == [0.5, 0.5, 0.5]
    unequal = gss.MagnitudeThreshold(fraction=0.5).masks(model, "element")
    assert kept(unequal, model)[0].mean() > 0.7


def test_what_is_zero_already_comes_last_and_goes():
    model = dense_model(4, 5, 2)
    kernel = keras.ops.convert_to_numpy(kernels(model)[0]).copy()
    kernel[:, 1:4] = 0
    kernels(model)[0].assign(kernel)
    for threshold in (
        gss.RandomThreshold(fraction=0.9),
        gss.ParamsBudget(1, by=gss.SNIP(*batch(model))),
    ):
        masks = threshold.masks(model, "element")
        np.testing.assert_array_equal(masks[id(kernels(model)[0])], kernel != 0)
        assert masks[id(kernels(model)[1])].all() or isinstance(threshold, gss.RandomThreshold)


def test_random_follows_its_seed_and_nothing_else():
    model = dense_model(20, 30, 2)

    def drawn(seed):
        return kept(gss.RandomThreshold(seed=seed, fraction=0.2).masks(model, "element"), model)

    first = drawn(0)
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    for a, b, c in zip(first, drawn(0), drawn(1), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    assert sum(mask.sum() for mask in first) == round(0.2 * 660)


@pytest.mark.parametrize("granularity", ["element", "neuron"])
@pytest.mark.parametrize("budget", [gss.MacsBudget, gss.ParamsBudget])
def test_budgets_are_met_as_tightly_as_a_ranking_can(budget, granularity):
    model = dense_model(4, 5, 4, 2)
    by = gss.RandomThreshold(seed=4, keep_strongest=True)
    pruned = gss.prune(model, budget(0.4, by=by), granularity)

    def cost(counted):
        return counted.live_macs if budget is gss.MacsBudget else counted.nonzero_parameters

    members, first = (9, 2) if granularity == "neuron" else (48, 8)  # below, layers are filled up
    values = {id(v): keras.ops.convert_to_numpy(v) for v in model.weights}
    costs = []
    for k in range(first, members + 1):
        threshold = gss.RandomThreshold(seed=4, keep_strongest=True, fraction=k / members)
        left = Masked(values, threshold.masks(model, granularity))
        costs.append(cost(count_values(model, left)))
    costs = np.array(costs)
    assert (np.diff(costs) >= 0).all()
    assert cost(gss.count(pruned)) == costs[costs <= 0.4 * cost(gss.count(model))].max()
    settled = budget(0.4, by=by).resolve(model, granularity)
    assert isinstance(settled, gss.RandomThreshold) and settled.seed == 4
    for a, b in zip(
        pruned.get_weights(), gss.prune(model, settled, granularity).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_budget_may_be_of_another_models_cost():
    model = dense_model(6, 9, 8, 2)
    by = gss.MagnitudeThreshold()
    half = gss.prune(model, gss.MacsBudget(0.5, by=by), "neuron")
    third = gss.MacsBudget(0.3, by=by).resolve(half, "neuron", dense=model)
    left = gss.count(gss.prune(half, third, "neuron")).live_macs
    whole = gss.count(model).live_macs
    assert 0.2 * whole < left <= 0.3 * whole
    again = gss.prune(half, gss.MacsBudget(0.3, by=by), "neuron")
    assert gss.count(again).live_macs <= 0.15 * whole


def oracle(model, x, y):
    """The cross-entropy of a dense relu net in float64, as a function of its weights."""

    def loss(weights):
        a = x.astype("float64")
        for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            a = np.maximum(a @ w + b, 0)
        z = a @ weights[-2] + weights[-1]
        z = z - z.max(1, keepdims=True)
        return -(z - np.log(np.exp(z).sum(1, keepdims=True)))[np.arange(len(y)), y].mean()

    return loss


def slopes(model, x, y, step=1e-6):
    loss = oracle(model, x, y)
    weights = [w.astype("float64") for w in model.get_weights()]
    found = []
    for k, weight in enumerate(weights):
        slope = np.zeros_like(weight)
        for position in np.ndindex(weight.shape):
            sides = []
            for move in (step, -step):
                moved = [w.copy() for w in weights]
                moved[k][position] += move
                sides.append(loss(moved))
            slope[position] = (sides[0] - sides[1]) / (2 * step)
        found.append(np.abs(weight * slope))
    return found


def test_snip_scores_are_weight_times_slope_by_finite_differences():
    model = dense_model(4, 5, 3, 2)
    x, y = batch(model)
    expected = slopes(model, x, y)
    snip = gss.SNIP(x, y)
    found = snip._survey(model, "element")
    for piece, index in zip(found.pieces, (0, 2, 4), strict=True):
        np.testing.assert_allclose(piece.strengths, expected[index], rtol=2e-4, atol=2e-6)
    neurons = snip._survey(model, "neuron").pieces
    for piece, index in zip(neurons, (0, 2), strict=True):
        own = expected[index].sum(0) + expected[index + 2].sum(1)
        np.testing.assert_allclose(piece.strengths, own, rtol=2e-4, atol=1e-5)


def test_snip_leaves_the_model_as_it_is_and_sees_frozen_layers():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, use_bias=False, name="a"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Dense(2, name="b"),
        ]
    )
    x, y = batch(model)
    before = model.get_weights()
    first = gss.SNIP(x, y)._survey(model, "element").pieces
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.get_layer("a").trainable = False
    for a, b in zip(first, gss.SNIP(x, y)._survey(model, "element").pieces, strict=True):
        np.testing.assert_array_equal(a.strengths, b.strengths)
        assert a.strengths.any()


def test_snip_of_residual_neurons_adds_up_all_slices():
    inputs = keras.Input((3,))
    a = layers.Dense(4, name="a")(inputs)
    b = layers.Dense(4, name="b")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Add()([a, b])))
    x, y = batch(model)
    elements = {
        id(piece.parts[0].variable): piece.strengths
        for piece in gss.SNIP(x, y)._survey(model, "element").pieces
    }
    (neurons,) = gss.SNIP(x, y)._survey(model, "neuron").pieces
    by_name = {name: elements[id(model.get_layer(name).kernel)] for name in ("a", "b", "head")}
    expected = by_name["a"].sum(0) + by_name["b"].sum(0) + by_name["head"].sum(1)
    np.testing.assert_allclose(neurons.strengths, expected, rtol=1e-5)


def shares_by_definition(a, w, index, size):
    """Loops over everything: patches a (n, taps, inputs), kernel w (taps, inputs, outputs)."""
    best = np.zeros(size)
    for sign_a in (1, -1):
        for sign_w in (1, -1):
            aa, ww = np.maximum(sign_a * a, 0), np.maximum(sign_w * w, 0)
            for patch in aa:
                for i in range(w.shape[2]):
                    parts = (patch * ww[:, :, i]).sum(0)
                    if parts.sum() > 0:
                        mine = np.bincount(index, parts, minlength=size)
                        best = np.maximum(best, mine / parts.sum())
    return best


def patches_of(images, size, stride):
    """3x3 patches of 'same' padding, (patches, taps, channels)."""
    total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
    padded = np.pad(images, ((0, 0), *[(total // 2, total - total // 2)] * 2, (0, 0)))
    starts = range(0, size, stride)
    found = [padded[:, y : y + 3, x : x + 3] for y in starts for x in starts]
    return np.concatenate(found).reshape(-1, 9, images.shape[-1])


def test_pfp_sensitivities_are_those_of_the_definition():
    model = conv_model()
    x, _ = batch(model, samples=4)
    given = layer_inputs(model, x)
    c1, c2, fc = gss.find_groups(model)
    conv, dense, head = (model.get_layer(name) for name in ("c2", "fc", "head"))
    patches = patches_of(given[id(conv)][0], 4, 2)
    kernel = keras.ops.convert_to_numpy(conv.kernel).reshape(9, 3, 4)
    expected = shares_by_definition(patches, kernel, np.arange(3), 3)
    np.testing.assert_allclose(sensitivities(c1, given), expected, rtol=1e-4)
    for group, layer, index in ((c2, dense, np.arange(16) % 4), (fc, head, np.arange(5))):
        kernel = keras.ops.convert_to_numpy(layer.kernel)[None]
        activations = given[id(layer)][0][:, None]
        expected = shares_by_definition(activations, kernel, index, group.size)
        np.testing.assert_allclose(sensitivities(group, given), expected, rtol=1e-4)


def test_what_pfp_leaves_out_moves_a_linear_layer_by_its_sensitivities_at_most():
    model = dense_model(6, 30, 4, activation="relu")
    x, _ = batch(model, samples=200, classes=4)
    (group,) = gss.find_groups(model)
    shares = sensitivities(group, layer_inputs(model, x))
    masks = gss.PFP(x, fraction=0.6).masks(model, "neuron")
    stay = masks[id(model.layers[0].bias)]
    assert stay.sum() == 18
    assert shares[stay].min() >= shares[~stay].max()
    a = np.maximum(x @ model.get_weights()[0] + model.get_weights()[1], 0)
    w = model.get_weights()[2]
    moved = np.abs(a[:, ~stay] @ w[~stay])
    bound = shares[~stay].sum() * (a @ np.abs(w))
    assert (moved <= bound * (1 + 1e-5)).all()
    assert moved.max() > 0.02 * bound.max()  # it is a bound worth having


def test_pfp_draws_keep_a_neuron_as_often_as_importance_sampling_hits_it():
    model = dense_model(6, 5, 3)
    x, _ = batch(model, samples=50, classes=3)
    (group,) = gss.find_groups(model)
    shares = sensitivities(group, layer_inputs(model, x))
    rounds = np.random.default_rng(1).exponential(size=(4000, 5))
    k = 2.0  # K S draws of probability s_j / S each: as Poisson variables, K s_j hits
    hit = (shares / rounds >= 1 / k).mean(axis=0)
    np.testing.assert_allclose(hit, 1 - np.exp(-k * shares), atol=0.03)
    found = gss.PFP(x, seed=3)._survey(model, "neuron").pieces[0]
    drawn = np.random.default_rng(3).exponential(size=5)
    np.testing.assert_allclose(found.strengths, shares / drawn, rtol=1e-6)


def test_pfp_levels_keep_the_expected_number_of_neurons_hit():
    shares = np.array([0.9, 0.5, 0.0, 0.5, 0.02, 0.3])
    levels = expected_levels(shares)
    assert levels[2] == 0
    for k in (0.5, 1.0, 3.0, 10.0, 100.0, 1000.0):
        hit = (1 - np.exp(-k * shares)).sum()
        assert (levels >= 1 / k).sum() == np.floor(hit + 0.5)
    np.testing.assert_array_equal(np.argsort(-levels, kind="stable"), [0, 1, 3, 5, 4, 2])


def test_pfp_leaves_whole_what_it_cannot_tell_and_says_why():
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.Dense(4, name="a"),
            layers.SimpleRNN(4, name="rnn"),
            layers.Dense(2, name="head"),
        ]
    )
    x = random.normal(size=(3, 5, 3)).astype("float32")
    with pytest.warns(UserWarning, match="'a' whole.*'rnn' \\(SimpleRNN\\) reads"):
        masks = gss.PFP(x, fraction=0.1).masks(model, "neuron")
    assert masks[id(model.get_layer("a").bias)].all()


def test_tf_keras_models_are_ranked_alike():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf_keras is TensorFlow's")
    model = dense_model(4, 6, 3)
    legacy = gss.to_tf_keras(model)
    x, y = batch(model, classes=3)
    for ranking in (gss.SNIP(x, y), gss.PFP(x), gss.MagnitudeThreshold()):
        one, other = (ranking._survey(each, "neuron").pieces for each in (model, legacy))
        np.testing.assert_allclose(one[0].strengths, other[0].strengths, rtol=1e-4)


def test_reprs_tell_data_apart():
    x, y = np.ones((3, 2)), np.arange(3)
    assert repr(gss.SNIP(x, y)).startswith("SNIP(x=<3 samples ")
    assert repr(gss.SNIP(x, y)) != repr(gss.SNIP(2 * x, y))
    assert repr(gss.SNIP(x, y)) == repr(gss.SNIP(x.copy(), y))
    text = repr(gss.MacsBudget(0.5, by=gss.MagnitudeThreshold(inputs=True)))
    assert text == "MacsBudget(fraction=0.5, by=MagnitudeThreshold(inputs=True))"


def test_wrong_arguments_are_refused():
    model = dense_model(3, 4, 2)
    x, y = batch(model)
    with pytest.raises(ValueError, match="does not say how many stay"):
        gss.prune(model, gss.MagnitudeThreshold())
    with pytest.raises(ValueError, match="`fraction` must be a number with 0 < fraction <= 1"):
        gss.RandomThreshold(fraction=0)
    with pytest.raises(ValueError, match="`by` must be a ranking"):
        gss.MacsBudget(0.5, by=gss.StdThreshold(1))
    with pytest.raises(ValueError, match="`inputs` is the ranking's to say"):
        gss.MacsBudget(0.5, by=gss.MagnitudeThreshold(), inputs=True)
    with pytest.raises(ValueError, match="one number of samples"):
        gss.SNIP(x, y[:-1])
    with pytest.raises(ValueError, match="`x` must be finite numbers"):
        gss.PFP(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="ranks neurons, not single weights"):
        gss.prune(model, gss.PFP(x, fraction=0.5))
    with pytest.raises(ValueError, match=r"At best \d+ remain, at fraction 0\.\d+"):
        gss.prune(model, gss.MacsBudget(0.01, by=gss.MagnitudeThreshold()))
