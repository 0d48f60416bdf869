"""Tables: every column of an embedding is a neuron, and no index is one."""

import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule
from keras_gss.graph.rules.linear import neurons


@register_rule(layers.Embedding)
def embedding(call: Call) -> Signal:
    """`embeddings` (indices, width): a column that holds one number everywhere is constant."""
    layer = call.operation
    call.trace.units.fix(call.x.labels, f"is looked up by '{layer.name}' as an index")
    own = call.units(layer.output_dim)
    call.declare("embeddings", 1, own, "incoming")
    call.resize("output_dim", neurons(own), lambda sizes: sizes[0])
    emitted = np.full(len(own), np.nan)
    if call.numeric:
        table = call.read("embeddings")
        emitted = np.where((table == table[0]).all(0), table[0], np.nan)
    return call.signal(call.spread(own, -1), call.spread(emitted, -1))
