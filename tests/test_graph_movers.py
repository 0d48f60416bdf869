"""Layers that move data: shuffles, windows, pixels from channels, unknown sizes, channels first."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from planted import DTYPES, check_planted, check_slim, draw, plant, zero

import keras_gss as gss


def conv(filters, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", activation="relu", **options)


def shuffled(x, groups, by_ops):
    height, width, channels = x.shape[1:]
    parts, back = (height, width, groups, channels // groups), (height, width, channels)
    if by_ops:
        x = ops.transpose(ops.reshape(x, (-1, *parts)), (0, 1, 2, 4, 3))
        return ops.reshape(x, (-1, *back))
    return layers.Reshape(back)(layers.Permute((1, 2, 4, 3))(layers.Reshape(parts)(x)))


@pytest.mark.parametrize("by_ops", [False, True])
def test_a_channel_shuffle_takes_the_same_of_every_group(by_ops, tmp_path):
    def build():
        x = keras.Input((4, 4, 3))
        y = shuffled(conv(8, name="in")(x), 2, by_ops)
        return keras.Model(x, conv(2, name="out")(y))

    model, small = check_planted(build, tmp_path, "float32")
    (group,) = gss.find_groups(model)
    assert group.outgoing[0].index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert small.get_layer("in").filters in (2, 4, 6)


def test_shufflenet_units(tmp_path):
    """Both kinds: two branches joined and shuffled, and convolutions in groups around a shuffle."""

    def build():
        x = keras.Input((6, 6, 3))
        y = conv(8, name="in")(x)
        z = conv(8, 1, name="a")(y)
        z = layers.DepthwiseConv2D(3, padding="same", name="deep")(z)
        y = shuffled(layers.Concatenate()([y, conv(8, 1, name="b")(z)]), 2, by_ops=False)
        z = conv(6, 1, groups=2, name="first")(y)
        z = layers.DepthwiseConv2D(3, padding="same")(shuffled(z, 3, by_ops=False))
        z = conv(4, 1, groups=2, name="second")(z)
        return keras.Model(x, conv(2, name="out")(z))

    model, small = check_planted(build, tmp_path, "float32")
    assert small.get_layer("a").filters < 8
    assert small.count_params() < model.count_params()


def test_pixels_from_channels_take_a_whole_block(tmp_path):
    """Four channels make the four pixels of one: of 4 x 3 channels, 3 can go."""

    def build():
        x = keras.Input((3, 3, 2))
        y = conv(12, name="in")(x)
        y = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((3, 3, 2, 2, 3))(y))
        return keras.Model(x, conv(2, name="out")(layers.Reshape((6, 6, 3))(y)))

    model, small = check_planted(build, tmp_path, "float32")
    assert gss.find_groups(model)[0].size == 3
    assert small.get_layer("in").filters in (4, 8)


def test_windows_within_a_sample_and_within_the_batch(tmp_path):
    """Swin's windows: (8, 8, C) to four of (16, C), by the batch or by an axis, and back."""

    def build():
        x = keras.Input((8, 8, 3))
        y = conv(6, name="in")(x)
        z = ops.transpose(ops.reshape(y, (-1, 2, 4, 2, 4, 6)), (0, 1, 3, 2, 4, 5))
        z = ops.reshape(z, (-1, 16, 6))
        z = layers.MultiHeadAttention(2, 3, name="mha")(z, z)
        z = ops.transpose(ops.reshape(z, (-1, 2, 2, 4, 4, 6)), (0, 1, 3, 2, 4, 5))
        z = ops.reshape(z, (-1, 8, 8, 6))
        y = layers.Add()([y, z])
        z = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((2, 4, 2, 4, 6))(y))
        z = layers.Dense(5, name="dense")(layers.Reshape((4, 16, 6))(z))
        return keras.Model(x, layers.Dense(2, name="out")(z))

    model, small = check_planted(build, tmp_path, "float32")
    assert small.get_layer("in").filters < 6
    assert gss.find_groups(model).skipped == {"out": "Dense is the model's output"}


def test_a_batch_that_takes_up_channels_is_left_whole():
    x = keras.Input((4, 3))
    y = ops.reshape(layers.Dense(6, name="in")(x), (-1, 4, 3))
    groups = gss.find_groups(keras.Model(x, layers.Dense(2)(y)))
    assert "its channels with it" in groups.skipped["in"]


def test_a_tensor_joined_with_itself(tmp_path):
    def build():
        x = keras.Input((4,))
        y = layers.Dense(6, name="in")(x)
        return keras.Model(x, layers.Dense(2, name="out")(layers.Concatenate()([y, y])))

    model, _ = check_planted(build, tmp_path, DTYPES[-1])
    (group,) = gss.find_groups(model)
    assert group.outgoing[0].index.tolist() == [0, 1, 2, 3, 4, 5] * 2


