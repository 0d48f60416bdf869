"""How the penalty's time and memory grow with parameters, layers, neurons and batch.

    python examples/benchmarks/scaling.py --out examples/results/scaling.json
    KERAS_BACKEND=jax python examples/benchmarks/scaling.py --memory --out FILE  # adds to that file

Networks of Dense layers train with and without `GSSStructure`, some steps of each in turns, in the
setting that `compress` chooses. What the penalty adds is the difference of the lower quartiles; the
spreads are the quartiles of the differences and ratios within a turn. `--memory` reads off compiled
steps what they hold, see `penalty_memory.py`, and times nothing. A slope is that of a line through
the logarithms: 1 is linear, 0 does not depend on it. Points where the penalty added nothing, or
noise less than that, have no logarithm: the line leaves them out, and `dropped` names them. Peak
memory as the system sees it is that of a process of its own per network of the first series, less
what the same process without penalty takes. The figure `scaling.png` is drawn beside the JSON file.
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
# What is fitted and drawn, by the unit of its panels.
LINES = {
    "milliseconds": {
        "plain_ms": ("a step without it", "C7o-"),
        "added_ms": ("what the penalty adds", "C0o-"),
    },
    "bytes": {
        "plain_live_bytes": ("live without it", "C7o-"),
        "added_block_bytes": ("added, block", "C1o-"),
        "added_live_bytes": ("added, live", "C0o--"),
    },
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


def described(case):
    """Returns what is known of one case before anything is measured."""
    x, width, hidden, batch = case
    return {
        "x": x,
        "parameters": sum(a * b for a, b in zip((width, *hidden), (*hidden, 10), strict=True)),
        "layers": len(hidden) + 1,
        "neurons": sum(hidden),
        "batch": batch,
    }


def timed(case, rounds):
    """Returns the milliseconds per step of one case, plain and penalised, and what is added."""
    _, width, hidden, batch = case
    runs = [executions(network(width, hidden, kind), width, batch) for kind in (False, True)]
    taken = []
    for turn in range(rounds + 2):
        took = [0.0, 0.0]
        for kind in (0, 1) if turn % 2 else (1, 0):
            started = time.perf_counter()
            keras.tree.map_structure(np.asarray, runs[kind]())
            took[kind] = 1e3 * (time.perf_counter() - started) / STEPS
        taken.append(took)
    taken = np.array(taken[2:])  # the first ones compiled
    plain, penalised = np.quantile(taken, 0.25, axis=0).tolist()
    quartiles = [0.25, 0.75]
    return {
        "plain_ms": plain,
        "penalised_ms": penalised,
        "added_ms": penalised - plain,
        "added_ms_spread": np.quantile(taken[:, 1] - taken[:, 0], quartiles).tolist(),
        "ratio_spread": np.quantile(taken[:, 1] / taken[:, 0], quartiles).tolist(),
    }


def compiled(case):
    """Returns the bytes that a step of one case holds without the penalty, and what is added."""
    from penalty_memory import compared, memory

    _, width, hidden, batch = case
    kinds = [memory(network(width, hidden, kind), None, batch) for kind in (False, True)]
    keras.backend.clear_session()
    return compared(*kinds)


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


def fit(rows, key):
    """Returns the slope of log(key) over log(x), None for under three points, and the x dropped."""
    pairs = [(row["x"], row[key]) for row in rows if row[key] > 0]
    dropped = [row["x"] for row in rows if row[key] <= 0]
    slope = float(np.polyfit(*np.log(np.transpose(pairs)), 1)[0]) if len(pairs) > 2 else None
    return slope, dropped


def draw(result, path):
    """Draws milliseconds and, once they are known, bytes over what grows."""
    series = result["series"]
    units = [
        unit
        for unit, lines in LINES.items()
        if any(key in found["slopes"] for key in lines for found in series.values())
    ]
    figure, axes = plt.subplots(
        len(units),
        len(series),
        figsize=(3 * len(series), 3.2 * len(units)),
        sharex="col",
        sharey="row",
        squeeze=False,
    )
    for unit, panels in zip(units, axes, strict=True):
        for axis, found in zip(panels, series.values(), strict=True):
            panel(axis, found, LINES[unit])
        panels[0].set_ylabel(unit)
    for axis, name in zip(axes[-1], series, strict=True):
        axis.set_xlabel(name)
    figure.tight_layout()
    figure.savefig(path, dpi=200)


def panel(axis, found, lines):
    """Draws some lines of one series; bars span the quartiles of what was timed."""
    rows = found["rows"]
    x = [row["x"] for row in rows]
    for key, (label, style) in lines.items():
        if key not in found["slopes"]:
            continue
        y = [row[key] if row[key] > 0 else np.nan for row in rows]
        fitted = found["slopes"][key]
        told = label if fitted is None else f"{label}: slope {fitted:.2f}"
        axis.loglog(x, y, style, markersize=4, label=told)
        if f"{key}_spread" in rows[0]:
            axis.vlines(x, *np.transpose([row[f"{key}_spread"] for row in rows]), style[:2])
    axis.set_xticks(x, [f"{each:,}" if each < 1e4 else f"{each / 1e6:.1g}M" for each in x])
    axis.xaxis.set_minor_locator(NullLocator())
    if axis.lines:  # `--series` may have left this one out
        axis.legend(fontsize=7, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def main():
    """Measures, prints a line per network, writes the JSON file and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", nargs="*", choices=list(SERIES), default=list(SERIES))
    parser.add_argument("--rounds", type=int, default=40, help="turns of each kind")
    parser.add_argument(
        "--memory", action="store_true", help="compiles instead of timing, and adds to the file"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    told = {"command": " ".join(["python", *sys.argv]), "date": datetime.date.today().isoformat()}
    if arguments.memory:
        known = arguments.out and arguments.out.exists()
        result = json.loads(arguments.out.read_text()) if known else {"series": {}}
        result["memory"] = {**told, "machine": machine()}
    else:
        result = {**told, "machine_before": machine(), "series": {}}
    for name in arguments.series:
        rows = [described(case) for case in SERIES[name]]
        found = result["series"].setdefault(name, {"rows": rows, "slopes": {}})
        for row, case in zip(found["rows"], SERIES[name], strict=True):
            row |= compiled(case) if arguments.memory else timed(case, arguments.rounds)
            if name == "parameters" and not arguments.memory:
                plain, penalised = (peak(*case[1:], kind) for kind in (False, True))
                row["added_bytes"] = penalised - plain
                row["bytes_of_largest_layer"] = 4 * case[1] * case[2][0]
            print(name, row, flush=True)
        for key in LINES["bytes" if arguments.memory else "milliseconds"]:
            found["slopes"][key], dropped = fit(found["rows"], key)
            found.setdefault("dropped", {})[key] = dropped
            without = f" without {dropped}" if dropped else ""
            print(f"{name}: slope of {key} {found['slopes'][key]}{without}", flush=True)
    if not arguments.memory:
        result["machine_after"] = machine()
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        draw(result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
