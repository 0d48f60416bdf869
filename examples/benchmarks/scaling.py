"""How the penalty's time and memory grow with parameters, layers, neurons and batch.

    python examples/benchmarks/scaling.py --out examples/results/scaling.json

Networks of Dense layers train with and without `GSSStructure`, some steps of each in turns, in the
setting that `compress` chooses. What the penalty adds is the difference of the lower quartiles; the
slope is that of a line through the logarithms: 1 is linear, 0 does not depend on it. Peak memory is
that of a process of its own per network, less what the same process without penalty takes. The
figure `scaling.png` is drawn beside the JSON file.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from graph_work import machine
from keras import layers
from matplotlib.ticker import NullLocator

import keras_gss as gss

STEPS = 10  # in one execution
# What grows: networks of (x, width of the inputs, hidden widths, batch).
SERIES = {
    "parameters": [(2 * w * w, w, (w, w), 100) for w in (128, 256, 512, 1024, 2048)],
    "layers": [(n, 256, (256,) * n, 100) for n in (2, 4, 8, 16, 32)],
    "neurons": [(n, 2**19 // n, (n,), 100) for n in (64, 256, 1024, 4096)],
    "batch": [(b, 512, (512, 512), b) for b in (16, 64, 256, 1024)],
}


def network(width, hidden, penalised):
    """Returns a compiled network of Dense layers."""
    inside = [layers.Dense(n, "relu") for n in hidden]
    model = keras.Sequential([keras.Input((width,)), *inside, layers.Dense(10)])
    if penalised:
        gss.attach(model, gss.GSSStructure(1e-6))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=True, steps_per_execution=STEPS)
    return model


def executions(model, width, batch):
    """Returns a function that trains `STEPS` steps."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x, y = rng.random((batch, width), np.float32), rng.integers(0, 10, batch)
    endless = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    model.make_train_function()
    return lambda: model.train_function(endless)


def timed(case, rounds):
    """Returns the milliseconds per step of one case, plain and penalised, and what is added."""
    x, width, hidden, batch = case
    runs = [executions(network(width, hidden, kind), width, batch) for kind in (False, True)]
    taken = []
    for turn in range(rounds + 2):
        took = [0.0, 0.0]
        for kind in (0, 1) if turn % 2 else (1, 0):
            started = time.perf_counter()
            keras.tree.map_structure(np.asarray, runs[kind]())
            took[kind] = 1e3 * (time.perf_counter() - started) / STEPS
        taken.append(took)
    plain, penalised = np.quantile(taken[2:], 0.25, axis=0)  # the first ones compiled
    parameters = sum(a * b for a, b in zip((width, *hidden), (*hidden, 10), strict=True))
    return {
        "x": x,
        "parameters": parameters,
        "layers": len(hidden) + 1,
        "neurons": sum(hidden),
        "batch": batch,
        "plain_ms": plain,
        "penalised_ms": penalised,
        "added_ms": penalised - plain,
    }


def peak(width, hidden, batch, penalised):
    """Returns the peak memory in bytes of another process that trains one network."""
    network = f"scaling.network({width}, {hidden}, {penalised})"
    code = (
        "import memory, scaling\n"
        f"run = scaling.executions({network}, {width}, {batch})\n"
        "run(), run()\n"
        "print(memory.resident('VmHWM'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path[1:]])},
    )
    return int(done.stdout.split()[-1])


def slope(rows, key):
    """Returns the slope of log(key) over log(x), None where noise left nothing to measure."""
    pairs = [(row["x"], row[key]) for row in rows if row[key] > 0]
    if len(pairs) < 3:
        return None
    return float(np.polyfit(*np.log(np.transpose(pairs)), 1)[0])


def draw(result, path):
    """Draws milliseconds over what grows."""
    wide = len(result["series"])
    figure, axes = plt.subplots(1, wide, figsize=(3 * wide, 3.2), sharey=True, squeeze=False)
    for axis, (name, found) in zip(axes[0], result["series"].items(), strict=True):
        x = [row["x"] for row in found["rows"]]
        for key, label, style in (
            ("plain_ms", "a step without it", "C7o-"),
            ("added_ms", "what the penalty adds", "C0o-"),
        ):
            y = [row[key] if row[key] > 0 else np.nan for row in found["rows"]]
            fitted = found["slopes"][key]
            told = label if fitted is None else f"{label}: slope {fitted:.2f}"
            axis.loglog(x, y, style, markersize=4, label=told)
        axis.set_xticks(x, [f"{each:,}" if each < 1e4 else f"{each / 1e6:.1g}M" for each in x])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel(name)
        axis.legend(fontsize=7, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("milliseconds")
    figure.tight_layout()
    figure.savefig(path, dpi=200)


def main():
    """Measures, prints a line per network, writes the JSON file and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", nargs="*", choices=list(SERIES), default=list(SERIES))
    parser.add_argument("--rounds", type=int, default=40, help="turns of each kind")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine_before": machine(),
        "series": {},
    }
    for name in arguments.series:
        rows = []
        for case in SERIES[name]:
            row = timed(case, arguments.rounds)
            if name == "parameters":
                plain, penalised = (peak(*case[1:], kind) for kind in (False, True))
                row["added_bytes"] = penalised - plain
                row["bytes_of_largest_layer"] = 4 * case[1] * case[2][0]
            rows.append(row)
            print(name, {key: round(value, 4) for key, value in row.items()}, flush=True)
        slopes = {key: slope(rows, key) for key in ("plain_ms", "added_ms")}
        print(name, "slopes", slopes, flush=True)
        result["series"][name] = {"rows": rows, "slopes": slopes}
    result["machine_after"] = machine()
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        draw(result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
