"""Which rule serves which layer class or `keras.ops` operation."""

from collections.abc import Callable, Iterable
from typing import Any

from keras_gss import _keras
from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal

Rule = Callable[[Call], Signal | Iterable[Signal]]

_RULES: dict[type | str, Rule] = {}


def register_rule(*kinds: type) -> Callable[[Rule], Rule]:
    """Teaches the graph walk what a layer class does to its channels.

    Rules are looked up by exact class, not by inheritance: a subclass may compute something else.

    Args:
        *kinds: the layer classes, of Keras 3 or tf_keras, that the decorated rule serves.

    Returns:
        A decorator for a function that takes a `keras_gss.graph.Call` and returns the output's
        `Signal` (a list of them for several outputs). `call.like()` passes the channels through,
        `call.declare(weight, axis, labels)` says which channel owns which slice of a weight.

    Raises:
        TypeError: if a kind is not a layer class.

    Example:
    >>> import keras, keras_gss as gss
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.scale = self.add_weight(shape=(shape[-1],), name="scale")
    ...     def call(self, x):
    ...         return x * self.scale
    >>> @gss.register_rule(Scale)
    ... def scale(call):
    ...     labels, _ = call.along(call.x, axis=-1)
    ...     call.declare("scale", axis=0, labels=labels)
    ...     return call.like(value=float("nan"))
    """
    for kind in kinds:
        if not (isinstance(kind, type) and _keras.is_layer_class(kind)):
            raise TypeError(f"`register_rule` expected layer classes. Received: {kind!r}")

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


def register_operations(*names: str) -> Callable[[Rule], Rule]:
    """Gives a rule to `keras.ops` operations, by the class name of the operation (`"Add"`)."""

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def rule_for(operation: Any) -> Rule | None:
    """Returns the rule of a layer or operation, or None."""
    kinds = (_RULES.get(kind) for kind in _keras.kinds(operation))
    return next((rule for rule in kinds if rule is not None), None)
