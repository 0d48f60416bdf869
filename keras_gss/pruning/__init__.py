"""From a trained model to one whose small weights are zero and stay zero in training."""

from typing import TYPE_CHECKING

from keras_gss._lazy import show_lazily
from keras_gss.pruning.masks import FixedZeros, KeepZeros

if TYPE_CHECKING:
    from keras_gss.pruning.budgets import MacsBudget, ParamsBudget
    from keras_gss.pruning.pfp import PFP
    from keras_gss.pruning.prune import prune
    from keras_gss.pruning.rankings import MagnitudeThreshold, RandomThreshold, Ranking
    from keras_gss.pruning.snip import SNIP
    from keras_gss.pruning.thresholds import AbsoluteThreshold, StdThreshold, Threshold
    from keras_gss.pruning.zeros_of import ZerosOf

__all__ = [
    "PFP",
    "SNIP",
    "AbsoluteThreshold",
    "FixedZeros",
    "KeepZeros",
    "MacsBudget",
    "MagnitudeThreshold",
    "ParamsBudget",
    "RandomThreshold",
    "Ranking",
    "StdThreshold",
    "Threshold",
    "ZerosOf",
    "prune",
]

show_lazily(
    __name__,
    {
        "MacsBudget": "budgets",
        "ParamsBudget": "budgets",
        "PFP": "pfp",
        "prune": "prune",
        "MagnitudeThreshold": "rankings",
        "RandomThreshold": "rankings",
        "Ranking": "rankings",
        "SNIP": "snip",
        "AbsoluteThreshold": "thresholds",
        "StdThreshold": "thresholds",
        "Threshold": "thresholds",
        "ZerosOf": "zeros_of",
    },
)
