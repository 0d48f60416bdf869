"""The penalties as Keras regularizers: on one kernel, and across layers."""

from keras_gss.regularizers.cross_layer import (
    CrossLayerRegularizer,
    DeepGSS121,
    GSSElement,
    GSSStructure,
)
from keras_gss.regularizers.declared import RegularizerSum
from keras_gss.regularizers.groups import (
    CGES,
    SHSQGL12,
    ExclusiveLasso,
    GroupHoyerSquare,
    GroupL1Trim,
    GroupLasso,
    SparseGroupLasso,
)
from keras_gss.regularizers.kernel import GSS121, GSS212
from keras_gss.regularizers.penalty import CrossLayer, EachKernel, Penalty
from keras_gss.regularizers.weights import L1, Hoyer, HoyerSquare, L1Trim, TransformedL1

__all__ = [
    "CGES",
    "GSS121",
    "GSS212",
    "L1",
    "SHSQGL12",
    "CrossLayer",
    "CrossLayerRegularizer",
    "DeepGSS121",
    "EachKernel",
    "ExclusiveLasso",
    "GSSElement",
    "GSSStructure",
    "GroupHoyerSquare",
    "GroupL1Trim",
    "GroupLasso",
    "Hoyer",
    "HoyerSquare",
    "L1Trim",
    "Penalty",
    "RegularizerSum",
    "SparseGroupLasso",
    "TransformedL1",
]
