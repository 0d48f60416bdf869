"""A recurrent network and a Transformer that tell what each character of source code is part of.

    python examples/sequences lstm --directory runs/sequences                # three seeds
    python examples/sequences transformer --directory runs/sequences
    python examples/sequences table --directory runs/sequences               # results.md
    python examples/sequences lstm --quick --directory /tmp/quick            # a smoke run

Each seed goes through `gss.compress` under GSSStructure: LSTM units with all their gates, attention
heads, the widths of keys and values and those of the MLPs compete. It resumes where it was killed,
ends in a SavedModel that is loaded and compared, and adds a line to `results.jsonl`.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import source_code
from keras import layers, ops
from table import table

import keras_gss as gss

LENGTH = 64
SAMPLES = {"train": 24000, "validation": 2000, "test": 4000}
SETTINGS = {
    "lstm": {"epochs": [4, 4, 4], "factor": 2e-6, "macs": 0.4},
    "transformer": {"epochs": [5, 4, 4], "factor": 1e-5, "macs": 0.6},
}
QUICK = {"train": 200, "validation": 100, "test": 100}


def lstm(width=64):
    """An LSTM in both directions, units of the two tied, between an embedding and an MLP."""
    characters = keras.Input((LENGTH,), dtype="int32", name="characters")
    x = layers.Embedding(source_code.CODES, width // 2, name="embedding")(characters)
    cell = layers.LSTM(width, return_sequences=True)
    x = layers.Bidirectional(cell, name="lstm")(x)
    x = layers.Dense(width, "relu", name="mlp")(x)
    return keras.Model(characters, layers.Dense(len(source_code.CLASSES), name="logits")(x))


def transformer(width=48, heads=6, blocks=2):
    """Blocks of attention and MLP, normalised before, with residuals around them."""
    characters = keras.Input((LENGTH,), dtype="int32", name="characters")
    places = ops.cumsum(ops.ones_like(characters), axis=1) - 1
    places = layers.Embedding(LENGTH, width, name="place")(places)
    x = layers.Embedding(source_code.CODES, width, name="character")(characters) + places
    for block in map(str, range(1, blocks + 1)):
        y = layers.LayerNormalization(name="before_attention" + block)(x)
        x += layers.MultiHeadAttention(heads, width // heads, name="attention" + block)(y, y)
        y = layers.LayerNormalization(name="before_mlp" + block)(x)
        y = layers.Dense(2 * width, "relu", name="mlp" + block)(y)
        x += layers.Dense(width, name="back" + block)(y)
    x = layers.LayerNormalization(name="before_logits")(x)
    return keras.Model(characters, layers.Dense(len(source_code.CLASSES), name="logits")(x))


NETWORKS = {"lstm": lstm, "transformer": transformer}


def by_character(train, test):
    """Returns the accuracy of giving each character the class it most often has: the floor."""
    counts = np.zeros((source_code.CODES, len(source_code.CLASSES)))
    np.add.at(counts, train, 1)
    return float(np.mean(counts.argmax(-1)[test[0]] == test[1]))


def run(options, seed, parts):
    """Compresses one network, checks what came out, and returns a line of results."""
    folder = Path(options.directory) / f"{options.network}-{seed}"
    keras.utils.set_random_seed(seed)
    model = NETWORKS[options.network]()
    pretrain, train, finetune = options.epochs
    result = gss.compress(
        model,
        parts["train"],
        parts["validation"],
        target=gss.MacsBudget(options.macs),
        regularizer=gss.GSSStructure(options.factor, weights=options.weights),
        pretrain_epochs=pretrain,
        epochs=train,
        finetune_epochs=finetune,
        learning_rate=options.learning_rate,
        distillation=0.5,
        test=parts["test"],
        batch_size=50,
        directory=folder,
        seed=seed,
    )
    report = result.report
    print(report, flush=True)
    return {
        "network": options.network,
        "seed": seed,
        "settings": settings_of(options),
        "accuracy": {
            "by_character": by_character(parts["train"], parts["test"]),
            "test": report.accuracy["test"],
            "validation": report.accuracy["validation"],
        },
        "groups": dict(report.cut),
        "macs": report.macs,
        "parameters": report.parameters,
        "file_bytes": report.file_bytes,
        "latency_ms": {n: [1e3 * each for each in pair] for n, pair in report.latency.items()},
        "slim_against_masked": report.max_difference,
        "saved_model": exported(result.model, folder / "saved_model", parts["test"][0]),
        "seconds": round(sum(entry["seconds"] for entry in result.history)),
        "data": [zlib.crc32(array.tobytes()) for pair in parts.values() for array in pair],
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python examples/sequences", *sys.argv[1:]]),
        "versions": {
            "keras_gss": gss.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "python": platform.python_version(),
        },
    }


def exported(model, folder, characters):
    """Writes a SavedModel and compares its outputs with the model's."""
    import tensorflow as tf

    gss.export(model, folder, overwrite=True)
    ours = model.predict(characters, batch_size=500, verbose=0)
    loaded = tf.saved_model.load(str(folder))  # what serves lives as long as this
    theirs = np.concatenate([loaded.serve(c).numpy() for c in np.array_split(characters, 10)])
    return {
        "difference": float(np.abs(ours - theirs).max() / np.abs(ours).max()),
        "changed": int((ours.argmax(-1) != theirs.argmax(-1)).sum()),
    }


def settings_of(options):
    """Returns what a line of results depends on, beside network and seed."""
    keys = ("epochs", "factor", "weights", "macs", "learning_rate", "quick")
    return {key: getattr(options, key) for key in keys}


def read(path):
    """Returns the lines of results."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def parsed(arguments):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        "sequences", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("network", choices=[*NETWORKS, "table"])
    add("--directory", required=True, help="states, models and results; an earlier run's goes on")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--epochs", type=int, nargs=3, metavar=("PRETRAIN", "TRAIN", "FINETUNE"))
    add("--factor", type=float, help="of GSSStructure")
    add("--weights", choices=("uniform", "macs"), default="macs", help="of GSSStructure")
    add("--macs", type=float, help="fraction that may remain")
    add("--learning-rate", type=float, default=3e-3)
    add("--quick", action="store_true", help="300 windows, an epoch per phase, one seed")
    options = parser.parse_args(arguments)
    for key, value in SETTINGS.get(options.network, {}).items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if options.quick:
        options.epochs, options.seeds = [1, 1, 1], options.seeds[:1]
    return options


def main(arguments=None):
    """Runs what is not yet in the results, or makes the table."""
    options = parsed(arguments)
    results = Path(options.directory) / "results.jsonl"
    done = read(results)
    if options.network == "table":
        results.with_suffix(".md").write_text(table(done))
        return print(table(done))
    known = [(row["network"], row["seed"], row["settings"]) for row in done]
    parts = source_code.load(QUICK if options.quick else SAMPLES, LENGTH)
    for seed in options.seeds:
        if (options.network, seed, settings_of(options)) in known:
            continue
        row = run(options, seed, parts)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
