"""Executes runs: pretrained, trained under the penalty, cut, finetuned; a JSON line for each.

Each stage is a `gss.compress` in a directory of its own, which resumes it. Runs that agree in all
that a stage depends on share it.
"""

import dataclasses
import datetime
import functools
import hashlib
import json

import keras
import numpy as np
from settings import DENSE, FINAL, TRAINED

import keras_gss as gss
from keras_gss import datasets, zoo
from keras_gss.comparison.compare import workers
from keras_gss.comparison.protocol import versions
from keras_gss.comparison.store import append, read
from keras_gss.loading import load_model
from keras_gss.pruning.budgets import Budget
from keras_gss.regularizers.named import named_penalty


class WeightsBudget(Budget):
    """Zeroes as little as leaves at most a fraction of the weights that Tables 2 and 3 count."""

    unit = "non-zero weights"

    def cost(self, count):
        """Returns the kernels' non-zero entries."""
        return count.nonzero_weights


CURVES = ("loss", "accuracy", "val_accuracy", "gss_penalty", "gss_macs")
BUDGETS = {"weights": WeightsBudget, "macs": gss.MacsBudget}


def execute(runs, directory, results, jobs, command):
    """Executes runs, each where it was killed, and writes a line for each that is finished.

    Args:
        runs: of `settings.Run`.
        directory: of the networks and the state of what is under way.
        results: folder of the lines, one file per table and figure.
        jobs: how many processes.
        command: what was typed, for the lines.
    """
    waiting = [run for run in runs if asked(run) not in finished(results, run)]
    done = len(runs) - len(waiting)
    print(f"{done} of {len(runs)} runs are finished", flush=True)
    results.mkdir(parents=True, exist_ok=True)
    with workers(jobs, jobs == 1, directory) as submit:
        for stage, names in ((pretrain, DENSE), (train, TRAINED)):
            for run, _ in submit(stage, distinct(waiting, names)):
                print(f"{stage.__name__}ed  {title(run)}", flush=True)
        for run, figures in submit(finish, distinct(waiting, FINAL)):
            for each in waiting:
                if digest(each, FINAL) == digest(run, FINAL):
                    append(lines_of(results, each), {**asked(each), **figures, "command": command})
                    done += 1
            print(f"{done}/{len(runs)}  {title(run)}  {said(figures)}", flush=True)


def distinct(runs, names):
    """Returns one run of those that agree in some settings."""
    return list({digest(run, names): run for run in runs}.values())


def said(figures):
    """Returns the figures of a progress line."""
    accuracy = "  ".join(
        f"{name} {value:.4f}" for name, value in figures["accuracy"].items() if value
    )
    return f"{accuracy}  weights {figures['nonzero_weights']:,}  FLOPs {figures['flops']:,}"


def asked(run):
    """Returns a run's settings as its line holds them."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def finished(results, run):
    """Returns the settings of the runs that have a line; older lines lack newer settings."""
    path = lines_of(results, run)
    records = read(path) if path.exists() else []
    names = [field.name for field in dataclasses.fields(run)]
    known = [{name: record[name] for name in names if name in record} for record in records]
    return [asked(type(run)(**settings)) for settings in known]


def lines_of(results, run):
    """Returns the file that a run's line belongs to."""
    return results / f"{'search-' if run.role == 'search' else ''}{run.target}.jsonl"


def title(run):
    """Returns what a run is called in progress lines."""
    return f"{run.target}  {run.row}  factor {run.factor:g}  seed {run.seed}"


def digest(run, names):
    """Returns a name for what some of a run's settings decide, by those that are not as usual."""
    usual = {field.name: field.default for field in dataclasses.fields(run)}
    own = dataclasses.asdict(run)
    own = {name: value for name, value in own.items() if value != usual[name]}
    own = {name: value for name, value in own.items() if name in names}
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:10]


def pretrain(verbose, run, directory):
    """Trains the dense network, unless it is there, and returns its folder."""
    return stage(
        run, directory / f"dense-{digest(run, DENSE)}", verbose, pretrain_epochs=run.pretrain_epochs
    )


