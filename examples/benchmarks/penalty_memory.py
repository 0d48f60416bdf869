"""How much memory the penalty adds to a training step, read off the program that XLA makes of it.

    KERAS_BACKEND=jax python examples/benchmarks/penalty_memory.py --out memory.json

JAX says of a compiled step how many bytes it holds beside what it is given and what it returns
(weights, their moments, the batch). These temporaries of the whole step, forward, backward and the
optimizer's, are compared with those of the same step without penalty. Nothing is timed, so the
figures are exact and the same on every machine with that version of XLA for CPUs. `--models
resnet-56` takes some minutes to compile.
"""

import argparse
import datetime
import json
import os
import sys
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
    "GSSStructure": lambda: gss.GSSStructure(1e-6, inputs=True),
    "GSSElement": lambda: gss.GSSElement(1e-6, inputs=True),
    "DeepGSS121": lambda: gss.DeepGSS121(1e-6, inputs=True),
}


def wide(width):
    """Returns two hidden layers of so many neurons."""
    inside = [layers.Dense(width, "relu") for _ in range(2)]
    return keras.Sequential([keras.Input((width,)), *inside, layers.Dense(10)])


def temporaries(model, penalty):
    """Returns the bytes that a compiled training step holds for itself."""
    if penalty is not None:
        gss.attach(model, penalty)
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
    step = jax.jit(model.train_step, donate_argnums=0).lower(state, batch).compile()
    return step.memory_analysis().temp_size_in_bytes


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
        plain = temporaries(build(), None)
        largest = max(4 * int(np.prod(v.shape)) for v in build().trainable_variables)
        outputs = [int(np.prod(layer.output.shape[1:])) for layer in build().layers]
        for form, penalty in FORMS.items():
            added = temporaries(build(), penalty()) - plain
            rows.append(
                {
                    "model": name,
                    "penalty": form,
                    "plain_bytes": plain,
                    "added_bytes": added,
                    "largest_layer_bytes": largest,
                    "largest_layers": round(added / largest, 3),
                    "largest_output_bytes": 4 * BATCH * max(outputs),
                }
            )
            print(
                f"{name:14} {form:13} plain {plain / 1e6:8.2f} MB, added {added / 1e6:6.2f} MB, "
                f"{added / largest:5.2f} of its largest layer",
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
