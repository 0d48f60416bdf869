"""What cutting gains in each runtime: a dense network, it cut, and one built at the cut sizes.

    python examples/benchmarks/payoff.py --out examples/results/payoff.json

The LeNets are of the sizes that the paper's Tables 2 to 5 lead to (`SIZES`), ResNet50 and
MobileNetV3Large come down to about half of their MACs. `scratch` is built by other code, as anyone
would who knew the sizes; `slim` is the dense network after `gss.slim`; `rounded` the same with
every width rounded up to a multiple of `--round-to`, as `round_to=8` of a threshold does. Weights
are untrained, for no time depends on them. The networks take turns of a few calls, in an order that
changes with each round, and each turn is timed whole. Medians over all rounds are compared, and the
spread is that of the ratios within a round (quartiles). Where what a call needs does not fit into
the memory once for each network, they are measured one after another instead (`apart`), with
`--apart-rounds`. `scratch` over `slim` below 1 would mean that cutting left something behind that
costs time.
"""

import argparse
import datetime
import functools
import json
import multiprocessing
import os
import platform
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from keras import layers

import keras_gss as gss
from keras_gss import zoo

IMAGE = (224, 224, 3)
# What is left of each layer, at the cost that the paper prints. Tables 2 and 3 count weights:
# what GSS-element leaves of neurons at 3.7k and 2.9k (seed 1, `examples/results/paper`). Tables 4
# and 5: what GSS-structure left in earlier runs at the same cost.
SIZES = {
    "table2": {"fc1": 48, "fc2": 65},
    "table3": {"conv1": 6, "conv2": 13, "fc1": 33},
    "table4": {"fc1": 40, "fc2": 47},
    "table5": {"conv1": 5, "conv2": 11, "fc1": 43},
}
RUNTIMES = ("tf_saved_model", "litert", "onnx")
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "tf2onnx", "numpy")


def lenet(sizes):
    """Builds one of the paper's two LeNets at other sizes."""
    body = []
    for name in ("conv1", "conv2"):
        if name in sizes:
            body += [layers.Conv2D(sizes[name], 5, name=name), layers.MaxPooling2D()]
    body += [layers.Flatten()]
    body += [layers.Dense(sizes[fc], "relu", name=fc) for fc in ("fc1", "fc2") if fc in sizes]
    return keras.Sequential([keras.Input((28, 28, 1), name="image"), *body, layers.Dense(10)])


