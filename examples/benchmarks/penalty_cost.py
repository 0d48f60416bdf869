"""What the penalty and fixed zeros add to training: the same model and settings, with and without.

    python examples/benchmarks/penalty_cost.py --model lenet-5 --setting fastest --out cost.json

Short bursts of `model.fit` take turns in one process: plain, under the penalty, with fixed zeros,
and plain once more, which shows the noise. Of each burst the clock sees what follows its first
execution, in wall-clock and in CPU time. The lower quartiles over all rounds are compared; the
spread is that of the ratios within a round. What the callback does once an epoch is timed apart,
and added for the ratio of whole epochs.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_gss as gss
from keras_gss import zoo
from keras_gss.compress.data import batches
from keras_gss.compress.phases import Speed, choose_speed

BATCH = 100
EPOCH = 600  # steps: 60,000 samples
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Clock(keras.callbacks.Callback):
    """Milliseconds per step of one `fit`, from the end of its first execution to that of its last.

    With k steps per execution Keras calls `on_train_batch_end` after steps k - 1, 2 k - 1, ...
    """

    def on_train_begin(self, logs=None):
        """Forgets what was measured before."""
        self._ends = []

    def on_train_batch_end(self, batch, logs=None):
        """Reads both clocks."""
        self._ends.append((batch, {name: clock() for name, clock in CLOCKS.items()}))

    def per_step(self):
        """Returns `{clock: milliseconds}`."""
        (first, start), (last, stop) = self._ends[0], self._ends[-1]
        return {name: 1e3 * (stop[name] - start[name]) / (last - first) for name in CLOCKS}


def models(name, speed, penalty):
    """Returns `{kind: model}`, compiled alike."""
    zeros = gss.prune(zoo.build(name), gss.StdThreshold(0.3))
    kinds = {"plain": zoo.build(name), "penalty": zoo.build(name), "zeros": zeros}
    kinds["plain again"] = zoo.build(name)
    gss.attach(kinds["penalty"], penalty)
    for model in kinds.values():
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=speed.jit_compile,
            steps_per_execution=speed.steps_per_execution,
        )
    return kinds


def burst(model, data, steps, setting):
    """Trains for some steps; returns `{clock: milliseconds per step}`."""
    clock = Clock()
    if setting == "plain":
        inputs, labels = (each[: steps * BATCH] for each in data)
        model.fit(inputs, labels, batch_size=BATCH, verbose=0, callbacks=[clock])
    else:
        epoch = batches(data, BATCH, (0, 0), 0, 1)
        model.fit(epoch, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[clock])
    return clock.per_step()


def epoch_end(model, times):
    """Returns the lower quartile of the milliseconds that `GroupSparsity` takes once an epoch."""
    callback = gss.GroupSparsity()
    callback.set_model(model)
    callback.on_train_begin()
    taken = []
    for epoch in range(times):
        start = time.perf_counter()
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {})
        taken.append(1e3 * (time.perf_counter() - start))
    callback.on_train_end()
    return quartile(taken)


def quartile(values):
    """Returns the lower quartile: interference by others only ever adds time."""
    return float(np.quantile(values, 0.25))


def compared(rounds, kind, clock):
    """Compares one kind of model with the plain one; `rounds` holds what each burst took."""
    own, plain = (np.array([each[k][clock] for each in rounds]) for k in (kind, "plain"))
    return {
        "ratio": quartile(own) / quartile(plain),
        "spread": np.quantile(own / plain, [0.25, 0.75]).tolist(),
        "milliseconds": quartile(own),
    }


def main():
    """Measures, prints a line per kind of model and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=list(zoo.MODELS), default="lenet-300-100")
    parser.add_argument(
        "--setting",
        choices=("plain", "fastest"),
        default="fastest",
        help="plain: `fit` on arrays, without jit; fastest: what `compress` chooses",
    )
    parser.add_argument("--rounds", type=int, default=40, help="bursts of each kind")
    parser.add_argument("--steps", type=int, default=100, help="steps of one burst")
    parser.add_argument("--factor", type=float, default=2e-6)
    parser.add_argument("--p", type=int, choices=(1, 2), default=2)
    parser.add_argument("--q", type=int, choices=(1, 2), default=2)
    parser.add_argument("--refresh-every", type=int, default=1)
    parser.add_argument("--note", help="what else to say about the machine, for the JSON file")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    penalty = gss.GSSStructure(
        arguments.factor,
        arguments.p,
        arguments.q,
        inputs=True,
        refresh_every=arguments.refresh_every,
    )
    model = zoo.build(arguments.model)
    plain = Speed(jit_compile=False, steps_per_execution=1)
    speed = plain if arguments.setting == "plain" else choose_speed(model, EPOCH)
    steps = max(arguments.steps, 3 * speed.steps_per_execution)
    steps -= steps % speed.steps_per_execution
    random = np.random.default_rng(0)
    data = (
        random.random((steps * BATCH, *model.input_shape[1:]), dtype=np.float32),
        random.integers(0, 10, steps * BATCH),
    )
    kinds = models(arguments.model, speed, penalty)
    load = [os.getloadavg()[0]]
    rounds = []
    for turn in range(arguments.rounds + 1):
        order = list(kinds) if turn % 2 else list(kinds)[::-1]
        rounds.append({k: burst(kinds[k], data, steps, arguments.setting) for k in order})
    rounds = rounds[1:]  # the first one traced the functions
    load.append(os.getloadavg()[0])

    once = epoch_end(kinds["penalty"], times=10)
    found = {
        kind: {clock: compared(rounds, kind, clock) for clock in CLOCKS}
        for kind in kinds
        if kind != "plain"
    }
    step = quartile([each["plain"]["wall"] for each in rounds])
    whole = found["penalty"]["wall"]["ratio"] + once / (EPOCH * step)
    print(f"{arguments.model}, {arguments.setting}: {step:.2f} ms per step, load {load}")
    for kind, clocks in found.items():
        for clock, each in clocks.items():
            low, high = each["spread"]
            print(f"  {kind:12} {clock:5} {each['ratio']:.3f}x  ({low:.3f} to {high:.3f})")
    print(f"  once an epoch {once:.1f} ms: {whole:.3f}x for epochs of {EPOCH} steps")
    if arguments.out:
        result = {
            "model": arguments.model,
            "setting": arguments.setting,
            "jit_compile": speed.jit_compile,
            "steps_per_execution": speed.steps_per_execution,
            "batch_size": BATCH,
            "penalty": penalty.get_config(),
            "rounds": arguments.rounds,
            "steps_per_burst": steps,
            "plain_milliseconds_per_step": step,
            "compared_with_plain": found,
            "epoch_end_milliseconds": once,
            "epoch_ratio": whole,
            "machine": {
                "cpus": os.cpu_count(),
                "load_before_and_after": load,
                "note": arguments.note,
            },
            "versions": {
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "python": platform.python_version(),
            },
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
