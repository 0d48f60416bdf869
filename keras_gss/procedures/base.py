"""What a method that is more than a penalty adds to the training phase."""

from collections.abc import Callable
from typing import Any, ClassVar

import keras

from keras_gss._keras import Callback


class Procedure:
    """Base of the training procedures; every hook of it does nothing.

    `compress` trains what `begin` returns, with the callbacks, and goes on with what `end` makes of
    it. A procedure trains one model at a time; `begin` starts afresh.

    Attributes:
        inputs: whether the input features of the model are dealt with like neurons.
        takes_penalty: whether a penalty across layers may be given together with the procedure.

    Example: a training in which every weight loses a hundredth after each epoch
    >>> import keras_gss as gss
    >>> class Shrink(gss.Procedure):
    ...     def begin(self, model):
    ...         self.model = model
    ...         return model
    ...
    ...     def callbacks(self):
    ...         return [keras.callbacks.LambdaCallback(on_epoch_end=self.shrink)]
    ...
    ...     def shrink(self, epoch, logs):
    ...         self.model.set_weights([0.99 * weight for weight in self.model.get_weights()])
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> procedure = Shrink()
    >>> trained = procedure.begin(model)
    >>> trained.compile("adam", "mse")
    >>> history = trained.fit(
    ...     keras.ops.ones((8, 4)), keras.ops.ones((8, 2)), verbose=0,
    ...     callbacks=procedure.callbacks())
    >>> model = procedure.end(trained)
    """

    inputs: bool = False
    takes_penalty: ClassVar[bool] = True

    def begin(self, model: keras.Model) -> keras.Model:
        """Makes a model ready, in place or as a new one.

        Args:
            model: a built, uncompiled model that the procedure may change.

        Returns:
            What to train instead; its outputs are those of `model`.
        """
        return model

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks for `fit`, made anew for the model that `begin` was given."""
        return []

    def state(self) -> list[Any]:
        """Returns the variables to save with those of the model, so that a run can be resumed.

        They hold all that the procedure carries from one epoch to the next: they are saved after
        its callbacks' `on_epoch_end` and restored after their `on_train_begin`.
        """
        return []

    def end(self, model: keras.Model) -> keras.Model:
        """Takes back what `begin` did.

        Args:
            model: what `begin` returned, trained.

        Returns:
            A model of the layers that the model given to `begin` had, and of the same outputs.
        """
        return model

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class AfterEpoch(Callback):
    """Calls a function of the epoch (counted from 0) after each.

    Example:
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> epochs = []
    >>> history = model.fit(
    ...     np.ones((2, 4)), np.ones((2, 2)), epochs=3, verbose=0,
    ...     callbacks=[AfterEpoch(epochs.append)])
    >>> epochs
    [0, 1, 2]
    """

    def __init__(self, update: Callable[[int], None]) -> None:
        super().__init__()
        self._update = update

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Calls the function."""
        self._update(epoch)
