"""Train a Keras model under group-sparse penalties, cut what they emptied, keep a smaller model."""

from keras_gss.export import export

__version__ = "0.1.0"

__all__ = [
    "export",
]
