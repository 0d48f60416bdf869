"""The zeros of one model for another: rewound weights, tickets, and what does not fit."""

import random

import keras
import numpy as np
import pytest
from keras import layers
from random_models import random_case
from test_pruning_prune import dense_model, fit, zeros_of

import keras_gss as gss
from keras_gss import datasets, zoo


def values(model):
    return [keras.ops.convert_to_numpy(v) for v in model.weights]


def test_the_weights_that_are_left_are_the_earlier_ones():
    dense = dense_model()
    trained = dense_model()
    fit(trained)
    pruned = gss.prune(trained, gss.StdThreshold(0.8))
    fit(pruned)
    rewound = gss.prune(dense, gss.ZerosOf(pruned))
    for before, zeros, after in zip(values(dense), zeros_of(pruned), values(rewound), strict=True):
        fixed = zeros if zeros.ndim == 2 else False  # statistics and biases are as they were
        np.testing.assert_array_equal(after, np.where(fixed, 0, before))
    fit(rewound)
    kernels = [k for k, v in enumerate(rewound.weights) if v.name == "kernel"]
    assert all((zeros_of(rewound)[k] == zeros_of(pruned)[k]).all() for k in kernels)


@pytest.mark.parametrize("seed", [1, 2, 3, 9, 10])
@pytest.mark.parametrize("granularity", ["element", "neuron"])
def test_a_model_has_its_own_zeros_and_slims_to_the_same_sizes(seed, granularity):
    model = random_case(random.Random(seed)).model
    pruned = gss.prune(model, gss.StdThreshold(0.9, keep_strongest=True), granularity)
    again = gss.prune(model, gss.ZerosOf(pruned))
    assert repr(gss.ZerosOf(again)) == repr(gss.ZerosOf(pruned))
    for variable, before, after in zip(model.weights, values(pruned), values(again), strict=True):
        if variable.trainable:  # running means of neurons that went stay, and nothing reads them
            np.testing.assert_array_equal(after, before)
    assert gss.slim(again).count_params() == gss.slim(pruned).count_params()


def test_compress_finetunes_from_earlier_weights():
    digits = datasets.load("digits")
    dense = zoo.build("digits-mlp")
    pruned = gss.prune(dense, gss.MacsBudget(0.4), "neuron")
    result = gss.compress(
        dense, digits.train, digits.validation, target=gss.ZerosOf(pruned), epochs=0,
        finetune_epochs=1, timed=False, verbose=False,
    )  # fmt: skip
    assert result.report.live_macs[1] == gss.count(gss.slim(pruned)).live_macs
    assert result.settings["target"] == repr(gss.ZerosOf(gss.prune(dense, gss.ZerosOf(pruned))))
    assert "zeros" in result.settings["target"]


def test_other_zeros_have_another_name():
    model = dense_model()
    names = {repr(gss.ZerosOf(gss.prune(model, gss.StdThreshold(r)))) for r in (0.5, 0.8, 0.80001)}
    assert len(names) == 2


def test_what_does_not_fit_is_refused():
    dense = dense_model()
    with pytest.raises(ValueError, match="no weight of 'sequential.*' is fixed at zero. Give it"):
        gss.ZerosOf(dense)
    zeros = gss.ZerosOf(gss.prune(dense, gss.StdThreshold(0.8)))
    for units in (5, 6):
        names = {"name": "a"} if units == 5 else {"name": "c"}
        other = keras.Sequential([keras.Input((4,)), layers.Dense(units, **names)])
        with pytest.raises(ValueError, match=r"there is no 'a/kernel' of shape \(4, 6\) in it"):
            gss.prune(other, zeros)
    with pytest.raises(TypeError, match="`ZerosOf` expected a Keras 3 or tf_keras"):
        gss.ZerosOf("model")