def test_squeeze_and_excite(tmp_path):
    def build():
        x = keras.Input((6, 6, 3))
        y = conv(8, name="in")(x)
        z = layers.GlobalAveragePooling2D(keepdims=True)(y)
        z = conv(4, 1, name="squeeze")(z)
        y = layers.Multiply()([y, layers.Conv2D(8, 1, activation="sigmoid", name="excite")(z)])
        return keras.Model(x, conv(2, name="out")(y))

    _, small = check_planted(build, tmp_path, "float32")
    assert small.get_layer("in").filters == small.get_layer("excite").filters < 8
    assert small.get_layer("squeeze").filters < 4


def test_squeeze_and_excite_of_channels_beside_input_features(tmp_path):
    """Found by fuzzing, seed 7013060: the gate of a neuron goes with it, those of features stay."""

    def build():
        x = keras.Input((3, 3, 2))
        y = layers.Concatenate()([x, conv(4, name="cut")(x)])
        z = layers.GlobalAveragePooling2D(keepdims=True)(y)
        y = layers.Multiply()([y, layers.Dense(6, "sigmoid", name="gate")(z)])
        return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))

    model, small = check_planted(build, tmp_path, "float32")
    left = small.get_layer("cut").filters
    assert left < 4 and small.get_layer("gate").units == 2 + left
    assert gss.slim(model, inputs="narrow").get_layer("gate").units == 2 + left


def test_unknown_sizes(tmp_path):
    def build():
        x = keras.Input((None, None, 3))
        y = conv(6, name="in")(x)
        y = layers.MaxPooling2D()(conv(5, dilation_rate=2, name="wide")(y))
        y = layers.UpSampling2D()(layers.BatchNormalization()(y))
        y = layers.Reshape((-1, 5))(y)
        y = layers.GlobalAveragePooling1D()(layers.Dense(7, name="dense")(y))
        return keras.Model(x, layers.Dense(2, name="out")(y))

    model = build()
    draw(model)
    alive = plant(model)
    _, left, _ = check_slim(
        model, tmp_path, inputs=np.random.default_rng(0).normal(size=(2, 6, 8, 3))
    )
    assert left == alive
    assert set(alive) == {"in", "wide", "dense"}


def test_channels_of_unknown_sizes_that_are_mixed_are_left_whole():
    x = keras.Input((None, 3))
    y = layers.Reshape((-1, 2))(layers.Dense(4, name="in")(x))
    groups = gss.find_groups(keras.Model(x, layers.Dense(2)(y)))
    assert "unknown size" in groups.skipped["in"]


FIRST = {"data_format": "channels_first"}


def channels_first():
    x = keras.Input((3, 8, 8))
    y = layers.Conv2D(6, 3, name="in", **FIRST)(x)
    y = layers.BatchNormalization(axis=1, name="norm")(y)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep", **FIRST)(y)
    y = layers.MaxPooling2D(**FIRST)(layers.ReLU()(y))
    y = layers.SeparableConv2D(5, 1, name="separable", **FIRST)(y)
    y = layers.Flatten(**FIRST)(layers.ZeroPadding2D(**FIRST)(y))
    return keras.Model(x, layers.Dense(2, name="out")(layers.Dense(4, name="dense")(y)))


def test_channels_first_structure():
    groups = {g.name: g for g in gss.find_groups(channels_first())}
    assert {name: g.size for name, g in groups.items()} == {"in": 6, "separable": 5, "dense": 4}
    (rows,) = groups["separable"].outgoing
    assert (rows.layer.name, rows.axis) == ("dense", 0)
    np.testing.assert_array_equal(rows.index, np.tile(np.arange(5), 16))
    model = channels_first()
    draw(model)
    alive = plant(model)
    small, report = gss.slim(model, check=False, return_report=True)
    assert {name: left for name, (_, left) in report.cut.items()} == alive
    assert small.get_layer("in").filters == alive["in"]
    assert small.get_layer("norm").gamma.shape == (alive["in"],)
    assert small.get_layer("separable").depthwise_kernel.shape[-2] == 2 * alive["in"]


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="TensorFlow has no such convolutions on a CPU"
)
def test_channels_first_numbers(tmp_path):
    check_planted(channels_first, tmp_path, "float32")


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_depth_multipliers(multiplier, tmp_path):
    def build():
        x = keras.Input((6, 6, 3))
        y = conv(5, name="in")(x)
        y = layers.DepthwiseConv2D(3, depth_multiplier=multiplier, activation="relu", name="deep")(
            y
        )
        y = layers.SeparableConv2D(4, 3, depth_multiplier=multiplier, name="separable")(y)
        return keras.Model(x, conv(2, 1, name="out")(y))

    _, small = check_planted(build, tmp_path, "float32")
    filters = small.get_layer("in").filters
    assert filters < 5
    assert small.get_layer("deep").bias.shape == (filters * multiplier,)