def train(verbose, run, directory):
    """Trains under the penalty, unless that is done, and returns the folder.

    In rounds the network is cut on the way, and the next round trains the small one.
    """
    folder = directory / f"trained-{digest(run, TRAINED)}"
    start = directory / f"dense-{digest(run, DENSE)}" / "trained.keras"
    method = {"regularizer": penalty(run), "epochs": run.epochs // (1 + len(run.rounds))}
    if run.warm_up:
        method["schedule"] = gss.WarmUpFactor(run.warm_up, run.begins)
    if run.proximal:
        method["procedure"] = gss.ProximalSteps(run.proximal, inputs=run.inputs)
    for cost in run.rounds:
        goal = dataclasses.replace(run, cost=cost)
        part = stage(run, beside(folder, f"{cost:g}"), verbose, start, goal, **method)
        start = part / "model.keras"
    method["epochs"] = run.epochs - len(run.rounds) * method["epochs"]
    return stage(run, folder, verbose, start, **method)


def stage(run, folder, verbose, start=None, goal=None, **arguments):
    """Trains one stage, and cuts what a goal, another run, asks for."""
    if not (folder / "result.json").exists():
        model = network(run) if start is None else load_model(start)
        options = {"target": gss.StdThreshold(0.0), "epochs": 0, "finetune_epochs": 0}
        options |= cut(goal, model) if goal else {}
        compress(run, model, folder, verbose, **{**options, **arguments})
    return folder


def network(run):
    """Returns the untrained network."""
    if run.size:
        return zoo.cifar_resnet(blocks=9, seed=run.seed, size=run.size)
    return zoo.build(run.model, run.seed)


def beside(folder, name):
    """Returns a folder beside another, named after it."""
    return folder.with_name(f"{folder.name}-{name}")


def finish(verbose, run, directory):
    """Cuts and finetunes, and returns what the line says beside the settings."""
    dense = directory / f"dense-{digest(run, DENSE)}"
    start = directory / f"trained-{digest(run, TRAINED)}" / "trained.keras"
    folder = directory / f"final-{digest(run, FINAL)}"
    goal, thresholded = run, folder
    # Small networks are faster to finetune, but one draws a whole kernel, the other is a teacher.
    if run.target != "figure1" and not run.distillation:
        thresholded = stage(run, beside(folder, "cut"), verbose, start, run)
        start = thresholded / "model.keras"
        if run.rewinds:
            start = rewound(thresholded, dense / "trained.keras")
        goal = dataclasses.replace(run, ratio=1e-12)  # zeros stay zero
    trained = load_model(start)
    result = compress(
        dataclasses.replace(run, **dict(run.finetune)),
        trained,
        folder,
        verbose,
        **cut(goal, trained),
        epochs=0,
        finetune_epochs=run.finetune_epochs,
        distillation=run.distillation,
    )
    before = json.loads((dense / "result.json").read_text())["accuracies"]
    accuracies = result.accuracies
    small = gss.count(result.model)
    return {
        "accuracy": {
            "validation": accuracies["finetuned"],
            "test_last_epoch": accuracies.get("test_last_epoch"),
            "test_best_epoch": accuracies.get("test_best_epoch"),
            "dense_validation": before["dense"],
            "dense_test": before.get("test_dense"),
        },
        "structure": structure(gss.count(result.pruned)),
        "layers": {layer.name: layer.nonzero_weights for layer in small.layers},
        "nonzero_weights": small.nonzero_weights,
        "parameters": small.nonzero_parameters,
        "flops": result.report.live_macs[1],
        "macs": small.macs,
        "threshold": json.loads((thresholded / "result.json").read_text())["threshold"],
        **more(run, result, directory),
        "seconds": round(sum(entry["seconds"] for entry in result.history)),
        "versions": {**versions(), "backend": keras.backend.backend()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def rewound(folder, earlier):
    """Returns the file of a cut network whose weights are those of an earlier one."""
    zeros = gss.ZerosOf(load_model(folder / "pruned.keras"))
    small = gss.slim(gss.prune(load_model(earlier), zeros))
    gss.export(small, folder / "rewound.keras", format="keras", overwrite=True)
    return folder / "rewound.keras"


def more(run, result, directory):
    """Returns what a figure draws beside these figures."""
    if run.target == "figure1":
        kernel = keras.ops.convert_to_numpy(result.pruned.get_layer("fc2").kernel)
        at = np.argwhere(kernel).tolist()
        return {"kernel": [[i, j, float(f"{kernel[i, j]:.3g}")] for i, j in at]}
    if run.target == "figure6":
        under = directory / f"trained-{digest(run, TRAINED)}" / "result.json"
        history = json.loads(under.read_text())["history"]
        return {"curve": {name: [float(f"{e[name]:.4g}") for e in history] for name in CURVES}}
    return {}


def compress(run, model, folder, verbose, **arguments):
    """Calls `gss.compress` with what all stages have in common."""
    data = dataset(run.dataset, run.validation, run.size, run.images)
    return gss.compress(
        model,
        data.train,
        data.validation,
        test=data.test if run.role == "final" else None,
        weight_decay=run.weight_decay,
        augment=changed(run),
        seed=run.seed,
        directory=folder,
        jit_compile=False if run.quick else None,
        steps_per_execution=1 if run.quick else None,
        timed=False,
        verbose=verbose,
        **arguments,
    )


def changed(run):
    """Returns what changes the images of a batch; a layer would keep the network from using XLA."""

    def change(images, random):
        if run.dropout:
            images = images * (random.random(images.shape, "float32") >= run.dropout)
            images /= 1 - run.dropout
        if run.shift:
            reach = 2 * run.shift + 1
            margin = (run.shift, run.shift)
            padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
            views = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], (1, 2))
            row, column = random.integers(reach, size=(2, len(images)))
            views = views[np.arange(len(images)), row, column]
            images = np.moveaxis(views, 1, -1)
        if run.flips:
            mirrored = random.random(len(images)) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        return images

    return change if run.dropout or run.shift or run.flips else None


def penalty(run):
    """Returns the penalty of a run."""
    more = {"p": run.p, "q": run.q, "weights": run.weights}
    more = more if run.method == "gss-structure" else {}
    return named_penalty(run.method, run.factor, inputs=run.inputs, **more)


def cut(run, model):
    """Returns what is cut: by a ratio, or down to a cost."""
    options = {"inputs": run.inputs and run.granularity == "neuron", "keep_strongest": True}
    if run.ratio is not None:
        target = gss.StdThreshold(run.ratio, **options)
    else:
        budget = BUDGETS[run.unit]
        whole = budget(1.0).cost(gss.count(model))
        share = run.cost if run.cost <= 1 else min(1.0, run.cost / whole)
        target = budget(share, by=order(run, **options)) if run.by else budget(share, **options)
    return {"target": target, "granularity": run.granularity}


def order(run, **options):
    """Returns what ranks the neurons or weights of all layers."""
    if run.by == "magnitude":
        return gss.MagnitudeThreshold(**options)
    x, y = dataset(run.dataset, run.validation, run.size, run.images).train
    return gss.SNIP(x[:1000], y[:1000], **options)


def structure(count):
    """Returns live widths: input features, hidden layers, and what is flattened in between."""
    live = {name: live for name, (size, live) in count.structure.items() if size > 1}
    widths = list(live.values())
    if "fc1" not in live:
        return widths
    position = list(live).index("fc1")
    (macs,) = (layer.live_macs for layer in count.layers if layer.name == "fc1")
    flattened = macs // widths[position]
    if flattened != widths[position - 1]:
        widths.insert(position, flattened)
    return widths


@functools.lru_cache(maxsize=1)
def dataset(name, validation, size=None, images=None):
    """Reads a dataset once; `size` and `images` as in `settings.Run`."""
    data = datasets.load(name, validation)
    train = tuple(part[:images] for part in data.train)
    return dataclasses.replace(
        data,
        train=_averaged(train, size),
        validation=_averaged(data.validation, size),
        _read_test=lambda: _averaged(data.test(), size),
    )


def _averaged(split, size):
    images, labels = split
    samples, height, _, channels = images.shape
    if size is None or size == height:
        return split
    share = height // size
    return images.reshape(samples, size, share, size, share, channels).mean((2, 4)), labels
