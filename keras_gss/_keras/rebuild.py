"""Building a model anew from its config."""

import copy
import inspect
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np

from keras_gss._keras.copies import Copied, without_config
from keras_gss._keras.initial import nothing_drawn
from keras_gss._keras.library import (
    Unwritten,
    assign,
    is_layer,
    is_tf_keras,
    library_of,
    to_numpy,
)
from keras_gss._keras.walk import every_layer, is_graph, leaf_layers, operations, owned_variables

_LIBRARIES = ("keras.", "tf_keras.")
# What constructors and `get_config` raise where a config does not fit them.
_CONFIG_ERRORS = (AttributeError, KeyError, NotImplementedError, TypeError, ValueError)

Edit = Callable[[Any, dict[str, Any]], dict[str, Any]]


def rebuild(
    model: Any,
    edit: Edit | None = None,
    values: Mapping[int, np.ndarray | Unwritten] | None = None,
    added: Mapping[tuple[int, str], np.ndarray] | None = None,
) -> Any:
    """Builds a model anew from its config: same class, names and sharing, uncompiled.

    Functions and lambdas of the user are handed on as they are, not through their config. With a
    warning, a layer of Keras 3 that its own config does not build is copied, and a model of a class
    that takes other arguments than Keras' own becomes a plain one.

    Args:
        model: a built Sequential or functional model; it is not changed.
        edit: called as `edit(operation, config)` once for every layer and operation that is no
            nested model, with a private copy of its config; returns the config to build from.
        values: `{id(variable of model): array or Unwritten}`, what the new variables hold instead
            of a copy.
        added: `{(id(layer of model), name): array}` for variables that only the new layer has.

    Returns:
        The new model.

    Raises:
        ValueError: if a layer can neither be built from its own config nor copied, named.
    """
    edit = edit or (lambda operation, own: own)
    try:
        return _rebuild(model, edit, values, added)
    except _CONFIG_ERRORS as error:
        broken = {path: layer for path, layer in leaf_layers(model) if why_not_rebuilt(layer)}
        if not broken:
            raise
        named = " ".join(_named(broken))
        if is_tf_keras(model) or _share(broken.values(), model):
            raise ValueError(
                f"'{model.name}' cannot be built anew from its config: these layers are not "
                f"built by their own `get_config`: {named} Correct it."
            ) from error
    with without_config(broken.values()):
        new = _rebuild(model, edit, values, added, broken.values())
    warnings.warn(
        f"'{model.name}' has layers that are not built by their own `get_config`, and of which the "
        f"new model holds deep copies: {named} It computes, trains and exports, but Keras can load "
        f"it from a .keras file only once `get_config` is corrected.",
        stacklevel=1,  # told once, not for each caller
    )
    return new


