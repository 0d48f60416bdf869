"""Measuring how long models take in a runtime, in turns."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_gss._checks import check_choice, check_integer, check_positive, reject
from keras_gss._keras import check_model, without_wrappers
from keras_gss._probe import random_inputs
from keras_gss.latency.runtimes import RUNTIMES, prepare

_TURN = 0.005  # seconds that a turn takes at least
_WARM_UP = 4  # calls, the last of which says how many fill a turn
_LONG = 1.0  # seconds; a call that takes longer is not repeated to warm up
_LONGEST = 10  # times as many rounds as asked for


@dataclass(frozen=True)
class Latencies:
    """How long models took.

    Attributes:
        seconds: per call, one number for each round, by the model's name.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Returns the median of a model's rounds, in seconds per call."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> tuple[float, float, float]:
        """Returns the median and the quartiles of one model's time over another's, by round.

        Example:
        >>> Latencies({"small": (1.0, 1.2, 1.1), "big": (2.0, 2.0, 2.0)}).ratio("small", to="big")
        (0.55, 0.525, 0.575)
        """
        within = np.divide(self.seconds[name], self.seconds[to])
        low, middle, high = np.quantile(within, [0.25, 0.5, 0.75])
        return float(middle), float(low), float(high)

    def noise(self, name: str, to: str) -> float:
        """Returns the standard error of `ratio`'s median, as a fraction of it.

        It is 1.2533 deviations over the root of the number of rounds if the rounds are normal and
        independent, the deviation being the distance of the quartiles over 1.349.
        """
        middle, low, high = self.ratio(name, to)
        return 1.2533 * (high - low) / 1.349 / middle / len(self.seconds[name]) ** 0.5


def measure_latency(
    models: Mapping[str, keras.Model],
    *,
    batch: int = 1,
    runtime: Literal["tf_saved_model", "litert", "onnx"] = "litert",
    threads: int = 1,
    rounds: int = 50,
    noise: float | None = None,
) -> Latencies:
    """Measures how long models take in the runtime that they are made for.

    They are written as `export` writes them, and take turns of a few calls, in an order that
    changes with each round: what slows the machine down for a while slows all of them down.

    Args:
        models: the models by any name; Sequential or functional.
        batch: integer >= 1, the number of samples (random ones) per call.
        runtime: "tf_saved_model" (the loaded SavedModel), "litert" or "onnx" (ONNX Runtime), see
            `export`.
        threads: integer >= 1, how many LiteRT or ONNX Runtime may use. TensorFlow's own are left
            as they are.
        rounds: integer >= 1, the turns of each model; one takes 5 ms or a call, the longer.
        noise: goes on for up to ten times as many rounds, until the standard error of every ratio
            to the first model's time is at most this fraction.

    Returns:
        The `Latencies`.

    Raises:
        TypeError, ValueError: an argument, before any work.
        ImportError: the runtime is absent.
        RuntimeError: it lacks an operation of a model, or is not available on the backend.

    Example:
    >>> import keras, keras_gss as gss
    >>> def dense(units):
    ...     return keras.Sequential([keras.Input((64,)), keras.layers.Dense(units)])
    >>> models = {"big": dense(1000), "small": dense(10)}
    >>> measured = gss.measure_latency(models, runtime="tf_saved_model", batch=100, rounds=3)
    >>> sorted(measured.seconds)
    ['big', 'small']
    """
    if not isinstance(models, Mapping) or not models:
        raise reject("models", "a dict of models", models)
    for model in models.values():
        check_model(model, "measure_latency")
    check_integer("rounds", rounds, minimum=1)
    if noise is not None:
        check_positive("noise", noise)
    check_runtime(runtime, batch, threads)
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        for number, (name, model) in enumerate(models.items()):
            model = without_wrappers(model)
            place = Path(folder) / str(number)
            place.mkdir()
            inputs = random_inputs(model, batch)
            calls[name] = prepare(runtime, model, inputs, threads, place)
        first, *others = calls
        taken = take_turns(calls, rounds)
        for _ in range(_LONGEST - 1):
            if noise is None or all(taken.noise(name, first) <= noise for name in others):
                break
            more = take_turns(calls, rounds).seconds
            taken = Latencies({name: taken.seconds[name] + more[name] for name in calls})
        return taken


def check_runtime(runtime: str, batch: int, threads: int) -> None:
    """Raises what `measure_latency` raises for these arguments."""
    check_choice("runtime", runtime, tuple(RUNTIMES))
    check_integer("batch", batch, minimum=1)
    check_integer("threads", threads, minimum=1)
    RUNTIMES[runtime].require()


def take_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> Latencies:
    """Times calls that take turns, each turn whole, in an order that changes with each round.

    Args:
        calls: functions without arguments, by name.
        rounds: the turns of each.
    """
    repeats = {}
    for name, call in calls.items():
        for _ in range(_WARM_UP):
            start = time.perf_counter()
            call()
            taken_by_one = time.perf_counter() - start
            if taken_by_one > _LONG:
                break
        repeats[name] = max(1, round(_TURN / taken_by_one))
    order = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in order:
            call, times = calls[name], range(repeats[name])
            start = time.perf_counter()
            for _ in times:
                call()
            taken[name].append((time.perf_counter() - start) / len(times))
        order = [*order[1:], order[0]]
    return Latencies({name: tuple(seconds) for name, seconds in taken.items()})
