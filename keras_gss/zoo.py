"""Named models: the paper's two LeNets and two small ones for scikit-learn's digits.

Weights and biases begin as PyTorch's layers do, which the authors' code uses: weights by
`kaiming_uniform_(weight, a=sqrt(5))`, that is uniformly on +-1/sqrt(fan_in), biases uniformly on
the same interval. All models take images, apply ReLU after each hidden layer and return logits.
"""

import itertools
from collections.abc import Iterator

import keras

from keras_gss._checks import check_choice, check_integer


def lenet_300_100(seed: int = 0) -> keras.Model:
    """784-300-100-10 on 28x28x1 images: 266,200 weights and as many MACs.

    Example:
    >>> lenet_300_100().count_params()
    266610
    """
    seeds = _seeds(seed)
    return keras.Sequential(
        [
            keras.layers.Input((28, 28, 1), name="image"),
            keras.layers.Flatten(name="flatten"),
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


MODELS = {
    "lenet-300-100": lenet_300_100,
    "lenet-5": lenet_5,
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