def _named(layers: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence for each class: a layer of it, how many more there are, what is wrong."""
    by_class: dict[type, list[str]] = {}
    for path, layer in layers.items():
        by_class.setdefault(type(layer), []).append(path)
    for kind, (first, *more) in by_class.items():
        others = f" and {len(more)} more" if more else ""
        yield f"'{first}'{others} ({kind.__name__}): {why_not_rebuilt(layers[first])}"


def why_not_rebuilt(layer: Any) -> str:
    """Returns what keeps a layer from being built from its own config, as a sentence, or ""."""
    if _are_keras_own(layer._flatten_layers() if is_layer(layer) else ()):
        return ""
    try:
        new = type(layer).from_config(layer.get_config())
        return "" if new.name == layer.name else f"the name would be '{new.name}'."
    except _CONFIG_ERRORS as error:
        lines = str(error).strip().splitlines()
        told = [line for line in lines if line.startswith("Exception encountered: ")]
        told = (told or lines or [type(error).__name__])[0].removeprefix("Exception encountered: ")
        return f"{textwrap.shorten(told, 120, placeholder=' ...').rstrip('.')}."


def _are_keras_own(layers: Iterable[Any]) -> bool:
    return all(type(each).__module__.startswith(_LIBRARIES) for each in layers)


def _share(layers: Collection[Any], model: Any) -> bool:
    """Tells whether some layers hold weights that others hold too, which copies would part."""
    held = Counter(id(variable) for _, layer in leaf_layers(model) for variable in layer.weights)
    return any(held[id(variable)] > 1 for layer in layers for variable in layer.weights)


def _rebuild(
    model: Any,
    edit: Edit,
    values: Mapping[int, np.ndarray | Unwritten] | None,
    added: Mapping[tuple[int, str], np.ndarray] | None,
    copied: Collection[Any] = (),
) -> Any:
    kind, config = _class_and_config(model)
    if kind is not type(model):
        warnings.warn(
            f"'{model.name}' cannot be built anew as {type(model).__name__}, whose constructor "
            f"takes other arguments than keras.{kind.__name__}. The new model is a plain one: it "
            f"computes the same, and trains without what {type(model).__name__} defines.",
            stacklevel=4,
        )
    by_reference: dict[str, Any] = {}
    _edit_config(model, config, edit, by_reference, {id(layer) for layer in copied})
    scope = library_of(model).saving.custom_object_scope({**own_objects(model), **by_reference})
    # A user's layer may draw a seeded constant that is no weight, and that has to be the same.
    with scope, nothing_drawn() if _are_keras_own(every_layer(model)) else nullcontext():
        new = kind.from_config(config)
        if not new.built:
            new.build(model.input_shape)
    copy_values(model, new, values, added)
    return new


def own_objects(model: Any) -> dict[str, Any]:
    """Returns the user's classes and functions in a model: Keras finds only registered ones.

    They are, by name, the classes of layers and nested models and of their regularizers,
    constraints and initializers, and the functions that layers hold.
    """
    parts = (keras.Regularizer, keras.constraints.Constraint, keras.initializers.Initializer)
    found: dict[str, Any] = {}
    pending = [*every_layer(model), *(layer for _, layer in leaf_layers(model))]
    while pending:
        value = pending.pop()
        module = type(value).__module__
        # The layers that tf_keras' applications define are not found by their names either.
        if not module.startswith(_LIBRARIES) or module.startswith("tf_keras.src.applications."):
            found[type(value).__name__] = type(value)
        for held in vars(value).values():
            inner = held if isinstance(held, list | tuple) else [held]
            pending += [each for each in inner if isinstance(each, parts)]
            found.update({each.__name__: each for each in inner if inspect.isfunction(each)})
    return found


def _class_and_config(model: Any) -> tuple[Any, dict[str, Any]]:
    """Returns what a model is built anew from: its own class if that can be, or a plain one."""
    kind = type(model)
    if is_tf_keras(model):
        return kind, copy.deepcopy(model.get_config())
    if isinstance(model, keras.Sequential):
        takes = inspect.getfullargspec(kind.__init__)
        if "layers" in takes.args or takes.varargs:
            return kind, copy.deepcopy(model.get_config())
        layers = [keras.saving.serialize_keras_object(each) for each in operations(model)]
        return keras.Sequential, copy.deepcopy({"name": model.name, "layers": layers})
    if keras.src.models.functional.functional_like_constructor(kind):
        return kind, copy.deepcopy(model.get_config())
    plain = keras.Model(model._inputs_struct, model._outputs_struct, name=model.name)
    return keras.Model, copy.deepcopy(plain.get_config())


def _edit_config(
    model: Any,
    config: dict[str, Any],
    edit: Edit,
    by_reference: dict[str, Any],
    copied: Collection[int],
) -> None:
    by_name = {operation.name: operation for operation in operations(model)}
    config.pop("build_input_shape", None)
    for entry in config["layers"]:
        entry.pop("build_config", None)
        operation = by_name[entry["config"]["name"]]
        if is_graph(operation):
            kind, own = _class_and_config(operation)
            if kind is not type(operation):
                plain = {"module": "keras", "class_name": kind.__name__, "registered_name": None}
                entry.update(plain, config=own)
            _edit_config(operation, entry["config"], edit, by_reference, copied)
        elif id(operation) in copied:
            name = f"keras_gss layer {len(by_reference)}"
            by_reference[name] = Copied(operation)
            entry.update(module="builtins", class_name=name, registered_name=name)
            if edit(operation, entry["config"]) != operation.get_config():
                raise ValueError(
                    f"'{operation.name}' ({type(operation).__name__}) is to be changed and cannot: "
                    f"its own `get_config` does not build it. Correct this `get_config`."
                )
        else:
            if type(operation).__name__ != "TFOpLambda":  # names a function of TensorFlow
                _by_reference(operation, entry["config"], by_reference)
            entry["config"] = edit(operation, _without_build(entry["config"]))
            if is_tf_keras(operation) and type(operation).__name__ != "InputLayer":
                # A first layer repeats its model's input shape, which the InputLayer tells, and an
                # attention layer the shapes that it was built for.
                entry["config"].pop("batch_input_shape", None)
                built_for = {"query_shape", "key_shape", "value_shape"} & entry["config"].keys()
                entry["config"].update(dict.fromkeys(built_for))


def _without_build(config: Any) -> Any:
    """Returns a config without the shapes that the layers inside a layer were built for."""
    if isinstance(config, list | tuple):
        return type(config)(_without_build(each) for each in config)
    if not isinstance(config, dict):
        return config
    return {key: _without_build(each) for key, each in config.items() if key != "build_config"}


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets an entry of a config, in place; `"layer.config.units"` lies in configs inside it."""
    *path, last = key.split(".")
    for name in path:
        if name not in config:  # tf_keras makes a Bidirectional's backward layer from the other
            return
        config = config[name]
    config[last] = value


def _by_reference(layer: Any, config: dict[str, Any], functions: dict[str, Any]) -> None:
    """Puts a layer's functions into `functions` under a name that its config then refers to.

    A config holds a lambda as bytecode, which loads only in an unsafe mode and without the names
    it uses, and of any other function the name, which Keras finds only if it is registered.
    """
    for key, value in config.items():
        live = getattr(layer, key, None)
        if is_layer(live) and isinstance(value, dict):
            _by_reference(live, value["config"], functions)
        elif _is_users_function(live):
            name = f"keras_gss function {len(functions)}"
            functions[name] = live
            if "function_type" in config:  # a Lambda layer of tf_keras
                config.update({key: name, "function_type": "function"})
                continue
            config[key] = {
                "module": "builtins",
                "class_name": "function",
                "config": name,
                "registered_name": name,
            }


def _is_users_function(value: Any) -> bool:
    own = not str(getattr(value, "__module__", "")).startswith(_LIBRARIES)
    return own and callable(value) and not hasattr(value, "get_config")


def copy_values(
    old: Any,
    new: Any,
    values: Mapping[int, np.ndarray | Unwritten] | None = None,
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
            value = values.get(id(variable))
            assign(target, to_numpy(variable) if value is None else value)
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()  # it computes with a copy of its weights
