"""Which neuron groups a penalty is about: one that is passed, or those that layers declare."""

import json
from typing import Any

import keras

from keras_gss import _keras
from keras_gss.graph import NeuronGroup, NeuronGroups, WeightSlice, find_groups
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer
from keras_gss.regularizers.declared import declared_part

Declared = list[tuple[Any, CrossLayerRegularizer]]
Plan = tuple[NeuronGroups, list[tuple[CrossLayerRegularizer, list[NeuronGroup]]]]


def plan_of(model: keras.Model, passed: CrossLayerRegularizer | None) -> Plan:
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
        ValueError: if a penalty is passed and another one declared, if there is none at all, if
            the layers of one group declare different ones, or if one finds nothing to penalise.
    """
    parts = ((v, declared_part(regularizer)) for v, regularizer in _keras.regularizers_of(model))
    declared = [(variable, penalty) for variable, penalty in parts if penalty is not None]
    if passed is None:
        return _declared_plan(model, declared)
    for variable, penalty in declared:
        if _key(penalty) != _key(passed):
            raise ValueError(
                f"'{_keras.path_of(variable)}' declares {_text(penalty)}, and another penalty is "
                f"passed: {_text(passed)}. Pass none to use what the layers declare, or take that "
                "off with `keras_gss.detach(model, declared=True)`."
            )
    groups = find_groups(model, inputs=passed.inputs)
    members = [group for group in groups if _is_penalised(group)]
    if not members:
        raise ValueError(_finds_nothing(model, groups, passed))
    return NeuronGroups(members, groups.skipped), [(passed, members)]


def _declared_plan(model: keras.Model, declared: Declared) -> Plan:
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
                f"{_text(penalty)} is declared on '{_keras.path_of(variable)}', which is no kernel "
                "that makes or reads neurons of a group: it would have no effect there. Remove it."
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
    return _call(type(penalty).__name__, penalty.get_config())


def _call(name: str, config: dict[str, Any]) -> str:
    """Returns a constructor's call as text, the serialised arguments of it likewise."""
    texts = {
        key: _call(value["class_name"], value["config"])
        if isinstance(value, dict) and "class_name" in value
        else repr(value)
        for key, value in config.items()
    }
    return f"{name}({', '.join(f'{key}={text}' for key, text in texts.items())})"
