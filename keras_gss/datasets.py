"""Named image datasets as NumPy arrays, scaled to [0, 1], with the test split out of reach.

A dataset comes as a training and a validation part, both taken from its training split. The test
split is read by `Dataset.test()` and nowhere else, so that no choice can depend on it by accident.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from keras_gss._checks import check_choice, check_integer, is_real, reject

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels.

    Attributes:
        name: what `load` was asked for.
        classes: number of classes.
        train: images, float32 in [0, 1], shape (samples, height, width, channels), and labels,
            int32, shape (samples,).
        validation: the same, for the part held out from the training split.
    """

    name: str
    classes: int
    train: Arrays
    validation: Arrays
    _read_test: Callable[[], Arrays] = field(repr=False)

    def test(self) -> Arrays:
        """Reads the test split: images and labels as in `train`."""
        return self._read_test()


def load(name: str, validation: float = 0.1, seed: int = 0) -> Dataset:
    """Loads a named dataset and holds a part of its training split out for validation.

    `mnist`, `fashion_mnist` and `cifar10` are read by `tfds.load`, which looks in the folder
    that the environment variable `TFDS_DATA_DIR` names (default `~/tensorflow_datasets`) and
    downloads what it does not find. `digits` are scikit-learn's 1,797 scans, inside that package;
    a fixed random fifth of them is the test split.

    Args:
        name: 'digits', 'mnist', 'fashion_mnist' or 'cifar10'.
        validation: how much to hold out: a number of images (1 or more) or a fraction (below 1).
        seed: integer >= 0 that decides which images are held out.

    Raises:
        ValueError: an unknown name, or a part that leaves no image for training.
        ImportError: the package that holds the dataset is not installed.

    Example:
    >>> data = load("digits", validation=200)
    >>> data.train[0].shape, data.validation[0].shape
    ((1238, 8, 8, 1), (200, 8, 8, 1))
    """
    reader = READERS[check_choice("name", name, tuple(READERS))]
    train, held_out = hold_out(reader(name, "train"), validation, seed)
    return Dataset(
        name=name,
        classes=10,
        train=train,
        validation=held_out,
        _read_test=lambda: reader(name, "test"),
    )


def hold_out(data: Arrays, validation: float, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Splits inputs and labels into a training and a validation part, at random.

    Args:
        data: inputs and labels, arrays of one length.
        validation: how much to hold out: a number of samples (1 or more) or a fraction (below 1).
        seed: integer >= 0 that decides which.

    Returns:
        `(train, validation)`.

    Raises:
        ValueError: inputs and labels of different lengths; a part that leaves no sample for
            training or none for validation.

    Example:
    >>> train, validation = hold_out((np.arange(10), np.arange(10)), 0.2)
    >>> len(train[1]), len(validation[1])
    (8, 2)
    """
    inputs, labels = data
    if not is_real(validation) or validation <= 0:
        raise reject("validation", "a number of samples or a fraction of them", validation)
    shapes = np.shape(inputs), np.shape(labels)
    if not all(shapes) or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            "`data` must be as many labels as inputs. Received: inputs and labels of shapes "
            f"{shapes[0]} and {shapes[1]}"
        )
    samples = len(labels)
    part = round(validation * samples) if validation < 1 else int(validation)
    if not 0 < part < samples:
        raise reject("validation", f"from 1 to {samples - 1} of {samples} samples", validation)
    order = np.random.default_rng(check_integer("seed", seed)).permutation(samples)
    return (inputs[order[part:]], labels[order[part:]]), (
        inputs[order[:part]],
        labels[order[:part]],
    )


def _tfds(name: str, split: str) -> Arrays:
    tfds = _require("tensorflow_datasets", "tensorflow-datasets", name)
    loaded = tfds.as_numpy(tfds.load(name, split=split, batch_size=-1))
    return _scaled(loaded["image"], 255), loaded["label"].astype(np.int32)


def _scaled(images: np.ndarray, largest: int) -> np.ndarray:
    return images.astype(np.float32) / np.float32(largest)


def _digits(name: str, split: str) -> Arrays:
    digits = _require("sklearn.datasets", "scikit-learn", name).load_digits()
    images, labels = _scaled(digits.images[..., None], 16), digits.target.astype(np.int32)
    # not `seed`: which images make up the test split must not vary
    order = np.random.default_rng(0).permutation(len(images))
    test = len(images) // 5
    part = order[:test] if split == "test" else order[test:]
    return images[part], labels[part]


READERS: dict[str, Callable[[str, str], Arrays]] = {
    "digits": _digits,
    "mnist": _tfds,
    "fashion_mnist": _tfds,
    "cifar10": _tfds,
}


def _require(module: str, package: str, dataset: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the dataset {dataset!r} needs {package}: pip install {package}"
        ) from error
