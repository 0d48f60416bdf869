"""The named models have the paper's shapes and begin as PyTorch's layers do."""

import numpy as np
import pytest

from keras_gss import zoo


@pytest.mark.parametrize(
    ("name", "input_shape", "kernels"),
    [
        ("lenet-300-100", (28, 28, 1), [(784, 300), (300, 100), (100, 10)]),
        ("lenet-5", (28, 28, 1), [(5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10)]),
        ("digits-mlp", (8, 8, 1), [(64, 64), (64, 32), (32, 10)]),
        ("digits-cnn", (8, 8, 1), [(3, 3, 1, 16), (3, 3, 16, 32), (128, 64), (64, 10)]),
    ],
)
def test_shapes_and_initial_weights(name, input_shape, kernels):
    model = zoo.build(name, seed=3)
    assert model.input_shape == (None, *input_shape)
    weights = model.get_weights()
    assert [kernel.shape for kernel in weights[::2]] == kernels
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        bound = np.prod(kernel.shape[:-1]) ** -0.5
        assert 0.9 * bound < np.abs(kernel).max() <= bound
        assert np.abs(kernel.mean()) < 4 * bound / np.sqrt(3 * kernel.size)
        assert bias.shape == kernel.shape[-1:]
        assert 0 < np.abs(bias).max() <= bound


def test_outputs_are_logits():
    outputs = zoo.build("lenet-300-100")(np.ones((2, 28, 28, 1), "float32"))
    assert np.abs(np.sum(outputs, axis=1) - 1).max() > 1e-3


def test_seed_decides_the_weights():
    first, again, other = (zoo.build("digits-mlp", seed=seed).get_weights() for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(a - c).max() > 0


def test_no_two_weights_share_a_seed():
    layers = [layer for layer in zoo.build("lenet-5", seed=1).layers if layer.weights]
    seeds = [
        getattr(layer, attribute).seed
        for layer in layers
        for attribute in ("kernel_initializer", "bias_initializer")
    ]
    assert len(set(seeds)) == 8


@pytest.mark.parametrize("name", ["lenet", "LeNet-5", None, 5])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="`name` must be one of 'lenet-300-100', 'lenet-5'"):
        zoo.build(name)


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer >= 0"):
        zoo.build("digits-mlp", seed=seed)
