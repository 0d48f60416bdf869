"""Checks of arguments, each raising one clear sentence that names the argument and repeats it.

Every check returns the value as a plain Python type, so that configs hold plain values. All
of them raise `ValueError`, also for a wrong type, as the checks of `keras.regularizers` do.
"""

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

Choice = TypeVar("Choice")


def reject(name: str, expected: str, value: Any) -> ValueError:
    """Returns the error "`name` must be ... Received: name=..." for the caller to raise.

    Example:
    >>> str(reject("factor", "a finite number >= 0", -1))
    '`factor` must be a finite number >= 0. Received: factor=-1'
    """
    return ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def is_real(value: Any) -> bool:
    """Whether `value` is a finite Python or NumPy real number; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer beyond the range of float
        return False


def check_factor(name: str, value: Any) -> float:
    """Returns `value` as a float if it is a finite number >= 0.

    Raises:
        ValueError: negative, NaN, infinite, boolean, text or no number at all.

    Example:
    >>> check_factor("factor", 1)
    1.0
    >>> check_factor("factor", float("nan"))
    Traceback (most recent call last):
    ValueError: `factor` must be a finite number >= 0. Received: factor=nan
    """
    if not is_real(value) or value < 0:
        raise reject(name, "a finite number >= 0", value)
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Returns `value` as a float if it is a finite number > 0; ValueError otherwise."""
    if not is_real(value) or value <= 0:
        raise reject(name, "a finite number > 0", value)
    return float(value)


def check_width(name: str, value: Any) -> float:
    """Returns `value` as a float if it is finite and >= 1e-9: its square is no zero in float32."""
    if not is_real(value) or value < 1e-9:
        raise reject(name, "a finite number >= 1e-9", value)
    return float(value)


def check_fraction(name: str, value: Any) -> float:
    """Returns `value` as a float if 0 < value <= 1; ValueError otherwise.

    Example:
    >>> check_fraction("fraction", 1.5)
    Traceback (most recent call last):
    ValueError: `fraction` must be a number with 0 < fraction <= 1. Received: fraction=1.5
    """
    if not is_real(value) or not 0 < value <= 1:
        raise reject(name, f"a number with 0 < {name} <= 1", value)
    return float(value)


def check_share(name: str, value: Any) -> float:
    """Returns `value` as a float if 0 <= value <= 1; ValueError otherwise."""
    if not is_real(value) or not 0 <= value <= 1:
        raise reject(name, "a number from 0 to 1", value)
    return float(value)


def check_integer(name: str, value: Any, minimum: int = 0) -> int:
    """Returns `value` as an int if it is an integer (no boolean) >= `minimum`."""
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integral or value < minimum:
        raise reject(name, f"an integer >= {minimum}", value)
    return int(value)


def check_number_or_share(name: str, value: Any) -> int | float:
    """Returns `value`: an integer >= 0, a number of things, or a float from 0 to 1, a share.

    Example:
    >>> check_number_or_share("h", 3), check_number_or_share("h", 0.25)
    (3, 0.25)
    """
    if not is_real(value) or value < 0 or (not isinstance(value, numbers.Integral) and value > 1):
        raise reject(name, "an integer >= 0, or a float from 0 to 1", value)
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_flag(name: str, value: Any) -> bool:
    """Returns `value` if it is True or False (NumPy's too); ValueError otherwise."""
    if not isinstance(value, (bool, np.bool_)):
        raise reject(name, "True or False", value)
    return bool(value)


def check_choice(name: str, value: Any, choices: Sequence[Choice]) -> Choice:
    """Returns the member of `choices` that equals `value`; ValueError if none does.

    Booleans equal no number here, although Python says `True == 1`.

    Example:
    >>> check_choice("p", 2.0, (1, 2))
    2
    >>> check_choice("inputs", "drop", ("keep", "narrow"))
    Traceback (most recent call last):
    ValueError: `inputs` must be one of 'keep', 'narrow'. Received: inputs='drop'
    """
    comparable = isinstance(value, (str, numbers.Real))
    for choice in choices:
        if comparable and isinstance(value, bool) == isinstance(choice, bool) and value == choice:
            return choice
    raise reject(name, f"one of {', '.join(map(repr, choices))}", value)


def check_threshold(name: str, value: Any) -> Any:
    """Returns `value` if it has a method `masks`, as thresholds do; TypeError otherwise."""
    if not callable(getattr(value, "masks", None)):
        raise TypeError(
            f"`{name}` must have a method `masks(model, granularity)`, as StdThreshold(0.3) "
            f"has. Received: {name}={value!r}"
        )
    return value


def check_axes(name: str, value: Any) -> tuple[int, ...]:
    """Returns `value`, one axis or several, as a tuple of ints without repetitions.

    Negative axes stay as they are: what they mean depends on the rank they are applied to.

    Example:
    >>> check_axes("inner", [0, 1])
    (0, 1)
    >>> check_axes("inner", 0)
    (0,)
    """
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict))
    axes = tuple(value) if several else (value,)
    for axis in axes:
        if not isinstance(axis, numbers.Integral) or isinstance(axis, bool):
            raise reject(name, "an axis (an integer) or a tuple of axes", value)
    if len(set(axes)) != len(axes):
        raise reject(name, "a tuple of axes without repetitions", value)
    return tuple(int(axis) for axis in axes)
