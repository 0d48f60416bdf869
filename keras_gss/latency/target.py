"""A latency as the target of pruning: what may remain is measured, not counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from keras_gss._checks import check_integer
from keras_gss._keras import without_wrappers
from keras_gss.count import count
from keras_gss.latency.measure import check_runtime, measure_latency
from keras_gss.pruning.budgets import Budget, BudgetError, MacsBudget
from keras_gss.pruning.prune import prune
from keras_gss.pruning.thresholds import Threshold
from keras_gss.slimming import slim

_ROUNDS = 30
_MORE = 4  # times as many rounds for the one that is chosen
_ATTEMPTS = 3  # how often the one chosen may turn out to have been lucky
_NOISE = 0.02


@dataclass(frozen=True, repr=False)
class Latency(MacsBudget):
    """Zeroes as little as leaves at most a fraction of the model's latency.

    MACs say little about time: a call has a cost of its own, and kernels like some widths better
    than others. So budgets of MACs are bisected, each model that they leave is cut, written and
    timed against the whole one in its runtime, in turns, and only one measured to be fast enough is
    taken: the one with the most MACs. It is measured once more, for longer, and if it was lucky the
    search goes on below it. Each measurement goes on, within limits, until its standard error is
    2 %.

    Two searches can end a little apart, since no two measurements agree; a quiet machine brings
    them together.

    Args:
        fraction: of the latency of the model passed, 0 < fraction <= 1.
        batch: integer >= 1, the samples per call.
        runtime: "tf_saved_model", "litert" or "onnx", see `measure_latency`.
        threads: integer >= 1, how many LiteRT or ONNX Runtime may use.
        probes: integer >= 1, how many models are tried; each halves the interval of MACs.
        by, biases, inputs, also, keep_strongest, round_to: see `MacsBudget`.

    Raises:
        ValueError: an argument is out of its range; in `masks` and `resolve`, no model tried was
            fast enough.
        ImportError, RuntimeError: in `masks` and `resolve`, see `measure_latency`.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(2000, "relu"),
    ...                           keras.layers.Dense(2)])
    >>> target = gss.Latency(0.8, batch=500, runtime="tf_saved_model", probes=3)
    >>> pruned = gss.prune(model, target, granularity="neuron")
    >>> gss.count(pruned).live_macs < gss.count(model).live_macs
    True
    """

    batch: int = field(default=1, kw_only=True)
    runtime: Literal["tf_saved_model", "litert", "onnx"] = field(default="litert", kw_only=True)
    threads: int = field(default=1, kw_only=True)
    probes: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("probes", self.probes, minimum=1)
        check_runtime(self.runtime, self.batch, self.threads)

    def resolve(
        self, model: keras.Model, granularity: str, dense: keras.Model | None = None
    ) -> Threshold:
        """Returns the threshold found, see `search`."""
        return self.search(model, granularity, dense)[0]

    def masks(self, model: keras.Model, granularity: str) -> Any:
        """Returns the masks of `resolve(model, granularity)`."""
        return self.resolve(model, granularity).masks(model, granularity)

    def search(
        self,
        model: keras.Model,
        granularity: str,
        dense: keras.Model | None = None,
        *,
        inputs: Literal["keep", "narrow", "select"] = "keep",
        tried: Sequence[dict[str, Any]] = (),
        say: Callable[[dict[str, Any]], None] = lambda entry: None,
    ) -> tuple[Threshold, list[dict[str, Any]]]:
        """Searches for the threshold that leaves the most MACs within the latency.

        Args:
            model: the model to prune.
            granularity: "element" or "neuron".
            dense: the model whose latency `fraction` is a fraction of; by default `model`.
            inputs: how the pruned models are cut, see `slim`.
            tried: what an earlier search of the same models has measured.
            say: is called with each new measurement.

        Returns:
            The threshold and what was measured, one dict per model tried: "macs_fraction" (the
            budget), "live_macs", "ratio" (the median, with its quartiles in "low" and "high", of
            the time over that of `dense`), "noise" (the median's standard error, as a fraction of
            it), "milliseconds", "rounds" (the least). "live_macs" is None where the budget could
            not be met.

        Raises:
            ValueError: no model tried was fast enough.
        """
        dense = without_wrappers(model if dense is None else dense)
        entries = list(tried)

        def measured(fraction: float, rounds: int) -> dict[str, Any]:
            for known in entries:
                if (known["macs_fraction"], known["rounds"]) == (fraction, rounds):
                    return known
            entry: dict[str, Any] = {"macs_fraction": fraction, "rounds": rounds, "live_macs": None}
            try:
                threshold = self._budget(fraction).resolve(model, granularity, dense)
            except BudgetError as error:
                entry["error"] = str(error)
            else:
                entry |= self._measure(prune(model, threshold, granularity), dense, inputs, rounds)
            entries.append(entry)
            say(entry)
            return entry

        high = 1.0
        for _ in range(_ATTEMPTS):
            low, fast = 0.0, None
            for _ in range(self.probes):
                middle = (low + high) / 2
                entry = measured(middle, _ROUNDS)
                if entry["live_macs"] is None:
                    low = middle
                elif entry["ratio"] <= self.fraction:
                    low, fast = middle, entry
                else:
                    high = middle
            if fast is None:
                break
            high = fast["macs_fraction"]
            if measured(high, _MORE * _ROUNDS)["ratio"] <= self.fraction:
                return self._budget(high).resolve(model, granularity, dense), entries
        raise BudgetError(self._too_slow(entries))

    def _budget(self, fraction: float) -> Budget:
        return MacsBudget(fraction, by=self.by, **self._options())

    def _measure(
        self, pruned: keras.Model, dense: keras.Model, inputs: Any, rounds: int
    ) -> dict[str, Any]:
        models = {"dense": dense, "slim": slim(pruned, inputs=inputs, check=False)}
        options: Any = {"batch": self.batch, "runtime": self.runtime, "threads": self.threads}
        taken = measure_latency(models, rounds=rounds, noise=_NOISE, **options)
        ratio, low, high = taken.ratio("slim", to="dense")
        return {
            "live_macs": count(pruned).live_macs,
            **{"ratio": ratio, "low": low, "high": high},
            "noise": taken.noise("slim", to="dense"),
            "milliseconds": {name: 1e3 * taken.median(name) for name in models},
        }

    def _too_slow(self, entries: list[dict[str, Any]]) -> str:
        timed = [entry for entry in entries if entry["live_macs"] is not None]
        said = f"`{self!r}`: no model tried was fast enough. "
        if not timed:
            return f"{said}{entries[-1]['error']}"
        best = min(timed, key=lambda entry: entry["ratio"])
        return (
            f"{said}The fastest took {best['ratio']:.2f} of the time ({best['low']:.2f} to "
            f"{best['high']:.2f} in half of the rounds), with {best['live_macs']:,} live MACs "
            "left: a call costs something whatever is in it. Use a larger fraction or batch."
        )
