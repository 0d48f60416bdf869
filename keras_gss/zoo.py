"""Named models: the paper's two LeNets and ResNet-56, and two small ones for scikit-learn's digits.

Weights and biases begin as PyTorch's layers do, which the authors' code uses: weights by
`kaiming_uniform_(weight, a=sqrt(5))`, that is uniformly on +-1/sqrt(fan_in), biases uniformly on
the same interval; ResNet-56 begins as in its own paper. All models take images, apply ReLU after
each hidden layer and return logits.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_gss._checks import check_choice, check_integer, check_share, reject


def lenet_300_100(seed: int = 0, dropout: float = 0.0) -> keras.Model:
    """784-300-100-10 on 28x28x1 images: 266,200 weights and as many MACs.

    `dropout` is the share of the pixels that is dropped in training, 0 as in the paper.

    Example:
    >>> lenet_300_100().count_params()
    266610
    """
    dropout = check_share("dropout", dropout)
    seeds = _seeds(seed)
    dropped = [keras.layers.Dropout(dropout, seed=seed, name="dropout")] if dropout else []
    return keras.Sequential(
        [
            keras.layers.Input((28, 28, 1), name="image"),
            keras.layers.Flatten(name="flatten"),
            *dropped,
            _dense(784, 300, "fc1", seeds, activation="relu"),
            _dense(300, 100, "fc2", seeds, activation="relu"),
            _dense(100, 10, "logits", seeds),
        ],
        name="lenet_300_100",
    )


def lenet_5(seed: int = 0) -> keras.Model:
    """20-50-(800)-500-10 on 28x28x1 images: 430,500 weights, 2,293,000 MACs.

    Two valid 5x5 convolutions, each followed by a 2x2 max pooling.

    Example:
    >>> lenet_5().count_params()
    431080
    """
    seeds = _seeds(seed)
    return keras.Sequential(
        [
            keras.layers.Input((28, 28, 1), name="image"),
            _conv(1, 20, 5, "conv1", seeds),
            keras.layers.MaxPooling2D(name="pool1"),
            _conv(20, 50, 5, "conv2", seeds),
            keras.layers.MaxPooling2D(name="pool2"),
            keras.layers.Flatten(name="flatten"),
            _dense(800, 500, "fc1", seeds, activation="relu"),
            _dense(500, 10, "logits", seeds),
        ],
        name="lenet_5",
    )


def digits_mlp(seed: int = 0) -> keras.Model:
    """64-64-32-10 on 8x8x1 images.

    Example:
    >>> digits_mlp().count_params()
    6570
    """
    seeds = _seeds(seed)
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1), name="image"),
            keras.layers.Flatten(name="flatten"),
            _dense(64, 64, "fc1", seeds, activation="relu"),
            _dense(64, 32, "fc2", seeds, activation="relu"),
            _dense(32, 10, "logits", seeds),
        ],
        name="digits_mlp",
    )


def digits_cnn(seed: int = 0) -> keras.Model:
    """16-32-(128)-64-10 on 8x8x1 images: two valid 3x3 convolutions, one 2x2 max pooling.

    Example:
    >>> digits_cnn().count_params()
    13706
    """
    seeds = _seeds(seed)
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1), name="image"),
            _conv(1, 16, 3, "conv1", seeds),
            _conv(16, 32, 3, "conv2", seeds),
            keras.layers.MaxPooling2D(name="pool"),
            keras.layers.Flatten(name="flatten"),
            _dense(128, 64, "fc1", seeds, activation="relu"),
            _dense(64, 10, "logits", seeds),
        ],
        name="digits_cnn",
    )


def resnet_56(seed: int = 0) -> keras.Model:
    """`cifar_resnet` with 9 blocks a stage: 853,018 trained parameters, 125,485,696 MACs.

    Example:
    >>> resnet_56().count_params()
    857082
    """
    return cifar_resnet(9, seed)


def cifar_resnet(blocks: int, seed: int = 0, size: int = 32) -> keras.Model:
    """A ResNet for CIFAR-10 (He et al. 2016, section 4.2), 6 * blocks + 2 layers deep.

    A 3x3 convolution to 16 channels, three stages of so many blocks with 16, 32 and 64 channels,
    the mean over space, and a dense layer. Where a stage begins with stride 2, the shortcut takes
    every second pixel and appends zero channels ("option A"), so it has no parameters. Kernels
    begin normally with variance 2 / fan_in.

    Args:
        blocks: integer >= 1, how many a stage has.
        seed: integer >= 0 from which every layer's initial weights follow.
        size: height and width of the images, a multiple of 4.

    Raises:
        ValueError: an argument out of its range.

    Example:
    >>> cifar_resnet(blocks=3).name
    'resnet_20'
    """
    check_integer("blocks", blocks, minimum=1)
    if check_integer("size", size, minimum=4) % 4:
        raise reject("size", "a multiple of 4", size)
    seeds = _seeds(seed)
    image = keras.layers.Input((size, size, 3), name="image")
    x = keras.layers.ReLU(name="relu")(_conv_bn(16, 1, "conv", seeds)(image))
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            x = _residual(x, filters, f"stage{stage}_block{block}", seeds)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    logits = keras.layers.Dense(10, kernel_initializer=_he_normal(seeds), name="logits")(x)
    return keras.Model(image, logits, name=f"resnet_{6 * blocks + 2}")


MODELS = {
    "lenet-300-100": lenet_300_100,
    "lenet-5": lenet_5,
    "resnet-56": resnet_56,
    "digits-mlp": digits_mlp,
    "digits-cnn": digits_cnn,
}


def build(name: str, seed: int = 0) -> keras.Model:
    """Builds a named model, uncompiled; the same seed gives the same weights.

    Args:
        name: one of `MODELS`.
        seed: integer >= 0 from which every layer's initial weights follow.

    Raises:
        ValueError: `name` is no named model.

    Example:
    >>> build("lenet-300-100").output_shape
    (None, 10)
    >>> build("vgg")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: `name` must be one of 'lenet-300-100', 'lenet-5', ... Received: name='vgg'
    """
    return MODELS[check_choice("name", name, tuple(MODELS))](check_integer("seed", seed))


def _seeds(seed: int) -> Iterator[int]:
    """Seeds for one model's initialisers, distinct from those of every other `seed`."""
    return itertools.count(1000 * seed)


