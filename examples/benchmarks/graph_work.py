"""How long `find_groups` and `slim` take on chains of growing depth and on `keras.applications`.

    python examples/benchmarks/graph_work.py --out examples/results/graph_work.json

Building the models is not timed. Every figure is a median over `--rounds` calls after one that is
not counted; `seconds` holds them all. CPU seconds are those of the process, all threads together:
they tell on a shared machine what the wall clock hides. `slim` compares the outputs on random
inputs unless told not to; it is timed with that check and without it.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_gss as gss

sys.setrecursionlimit(10_000)  # Keras walks a graph of 1,600 layers recursively
DEPTHS = (10, 100, 400, 1600)
# The deepest, the widest and the most tangled ones, and the usual yardstick.
APPLICATIONS = ("ResNet50", "DenseNet201", "EfficientNetB7", "NASNetLarge", "ConvNeXtXLarge")
SLIMMED = ("ResNet50",)


def chain(depth):
    """Builds `depth` convolutions of 16 channels, one after the other."""
    x = inputs = keras.Input((8, 8, 3))
    for _ in range(depth):
        x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def halve(model):
    """Zeroes what reads the first half of the neurons of every group."""
    for group in gss.find_groups(model):
        for piece in group.outgoing if group.removable else ():
            value = keras.ops.convert_to_numpy(piece.weight).copy()
            np.moveaxis(value, piece.axis, 0)[
                (piece.index >= 0) & (piece.index < group.size // 2)
            ] = 0
            piece.weight.assign(value)


def measure(function, rounds):
    """Calls `function` once unmeasured, then `rounds` times; returns wall and CPU seconds."""
    function()
    wall, cpu = [], []
    for _ in range(rounds):
        started, used = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {
        "median": statistics.median(wall),
        "min": min(wall),
        "max": max(wall),
        "cpu_median": statistics.median(cpu),
        "seconds": wall,
    }


def record(kind, name, model, rounds, slimmed):
    """Measures one model and prints a line."""
    row = {
        "kind": kind,
        "model": name,
        "layers": len(model.layers),
        "parameters": model.count_params(),
        "find_groups": measure(lambda: gss.find_groups(model), rounds),
    }
    if slimmed:
        halve(model)
        row["slim_unchecked"] = measure(lambda: gss.slim(model, check=False), rounds)
        row["slim"] = measure(lambda: gss.slim(model), rounds)
    figures = (
        f"{key} {value['median']:.3f} s (CPU {value['cpu_median']:.3f})"
        for key, value in row.items()
        if isinstance(value, dict)
    )
    print(f"{name}: {len(model.layers)} layers, {', '.join(figures)}", flush=True)
    return row


def machine():
    """Describes where and with what the figures were taken."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "keras_gss": gss.__version__,
    }


def main():
    """Measures what was asked for, prints a line each and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depths", type=int, nargs="*", default=DEPTHS)
    parser.add_argument("--models", nargs="*", default=APPLICATIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine_before": machine(),
        "rows": [],
    }
    cases = [("chain", f"chain of {n}", lambda n=n: chain(n), n <= 400) for n in arguments.depths]
    for name in arguments.models:
        constructor = getattr(keras.applications, name)
        cases.append(("application", name, lambda c=constructor: c(weights=None), name in SLIMMED))
    for kind, name, build, slimmed in cases:
        result["rows"].append(record(kind, name, build(), arguments.rounds, slimmed))
        result["machine_after"] = machine()
        if arguments.out:  # after every row: a run that is stopped has told what it knew
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
