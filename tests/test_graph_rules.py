"""Every layer kind with a rule, in one small network: dead neurons go, nothing else changes."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from planted import check_slim, plant

import keras_gss as gss
from keras_gss.graph import liveness, trace
from keras_gss.graph.rules.spatial import pads

SPACE = {1: (8,), 2: (8, 8), 3: (6, 6, 6)}


def conv(rank, filters, **options):
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    return kind(filters, 3, **options)


# name -> (spatial rank, what stands between the cut layer and the layers that read it)
PASSED_BY = {
    "identity": (2, lambda x: x),
    "BatchNormalization": (2, layers.BatchNormalization()),
    "DepthwiseConv1D": (1, layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "DepthwiseConv2D": (2, layers.DepthwiseConv2D(3, activation="relu")),
    "PReLU": (2, layers.PReLU(shared_axes=[1, 2])),
    "ReLU": (2, layers.ReLU()),
    "LeakyReLU": (2, layers.LeakyReLU()),
    "ELU": (2, layers.ELU()),
    "Activation": (2, layers.Activation("sigmoid")),
    "Dropout": (2, layers.Dropout(0.5)),
    "SpatialDropout2D": (2, layers.SpatialDropout2D(0.5)),
    "GaussianNoise": (2, layers.GaussianNoise(0.1)),
    "Rescaling": (2, layers.Rescaling(2.0, 1.0)),
    "Rescaling, per channel": (2, layers.Rescaling([1.0, 2, 3, 4, 5, 6], np.arange(6.0))),
    "Normalization": (2, layers.Normalization()),
    "Normalization, inverted": (2, layers.Normalization(invert=True)),
    "Normalization, one for all": (2, layers.Normalization(axis=None)),
    "Normalization, given": (
        2,
        layers.Normalization(mean=[0.0, 1, 2, 3, 4, 5], variance=[1.0, 2, 3, 4, 5, 6]),
    ),
    "Normalization, given one": (2, layers.Normalization(mean=1.0, variance=4.0)),
    "LayerScale": (2, LayerScale(0.5, 6)),
    "StochasticDepth": (2, StochasticDepth(0.5)),
    "CustomScaleLayer": (2, lambda x: CustomScaleLayer(0.3)([x, layers.ReLU()(x)])),
    "MaxPooling1D": (1, layers.MaxPooling1D()),
    "MaxPooling2D": (2, layers.MaxPooling2D(padding="same")),
    "MaxPooling3D": (3, layers.MaxPooling3D()),
    "AveragePooling1D": (1, layers.AveragePooling1D(2)),
    "AveragePooling2D": (2, layers.AveragePooling2D(2, padding="same")),
    "AveragePooling3D": (3, layers.AveragePooling3D(2)),
    "UpSampling1D": (1, layers.UpSampling1D()),
    "UpSampling2D": (2, layers.UpSampling2D()),
    "UpSampling3D": (3, layers.UpSampling3D()),
    "Cropping1D": (1, layers.Cropping1D()),
    "Cropping2D": (2, layers.Cropping2D()),
    "Cropping3D": (3, layers.Cropping3D()),
    "Permute": (2, layers.Permute((2, 1, 3))),
    "Reshape": (2, layers.Reshape((9, 4, 6))),
    "TimeDistributed": (1, layers.TimeDistributed(layers.ReLU())),
    "ops.roll": (2, lambda x: ops.roll(x, 1, axis=1)),
    "ops.relu": (2, ops.relu),
    "ops.ones_like": (2, lambda x: x - 0.5 * ops.ones_like(x)),
    "ops.zeros_like": (2, lambda x: x + ops.zeros_like(x)),
    "ops.gelu": (2, ops.gelu),
    "ops.max_pool": (2, lambda x: ops.max_pool(x, 2, strides=2)),
    "ops.average_pool": (2, lambda x: ops.average_pool(x, 2, strides=2)),
    "ops.transpose": (2, lambda x: ops.transpose(x, (0, 2, 1, 3))),
    "ops.reshape": (2, lambda x: ops.reshape(x, (-1, 9, 4, 6))),
    "numbers": (2, lambda x: 1.0 - ops.maximum(x * 0.5 + 1.0, 0.1) / 2.0),
    "Add": (2, lambda x: layers.Add()([x, layers.ReLU()(x)])),
    "Subtract": (2, lambda x: layers.Subtract()([x, layers.ReLU()(x)])),
    "Multiply": (2, lambda x: layers.Multiply()([x, layers.Activation("sigmoid")(x)])),
    "Average": (2, lambda x: layers.Average()([x, layers.ReLU()(x)])),
    "Maximum": (2, lambda x: layers.Maximum()([x, layers.Activation("tanh")(x)])),
    "Minimum": (2, lambda x: layers.Minimum()([x, layers.Activation("tanh")(x)])),
    "Concatenate": (2, lambda x: layers.Concatenate()([x, layers.ReLU()(x)])),
    "ops.add": (2, lambda x: x + ops.tanh(x)),
    "ops.subtract": (2, lambda x: x - ops.tanh(x)),
    "ops.multiply": (2, lambda x: x * ops.sigmoid(x)),
    "ops.concatenate": (2, lambda x: ops.concatenate([x, ops.tanh(x)], axis=-1)),
}

READ_BY = {
    "Conv1D": (1, layers.Conv1D(4, 3)),
    "Conv2D": (2, layers.Conv2D(4, 3, strides=2)),
    "Conv3D": (3, layers.Conv3D(4, 3)),
    "SeparableConv1D": (1, layers.SeparableConv1D(4, 3)),
    "SeparableConv2D": (2, layers.SeparableConv2D(4, 3, depth_multiplier=2)),
    "Dense": (2, layers.Dense(4)),
    "EinsumDense": (2, layers.EinsumDense("...x,xy->...y", 4, bias_axes="y")),
    "SimpleRNN": (1, layers.SimpleRNN(4)),
    "LSTM": (1, layers.LSTM(4)),
    "GRU": (1, layers.GRU(4)),
    "GRU, reset before": (1, layers.GRU(4, reset_after=False)),
    "Bidirectional": (1, layers.Bidirectional(layers.LSTM(4))),
    "TimeDistributed": (1, layers.TimeDistributed(layers.Dense(4))),
    "MultiHeadAttention": (1, lambda x: layers.MultiHeadAttention(2, 3, output_shape=4)(x, x)),
    "Conv2D without bias": (2, layers.Conv2D(4, 3, use_bias=False)),
    "1x1 Conv2D, same": (2, layers.Conv2D(4, 1, padding="same")),
    "1x1 Conv2DTranspose": (2, layers.Conv2DTranspose(4, 1)),
    "Flatten": (2, lambda x: layers.Dense(4)(layers.Flatten()(x))),
    "GlobalAveragePooling": (2, lambda x: layers.Dense(4)(layers.GlobalAveragePooling2D()(x))),
    "GlobalMaxPooling": (1, lambda x: layers.Dense(4)(layers.GlobalMaxPooling1D()(x))),
    "ops.mean": (2, lambda x: layers.Dense(4)(ops.mean(x, axis=(1, 2)))),
}

# Here a constant that is not zero would show at a border, so that it has to stay.
SHOWS_AT_BORDER = {
    "Conv1D, causal": (1, layers.Conv1D(4, 3, padding="causal")),
    "Conv2D, same": (2, layers.Conv2D(4, 3, padding="same")),
    "Conv2D, same by one": (2, layers.Conv2D(4, 2, padding="same")),
    "DepthwiseConv2D, same": (2, layers.DepthwiseConv2D(3, padding="same")),
    "SeparableConv2D, same": (2, layers.SeparableConv2D(4, 3, padding="same")),
    "Conv1DTranspose": (1, layers.Conv1DTranspose(4, 3)),
    "Conv2DTranspose": (2, layers.Conv2DTranspose(4, 3, strides=2)),
    "Conv3DTranspose": (3, layers.Conv3DTranspose(4, 3)),
    "ZeroPadding1D": (1, lambda x: layers.Conv1D(4, 3)(layers.ZeroPadding1D()(x))),
    "ZeroPadding2D": (2, lambda x: layers.Conv2D(4, 3)(layers.ZeroPadding2D()(x))),
    "ops.pad": (
        2,
        lambda x: layers.Conv2D(4, 3)(ops.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0)))),
    ),
    "ZeroPadding3D": (3, lambda x: layers.Conv3D(4, 3)(layers.ZeroPadding3D()(x))),
}

# What passes on whose channel a number is, but not which number.
UNREAD = {
    "LayerNormalization of places": (2, layers.LayerNormalization(axis=[1, 2])),
    "UnitNormalization of places": (2, layers.UnitNormalization(axis=1)),
    "Softmax of places": (2, layers.Softmax(axis=1)),
    "GroupNormalization": (2, layers.GroupNormalization(3)),
    "GroupNormalization of channels": (2, layers.GroupNormalization(-1)),
    "Conv2D in groups": (2, layers.Conv2D(6, 3, groups=2)),
    "SimpleRNN": (1, layers.SimpleRNN(5, return_sequences=True)),
    "LSTM": (1, layers.LSTM(5, return_sequences=True)),
    "GRU": (1, layers.GRU(5, return_sequences=True)),
    "Bidirectional": (1, layers.Bidirectional(layers.GRU(5, return_sequences=True))),
    "MultiHeadAttention": (1, lambda x: layers.MultiHeadAttention(2, 3)(x, x)),
    "GroupedQueryAttention": (1, lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x)),
    "EinsumDense": (1, layers.EinsumDense("abc,cd->abd", (6, 5), bias_axes="d")),
    "ops.cumsum": (1, lambda x: ops.cumsum(x, axis=1)),
}

BARRIERS = {
    "LayerNormalization": (2, layers.LayerNormalization(), "normalises over the channels"),
    "RMSNormalization": (2, layers.RMSNormalization(), "normalises over the channels"),
    "UnitNormalization": (2, layers.UnitNormalization(), "normalises over the channels"),
    "Softmax": (2, layers.Softmax(), "normalises over the channels"),
    "GroupNormalization": (2, layers.GroupNormalization(1), "normalises over the channels"),
    "Embedding": (1, layers.Embedding(9, 4), "as an index"),
    "RNN": (1, layers.RNN(layers.GRUCell(4)), "has no rule"),
    "Attention": (1, lambda x: layers.Attention()([x, x]), "has no rule"),
    "softmax": (2, layers.Activation("softmax"), "softmax"),
    "Lambda": (2, layers.Lambda(lambda x: x + 1.0), "has no rule"),
    "groups of one channel": (2, layers.Conv2D(6, 3, groups=6), "6 groups"),
    "ops.cumsum of samples": (1, lambda x: ops.cumsum(x, axis=0), "along the batch axis"),
    "Normalization of places": (2, layers.Normalization(axis=(1, 2, 3)), "several axes"),
    "Rescaling by an array": (2, layers.Rescaling(np.ones((6, 6))), "one number per channel"),
}


def network(rank, between, reader):
    """Convolution 'cut' (6 filters), what is tested, and an output that reads everything."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((*SPACE[rank], 3))
    x = reader(between(conv(rank, 6, name="cut")(inputs)))
    x = x if len(x.shape) == 2 else layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    random = np.random.default_rng(0)
    for variable in model.weights:
        positive = "variance" in variable.path
        value = random.normal(size=variable.shape) * 0.4
        variable.assign(np.abs(value) + 0.5 if positive else value)
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    return model


