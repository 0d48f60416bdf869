"""What the commands of `keras-gss` do; their arguments and help are in `keras_gss_cli`."""

import datetime
import json
import platform
import zipfile
import zlib
from argparse import Namespace
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_gss as gss
from keras_gss import _keras, datasets, report, zoo
from keras_gss.comparison import load_comparison
from keras_gss.compress import Result
from keras_gss.compress.data import Data
from keras_gss.count import removable_share
from keras_gss.export import check_target, format_of, staging
from keras_gss.regularizers.named import named_penalty

_DEMO: dict[str, Any] = {
    "target": gss.AccuracyDrop(0.01),
    "pretrain_epochs": 30,
    "epochs": 60,
    "finetune_epochs": 30,
}
_DEMO_FACTORS = {"digits-cnn": 1e-4, "digits-mlp": 3e-4}


def demo(args: Namespace) -> None:
    """Takes scikit-learn's digits the whole way, to a SavedModel loaded again and compared."""
    import tensorflow as tf

    check_target(args.output, "tf_saved_model", overwrite=True)
    digits = datasets.load("digits", seed=args.seed)
    result = gss.compress(
        zoo.build(args.model, args.seed),
        digits.train,
        digits.validation,
        regularizer=gss.GSSStructure(_DEMO_FACTORS[args.model]),
        test=digits.test,
        seed=args.seed,
        batch_size=50,
        **_DEMO,
    )
    gss.export(result.model, args.output, overwrite=True)
    images, labels = digits.test()
    expected = keras.ops.convert_to_numpy(result.model(images, training=False))
    loaded = tf.saved_model.load(str(args.output))
    received = loaded.serve(images).numpy()
    print(f"\n{result.report}\n")
    difference = np.abs(received - expected).max()
    print(
        f"SavedModel '{args.output}' loaded again, on {len(images)} test images:\n"
        f"its outputs differ from the Keras model's by at most {difference:.1e}, "
        f"{np.mean(received.argmax(-1) == labels):.2%} are right"
    )


def inspect(args: Namespace) -> None:
    """Prints a model's neuron groups and what its layers cost."""
    model = _load_model(args.model)
    tables = (gss.find_groups(model), removable_share(model), gss.count(model))
    print(*(table.summary() for table in tables), sep="\n\n")


def compress(args: Namespace) -> None:
    """Trains, thresholds, finetunes and cuts, and writes what was asked for."""
    model = _load_model(args.model, args.seed)
    train, validation, test = _load_data(args)
    if args.output:
        check_target(args.output, format_of(args.output), args.overwrite)
    if args.results:
        if args.results.is_dir():
            raise OSError(f"--results '{args.results}' is a folder, and it has to be a file.")
        with staging(args.results):
            pass
    if args.output and args.directory and _holds(args.output, args.directory):
        raise ValueError(
            f"--output '{args.output}' would replace --directory '{args.directory}'. Choose "
            "another --output."
        )
    result = gss.compress(
        model,
        train,
        validation,
        target=_target(args, model),
        regularizer=_regularizer(args),
        schedule=gss.WarmUpFactor(args.warm_up) if args.warm_up else None,
        granularity=args.granularity,
        inputs=args.inputs,
        pretrain_epochs=args.pretrain_epochs,
        epochs=args.epochs,
        finetune_epochs=args.finetune_epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        distillation=args.distillation,
        test=test,
        directory=args.directory,
        seed=args.seed,
        jit_compile=args.jit,
        steps_per_execution=args.steps_per_execution,
    )
    print(f"\n{result.report}")
    if args.output:
        gss.export(result.model, args.output, format_of(args.output), args.overwrite)
        print(f"\nwritten and checked: {args.output}")
    if args.results:
        _write_results(args, result)
        print(f"results: {args.results}")


def slim(args: Namespace) -> None:
    """Cuts what is dead in a model and writes the rest."""
    model = _load_model(args.model)
    check_target(args.output, format_of(args.output), args.overwrite)
    small, slimming = gss.slim(model, inputs=args.inputs, return_report=True)
    print(report.compare(model, small, slimming=slimming))
    gss.export(small, args.output, format_of(args.output), args.overwrite)
    print(f"\nwritten and checked: {args.output}")


def export(args: Namespace) -> None:
    """Writes a model."""
    form = args.format or format_of(args.output)
    gss.export(_load_model(args.model), args.output, form, args.overwrite)
    print(f"written and checked: {args.output}")


