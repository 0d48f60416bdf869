"""Kernels that are computed from two trained variables while a model trains."""

import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_gss import _keras
from keras_gss._probe import max_difference, random_inputs, tolerance

_SECONDS = "_keras_gss_seconds"


@dataclass(frozen=True, eq=False)
class Pair:
    """A kernel of a layer, and what it is computed from.

    Attributes:
        layer: the layer.
        attribute: the attribute that the kernel's variable was, `"_kernel"` for instance.
        first: that variable, which holds another value now.
        second: the variable that was added.
    """

    layer: Any
    attribute: str
    first: Any
    second: Any


class Reparametrised:
    """Replaces the trainable kernels and embeddings of a model, in place, by functions of pairs.

    Every layer becomes one of a subclass of its class, whose kernel is a property. What cannot be
    replaced is left as it is, with a warning that names it: a kernel with a constraint, which would
    be of the variable and not of the kernel; one that two layers hold; quantized and LoRA weights.

    Args:
        model: a built Keras 3 model.
        caller: the procedure's name, for messages.
        split: a kernel's value, as an array, to the values of the two variables.
        compute: the two variables to the kernel, a tensor.
        in_loops: whether kernels of recurrent cells are replaced too.

    Attributes:
        pairs: what was replaced.
        left: `{path: reason}` for what was not.

    Raises:
        TypeError: a model of tf_keras.
        ValueError: the model computes something else then, because a layer reads its kernel
            otherwise than as an attribute; or there is nothing to replace.

    Example:
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.set_weights([np.array([[6.0], [8.0]]), np.zeros(1)])
    >>> halves = Reparametrised(
    ...     model, "Sum", split=lambda w: (w / 2, w / 2), compute=lambda a, b: a + b)
    >>> keras.ops.convert_to_numpy(halves.pairs[0].second).ravel().tolist()
    [3.0, 4.0]
    >>> halves.undo()
    >>> model.get_weights()[0].ravel().tolist()
    [6.0, 8.0]
    """

    def __init__(
        self,
        model: keras.Model,
        caller: str,
        split: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        compute: Callable[[Any, Any], Any],
        in_loops: bool = True,
    ) -> None:
        check_library(model, caller)
        self._model = model
        self.pairs: list[Pair] = []
        self.left: dict[str, str] = {}
        before = _outputs(model)
        self._replace(split, compute, in_loops)
        if not self.pairs:
            raise ValueError(f"`{caller}` finds no trainable kernel in '{model.name}'.")
        difference, scale = max_difference(before, _outputs(model))
        if difference > tolerance(model) * max(scale, 1.0):
            self.undo()
            raise ValueError(
                f"`{caller}` cannot replace the kernels of '{model.name}': its outputs differ by "
                f"{difference:.1e} then. A layer of it must read its kernel otherwise than as an "
                "attribute; set `trainable = False` on it."
            )
        if self.left:
            reasons = "; ".join(f"{path} ({reason})" for path, reason in self.left.items())
            warnings.warn(f"{caller} trains these as they are: {reasons}.", stacklevel=4)
        _keras.forget_functions(model)

    def undo(self) -> None:
        """Makes the layers what they were; their kernels hold what was computed last."""
        values = [_keras.to_numpy(getattr(pair.layer, pair.attribute)) for pair in self.pairs]
        for pair, value in zip(self.pairs, values, strict=True):
            if vars(pair.layer).pop(_SECONDS, None) is not None:
                object.__setattr__(pair.layer, "__class__", type(pair.layer).__mro__[1])
            pair.layer._untrack_variable(pair.second)
            if isinstance(pair.first.regularizer, _OfKernel):
                pair.first.regularizer = pair.first.regularizer.own
            pair.first.assign(value)
        self.pairs = []
        _keras.forget_functions(self._model)

    def _replace(self, split: Callable, compute: Callable, in_loops: bool) -> None:
        layers = _keras.every_layer(self._model)
        looped = {id(each) for layer in layers for each in _inside_loops(layer)}
        found = [(layer, *each) for layer in layers for each in _kernels(layer)]
        holders = Counter(id(variable) for _, _, variable in found)
        for layer, attribute, variable in found:
            why = _cannot_be_replaced(layer, variable, holders)
            if not why and not in_loops and id(layer) in looped:
                why = "in a recurrent loop"
            if why:
                self.left[_keras.path_of(variable)] = why
                continue
            first, second = split(_keras.to_numpy(variable))
            pair = Pair(layer, attribute, variable, _added(layer, attribute, variable, second))
            vars(layer).setdefault(_SECONDS, {})[attribute] = pair.second
            variable.assign(first)
            if variable.regularizer is not None:
                variable.regularizer = _OfKernel(variable.regularizer, pair)
            self.pairs.append(pair)
        for layer in {id(pair.layer): pair.layer for pair in self.pairs}.values():
            object.__setattr__(layer, "__class__", _computing(type(layer), layer, compute))


class _OfKernel(keras.Regularizer):
    """The regularizer of a kernel that is computed, instead of that of its first variable."""

    def __init__(self, own: Any, pair: Pair) -> None:
        self.own, self._pair = own, pair

    def __call__(self, x: Any) -> Any:
        return self.own(getattr(self._pair.layer, self._pair.attribute))


def check_library(model: Any, caller: str) -> None:
    """Raises TypeError for a model of tf_keras."""
    if _keras.is_tf_keras(model):
        raise TypeError(
            f"`{caller}` works on Keras 3 models, and '{model.name}' is one of tf_keras, whose "
            "kernels cannot be computed from other variables."
        )


def _kernels(layer: Any) -> Iterator[tuple[str, Any]]:
    own = {id(variable) for variable in layer._trainable_variables if variable.trainable}
    for name, value in list(vars(layer).items()):
        if name.endswith(("kernel", "embeddings")) and id(value) in own and len(value.shape) > 1:
            yield name, value


def _cannot_be_replaced(layer: Any, variable: Any, holders: Counter) -> str:
    if variable.constraint is not None:
        return "has a constraint"
    if holders[id(variable)] > 1:
        return "held by two layers"
    return "quantized or LoRA weights" if _keras.replaces_weights(layer) else ""


def _inside_loops(layer: Any) -> list[Any]:
    return layer._flatten_layers() if isinstance(layer, keras.layers.RNN) else []


def _added(layer: Any, attribute: str, variable: Any, value: np.ndarray) -> Any:
    layer._tracker.unlock()
    added = layer.add_weight(
        name=f"{attribute.lstrip('_')}_second",
        shape=variable.shape,
        initializer="zeros",
        dtype=_keras.dtype_of(variable),
    )
    layer._tracker.lock()
    added.assign(value)
    return added


def _computing(kind: type, layer: Any, compute: Callable[[Any, Any], Any]) -> type:
    def kernel(attribute: str) -> property:
        return property(
            lambda self: compute(vars(self)[attribute], vars(self)[_SECONDS][attribute])
        )

    properties = {name: kernel(name) for name in vars(layer)[_SECONDS]}
    return types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(properties))


def _outputs(model: keras.Model) -> Any:
    with _keras.full_precision():
        outputs = model(random_inputs(model, batch=2), training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)
