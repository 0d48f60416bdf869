"""What formats other than TensorFlow's and Keras' own need."""

import importlib

import keras


def require_packages(format: str, *modules: str) -> None:
    """Checks that a format that is converted from a SavedModel can be written and read.

    Args:
        format: its name, which is that of the extra of keras-gss too.
        modules: what has to import.

    Raises:
        RuntimeError: Keras does not run on TensorFlow.
        ImportError: one of the modules does not import.

    Example:
    >>> from keras_gss.export.packages import require_packages
    >>> require_packages("onnx", "nowhere")
    Traceback (most recent call last):
    ImportError: Format 'onnx' needs nowhere...: pip install 'keras-gss[onnx]'.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Format '{format}' is converted from a graph of TensorFlow, and Keras runs on "
            f"'{keras.backend.backend()}'. Write a .keras file, and export that with "
            "KERAS_BACKEND=tensorflow."
        )
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"Format '{format}' needs {name}, which does not import ({error}): "
                f"pip install 'keras-gss[{format}]'."
            ) from error
