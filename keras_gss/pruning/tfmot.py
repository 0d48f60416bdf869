"""tf_keras models in the pruning wrappers of tensorflow-model-optimization; its only importer.

tfmot masks a wrapped weight at every call of its layer, so between an optimizer step and the next
call the weight is not sparse. Here the layer inside the wrapper has the `FixedZeros` constraint as
well, which tf_keras applies within the step: the zeros hold at any moment, and the wrapper makes
the model one that tfmot's callbacks and scopes know.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry
from tensorflow_model_optimization.sparsity import keras as tfmot

from keras_gss._keras import copy_values, is_graph, leaf_layers, operations, unwrapped
from keras_gss.pruning.masks import FixedZeros


@tf_keras.saving.register_keras_serializable(package="keras_gss")
class FixedMasks(tfmot.PruningSchedule):
    """A tfmot schedule that never updates a mask: the masks are those that `prune` has set.

    Example:
    >>> update, _ = FixedMasks()(step=100)
    >>> bool(update)
    False
    """

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Returns `(False, 0.0)`: no update at any step, and no sparsity aimed at."""
        return tf.constant(False), tf.constant(0.0)

    def get_config(self) -> dict[str, Any]:
        """Returns what `PruneLowMagnitude` finds the schedule again by."""
        return {"class_name": "keras_gss>FixedMasks", "config": {}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FixedMasks":
        """Builds the schedule."""
        return cls()


def wrapper_scope() -> AbstractContextManager[Any]:
    """Returns the scope in which tf_keras loads models with pruning wrappers."""
    return tfmot.prune_scope()


def wrap(model: Any) -> Any:
    """Returns a copy of a model whose layers with fixed zeros are in `PruneLowMagnitude`.

    The wrappers' masks are those of the constraints, and stay. Layers with fixed zeros that tfmot
    cannot wrap, or in which it prunes nothing, are named in a warning; their zeros are as fixed.

    Args:
        model: a tf_keras model with `FixedZeros` constraints; it is not changed.
    """
    left = []

    def copy(layer: Any) -> Any:
        fresh = _fresh(layer)
        if not any(isinstance(v.constraint, FixedZeros) for v in layer.weights):
            return fresh
        if not any(isinstance(v.constraint, FixedZeros) for v in _prunable(layer)):
            left.append(f"'{layer.name}' ({type(layer).__name__})")
            return fresh
        # The wrapper calls its layer's `call`, so it has to cast as the layer would.
        policy = fresh.dtype_policy
        return tfmot.prune_low_magnitude(fresh, pruning_schedule=FixedMasks(), dtype=policy)

    wrapped = _copied(model, copy)
    for wrapper in _wrappers(wrapped):
        # Below 0 a wrapper refuses to train until the callback UpdatePruningStep has run.
        wrapper.pruning_step.assign(0)
        for weight, mask, _ in wrapper.pruning_vars:
            if isinstance(weight.constraint, FixedZeros):
                mask.assign(tf.cast(weight.constraint.mask, mask.dtype))
    if left:
        warnings.warn(
            f"tfmot prunes no weight of {', '.join(left)}: left unwrapped, the zeros there are "
            "fixed by constraints alone.",
            stacklevel=4,
        )
    return wrapped


def strip(model: Any) -> Any:
    """Returns a copy of a wrapped model without its wrappers, the masks multiplied in.

    `tfmot.strip_pruning` does not apply the masks, and returns the very layers it is given.

    Args:
        model: a tf_keras model with wrappers, from here or of tfmot's own making, with whatever
            schedule; it is not changed.
    """
    stripped = _copied(model, lambda layer: _fresh(unwrapped(layer)))
    masks = {
        id(weight): mask for wrapper in _wrappers(model) for weight, mask, _ in wrapper.pruning_vars
    }
    pairs = zip(leaf_layers(model), leaf_layers(stripped), strict=True)
    for (_, wrapped_layer), (_, layer) in pairs:
        for weight, variable in zip(wrapped_layer.weights, layer.weights, strict=True):
            if id(weight) in masks:
                variable.assign(variable * tf.cast(masks[id(weight)], variable.dtype))
    return stripped


def _copied(model: Any, copy: Callable[[Any], Any]) -> Any:
    """Clones a model and those nested in it, each layer by `copy`, and gives it the weights."""

    def nested(layer: Any) -> Any:
        return _clone(layer) if is_graph(layer) else copy(layer)

    def _clone(graph: Any) -> Any:
        return tf_keras.models.clone_model(graph, clone_function=nested)

    copied = _clone(model)
    copy_values(model, copied)
    return copied


def _fresh(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())


def _prunable(layer: Any) -> list[Any]:
    if hasattr(layer, "get_prunable_weights"):
        return layer.get_prunable_weights()
    if not prune_registry.PruneRegistry.supports(layer):
        return []
    return prune_registry.PruneRegistry.make_prunable(layer).get_prunable_weights()


def _wrappers(model: Any) -> list[Any]:
    found = []
    for layer in operations(model):
        if is_graph(layer):
            found += _wrappers(layer)
        elif unwrapped(layer) is not layer:
            found.append(layer)
    return found
