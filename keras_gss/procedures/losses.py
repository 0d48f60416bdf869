"""Losses on single weights that a procedure adds to a model for the time of a training."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_gss import _keras


class AddedLosses:
    """Puts losses on weights of a model; the regularizers that these have stay in force.

    Args:
        model: a model of either library.
        losses: pairs of a trainable variable and a function of it that returns a scalar tensor,
            and that may read other variables of the model too.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> added = AddedLosses(model, [(model.layers[0].bias, lambda bias: ops.sum(bias + 1))])
    >>> float(model.losses[0])
    2.0
    >>> added.remove()
    >>> model.losses
    []
    """

    def __init__(
        self, model: keras.Model, losses: Sequence[tuple[Any, Callable[[Any], Any]]]
    ) -> None:
        self._model = model
        self._changed: list[tuple[Any, Any]] = []
        self._loss: Any = None
        if _keras.is_tf_keras(model):
            self._loss = _keras.add_loss(model, lambda: _total([f(v) for v, f in losses]))
        else:
            for variable, loss in losses:
                self._changed.append((variable, variable.regularizer))
                variable.regularizer = _With(variable.regularizer, loss)
        _keras.forget_functions(model)

    def remove(self) -> None:
        """Gives the weights back the regularizers they had."""
        for variable, before in reversed(self._changed):
            variable.regularizer = before
        if self._loss is not None:
            _keras.remove_loss(self._model, self._loss)
        _keras.forget_functions(self._model)


class _With(keras.Regularizer):
    """A loss beside a regularizer."""

    def __init__(self, own: Any, loss: Callable[[Any], Any]) -> None:
        self._own, self._loss = own, loss

    def __call__(self, x: Any) -> Any:
        return _total([*([] if self._own is None else [self._own(x)]), self._loss(x)])


def _total(values: Sequence[Any]) -> Any:
    dtype = keras.config.floatx()
    return sum((ops.cast(value, dtype) for value in values), start=ops.zeros((), dtype))
