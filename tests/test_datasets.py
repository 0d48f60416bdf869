"""Named datasets: scaling, the split by seed, and a test split that is read only when asked."""

import sys
import types

import numpy as np
import pytest

from keras_gss import datasets


@pytest.fixture
def calls(monkeypatch):
    """Replaces tfds by a recorder that serves 50 training and 20 test images."""
    recorded = []

    def load(name, split, batch_size):
        recorded.append((name, split, batch_size))
        size = {"train": 50, "test": 20}[split]
        images = np.arange(size, dtype="uint8")[:, None, None, None] * np.uint8(5)
        return {"image": np.broadcast_to(images, (size, 4, 4, 1)), "label": np.arange(size) % 10}

    tfds = types.ModuleType("tensorflow_datasets")
    tfds.load, tfds.as_numpy = load, lambda loaded: loaded
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    return recorded


def test_tfds_images_are_scaled_and_split(calls):
    data = datasets.load("fashion_mnist", validation=10, seed=4)
    assert calls == [("fashion_mnist", "train", -1)]
    (x, y), (held_x, held_y) = data.train, data.validation
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((40, 4, 4, 1), "float32", (40,), "int32")
    assert held_x.shape == (10, 4, 4, 1) and held_y.shape == (10,)
    index = np.round(np.concatenate([x, held_x])[:, 0, 0, 0] * 255 / 5).astype(int)
    assert sorted(index) == list(range(50))
    np.testing.assert_array_equal(np.concatenate([y, held_y]), index % 10)


def test_test_split_is_read_only_when_asked(calls):
    data = datasets.load("mnist")
    assert [split for _, split, _ in calls] == ["train"]
    x, y = data.test()
    assert calls[-1] == ("mnist", "test", -1)
    assert x.shape == (20, 4, 4, 1) and x.max() == np.float32(95) / np.float32(255)
    np.testing.assert_array_equal(y, np.arange(20) % 10)


def test_seed_decides_the_split(calls):
    first, again, other = (datasets.load("mnist", 20, seed=seed).train[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


def test_digits_are_all_there_once():
    data = datasets.load("digits")
    parts = [data.train, data.validation, data.test()]
    assert [len(y) for _, y in parts] == [1294, 144, 359]
    images = np.concatenate([x for x, _ in parts])
    assert images.dtype == np.float32 and images.min() == 0 and images.max() == 1
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
    assert data.classes == 10 and set(np.concatenate([y for _, y in parts])) == set(range(10))


def test_test_split_of_digits_does_not_depend_on_the_seed():
    (first, _), (other, _) = (datasets.load("digits", seed=seed).test() for seed in (0, 1))
    np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("validation", [0, -1, 1438, 2000, np.nan, "a lot", True, 1e-9])
def test_bad_parts_are_refused(validation):
    with pytest.raises(ValueError, match="`validation` must be .* Received: validation="):
        datasets.load("digits", validation=validation)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="`name` must be one of 'digits', 'mnist'"):
        datasets.load("imagenet")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="'mnist' needs tensorflow-datasets: pip install"):
        datasets.load("mnist")
