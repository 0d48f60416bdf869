"""What the penalty and fixed zeros add to training: the same model and settings, with and without.

    python examples/benchmarks/penalty_cost.py --model lenet-5 --setting fastest --out cost.json

Four runs of `model.fit` take turns of a few steps: plain, under the penalty, with fixed zeros, and
plain once more, which shows the noise. With `--refresh-every` a fifth one, "refreshed", has the
penalty whose selection variables are held for so many steps; "penalty" is its closed form. Every
turn is timed in wall-clock and in CPU time. Lower quartiles over all rounds are compared with those
of both plain runs; the spread is that of the ratios within a round. What the callback does once an
epoch is timed apart, and added for the ratio of whole epochs. So are value and gradients of the
penalty by themselves: where a step takes long, that is a share of it far below the noise.

In one process equal models differ by up to a tenth, by where their memory lies for instance. So
there are several, which make the models and let them take turns in an order drawn anew, and the
ratio is the mean of theirs. For networks whose steps take long `--processes 1` is enough.
"""

import argparse
import datetime
import functools
import json
import math
import multiprocessing
import os
import runpy
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from graph_work import machine

import keras_gss as gss
from keras_gss import zoo
from keras_gss.compress.data import batches
from keras_gss.compress.phases import Speed, choose_speed

SEQUENCES = Path(__file__).parents[1] / "sequences"
MODELS = {name: functools.partial(zoo.build, name) for name in zoo.MODELS}
MODELS["transformer"] = lambda: runpy.run_path(str(SEQUENCES))["transformer"]()
MODELS["784-2400-800-10"] = lambda: keras.Sequential(  # eight times as wide as LeNet-300-100
    [keras.Input((28, 28, 1)), keras.layers.Flatten()]
    + [keras.layers.Dense(units, "relu") for units in (2400, 800)]
    + [keras.layers.Dense(10)]
)
BATCH = 100
EPOCH = 600  # steps: 60,000 samples
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Turns(keras.callbacks.Callback):
    """Lets a `fit` in a thread of its own run some executions, then waits for its next turn.

    Args:
        executions: how many executions (of the model's `steps_per_execution`) a turn has.
    """

    def __init__(self, executions):
        super().__init__()
        self.executions = executions
        self.taken = []  # per turn `{clock: milliseconds}`
        self.mine, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, fit):
        """Calls `fit`, a function without arguments, in a thread of its own, turn by turn."""

        def wait_and_fit():
            self.mine.acquire()
            self._start()
            fit()

        threading.Thread(target=wait_and_fit, daemon=True).start()

    def take(self):
        """Lets it have one turn."""
        self.mine.release()
        self.done.acquire()

    def _start(self):
        self._left = self.executions
        self._started = {name: clock() for name, clock in CLOCKS.items()}

    def on_train_batch_end(self, batch, logs=None):
        """Ends the turn after its last execution."""
        self._left -= 1
        if not self._left:
            now = {name: clock() for name, clock in CLOCKS.items()}
            self.taken.append({name: 1e3 * (now[name] - self._started[name]) for name in CLOCKS})
            self.done.release()
            self.mine.acquire()
            self._start()


def jax_state(model, batch):
    """Makes the optimizer's variables; returns what JAX's compiled step is given and gives back."""
    model.train_on_batch(*(array[:2] for array in batch))
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return [[variable.value for variable in each] for each in variables]


def models(name, speed, penalties, random):
    """Returns `{kind: model}` in random order, compiled alike; `penalties` are those of kinds."""
    build, kinds = MODELS[name], {}
    for kind in random.permutation(["plain", *penalties, "zeros", "plain again"]):
        kinds[kind] = build()
        if kind in penalties:
            gss.attach(kinds[kind], penalties[kind])
        elif kind == "zeros":
            kinds[kind] = gss.prune(kinds[kind], gss.StdThreshold(0.3))
    return compiled(kinds, speed)


def compiled(kinds, speed):
    """Compiles `{kind: model}` alike and returns it."""
    for model in kinds.values():
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=speed.jit_compile,
            steps_per_execution=speed.steps_per_execution,
        )
    return kinds


