"""What an epoch of `compress` takes beside its arithmetic, and beside a plain `fit`.

    python examples/benchmarks/epoch_cost.py --out examples/results/epoch_cost.json

The arithmetic is what no training can leave out: the products of every dense layer and convolution
with their kernels, forward and for both gradients (but that of the first layer's input), by
TensorFlow in one compiled function, on as many threads. Activations, pooling, the loss, the
optimizer, the metrics, the data and Keras come on top. `compress` trains under `GSSStructure` as
its log says; its epochs hold the validation on a tenth of the samples and the checkpoint too, which
`fit` and the arithmetic leave out. The three take turns; medians over the rounds are compared, and
the spread is the quartiles of the ratios within a round.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from graph_work import machine

import keras_gss as gss
from keras_gss import zoo
from keras_gss.compress.phases import choose_speed

BATCH, SAMPLES = 100, 60_000
AT_MOST = {"lenet-300-100": 3.0, "lenet-5": 2.0}  # times the arithmetic


def arithmetic(model):
    """Returns a function that does the products of one step of training."""
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    random = np.random.default_rng(0)

    def drawn(shape):
        return tf.constant(random.random(shape, dtype=np.float32))

    inputs = [drawn((BATCH, *layer.input.shape[1:])) for layer in layers]
    kernels = [drawn(layer.kernel.shape) for layer in layers]
    errors = [drawn((BATCH, *layer.output.shape[1:])) for layer in layers]

    def step():
        found = []
        for number, (layer, x, w, e) in enumerate(
            zip(layers, inputs, kernels, errors, strict=True)
        ):
            if len(w.shape) == 2:
                found += [x @ w, tf.matmul(x, e, transpose_a=True)]
                found += [tf.matmul(e, w, transpose_b=True)] if number else []
            else:
                how = {"strides": [1, 1, 1, 1], "padding": layer.padding.upper()}
                found.append(tf.nn.conv2d(x, w, **how))
                found.append(tf.raw_ops.Conv2DBackpropFilter(
                    input=x, filter_sizes=w.shape, out_backprop=e, **how))  # fmt: skip
                if number:
                    found.append(tf.raw_ops.Conv2DBackpropInput(
                        input_sizes=x.shape, filter=w, out_backprop=e, **how))  # fmt: skip
        return found

    compiled = tf.function(step)
    compiled()
    return compiled


def plain(model, data):
    """Returns a function that trains an epoch by `fit` on arrays, as anyone would first."""
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return lambda: model.fit(*data, batch_size=BATCH, verbose=0)


def seconds_of(function, times=1):
    """Returns the seconds that some calls take."""
    began = time.perf_counter()
    for _ in range(times):
        function()
    return time.perf_counter() - began


def compressed(name, data, validation, epochs):
    """Returns the seconds of the epochs under the penalty, but for the first."""
    with tempfile.TemporaryDirectory() as folder:
        result = gss.compress(
            zoo.build(name), data, validation, target=gss.StdThreshold(0.1),
            regularizer=gss.GSSStructure(1e-6, inputs=True), epochs=epochs, finetune_epochs=0,
            batch_size=BATCH, directory=folder, timed=False, verbose=False,
        )  # fmt: skip
    return [entry["seconds"] for entry in result.history][1:]


def measured(name, rounds, epochs):
    """Returns the row of a model."""
    random = np.random.default_rng(0)
    shape = zoo.build(name).input_shape[1:]

    def made(samples):
        return random.random((samples, *shape), dtype=np.float32), random.integers(0, 10, samples)

    data, validation = made(SAMPLES), made(SAMPLES // 10)
    step, fit = arithmetic(zoo.build(name)), plain(zoo.build(name), data)
    fit()
    taken = {"arithmetic": [], "compress": [], "plain fit": []}
    for _ in range(rounds):
        taken["arithmetic"].append(seconds_of(step, SAMPLES // BATCH))
        taken["compress"] += compressed(name, data, validation, epochs + 1)
        taken["plain fit"].append(seconds_of(fit))
    medians = {kind: statistics.median(seconds) for kind, seconds in taken.items()}
    ratios = {kind: medians[kind] / medians["arithmetic"] for kind in ("compress", "plain fit")}
    of_rounds = {kind: np.reshape(seconds, (rounds, -1)) for kind, seconds in taken.items()}
    spread = {
        kind: np.quantile(of_rounds[kind] / of_rounds["arithmetic"], [0.25, 0.75]).tolist()
        for kind in ratios
    }
    chosen = choose_speed(zoo.build(name), SAMPLES // BATCH)
    return {
        **{"model": name, "compress_chose": str(chosen), "times_the_arithmetic": ratios},
        **{"spread": spread, "asked_at_most": AT_MOST[name]},
        **{"median_seconds": medians, "seconds": taken},
    }


def main():
    """Measures, prints a line per model and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(AT_MOST), default=list(AT_MOST))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of `compress` in a round")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if keras.backend.backend() != "tensorflow":
        parser.error("the arithmetic is TensorFlow's: set KERAS_BACKEND=tensorflow")
    load = [os.getloadavg()[0]]
    rows = []
    for name in arguments.models:
        row = measured(name, arguments.rounds, arguments.epochs)
        rows.append(row)
        times = ", ".join(f"{k} {v:.2f}x" for k, v in row["times_the_arithmetic"].items())
        print(
            f"{name}: {row['median_seconds']['arithmetic']:.3f} s an epoch of arithmetic, {times}"
        )
    if arguments.out:
        load.append(os.getloadavg()[0])
        result = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "machine": {**machine(), "load_before_and_after": load},
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
