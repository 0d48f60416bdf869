"""Train a Keras model under group-sparse penalties, cut what they emptied, keep a smaller model."""

from typing import TYPE_CHECKING

from keras_gss._lazy import show_lazily

# Keras finds the classes that saved models name only if they have been imported: these are.
from keras_gss.pruning.masks import KeepZeros
from keras_gss.regularizers import (
    CGES,
    GSS121,
    GSS212,
    L1,
    SHSQGL12,
    CrossLayer,
    CrossLayerRegularizer,
    DeepGSS121,
    EachKernel,
    ExclusiveLasso,
    GroupHoyerSquare,
    GroupL1Trim,
    GroupLasso,
    GSSElement,
    GSSStructure,
    Hoyer,
    HoyerSquare,
    L1Trim,
    Penalty,
    RegularizerSum,
    SparseGroupLasso,
    TransformedL1,
)
from keras_gss.schedules import ConstantFactor, WarmUpFactor

if TYPE_CHECKING:
    from keras_gss.callbacks import GroupSparsity
    from keras_gss.comparison import compare_methods
    from keras_gss.compress import AccuracyDrop, compress
    from keras_gss.convert import to_tf_keras
    from keras_gss.count import count
    from keras_gss.export import export
    from keras_gss.graph import NeuronGroup, NeuronGroups, WeightSlice, find_groups, register_rule
    from keras_gss.latency import Latencies, Latency, measure_latency
    from keras_gss.loading import load_model
    from keras_gss.procedures import (
        ADMM,
        BayesL1Trim,
        GradualPruning,
        GroupGReg,
        GroupPruner,
        Procedure,
        ProximalSteps,
        SoftPruning,
        Spred,
    )
    from keras_gss.proximal import prox_exclusive, prox_gss121_neuron, prox_selected, prox_two_level
    from keras_gss.pruning import (
        PFP,
        SNIP,
        AbsoluteThreshold,
        MacsBudget,
        MagnitudeThreshold,
        ParamsBudget,
        RandomThreshold,
        Ranking,
        StdThreshold,
        ZerosOf,
        prune,
    )
    from keras_gss.regularizers.binding import attach, detach
    from keras_gss.slimming import slim

__version__ = "0.1.0"

__all__ = [
    "ADMM",
    "CGES",
    "GSS121",
    "GSS212",
    "L1",
    "PFP",
    "SHSQGL12",
    "SNIP",
    "AbsoluteThreshold",
    "AccuracyDrop",
    "BayesL1Trim",
    "ConstantFactor",
    "CrossLayer",
    "CrossLayerRegularizer",
    "DeepGSS121",
    "EachKernel",
    "ExclusiveLasso",
    "GSSElement",
    "GSSStructure",
    "GradualPruning",
    "GroupGReg",
    "GroupHoyerSquare",
    "GroupL1Trim",
    "GroupLasso",
    "GroupPruner",
    "GroupSparsity",
    "Hoyer",
    "HoyerSquare",
    "KeepZeros",
    "L1Trim",
    "Latencies",
    "Latency",
    "MacsBudget",
    "MagnitudeThreshold",
    "NeuronGroup",
    "NeuronGroups",
    "ParamsBudget",
    "Penalty",
    "Procedure",
    "ProximalSteps",
    "RandomThreshold",
    "Ranking",
    "RegularizerSum",
    "SoftPruning",
    "SparseGroupLasso",
    "Spred",
    "StdThreshold",
    "TransformedL1",
    "WarmUpFactor",
    "WeightSlice",
    "ZerosOf",
    "attach",
    "compare_methods",
    "compress",
    "count",
    "detach",
    "export",
    "find_groups",
    "load_model",
    "measure_latency",
    "prox_exclusive",
    "prox_gss121_neuron",
    "prox_selected",
    "prox_two_level",
    "prune",
    "register_rule",
    "slim",
    "to_tf_keras",
]

show_lazily(
    __name__,
    {
        "GroupSparsity": "callbacks",
        "compare_methods": "comparison",
        "AccuracyDrop": "compress",
        "compress": "compress",
        "to_tf_keras": "convert",
        "count": "count",
        "export": "export",
        "NeuronGroup": "graph",
        "NeuronGroups": "graph",
        "WeightSlice": "graph",
        "find_groups": "graph",
        "register_rule": "graph",
        "Latencies": "latency",
        "Latency": "latency",
        "measure_latency": "latency",
        "load_model": "loading",
        "ADMM": "procedures",
        "BayesL1Trim": "procedures",
        "GradualPruning": "procedures",
        "GroupGReg": "procedures",
        "GroupPruner": "procedures",
        "Procedure": "procedures",
        "ProximalSteps": "procedures",
        "SoftPruning": "procedures",
        "Spred": "procedures",
        "prox_exclusive": "proximal",
        "prox_gss121_neuron": "proximal",
        "prox_selected": "proximal",
        "prox_two_level": "proximal",
        "AbsoluteThreshold": "pruning",
        "MacsBudget": "pruning",
        "MagnitudeThreshold": "pruning",
        "PFP": "pruning",
        "ParamsBudget": "pruning",
        "RandomThreshold": "pruning",
        "Ranking": "pruning",
        "SNIP": "pruning",
        "StdThreshold": "pruning",
        "ZerosOf": "pruning",
        "prune": "pruning",
        "attach": "regularizers.binding",
        "detach": "regularizers.binding",
        "slim": "slimming",
    },
)
