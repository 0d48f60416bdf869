"""Copying a layer of Keras 3 that its own config does not build."""

import copy
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.utils.tracking import DotNotTrackScope

_Saveable = keras.src.saving.keras_saveable.KerasSaveable
_MADE_ANEW = ("build", "quantize")  # by `Layer.__new__`: they belong to one object
_CALLS = ("_inbound_nodes", "_outbound_nodes")


class Copied:
    """Stands where Keras looks for a layer's class, and makes a deep copy of the layer.

    Attributes:
        layer: the layer, which is not changed.
    """

    def __init__(self, layer: Any):
        self.layer = layer

    def from_config(self, config: dict[str, Any]) -> Any:
        """Returns the copy: variables of its own with the same values, called nowhere."""
        memo: dict[int, Any] = {id(module): module for module in list(sys.modules.values())}
        memo.update({id(vars(self.layer)[name]): [] for name in _CALLS})
        with _copying_by_attributes(), DotNotTrackScope():
            new = copy.deepcopy(self.layer, memo)
        for each in new._flatten_layers():
            stores = each._tracker.config.items()
            each._tracker.stored_ids = {name: {id(v) for v in held} for name, (_, held) in stores}
        return new


@contextmanager
def _copying_by_attributes() -> Iterator[None]:
    """While this lasts, `copy.deepcopy` copies layers by what they hold, not by their config."""
    _Saveable.__deepcopy__ = _copy_by_attributes
    try:
        yield
    finally:
        del _Saveable.__deepcopy__


def _copy_by_attributes(old: Any, memo: dict[int, Any]) -> Any:
    kind: Any = type(old)
    new = memo[id(old)] = kind.__new__(kind)
    for name, value in vars(old).items():
        if name not in _MADE_ANEW:
            vars(new)[name] = copy.deepcopy(value, memo)
    return new


@contextmanager
def without_config(layers: Collection[Any]) -> Iterator[None]:
    """While this lasts, the config of each of these layers is its name."""
    for layer in layers:
        vars(layer)["get_config"] = lambda name=layer.name: {"name": name}
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["get_config"]
