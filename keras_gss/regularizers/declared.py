"""Cross-layer penalties as layers declare them, beside the user's own regularizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_gss._keras import (
    SILENCED_BY,
    class_of,
    every_layer,
    is_tf_keras,
    owned_variables,
    regularizers_of,
)
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer

if TYPE_CHECKING:
    from keras_gss.graph import WeightSlice


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
    kind = class_of(config)
    if kind is not None and issubclass(kind, CrossLayerRegularizer | RegularizerSum):
        own = own_part(keras.saving.deserialize_keras_object(config))
        return None if own is None else keras.regularizers.serialize(own)
    return {key: without_declarations(value) for key, value in config.items()}


def drop_all(model: keras.Model) -> None:
    """Takes every declared cross-layer penalty off a model's variables and layers, in place."""
    for variable, regularizer in list(regularizers_of(model)):
        if declared_part(regularizer) is None:
            continue
        if is_tf_keras(model):
            setattr(variable, SILENCED_BY, True)
        else:
            variable.regularizer = own_part(regularizer)
    for layer in every_layer(model):
        for name, value in list(vars(layer).items()):
            if name.endswith("_regularizer") and declared_part(value) is not None:
                setattr(layer, name, own_part(value))


def attribute(piece: WeightSlice) -> tuple[keras.Layer, str] | None:
    """Returns where the regularizer of a kernel is kept: an owner and the name of its attribute.

    The owner is the layer itself, which hands one regularizer to several kernels in it if it is an
    attention layer, or the cell or wrapped layer inside it that the kernel belongs to.
    """
    layer = piece.layer
    for owner in (layer, *layer._flatten_layers(include_self=False)):
        owned = owned_variables(owner)
        name = next((name for name, variable in owned.items() if variable is piece.weight), "")
        stems = (name, name.removesuffix("_kernel"))
        for each in (f"{mark}{stem}_regularizer" for stem in stems for mark in ("", "_")):
            if each in vars(owner):
                return owner, each
    return None
