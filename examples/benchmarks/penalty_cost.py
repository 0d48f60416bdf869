"""What the penalty adds to a training epoch: the same model and settings, with it and without.

    python examples/benchmarks/penalty_cost.py --model lenet-300-100 --out cost.json

Runs of `model.fit` with and without the penalty take turns, so that both see the same machine.
The first epoch of each run, in which Keras traces the step, is left out; medians are compared.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_gss as gss
from keras_gss import zoo
from keras_gss.compress.data import batches
from keras_gss.compress.phases import choose_speed

BATCH = 100


class Clock(keras.callbacks.Callback):
    """Seconds per epoch, from its first step to its last callback, the first epoch left out."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Stops it."""
        if epoch:
            self.seconds.append(time.perf_counter() - self._start)


def main():
    """Measures, prints one line and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=list(zoo.MODELS), default="lenet-300-100")
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind")
    parser.add_argument("--epochs", type=int, default=3, help="epochs timed per run")
    parser.add_argument("--factor", type=float, default=2e-6)
    parser.add_argument("--p", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    model = zoo.build(arguments.model)
    random = np.random.default_rng(0)
    inputs = random.random((arguments.samples, *model.input_shape[1:]), dtype=np.float32)
    labels = random.integers(0, 10, arguments.samples)
    steps = arguments.samples // BATCH
    speed = choose_speed(model, steps)
    seconds = {"without": [], "with": []}
    for turn in range(2 * arguments.rounds):
        # the order within a pair alternates: without, with, with, without, ...
        kind = "with" if turn % 4 in (1, 2) else "without"
        model = zoo.build(arguments.model)
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=speed.jit_compile,
            steps_per_execution=speed.steps_per_execution,
        )
        penalty = gss.GSSStructure(arguments.factor, p=arguments.p, inputs=True)
        clock = Clock()
        # Keras calls `on_epoch_end` in the order of the list: the clock stops after the penalty.
        callbacks = [gss.GroupSparsity(penalty), clock] if kind == "with" else [clock]
        model.fit(
            batches((inputs, labels), BATCH, (0, 0), 0, arguments.epochs + 1),
            epochs=arguments.epochs + 1,
            steps_per_epoch=steps,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )
        seconds[kind] += clock.seconds
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    ratio = medians["with"] / medians["without"]
    print(
        f"{arguments.model}: {medians['without']:.2f} s per epoch without the penalty, "
        f"{medians['with']:.2f} s with it: {ratio:.2f}x"
    )
    if arguments.out:
        result = {
            "model": arguments.model,
            "batch_size": BATCH,
            "samples": arguments.samples,
            "penalty": penalty.get_config(),
            "jit_compile": speed.jit_compile,
            "steps_per_execution": speed.steps_per_execution,
            "median_seconds": medians,
            "ratio": ratio,
            "seconds": seconds,
            "cpus": os.cpu_count(),
            "versions": {
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "python": platform.python_version(),
            },
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
