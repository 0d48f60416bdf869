"""One model of each family of `keras.applications`; the whole table is `examples/applications`."""

import sys
from pathlib import Path

import keras
import pytest
from keras import applications, layers
from keras.src.applications import convnext, densenet, efficientnet, efficientnet_v2, nasnet, resnet
from keras.src.applications.inception_resnet_v2 import conv2d_bn, inception_resnet_block

import keras_gss as gss
from keras_gss.graph.trace import OUTPUT

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "applications"))
import check

PLAIN = {"weights": None, "classes": 10, "classifier_activation": None}
PIXELS = (32, 32, 3)


def small_resnet(stack, preact):
    def blocks(x):
        return stack(stack(x, 8, 2, stride1=1, name="one"), 16, 2, name="two")

    return resnet.ResNet(blocks, preact, use_bias=True, input_shape=PIXELS, **PLAIN)


def small_inception_resnet():
    x = inputs = keras.Input((8, 8, 3))
    x = conv2d_bn(x, 24, 3)
    for number, kind in enumerate(("block35", "block17", "block8")):
        x = inception_resnet_block(x, 0.2, kind, number)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


# Fewer blocks and channels than the published members where the family's constructor allows it.
FAMILIES = {
    "ConvNeXt": lambda: convnext.ConvNeXt(
        [2, 1, 1, 1], [8, 16, 24, 32], 0.1, input_shape=PIXELS, **PLAIN
    ),
    "DenseNet": lambda: densenet.DenseNet([2, 2, 2, 2], input_shape=PIXELS, **PLAIN),
    "EfficientNet": lambda: efficientnet.EfficientNet(0.5, 0.2, 32, input_shape=PIXELS, **PLAIN),
    "EfficientNetV2": lambda: efficientnet_v2.EfficientNetV2(
        0.5, 0.2, 32, name="efficientnetv2-b0", input_shape=PIXELS, **PLAIN
    ),
    "InceptionResNetV2": small_inception_resnet,
    "InceptionV3": lambda: applications.InceptionV3(input_shape=(75, 75, 3), **PLAIN),
    "MobileNet": lambda: applications.MobileNet(PIXELS, alpha=0.25, **PLAIN),
    "MobileNetV2": lambda: applications.MobileNetV2(PIXELS, alpha=0.35, **PLAIN),
    "MobileNetV3": lambda: applications.MobileNetV3Small(PIXELS, alpha=0.5, **PLAIN),
    "NASNet": lambda: nasnet.NASNet(PIXELS, 24 * 4, 1, 8, default_size=32, **PLAIN),
    "ResNet": lambda: small_resnet(resnet.stack_residual_blocks_v1, False),
    "ResNetV2": lambda: small_resnet(resnet.stack_residual_blocks_v2, True),
    "VGG": lambda: applications.VGG16(input_shape=PIXELS, **PLAIN),
    "Xception": lambda: applications.Xception(input_shape=(71, 71, 3), **PLAIN),
}
ON_JAX = ("InceptionResNetV2", "ResNet", "VGG")  # the quickest: it compiles much
CHOSEN = list(FAMILIES) if keras.backend.backend() == "tensorflow" else ON_JAX


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()


# Small members of what only tf_keras has, and of what it builds in its own way.
OF_TF_KERAS = {
    "ConvNeXt": lambda tf_keras: tf_keras.src.applications.convnext.ConvNeXt(
        [2, 1, 1, 1], [8, 16, 24, 32], 0.1, input_shape=PIXELS, **PLAIN
    ),
    "EfficientNet": lambda tf_keras: tf_keras.src.applications.efficientnet.EfficientNet(
        0.5, 0.2, 32, input_shape=PIXELS, **PLAIN
    ),
    "MobileNetV3": lambda tf_keras: tf_keras.applications.MobileNetV3Small(
        PIXELS, alpha=0.5, **PLAIN
    ),
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf_keras runs on TensorFlow")
@pytest.mark.parametrize("family", OF_TF_KERAS)
def test_models_of_tf_keras_are_cut_the_same_way(family):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = OF_TF_KERAS[family](tf_keras)
    small, _, figures = check.cut(model)
    assert type(small) is type(model)
    assert figures["difference"] < 1e-5


@pytest.mark.parametrize("family", CHOSEN)
def test_the_planted_half_of_every_group_goes_and_nothing_else(family):
    model = FAMILIES[family]()
    figures = check.cut(model)[-1]
    assert figures["difference"] < 1e-5
    if family != "ConvNeXt":  # its normalisation and grouped convolutions are barriers
        groups = gss.find_groups(model)
        assert all(group.removable for group in groups)
        assert [why.split(" ", 1)[1] for why in groups.skipped.values()] == [OUTPUT]
