"""The one place that knows how Keras stores a model: walking it and building it anew."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

Edit = Callable[[Any, dict[str, Any]], dict[str, Any]]

_Functional = keras.src.models.functional.Functional


def is_graph(operation: Any) -> bool:
    """Tells whether an operation is a model whose computation is its graph and nothing else."""
    if isinstance(operation, keras.Sequential):
        return operation._functional is not None and type(operation).call is keras.Sequential.call
    return isinstance(operation, _Functional) and type(operation).call is _Functional.call


def graph_of(model: keras.Model) -> keras.Model:
    """Returns the functional graph of a model for which `is_graph` holds."""
    return model._functional if isinstance(model, keras.Sequential) else model


def operations(model: keras.Model) -> list[Any]:
    """Returns the layers and operations of a graph model, its input layers included."""
    return list(graph_of(model).operations)


def leaf_layers(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Yields `(path, layer)` for every layer of a model and of its nested graph models, once each.

    The path of a layer in a nested model is `"nested_name/layer_name"`.
    """
    for operation in operations(model):
        if is_graph(operation):
            yield from leaf_layers(operation, f"{prefix}{operation.name}/")
        elif isinstance(operation, keras.Layer):
            yield prefix + operation.name, operation


def owned_variables(layer: keras.Layer) -> dict[str, Any]:
    """Returns a layer's own variables by attribute name (`"kernel"`, `"bias"`, ...)."""
    own = {id(variable) for variable in layer.weights}
    found: dict[int, str] = {}
    for name, value in sorted(vars(layer).items()):
        if id(value) in own:
            found.setdefault(id(value), name.lstrip("_"))
    return {found.get(id(v), v.name): v for v in layer.weights}


def check_model(model: Any, caller: str) -> None:
    """Raises one clear error for a model that the library cannot work on.

    Args:
        model: what the user passed.
        caller: the public function's name, for the message.

    Raises:
        TypeError: if `model` is no Keras 3 Sequential or functional model.
        ValueError: if it is not built, or a weight is NaN or infinite.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{caller}` expected a Keras 3 Sequential or functional model. "
            f"Received: {type(model).__module__}.{type(model).__name__}"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"`{caller}` needs a built model, and '{model.name}' has no weights yet. Give it a "
            "`keras.Input(shape)` as its first element, or call `model.build(input_shape)`."
        )
    if not is_graph(model):
        raise TypeError(
            f"`{caller}` needs the model's graph, and '{model.name}' "
            f"({type(model).__name__}) defines its own `call`. Build it as "
            "`keras.Model(inputs, outputs)`."
        )
    for variable in model.weights:
        finite = np.isfinite(to_numpy(variable))
        if not finite.all():
            raise ValueError(
                f"`{caller}` needs finite weights, and '{variable.path}' of '{model.name}' "
                f"holds {int((~finite).sum())} NaN or infinite values. Load the last good "
                "checkpoint, or train with a smaller learning rate."
            )


def to_numpy(variable: Any) -> np.ndarray:
    """Returns a variable's value, not to be written to, in a dtype that NumPy can compute with."""
    if keras.backend.backend() == "tensorflow":  # where Keras would copy what may be gigabytes
        value = np.asarray(variable.value.read_value())
    else:
        value = keras.ops.convert_to_numpy(variable)
    return value.astype(np.float32) if value.dtype.kind == "V" or value.itemsize == 2 else value


def rebuild(
    model: keras.Model,
    edit: Edit | None = None,
    values: Mapping[int, np.ndarray] | None = None,
    added: Mapping[tuple[int, str], np.ndarray] | None = None,
) -> keras.Model:
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
    with keras.saving.custom_object_scope(own_classes(model)):
        new = type(model).from_config(config)
    if not new.built:
        new.build(model.input_shape)
    _copy_values(model, new, values or {}, added or {})
    return new


def own_classes(model: keras.Model) -> dict[str, type]:
    """Returns the user's classes in a model by name: Keras finds only registered ones by itself."""
    kinds = {type(layer) for _, layer in leaf_layers(model)}
    return {kind.__name__: kind for kind in kinds if not kind.__module__.startswith("keras.")}


def _edit_config(model: keras.Model, config: dict[str, Any], edit: Edit) -> None:
    by_name = {operation.name: operation for operation in operations(model)}
    config.pop("build_input_shape", None)
    for entry in config["layers"]:
        entry.pop("build_config", None)
        operation = by_name[entry["config"]["name"]]
        if is_graph(operation):
            _edit_config(operation, entry["config"], edit)
        else:
            entry["config"] = edit(operation, entry["config"])


def _copy_values(
    old: keras.Model,
    new: keras.Model,
    values: Mapping[int, np.ndarray],
    added: Mapping[tuple[int, str], np.ndarray],
) -> None:
    sources = dict(leaf_layers(old))
    for path, layer in leaf_layers(new):
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
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with a copy of its weights


def every_layer(model: keras.Model) -> list[keras.Layer]:
    """Returns all layers of any model, once each: nested ones, and the cells inside layers."""
    return list(model._flatten_layers(include_self=False))


def in_symbolic_scope() -> bool:
    """Tells whether Keras only infers shapes and dtypes now, as `fit` does before it trains."""
    return keras.src.backend.common.symbolic_scope.in_symbolic_scope()


class _State:
    """Looks to Keras like a seed generator: it owns one variable, called `state`."""

    def __init__(self, state: keras.Variable) -> None:
        self.state = state


def track_state(model: keras.Model, value: Any, name: str) -> keras.Variable:
    """Gives a model a variable that its traced functions read and write, but files don't hold.

    Keras passes the states of a model's seed generators in and out of every traced step (JAX
    freezes any variable it is not told of), and leaves them out of `weights` and saved files.

    Args:
        model: the model that owns the variable from now on.
        value: its initial value, an array or a number.
        name: its name.

    Returns:
        A variable that is not trainable; in a step replicated by `tf.distribute`, every replica
        has to assign the same value to it.
    """
    with _strategy_scope(model):
        state = keras.Variable(
            value, trainable=False, autocast=False, aggregation="only_first_replica", name=name
        )
    model._seed_generators.append(_State(state))
    return state


def untrack_state(model: keras.Model, state: keras.Variable) -> None:
    """Takes back one `track_state`."""
    model._seed_generators[:] = [s for s in model._seed_generators if s.state is not state]


def forget_functions(model: keras.Model) -> None:
    """Makes a model trace its training and test step anew: a traced one keeps the old losses."""
    model.train_function = None
    model.test_function = None


def _strategy_scope(model: keras.Model) -> AbstractContextManager[Any]:
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.scope()
    return nullcontext()
