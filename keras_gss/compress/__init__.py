"""The one-call pipeline: train under a penalty, choose a threshold, finetune, slim."""

from keras_gss.compress.pipeline import compress
from keras_gss.compress.result import Result
from keras_gss.compress.search import AccuracyDrop

__all__ = ["AccuracyDrop", "Result", "compress"]
