"""What Torch-Pruning's regulariser adds to a step of LeNet-300-100, beside `penalty_cost.py`.

    pip install torch==2.14.1 torchvision==0.29.1 torch-pruning
    python examples/benchmarks/torch_pruning_regularizer.py --out FILE

Adam, batches of 100, as there. Plain steps and steps with `GroupNormPruner.regularize` between
`backward` and `step` take turns; lower quartiles are compared, the spread is that of the ratios
within a round. It needs neither Keras nor keras_gss and runs in an environment of its own.
"""

import argparse
import datetime
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from torch import nn

STEPS = 20  # of one turn


def trainer(regularized):
    """Returns a function that trains some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    x, y = torch.rand(100, 784), torch.randint(0, 10, (100,))
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


def main():
    """Measures, prints the ratio and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    trainers = [trainer(regularized=kind) for kind in (False, True)]
    taken = []
    for turn in range(arguments.rounds + 2):
        took = [0.0, 0.0]
        for kind in (0, 1) if turn % 2 else (1, 0):
            started = time.perf_counter()
            trainers[kind]()
            took[kind] = 1e3 * (time.perf_counter() - started) / STEPS
        taken.append(took)
    taken = np.array(taken[2:])
    plain, regularized = np.quantile(taken, 0.25, axis=0).tolist()
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "plain_milliseconds_per_step": plain,
        "regularized_milliseconds_per_step": regularized,
        "ratio": regularized / plain,
        "spread": np.quantile(taken[:, 1] / taken[:, 0], [0.25, 0.75]).tolist(),
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()},
        "versions": {name: metadata.version(name) for name in ("torch", "torch-pruning")},
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
