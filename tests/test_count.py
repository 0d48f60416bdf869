"""`count` against figures worked out by hand and against TensorFlow's profiler."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss import zoo
from keras_gss.count import removable_share


def test_the_papers_networks():
    """gss-math section 7: 266.2k and 2293.0k MACs."""
    mlp, lenet = gss.count(zoo.build("lenet-300-100")), gss.count(zoo.build("lenet-5"))
    assert (mlp.macs, mlp.weights, mlp.parameters) == (266_200, 266_200, 266_610)
    assert (lenet.macs, lenet.weights) == (2_293_000, 430_500)
    assert [width for width, _ in lenet.structure.values()] == [1, 20, 50, 500]


def test_live_macs_are_those_of_the_network_that_would_be_left():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2)])
    kernel = np.ones((4, 3))
    kernel[1] = 0
    kernel[:, 2] = 0
    model.layers[0].set_weights([kernel, np.ones(3)])
    found = gss.count(model)
    assert (found.macs, found.live_macs, found.nonzero_macs) == (18, 3 * 2 + 2 * 2, 6 + 6)
    assert list(found.structure.values()) == [(4, 3), (3, 2)]
    small = gss.slim(model, inputs="narrow")
    assert gss.count(small).macs == found.live_macs


def test_removable_share_by_hand():
    """conv 9*3*4 at 4x4, depthwise 9*4 at 2x2, dense 16*5: one channel of four has to stay."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.DepthwiseConv2D(3, use_bias=False),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    share = removable_share(model)
    macs = [108 * 16, 36 * 4, 80]
    assert share.macs == pytest.approx(1 - sum(macs) / 4 / sum(macs))
    assert share.parameters == pytest.approx(1 - (27 + 9 + 20 + 5) / (108 + 36 + 80 + 5))
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Softmax(), layers.Dense(2)]
    )
    assert removable_share(model).macs == 0


def test_shared_layers_work_per_call_and_weigh_once():
    left, right = keras.Input((3,)), keras.Input((3,))
    shared = layers.Dense(2)
    model = keras.Model([left, right], layers.Add()([shared(left), shared(right)]))
    assert (gss.count(model).macs, gss.count(model).weights) == (12, 6)


def test_wrapped_layers_work_at_every_step_of_every_wrapper():
    dense = layers.TimeDistributed(layers.TimeDistributed(layers.Dense(4)))
    model = keras.Sequential([keras.Input((5, 7, 3)), dense])
    assert gss.count(model).macs == 5 * 7 * 3 * 4


def test_what_cannot_be_counted_is_named():
    rnn = layers.RNN(layers.LSTMCell(4), name="rnn")
    model = keras.Sequential([keras.Input((5, 3)), rnn, layers.Dense(2)])
    assert list(gss.count(model).uncounted) == ["rnn"]
    free = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="c")])
    assert gss.count(free).uncounted == {"c": "its spatial size is not known"}


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="it is TensorFlow's profiler that is asked"
)
def test_macs_equal_half_of_the_profilers_flops():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    kinds = {
        "Conv2D": layers.Conv2D(5, 3, strides=2, padding="same", use_bias=False),
        "DepthwiseConv2D": layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        "Dense": layers.Dense(7, use_bias=False),
    }
    for name, layer in kinds.items():
        model = keras.Sequential([keras.Input((9, 9, 4), batch_size=1), layer])
        call = tf.function(lambda x, m=model: m(x)).get_concrete_function(
            tf.TensorSpec((1, 9, 9, 4))
        )
        graph = convert_variables_to_constants_v2(call).graph
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        flops = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
        assert 2 * gss.count(model).macs == flops, name
