"""What cutting gains in each runtime: a dense network, it cut, and one built at the cut sizes.

    python examples/benchmarks/payoff.py --out examples/results/payoff.json

The sizes are those that two runs in `examples/results`, at the paper's cost, came down to. Weights
are untrained, for no time depends on them. The three networks take turns of a few calls, in an
order that changes with each round, and each turn is timed whole. Medians over all rounds are
compared, and the spread is that of the ratios within a round (quartiles). `scratch` over `slim`
below 1 would mean that cutting left something behind that costs time.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_gss as gss
from keras_gss import zoo

SIZES = {
    "lenet-300-100": {"fc1": 40, "fc2": 47},
    "lenet-5": {"conv1": 5, "conv2": 11, "fc1": 43},
}
RUNTIMES = ("tf_saved_model", "litert", "onnx")
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "tf2onnx", "numpy")


def cut(model, sizes):
    """Returns a model without the neurons beyond the sizes of its groups."""
    for group in gss.find_groups(model):
        for piece in group.outgoing if group.name in sizes else ():
            value = keras.ops.convert_to_numpy(piece.weight).copy()
            np.moveaxis(value, piece.axis, 0)[piece.index >= sizes[group.name]] = 0
            piece.weight.assign(value)
    return gss.slim(model)


def scratch(name, sizes):
    """Builds a network of those sizes as anyone would who knew them."""
    if name == "lenet-300-100":
        body = [layers.Flatten()]
    else:
        body = []
        for conv in ("conv1", "conv2"):
            body += [layers.Conv2D(sizes[conv], 5), layers.MaxPooling2D()]
        body += [layers.Flatten()]
    body += [layers.Dense(sizes[fc], "relu") for fc in ("fc1", "fc2") if fc in sizes]
    return keras.Sequential([keras.Input((28, 28, 1), name="image"), *body, layers.Dense(10)])


def compared(taken):
    """Returns medians in milliseconds, and their ratios to that of `slim` with their spread."""
    slim = np.array(taken["slim"])
    row = {"milliseconds": {n: 1e3 * statistics.median(s) for n, s in taken.items()}}
    for name in ("dense", "scratch"):
        within = np.array(taken[name]) / slim
        row[f"{name}_over_slim"] = {
            "ratio": statistics.median(taken[name]) / statistics.median(taken["slim"]),
            "spread": np.quantile(within, [0.25, 0.75]).tolist(),
        }
    return row


def machine():
    """Describes where and with what the figures were taken."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "keras_gss": gss.__version__,
    }


def main():
    """Measures, prints a line per network, runtime and batch, and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 1000])
    parser.add_argument("--rounds", type=int, default=100, help="turns of each network")
    parser.add_argument("--threads", type=int, default=1, help="of every runtime")
    parser.add_argument("--quick", action="store_true", help="5 rounds, batches of 1 and 32")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.batches = 5, [1, 32]
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "machine_before": machine(),
        "rows": [],
    }
    for name in arguments.models:
        networks = {
            "dense": zoo.build(name),
            "slim": cut(zoo.build(name), SIZES[name]),
            "scratch": scratch(name, SIZES[name]),
        }
        macs = {each: gss.count(network).macs for each, network in networks.items()}
        assert macs["slim"] == macs["scratch"]
        for runtime in RUNTIMES:
            for batch in arguments.batches:
                taken = gss.measure_latency(
                    networks,
                    runtime=runtime,
                    batch=batch,
                    threads=arguments.threads,
                    rounds=arguments.rounds,
                )
                row = {"model": name, "runtime": runtime, "batch": batch, "macs": macs}
                row |= compared(taken.seconds)
                result["rows"].append(row)
                figures = [f"{k} {v:.3f} ms" for k, v in row["milliseconds"].items()]
                for key in ("dense_over_slim", "scratch_over_slim"):
                    ratio, (low, high) = row[key]["ratio"], row[key]["spread"]
                    figures.append(f"{key.replace('_', ' ')} {ratio:.2f}x ({low:.2f}-{high:.2f})")
                print(f"{name}, {runtime}, batch {batch}: {', '.join(figures)}", flush=True)
    result["machine_after"] = machine()
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
