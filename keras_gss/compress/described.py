"""What a run was asked for, checked and as plain values: by these a directory knows its run."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import keras

from keras_gss._checks import reject
from keras_gss._keras import leaf_layers, to_numpy
from keras_gss.procedures.base import Procedure
from keras_gss.regularizers import CrossLayerRegularizer
from keras_gss.schedules import FactorSchedule, Schedule


def described(
    regularizer: CrossLayerRegularizer | None,
    schedule: Schedule | None,
    procedure: Procedure | None,
    penalised: bool,
) -> dict[str, Any]:
    """Returns a method as plain values.

    Args:
        regularizer: as for `compress`.
        schedule: the same.
        procedure: the same.
        penalised: whether there is a penalty, given or declared by the layers.

    Raises:
        TypeError: `procedure` is none.
        ValueError: `schedule` is no function, or has no penalty to act on; `procedure` brings its
            own penalty beside another.
    """
    if schedule is not None and not callable(schedule):
        raise reject("schedule", "a function of the epoch such as WarmUpFactor(10)", schedule)
    if schedule is not None and not penalised:
        raise ValueError(
            "`schedule` says how strong a penalty is, and there is none: give a `regularizer` too."
        )
    _check_procedure(procedure, penalised)
    return {
        "regularizer": None if regularizer is None else keras.regularizers.serialize(regularizer),
        "schedule": _config(schedule) if isinstance(schedule, FactorSchedule) else named(schedule),
        "procedure": None if procedure is None else _config(procedure),
    }


def _check_procedure(procedure: Any, penalised: bool) -> None:
    if procedure is None:
        return
    if not isinstance(procedure, Procedure):
        raise TypeError(
            f"`procedure` must be a Procedure such as Spred(1e-5), or None. Received: "
            f"procedure={procedure!r}"
        )
    if penalised and not procedure.takes_penalty:
        raise ValueError(
            f"{procedure!r} brings a penalty of its own on weights that it replaces: it cannot be "
            "given with a `regularizer`, or to a model whose layers declare one."
        )


def _config(part: Any) -> dict[str, Any]:
    return {"class_name": type(part).__name__, "config": part.get_config()}


def named(function: Callable | None) -> str | None:
    """Returns what a function is called, as which alone a directory can know it."""
    return None if function is None else getattr(function, "__qualname__", type(function).__name__)


def fingerprint(model: keras.Model) -> str:
    """Returns a digest of a model's layers and weights, whatever the layers are called."""
    digest = hashlib.sha256()
    for _, layer in leaf_layers(model):
        config = {key: value for key, value in layer.get_config().items() if key != "name"}
        text = json.dumps(config, sort_keys=True, default=lambda value: type(value).__name__)
        digest.update(f"{type(layer).__name__} {text}".encode())
        for variable in layer.weights:
            digest.update(to_numpy(variable).tobytes())
    return digest.hexdigest()[:16]
