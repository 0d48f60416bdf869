"""From a model's graph to neuron groups: ties, slices, and what may be cut exactly."""

from keras_gss.graph import rules as _rules
from keras_gss.graph.call import Call
from keras_gss.graph.groups import NeuronGroup, NeuronGroups, WeightSlice, find_groups
from keras_gss.graph.liveness import Liveness, liveness
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule
from keras_gss.graph.trace import Trace, trace

__all__ = [
    "Call",
    "Liveness",
    "NeuronGroup",
    "NeuronGroups",
    "Signal",
    "Trace",
    "WeightSlice",
    "find_groups",
    "liveness",
    "register_rule",
    "trace",
]
del _rules
