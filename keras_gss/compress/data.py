"""Training data: checks before any work, and batches whose order follows from seed and epoch."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_gss._keras import sources

Data = tuple[Any, np.ndarray]
Augment = Callable[[Any, np.random.Generator], Any]
Order = Callable[[int], np.ndarray]
Change = Callable[[Any, int, int], Any]


def check_data(name: str, data: Any, model: keras.Model) -> Data:
    """Returns a pair (inputs, labels) of arrays that fit the model.

    Args:
        name: the argument's name, for the message.
        data: inputs, an array or a list or dict of arrays as the model takes them, and labels:
            class numbers, shape (samples,) or (samples, 1), or an array of the output's shape.
        model: a classifier with one output, whose last axis are the classes.

    Raises:
        ValueError: no pair, no samples, different lengths, shapes that the model does not take,
            NaN or infinite values, class numbers that the model does not know.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> check_data("train", (np.ones((2, 4)), np.array([0, 3])), model)
    Traceback (most recent call last):
    ValueError: `train` must hold labels from 0 to 2. Received: labels from 0 to 3
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise _wrong(name, "be a pair (inputs, labels)", type(data).__name__)
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    if len(shapes) != 1 or shapes[0][-1] in (None, 1):
        raise ValueError(
            f"`model` must be a classifier: one output, its last axis the classes, two or more. "
            f"Received: outputs of shape {_text(shapes)}"
        )
    inputs, labels = tree.map_structure(np.asarray, data[0]), np.asarray(data[1])
    if isinstance(inputs, list):
        inputs = tuple(inputs)  # `tf.data` stacks a list
    arrays = tree.flatten(inputs)
    expected = [source.shape for source in sources(model)]
    shapes = [array.shape for array in arrays]
    if len(shapes) != len(expected) or not all(map(_fits, shapes, expected)):
        raise _wrong(name, f"hold inputs of shape {_text(expected)}", f"shape {_text(shapes)}")
    sizes = {len(array) for array in [*arrays, labels]} if labels.ndim else {0, 1}
    if len(sizes) > 1:
        lengths = f"{len(arrays[0])} inputs and labels of shape {labels.shape}"
        raise _wrong(name, "hold as many labels as inputs", lengths)
    if sizes == {0}:
        raise _wrong(name, "hold at least one sample", "none")
    for array in [*arrays, labels]:
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise _wrong(name, "hold finite numbers only", f"dtype {array.dtype}, NaN or infinite")
    return inputs, _check_labels(name, labels, model)


def _check_labels(name: str, labels: np.ndarray, model: keras.Model) -> np.ndarray:
    output = tuple(model.outputs[0].shape)
    if _fits(labels.shape, output):
        return labels
    if labels.ndim == len(output) and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if not _fits(labels.shape, output[:-1]):
        wanted = f"hold class numbers of shape {output[:-1]} or labels of shape {output}"
        raise _wrong(name, wanted, f"labels of shape {labels.shape}")
    low, high = labels.min(), labels.max()
    if low < 0 or high >= output[-1]:
        wanted = f"hold labels from 0 to {output[-1] - 1}"
        raise _wrong(name, wanted, f"labels from {low} to {high}")
    if (labels != np.round(labels)).any():
        raise _wrong(name, "hold whole numbers as labels", "fractions")
    return labels.astype(np.int32)


def size_of(data: Data) -> int:
    """Returns the number of samples."""
    return len(data[1])


def epoch_order(samples: int, seed: tuple[int, ...], epoch: int) -> np.ndarray:
    """Returns the order of an epoch's samples, which depends on nothing but seed and epoch.

    Example:
    >>> epoch_order(4, seed=(0, 1), epoch=2)
    array([1, 0, 3, 2])
    """
    return np.random.default_rng([*seed, epoch]).permutation(samples)


