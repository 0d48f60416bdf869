"""The one-call pipeline: train under a penalty, choose a threshold, finetune, slim."""

from keras_gss.compress.pipeline import Result, compress
from keras_gss.compress.search import AccuracyDrop

__all__ = ["AccuracyDrop", "Result", "compress"]
