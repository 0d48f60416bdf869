"""The main job in one call: train under a penalty, choose a threshold, finetune, slim."""

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import keras

from keras_gss._checks import (
    check_choice,
    check_factor,
    check_flag,
    check_integer,
    check_positive,
    check_share,
    reject,
)
from keras_gss._keras import (
    Callback,
    check_model,
    copy_values,
    rebuild,
    regularizers_of,
    without_wrappers,
)
from keras_gss._samples import checksum
from keras_gss.callbacks import GroupSparsity
from keras_gss.compress.data import Augment, Data, check_augment, check_data, size_of
from keras_gss.compress.described import described, fingerprint, named
from keras_gss.compress.distillation import one_hot, soften
from keras_gss.compress.phases import Phase, Trainer, choose_speed, evaluate, in_words
from keras_gss.compress.result import Result
from keras_gss.compress.search import AccuracyDrop, settle
from keras_gss.compress.state import RunDirectory
from keras_gss.count import count
from keras_gss.procedures.base import Procedure
from keras_gss.pruning import prune
from keras_gss.pruning.thresholds import GRANULARITIES, check_rounding
from keras_gss.regularizers import CrossLayerRegularizer
from keras_gss.regularizers.binding import Attachment, detach
from keras_gss.regularizers.declared import declared_part
from keras_gss.regularizers.penalty import as_cross_layer
from keras_gss.report import compare
from keras_gss.schedules import Schedule
from keras_gss.slimming import slim

DWARFS = 10.0


