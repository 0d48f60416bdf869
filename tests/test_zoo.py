"""The named models have the paper's shapes and begin as PyTorch's layers do."""

import keras
import numpy as np
import pytest
from planted import check_planted

import keras_gss as gss
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


def test_dropout_changes_neither_the_weights_nor_the_outputs():
    plain, model = zoo.lenet_300_100(seed=3), zoo.lenet_300_100(seed=3, dropout=0.25)
    x = np.random.default_rng(0).random((2, 28, 28, 1), "float32")
    np.testing.assert_array_equal(model(x), plain(x))
    assert np.abs(model(x, training=True) - plain(x)).max() > 1e-3
    assert model.get_layer("dropout").rate == 0.25
    with pytest.raises(ValueError, match="`dropout` must be a number from 0 to 1"):
        zoo.lenet_300_100(dropout=2)


def test_resnet_56_is_that_of_he_et_al():
    model = zoo.build("resnet-56", seed=1)
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    assert trained == 853_018
    assert gss.count(model).live_macs == 125_485_696
    kernel = keras.ops.convert_to_numpy(model.get_layer("stage3_block9_2").kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)


def test_residual_channels_are_tied_through_the_shortcut_without_parameters():
    groups = gss.find_groups(zoo.build("resnet-56"))
    sizes = {group.name: group.size for group in groups if len(group.incoming) > 1}
    assert sizes == {"conv": 16, "stage2_block1_2": 16, "stage3_block1_2": 32}
    assert len(groups) == 30
    assert all(group.removable for group in groups)
    conv = next(group for group in groups if group.name == "conv")
    assert len(conv.incoming) == 28
    assert conv.incoming[-1].index.tolist() == [*range(16), *[-1] * 48]
    assert groups.skipped.keys() == {"logits"}


def test_residual_channels_are_cut_with_their_padding(tmp_path):
    _, small = check_planted(lambda: zoo.cifar_resnet(1), tmp_path, "float32")
    widths = [small.get_layer(f"stage{k}_block1_2").filters for k in (1, 2, 3)]
    pads = [o.pad_width[-1] for o in small.operations if type(o).__name__ == "Pad"]
    assert [list(pad) for pad in pads] == [
        [0, widths[1] - widths[0]],
        [0, widths[2] - widths[1]],
    ]
    assert widths[0] < 16
    assert widths[1] - widths[0] < 16
    assert widths[2] - widths[1] < 32


def test_a_resnet_for_images_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(ValueError, match="`size` must be a multiple of 4. Received: size=18"):
        zoo.cifar_resnet(1, size=18)
    assert zoo.cifar_resnet(1, size=20).input_shape == (None, 20, 20, 3)


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
