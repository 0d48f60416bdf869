"""From a trained model to one whose small weights are zero and stay zero in training."""

from keras_gss.pruning.budgets import MacsBudget, ParamsBudget
from keras_gss.pruning.masks import FixedZeros, KeepZeros
from keras_gss.pruning.prune import prune
from keras_gss.pruning.thresholds import AbsoluteThreshold, StdThreshold, Threshold

__all__ = [
    "AbsoluteThreshold",
    "FixedZeros",
    "KeepZeros",
    "MacsBudget",
    "ParamsBudget",
    "StdThreshold",
    "Threshold",
    "prune",
]
