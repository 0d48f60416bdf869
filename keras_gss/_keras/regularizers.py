"""Which regularizer is on which weight, and whose class a serialised object is of."""

import sys
from collections.abc import Iterator
from typing import Any

import keras

from keras_gss._keras.library import is_tf_keras
from keras_gss._keras.walk import every_layer

SILENCED_BY = "keras_gss_silenced_by"
_SUFFIX = "_regularizer"


def regularizers_of(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yields `(variable, regularizer)` for every weight of a model that has one, once each.

    A variable of Keras 3 knows its regularizer. In tf_keras the layer has it, as
    `kernel_regularizer` for `kernel`, or as `depthwise_regularizer` for `depthwise_kernel`.
    """
    if not is_tf_keras(model):
        yield from ((v, v.regularizer) for v in model.weights if v.regularizer is not None)
        return
    for layer in every_layer(model):
        owned = {id(variable) for variable in layer.weights}
        for attribute, regularizer in list(vars(layer).items()):
            if attribute.endswith(_SUFFIX) and regularizer is not None:
                kind = attribute.removesuffix(_SUFFIX)
                candidates = (getattr(layer, name, None) for name in (kind, f"{kind}_kernel"))
                yield from ((v, regularizer) for v in candidates if id(v) in owned)


def is_silenced(variable: Any) -> bool:
    """Tells whether the cross-layer penalty that a weight of a tf_keras layer declares is void.

    A layer of tf_keras goes on asking the regularizer that it was built with, so that one has to
    know. `SILENCED_BY` is the variable's attribute that tells: the attachment that has taken its
    place, or True once the penalty is dropped.
    """
    return getattr(variable, SILENCED_BY, None) is not None


def is_own_config(config: Any) -> bool:
    """Tells whether a config is that of a serialised object of this library."""
    return isinstance(config, dict) and str(config.get("module")).startswith("keras_gss.")


def class_of(config: Any) -> type | None:
    """Returns the class of a serialised object, if this process knows it."""
    if not isinstance(config, dict) or "class_name" not in config:
        return None
    registered = keras.saving.get_registered_object(config.get("registered_name") or "")
    module = sys.modules.get(config.get("module") or "")
    found = registered or getattr(module, str(config["class_name"]), None)
    return found if isinstance(found, type) else None
