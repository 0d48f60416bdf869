"""The protocol that every method goes through, and the runs that it consists of."""

import datetime
import functools
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_gss import datasets, zoo
from keras_gss._checks import (
    check_choice,
    check_factor,
    check_flag,
    check_integer,
    check_positive,
    is_real,
    reject,
)
from keras_gss.comparison.methods import METHODS, Granularity, Method, Task
from keras_gss.compress import compress
from keras_gss.compress.phases import DivergedError, evaluate
from keras_gss.count import count
from keras_gss.loading import load_model
from keras_gss.pruning import MacsBudget, ParamsBudget, StdThreshold
from keras_gss.pruning.budgets import Budget, BudgetError
from keras_gss.pruning.thresholds import GRANULARITIES

TRAINED = "trained"  # the folder of the models before the threshold, while they are of use
UNITS: dict[str, type[Budget]] = {"macs": MacsBudget, "params": ParamsBudget}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all runs of a comparison share; a directory of results belongs to one.

    Args:
        model: a named model of `zoo.MODELS`, or a file that `load_model` reads.
        dataset: a named dataset.
        validation: how much of the training data to hold out, see `datasets.load`.
        unit: what a target is a fraction of: "macs" or "params".
        granularity: what thresholds zero, "neuron" or "element".
        inputs: whether input features are dealt with like neurons.
        budget: integer >= 1, the number of strengths that each method may try.
        beyond: integer >= 0, how many more a method may try, each half a decade further, as long
            as its best one is the strongest or the weakest that it tried.
        search_seed: the seed with which they are tried.
        pretrain_epochs: epochs before the methods begin, by each seed once.
        epochs: epochs under the penalty or procedure.
        finetune_epochs: epochs with the zeros fixed.
        batch_size, learning_rate, weight_decay: see `compress`.
        quick: whether this is a smoke run, of which no table is made.

    Raises:
        ValueError: an argument out of its range.
    """

    model: str
    dataset: str
    validation: float = 0.1
    unit: str = "macs"
    granularity: Granularity = "neuron"
    inputs: bool = False
    budget: int = 5
    beyond: int = 0
    search_seed: int = 0
    pretrain_epochs: int = 30
    epochs: int = 30
    finetune_epochs: int = 15
    batch_size: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    quick: bool = False

    def __post_init__(self) -> None:
        if self.model not in zoo.MODELS and not Path(self.model).exists():
            names = ", ".join(zoo.MODELS)
            raise reject("model", f"a file, or one of {names}", self.model)
        check_choice("dataset", self.dataset, tuple(datasets.READERS))
        if not is_real(self.validation) or self.validation <= 0:
            raise reject("validation", "a number of samples or a fraction", self.validation)
        check_choice("unit", self.unit, tuple(UNITS))
        check_choice("granularity", self.granularity, GRANULARITIES)
        for name in ("inputs", "quick"):
            check_flag(name, getattr(self, name))
        for name in ("budget", "batch_size"):
            check_integer(name, getattr(self, name), minimum=1)
        for name in ("beyond", "search_seed", "pretrain_epochs", "epochs", "finetune_epochs"):
            check_integer(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_factor("weight_decay", self.weight_decay)

    @property
    def schedule(self) -> str:
        """The epochs of the three phases, in words."""
        return f"{self.pretrain_epochs} + {self.epochs} + {self.finetune_epochs} epochs"

    def strengths(self, method: Method) -> list[float | None]:
        """Returns the strengths that a method tries: half a decade apart, around its default.

        Example:
        >>> protocol = Protocol(model="digits-mlp", dataset="digits", budget=3)
        >>> [f"{strength:.3g}" for strength in protocol.strengths(METHODS["l1"])]
        ['0.158', '0.5', '1.58']
        >>> protocol.strengths(METHODS["random"])
        [None]
        """
        if method.strength is None:
            return [None]
        middle = (self.budget - 1) / 2
        return [further(method.strength, k - middle) for k in range(self.budget)]


def further(strength: float, steps: float) -> float:
    """Returns a strength so many steps of half a decade away."""
    return float(f"{strength * 10 ** (steps / 2):.4g}")


@dataclass(frozen=True)
class Run:
    """One training of one method.

    Attributes:
        method: its name.
        target: what may remain, a fraction.
        strength: None if the method has none.
        seed: of weights, batch order and what is drawn.
        role: "search", in which the test data are not read, or "final".
    """

    method: str
    target: float
    strength: float | None
    seed: int
    role: str

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.method}-{self.target:g}{self._which}-{self.role}"

    @property
    def training(self) -> str:
        """A name for files of the training that it cuts, shared with other targets if it can be."""
        aim = f"-{self.target:g}" if METHODS[self.method].training == "aimed" else ""
        return f"{self.method}{aim}{self._which}"

    @property
    def _which(self) -> str:
        strength = "" if self.strength is None else f"-{self.strength:g}"
        return f"{strength}-seed{self.seed}"


def pretrain(protocol: Protocol, seed: int, directory: Path) -> Path:
    """Trains the model that all methods begin with, unless it is there; returns its file."""
    trained = directory / f"dense-seed{seed}" / "trained.keras"
    if not (trained.parent / "result.json").exists():
        data = _dataset(protocol.dataset, protocol.validation)
        compress(
            _initial(protocol, seed),
            data.train,
            data.validation,
            target=StdThreshold(0.0),
            pretrain_epochs=protocol.pretrain_epochs,
            epochs=0,
            finetune_epochs=0,
            directory=trained.parent,
            **_common(protocol, seed),
        )
    return trained


def train(protocol: Protocol, run: Run, directory: Path) -> dict[str, Any]:
    """Trains by the method of a run, from where it was killed if it was, unless that is done.

    Returns:
        What `Result.to_dict` gives, or an "error". The model lies beside it, see `_trained`.
    """
    told, weights = (_trained(directory, run, suffix) for suffix in ("json", "keras"))
    if told.exists():
        return json.loads(told.read_text())
    data = _dataset(protocol.dataset, protocol.validation)
    method, task = METHODS[run.method], _task(protocol, run, directory)
    state = _running(directory, run.training)
    try:
        recipe = method.build(task, run.strength)
        compress(
            task.model,
            data.train,
            data.validation,
            target=StdThreshold(0.0),
            regularizer=recipe.regularizer,
            procedure=recipe.procedure,
            granularity=task.granularity,
            epochs=protocol.epochs,
            finetune_epochs=0,
            directory=state,
            **_common(protocol, run.seed),
        )
        weights.parent.mkdir(exist_ok=True)
        os.replace(state / "trained.keras", weights)
        os.replace(state / "result.json", told)
    except (BudgetError, DivergedError) as error:
        told.parent.mkdir(exist_ok=True)
        told.write_text(json.dumps({"error": " ".join(str(error).split())}))
    shutil.rmtree(state, ignore_errors=True)
    return json.loads(told.read_text())


def execute(protocol: Protocol, run: Run, directory: Path) -> dict[str, Any]:
    """Cuts and finetunes what `train` has trained, and returns the record of a run.

    A method that cannot meet the target, or whose loss is no longer finite, has a record too, with
    an "error" instead of figures.
    """
    record: dict[str, Any] = {
        **asdict(run),
        **{"quick": protocol.quick, "schedule": protocol.schedule, "protocol": asdict(protocol)},
        "versions": versions(),
        "backend": keras.backend.backend(),
    }
    try:
        record.update(_cut(protocol, run, directory))
    except (BudgetError, DivergedError) as error:
        record["error"] = " ".join(str(error).split())
    shutil.rmtree(_running(directory, run.name), ignore_errors=True)
    record["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return record


def _cut(protocol: Protocol, run: Run, directory: Path) -> dict[str, Any]:
    """Returns the figures of a run, or the error of its training."""
    data = _dataset(protocol.dataset, protocol.validation)
    method, task = METHODS[run.method], _task(protocol, run, directory)
    target = method.build(task, run.strength).target
    model = dense = task.model
    before: dict[str, Any] = {"settings": {}, "history": []}
    epochs = 0 if method.scratch else protocol.pretrain_epochs
    if method.training != "none":
        before = train(protocol, run, directory)
        if "error" in before:
            return before
        model = load_model(_trained(directory, run, "keras"))
        if before["accuracies"]["trained"] >= before["accuracies"]["start"]:
            dense = model
        epochs += protocol.epochs
    total = protocol.pretrain_epochs + protocol.epochs + protocol.finetune_epochs
    result = compress(
        model,
        data.train,
        data.validation,
        target=target.resolve(model, task.granularity, task.model),
        granularity=task.granularity,
        epochs=0,
        finetune_epochs=total - epochs,  # the same sum for every method
        test=data.test if run.role == "final" else None,
        directory=_running(directory, run.name),
        **_common(protocol, run.seed),
    )
    counted, accuracies = count(result.pruned), result.accuracies
    of_the_cut = {"finetune_epochs": total - epochs, "test": run.role == "final"}
    history = [*before["history"], *result.history]
    return {
        "validation": accuracies["finetuned"],
        "validation_dense": before.get("accuracies", accuracies)["dense"],
        "test_dense": _accuracy(dense, data.test()) if run.role == "final" else None,
        "test_last": accuracies.get("test_last_epoch"),
        "test_best": accuracies.get("test_best_epoch"),
        "live_macs": counted.live_macs,
        "dense_macs": count(task.model).live_macs,
        "nonzero_parameters": counted.nonzero_parameters,
        "parameters": result.report.parameters[1],
        "structure": "-".join(str(left) for _, left in counted.structure.values()),
        "threshold": repr(result.threshold),
        "settings": {**result.settings, **before["settings"], **of_the_cut, "target": repr(target)},
        "seconds": round(sum(entry["seconds"] for entry in history), 1),
    }


def _accuracy(model: keras.Model, data: datasets.Arrays) -> float:
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return evaluate(model, data)["accuracy"]


def _running(directory: Path, name: str) -> Path:
    return directory / "running" / name


def _trained(directory: Path, run: Run, suffix: str) -> Path:
    return directory / TRAINED / f"{run.training}.{suffix}"


def _task(protocol: Protocol, run: Run, directory: Path) -> Task:
    method = METHODS[run.method]
    dense = directory / f"dense-seed{run.seed}" / "trained.keras"
    return Task(
        model=_initial(protocol, run.seed) if method.scratch else load_model(dense),
        train=_dataset(protocol.dataset, protocol.validation).train,
        budget=UNITS[protocol.unit],
        fraction=run.target,
        granularity=method.granularity or protocol.granularity,
        inputs=protocol.inputs,
        epochs=protocol.epochs,
        seed=run.seed,
    )


def _common(protocol: Protocol, seed: int) -> dict[str, Any]:
    names = ("batch_size", "learning_rate", "weight_decay")
    shared = {name: getattr(protocol, name) for name in names}
    return {**shared, "seed": seed, "timed": False, "verbose": False}


def _initial(protocol: Protocol, seed: int) -> keras.Model:
    if protocol.model in zoo.MODELS:
        return zoo.build(protocol.model, seed)
    return load_model(protocol.model)


@functools.lru_cache(maxsize=1)
def _dataset(name: str, validation: float) -> datasets.Dataset:
    return datasets.load(name, validation)


def versions() -> Mapping[str, str]:
    """Returns the versions of Python and the packages that decide a result."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for package in ("keras", "tensorflow", "jax"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
