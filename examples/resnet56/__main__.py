"""ResNet-56 on CIFAR-10: dense, under GSSStructure, pruned to a share of its MACs, finetuned, cut.

    python examples/resnet56 --directory runs/whole                     # the paper's schedule
    python examples/resnet56 pack cifar10.npz                           # for a machine without TF
    KERAS_BACKEND=jax python examples/resnet56 --directory runs/short --data cifar10.npz
        --epochs 60 40 40 --schedule onecycle --precision mixed_bfloat16 --time-limit 540
    python examples/resnet56 --quick --directory /tmp/quick             # a smoke run, made-up data

Every phase keeps its state in one file of the directory, written every few epochs and when the time
limit is near; the same command goes on from there, on any machine and either backend (exactly,
where the machine's arithmetic repeats itself). Each ratio that is finished adds a line to
`results.jsonl`, with the accuracies on held-out training images and on the test images. "last" is
the last epoch's, the figure to rely on; "best_on_test" picks the epoch on the test images, the
paper's protocol.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cifar
import keras
import numpy as np
import training
from training import FitTrainer, ScanTrainer, State, normalised

import keras_gss as gss
from keras_gss import zoo
from keras_gss.datasets import hold_out

STARTED = time.perf_counter()
COMMON = (  # the options that all phases depend on
    *("seed", "batch", "schedule", "precision", "validation"),
    *("weight_decay", "label_smoothing", "learning_rate", "quick"),
)


def rates(schedule, peak, epochs, steps):
    """Returns the learning rate of every step, shape (epochs, steps)."""
    at = np.arange(epochs * steps) / max(epochs * steps, 1)
    if schedule == "steps":
        relative = np.where(at < 81 / 164, 1.0, np.where(at < 122 / 164, 0.1, 0.01))
    elif schedule == "cosine":
        relative = (1 + np.cos(np.pi * at)) / 2
    else:
        relative = np.where(at < 0.2, at / 0.2, (1 - at) / 0.8)
    return (peak * relative).reshape(epochs, steps)


class Run:
    """What all phases of a run share."""

    def __init__(self, options):
        self.options = options
        self.directory = Path(options.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        splits = cifar.synthetic() if options.quick else cifar.load(options.data)
        self.train, self.test = splits["train"], splits["test"]
        self.validation = None
        if options.validation:
            self.train, self.validation = hold_out(self.train, options.validation)
        blocks = 1 if options.quick else 9
        self.host = zoo.cifar_resnet(blocks, options.seed)
        keras.config.set_dtype_policy(options.precision)
        self.network = zoo.cifar_resnet(blocks, options.seed)
        keras.config.set_dtype_policy("float32")
        self.twins = {id(self.network): self.host}
        kind = ScanTrainer if options.loop == "scan" else FitTrainer
        decay, smoothing = options.weight_decay, options.label_smoothing
        self.trainer = kind(self.network, smoothing, decay, options.distil)

    def accuracies(self, model, state):
        """Returns `{split: accuracy}` on the validation and the test images."""
        found = {}
        for name, data in (("validation", self.validation), ("test", self.test)):
            if data is not None:
                chosen = self.trainer.logits(model, state, data[0]).argmax(-1)
                found[name] = round(float(np.mean(chosen == data[1])), 5)
        return found

    def phase(self, number, name, model, state, peak, settings, teacher=None, warm_up=0):
        """Trains a phase to its end, from its file if there is one; returns state and history.

        Args:
            number: which of the three kinds of phases.
            name: of its file.
            model: what is trained, with its penalties and fixed zeros.
            state: where it begins.
            peak: the largest learning rate.
            settings: what it depends on; a file of other settings is refused.
            teacher: a `State` to distil from, or None.
            warm_up: epochs in which the penalty grows to its factor.
        """
        epochs, batch, seed = self.options.epochs[number], self.options.batch, self.options.seed
        path = self.directory / f"{name}.npz"
        history, saved = [], load(path, settings)
        if saved is not None:
            state, history = saved
        steps = len(self.train[1]) // batch
        table = rates(self.options.schedule, peak, epochs, steps)
        longest = 0.0
        for epoch in range(len(history), epochs):
            if self.options.time_limit < time.perf_counter() - STARTED + 1.2 * longest:
                save(path, settings, state, history)
                print(f"time limit: {name} stopped after {epoch} of {epochs} epochs. Run the same")
                print(f"command again to go on from {path}.", flush=True)
                raise SystemExit(0)
            began = time.perf_counter()
            before = {} if history else {"before": self.accuracies(self.host_of(model), state)}
            samples = training.order((seed, number), epoch, len(self.train[1]), batch)
            key = (seed, number, epoch)
            strength = min(1.0, (epoch + 1) / (warm_up + 1))
            state, loss = self.trainer.epoch(
                model, state, self.train, samples, table[epoch], key, teacher, strength
            )
            if not np.isfinite(loss):
                raise SystemExit(f"{name}: the loss is {loss} after epoch {epoch + 1}")
            entry = {"loss": round(loss, 5)}
            if (epoch + 1) % self.options.evaluate_every == 0 or epoch + 1 == epochs:
                entry |= self.accuracies(self.host_of(model), state)
            entry |= {"seconds": round(time.perf_counter() - began, 2), "on": device(), **before}
            longest = max(longest, entry["seconds"])
            history.append(entry)
            print(f"{name} {epoch + 1}/{epochs} {json.dumps(entry)}", flush=True)
            if (epoch + 1) % self.options.save_every == 0 or epoch + 1 == epochs:
                state = state.numpy()
                save(path, settings, state, history)
        return state.numpy(), history

    def host_of(self, model):
        """Returns the float32 model of the same weights as `model`."""
        return self.twins.get(id(model), model)

    def __call__(self):
        """Runs all that is left to do."""
        o = self.options
        common = {key: getattr(o, key) for key in COMMON}
        begin = State.of(self.host, self.trainer.optimizer())
        base_settings = {**common, "epochs": o.epochs[0]}
        base, base_history = self.phase(
            0, "base", self.network, begin, o.learning_rate, base_settings
        )
        gss_settings = {**base_settings, "factor": o.factor, "gss_epochs": o.epochs[1]}
        gss_settings["gss_learning_rate"] = o.gss_learning_rate
        usual = {"streams": 1.0, "p": 2, "q": 2, "warm_up": 0}
        own = {name: getattr(o, name) for name in usual}
        gss_settings |= {name: value for name, value in own.items() if value != usual[name]}
        base.assign(self.network)  # a penalty may weigh what it finds
        weights = dict.fromkeys(streams(self.network), o.streams)
        gss.attach(self.network, gss.GSSStructure(o.factor, p=o.p, q=o.q, weights=weights))
        sparse, gss_history = self.phase(
            *(1, "gss", self.network, self.afresh(base), o.gss_learning_rate, gss_settings),
            warm_up=o.warm_up,
        )
        gss.detach(self.network, declared=True)
        for ratio in o.ratios:
            pruned, trained = self.pruned(sparse, base, ratio)
            settings = {
                **gss_settings,
                "ratio": ratio,
                "finetune_epochs": o.epochs[2],
                "finetune_learning_rate": o.finetune_learning_rate,
                "distil": o.distil,
            }
            if o.by != "deviation" or o.rewind:
                settings |= {"by": o.by, "rewind": o.rewind}
            if o.finetune_weight_decay is not None:
                settings["finetune_weight_decay"] = self.trainer.l2 = o.finetune_weight_decay
            start = State.of(pruned, self.trainer.optimizer())
            if not o.epochs[2]:
                print(f"pruned-{ratio:g} {json.dumps(self.accuracies(pruned, start))}", flush=True)
                continue
            tuned, history = self.phase(
                *(2, f"finetune-{ratio:g}", trained, start, o.finetune_learning_rate, settings),
                teacher=base if o.distil else None,
            )
            if not o.train_only:
                tuned.assign(pruned)
                phases = {"base": base_history, "gss": gss_history, "finetune": history}
                self.finish(ratio, pruned, tuned, settings, phases)

    def pruned(self, state, base, ratio):
        """Prunes to 1 / ratio of the MACs; returns the float32 network and the one to train."""
        o = self.options
        state.assign(self.host)
        options = {"keep_strongest": True}
        if o.by == "loss":
            images, labels = (each[:1000] for each in self.train)
            options = {"by": gss.SNIP(normalised(images), labels, **options)}
        elif o.by == "magnitude":
            options = {"by": gss.MagnitudeThreshold(**options)}
        target = gss.MacsBudget(1 / ratio, **options)
        if ratio != 1:
            target = gss.ZerosOf(gss.prune(self.host, target, granularity="neuron"))
        found = []
        for model in (self.host, self.network):
            (base if o.rewind else state).assign(model)
            found.append(gss.prune(model, target, granularity="neuron"))
        self.twins[id(found[1])] = found[0]
        return found

    def afresh(self, state):
        """Returns the weights of a state with a new optimizer's."""
        return State(state.trainable, state.others, [np.zeros_like(v) for v in state.optimizer])

    def finish(self, ratio, pruned, tuned, settings, phases):
        """Cuts, checks, exports, and adds the line of results unless it is there already."""
        results = self.directory / "results.jsonl"
        rows = [json.loads(line) for line in results.read_text().splitlines()] if (
            results.exists()) else []  # fmt: skip
        if any(row["settings"] == settings for row in rows):
            return
        began = time.perf_counter()
        small, report = gss.slim(pruned, return_report=True)
        folder = Path(self.options.export or self.directory / "export")
        folder.mkdir(parents=True, exist_ok=True)
        gss.export(small, folder / f"resnet56-{ratio:g}.keras", format="keras", overwrite=True)
        images = self.test[0]
        masked = self.trainer.logits(pruned, tuned, images)
        slim_state = State.of(small, self.trainer.optimizer())
        cut_down = self.trainer.logits(small, slim_state, images)
        dense, left = gss.count(self.host), gss.count(small)
        row = {
            "model": self.host.name,
            "quick": self.options.quick,
            "ratio": ratio,
            "settings": settings,
            "accuracy": {
                **{name: summary(history) for name, history in phases.items()},
                "pruned_before_finetuning": phases["finetune"][0]["before"],
                "slim": {"test": float(np.mean(cut_down.argmax(-1) == self.test[1]))},
            },
            "macs": [dense.live_macs, left.live_macs],
            "macs_ratio": round(dense.live_macs / left.live_macs, 4),
            "parameters": [self.host.count_params(), small.count_params()],
            "structure": {name: after for name, (_, after) in report.cut.items()},
            "slim_against_masked": {
                "random_inputs": report.max_difference,
                "test_logits": float(np.abs(masked - cut_down).max() / np.abs(masked).max()),
                "test_predictions_changed": int((masked.argmax(-1) != cut_down.argmax(-1)).sum()),
            },
            "seconds": {
                **{name: round(sum(e["seconds"] for e in h), 1) for name, h in phases.items()},
                "slim_and_check": round(time.perf_counter() - began, 1),
            },
            "data": "synthetic" if self.options.quick else str(self.options.data or "tfds"),
            "date": datetime.date.today().isoformat(),
            "command": " ".join(["python examples/resnet56", *sys.argv[1:]]),
            "trained_on": sorted({entry["on"] for h in phases.values() for entry in h}),
            "cut_on": device(),
            "versions": {
                "keras_gss": gss.__version__,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: row[key] for key in ("ratio", "macs", "accuracy")}), flush=True)