def _uniform(fan_in: int, seed: int) -> keras.initializers.Initializer:
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound, seed=seed)


def _dense(
    inputs: int, units: int, name: str, seeds: Iterator[int], activation: str | None = None
) -> keras.layers.Layer:
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=_uniform(inputs, next(seeds)),
        bias_initializer=_uniform(inputs, next(seeds)),
        name=name,
    )


def _conv(
    channels: int, filters: int, size: int, name: str, seeds: Iterator[int]
) -> keras.layers.Layer:
    fan_in = channels * size * size
    return keras.layers.Conv2D(
        filters,
        size,
        activation="relu",
        kernel_initializer=_uniform(fan_in, next(seeds)),
        bias_initializer=_uniform(fan_in, next(seeds)),
        name=name,
    )


def _residual(x: Any, filters: int, name: str, seeds: Iterator[int]) -> Any:
    stride = 1 if x.shape[-1] == filters else 2
    y = keras.layers.ReLU(name=f"{name}_relu1")(_conv_bn(filters, stride, f"{name}_1", seeds)(x))
    y = _conv_bn(filters, 1, f"{name}_2", seeds)(y)
    if stride == 2:
        x = keras.layers.AveragePooling2D(1, stride, name=f"{name}_subsample")(x)
        x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[-1])))
    return keras.layers.ReLU(name=f"{name}_relu2")(keras.layers.Add(name=f"{name}_add")([y, x]))


def _conv_bn(filters: int, stride: int, name: str, seeds: Iterator[int]) -> Callable[[Any], Any]:
    conv = keras.layers.Conv2D(
        filters,
        3,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_he_normal(seeds),
        name=name,
    )
    norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")
    return lambda x: norm(conv(x))


def _he_normal(seeds: Iterator[int]) -> keras.initializers.Initializer:
    return keras.initializers.HeNormal(next(seeds))