def check_augment(augment: Any, data: Data) -> Augment | None:
    """Returns a function that changes the inputs of a batch, tried on two samples.

    Raises:
        TypeError: no function.
        ValueError: it gives other shapes than it takes, or NaN or infinite values.

    Example:
    >>> check_augment(lambda inputs, random: inputs[:, ::-1, :4], (np.ones((2, 8, 8)), None))
    Traceback (most recent call last):
    ValueError: `augment` must return inputs of shape (2, 8, 8). Received: shape (2, 8, 4)
    """
    if augment is None:
        return None
    if not callable(augment):
        raise TypeError(
            "`augment` must be a function of inputs and a numpy.random.Generator, or None. "
            f"Received: augment={augment!r}"
        )
    few = tree.map_structure(lambda array: array[:2].copy(), data[0])  # it may write into them
    made = tree.flatten(tree.map_structure(np.asarray, augment(few, np.random.default_rng(0))))
    expected = [array.shape for array in tree.flatten(few)]
    if [array.shape for array in made] != expected:
        received = _text([array.shape for array in made])
        raise _wrong("augment", f"return inputs of shape {_text(expected)}", f"shape {received}")
    if not all(array.dtype.kind in "biuf" and np.isfinite(array).all() for array in made):
        raise _wrong("augment", "return finite numbers only", "NaN or infinite")
    return augment


def batches(
    data: Data,
    batch_size: int,
    seed: tuple[int, ...],
    first_epoch: int,
    epochs: int,
    augment: Augment | None = None,
) -> Any:
    """Returns what `model.fit` reads the epochs `first_epoch .. epochs - 1` from, one on another.

    Every epoch has `samples // batch_size` full batches; the samples left over differ from epoch
    to epoch. On the TensorFlow backend it is a `tf.data.Dataset`, which is twice as fast as the
    generator of the same batches that the other backends get. What `augment` draws follows from
    seed, epoch and step.
    """

    def order(epoch: int) -> np.ndarray:
        index = epoch_order(size_of(data), seed, epoch)
        return index[: len(index) // batch_size * batch_size].reshape(-1, batch_size)

    def change(inputs: Any, epoch: int, step: int) -> Any:
        random = np.random.default_rng([*seed, epoch, step + 1])
        pairs = zip(tree.flatten(augment(inputs, random)), tree.flatten(inputs), strict=True)
        made = [np.asarray(new, old.dtype) for new, old in pairs]
        return tree.pack_sequence_as(inputs, made)

    made = _tf_batches if keras.backend.backend() == "tensorflow" else _generate
    return made(data, order, range(first_epoch, epochs), None if augment is None else change)


def _generate(data: Data, order: Order, epochs: range, change: Change | None) -> Iterator[Data]:
    for epoch in epochs:
        for step, index in enumerate(order(epoch)):
            inputs, labels = tree.map_structure(functools.partial(_rows, index), data)
            yield inputs if change is None else change(inputs, epoch, step), labels


def _rows(index: np.ndarray, array: np.ndarray) -> np.ndarray:
    return np.take(array, index, axis=0)  # a fiftieth of LeNet-300-100's step faster than `[index]`


def _tf_batches(data: Data, order: Order, epochs: range, change: Change | None) -> Any:
    import tensorflow as tf

    in_memory = tree.map_structure(tf.constant, data)
    steps, batch_size = order(epochs.start).shape

    def one_epoch(epoch: Any) -> Any:
        indices = tf.numpy_function(order, [epoch], tf.int64)
        indices = tf.data.Dataset.from_tensor_slices(tf.ensure_shape(indices, [steps, batch_size]))
        return indices.enumerate().map(lambda step, index: (epoch, step, index))

    def gather(epoch: Any, step: Any, index: Any) -> Any:
        inputs, labels = tree.map_structure(lambda array: tf.gather(array, index), in_memory)
        return inputs if change is None else changed(inputs, epoch, step), labels

    def changed(inputs: Any, epoch: Any, step: Any) -> Any:
        def flat(epoch: Any, step: Any, *arrays: Any) -> Any:
            return tree.flatten(change(tree.pack_sequence_as(inputs, arrays), epoch, step))

        given = tree.flatten(inputs)
        made = tf.numpy_function(flat, [epoch, step, *given], [array.dtype for array in given])
        made = [tf.ensure_shape(new, old.shape) for new, old in zip(made, given, strict=True)]
        return tree.pack_sequence_as(inputs, made)

    dataset = tf.data.Dataset.range(epochs.start, epochs.stop)
    return dataset.flat_map(one_epoch).map(gather).prefetch(2)


def _fits(shape: tuple, expected: tuple) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, given) for given, wanted in zip(shape[1:], expected[1:], strict=True)
    )


def _text(shapes: list[tuple]) -> str:
    return " and ".join(map(str, shapes)) or "nothing"


def _wrong(name: str, wanted: str, received: str) -> ValueError:
    return ValueError(f"`{name}` must {wanted}. Received: {received}")
