"""CIFAR-10 as uint8 arrays: from tensorflow-datasets, or from one small file made from it."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)


def load(path=None):
    """Returns `{"train": (images, labels), "test": (images, labels)}`, uint8 and int32.

    Args:
        path: a file that `pack` wrote, decoded by Pillow. None asks `tfds.load`.
    """
    if path is None:
        import tensorflow_datasets as tfds

        loaded = {name: tfds.load("cifar10", split=name, batch_size=-1) for name in SPLITS}
        arrays = {name: tfds.as_numpy(split) for name, split in loaded.items()}
        return {name: (a["image"], a["label"].astype(np.int32)) for name, a in arrays.items()}
    with np.load(path) as packed:
        return {name: _unpacked(packed, name) for name in SPLITS}


def pack(path):
    """Writes the encoded images of tensorflow-datasets and their labels, about 57 MB, to a file."""
    import tensorflow_datasets as tfds

    content = {}
    for name in SPLITS:
        encoded = {"image": tfds.decode.SkipDecoding()}
        samples = list(tfds.as_numpy(tfds.load("cifar10", split=name, decoders=encoded)))
        content[f"{name}/bytes"] = np.frombuffer(b"".join(s["image"] for s in samples), np.uint8)
        content[f"{name}/ends"] = np.cumsum([len(s["image"]) for s in samples])
        content[f"{name}/labels"] = np.array([s["label"] for s in samples], np.uint8)
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **content)


def synthetic(seed=0):
    """Returns images of ten colours under noise, for runs that only prove the code."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (10, 1, 1, 3))

    def split(samples):
        labels = np.arange(samples, dtype=np.int32) % 10
        noise = random.normal(0, 40, (samples, 32, 32, 3))
        return np.clip(colours[labels] + noise, 0, 255).astype(np.uint8), labels

    return {"train": split(160), "test": split(40)}


SPLITS = ("train", "test")


def _unpacked(packed, name):
    from PIL import Image

    content, ends = packed[f"{name}/bytes"].tobytes(), packed[f"{name}/ends"]
    parts = zip([0, *ends[:-1]], ends, strict=True)

    def decoded(part):
        return np.asarray(Image.open(io.BytesIO(content[slice(*part)])).convert("RGB"))

    with ThreadPoolExecutor() as threads:
        images = np.stack(list(threads.map(decoded, parts)))
    return images, packed[f"{name}/labels"].astype(np.int32)
