"""`to_tf_keras`: the same layers, names, weights and outputs, or a refusal by name."""

import keras
import numpy as np
import pytest
from keras import layers, ops

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf_keras runs on TensorFlow only", allow_module_level=True)

import tf_keras

import keras_gss as gss


def compare(model):
    converted = gss.to_tf_keras(model)
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(3, *t.shape[1:])).astype("float32") for t in model.inputs]
    x = x[0] if len(x) == 1 else x
    expected = keras.tree.flatten(model(x, training=False))
    received = keras.tree.flatten(converted(x, training=False))
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-5)
    return converted


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, strides=2, padding="same", activation="silu"),
        layers.Conv2DTranspose(3, 2, strides=2),
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="elu"),
        layers.SeparableConv2D(4, 3, activation="softplus"),
        layers.BatchNormalization(scale=False),
        layers.LayerNormalization(),
        layers.PReLU(shared_axes=(1, 2)),
        layers.LeakyReLU(0.2),
        layers.ReLU(max_value=6),
        layers.ELU(0.5),
        layers.UpSampling2D(2),
        layers.ZeroPadding2D(((1, 0), (2, 1))),
        layers.Cropping2D(1),
        layers.AveragePooling2D(2, padding="same"),
        layers.GlobalMaxPooling2D(keepdims=True),
        layers.Rescaling(0.5, 0.1),
        layers.Permute((3, 1, 2)),
        layers.Reshape((-1, 4)),
        layers.SpatialDropout2D(0.5),
        layers.GaussianNoise(0.5),
        layers.Dense(3, kernel_regularizer="l2", kernel_constraint="non_neg"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_compute_the_same(layer):
    model = keras.Sequential([keras.Input((6, 6, 4), name="image"), layer])
    converted = compare(model)
    assert [each.name for each in converted.layers] == [each.name for each in model.layers]
    assert type(converted.layers[0]) is getattr(tf_keras.layers, type(layer).__name__)


def test_regularizers_and_constraints_come_along():
    layer = layers.Dense(3, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2))
    model = keras.Sequential([keras.Input((2,)), layer])
    (converted,) = gss.to_tf_keras(model).layers
    assert type(converted.kernel_regularizer) is tf_keras.regularizers.L1L2
    assert float(converted.kernel_regularizer.l2) == pytest.approx(0.2)
    penalty = gss.GSSStructure(1e-3)
    declared = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, kernel_regularizer=penalty), layers.Dense(2)]
    )
    converted = gss.to_tf_keras(declared)
    assert [group.size for group in gss.attach(converted)] == [3]


def test_nested_shared_and_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(5, "tanh", name="in")], name="nested")
    shared = layers.Dense(5, name="shared")
    x = layers.Add(name="sum")([shared(inner(layers.Dense(5)(a))), shared(layers.Dense(5)(b))])
    y = ops.relu(ops.concatenate([x, 2.0 * x - 1.0, ops.mean(x, axis=-1, keepdims=True)], axis=-1))
    model = keras.Model([a, b], {"first": layers.Dense(2)(y), "second": layers.Dense(1)(x)})
    converted = compare(model)
    assert converted.input_names == ["a", "b"]
    assert sorted(converted(model.inputs and [np.ones((1, 4)), np.ones((1, 3))])) == [
        "first",
        "second",
    ]
    assert converted.count_params() == model.count_params()
    assert converted.get_layer("nested").get_layer("in").units == 5


def test_frozen_layers_stay_frozen():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    model.layers[0].trainable = False
    converted = gss.to_tf_keras(model)
    assert [layer.trainable for layer in converted.layers] == [False, True]


class Own(layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Own(name="mine"), r"the layer 'mine' \(Own\) has no counterpart"),
        (layers.RMSNormalization(name="rms"), r"the layer 'rms' \(RMSNormalization\) has no"),
        (layers.Dense(2, "hard_sigmoid", name="hard"), "'hard'.*another function in tf_keras"),
        (layers.Dense(2, "hard_silu", name="silu"), "'silu'.*cannot be built in tf_keras"),
        (
            lambda x: layers.Resizing(4, 4, pad_to_aspect_ratio=True, name="resize")(
                layers.Reshape((2, 2, 1))(x)
            ),
            "'resize'.*does not know: {.*'pad_to_aspect_ratio': True",
        ),
        (
            lambda x: ops.cumsum(x, axis=-1),
            r"the operation 'cumsum.*' \(Cumsum\) has no counterpart",
        ),
    ],
    ids=["own", "new", "other function", "missing function", "argument", "operation"],
)
def test_what_cannot_be_converted_is_refused_by_name(part, words):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, part(inputs))
    with pytest.raises(TypeError, match=words):
        gss.to_tf_keras(model)