def train(model, setting, turns, steps):
    """Starts a `fit` of so many steps that takes turns."""
    random = np.random.default_rng(0)
    samples = min(steps, EPOCH) * BATCH
    inputs = random.random((samples, *model.input_shape[1:]), dtype=np.float32)
    inputs = inputs.astype(model.inputs[0].dtype)
    labels = random.integers(0, model.output_shape[-1], (samples, *model.output_shape[1:-1]))
    epochs = -(-steps // EPOCH)
    common = {"epochs": epochs, "verbose": 0, "callbacks": [turns]}
    if setting == "plain":
        turns.run(lambda: model.fit(inputs, labels, batch_size=BATCH, **common))
    else:
        data = batches((inputs, labels), BATCH, (0, 0), 0, epochs)
        per_epoch = samples // BATCH
        turns.run(lambda: model.fit(data, steps_per_epoch=per_epoch, shuffle=False, **common))


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


def alone(model, penalty, jit_compile, times=100):
    """Returns the lower quartile of the milliseconds for value and gradients of the penalty."""
    gss.attach(model, penalty)
    kernels = [v for v in model.trainable_variables if v.regularizer]
    if keras.backend.backend() == "jax":
        import jax

        def loss_of(values):
            with keras.StatelessScope(state_mapping=zip(kernels, values, strict=True)):
                return sum(model.losses)

        compiled = jax.jit(jax.value_and_grad(loss_of))
        both = functools.partial(compiled, [kernel.value for kernel in kernels])
    else:
        import tensorflow as tf

        @tf.function(jit_compile=jit_compile)
        def both():
            with tf.GradientTape() as tape:
                loss = sum(model.losses)
            return loss, tape.gradient(loss, [kernel.value for kernel in kernels])

    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        float(both()[0])
        taken.append(1e3 * (time.perf_counter() - start))
    return quartile(taken[1:])


def quartile(values):
    """Returns the lower quartile: interference by others only ever adds time."""
    return float(np.quantile(values, 0.25))


def compared(rounds, kind, clock):
    """Compares one kind of model with the plain ones; `rounds` holds what each turn took."""
    base = ("plain",) if kind == "plain again" else ("plain", "plain again")
    own = np.array([each[kind][clock] for each in rounds])
    plain = np.array([[each[k][clock] for k in base] for each in rounds])
    return {
        "ratio": quartile(own) / quartile(plain),
        "spread": np.quantile(own / plain.mean(axis=1), [0.25, 0.75]).tolist(),
        "milliseconds_per_turn": quartile(own),
    }


def measured(arguments, speed, penalties, steps, seed):
    """Trains models of all kinds in turns; returns what `main` averages over processes."""
    if arguments.threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    random = np.random.default_rng(seed)
    kinds = models(arguments.model, speed, penalties, random)
    turns = {kind: Turns(steps // speed.steps_per_execution) for kind in kinds}
    for kind, each in turns.items():
        train(kinds[kind], arguments.setting, each, steps * (arguments.rounds + 2))
    load = [os.getloadavg()[0]]
    for _ in range(arguments.rounds + 1):
        for kind in random.permutation(list(kinds)):
            turns[kind].take()
    load.append(os.getloadavg()[0])
    columns = zip(*(each.taken for each in turns.values()), strict=True)
    rounds = [dict(zip(turns, each, strict=True)) for each in columns]
    rounds = rounds[1:]  # the first turn traced the step
    plain = [each[kind]["wall"] for each in rounds for kind in ("plain", "plain again")]
    return {
        "compared": {
            kind: {clock: compared(rounds, kind, clock) for clock in CLOCKS}
            for kind in ("penalty", "refreshed", "zeros", "plain again")
            if kind in kinds
        },
        "step": quartile(plain) / steps,
        "alone": alone(MODELS[arguments.model](), penalties["penalty"], speed.jit_compile),
        "epoch_end": {kind: epoch_end(kinds[kind], times=10) for kind in penalties},
        "load": load,
    }


def averaged(found):
    """Returns the means of what `compared` found in several processes, and every ratio."""
    ratios = [each["ratio"] for each in found]
    return {
        "ratio": float(np.mean(ratios)),
        "ratios": ratios,
        "spread": np.mean([each["spread"] for each in found], axis=0).tolist(),
        "milliseconds_per_turn": float(np.mean([each["milliseconds_per_turn"] for each in found])),
    }


def in_processes(processes, *arguments):
    """Calls `measured` in so many processes, one after another."""
    if processes == 1:
        return [measured(*arguments, 0)]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return [pool.apply(measured, (*arguments, seed)) for seed in range(processes)]


def main():
    """Measures, prints a line per kind of model and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=list(MODELS), default="lenet-300-100")
    parser.add_argument(
        "--setting",
        choices=("plain", "fastest"),
        default="fastest",
        help="plain: `fit` on arrays, without jit; fastest: what `compress` chooses",
    )
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60, help="turns of each kind in a process")
    parser.add_argument("--steps", type=int, default=10, help="steps of one turn, at least")
    parser.add_argument("--steps-per-execution", type=int, help="overrules it, for slow models")
    parser.add_argument("--factor", type=float, default=2e-6)
    parser.add_argument("--p", type=int, choices=(1, 2), default=2)
    parser.add_argument("--q", type=int, choices=(1, 2), default=2)
    parser.add_argument("--neurons-only", action="store_true", help="leave input features out")
    parser.add_argument(
        "--refresh-every", type=int, default=1, help="above 1: measures that form of it too"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="TensorFlow's threads; one makes for less noise"
    )
    parser.add_argument("--note", help="what else to say about the machine, for the JSON file")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    refreshes = {"penalty": 1}
    if arguments.refresh_every > 1:
        refreshes["refreshed"] = arguments.refresh_every
    penalties = {
        kind: gss.GSSStructure(
            arguments.factor,
            arguments.p,
            arguments.q,
            inputs=not arguments.neurons_only,
            refresh_every=steps,
        )
        for kind, steps in refreshes.items()
    }
    model = MODELS[arguments.model]()
    speed = choose_speed(model, EPOCH, steps_per_execution=arguments.steps_per_execution)
    if arguments.setting == "plain":
        speed = Speed(jit_compile=False, steps_per_execution=1)
    least = math.lcm(speed.steps_per_execution, arguments.refresh_every)  # as many refreshes each
    steps = -(-arguments.steps // least) * least
    runs = in_processes(arguments.processes, arguments, speed, penalties, steps)
    found = {
        kind: {clock: averaged([one["compared"][kind][clock] for one in runs]) for clock in CLOCKS}
        for kind in runs[0]["compared"]
    }
    step = float(np.mean([one["step"] for one in runs]))
    load = [one["load"] for one in runs]
    own = float(np.mean([one["alone"] for one in runs]))
    epochs = {}
    for kind in penalties:
        once = float(np.mean([one["epoch_end"][kind] for one in runs]))
        whole = found[kind]["wall"]["ratio"] + once / (EPOCH * step)
        epochs[kind] = {"epoch_end_milliseconds": once, "epoch_ratio": whole}
    print(f"{arguments.model}, {arguments.setting}: {step:.2f} ms per step")
    for kind, clocks in found.items():
        for clock, each in clocks.items():
            low, high = min(each["ratios"]), max(each["ratios"])
            print(f"  {kind:12} {clock:5} {each['ratio']:.3f}x  ({low:.3f} to {high:.3f})")
    print(f"  the penalty alone: {own:.2f} ms, {own / step:.4f} of a step")
    for kind, each in epochs.items():
        once, whole = each.values()
        print(f"  {kind}: once an epoch {once:.1f} ms, {whole:.3f}x for epochs of {EPOCH} steps")
    if arguments.out:
        result = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "model": arguments.model,
            "setting": arguments.setting,
            "jit_compile": speed.jit_compile,
            "steps_per_execution": speed.steps_per_execution,
            "batch_size": BATCH,
            "penalty": penalties["penalty"].get_config(),
            "refresh_every": arguments.refresh_every,
            "processes": arguments.processes,
            "rounds": arguments.rounds,
            "steps_per_turn": steps,
            "plain_milliseconds_per_step": step,
            "penalty_alone_milliseconds": own,
            "compared_with_plain": found,
            **epochs.pop("penalty"),
            **epochs,
            "machine": {
                **machine(),
                "threads": arguments.threads or "as many as Keras' backend likes",
                "loads_before_and_after": load,
                "note": arguments.note,
            },
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
