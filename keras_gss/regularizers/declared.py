"""Cross-layer penalties as layers declare them: beside the user's own, and read back."""

import json
from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_gss._keras import every_layer, owned_variables
from keras_gss.graph import NeuronGroup, NeuronGroups, WeightSlice, find_groups
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer

Declared = list[tuple[Any, CrossLayerRegularizer]]
Plan = tuple[NeuronGroups, list[tuple[CrossLayerRegularizer, list[NeuronGroup]]]]


@keras.saving.register_keras_serializable(package="keras_gss")
class RegularizerSum(keras.Regularizer):
    """Several regularizers on one weight, added up.

    A layer takes one `kernel_regularizer`; this one lets it declare a cross-layer penalty beside
    a penalty of its own.

    Args:
        regularizers: regularizers, or anything `keras.regularizers.get` understands; one of them
            at most may be a cross-layer penalty.

    Raises:
        ValueError: if there are several cross-layer penalties.

    Example:
    >>> import keras, keras_gss as gss
    >>> both = gss.RegularizerSum([keras.regularizers.L2(1e-4), gss.GSSStructure(1e-6)])
    >>> layer = keras.layers.Dense(300, kernel_regularizer=both)
    """

    def __init__(self, regularizers: Iterable[Any]) -> None:
        self.regularizers = [keras.regularizers.get(each) for each in regularizers]
        across = [r for r in self.regularizers if isinstance(r, CrossLayerRegularizer)]
        if len(across) > 1:
            names = ", ".join(type(each).__name__ for each in across)
            raise ValueError(
                f"`regularizers` must hold one cross-layer penalty at most. Received: {names}"
            )

    def __call__(self, weight: Any) -> Any:
        """Returns the sum of the regularizers' values, a scalar tensor."""
        return sum((each(weight) for each in self.regularizers), ops.zeros(()))

    def get_config(self) -> dict[str, Any]:
        """Returns the serialised regularizers."""
        return {"regularizers": [keras.regularizers.serialize(r) for r in self.regularizers]}


def declared_part(regularizer: Any) -> CrossLayerRegularizer | None:
    """Returns the cross-layer penalty that a weight's regularizer declares, or None."""
    parts = regularizer.regularizers if isinstance(regularizer, RegularizerSum) else [regularizer]
    return next((part for part in parts if isinstance(part, CrossLayerRegularizer)), None)


def own_part(regularizer: Any) -> Any:
    """Returns what remains of a weight's regularizer without the cross-layer penalty, or None."""
    if isinstance(regularizer, CrossLayerRegularizer):
        return None
    if not isinstance(regularizer, RegularizerSum):
        return regularizer
    rest = [r for r in regularizer.regularizers if not isinstance(r, CrossLayerRegularizer)]
    if len(rest) == len(regularizer.regularizers):
        return regularizer
    return RegularizerSum(rest) if len(rest) > 1 else next(iter(rest), None)


def joined(regularizer: Any, declared: CrossLayerRegularizer) -> Any:
    """Returns a serialisable regularizer that declares `declared` beside the user's own."""
    own = own_part(regularizer)
    if own is None:
        return declared
    parts = own.regularizers if isinstance(own, RegularizerSum) else [own]
    return RegularizerSum([*parts, declared])


def without_declarations(config: Any) -> Any:
    """Returns a layer's config with every cross-layer penalty taken out of it.

    The single-kernel penalties and the user's own regularizers stay.

    Example:
    >>> import keras, keras_gss as gss
    >>> layer = keras.layers.Dense(3, kernel_regularizer=gss.GSSStructure(1e-6))
    >>> without_declarations(layer.get_config())["kernel_regularizer"] is None
    True
    """
    if isinstance(config, list | tuple):
        return type(config)(without_declarations(each) for each in config)
    if not isinstance(config, dict):
        return config
    kind = keras.saving.get_registered_object(config.get("registered_name") or "")
    if isinstance(kind, type) and issubclass(kind, CrossLayerRegularizer | RegularizerSum):
        own = own_part(keras.regularizers.get(config))
        return None if own is None else keras.regularizers.serialize(own)
    return {key: without_declarations(value) for key, value in config.items()}


def drop_all(model: keras.Model) -> None:
    """Takes every declared cross-layer penalty off a model's variables and layers, in place."""
    for variable in model.weights:
        variable.regularizer = own_part(variable.regularizer)
    for layer in every_layer(model):
        for name, value in list(vars(layer).items()):
            if name.endswith("_regularizer") and declared_part(value) is not None:
                setattr(layer, name, own_part(value))


