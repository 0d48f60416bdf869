"""How much memory the penalty adds to a training step, read off the program that XLA makes of it.

    KERAS_BACKEND=jax python examples/benchmarks/penalty_memory.py --out memory.json

Three figures of the whole step, forward, backward and the optimizer's, are compared with those of
the same step without penalty. Live: the most bytes that hold something still needed at one moment,
with weights, moments and batch (XLA's own report of live ranges). Block: that in which XLA lays out
all temporaries beforehand; it holds gaps, whose sum differs between any two programs by more than
the penalty takes. So Keras' own L2, whose live bytes are none, is measured too. Donated: the sum of
what XLA lays into the buffers of the arguments, which it may overwrite, instead of into the block:
the new weights and moments, as many with any penalty, and temporaries. Nothing is timed, and the
figures are the same on every machine with that version of XLA for CPUs. `--models resnet-56` takes
some minutes to compile. KERAS_BACKEND=tensorflow reads them off TensorFlow's XLA (`jit_compile`).
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

import keras
import numpy as np
from graph_work import machine
from keras import layers
from penalty_cost import MODELS, jax_state

import keras_gss as gss

DUMP = tempfile.TemporaryDirectory()
if keras.backend.backend() == "tensorflow":  # its XLA reads this once, before it first compiles
    flags = f"--xla_dump_to={DUMP.name} --xla_dump_hlo_as_text"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
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


def memory(model, penalty, batch):
    """Compiles a training step and reads off its bytes.

    Returns `{"live", "block", "donated"}`: what is live at the peak, the block of temporaries, and
    what else is laid into the buffers of the step's arguments.
    """
    if penalty is not None:
        penalty(model)
    on_jax = keras.backend.backend() == "jax"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=on_jax, jit_compile=not on_jax)
    inputs = np.zeros((batch, *model.input_shape[1:]), model.inputs[0].dtype)
    data = [inputs, np.zeros((batch, *model.output_shape[1:-1]), int)]
    if on_jax:
        compile_on_jax(model, data)
    else:
        model.train_on_batch(*data)
    dumped = [path for path in Path(DUMP.name).iterdir() if path.is_file()]
    programs = [path for path in dumped if path.name.endswith("buffer-assignment.txt")]
    largest = max(programs, key=lambda path: path.stat().st_size)
    text = largest.read_text()
    ranges = largest.with_name(largest.name.replace("buffer-assignment", "live-range"))
    if ranges in dumped:  # JAX's XLA writes them into a file of their own
        text += ranges.read_text()
    for path in dumped:
        path.unlink()
    at_peak = text.split("(peak):\n")[1]
    blocks = re.findall(r"^allocation \d+: size (\d+), preallocated-temp", text, re.MULTILINE)
    return {
        "live": max(int(found) for found in re.findall(r"cumulative: (\d+) bytes", at_peak)),
        "block": sum(map(int, blocks)),
        "donated": donated(text),
    }


def compile_on_jax(model, data):
    """Compiles a step that may overwrite the weights and moments it is given; it does not run."""
    import jax

    state = jax_state(model, data)
    options = {"xla_dump_to": DUMP.name, "xla_dump_hlo_as_text": True}
    jax.jit(model.train_step, donate_argnums=0).lower(state, data).compile(options)


def donated(assignment):
    """Returns the bytes of all values in the buffers of arguments, but the arguments themselves."""
    allocations = re.split(r"^allocation ", assignment, flags=re.MULTILINE)
    value = re.compile(r"^ value: <\d+ (?!state_|data_|arg\d)\S+ @\d+> \(size=(\d+)", re.MULTILINE)
    return sum(
        int(size)
        for allocation in allocations
        if ", parameter " in allocation.partition("\n")[0]
        for size in value.findall(allocation)
    )


def compared(plain, penalised):
    """Returns a row's figures: `plain_*_bytes` and `added_*_bytes` of what `memory` returned."""
    without = {f"plain_{key}_bytes": size for key, size in plain.items()}
    return without | {f"added_{key}_bytes": penalised[key] - plain[key] for key in plain}


def main():
    """Reads the bytes of all models and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="*", default=["lenet-300-100", "lenet-5", "transformer"])
    parser.add_argument("--widths", type=int, nargs="*", default=[256, 1024, 2048])
    parser.add_argument("--batches", type=int, nargs="+", default=[100])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    builders = {name: MODELS[name] for name in arguments.models}
    builders |= {f"2 x {n}": lambda n=n: wide(n) for n in arguments.widths}
    rows = []
    for name, build in builders.items():
        largest = max(4 * int(np.prod(v.shape)) for v in build().trainable_variables)
        outputs = [int(np.prod(layer.output.shape[1:])) for layer in build().layers]
        for batch in arguments.batches:
            plain = memory(build(), None, batch)
            for form, penalty in FORMS.items():
                found = compared(plain, memory(build(), penalty, batch))
                live, block = found["added_live_bytes"], found["added_block_bytes"]
                row = {
                    "model": name,
                    "penalty": form,
                    "batch": batch,
                    **found,
                    "added_live_layers": round(live / largest, 3),
                    "added_block_layers": round(block / largest, 3),
                    "largest_layer_bytes": largest,
                    "largest_output_bytes": 4 * batch * max(outputs),
                }
                rows.append(row)
                told = (
                    f"{key} {size / 1e6:.2f} MB, added {found[f'added_{key}_bytes'] / 1e6:.4f} MB"
                    for key, size in plain.items()
                )
                print(
                    f"{name}, {batch}, {form}: {', '.join(told)}; of its largest layer live "
                    f"{live / largest:.3f}, block {block / largest:.2f}",
                    flush=True,
                )
                keras.backend.clear_session()
    if arguments.out:
        backend = keras.backend.backend()
        command = " ".join([f"KERAS_BACKEND={backend} python", *sys.argv])
        date = datetime.date.today().isoformat()
        result = {"command": command, "date": date, "machine": machine(), "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
