"""Normalisation: a width that is normalised over stays, any other passes, groups go whole."""

import keras
import numpy as np
import pytest
from keras import layers
from planted import DTYPES, check_planted, check_slim, draw, zero

import keras_gss as gss


def network(between, filters=6):
    x = keras.Input((5, 5, 3))
    y = layers.Conv2D(filters, 3, name="cut")(x)
    y = between(y)
    return keras.Model(x, layers.Dense(2, name="out")(layers.GlobalAveragePooling2D()(y)))


OVER_CHANNELS = {
    "LayerNormalization": layers.LayerNormalization,
    "over everything": lambda: layers.LayerNormalization(axis=[1, 2, 3]),
    "RMSNormalization": layers.RMSNormalization,
    "UnitNormalization": layers.UnitNormalization,
    "Softmax": layers.Softmax,
    "GroupNormalization of one group": lambda: layers.GroupNormalization(1),
}
OVER_PLACES = {
    "LayerNormalization": lambda: layers.LayerNormalization(axis=[1, 2]),
    "UnitNormalization": lambda: layers.UnitNormalization(axis=2),
    "Softmax": lambda: layers.Softmax(axis=1),
}


@pytest.mark.parametrize("name", OVER_CHANNELS)
def test_a_width_that_is_normalised_over_stays(name, tmp_path):
    model = network(OVER_CHANNELS[name]())
    draw(model)
    zero(model.get_layer("out").kernel, 0, [1])  # unread, but the others depend on it
    (group,) = gss.find_groups(model)
    assert not group.removable and "normalises over the channels together" in group.reason
    assert check_slim(model, tmp_path)[0].get_layer("cut").filters == 6


@pytest.mark.parametrize("name", OVER_PLACES)
def test_channels_pass_what_normalises_over_places(name, tmp_path):
    _, small = check_planted(lambda: network(OVER_PLACES[name]()), tmp_path, DTYPES[-1])
    assert small.get_layer("cut").filters < 6


def test_what_lies_beside_channels_stays_alone(tmp_path):
    """Found by fuzzing, seed 7000147: input features differ over the places, neurons do not."""

    def build():
        x = keras.Input((6, 4))
        y = layers.Concatenate()([x, layers.Conv1D(4, 1, name="cut")(x)])
        y = layers.Flatten()(layers.LayerNormalization(axis=1)(y))
        return keras.Model(x, layers.Dense(2, name="out")(y))

    model, small = check_planted(build, tmp_path, DTYPES[-1])
    assert small.get_layer("cut").filters == 2
    assert [group.removable for group in gss.find_groups(model)] == [True]


@pytest.mark.parametrize("groups", [2, 3, 6, -1])
def test_groups_go_whole(groups, tmp_path):
    def build():
        return network(layers.GroupNormalization(groups, name="norm"))

    model, small = check_planted(build, tmp_path, DTYPES[-1])
    (group,) = gss.find_groups(model)
    size = 6 if groups == -1 else groups
    assert group.size == size
    left = small.get_layer("norm").groups
    assert left < size and small.get_layer("cut").filters == left * 6 // size


def test_a_channel_of_a_group_stays_with_the_others(tmp_path):
    model = network(layers.GroupNormalization(2, name="norm"))
    draw(model)
    zero(model.get_layer("out").kernel, 0, [0, 1])
    assert check_slim(model, tmp_path)[0].get_layer("norm").groups == 2
    zero(model.get_layer("out").kernel, 0, [2])
    small, _, _ = check_slim(model, tmp_path)
    assert (small.get_layer("norm").groups, small.get_layer("cut").filters) == (1, 3)


def test_a_group_of_zero_gammas_is_its_betas(tmp_path):
    model = network(layers.GroupNormalization(3, name="norm"))
    draw(model)
    zero(model.get_layer("norm").gamma, 0, [2, 3])
    small, _, _ = check_slim(model, tmp_path)
    assert small.get_layer("cut").filters == 4
    kernel = keras.ops.convert_to_numpy(model.get_layer("out").kernel)
    beta = keras.ops.convert_to_numpy(model.get_layer("norm").beta)
    added = small.get_layer("out").bias - model.get_layer("out").bias
    np.testing.assert_allclose(added, beta[2:4] @ kernel[2:4], rtol=1e-5)


def test_a_transformer_block_loses_what_lies_between_its_norms(tmp_path):
    """The width that the norms act on stays; heads, their widths and the hidden layer go."""

    def build():
        x = keras.Input((5,), dtype="int32")
        y = layers.Embedding(9, 8, name="table")(x)
        for k in range(2):
            z = layers.LayerNormalization(name=f"norm{k}")(y)
            z = layers.MultiHeadAttention(2, 3, name=f"mha{k}")(z, z)
            y = layers.Add()([y, layers.Dropout(0.1)(z)])
            z = layers.RMSNormalization(name=f"rms{k}")(y)
            z = layers.Dense(10, "gelu", name=f"up{k}")(z)
            y = layers.Add()([y, layers.Dense(8, name=f"down{k}")(z)])
        return keras.Model(x, layers.Dense(2, name="out")(layers.LayerNormalization()(y)))

    model, small = check_planted(build, tmp_path, "float32")
    for k in range(2):
        assert small.get_layer(f"mha{k}").num_heads == 1
        assert small.get_layer(f"up{k}").units < 10
        assert small.get_layer(f"down{k}").units == 8
    skipped = gss.find_groups(model).skipped
    assert "norm0" in skipped and "table" in skipped


def test_the_scale_of_an_rms_over_places_is_not_laid_along_them(tmp_path):
    """Keras multiplies the last axis by it, where the two are of one length."""
    x = keras.Input((4, 3))
    y = layers.RMSNormalization(axis=1, name="rms")(layers.Dense(4, name="in")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    draw(model)
    zero(model.get_layer("out").kernel, 0, [1])
    assert "whatever `axis` says" in gss.find_groups(model).skipped["rms"]
    assert check_slim(model, tmp_path)[0].get_layer("in").units == 4


def test_channels_that_come_first_pass_an_rms_over_the_last_axis(tmp_path):
    def build():
        x = keras.Input((3, 8))
        y = layers.Permute((2, 1))(layers.Dense(6, name="cut")(layers.Permute((2, 1))(x)))
        y = layers.Permute((2, 1))(layers.RMSNormalization(name="rms")(y))
        return keras.Model(x, layers.Dense(2, name="out")(y))

    assert check_planted(build, tmp_path, DTYPES[-1])[1].get_layer("cut").units < 6


def test_spectral_normalization_is_left_whole():
    model = network(layers.SpectralNormalization(layers.Conv2D(4, 1)))
    reasons = gss.find_groups(model).skipped
    assert reasons["spectral_normalization"].startswith("SpectralNormalization has no rule")