def plan(model: keras.Model, passed: CrossLayerRegularizer | None) -> Plan:
    """Finds which neuron groups a penalty is about: one that is passed, or the declared ones.

    A penalty passed is about all removable neurons. Of the declared ones, a group is penalised
    by what the layers declare that make its neurons; an input group by what the layers declare
    that read it, if they declare it with `inputs=True`.

    Args:
        model: a built model.
        passed: the penalty, or None for the declared ones.

    Returns:
        The penalised groups, and each distinct penalty with its share of them.

    Raises:
        TypeError: if `passed` is no cross-layer penalty.
        ValueError: if a penalty is passed and another one declared, if there is none at all, if
            the layers of one group declare different ones, or if one finds nothing to penalise.
    """
    declared = [(v, declared_part(v.regularizer)) for v in model.weights]
    declared = [(variable, penalty) for variable, penalty in declared if penalty is not None]
    if passed is None:
        return _plan_declared(model, declared)
    if not isinstance(passed, CrossLayerRegularizer):
        raise TypeError(
            "`regularizer` must be a cross-layer penalty such as GSSStructure, GSSElement or "
            "DeepGSS121; a penalty on one kernel is the `kernel_regularizer` of its layer. "
            f"Received: regularizer={passed!r}"
        )
    for variable, penalty in declared:
        if _key(penalty) != _key(passed):
            raise ValueError(
                f"'{variable.path}' declares {_text(penalty)}, and another penalty is passed: "
                f"{_text(passed)}. Pass none to use what the layers declare, or take that off "
                "with `keras_gss.detach(model, declared=True)`."
            )
    groups = find_groups(model, inputs=passed.inputs)
    members = [group for group in groups if _is_penalised(group)]
    if not members:
        raise ValueError(_finds_nothing(model, groups, passed))
    return NeuronGroups(members, groups.skipped), [(passed, members)]


def _plan_declared(model: keras.Model, declared: Declared) -> Plan:
    if not declared:
        raise ValueError(
            f"No layer of '{model.name}' declares a cross-layer penalty. Pass one, such as "
            "`keras_gss.GSSStructure(1e-6)`, or build layers with it as `kernel_regularizer`."
        )
    groups = find_groups(model, inputs=any(penalty.inputs for _, penalty in declared))
    by_variable = {id(variable): penalty for variable, penalty in declared}
    shares: dict[Any, tuple[CrossLayerRegularizer, list[NeuronGroup]]] = {
        _key(penalty): (penalty, []) for _, penalty in declared
    }
    members = []
    for group in groups:
        penalty = _penalty_of(group, by_variable)
        if penalty is not None:
            members.append(group)
            shares[_key(penalty)][1].append(group)
    for penalty, share in shares.values():
        if not share:
            raise ValueError(_finds_nothing(model, groups, penalty))
    _check_places(declared, groups)
    return NeuronGroups(members, groups.skipped), list(shares.values())


def declaring_slices(group: NeuronGroup) -> tuple[WeightSlice, ...]:
    """Returns the kernels whose layers say how a group is penalised."""
    return group.outgoing if group.kind == "input" else group.incoming


def attribute(piece: WeightSlice) -> str | None:
    """Returns the attribute of the layer that holds the regularizer of a kernel, if it has one."""
    owned = owned_variables(piece.layer)
    name = next((name for name, variable in owned.items() if variable is piece.weight), "")
    candidates = (f"{name}_regularizer", f"{name.removesuffix('_kernel')}_regularizer")
    return next((each for each in candidates if each in vars(piece.layer)), None)


def _is_penalised(group: NeuronGroup) -> bool:
    return group.removable or group.kind == "input"


def _penalty_of(
    group: NeuronGroup, declared: dict[int, CrossLayerRegularizer]
) -> CrossLayerRegularizer | None:
    pieces = declaring_slices(group) if _is_penalised(group) else ()
    found = [(s.layer.name, declared[id(s.weight)]) for s in pieces if id(s.weight) in declared]
    if group.kind == "input":
        found = [(name, penalty) for name, penalty in found if penalty.inputs]
    for name, penalty in found[1:]:
        if _key(penalty) != _key(found[0][1]):
            raise ValueError(
                f"Layers '{found[0][0]}' and '{name}' share the neurons of group '{group.name}' "
                f"and declare different penalties: {_text(found[0][1])} and {_text(penalty)}. "
                "Declare the same on both."
            )
    return found[0][1] if found else None


def _check_places(declared: Declared, groups: NeuronGroups) -> None:
    kernels = {id(s.weight) for group in groups for s in (*group.incoming, *group.outgoing)}
    for variable, penalty in declared:
        if id(variable) not in kernels:
            raise ValueError(
                f"{_text(penalty)} is declared on '{variable.path}', which is no kernel that "
                "makes or reads neurons of a group: it would have no effect there. Remove it."
            )


def _finds_nothing(model: keras.Model, groups: NeuronGroups, penalty: CrossLayerRegularizer) -> str:
    reasons = [f"{group.name} {group.reason}" for group in groups if group.reason]
    reasons += [f"{path}: {reason}" for path, reason in groups.skipped.items()]
    why = f" ({'; '.join(reasons[:3])})" if reasons else ""
    return (
        f"{_text(penalty)} finds no neurons in '{model.name}' that could be removed{why}. See "
        "`keras_gss.find_groups(model).summary()`."
    )


def _key(penalty: CrossLayerRegularizer) -> tuple[type, str]:
    return type(penalty), json.dumps(penalty.get_config(), sort_keys=True)


def _text(penalty: CrossLayerRegularizer) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in penalty.get_config().items())
    return f"{type(penalty).__name__}({arguments})"