def compare(args: Namespace) -> None:
    """Compares methods under one protocol, or shows what an earlier comparison found."""
    if args.output and args.output.is_dir():
        raise OSError(f"--output '{args.output}' is a folder, and it has to be a file.")
    if args.table_only:
        compared = load_comparison(args.directory)
    else:
        if args.model is None or args.dataset is None:
            raise ValueError("--model and --dataset are needed, unless --table-only is given.")
        names = (
            "validation",
            "granularity",
            "budget",
            "beyond",
            "search_seed",
            "pretrain_epochs",
            "epochs",
        )
        names += ("finetune_epochs", "batch_size", "learning_rate", "weight_decay")
        compared = gss.compare_methods(
            args.model,
            args.dataset,
            args.directory,
            methods=args.methods,
            target_macs=args.target_macs,
            target_params=args.target_params,
            seeds=args.seeds,
            jobs=args.jobs,
            quick=args.quick,
            command=" ".join(args.command_line),
            inputs=args.penalise_inputs,
            **{name: getattr(args, name) for name in names},
        )
    if args.quick:
        print("a smoke run: no table is made of it")
        return
    table = compared.table()
    print(table)
    if args.output:
        with staging(args.output) as staged:
            staged.write_text(table)
            staged.replace(args.output)
    if args.figure:
        compared.figure(args.figure)
        print(f"written: {args.figure}")


def _load_model(name: str, seed: int = 0) -> keras.Model:
    if name in zoo.MODELS:
        return zoo.build(name, seed)
    return gss.load_model(name)


def _load_data(args: Namespace) -> tuple[Data, Data, Any]:
    if not args.data.endswith(".npz"):
        named = datasets.load(args.data, args.validation, args.seed)
        return named.train, named.validation, named.test
    try:
        with np.load(args.data, allow_pickle=False) as file:
            arrays = dict(file)
    except (EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"'{args.data}' is no .npz file of plain arrays: {error}") from error
    if not {"x_train", "y_train"} <= set(arrays):
        raise ValueError(
            f"'{args.data}' must hold x_train and y_train. Received: {', '.join(sorted(arrays))}"
        )
    labelled = arrays["x_train"], arrays["y_train"]
    train = datasets.hold_out(labelled, args.validation, args.seed)
    test = (arrays["x_test"], arrays["y_test"]) if {"x_test", "y_test"} <= set(arrays) else None
    return *train, test


def _target(args: Namespace, model: keras.Model) -> Any:
    common: dict[str, Any] = {"inputs": args.penalise_inputs, "round_to": args.round_to}
    if args.ratio is not None:
        return gss.StdThreshold(args.ratio, **common)
    if args.threshold is not None:
        return gss.AbsoluteThreshold(args.threshold, **common)
    if args.macs is not None:
        fraction = _fraction("--macs", args.macs, gss.count(model).live_macs)
        return gss.MacsBudget(fraction, **common)
    if args.params is not None:
        fraction = _fraction("--params", args.params, gss.count(model).nonzero_parameters)
        return gss.ParamsBudget(fraction, **common)
    if args.latency is not None:
        where = {"batch": args.latency_batch, "runtime": args.latency_runtime}
        return gss.Latency(args.latency, **where, **common)
    drop = 0.01 if args.accuracy_drop is None else args.accuracy_drop
    return gss.AccuracyDrop(drop, round_to=args.round_to)


def _fraction(option: str, amount: float, whole: int) -> float:
    if not 0 < amount <= max(whole, 1):
        raise ValueError(
            f"{option} must be above 0 and at most what the model has, {whole:,}. "
            f"Received: {amount:g}"
        )
    return amount if amount <= 1 else amount / whole


def _holds(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _regularizer(args: Namespace) -> gss.CrossLayerRegularizer:
    own = ("p", "q", "weights") if args.regularizer == "gss-structure" else ()
    more = {name: getattr(args, name) for name in own}
    return named_penalty(args.regularizer, args.factor, args.penalise_inputs, args.free, **more)


def _write_results(args: Namespace, result: Result) -> None:
    named = ("keras-gss", "keras", "tensorflow", "jax", "numpy")
    if _keras.is_tf_keras(result.model):
        named += ("tf-keras", "tensorflow-model-optimization")
    installed = {name: version for name in named if (version := _version(name))}
    content = {
        "command": " ".join(args.command_line),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **installed},
        "backend": keras.backend.backend(),
        **result.to_dict(),
    }
    with staging(args.results) as staged:
        staged.write_text(json.dumps(content, indent=2) + "\n")
        staged.replace(args.results)


def _version(package: str) -> str | None:
    if package == "keras-gss":
        return gss.__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
