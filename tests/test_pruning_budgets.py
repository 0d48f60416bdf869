import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss.count import count_values


def small_model():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3, activation="relu", name="fc", bias_initializer="random_normal"),
            layers.Dense(2, name="head"),
        ]
    )


def cost(budget, counted):
    return counted.live_macs if budget is gss.MacsBudget else counted.nonzero_parameters


def costs_at_every_ratio(budget, model, granularity):
    """What remains at each of many ratios, as long as no layer is empty."""
    values = {id(v): keras.ops.convert_to_numpy(v) for v in model.weights}
    strengths = np.concatenate([np.abs(w).ravel() / (w.std() or 1) for w in values.values()])
    ratios = np.sort(strengths) if granularity == "element" else np.linspace(0.5, 1.5, 101)
    found = [cost(budget, gss.count(model))]
    for ratio in ratios * (1 + 1e-6):
        masks = gss.StdThreshold(ratio).masks(model, granularity)
        left = {key: np.where(mask, values[key], 0) for key, mask in masks.items()}
        if not all(
            left.get(id(v), values[id(v)]).any() for v in model.weights if v.name == "kernel"
        ):
            break
        found.append(cost(budget, count_values(model, left)))
    return np.array(found)


@pytest.mark.parametrize("granularity", ["element", "neuron"])
@pytest.mark.parametrize("budget", [gss.MacsBudget, gss.ParamsBudget])
def test_budget_is_met_as_tightly_as_any_ratio_can(budget, granularity):
    model = small_model()
    dense = cost(budget, gss.count(model))
    possible = costs_at_every_ratio(budget, model, granularity)
    fraction = np.median(np.unique(possible)) / dense + 1e-3
    assert 0 < fraction < 1
    pruned = gss.prune(model, budget(fraction), granularity)
    affordable = possible[possible <= fraction * dense]
    assert cost(budget, gss.count(pruned)) == affordable.max()


@pytest.mark.parametrize("granularity", ["element", "neuron"])
def test_resolve_tells_the_ratio_that_prune_uses(granularity):
    model = small_model()
    threshold = gss.MacsBudget(0.5, biases=False).resolve(model, granularity)
    assert threshold == gss.StdThreshold(threshold.ratio, biases=False)
    expected = gss.prune(model, threshold, granularity).get_weights()
    actual = gss.prune(model, gss.MacsBudget(0.5, biases=False), granularity).get_weights()
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_number_of_weights_can_be_met_exactly():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(5, use_bias=False)])
    for number in range(1, 41):
        pruned = gss.prune(model, gss.ParamsBudget(number / 40))
        assert np.count_nonzero(pruned.get_weights()[0]) == number


def test_the_whole_budget_zeroes_nothing():
    model = small_model()
    assert gss.MacsBudget(1).resolve(model, "element") == gss.StdThreshold(0.0)
    for before, after in zip(
        model.get_weights(), gss.prune(model, gss.ParamsBudget(1.0)).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(after, before)


def test_a_budget_out_of_reach_is_refused_with_the_numbers():
    model = small_model()
    dense = gss.count(model).live_macs
    with pytest.raises(ValueError, match=f"of {dense:,} live MACs") as refusal:
        gss.prune(model, gss.MacsBudget(1e-4))
    text = str(refusal.value)
    assert "MacsBudget(fraction=0.0001)" in text
    least, ratio = re.search(r"At best ([\d,]+) remain, at ratio ([\d.]+)\. ", text).groups()
    reached = gss.prune(model, gss.StdThreshold(float(ratio)))
    assert gss.count(reached).live_macs == int(least.replace(",", ""))
    assert "these would be empty" in text
    assert "keep_strongest=True" in text


def test_keep_strongest_reaches_further_and_empties_nothing():
    model = small_model()
    pruned = gss.prune(model, gss.ParamsBudget(0.1, keep_strongest=True))
    counted = gss.count(pruned)
    assert counted.nonzero_parameters <= 0.1 * gss.count(model).nonzero_parameters
    assert all(layer.nonzero_weights >= 1 for layer in counted.layers)
    with pytest.raises(ValueError, match="At best [1-6] remain"):
        gss.prune(model, gss.ParamsBudget(1e-3, keep_strongest=True))


def test_pruning_to_a_budget_again_counts_from_what_is_left():
    model = small_model()
    once = gss.prune(model, gss.ParamsBudget(0.5))
    twice = gss.prune(once, gss.ParamsBudget(0.5))
    left = gss.count(once).nonzero_parameters
    assert gss.count(twice).nonzero_parameters == left // 2


@pytest.mark.parametrize("value", [0, -0.1, 1.01, float("nan"), True, "0.5", None])
def test_wrong_fractions_are_refused_by_name(value):
    for kind in (gss.MacsBudget, gss.ParamsBudget):
        with pytest.raises(ValueError, match="`fraction` must be a number with 0 < fraction <= 1"):
            kind(value)
