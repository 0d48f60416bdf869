"""Section 3.2: what a step under the penalty costs beside a plain one, as the network grows.

Networks 784-300k-100k-10 take turns of a few steps, as in `examples/benchmarks/penalty_cost.py`:
plain, under GSS-structure, under GSS-element, by Group-GReg. Lower quartiles are compared.
"""

import datetime
import sys
from pathlib import Path

import keras

import keras_gss as gss
from keras_gss.comparison.protocol import versions
from keras_gss.comparison.store import append
from keras_gss.compress.phases import choose_speed
from keras_gss.procedures import GroupGReg

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import penalty_cost

WIDTHS = (1, 2, 4, 8)


def measure(options, command):
    """Measures every width and writes a line for each method."""
    widths, rounds = ((1,), 2) if options.quick else (WIDTHS, 60)
    options.results.mkdir(parents=True, exist_ok=True)
    for width in widths:
        models = kinds(width)
        speed = choose_speed(models["plain"], penalty_cost.EPOCH)
        models = penalty_cost.compiled(models, speed)
        turns = {kind: penalty_cost.Turns(executions=1) for kind in models}
        steps = speed.steps_per_execution
        for kind, model in models.items():
            penalty_cost.train(model, "fastest", turns[kind], steps * (rounds + 2))
        for turn in range(rounds + 1):
            for kind in list(models) if turn % 2 else list(models)[::-1]:
                turns[kind].take()
        step = {
            kind: penalty_cost.quartile([each["wall"] for each in own.taken[1:]]) / steps
            for kind, own in turns.items()
        }
        for kind in list(models)[1:]:
            line = {
                "target": "cost",
                "method": kind,
                "weights": gss.count(models["plain"]).weights,
                "plain_milliseconds": step["plain"],
                "extra_milliseconds": step[kind] - step["plain"],
                "rounds": rounds,
                "quick": options.quick,
                "versions": {**versions(), "backend": keras.backend.backend()},
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "command": command,
            }
            append(options.results / "cost.jsonl", line)
            print(f"{line['weights']:,} weights  {kind}  {step[kind] / step['plain']:.3f}x")


def kinds(width):
    """Returns the networks of one width, `{kind: model}`, the plain one first."""
    models = {kind: network(width) for kind in ("plain", "gss-structure", "gss-element")}
    gss.attach(models["gss-structure"], gss.GSSStructure(2e-6, inputs=True))
    gss.attach(models["gss-element"], gss.GSSElement(1e-5, inputs=True))
    return {**models, "group-greg": GroupGReg(inputs=True).begin(network(width))}


def network(width):
    """Returns LeNet-300-100 with its hidden layers so many times as wide."""
    return keras.Sequential(
        [
            keras.layers.Input((784,)),
            keras.layers.Dense(300 * width, "relu"),
            keras.layers.Dense(100 * width, "relu"),
            keras.layers.Dense(10),
        ]
    )
