"""How much memory cutting takes at its peak: in sizes of the weights, and of the built model.

    TF_ENABLE_ONEDNN_OPTS=0 MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536 \
    python examples/benchmarks/memory.py --models ResNet50 --out examples/results/memory.json

Neurons under a threshold are pruned and cut. Peaks are those of the resident memory (Linux),
less what the process, one per model, held before the model was built. A built model takes more
than its weights: Keras' objects, and the pools that weights lie in. It counts until it is pruned;
then it is let go of, and only the pruned one is beside what `slim` makes. Without the
three variables glibc, and on newer processors TensorFlow's oneDNN, keep freed memory for later, up
to another size of the model, and that would count.
"""

import argparse
import datetime
import functools
import gc
import json
import multiprocessing
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from graph_work import application, machine

import keras_gss as gss

# environment variables that say how freed memory is kept
ALLOCATORS = ("MALLOC_", "TF_ENABLE_ONEDNN_OPTS")


def resident(key="VmRSS"):
    """Returns the process' resident memory in bytes, with "VmHWM" its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measured(function):
    """Returns what a function returns, and memory before it and at its peak."""
    gc.collect()
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    found = function()
    return found, before, resident("VmHWM")


def warmed():
    """Does it all once with a small model, so that what is loaded only once is."""
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    layers += [keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    gss.slim(gss.prune(model, gss.StdThreshold(0.1), granularity="neuron"))
    gc.collect()
    return resident()


def record(ratio, name):
    """Measures one of `keras.applications`, or the "ViT", and prints a line."""
    base = warmed()
    model = application(name)
    size = 4 * model.count_params()
    row = {"model": name, "bytes": size, "built": (resident() - base) / size}
    threshold = gss.StdThreshold(ratio)
    for step in ("find_groups", "prune", "slim"):
        function = getattr(gss, step)
        options = {"threshold": threshold, "granularity": "neuron"} if step == "prune" else {}
        found, before, peak = measured(functools.partial(function, model, **options))
        row[step] = {"peak": (peak - base) / size, "added": (peak - before) / size}
        row[step]["of built"] = row[step]["peak"] / row["built"]
        model = found if step == "prune" else model
    row["parameters left"] = 4 * found.count_params() / size
    print(json.dumps(row), flush=True)
    return row


def main():
    """Measures, prints a line per model and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["ResNet50"], help='or "ViT"')
    parser.add_argument("--ratio", type=float, default=1.0, help="of the threshold: what is cut")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    allocator = {key: value for key, value in os.environ.items() if key.startswith(ALLOCATORS)}
    settings = [f"{key}={value}" for key, value in allocator.items()]
    result = {
        "command": " ".join([*settings, "python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "allocator": allocator,
    }
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        recording = functools.partial(record, arguments.ratio)
        result["rows"] = pool.map(recording, arguments.models, chunksize=1)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
