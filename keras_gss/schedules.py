"""How strong the penalty is at each epoch: multipliers of a regularizer's factor."""

from collections.abc import Callable
from typing import Any

import keras

from keras_gss._checks import check_factor, check_integer, is_real, reject

Schedule = Callable[[int], float]


class FactorSchedule:
    """Base of the schedules that can be saved; any function of the epoch is one that cannot."""

    def __call__(self, epoch: int) -> float:
        """Returns the multiplier of the epoch (counted from 0, as Keras does)."""
        raise NotImplementedError(f"{type(self).__name__} does not define `__call__`.")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        raise NotImplementedError(f"{type(self).__name__} does not define `get_config`.")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FactorSchedule":
        """Builds the schedule again from its config."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_gss")
class ConstantFactor(FactorSchedule):
    """The same multiplier at every epoch.

    Args:
        multiplier: finite number >= 0; what the regularizer's factor is multiplied by.

    Raises:
        ValueError: if `multiplier` is no finite number >= 0.

    Example:
    >>> import keras_gss as gss
    >>> gss.ConstantFactor(0.5)(epoch=7)
    0.5
    """

    def __init__(self, multiplier: float = 1.0) -> None:
        self.multiplier = check_factor("multiplier", multiplier)

    def __call__(self, epoch: int) -> float:
        """Returns the multiplier of the epoch (counted from 0, as Keras does)."""
        return self.multiplier

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"multiplier": self.multiplier}


@keras.saving.register_keras_serializable(package="keras_gss")
class WarmUpFactor(FactorSchedule):
    """A linear ramp to the regularizer's factor: up, or from a `start` above 1 down.

    The multiplier of epoch e is `start + (1 - start) * min(1, e / epochs)`: `start` in the first
    epoch, 1 from epoch `epochs` on (epochs counted from 0).

    Args:
        epochs: integer >= 1; number of epochs below full strength.
        start: finite number >= 0; multiplier of the first epoch (0: no penalty yet; 3: thrice it).

    Raises:
        ValueError: if an argument is out of range.

    Example:
    >>> import keras_gss as gss
    >>> ramp = gss.WarmUpFactor(epochs=4)
    >>> [ramp(epoch) for epoch in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, epochs: int, start: float = 0.0) -> None:
        self.epochs = check_integer("epochs", epochs, minimum=1)
        self.start = check_factor("start", start)

    def __call__(self, epoch: int) -> float:
        """Returns the multiplier of the epoch (counted from 0, as Keras does)."""
        return self.start + (1.0 - self.start) * min(1.0, epoch / self.epochs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"epochs": self.epochs, "start": self.start}


def multiplier_at(schedule: Schedule, epoch: int) -> float:
    """Returns what a schedule says for an epoch, checked.

    Args:
        schedule: any function of the epoch (an int from 0) that returns a multiplier.
        epoch: the epoch, as Keras counts it: a resumed `fit(initial_epoch=5)` starts at 5.

    Raises:
        ValueError: if the schedule returns no finite number >= 0.

    Example:
    >>> multiplier_at(lambda epoch: 0.9**epoch, 2)
    0.81
    """
    multiplier = schedule(epoch)
    if not is_real(multiplier) or multiplier < 0:
        raise reject(f"schedule({epoch})", "a finite number >= 0", multiplier)
    return float(multiplier)
