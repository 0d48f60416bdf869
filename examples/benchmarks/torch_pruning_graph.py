"""How long Torch-Pruning takes to trace a model and to list its groups, beside `graph_work.py`.

    pip install torch==2.14.1 torchvision==0.29.1 timm torch-pruning
    python examples/benchmarks/torch_pruning_graph.py ResNet50 --rounds 5

Prints a JSON line: the versions, and per round after one that is not counted the seconds of
`build_dependency`, which runs the model once to record it, and of `get_all_groups`. It imports
neither Keras nor keras_gss and runs in an environment of its own. ResNet50, EfficientNetB7 and ViT
are those of torchvision, NASNetLarge is timm's, and "chain of N" N convolutions of 16 channels.
"""

import argparse
import gc
import itertools
import json
import sys
import time
from importlib import metadata

import torch
import torch_pruning
from torch import nn

PACKAGES = ("torch", "torchvision", "timm", "torch-pruning")


def chain(depth):
    """Returns `depth` convolutions, one after the other."""
    channels = [3, *[16] * depth]
    body = [
        layer
        for pair in itertools.pairwise(channels)
        for layer in (nn.Conv2d(*pair, 3, padding=1), nn.ReLU())
    ]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)), 8


def build(name):
    """Returns a model and the height of its images."""
    if name.startswith("chain of "):
        return chain(int(name.split()[-1]))
    if name == "NASNetLarge":
        import timm

        return timm.create_model("nasnetalarge", pretrained=False), 331
    import torchvision

    names = {"ResNet50": "resnet50", "EfficientNetB7": "efficientnet_b7", "ViT": "vit_b_16"}
    return torchvision.models.get_model(names[name], weights=None), 600 if "B7" in name else 224


def main():
    """Measures one model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sys.setrecursionlimit(100_000)
    model, size = build(arguments.model)
    model.eval()
    image = torch.zeros(1, 3, size, size)
    traced, listed, groups = [], [], 0
    gc.disable()  # as `timeit` does
    for _ in range(arguments.rounds + 1):
        gc.collect()  # or gigabytes of recorded graphs pile up
        started = time.perf_counter()
        graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=image)
        middle = time.perf_counter()
        groups = sum(1 for _ in graph.get_all_groups())
        traced.append(middle - started)
        listed.append(time.perf_counter() - middle)
    print(
        json.dumps(
            {
                "trace_seconds": traced[1:],
                "list_seconds": listed[1:],
                "groups": groups,
                "versions": {name: metadata.version(name) for name in PACKAGES},
            }
        )
    )


if __name__ == "__main__":
    main()