def resnet50(width):
    """Builds ResNet50 as `keras.applications` does, with so many times the filters."""

    def conv(x, filters, size, name, strides=1):
        padding = "same" if size == 3 else "valid"
        x = layers.Conv2D(filters, size, strides, padding, name=f"{name}_conv")(x)
        return layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)

    inputs = keras.Input(IMAGE)
    x = layers.ReLU()(conv(layers.ZeroPadding2D(3)(inputs), round(64 * width), 7, "conv1", 2))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stack, (filters, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 2):
        filters = round(filters * width)
        for block in range(1, blocks + 1):
            name, strides = f"conv{stack}_block{block}", 2 if block == 1 and stack > 2 else 1
            shortcut = conv(x, 4 * filters, 1, f"{name}_0", strides) if block == 1 else x
            x = layers.ReLU()(conv(x, filters, 1, f"{name}_1", strides))
            x = layers.ReLU()(conv(x, filters, 3, f"{name}_2"))
            x = layers.ReLU()(layers.Add()([shortcut, conv(x, 4 * filters, 1, f"{name}_3")]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(1000, "softmax", name="predictions")(x))


applications = keras.applications
mobilenet = functools.partial(applications.MobileNetV3Large, input_shape=IMAGE, weights=None)
# Per name: what builds the dense network, and what builds one of the sizes it is cut to.
NETWORKS = {
    **{
        table: (
            functools.partial(zoo.build, "lenet-5" if "conv1" in sizes else "lenet-300-100"),
            functools.partial(lenet, sizes),
        )
        for table, sizes in SIZES.items()
    },
    "mobilenet_v3_large": (mobilenet, functools.partial(mobilenet, alpha=0.65)),
    "resnet50": (
        functools.partial(applications.ResNet50, weights=None),
        functools.partial(resnet50, 0.7),
    ),
}
SETTINGS = ("threads", "rounds", "large_rounds", "apart_rounds")
LARGE = ("mobilenet_v3_large", "resnet50")


def widths_of(model):
    """Returns `{group: neurons}` for all groups that can be cut."""
    return {group.name: group.size for group in gss.find_groups(model) if group.removable}


def cut(model, widths):
    """Returns a model without the neurons beyond the widths of its groups."""
    for group in gss.find_groups(model):
        for piece in group.outgoing if group.name in widths else ():
            value = keras.ops.convert_to_numpy(piece.weight).copy()
            np.moveaxis(value, piece.axis, 0)[piece.index >= widths[group.name]] = 0
            piece.weight.assign(value)
    return gss.slim(model)


def networks_of(name, round_to):
    """Returns the four networks that are compared, by their part."""
    build, build_small = NETWORKS[name]
    dense, scratch = build(), build_small()
    widths, whole = widths_of(scratch), widths_of(dense)
    rounded = {
        group: min(whole[group], -(-width // round_to) * round_to)
        for group, width in widths.items()
    }
    slim, rounded = cut(build(), widths), cut(build(), rounded)
    assert gss.count(slim).macs == gss.count(scratch).macs
    return {"dense": dense, "slim": slim, "scratch": scratch, "rounded": rounded}


def bytes_of(model, batch):
    """Returns about how much memory a call takes: four times the largest layer's output."""
    sizes = [np.prod(layer.output.shape[1:], dtype=np.int64) for layer in model.layers]
    return int(4 * 4 * batch * max(sizes))


def available():
    """Returns the bytes of memory that are free."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def one_by_one(name, round_to, parts, arena, options):
    """Returns the seconds of each round, by network, each measured in a process of its own.

    What a runtime has taken it keeps, and the next one would not find enough. A network whose
    process the system kills for want of memory is left out.
    """
    taken = {}
    for part in parts:
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                taken |= pool.submit(alone, name, round_to, part, arena, options).result()
        except BrokenProcessPool:
            print(f"{name}, {part}: killed, most likely for want of memory", flush=True)
    return taken


def alone(name, round_to, part, arena, options):
    """Returns what `gss.measure_latency` finds for one of the networks."""
    limit(options["threads"])
    if options["runtime"] == "onnx" and not arena:
        without_arena()
    network = networks_of(name, round_to)[part]
    return gss.measure_latency({part: network}, **options).seconds


def without_arena():
    """Makes ONNX Runtime take memory as it needs it; by itself it doubles what it has."""
    usual = onnxruntime.SessionOptions

    def options():
        made = usual()
        made.enable_cpu_mem_arena = False
        return made

    onnxruntime.SessionOptions = options


def limit(threads):
    """Says how many threads TensorFlow may use."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def compared(taken):
    """Returns medians in milliseconds, and their ratios to that of `slim` with their spread."""
    slim = np.array(taken["slim"])
    row = {"milliseconds": {n: 1e3 * statistics.median(s) for n, s in taken.items()}}
    for name in set(taken) - {"slim"}:
        within = np.array(taken[name]) / slim
        row[f"{name}_over_slim"] = {
            "ratio": statistics.median(taken[name]) / statistics.median(taken["slim"]),
            "spread": np.quantile(within, [0.25, 0.75]).tolist(),
        }
    return row


def described(row):
    """Returns a row as a line of text."""
    figures = [f"{part} {time:.3f} ms" for part, time in row["milliseconds"].items()]
    for part in [part for part in row["milliseconds"] if part != "slim"]:
        ratio, (low, high) = row[f"{part}_over_slim"].values()
        figures.append(f"{part} over slim {ratio:.2f}x ({low:.2f}-{high:.2f})")
    return f"{row['model']}, {row['runtime']}, batch {row['batch']}: {', '.join(figures)}"


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
    parser.add_argument("--models", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 1000])
    parser.add_argument("--rounds", type=int, default=100, help="turns of each network")
    parser.add_argument("--large-rounds", type=int, default=15, help=f"of {' and '.join(LARGE)}")
    parser.add_argument("--apart-rounds", type=int, default=3, help="of networks one by one")
    parser.add_argument("--round-to", type=int, default=8, help="the widths of `rounded`")
    parser.add_argument("--threads", type=int, default=1, help="of every runtime")
    without = "one by one, let ONNX Runtime take memory as it needs it"
    parser.add_argument("--no-arena", dest="arena", action="store_false", help=without)
    parser.add_argument("--quick", action="store_true", help="3 rounds, batches of 1")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.large_rounds, arguments.batches = 3, 3, [1]
    limit(arguments.threads)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        **{name: getattr(arguments, name) for name in SETTINGS},
        "machine_before": machine(),
        "rows": [],
    }
    for name in arguments.models:
        networks = networks_of(name, arguments.round_to)
        macs = {part: gss.count(network).macs for part, network in networks.items()}
        for runtime in arguments.runtimes:
            for batch in arguments.batches:
                row = {"model": name, "runtime": runtime, "batch": batch, "macs": macs}
                result["rows"].append(row)
                needed, free = bytes_of(networks["dense"], batch), available()
                if needed > free:
                    row["skipped"] = f"takes about {needed / 1e9:.0f} GB of {free / 1e9:.0f} GB"
                    print(f"{name}, {runtime}, batch {batch}: {row['skipped']}", flush=True)
                    continue
                row["apart"] = len(networks) * needed > free
                rounds = arguments.large_rounds if name in LARGE else arguments.rounds
                options = {
                    **{"runtime": runtime, "batch": batch, "threads": arguments.threads},
                    "rounds": arguments.apart_rounds if row["apart"] else rounds,
                }
                if row["apart"]:
                    how = (arguments.round_to, networks, arguments.arena)
                    taken = one_by_one(name, *how, options)
                else:
                    taken = gss.measure_latency(networks, **options).seconds
                if "slim" not in taken:
                    row["skipped"] = "killed for want of memory"
                    continue
                row |= compared(taken)
                print(described(row), flush=True)
                result["machine_after"] = machine()
                if arguments.out:  # after every row: a run that is stopped has told what it knew
                    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