def compress(
    model: keras.Model,
    train: Data,
    validation: Data,
    *,
    target: Any,
    regularizer: keras.Regularizer | None = None,
    schedule: Schedule | None = None,
    procedure: Procedure | None = None,
    granularity: Literal["element", "neuron"] = "neuron",
    inputs: Literal["keep", "narrow", "select"] = "keep",
    pretrain_epochs: int = 0,
    epochs: int = 250,
    finetune_epochs: int = 50,
    batch_size: int = 100,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    distillation: float = 0.0,
    augment: Augment | None = None,
    test: Data | Callable[[], Data] | None = None,
    directory: str | os.PathLike | None = None,
    seed: int = 0,
    jit_compile: bool | None = None,
    steps_per_execution: int | None = None,
    timed: bool = True,
    verbose: bool = True,
) -> Result:
    """Makes a classifier smaller: three phases of training, then a cut that changes nothing.

    1. Training under the penalty or by the procedure, after a pretraining without if asked for.
    2. A threshold, fixed or chosen on `validation` for the target.
    3. Finetuning with the zeros fixed.

    The optimizer is Adam throughout. Without the penalty, that is in pretraining and finetuning,
    the learning rate falls to a tenth at half of the epochs, and `weight_decay` is added to the
    gradients as PyTorch's Adam adds it. The order of the samples and what dropout drops follow from
    `seed` and the epoch alone, so that a run killed at any moment and started again with the same
    directory and arguments ends where it would have ended. (In a tf_keras model dropout draws as
    its own layers' seeds say.)

    How it trains is printed first. What the model is made of decides whether XLA compiles the step
    (with TensorFlow on a CPU never for convolutions), and one call takes up to 50 steps;
    `jit_compile` and `steps_per_execution` overrule that. The data stay in memory, from where
    `tf.data`, or NumPy on JAX, feeds them batch by batch; to feed them otherwise, put
    `GroupSparsity` into a `fit` of your own, then `prune` and `slim`. Threads are the framework's
    own choice, one per core, and fixed once there is a model: before that, on TensorFlow
    `tf.config.threading.set_intra_op_parallelism_threads` or the environment variable
    `TF_NUM_INTRAOP_THREADS` sets them, on JAX the variable `NPROC`.

    Args:
        model: a built classifier with one output, trained or not; it is not changed. Logits or
            softmax, the loss is chosen accordingly.
        train: inputs and labels (class numbers or one-hot) as arrays.
        validation: the same; every choice is made on it.
        target: an `AccuracyDrop`, or a threshold: `StdThreshold`, `AbsoluteThreshold`,
            `MacsBudget`, `ParamsBudget`, `Latency`.
        regularizer: a penalty, as for `attach`; None for those that the layers declare.
        schedule: how strong the penalty is at each epoch under it, `WarmUpFactor(10)` for
            instance: any function of the epoch, from 0, that returns a multiplier of the factor.
            A directory knows a function of your own by its name.
        procedure: a method that is more than a penalty, such as `Spred(1e-5)`; a penalty may be
            given with it, if it says so, or not.
        granularity: "neuron" zeroes whole neurons, "element" single weights.
        inputs: what `slim` does with input features that nothing reads.
        pretrain_epochs: epochs without penalty before everything else.
        epochs: epochs under the penalty or by the procedure.
        finetune_epochs: epochs with the zeros fixed.
        batch_size: samples per step; at most as many as there are.
        learning_rate: Adam's.
        weight_decay: of the pretraining and the finetuning.
        distillation: from 0 to 1, how much of the finetuning's labels comes from the dense model
            (what it holds for likely, at a temperature of 2) rather than from the data.
        augment: what changes the inputs of every training batch: a function of the inputs (arrays
            as in `train`) and a `numpy.random.Generator`, which follows from `seed`, epoch and
            step; it returns new inputs of the same shapes. A directory knows it by its name.
            Layers that draw random numbers (`RandomFlip`, `Dropout`) do the same but keep a dense
            net on a CPU from using XLA.
        test: inputs and labels, or a function that reads them, called once finetuning begins. Its
            accuracy is written into the history and nothing depends on it.
        directory: where the run keeps its state and its models; None to keep nothing. Its
            `trained.keras` is the model before the threshold: with `epochs=0` and another
            directory it serves another target.
        seed: integer >= 0; decides the order of the samples and what dropout drops.
        jit_compile: whether to use XLA; None to choose by what the model is made of.
        steps_per_execution: steps per call of the compiled function, lowered to a divisor of an
            epoch's steps; None to choose.
        timed: measure the latency for the report too, which takes about two seconds.
        verbose: print how it trains and a line per epoch.

    Returns:
        The `Result`.

    Raises:
        TypeError, ValueError: arguments, data or a model that cannot be worked with; a penalty or
            a procedure that finds nothing it could remove; a directory of another run.
        OSError: the directory cannot be written.
        RuntimeError: the small model computes something else.

    Example:
    >>> import keras_gss as gss
    >>> from keras_gss import datasets, zoo
    >>> digits = datasets.load("digits")
    >>> result = gss.compress(zoo.build("digits-mlp"), digits.train, digits.validation,
    ...     target=gss.MacsBudget(0.3), regularizer=gss.GSSStructure(1e-5, inputs=True),
    ...     epochs=2, finetune_epochs=1, verbose=False)
    >>> before, after = result.report.live_macs
    >>> after <= 0.3 * before
    True
    """
    check_model(model, "compress")
    model = without_wrappers(model)
    regularizer = None if regularizer is None else as_cross_layer(regularizer)
    penalised = regularizer is not None or bool(_declared(model))
    train = check_data("train", train, model)
    validation = check_data("validation", validation, model)
    if not (isinstance(target, AccuracyDrop) or callable(getattr(target, "masks", None))):
        raise reject("target", "an AccuracyDrop or a threshold such as MacsBudget(0.3)", target)
    check_rounding(getattr(target, "round_to", 1), granularity)
    settings = {
        "model": fingerprint(model),
        "train": checksum(train),
        "validation": checksum(validation),
        "target": repr(target),
        **described(regularizer, schedule, procedure, penalised),
        "granularity": check_choice("granularity", granularity, GRANULARITIES),
        "inputs": check_choice("inputs", inputs, ("keep", "narrow", "select")),
        "pretrain_epochs": check_integer("pretrain_epochs", pretrain_epochs),
        "epochs": check_integer("epochs", epochs),
        "finetune_epochs": check_integer("finetune_epochs", finetune_epochs),
        "batch_size": min(check_integer("batch_size", batch_size, minimum=1), size_of(train)),
        "learning_rate": check_positive("learning_rate", learning_rate),
        "weight_decay": check_factor("weight_decay", weight_decay),
        "distillation": check_share("distillation", distillation),
        "augment": named(check_augment(augment, train)),
        "seed": check_integer("seed", seed),
        "test": test is not None,
    }
    check_flag("timed", timed)
    check_flag("verbose", verbose)
    if distillation:
        train, validation = one_hot(train, model), one_hot(validation, model)
    if epochs and (penalised or procedure is None):
        _penalty_of(model, regularizer)
    if epochs and procedure is not None:
        procedure.end(procedure.begin(rebuild(model)))  # it raises now, or not at all
    steps = size_of(train) // settings["batch_size"]
    speed_of = functools.partial(
        choose_speed,
        steps=steps,
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
    )
    trainer = Trainer(
        train=train,
        validation=validation,
        batch_size=settings["batch_size"],
        speed=speed_of(model),
        run=RunDirectory(directory, settings),
        say=functools.partial(print, flush=True) if verbose else lambda line: None,
        augment=augment,
    )
    phase = functools.partial(Phase, learning_rate=settings["learning_rate"])

    start = _without_penalties(model)
    how = in_words(trainer.speed, start)
    trainer.say(f"{steps} steps per epoch: {how}")
    plain = functools.partial(phase, decay=True, weight_decay=weight_decay)
    history = trainer.fit(start, plain("pretrain", pretrain_epochs, seed=(seed, 0)))
    trained = rebuild(model)
    copy_values(start, trained)
    if epochs:
        method = Procedure() if procedure is None else procedure
        callbacks: list[Any] = []
        if penalised:
            _warn_if_dwarfed(_penalty_of(trained, regularizer), trainer.evaluate(start)["loss"])
            penalty = GroupSparsity(regularizer, schedule, granularity=granularity)
            callbacks = [penalty, _WarnIfEmptied()]
        trained = method.begin(trained)
        callbacks = [*method.callbacks(), *callbacks]
        training = phase("train", epochs, seed=(seed, 1))
        own = replace(trainer, speed=speed_of(trained))  # noise on kernels is slow under XLA
        own_way = in_words(own.speed, trained)
        if own_way != how:
            trainer.say(f"phase train: {own_way}")
        history = history + own.fit(trained, training, callbacks, state=method.state())
        trained = method.end(trained)
    trained = _without_penalties(trained)
    trainer.run.save_model("trained.keras", trained)
    accuracies = {
        "start": trainer.evaluate(start)["accuracy"],
        "trained": trainer.evaluate(trained)["accuracy"],
    }
    dense = start if accuracies["start"] > accuracies["trained"] else trained
    accuracies["dense"] = max(accuracies.values())
    finetuner = trainer
    if distillation:
        finetuner = replace(trainer, train=soften(train, dense, distillation))

    finetune = plain("finetune", finetune_epochs, seed=(seed, 2))
    methods: tuple[Any, ...] = (regularizer, procedure, *_declared(model))
    threshold, search = settle(
        target,
        finetuner,
        trained,
        dense=model,
        dense_accuracy=accuracies["dense"],
        granularity=granularity,
        inputs=any(each is not None and each.inputs for each in methods),
        cut_inputs=inputs,
        finetune=finetune,
    )
    pruned = prune(trained, threshold, granularity=granularity)
    accuracies["thresholded"] = trainer.evaluate(pruned)["accuracy"]
    left, whole = count(pruned).live_macs, count(model).live_macs
    trainer.say(f"{threshold} leaves {left:,} of {whole:,} MACs")

    # Strength, ratio and seed are settled: only now may the test data be read.
    if callable(test):
        test = test()
    if test is not None:
        test = check_data("test", test, model)
        test = one_hot(test, model) if distillation else test
    finetuning = finetuner.fit(pruned, finetune, test=test)
    accuracies["finetuned"] = trainer.evaluate(pruned)["accuracy"]
    compared = {"validation": (accuracies["dense"], accuracies["finetuned"])}
    if test is not None:
        accuracies["test_dense"] = evaluate(dense, test)["accuracy"]
        accuracies["test_last_epoch"] = evaluate(pruned, test)["accuracy"]
        figures = [entry["test_accuracy"] for entry in finetuning]
        accuracies["test_best_epoch"] = max(figures, default=accuracies["test_last_epoch"])
        compared["test"] = (accuracies["test_dense"], accuracies["test_last_epoch"])

    small, slimming = slim(pruned, inputs=inputs, return_report=True)
    result = Result(
        model=small,
        pruned=pruned,
        trained=trained,
        report=compare(model, small, slimming=slimming, accuracy=compared, timed=timed),
        threshold=threshold,
        search=tuple(search),
        history=tuple(history + finetuning),
        accuracies=accuracies,
        settings=settings,
    )
    trainer.run.save_model("pruned.keras", without_wrappers(pruned))
    trainer.run.save_model("model.keras", small)
    trainer.run.write_json("result.json", result.to_dict())
    return result


