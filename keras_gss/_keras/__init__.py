"""The one place that tells Keras 3 from tf_keras, and that knows how they store a model.

Everything else is handed an object of either and asks here. tf_keras is never imported for its own
sake: whoever holds one of its objects has imported it.
"""

from keras_gss._keras.callback import Callback
from keras_gss._keras.checks import check_model
from keras_gss._keras.library import (
    dtype_of,
    is_layer,
    is_layer_class,
    is_model,
    is_tf_keras,
    library_of,
    path_of,
    tf_keras_if_imported,
    to_numpy,
)
from keras_gss._keras.names import (
    activation_name,
    argument_names,
    kinds,
    layer_view,
    tensorflow_function,
)
from keras_gss._keras.rebuild import copy_values, own_objects, put, rebuild, why_not_rebuilt
from keras_gss._keras.regularizers import (
    SILENCED_BY,
    class_of,
    is_own_config,
    is_silenced,
    regularizers_of,
)
from keras_gss._keras.run import gradients, layer_inputs
from keras_gss._keras.state import (
    add_loss,
    forget_functions,
    has_noise,
    in_symbolic_scope,
    in_training,
    remove_loss,
    track_noise,
    track_state,
    untrack_noise,
    untrack_state,
)
from keras_gss._keras.walk import (
    Node,
    Source,
    every_layer,
    graph_of,
    input_structure,
    is_graph,
    leaf_layers,
    nodes,
    operations,
    output_structure,
    outputs,
    owned_variables,
    replaces_weights,
    sources,
    unwrapped,
)
from keras_gss._keras.wrappers import without_wrappers

__all__ = [
    "SILENCED_BY",
    "Callback",
    "Node",
    "Source",
    "activation_name",
    "add_loss",
    "argument_names",
    "check_model",
    "class_of",
    "copy_values",
    "dtype_of",
    "every_layer",
    "forget_functions",
    "gradients",
    "graph_of",
    "has_noise",
    "in_symbolic_scope",
    "in_training",
    "input_structure",
    "is_graph",
    "is_layer",
    "is_layer_class",
    "is_model",
    "is_own_config",
    "is_silenced",
    "is_tf_keras",
    "kinds",
    "layer_inputs",
    "layer_view",
    "leaf_layers",
    "library_of",
    "nodes",
    "operations",
    "output_structure",
    "outputs",
    "own_objects",
    "owned_variables",
    "path_of",
    "put",
    "rebuild",
    "regularizers_of",
    "remove_loss",
    "replaces_weights",
    "sources",
    "tensorflow_function",
    "tf_keras_if_imported",
    "to_numpy",
    "track_noise",
    "track_state",
    "untrack_noise",
    "untrack_state",
    "unwrapped",
    "why_not_rebuilt",
    "without_wrappers",
]
