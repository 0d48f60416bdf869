"""Pruning attention: heads and widths of projections that share one constraint argument."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss.pruning.masks import fixed_zeros, own_constraint

ATTENTION = {
    "MultiHeadAttention": lambda **kwargs: layers.MultiHeadAttention(4, 3, name="mha", **kwargs),
    "GroupedQueryAttention": lambda **kwargs: layers.GroupQueryAttention(
        6, 4, 2, name="mha", **kwargs
    ),
}


def network(attention):
    """Attention between two Dense layers, one head of it weak."""
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 6))
    y = layers.Dense(6, name="in")(x)
    y = attention(y, y)
    model = keras.Model(x, layers.Dense(3, name="out")(layers.GlobalAveragePooling1D()(y)))
    mha = model.get_layer("mha")
    for part, axis in (("query", 1), ("key", 1), ("value", 1), ("output", 0)):
        kernel = getattr(mha, f"_{part}_dense").kernel
        value = keras.ops.convert_to_numpy(kernel).copy()
        queries = getattr(mha, "num_repeats", 1) if part in ("query", "output") else 1
        own = slice(queries, 2 * queries)
        np.moveaxis(value, axis, 0)[own] *= 1e-3
        kernel.assign(value)
    return model


def fit(model):
    random = np.random.default_rng(0)
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    x, y = random.normal(size=(32, 5, 6)), random.normal(size=(32, 3))
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)


def check_zeros(model):
    for variable, zeros in fixed_zeros(model):
        assert not keras.ops.convert_to_numpy(variable)[~zeros.mask].any(), variable.path


@pytest.mark.parametrize("name", ATTENTION)
def test_a_weak_head_goes_stays_zero_and_is_cut(name, tmp_path):
    model = network(ATTENTION[name](kernel_constraint="max_norm"))
    pruned = gss.prune(model, gss.AbsoluteThreshold(0.02), granularity="neuron")
    parts = ("query", "key", "value", "output")
    kernels = [getattr(pruned.get_layer("mha"), f"_{part}_dense").kernel for part in parts]
    assert all(not own_constraint(kernel).mask.all() for kernel in kernels)
    assert all(type(own_constraint(k).constraint).__name__ == "MaxNorm" for k in kernels)
    fit(pruned)
    check_zeros(pruned)
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras", compile=False)
    fit(loaded)
    check_zeros(loaded)
    assert len(fixed_zeros(loaded)) == len(fixed_zeros(pruned))
    small, report = gss.slim(loaded, return_report=True)
    heads = {"MultiHeadAttention": (4, 3), "GroupedQueryAttention": (2, 1)}[name]
    assert report.cut["mha:heads"] == heads
    assert report.max_difference <= 1e-5
    assert small.get_layer("mha").get_config()["kernel_constraint"] is None


def test_pruning_again_keeps_the_zeros_of_all_projections():
    model = network(ATTENTION["MultiHeadAttention"]())
    once = gss.prune(model, gss.StdThreshold(0.3))
    twice = gss.prune(once, gss.StdThreshold(0.8))
    before = {variable.path: zeros.mask for variable, zeros in fixed_zeros(once)}
    after = {variable.path: zeros.mask for variable, zeros in fixed_zeros(twice)}
    assert len(before) >= 6 and before.keys() <= after.keys()
    for path, mask in before.items():
        assert not (after[path] & ~mask).any()
    assert sum((~mask).sum() for mask in after.values()) > sum((~m).sum() for m in before.values())
    fit(twice)
    check_zeros(twice)


def test_averaged_weights_keep_their_zeros():
    pruned = gss.prune(network(ATTENTION["MultiHeadAttention"]()), gss.StdThreshold(0.5))
    pruned.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    x, y = np.ones((8, 5, 6)), np.ones((8, 3))
    pruned.fit(x, y, verbose=0, callbacks=[gss.KeepZeros()])
    check_zeros(pruned)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf_keras needs TensorFlow")
def test_heads_of_tf_keras_stay_dense_by_name():
    legacy = gss.to_tf_keras(network(ATTENTION["MultiHeadAttention"]()))
    with pytest.warns(UserWarning, match="mha/query/kernel"):
        pruned = gss.prune(legacy, gss.AbsoluteThreshold(0.02), granularity="neuron")
    small, report = gss.slim(pruned, return_report=True)
    assert small.get_layer("mha").get_config()["num_heads"] == 4
    assert report.max_difference <= 1e-5
