"""The penalties as Keras regularizers: on one kernel, and across layers."""

from keras_gss.regularizers.binding import attach, detach
from keras_gss.regularizers.cross_layer import (
    CrossLayerRegularizer,
    DeepGSS121,
    GSSElement,
    GSSStructure,
)
from keras_gss.regularizers.declared import RegularizerSum
from keras_gss.regularizers.kernel import GSS121, GSS212

__all__ = [
    "GSS121",
    "GSS212",
    "CrossLayerRegularizer",
    "DeepGSS121",
    "GSSElement",
    "GSSStructure",
    "RegularizerSum",
    "attach",
    "detach",
]