def test_a_shift_of_places(tmp_path):
    def build():
        x = keras.Input((4, 4, 3))
        y = ops.roll(conv(6, name="in")(x), (1, -1), axis=(1, 2))
        return keras.Model(x, conv(2, name="out")(y))

    _, small = check_planted(build, tmp_path, "float32")
    assert small.get_layer("in").filters < 6
    x = keras.Input((4, 3))
    for shift, axis in ((1, -1), (1, None), (1, 0)):
        y = ops.roll(layers.Dense(6, name="in")(x), shift, axis=axis)
        groups = gss.find_groups(keras.Model(x, layers.Dense(2)(y)))
        assert [group.size for group in groups if group.removable] == ([1] if axis == -1 else [])


def test_sums_along_an_axis(tmp_path):
    def build():
        y = ops.cumsum(layers.Dense(6, name="in")(x), axis=1)
        return keras.Model(x, layers.Dense(2, name="out")(y))

    x = keras.Input((4, 3))
    _, small = check_planted(build, tmp_path, "float32")
    assert small.get_layer("in").units < 6
    y = ops.cumsum(layers.Dense(6)(x), axis=-1)
    groups = gss.find_groups(keras.Model(x, layers.Dense(2)(y)))
    assert [group.size for group in groups] == [1]


def test_places_that_are_counted_in_the_graph_leave_nothing_whole():
    x = keras.Input((4,), dtype="int32")
    places = layers.Embedding(4, 6, name="places")(ops.cumsum(ops.ones_like(x), axis=1) - 1)
    y = layers.Embedding(9, 6, name="tokens")(x) + places
    groups = gss.find_groups(keras.Model(x, layers.Dense(2, name="out")(y)))
    assert [(group.size, group.removable) for group in groups] == [(6, True)]
    assert list(groups.skipped) == ["out"]


def test_a_kernel_that_is_read_back_and_forth_is_left_whole(tmp_path):
    """A tied autoencoder: a layer of one's own that computes with another layer's kernel."""

    class Back(layers.Layer):
        def __init__(self, source, **options):
            super().__init__(**options)
            self.source = source

        def call(self, x):
            return ops.matmul(x, ops.transpose(self.source.kernel))

    x = keras.Input((4,))
    code = layers.Dense(6, name="code")
    model = keras.Model(x, layers.Dense(2, name="out")(Back(code, name="back")(code(x))))
    groups = gss.find_groups(model)
    assert all(not group.removable for group in groups)
    assert "back" in groups.skipped and "code" in groups.skipped
    zero(code.kernel, 1, [1])
    assert gss.find_groups(model).skipped["back"].startswith("Back has no rule")


@pytest.mark.parametrize("width", [(0, 3), (3, 0)])
def test_padded_channels_share_the_fate_of_what_they_are_added_to(width, tmp_path):
    def build():
        x = keras.Input((6, 6, 3))
        y = conv(5, name="narrow")(x)
        y = ops.pad(y, ((0, 0), (0, 0), (0, 0), width))
        return keras.Model(x, conv(2, name="out")(layers.Add()([y, conv(8, name="wide")(x)])))

    model, small = check_planted(build, tmp_path, "float32")
    groups = {group.name: group for group in gss.find_groups(model)}
    assert {name: group.size for name, group in groups.items()} == {"narrow": 5, "wide": 3}
    first = width[0]
    assert groups["narrow"].incoming[1].index.tolist()[first : first + 5] == [*range(5)]
    padded = sum(next(o for o in small.operations if type(o).__name__ == "Pad").pad_width[-1])
    assert padded < 3
    assert small.get_layer("wide").filters == small.get_layer("narrow").filters + padded


def test_padding_two_axes_on_which_every_place_is_a_feature_keeps_them():
    x = keras.Input((6, 6, 3), name="image")
    y = ops.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))
    skipped = gss.find_groups(keras.Model(x, conv(2)(y))).skipped
    assert any("pads more than one axis of channels" in reason for reason in skipped.values())


@pytest.mark.parametrize("channels", [1, 5])
def test_padded_channels_alone_are_cut(channels, tmp_path):
    """They are zero, so that nothing is lost; also where space is padded in the same step."""

    def build():
        x = keras.Input((6, 6, 3))
        y = ops.pad(conv(channels, name="in")(x), ((0, 0), (1, 1), (1, 1), (0, 3)))
        return keras.Model(x, layers.Conv2D(2, 3, name="out")(y))

    _, small = check_planted(build, tmp_path, "float32")
    pad = next(o for o in small.operations if type(o).__name__ == "Pad")
    assert [list(each) for each in pad.pad_width] == [[0, 0], [1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("pad", "reason"),
    [
        (lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1))), "channels on both sides"),
        (lambda x: ops.pad(x, 1), "pads the batch axis"),
        (lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), "reflect"), "else than zeros"),
        (
            lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=1.0),
            "else than zeros",
        ),
        (
            lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=-1.0),
            "else than zeros",
        ),
    ],
)
def test_padding_that_is_not_understood_leaves_all_whole(pad, reason):
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, conv(2, name="out")(pad(conv(5, name="in")(x))))
    (group,) = gss.find_groups(model)
    assert not group.removable
    assert reason in group.reason
