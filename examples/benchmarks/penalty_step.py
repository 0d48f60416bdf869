"""What the penalty adds to the compiled training step on JAX, without the loop of `fit` around it.

    KERAS_BACKEND=jax python examples/benchmarks/penalty_step.py --out step.json

Of each kind (plain, under GSSStructure without input features and with them, in closed form and
with selections held for 50 steps, and under Keras' own L2) several equal models take turns of some
steps, in an order that is drawn anew each round: in one process equal models differ by a twentieth
in a `fit`, which is more than what is asked about. Lower quartiles over all turns are compared, the
mean of one kind with that of the plain ones. What one process finds differs from what the next
does, by where its memory lies for instance: so there are several, and the ratio is the mean of
theirs.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from graph_work import machine
from penalty_cost import BATCH, MODELS, jax_state

import keras_gss as gss

PENALTIES = {
    "plain": None,
    "neurons": lambda: gss.GSSStructure(1e-6),
    "neurons, refreshed": lambda: gss.GSSStructure(1e-6, refresh_every=50),
    "neurons and inputs": lambda: gss.GSSStructure(1e-6, inputs=True),
    "neurons and inputs, refreshed": lambda: gss.GSSStructure(1e-6, inputs=True, refresh_every=50),
    "Keras' L2": lambda: keras.regularizers.L2(1e-6),
}


def compiled(build, penalty):
    """Returns the jitted step of one model, its state and a batch."""
    model = build()
    if penalty:
        gss.attach(model, penalty())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    shapes = model.input_shape[1:], model.output_shape[1:-1]
    x = np.random.default_rng(0).random((BATCH, *shapes[0])).astype(model.inputs[0].dtype)
    batch = x, np.zeros((BATCH, *shapes[1]), int)
    state = jax.tree.map(lambda value: value.copy(), jax_state(model, batch))  # each has its own
    return jax.jit(model.train_step, donate_argnums=0), state, jax.device_put(batch)


def measured(name, copies, rounds, steps):
    """Returns `{kind: milliseconds of a step}`, a figure for each model of the kind."""
    models = [
        (kind, *compiled(MODELS[name], PENALTIES[kind]))
        for kind in PENALTIES
        for _ in range(copies)
    ]
    states = [state for _, _, state, _ in models]
    taken = [[] for _ in models]
    random = np.random.default_rng(0)
    for _ in range(rounds + 1):
        for place in random.permutation(len(models)):
            _, step, _, batch = models[place]
            began = time.perf_counter()
            for _ in range(steps):
                _, states[place] = step(states[place], batch)
            jax.block_until_ready(states[place])
            taken[place].append(1000 * (time.perf_counter() - began) / steps)
    found = {kind: [] for kind in PENALTIES}
    for (kind, *_), times in zip(models, taken, strict=True):
        found[kind].append(float(np.percentile(times[1:], 25)))  # the first turn compiled
    return found


def main():
    """Measures the models and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["lenet-300-100"])
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--copies", type=int, default=2, help="models of each kind")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    before, rows = machine(), []
    options = (arguments.copies, arguments.rounds, arguments.steps)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in arguments.models:
            found = [pool.apply(measured, (name, *options)) for _ in range(arguments.processes)]
            for kind in PENALTIES:
                ratios = [float(np.mean(each[kind]) / np.mean(each["plain"])) for each in found]
                row = {"model": name, "penalty": kind, "ratio": float(np.mean(ratios))}
                rows.append({**row, "ratios": ratios, "milliseconds": [e[kind] for e in found]})
                told = ", ".join(f"{ratio:.3f}" for ratio in ratios)
                print(f"{name}, {kind}: {row['ratio']:.3f}x ({told})", flush=True)
    if arguments.out:
        result = {
            "command": " ".join(["KERAS_BACKEND=jax python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            "machine_before": before,
            "machine_after": machine(),
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
