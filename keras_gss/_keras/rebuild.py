"""Building a model anew from its config."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_gss._keras.library import is_tf_keras, library_of
from keras_gss._keras.walk import is_graph, leaf_layers, operations, owned_variables

Edit = Callable[[Any, dict[str, Any]], dict[str, Any]]


def rebuild(
    model: Any,
    edit: Edit | None = None,
    values: Mapping[int, np.ndarray] | None = None,
    added: Mapping[tuple[int, str], np.ndarray] | None = None,
) -> Any:
    """Builds a model anew from its config: same class, names and sharing, uncompiled.

    Args:
        model: a built Sequential or functional model; it is not changed.
        edit: called as `edit(operation, config)` once for every layer and operation that is no
            nested model, with a private copy of its config; returns the config to build from.
        values: `{id(variable of model): array}`, what the new variables hold instead of a copy.
        added: `{(id(layer of model), name): array}` for variables that only the new layer has.

    Returns:
        The new model.
    """
    config = copy.deepcopy(model.get_config())
    _edit_config(model, config, edit or (lambda operation, own: own))
    with library_of(model).saving.custom_object_scope(own_classes(model)):
        new = type(model).from_config(config)
    if not new.built:
        new.build(model.input_shape)
    copy_values(model, new, values, added)
    return new


def own_classes(model: Any) -> dict[str, type]:
    """Returns the user's classes in a model by name: Keras finds only registered ones by itself."""
    kinds = {type(layer) for _, layer in leaf_layers(model)}
    builtin = ("keras.", "tf_keras.")
    return {kind.__name__: kind for kind in kinds if not kind.__module__.startswith(builtin)}


def _edit_config(model: Any, config: dict[str, Any], edit: Edit) -> None:
    by_name = {operation.name: operation for operation in operations(model)}
    config.pop("build_input_shape", None)
    for entry in config["layers"]:
        entry.pop("build_config", None)
        operation = by_name[entry["config"]["name"]]
        if is_graph(operation):
            _edit_config(operation, entry["config"], edit)
        else:
            entry["config"] = edit(operation, entry["config"])
            if is_tf_keras(operation) and type(operation).__name__ != "InputLayer":
                # A first layer repeats its model's input shape, which the InputLayer tells.
                entry["config"].pop("batch_input_shape", None)


def copy_values(
    old: Any,
    new: Any,
    values: Mapping[int, np.ndarray] | None = None,
    added: Mapping[tuple[int, str], np.ndarray] | None = None,
) -> None:
    """Gives the variables of a model what those of another one hold; arguments as of `rebuild`."""
    values, added = values or {}, added or {}
    sources = dict(leaf_layers(old))
    for path, layer in leaf_layers(new):
        if not layer.weights:
            continue
        source = sources[path]
        old_variables, new_variables = source.weights, layer.weights
        if len(old_variables) == len(new_variables):
            pairs = list(zip(old_variables, new_variables, strict=True))
        else:
            by_name = owned_variables(source)
            pairs = []
            for name, variable in owned_variables(layer).items():
                if name in by_name:
                    pairs.append((by_name[name], variable))
                else:
                    variable.assign(added[id(source), name])
        for variable, target in pairs:
            target.assign(values.get(id(variable), variable))
