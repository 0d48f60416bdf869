"""Layers that Keras defines for its own `keras.applications` and for nothing else."""

import numpy as np
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule
from keras_gss.graph.rules.elementwise import identity
from keras_gss.graph.rules.merges import merge

register_rule(StochasticDepth)(identity)


@register_rule(LayerScale)
def layer_scale(call: Call) -> Signal:
    """ConvNeXt: every channel of the last axis times its own `gamma`."""
    labels, value = call.along(call.x, -1)
    call.declare("gamma", 0, labels)
    own = Signal(labels.shape, labels, value)
    call.resize("projection_dim", own, lambda sizes: sizes[0])
    if call.numeric:
        gamma = call.read("gamma").astype(np.float64)
        value = np.where(gamma == 0, 0.0, value * gamma)
    return call.signal(labels, value)


@register_rule(CustomScaleLayer)
def scaled_residual(call: Call) -> Signal | list[Signal]:
    """InceptionResNetV2: the shortcut plus `scale` times the branch."""
    scale = call.operation.scale
    return merge(call, lambda values: values[0] + values[1] * scale)
