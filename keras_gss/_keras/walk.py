"""Walking a model: its inputs, its calls in order, its layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_gss._keras.library import is_layer, is_tf_keras, library_of
from keras_gss._keras.names import operation_view

_Functional = keras.src.models.functional.Functional


@dataclass(frozen=True, eq=False)
class Node:
    """One call of one layer or operation.

    Attributes:
        layer: what is called: its owner's config lists it, under this name.
        operation: the same under the names of Keras 3, which the rules read; a `keras.ops`
            operation for a TensorFlow function in a tf_keras model.
        args, kwargs: the call's arguments, symbolic tensors among them.
        inputs: the symbolic tensors among the arguments.
        outputs: the symbolic tensors returned.
    """

    layer: Any
    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Any]
    outputs: list[Any]


@dataclass(frozen=True, eq=False)
class Source:
    """One input of a model.

    Attributes:
        layer: its `InputLayer`.
        tensor: its symbolic tensor.
        shape: the tensor's shape, batch axis included.
        dtype: the tensor's dtype.
        shape_key: the entry of the layer's config that holds the shape.
    """

    layer: Any
    tensor: Any
    shape: tuple[int | None, ...]
    dtype: str
    shape_key: str


def is_graph(operation: Any) -> bool:
    """Tells whether an operation is a model whose computation is its graph and nothing else."""
    if is_tf_keras(operation):
        library = library_of(operation)
        graphs = (library.Sequential, library.src.engine.functional.Functional)
        return (
            isinstance(operation, library.Model)
            and operation._is_graph_network
            and any(type(operation).call is kind.call for kind in graphs)
        )
    if isinstance(operation, keras.Sequential):
        return operation._functional is not None and type(operation).call is keras.Sequential.call
    return isinstance(operation, _Functional) and type(operation).call is _Functional.call


def graph_of(model: Any) -> Any:
    """Returns the functional graph of a model for which `is_graph` holds."""
    return model._functional if isinstance(model, keras.Sequential) else model


def sources(model: Any) -> list[Source]:
    """Returns the inputs of a graph model, in order."""
    found = []
    for tensor in graph_of(model).inputs:
        shape = tuple(tensor.shape)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        key = "batch_input_shape" if is_tf_keras(model) else "batch_shape"
        found.append(Source(maker(tensor), tensor, shape, dtype, key))
    return found


def outputs(model: Any) -> list[Any]:
    """Returns the symbolic output tensors of a graph model, in order."""
    return list(graph_of(model).outputs)


def nodes(model: Any) -> Iterator[Node]:
    """Yields the calls of a graph model, each after those it depends on."""
    by_depth = graph_of(model)._nodes_by_depth
    make = _tf_keras_node if is_tf_keras(model) else _keras_node
    for depth in sorted(by_depth, reverse=True):
        yield from (make(node) for node in by_depth[depth] if not node.is_input)


def _keras_node(node: Any) -> Node:
    return Node(
        node.operation,
        node.operation,
        node.arguments.args,
        node.arguments.kwargs,
        list(node.input_tensors),
        list(node.outputs),
    )


def _tf_keras_node(node: Any) -> Node:
    layer = unwrapped(node.layer)
    operation, args, kwargs = operation_view(layer, node.call_args, node.call_kwargs)
    tensors = keras.tree.flatten(node.keras_inputs)
    return Node(layer, operation, args, kwargs, tensors, keras.tree.flatten(node.outputs))


def input_structure(model: Any) -> Any:
    """Returns a model's symbolic inputs in the structure (tensor, list, dict) its call expects."""
    if is_tf_keras(model):
        return model._nested_inputs
    return graph_of(model)._inputs_struct


def output_structure(model: Any) -> Any:
    """Returns a model's symbolic outputs in the structure (tensor, list, dict) its call returns."""
    if is_tf_keras(model):
        return model._nested_outputs
    return graph_of(model)._outputs_struct


def operations(model: Any) -> list[Any]:
    """Returns the layers and operations of a graph model, its input layers included."""
    if is_tf_keras(model):
        return [each for each in model._self_tracked_trackables if is_layer(each)]
    return list(graph_of(model).operations)


def leaf_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `(path, layer)` for every layer of a model and of its nested graph models, once each.

    The path of a layer in a nested model is `"nested_name/layer_name"`. Of a layer in one of
    tfmot's pruning wrappers it is the layer that is yielded.
    """
    for operation in operations(model):
        operation = unwrapped(operation)
        if is_graph(operation):
            yield from leaf_layers(operation, f"{prefix}{operation.name}/")
        elif is_layer(operation):
            yield prefix + operation.name, operation


def unwrapped(layer: Any) -> Any:
    """Returns the layer inside one of tfmot's pruning wrappers, or the layer itself."""
    kind = type(layer)
    wrapper = kind.__name__ == "PruneLowMagnitude" and kind.__module__.startswith("tensorflow_mod")
    return layer.layer if wrapper else layer


def every_layer(model: Any) -> list[Any]:
    """Returns all layers of any model, once each: nested ones, and the cells inside layers."""
    return list(model._flatten_layers(include_self=False))


def replaces_weights(layer: Any) -> bool:
    """Tells whether a layer, or one inside it, computes with quantized or LoRA weights."""
    return isinstance(layer, keras.Layer) and any(
        getattr(each, "lora_enabled", False) or getattr(each, "quantization_mode", None)
        for each in layer._flatten_layers()
    )


def owned_variables(layer: Any) -> dict[str, Any]:
    """Returns a layer's own variables by attribute name (`"kernel"`, `"bias"`, ...)."""
    own = {id(variable) for variable in layer.weights}
    found: dict[int, str] = {}
    for name, value in sorted(vars(layer).items()):
        if id(value) in own:
            found.setdefault(id(value), name.lstrip("_"))
    return {found.get(id(v), v.name): v for v in layer.weights}


def maker(tensor: Any) -> Any:
    """Returns the layer or operation that made a symbolic tensor."""
    history = tensor._keras_history
    return history.operation if hasattr(history, "operation") else history.layer
