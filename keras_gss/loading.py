"""Reading a model's file, whichever library wrote it."""

import json
import os
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import keras

from keras_gss import _keras

_WRAPPER = "PruneLowMagnitude"


def load_model(path: str | os.PathLike) -> Any:
    """Loads a model with the library that wrote it, for inference and for this library's calls.

    Penalties, fixed zeros and tfmot's pruning wrappers in the file are understood.

    Args:
        path: a `.keras` or HDF5 (`.h5`, `.hdf5`) file of Keras 3 or tf_keras, or the folder of a
            SavedModel that tf_keras' `model.save` wrote.

    Returns:
        An uncompiled model of Keras 3 or tf_keras.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no Keras model; an exported SavedModel holds functions only.
        ImportError: tf_keras wrote it, and tf_keras or tfmot is not installed.

    Example:
    >>> import keras, keras_gss as gss, tempfile
    >>> path = tempfile.mkdtemp() + "/model.keras"
    >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    >>> gss.load_model(path).output_shape
    (None, 2)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file '{path}'")
    config, version = _config_of(path)
    try:
        if not version.startswith("2."):
            return keras.models.load_model(path, compile=False)
        import tf_keras

        _keras.tf_keras_if_imported()
        with _wrapper_scope(config):
            return tf_keras.models.load_model(path, compile=False)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"'{path}' does not load as a Keras model: {reason}") from error


def _config_of(path: Path) -> tuple[str, str]:
    """Returns a model's config as text, and the version of Keras that wrote it."""
    if path.is_dir():
        metadata = path / "keras_metadata.pb"
        if not metadata.exists():
            raise ValueError(
                f"'{path}' holds no Keras model. A SavedModel made by `export` holds functions "
                "only: load the .keras or .h5 file that it was made from."
            )
        return metadata.read_bytes().decode("latin-1"), "2.0"
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                metadata = json.loads(archive.read("metadata.json"))
                return archive.read("config.json").decode(), str(metadata["keras_version"])
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"'{path}' does not load as a Keras model: {error}") from error
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config, version = file.attrs["model_config"], file.attrs["keras_version"]
    except (KeyError, OSError) as error:
        raise ValueError(f"'{path}' does not load as a Keras model: {error}") from error
    return str(config), str(version)


def _wrapper_scope(config: str) -> AbstractContextManager[Any]:
    if _WRAPPER not in config:
        return nullcontext()
    from keras_gss.pruning.tfmot import wrapper_scope

    return wrapper_scope()