def flat(x):
    """All numbers side by side."""
    return layers.Flatten()(x)


def silence(model, neurons, bias):
    """Makes neurons of 'cut' constant: no incoming weights, this bias."""
    layer = model.get_layer("cut")
    kernel, biases = (keras.ops.convert_to_numpy(v).copy() for v in (layer.kernel, layer.bias))
    kernel[..., neurons] = 0.0
    biases[neurons] = bias
    layer.kernel.assign(kernel)
    layer.bias.assign(biases)


def width(model):
    return model.get_layer("cut").filters


def fresh(rule):
    """A layer of its own for every test."""
    return type(rule).from_config(rule.get_config()) if isinstance(rule, layers.Layer) else rule


@pytest.mark.parametrize("name", PASSED_BY)
def test_constants_pass(name):
    rank, between = PASSED_BY[name]
    model = network(rank, fresh(between), layers.Dense(4))
    silence(model, [1, 4], bias=[0.7, -0.7])
    small, report = gss.slim(model, return_report=True)
    assert width(small) == 4
    assert report.max_difference <= 1e-5
    assert small.count_params() < model.count_params()


@pytest.mark.parametrize("name", READ_BY)
def test_constants_fold(name):
    rank, reader = READ_BY[name]
    model = network(rank, layers.ReLU(), fresh(reader))
    silence(model, [0, 5], bias=0.7)
    small, report = gss.slim(model, return_report=True)
    assert width(small) == 4
    assert report.max_difference <= 1e-5


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", READ_BY)
def test_weights_of_either_sign_are_read(name, sign):
    rank, reader = READ_BY[name]
    model = network(rank, layers.ReLU(), fresh(reader))
    for variable in model.weights:
        variable.assign(sign * abs(keras.ops.convert_to_numpy(variable)))
    assert liveness(trace(model)).needed.all()


