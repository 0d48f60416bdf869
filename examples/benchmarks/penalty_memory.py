"""How much memory the penalty adds to a training step, read off the program that XLA makes of it.

    KERAS_BACKEND=jax python examples/benchmarks/penalty_memory.py --out memory.json

Two figures of the whole step, forward, backward and the optimizer's, are compared with those of the
same step without penalty. Live: the most bytes that hold something still needed at one moment, with
weights, moments and batch (XLA's own report of live ranges). Allocated: the block in which XLA lays
out all temporaries beforehand; it holds gaps, whose sum differs between any two programs by more
than the penalty takes. So Keras' own L2, whose live bytes are none, is measured too. Nothing is
timed, and the figures are the same on every machine with that version of XLA for CPUs. `--models
resnet-56` takes some minutes to compile.
"""

import argparse
import datetime
import json
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from graph_work import machine
from keras import layers
from penalty_cost import MODELS

import keras_gss as gss

BATCH = 100
FORMS = {
    name: lambda model, form=form: gss.attach(model, form(1e-6, inputs=True))
    for name, form in (
        ("GSSStructure", gss.GSSStructure),
        ("GSSElement", gss.GSSElement),
        ("DeepGSS121", gss.DeepGSS121),
    )
}


def l2(model):
    """Gives every kernel Keras' own L2."""
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.regularizer = keras.regularizers.L2(1e-6)


FORMS["Keras' L2"] = l2


def wide(width):
    """Returns two hidden layers of so many neurons."""
    inside = [layers.Dense(width, "relu") for _ in range(2)]
    return keras.Sequential([keras.Input((width,)), *inside, layers.Dense(10)])


def memory(model, penalty):
    """Returns the bytes live at the peak of a compiled training step, and those of its block."""
    if penalty is not None:
        penalty(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    inputs = np.zeros((BATCH, *model.input_shape[1:]), model.inputs[0].dtype)
    batch = [inputs, np.zeros((BATCH, *model.output_shape[1:-1]), int)]
    model.train_on_batch(*(array[:2] for array in batch))  # makes the optimizer's variables
    state = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[variable.value for variable in variables] for variables in state]
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        step = jax.jit(model.train_step, donate_argnums=0).lower(state, batch).compile(options)
        (ranges,) = Path(folder).glob("*live-range.txt")
        at_peak = ranges.read_text().split("(peak):\n")[1]
    live = max(int(found) for found in re.findall(r"cumulative: (\d+) bytes", at_peak))
    return live, step.memory_analysis().temp_size_in_bytes


def main():
    """Reads the bytes of all models and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="*", default=["lenet-300-100", "lenet-5", "transformer"])
    parser.add_argument("--widths", type=int, nargs="*", default=[256, 1024, 2048])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    builders = {name: MODELS[name] for name in arguments.models}
    builders |= {f"2 x {n}": lambda n=n: wide(n) for n in arguments.widths}
    rows = []
    for name, build in builders.items():
        plain = np.array(memory(build(), None))
        largest = max(4 * int(np.prod(v.shape)) for v in build().trainable_variables)
        outputs = [int(np.prod(layer.output.shape[1:])) for layer in build().layers]
        for form, penalty in FORMS.items():
            live, block = (np.array(memory(build(), penalty)) - plain).tolist()
            rows.append(
                {
                    "model": name,
                    "penalty": form,
                    "plain_live_bytes": int(plain[0]),
                    "added_live_bytes": live,
                    "added_live_layers": round(live / largest, 3),
                    "plain_block_bytes": int(plain[1]),
                    "added_block_bytes": block,
                    "added_block_layers": round(block / largest, 3),
                    "largest_layer_bytes": largest,
                    "largest_output_bytes": 4 * BATCH * max(outputs),
                }
            )
            print(
                f"{name:14} {form:13} live {plain[0] / 1e6:8.2f} MB, added {live / 1e6:8.4f} MB, "
                f"{live / largest:6.3f} of its largest layer; block {plain[1] / 1e6:8.2f} MB, "
                f"added {block / 1e6:6.3f} MB, {block / largest:5.2f}",
                flush=True,
            )
            keras.backend.clear_session()
    if arguments.out:
        command = " ".join(["KERAS_BACKEND=jax python", *sys.argv])
        date = datetime.date.today().isoformat()
        result = {"command": command, "date": date, "machine": machine(), "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