class _WarnIfEmptied(Callback):
    """Warns after the first epoch if a threshold would already leave nothing."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epoch == 0 and logs["gss_sparsity"] == 1:
            warnings.warn(
                "After one epoch under the penalty every neuron is so weak that a threshold "
                "would remove it. Stop, and try a factor ten times smaller.",
                stacklevel=2,
            )


def _without_penalties(model: keras.Model) -> keras.Model:
    """Returns a copy whose layers declare no penalties across layers."""
    copy = rebuild(model)
    detach(copy, declared=True)
    return copy


def _declared(model: keras.Model) -> list[CrossLayerRegularizer]:
    parts = (declared_part(own) for _, own in regularizers_of(model))
    return [part for part in parts if part is not None]


def _penalty_of(model: keras.Model, regularizer: CrossLayerRegularizer | None) -> float:
    """Returns the penalty's value before training; raises if it finds nothing removable."""
    return float(Attachment(rebuild(model), regularizer).penalty())


def _warn_if_dwarfed(penalty: float, loss: float) -> None:
    if penalty > DWARFS * loss:
        warnings.warn(
            f"The penalty begins at {penalty:.3g}, more than {DWARFS:g} times the loss "
            f"({loss:.3g}): it will empty the layers before they learn anything. Try a factor "
            f"{penalty / loss:.0f} times smaller.",
            stacklevel=3,
        )