@pytest.mark.parametrize("name", SHOWS_AT_BORDER)
def test_constants_at_a_border_stay_and_are_named(name):
    rank, reader = SHOWS_AT_BORDER[name]
    model = network(rank, layers.ReLU(), fresh(reader))
    silence(model, [0, 5], bias=0.7)
    small, report = gss.slim(model, return_report=True)
    assert width(small) == 6
    assert [reason[:9] for reason in report.kept.values() if "border" in reason] == ["2 of the "]
    silence(model, [0, 5], bias=-0.7)  # relu makes them zero, and zero is the border's own value
    assert width(gss.slim(model)) == 4


def test_an_empty_depthwise_filter_emits_its_bias():
    model = network(2, layers.DepthwiseConv2D(3, name="depthwise"), layers.Dense(4))
    kernel = keras.ops.convert_to_numpy(model.get_layer("depthwise").kernel).copy()
    kernel[:, :, 2] = 0.0
    kernel[:, :, 0], kernel[:, :, 1] = 0.1, -0.1
    silence(model, [0, 1], bias=0.7)
    model.get_layer("depthwise").kernel.assign(kernel)
    small, report = gss.slim(model, return_report=True)
    assert width(small) == 3
    assert report.max_difference <= 1e-5


def test_a_channel_that_is_zero_goes_whatever_gates_it():
    def gated(x):
        gate = layers.Dense(6, activation="sigmoid")(
            layers.GlobalAveragePooling2D(keepdims=True)(x)
        )
        return layers.Multiply()([layers.ReLU()(x), gate])

    model = network(2, gated, layers.Dense(4))
    silence(model, [3], bias=-0.7)
    small, report = gss.slim(model, return_report=True)
    assert width(small) == 5
    assert report.max_difference <= 1e-5


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "size", "padded"),
    [
        *((1, 1, 1, 5, False), (2, 1, 1, 5, True), (3, 1, 1, 5, True), (1, 2, 1, 4, False)),
        *((2, 2, 1, 4, False), (2, 2, 1, 5, True), (3, 3, 1, 6, False), (3, 2, 1, 5, True)),
        # ends at 0, 2 and 2, 4: one further than there is
        *((2, 2, 2, 4, True), (1, 1, 2, 5, False), (2, 1, 1, None, True), (1, 1, 1, None, False)),
    ],
)
def test_same_pads_where_windows_do_not_tile(kernel, stride, dilation, size, padded):
    layer = layers.DepthwiseConv2D(
        (1, kernel), strides=stride, dilation_rate=(1, dilation), padding="same"
    )
    assert pads(layer, (stride, size, 3)) is padded
    assert not pads(layers.DepthwiseConv2D(kernel, strides=stride), (9, size, 3))