def streams(model):
    """Names the groups that several blocks add to: the residual streams."""
    return [g.name for g in gss.find_groups(model) if len({id(s.layer) for s in g.incoming}) > 1]


def summary(history):
    """Returns the accuracies of a phase by how its epoch is chosen."""
    if not history:
        return {}
    keys = [key for key in ("validation", "test") if key in history[-1]]

    def at(epoch):
        return {"epoch": epoch + 1, **{key: history[epoch][key] for key in keys}}

    found = {"last": at(len(history) - 1)}
    for key in keys:
        found[f"best_on_{key}"] = at(int(np.argmax([entry.get(key, 0) for entry in history])))
    return found


def device():
    """Names the backend and the processor."""
    backend = keras.backend.backend()
    kind = f"{os.cpu_count()} cores"
    if backend == "jax":
        import jax

        backend, kind = f"jax {jax.__version__}", f"{jax.devices()[0].device_kind}, {kind}"
    return f"{backend}, {platform.machine()}, {kind}"


def save(path, settings, state, history):
    """Writes a state in one step, so that a kill leaves the one before."""
    meta = json.dumps({"settings": settings, "history": history})
    content = {"meta": np.array(meta)}
    for name, values in vars(state.numpy()).items():
        content |= {f"{name}/{number:04d}": value for number, value in enumerate(values)}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, **content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path, settings):
    """Returns `(state, history)` of a file; None if there is none."""
    try:
        with np.load(path) as content:
            meta = json.loads(str(content["meta"]))
            keys = sorted(content.files)
            lists = ([content[k] for k in keys if k.startswith(f"{name}/")]
                     for name in ("trainable", "others", "optimizer"))  # fmt: skip
            state = State(*lists)
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise SystemExit(f"{path} cannot be read ({error}): delete it to begin anew") from error
    if meta["settings"] != json.loads(json.dumps(settings)):
        differs = [k for k in settings if meta["settings"].get(k) != settings[k]]
        raise SystemExit(f"{path} was made with other {', '.join(differs)}: use a new --directory")
    return state, meta["history"]


