"""What Torch-Pruning's regulariser adds to a step of the paper's LeNets, beside `penalty_cost.py`.

    pip install torch==2.14.1 torchvision==0.29.1 torch-pruning
    python examples/benchmarks/torch_pruning_regularizer.py --out FILE

Adam, batches of 100, as there. Plain steps and steps with `GroupNormPruner.regularize` between
`backward` and `step` take turns; lower quartiles are compared, the spread is that of the ratios
within a round. It needs neither Keras nor keras_gss and runs in an environment of its own.
"""

import argparse
import datetime
import json
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from host import host
from torch import nn

STEPS = 20  # of one turn


def lenet_300_100():
    """Returns 784-300-100-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip


def lenet_5():
    """Returns 20-50-(800)-500-10."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


MODELS = {"lenet-300-100": lenet_300_100, "lenet-5": lenet_5}


def trainer(build, regularized):
    """Returns a function that trains some steps."""
    torch.manual_seed(0)
    model = build()
    x, y = torch.rand(100, 1, 28, 28), torch.randint(0, 10, (100,))
    optimizer, loss = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    pruner = torch_pruning.pruner.GroupNormPruner(
        model, x, torch_pruning.importance.GroupMagnitudeImportance(), ignored_layers=[model[-1]]
    )
    pruner.update_regularizer()

    def train():
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            if regularized:
                pruner.regularize(model)
            optimizer.step()

    return train


def measured(name, rounds):
    """Returns the row of a model."""
    trainers = [trainer(MODELS[name], regularized=kind) for kind in (False, True)]
    taken = []
    for turn in range(rounds + 2):
        took = [0.0, 0.0]
        for kind in (0, 1) if turn % 2 else (1, 0):
            started = time.perf_counter()
            trainers[kind]()
            took[kind] = 1e3 * (time.perf_counter() - started) / STEPS
        taken.append(took)
    taken = np.array(taken[2:])
    plain, regularized = np.quantile(taken, 0.25, axis=0).tolist()
    return {
        "model": name,
        "plain_milliseconds_per_step": plain,
        "regularized_milliseconds_per_step": regularized,
        "ratio": regularized / plain,
        "spread": np.quantile(taken[:, 1] / taken[:, 0], [0.25, 0.75]).tolist(),
    }


def main():
    """Measures, prints a line per model and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    packages = ("torch", "torch-pruning")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine_before": {**host(), "threads": torch.get_num_threads()},
        "versions": {name: metadata.version(name) for name in packages},
        "rows": [],
    }
    for name in arguments.models:
        row = measured(name, arguments.rounds)
        result["rows"].append(row)
        low, high = row["spread"]
        plain = row["plain_milliseconds_per_step"]
        print(f"{name}: {row['ratio']:.3f}x  ({low:.3f} to {high:.3f}) of {plain:.2f} ms per step")
    result["machine_after"] = host()
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