@pytest.mark.parametrize(("offset", "removable"), [(1.0, True), ([1.0, 2, 3, 4, 5, 6], False)])
def test_numbers_per_channel_of_images_with_channels_first(offset, removable, monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    between = layers.Rescaling([1.0, 2, 3, 4, 5, 6], offset)
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(6, 1, name="cut", data_format="channels_first")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(between(x))))
    assert gss.find_groups(model)[0].removable is removable


def test_causal_pads_whatever_the_strides():
    assert pads(layers.Conv1D(1, 2, strides=2, padding="causal"), (4, 3))
    assert not pads(layers.Conv1D(1, 1, strides=2, padding="causal"), (4, 3))


@pytest.mark.parametrize("name", UNREAD)
def test_unread_neurons_go(name, tmp_path):
    rank, between = UNREAD[name]
    model = network(rank, fresh(between), layers.Dense(4))
    alive = plant(model)
    _, left, _ = check_slim(model, tmp_path)
    assert left == alive and alive["cut"] < 6


@pytest.mark.parametrize("name", BARRIERS)
def test_barriers_leave_their_neighbours_whole(name):
    rank, barrier, words = BARRIERS[name]
    model = network(rank, barrier if name == "Lambda" else fresh(barrier), flat)
    silence(model, [0, 5], bias=0.7)
    groups = gss.find_groups(model)
    assert [(g.name, g.removable) for g in groups if g.name == "cut"] == [("cut", False)]
    assert any(words in reason for reason in groups.skipped.values())
    assert "cut" in groups.skipped
