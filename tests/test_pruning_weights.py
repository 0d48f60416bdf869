import keras
import pytest
from keras import layers

from keras_gss.pruning.weights import compared, weights_of


@pytest.fixture(scope="module")
def many_kinds():
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = layers.SeparableConv2D(4, 1, name="separable")(x)
    x = layers.Conv2DTranspose(3, 2, name="transposed")(x)
    x = layers.PReLU(name="prelu")(x)
    x = layers.Reshape((-1, 3))(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d", name="einsum")(x)
    x = layers.LayerNormalization(name="layernorm")(x)
    x = layers.GRU(3, name="gru")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def test_every_weight_is_found_with_its_constraint_argument(many_kinds):
    found = {weight.path: weight.kind for weight in weights_of(many_kinds)}
    assert found == {
        "conv/kernel": "kernel",
        "conv/bias": "bias",
        "norm/gamma": "gamma",
        "norm/beta": "beta",
        "norm/moving_mean": "",
        "norm/moving_variance": "",
        "depthwise/kernel": "depthwise",
        "depthwise/bias": "bias",
        "separable/depthwise_kernel": "depthwise",
        "separable/pointwise_kernel": "pointwise",
        "separable/bias": "bias",
        "transposed/kernel": "kernel",
        "transposed/bias": "bias",
        "prelu/alpha": "alpha",
        "einsum/kernel": "kernel",
        "einsum/bias": "bias",
        "layernorm/gamma": "gamma",
        "layernorm/beta": "beta",
        "gru/gru_cell/kernel": "kernel",
        "gru/gru_cell/recurrent_kernel": "recurrent",
        "gru/gru_cell/bias": "bias",
        "head/kernel": "kernel",
        "head/bias": "bias",
    }


def test_keys_name_entries_of_the_config(many_kinds):
    for weight in weights_of(many_kinds):
        assert not weight.kind or weight.key in weight.layer.get_config()


def test_kernels_are_compared_and_biases_if_asked_and_others_by_name(many_kinds):
    weights = list(weights_of(many_kinds))
    kernels, left = compared(weights, biases=False, also=())
    assert {weight.kind for weight in kernels} == {"kernel", "depthwise", "pointwise", "recurrent"}
    assert left == []
    more, _ = compared(weights, biases=True, also=("gamma",))
    extra = {weight.path for weight in more} - {weight.path for weight in kernels}
    kinds = {weight.path: weight.kind for weight in weights}
    assert {kinds[path] for path in extra} == {"bias", "gamma"}
    assert len(extra) == 9


@pytest.mark.parametrize(
    "attention", [layers.MultiHeadAttention(2, 3), layers.GroupQueryAttention(3, 2, 1)]
)
def test_projections_of_attention_share_an_argument(attention):
    inputs = keras.Input((3, 4))
    weights = list(weights_of(keras.Model(inputs, attention(inputs, inputs))))
    assert [(weight.part, weight.key) for weight in weights] == [
        (part, f"{kind}_constraint")
        for part in ("query", "key", "value", "attention_output")
        for kind in ("kernel", "bias")
    ]
    kernels, left = compared(weights, biases=False, also=())
    assert len(kernels) == 4
    assert left == []


def test_shared_and_nested_layers_are_found_once_by_path():
    shared = layers.Dense(3, name="shared")
    inner_input = keras.Input((3,))
    inner = keras.Model(inner_input, layers.Dense(3, name="shared")(inner_input), name="inner")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(shared(shared(inputs))))
    assert [weight.path for weight in weights_of(model)] == [
        "shared/kernel",
        "shared/bias",
        "inner/shared/kernel",
        "inner/shared/bias",
    ]


def test_integer_variables_are_no_weights():
    model = keras.Sequential([keras.Input((3,)), layers.Dropout(0.5, name="drop"), layers.Dense(1)])
    assert all(weight.layer.name != "drop" for weight in weights_of(model))
