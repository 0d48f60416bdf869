r"""How much memory the penalty adds to training in TensorFlow without XLA, in sizes of a kernel.

    TF_ENABLE_ONEDNN_OPTS=0 MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536 \
    python examples/benchmarks/penalty_resident.py --out resident.json

Two hidden layers of so many neurons are trained for a few steps, in a process of its own for each
penalty and twice without; the peak of its resident memory (Linux) counts, all in all. The kernels
are large, so that one of them kept once more could not be overlooked. The three variables make
freed memory go back, as for `memory.py`.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from graph_work import machine
from memory import ALLOCATORS, resident
from penalty_cost import BATCH
from penalty_memory import FORMS, wide

KINDS = ("plain", *FORMS, "plain again")


def peak(kind, width):
    """Returns the peak of a process that trains, in sizes of a hidden kernel."""
    model = wide(width)
    if kind in FORMS:
        FORMS[kind](model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    x = np.random.default_rng(0).random((BATCH, width), "float32")
    y = np.zeros(BATCH, int)
    model.train_on_batch(x, y)
    Path("/proc/self/clear_refs").write_text("5")  # what tracing took is forgotten
    for _ in range(4):
        model.train_on_batch(x, y)
    return resident("VmHWM") / (4 * width**2)


def main():
    """Measures every kind and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    peaks = {}
    for kind in KINDS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[kind] = pool.apply(peak, (kind, arguments.width))
        added = peaks[kind] - peaks["plain"]
        print(f"{kind:13} {peaks[kind]:6.2f} kernels, {added:+.2f} of one", flush=True)
    if arguments.out:
        result = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "environment": {k: v for k, v in os.environ.items() if k.startswith(ALLOCATORS)},
            "width": arguments.width,
            "peak_in_kernels": peaks,
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