def parsed(arguments):
    """Reads the command line."""
    jax = keras.backend.backend() == "jax"
    parser = argparse.ArgumentParser(
        prog="resnet56", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--directory", required=True, help="states, results and exports; empty or an earlier run's")
    add("--data", help="file made by `pack`; default: tensorflow-datasets")
    add("--ratios", type=float, nargs="+", default=[2.1, 2.6, 4.0], help="times fewer MACs")
    add("--epochs", type=int, nargs=3, default=[164, 164, 164], metavar=("BASE", "GSS", "TUNE"),
        help="TUNE 0: only print what pruning leaves, to choose the factor by")  # fmt: skip
    add("--factor", type=float, default=1e-5, help="of GSSStructure")
    add("--p", type=int, choices=(1, 2), default=2, help="of GSSStructure")
    add("--q", type=int, choices=(1, 2), default=2, help="of GSSStructure")
    add("--warm-up", type=int, default=0, help="epochs in which the penalty grows to its factor")
    add("--streams", type=float, default=1.0, help="multiplier of the residual streams' penalty")
    add("--by", choices=("deviation", "magnitude", "loss"), default="deviation",
        help="neurons are compared by: their layer's deviation, or in one order")  # fmt: skip
    add("--rewind", action="store_true", help="finetune the weights from before the penalty")
    add("--batch", type=int, default=128)
    add("--schedule", choices=("steps", "cosine", "onecycle"), default="steps")
    add("--learning-rate", type=float, default=0.1)
    add("--gss-learning-rate", type=float, default=0.1)
    add("--finetune-learning-rate", type=float, default=0.1)
    add("--weight-decay", type=float, default=1e-4)
    add("--finetune-weight-decay", type=float, help="default: as before finetuning")
    add("--label-smoothing", type=float, default=0.0)
    add("--distil", type=float, default=0.0, help="share of the loss that follows the dense model")
    add("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    add("--validation", type=int, default=5000, help="training images held out; 0: none")
    add("--seeds", type=int, nargs="+", default=[0], help="several: each in a folder of its own")
    add("--loop", choices=("fit", "scan"), default="scan" if jax else "fit")
    add("--evaluate-every", type=int, default=1, help="epochs between two evaluations")
    add("--save-every", type=int, default=10, help="epochs between two writes of the state")
    add("--time-limit", type=float, default=float("inf"), help="seconds")
    add("--train-only", action="store_true", help="leave cutting and results to a later call")
    add("--export", help="folder of the cut models; default: DIRECTORY/export")
    add("--quick", action="store_true", help="a smoke run on made-up images; marked in its results")
    options = parser.parse_args(arguments)
    options.seed = options.seeds[0]
    if options.loop == "scan" and not jax:
        parser.error("--loop scan needs KERAS_BACKEND=jax")
    if options.quick:
        options.epochs = [min(pair) for pair in zip(options.epochs, (2, 1, 1), strict=True)]
        options.batch, options.validation = 20, 40
        options.ratios, options.learning_rate = [2.1], 0.02
    return options


def main(arguments):
    """Packs the data, or runs."""
    if arguments[:1] == ["pack"]:
        (path,) = arguments[1:]
        cifar.pack(path)
        print(f"{path}: {Path(path).stat().st_size:,} bytes")
        return
    options = parsed(arguments)
    if options.loop == "scan":
        import jax

        # all but the trainer's own arrays; pruning and cutting are many small steps
        jax.config.update("jax_default_device", jax.devices("cpu")[0])
    whole = options.directory
    for seed in options.seeds:
        options.seed = seed
        if len(options.seeds) > 1:
            options.directory = Path(whole, f"seed{seed}")
        Run(options)()


if __name__ == "__main__":
    main(sys.argv[1:])
