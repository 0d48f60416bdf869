"""Running a model: sparing memory, for gradients of a loss, for what its layers are given."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import operation_fn

from keras_gss._keras.library import is_tf_keras, to_numpy
from keras_gss._keras.rebuild import rebuild
from keras_gss._keras.walk import graph_of, leaf_layers

_LARGE = 2**25  # bytes of a tensor


def predict_lean(model: Any, x: Any) -> Any:
    """Calls a model at inference, and lets go of each tensor after its last reader.

    A call of the model would hold all tensors to the end: in a convolutional network, many times
    its weights. On JAX it would also compile every operation for itself, which takes four times as
    long as compiling the model and more.

    Args:
        model: a built Sequential or functional model.
        x: inputs, in the structure of the model's.

    Returns:
        What the call would return.
    """
    if is_tf_keras(model):
        return model(x, training=False)
    if keras.backend.backend() == "jax":
        try:
            return _compiled(model, x)
        except Exception:  # a layer of its own kind may need values; below it says what is wrong
            pass
    graph = graph_of(model)
    by_depth = graph._nodes_by_depth
    calls = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    calls = [node for node in calls if not node.is_input]
    readers = Counter(id(tensor) for tensor in graph.outputs)
    readers.update(id(tensor) for node in calls for tensor in node.input_tensors)
    inputs = graph._standardize_inputs(x)
    held = {id(tensor): value for tensor, value in zip(graph.inputs, inputs, strict=True)}
    del inputs
    for node in calls:
        args, kwargs = node.arguments.fill_in(held)
        found = _called(node, args, kwargs)
        del args, kwargs
        values = keras.tree.flatten(found)
        held.update((id(y), value) for y, value in zip(node.outputs, values, strict=True))
        del found, values
        readers.subtract(id(tensor) for tensor in node.input_tensors)
        for tensor in (*node.input_tensors, *node.outputs):
            if not readers[id(tensor)]:
                held.pop(id(tensor), None)
    outputs = [held[id(tensor)] for tensor in graph.outputs]
    packed = keras.tree.pack_sequence_as(graph._outputs_struct, outputs)
    return packed[0] if isinstance(packed, list | tuple) and len(packed) == 1 else packed


def _called(node: Any, args: Any, kwargs: Any) -> Any:
    """Calls a node's operation; as a graph what is given a large tensor on TensorFlow.

    A graph computes in place on the way: a batch normalisation or a swish then takes its output
    beside its input, and not a third tensor of the size.
    """
    call = operation_fn(node.operation, training=False)
    given = keras.tree.flatten(args)
    if keras.backend.backend() == "tensorflow" and any(_is_large(each) for each in given):
        import tensorflow as tf

        try:
            return tf.function(call, autograph=False)(*args, **kwargs)
        except Exception:  # a layer of its own kind may need values; below it says what is wrong
            pass
    return call(*args, **kwargs)


def _is_large(value: Any) -> bool:
    return keras.ops.is_tensor(value) and 4 * math.prod(value.shape) >= _LARGE


def _compiled(model: Any, x: Any) -> Any:
    import jax

    others = model.non_trainable_variables

    @jax.jit
    def call(weights: list[Any], before: list[Any], x: Any) -> Any:
        found, after = model.stateless_call(weights, before, x, training=False)
        pairs = enumerate(zip(before, after, strict=True))
        return found, {k: new for k, (old, new) in pairs if new is not old}

    given = [[v.value for v in each] for each in (model.trainable_variables, others)]
    outputs, changed = call(*given, x)
    for k, value in changed.items():
        others[k].assign(value)
    return outputs


def gradients(
    model: Any, loss: Callable[[Any, Any], Any], x: Any, y: np.ndarray
) -> dict[int, np.ndarray]:
    """Computes the gradient of a loss on one batch, in training mode; the model is not changed.

    Args:
        model: a built Sequential or functional model.
        loss: function of labels and outputs, a scalar.
        x: inputs, in the structure of the model's.
        y: labels.

    Returns:
        `{id(variable): array}` for every weight that training could move, frozen ones too.

    Raises:
        ValueError: the backend is neither TensorFlow nor JAX.
    """
    copy = rebuild(model, _trainable)
    known = {id(variable) for variable in copy.weights}
    for noise in (v for v in copy.variables if id(v) not in known):
        noise.assign(np.zeros(noise.shape, "uint32"))  # dropout draws the same each time
    found = _gradients(copy, loss, x, y)
    pairs = zip(model.weights, copy.weights, strict=True)
    return {id(old): found[id(new)] for old, new in pairs if id(new) in found}


def _trainable(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "trainable": True} if "trainable" in config else config


def _gradients(model: Any, loss: Callable, x: Any, y: np.ndarray) -> dict[int, np.ndarray]:
    variables = model.trainable_variables
    backend = keras.backend.backend()
    if backend == "tensorflow" or is_tf_keras(model):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        found = tape.gradient(value, variables, unconnected_gradients="zero")
        found = [tf.convert_to_tensor(each) for each in found]
    elif backend == "jax":
        import jax

        others = [v.value for v in model.non_trainable_variables]

        def of(values: list[Any]) -> Any:
            outputs, _ = model.stateless_call(values, others, x, training=True)
            return loss(y, outputs)

        found = jax.grad(of)([v.value for v in variables])
    else:
        raise ValueError(f"Gradients need TensorFlow or JAX. Received: backend={backend!r}")
    return {id(v): np.asarray(to_numpy(g)) for v, g in zip(variables, found, strict=True)}


def layer_inputs(model: Any, x: Any) -> dict[int, list[np.ndarray]]:
    """Records what a model's layers are called with on a batch, in inference mode.

    Args:
        model: a built Sequential or functional model; it is not changed.
        x: inputs, in the structure of the model's.

    Returns:
        `{id(layer): first arguments, one array per call}` for the layers that hold no others and
        are called with a tensor.
    """
    copy = rebuild(model)
    seen: dict[int, list[np.ndarray]] = {}
    pairs = zip(leaf_layers(model), leaf_layers(copy), strict=True)
    for (_, original), (_, layer) in pairs:
        layer.call = _recording(layer.call, seen.setdefault(id(original), []))
    copy(x, training=False)
    return seen


def _recording(call: Callable, seen: list[np.ndarray]) -> Callable:
    def recorded(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if keras.ops.is_tensor(inputs):
            seen.append(np.asarray(to_numpy(inputs)))
        return call(inputs, *args, **kwargs)

    return recorded
