"""How long `find_groups`, `prune` and `slim` take: chains, `keras.applications`, a ViT.

    python examples/benchmarks/graph_work.py --out examples/results/graph_work.json
    python examples/benchmarks/graph_work.py --beside ~/torch/bin/python       # and Torch-Pruning

With `--beside` every model that `torch_pruning_graph.py` knows is measured by that Python too,
right after ours: the graph and the list of the groups, as here.

Building the models is not timed. Every figure is a median over `--rounds` calls after one that is
not counted; `seconds` holds them all. CPU seconds are those of the process, all threads together:
they tell on a shared machine what the wall clock hides. `slim` compares the outputs on random
inputs unless told not to; it is timed without that check and, where that is soon done, with it.
"""

import argparse
import datetime
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from host import host
from keras import layers

import keras_gss as gss

DEPTHS = (10, 100, 400, 1600)
BESIDE = ("chain of 10", "chain of 100", "chain of 400", "chain of 1600", "ResNet50", "ViT")
BESIDE += ("EfficientNetB7", "NASNetLarge")
LIMIT = 300  # seconds for one model of the other library
# The deepest, the widest and the most tangled ones, and the usual yardstick.
APPLICATIONS = ("ResNet50", "DenseNet201", "EfficientNetB7", "NASNetLarge", "ConvNeXtXLarge", "ViT")
CUT = ("ResNet50", "EfficientNetB7", "NASNetLarge", "ViT")  # pruned, and slimmed without check
CHECKED = ("ResNet50",)


def chain(depth):
    """Builds `depth` convolutions of 16 channels, one after the other."""
    x = inputs = keras.Input((8, 8, 3))
    for _ in range(depth):
        x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def vit(size=224, patch=16, width=768, heads=12, blocks=12):
    """Builds a vision transformer of the base size; its tokens are averaged."""
    image = keras.Input((size, size, 3))
    x = layers.Conv2D(width, patch, strides=patch)(image)
    x = layers.Reshape(((size // patch) ** 2, width))(x)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, "gelu")(y)
        x = layers.Add()([x, layers.Dense(width)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(image, layers.Dense(1000)(x))


def application(name):
    """Builds one of `keras.applications`, or the "ViT", with random weights."""
    return vit() if name == "ViT" else getattr(keras.applications, name)(weights=None)


def other(python, name, rounds):
    """Returns what `torch_pruning_graph.py` says of a model, and the median of its sums."""
    script = Path(__file__).with_name("torch_pruning_graph.py")
    command = [python, str(script), name, "--rounds", str(rounds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"median": None, "note": f"not done after {LIMIT} s"}
    except subprocess.CalledProcessError as error:
        return {"median": None, "note": f"failed: {error.stderr[-200:] or error}"}
    found = json.loads(done.stdout.splitlines()[-1])
    pairs = zip(found["trace_seconds"], found["list_seconds"], strict=True)
    return {"median": statistics.median(map(sum, pairs)), **found}


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
    """Calls `function` once unmeasured, then `rounds` times; returns wall and CPU seconds.

    As by `timeit`, no garbage is collected meanwhile.
    """
    function()
    wall, cpu = [], []
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        started, used = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    gc.enable()
    return {
        "median": statistics.median(wall),
        "min": min(wall),
        "max": max(wall),
        "cpu_median": statistics.median(cpu),
        "seconds": wall,
    }


def record(kind, name, model, rounds, cut, checked):
    """Measures one model and prints a line."""
    row = {
        "kind": kind,
        "model": name,
        "layers": len(model.layers),
        "parameters": model.count_params(),
        "find_groups": measure(lambda: gss.find_groups(model), rounds),
    }
    if cut:
        threshold = gss.StdThreshold(0.5, keep_strongest=True)
        row["prune"] = measure(lambda: gss.prune(model, threshold, "neuron"), rounds)
        halve(model)
        row["slim_unchecked"] = measure(lambda: gss.slim(model, check=False), rounds)
    if checked:
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
    backend = keras.backend.backend()
    return {
        **host(),
        "keras": keras.__version__,
        "backend": backend,
        "backend_version": sys.modules[backend].__version__,
        "keras_gss": gss.__version__,
    }


def main():
    """Measures what was asked for, prints a line each and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depths", type=int, nargs="*", default=DEPTHS)
    parser.add_argument("--models", nargs="*", default=APPLICATIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", metavar="PYTHON", help="one that has Torch-Pruning")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    sys.setrecursionlimit(10_000)  # Keras walks a graph of 1,600 layers recursively
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine_before": machine(),
        "rows": [],
    }
    cases = []
    for name in arguments.models:
        build = functools.partial(application, name)
        cases.append(("application", name, build, name in CUT, name in CHECKED))
    for n in arguments.depths:
        cases.append(("chain", f"chain of {n}", functools.partial(chain, n), True, n <= 400))
    for kind, name, build, cut, checked in cases:
        result["rows"].append(record(kind, name, build(), arguments.rounds, cut, checked))
        if arguments.beside and name in BESIDE:
            row = result["rows"][-1]
            row["torch_pruning"] = found = other(arguments.beside, name, arguments.rounds)
            if found["median"]:
                row["times_faster"] = found["median"] / row["find_groups"]["median"]
                print(f"  Torch-Pruning {found['median']:.3f} s: {row['times_faster']:.1f} times")
        result["machine_after"] = machine()
        if arguments.out:  # after every row: a run that is stopped has told what it knew
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
