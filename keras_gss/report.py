"""Before and after: what a model was made of, cost and scored, and what became of it."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from keras_gss import _keras
from keras_gss._probe import random_inputs
from keras_gss.count import Count, LayerCount, count
from keras_gss.slimming import SlimReport

_BATCHES = (1, 32)
_ROUNDS = 200
_SECONDS = 1.0


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after; each pair is (before, after).

    Attributes:
        name: the layer's path.
        kind: its class name.
        shape: of its main kernel.
        parameters: number of weights, biases and statistics.
        macs: multiply-accumulates that execute for one sample.
    """

    name: str
    kind: str
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    parameters: tuple[int, int]
    macs: tuple[int, int]


@dataclass(frozen=True)
class Report:
    """A model before and after; each pair is (before, after).

    Attributes:
        layers: the layers that have weights.
        parameters: number of weights, biases and statistics.
        macs: multiply-accumulates that execute for one sample.
        live_macs: those between inputs and neurons that matter (the paper's FLOPs).
        accuracy: by the data it was measured on, as fractions.
        file_bytes: of the uncompiled model's `.keras` file.
        latency: median seconds per call, by batch size; empty if not measured.
        max_difference: largest |slim - masked| over the largest |masked| on random inputs; None
            if it was not checked.
        cut: neurons per group.
        input_features: per input, all of them and the used ones.
        kept: why a layer stayed as it was, by its path.
    """

    layers: tuple[LayerChange, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    live_macs: tuple[int, int]
    accuracy: Mapping[str, tuple[float, float]]
    file_bytes: tuple[int, int]
    latency: Mapping[int, tuple[float, float]]
    max_difference: float | None
    cut: Mapping[str, tuple[int, int]]
    input_features: Mapping[str, tuple[int, int]]
    kept: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists, dicts, numbers and strings, for `json.dump`."""
        return asdict(self)

    def table(self) -> str:
        """Returns the report as text for a terminal."""
        return "\n\n".join(part for part in (self._layers(), self._totals(), self._notes()) if part)

    __str__ = table

    def _layers(self) -> str:
        header = (
            "layer",
            "kind",
            "shape",
            "-> after",
            "parameters",
            "-> after",
            "MACs",
            "-> after",
        )
        rows: list[Sequence[str]] = [header]
        for layer in self.layers:
            shapes = ("x".join(map(str, shape)) for shape in layer.shape)
            numbers = (f"{number:,}" for number in (*layer.parameters, *layer.macs))
            rows.append((layer.name, layer.kind, *shapes, *numbers))
        totals = (f"{number:,}" for number in (*self.parameters, *self.macs))
        rows.append(("total", "", "", "", *totals))
        return format_table(rows, left=4)

    def _totals(self) -> str:
        rows: list[Sequence[str]] = [("", "before", "after", "")]
        rows.append(_compared("parameters", self.parameters, "{:,}"))
        rows.append(_compared("MACs, executed", self.macs, "{:,}"))
        rows.append(_compared("MACs, live", self.live_macs, "{:,}"))
        rows.append(_compared("file size (.keras), bytes", self.file_bytes, "{:,}"))
        for batch, seconds in self.latency.items():
            milliseconds = (1e3 * seconds[0], 1e3 * seconds[1])
            rows.append(_compared(f"latency at batch {batch}, ms", milliseconds, "{:.3f}"))
        for name, (before, after) in self.accuracy.items():
            points = f"{100 * (after - before):+.2f} points"
            rows.append((f"accuracy, {name}", f"{before:.2%}", f"{after:.2%}", points))
        return format_table(rows, left=1)

    def _notes(self) -> str:
        lines = [
            f"neurons of {name}: " + (f"{before:,} -> {after:,}" if after < before else "all stay")
            for name, (before, after) in self.cut.items()
        ]
        for name, (features, used) in self.input_features.items():
            lines.append(f"input {name}: {used:,} of {features:,} features are used")
        lines += [f"kept {path}: {reason}" for path, reason in self.kept.items()]
        if self.max_difference is not None:
            lines.append(
                "on random inputs, slim and masked outputs differ by at most "
                f"{self.max_difference:.1e} of the largest"
            )
        return "\n".join(lines)


def compare(
    before: keras.Model,
    after: keras.Model,
    *,
    slimming: SlimReport | None = None,
    accuracy: Mapping[str, tuple[float, float]] | None = None,
    timed: bool = True,
) -> Report:
    """Measures two models and puts the figures side by side.

    Args:
        before: a built Keras 3 Sequential or functional model.
        after: what became of it, with the same layer names.
        slimming: what `gss.slim(..., return_report=True)` told.
        accuracy: fractions before and after, by the data they were measured on.
        timed: measure the latency too, which takes about two seconds.

    Returns:
        The `Report`.

    Example:
    >>> import keras, keras_gss as gss
    >>> from keras_gss.report import compare
    >>> def model(units):
    ...     return keras.Sequential(
    ...         [keras.Input((4,)), keras.layers.Dense(units, name="hidden")]
    ...     )
    >>> print(compare(model(3), model(2), timed=False).table().splitlines()[1])
    hidden  Dense  4x3    4x2               15        10    12         8
    """
    counts = count(before), count(after)
    return Report(
        layers=_layer_changes(*counts),
        parameters=(counts[0].parameters, counts[1].parameters),
        macs=(counts[0].macs, counts[1].macs),
        live_macs=(counts[0].live_macs, counts[1].live_macs),
        accuracy=dict(accuracy or {}),
        file_bytes=(file_bytes(before), file_bytes(after)),
        latency={batch: latency(before, after, batch) for batch in _BATCHES} if timed else {},
        max_difference=slimming.max_difference if slimming else None,
        cut=dict(slimming.cut) if slimming else {},
        input_features=dict(slimming.input_features) if slimming else {},
        kept=dict(slimming.kept) if slimming else {},
    )


def _layer_changes(before: Count, after: Count) -> tuple[LayerChange, ...]:
    later = {layer.name: layer for layer in after.layers}
    gone = LayerCount("", "", (), 0, 0, 0, 0, 0, 0, 0)
    return tuple(
        LayerChange(
            name=layer.name,
            kind=layer.kind,
            shape=(layer.shape, later.get(layer.name, gone).shape),
            parameters=(layer.parameters, later.get(layer.name, gone).parameters),
            macs=(layer.macs, later.get(layer.name, gone).macs),
        )
        for layer in before.layers
    )


def file_bytes(model: keras.Model) -> int:
    """Returns the size of a model's `.keras` file, without optimizer state, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _keras.rebuild(model).save(path)
        return path.stat().st_size


def latency(before: keras.Model, after: keras.Model, batch: int) -> tuple[float, float]:
    """Measures how long one inference call takes, for two models in turns.

    The calls alternate, so that both models see the same machine, and the median is told, which
    other processes move least. Each call is one compiled function on inputs already in memory.

    Args:
        before: a built Keras 3 model.
        after: another one.
        batch: number of samples per call.

    Returns:
        Median seconds per call of the two.
    """
    calls = [_compiled(model, batch) for model in (before, after)]
    for call in calls * 3:
        call()
    measured: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + _SECONDS
    while len(measured[0]) < _ROUNDS and (not measured[0] or time.perf_counter() < end):
        for call, seconds in zip(calls, measured, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return statistics.median(measured[0]), statistics.median(measured[1])


def _compiled(model: keras.Model, batch: int) -> Callable[[], Any]:
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, random_inputs(model, batch))
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        run = tf.function(lambda x: model(x, training=False))
        return lambda: keras.tree.map_structure(keras.ops.convert_to_numpy, run(inputs))
    if backend == "jax":
        import jax

        state = (
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
        )
        step = jax.jit(lambda state, x: model.stateless_call(*state, x, training=False)[0])
        return lambda: jax.block_until_ready(step(state, inputs))
    return lambda: model(inputs, training=False)


def _compared(name: str, pair: tuple[float, float], form: str) -> tuple[str, str, str, str]:
    factor = f"{pair[0] / pair[1]:.1f}x" if pair[1] else ""
    return name, form.format(pair[0]), form.format(pair[1]), factor


def format_table(rows: Sequence[Sequence[str]], left: int) -> str:
    """Lays rows of cells out in columns two spaces apart, the first `left` of them left-aligned.

    Example:
    >>> print(format_table([("layer", "MACs"), ("dense", "12"), ("logits", "1,200")], left=1))
    layer    MACs
    dense      12
    logits  1,200
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k < left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
