"""The threshold that a target asks for, chosen on validation data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_gss._checks import check_integer, is_real, reject
from keras_gss.compress.phases import Phase, Trainer
from keras_gss.compress.state import RunDirectory
from keras_gss.count import count
from keras_gss.latency import Latency
from keras_gss.pruning import StdThreshold, prune

HIGHEST_RATIO = 4.0


@dataclass(frozen=True)
class AccuracyDrop:
    """A target: cut as much as costs at most `drop` of the validation accuracy.

    `compress` bisects the ratio of `StdThreshold` for it. What counts is the accuracy after
    `probe_epochs` epochs of finetuning, because right after the cut it says little. It is compared
    with the accuracy before the threshold or before the training under the penalty, whichever is
    higher.

    Args:
        drop: what may be lost, in parts of one: 0.01 is one percentage point. 0 <= drop < 1.
        probe_epochs: integer >= 0.
        probes: integer >= 1; each halves the interval of ratios, which begins as 0 .. 4.
        round_to: see `StdThreshold`.

    Raises:
        ValueError: an argument out of its range.

    Example:
    >>> AccuracyDrop(0.01)
    AccuracyDrop(drop=0.01, probe_epochs=1, probes=8, round_to=1)
    >>> AccuracyDrop(2)
    Traceback (most recent call last):
    ValueError: `drop` must be a number with 0 <= drop < 1. Received: drop=2
    """

    drop: float
    probe_epochs: int = 1
    probes: int = 8
    round_to: int = 1

    def __post_init__(self) -> None:
        if not is_real(self.drop) or not 0 <= self.drop < 1:
            raise reject("drop", "a number with 0 <= drop < 1", self.drop)
        check_integer("probe_epochs", self.probe_epochs)
        check_integer("probes", self.probes, minimum=1)
        check_integer("round_to", self.round_to, minimum=1)


def largest_accepted(
    accepts: Callable[[float], bool], low: float, high: float, probes: int
) -> float:
    """Bisects for the largest number that is accepted, if smaller ones are accepted too.

    Args:
        accepts: the question.
        low: a number taken as accepted without asking.
        high: a number taken as refused without asking.
        probes: how often to ask.

    Returns:
        The largest number accepted, `low` if none was.

    Example:
    >>> largest_accepted(lambda ratio: ratio < 1.2, low=0.0, high=4.0, probes=4)
    1.0
    """
    for _ in range(probes):
        middle = (low + high) / 2
        if accepts(middle):
            low = middle
        else:
            high = middle
    return low


def settle(
    target: Any,
    trainer: Trainer,
    model: keras.Model,
    *,
    dense: keras.Model,
    dense_accuracy: float,
    granularity: str,
    inputs: bool,
    cut_inputs: str,
    finetune: Phase,
) -> tuple[Any, list[dict[str, Any]]]:
    """Settles the threshold that a target asks for.

    Args:
        target: an `AccuracyDrop`, for which the `StdThreshold` of the largest ratio is searched
            whose accuracy stays; a `Latency`, which is measured; a budget, which is resolved; or
            any other threshold, returned.
        trainer: evaluates, and finetunes before that; its directory keeps what was tried.
        model: the model to prune.
        dense: the model given to `compress`, of whose cost a budget is a fraction: procedures may
            hand over weights that are zero already.
        dense_accuracy: the validation accuracy that an `AccuracyDrop` is about.
        granularity: see `prune`.
        inputs: whether input features may go too, for an `AccuracyDrop`.
        cut_inputs: what `slim` will do with them, for a `Latency`.
        finetune: the phase that the probes finetune as, but for its length.

    Returns:
        The threshold, and what was tried: for an `AccuracyDrop` one dict per ratio (ratio,
        accuracy, live_macs), for a `Latency` see `Latency.search`.

    Raises:
        ValueError: no ratio tried keeps the accuracy; a budget cannot be met.
    """
    if isinstance(target, Latency):
        return _settle_latency(target, trainer, model, granularity, dense, cut_inputs)
    if hasattr(target, "resolve"):
        return target.resolve(model, granularity, dense), []
    if not isinstance(target, AccuracyDrop):
        return target, []
    floor = dense_accuracy - target.drop
    tried: list[dict[str, float]] = trainer.run.read_json("search.json") or []
    known = {entry["ratio"]: entry for entry in tried}
    forgetful = replace(trainer, run=RunDirectory(None, {}), say=lambda line: None)
    probe = replace(finetune, name="probe", epochs=target.probe_epochs)

    def threshold_of(ratio: float) -> StdThreshold:
        return StdThreshold(ratio, inputs=inputs, round_to=target.round_to)

    def accuracy_at(ratio: float) -> dict[str, float]:
        try:
            pruned = prune(model, threshold_of(ratio), granularity=granularity)
        except ValueError:  # the ratio would empty a layer; no other has no live MACs
            return {"ratio": ratio, "accuracy": 0.0, "live_macs": 0}
        forgetful.fit(pruned, probe)
        accuracy = forgetful.evaluate(pruned)["accuracy"]
        return {"ratio": ratio, "accuracy": accuracy, "live_macs": count(pruned).live_macs}

    def accepts(ratio: float) -> bool:
        if ratio not in known:
            known[ratio] = accuracy_at(ratio)
            tried.append(known[ratio])
            trainer.run.write_json("search.json", tried)
        entry = known[ratio]
        trainer.say(
            f"ratio {ratio:.4f}  validation {entry['accuracy']:.4f} (at least {floor:.4f})  "
            f"MACs {entry['live_macs']:,}"
        )
        return entry["live_macs"] > 0 and entry["accuracy"] >= floor

    ratio = largest_accepted(accepts, 0.0, HIGHEST_RATIO, target.probes)
    if ratio == 0:
        best = max(entry["accuracy"] for entry in tried)
        raise ValueError(
            f"`target`: no ratio tried keeps a validation accuracy of {floor:.4f}; the best was "
            f"{best:.4f}. Allow a larger drop, or train under a stronger penalty for longer. "
            f"Received: target={target!r}"
        )
    return threshold_of(ratio), tried


def _settle_latency(
    target: Latency,
    trainer: Trainer,
    model: keras.Model,
    granularity: str,
    dense: keras.Model,
    cut_inputs: Any,
) -> tuple[Any, list[dict[str, Any]]]:
    tried: list[dict[str, Any]] = trainer.run.read_json("search.json") or []

    def keep(entry: dict[str, Any]) -> None:
        tried.append(entry)
        trainer.run.write_json("search.json", tried)
        if entry["live_macs"] is None:
            return trainer.say(entry["error"])
        trainer.say(
            f"MACs {entry['live_macs']:,}  {target.runtime} latency {entry['ratio']:.3f} of the "
            f"whole model's, +/- {entry['noise']:.1%} of that (at most {target.fraction:g})"
        )

    return target.search(model, granularity, dense, inputs=cut_inputs, tried=tuple(tried), say=keep)
