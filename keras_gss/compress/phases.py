"""One phase of training: compiled for speed, resumed where it stopped, a line per epoch."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_gss._checks import check_flag, check_integer
from keras_gss._keras import Callback, every_layer, has_noise, is_tf_keras, library_of, to_numpy
from keras_gss._losses import loss_for
from keras_gss.compress.data import Augment, Data, batches, size_of
from keras_gss.compress.optimizers import adam_l2
from keras_gss.compress.state import RunDirectory, State
from keras_gss.regularizers.binding import attachment_of

EVALUATION_BATCH = 500


class DivergedError(RuntimeError):
    """The loss of a training is no longer finite."""


@dataclass(frozen=True)
class Phase:
    """What distinguishes one phase from another.

    Attributes:
        name: 'pretrain', 'train' or 'finetune'; names its state file and its history entries.
        epochs: how many.
        learning_rate: Adam's.
        seed: decides what dropout drops and, together with the epoch, the order of the samples.
        decay: whether the learning rate falls to a tenth at half of the epochs.
        weight_decay: see `AdamL2`.
    """

    name: str
    epochs: int
    learning_rate: float
    seed: tuple[int, ...]
    decay: bool = False
    weight_decay: float = 0.0

    def learning_rate_at(self, epoch: int) -> float:
        """Returns the learning rate of an epoch, counted from 0."""
        late = self.decay and epoch >= self.epochs // 2
        return self.learning_rate * (0.1 if late else 1.0)


@dataclass(frozen=True)
class Speed:
    """How `fit` executes: Keras' `jit_compile` and `steps_per_execution`."""

    jit_compile: bool | str
    steps_per_execution: int


@dataclass(frozen=True, eq=False)
class Trainer:
    """What all phases of a run share."""

    train: Data
    validation: Data
    batch_size: int
    speed: Speed
    run: RunDirectory
    say: Callable[[str], None]
    augment: Augment | None = None

    def fit(
        self,
        model: keras.Model,
        phase: Phase,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        test: Data | None = None,
        state: Sequence[Any] = (),
    ) -> list[dict[str, Any]]:
        """Trains `model` in place to the end of the phase, from its saved state if there is one.

        Args:
            model: the model, as it was when the phase first began.
            phase: the phase.
            callbacks: come before those of this function, so that they may add to the logs.
            test: evaluated after every epoch for the history and nothing else.
            state: further variables to save with the model's and to restore.

        Returns:
            The history, one dict per epoch.

        Raises:
            RuntimeError: the loss is no longer finite.
        """
        saved = self.run.load(phase.name)
        history = [] if saved is None else saved.meta["history"]
        variables = list({id(v): v for v in [*model.variables, *state]}.values())
        if len(history) >= phase.epochs:
            if saved is not None:
                assign(variables, saved.arrays["model"])
            return history
        if saved is None:
            seed_noise(model, phase.seed, state)
        self.compile(model, phase)
        checkpoint = _Checkpoint(self, phase, history, saved, variables)
        data = batches(
            self.train, self.batch_size, phase.seed, len(history), phase.epochs, self.augment
        )
        model.fit(
            data,
            epochs=phase.epochs,
            initial_epoch=len(history),
            steps_per_epoch=size_of(self.train) // self.batch_size,
            validation_data=self.validation,
            validation_batch_size=EVALUATION_BATCH,
            shuffle=False,
            verbose=0,
            callbacks=[
                *callbacks,
                library_of(model).callbacks.LearningRateScheduler(phase.learning_rate_at),
                *([] if test is None else [_Test(test)]),
                checkpoint,
            ],
        )
        return history

    def compile(self, model: keras.Model, phase: Phase) -> None:
        """Compiles `model` for a phase, with a fresh optimizer."""
        jit_compile = self.speed.jit_compile
        model.compile(
            optimizer=adam_l2(model)(phase.learning_rate, l2=phase.weight_decay),
            loss=loss_for(model, self.train[1]),
            metrics=["accuracy"],
            jit_compile=None if is_tf_keras(model) and jit_compile == "auto" else jit_compile,
            steps_per_execution=self.speed.steps_per_execution,
        )
        self._create_variables(model)

    def _create_variables(self, model: keras.Model) -> None:
        """Creates what the optimizer and the metrics hold.

        TensorFlow traces a function that creates variables twice, which takes up to a second.
        """
        if keras.backend.backend() != "tensorflow" or is_tf_keras(model):
            return
        model.optimizer.build(model.trainable_variables)
        inputs, labels = keras.tree.map_structure(lambda array: array[:1], self.validation)
        model.compute_metrics(inputs, labels, model(inputs, training=False))

    def evaluate(self, model: keras.Model) -> dict[str, float]:
        """Returns loss and accuracy on the validation data; compiles the model if need be."""
        if getattr(model, "optimizer", None) is None:
            self.compile(model, Phase("evaluate", 0, 1e-3, ()))
        return evaluate(model, self.validation)


def evaluate(model: keras.Model, data: Data) -> dict[str, float]:
    """Returns a compiled model's loss and accuracy on `data`."""
    logs = model.evaluate(*data, batch_size=EVALUATION_BATCH, verbose=0, return_dict=True)
    return {key: float(value) for key, value in logs.items()}


def seed_noise(model: keras.Model, seed: tuple[int, ...], others: Sequence[Any] = ()) -> None:
    """Sets the state of dropout and its like, which every copy of a model begins elsewhere.

    Args:
        model: the model.
        seed: what decides it.
        others: variables that the model holds beside its weights for another purpose.
    """
    known = {id(variable) for variable in [*model.weights, *others]}
    states = [variable for variable in model.variables if id(variable) not in known]
    drawn = np.random.default_rng(seed).integers(2**31, size=len(states))
    for state, value in zip(states, drawn, strict=True):
        state.assign([value, 0])


def choose_speed(
    model: keras.Model,
    steps: int,
    jit_compile: bool | None = None,
    steps_per_execution: int | None = None,
) -> Speed:
    """Chooses what makes `fit` fast for a model.

    XLA makes dense nets faster on a CPU, convolutions and loops two to sixteen times slower and
    dropout nine times, so there it is used only if no kernel has more than two axes and no layer is
    recurrent or draws random numbers. On a GPU
    and on JAX the choice is Keras' own. `steps_per_execution` is the largest divisor of an
    epoch's steps up to 50, because Keras would run a last, longer execution into the next epoch.

    Args:
        model: the model.
        steps: steps of one epoch.
        jit_compile: True or False overrules the choice.
        steps_per_execution: a number overrules the choice; lowered to a divisor of `steps`.

    Raises:
        ValueError: an argument out of its range.

    Example:
    >>> layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    >>> choose_speed(keras.Sequential(layers), steps=540, jit_compile=False)
    Speed(jit_compile=False, steps_per_execution=45)
    """
    limit = 50 if steps_per_execution is None else steps_per_execution
    limit = min(check_integer("steps_per_execution", limit, minimum=1), steps)
    jit: bool | str = "auto"
    if jit_compile is not None:
        jit = check_flag("jit_compile", jit_compile)
    elif _on_cpu_tensorflow():
        jit = _is_dense(model)
    divisor = next(k for k in range(limit, 0, -1) if steps % k == 0)
    return Speed(jit, divisor)


def in_words(speed: Speed, model: keras.Model) -> str:
    """Says how `fit` will execute: what was chosen, and what is left to the framework.

    Args:
        speed: what was chosen.
        model: not compiled yet. Its `jit_compile` is set and read back, because Keras decides
            "auto" there and refuses True, with a warning, where a layer does not support it.

    Example:
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> in_words(Speed(jit_compile=False, steps_per_execution=50), model)  # doctest: +ELLIPSIS
    'not compiled by XLA, 50 steps per call, data in memory (...), ...'
    """
    if speed.jit_compile != "auto":
        model.jit_compile = speed.jit_compile
    compiled = "compiled by XLA" if model.jit_compile else "not compiled by XLA"
    steps = speed.steps_per_execution
    calls = f"{steps} step{'s' if steps > 1 else ''} per call"
    feed = "tf.data" if keras.backend.backend() == "tensorflow" else "NumPy"
    return f"{compiled}, {calls}, data in memory ({feed}), {_processor()}"


def _processor() -> str:
    """Names the GPU or the threads of the CPU, in words; they are never this library's choice."""
    backend = keras.backend.backend()
    threads: int | str | None = None
    if backend == "tensorflow":
        if not _on_cpu_tensorflow():
            return "on a GPU"
        import tensorflow as tf

        chooser, variable = "TensorFlow", "TF_NUM_INTRAOP_THREADS"
        threads = tf.config.threading.get_intra_op_parallelism_threads()  # 0: not set
    elif backend == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return f"on {device.device_kind}"
        chooser, variable = "XLA", "NPROC"
    else:
        return f"threads as {backend} chooses"
    threads = threads or os.environ.get(variable)
    return f"CPU threads: {threads or f'one per core ({chooser} chooses)'}"


def _is_dense(model: keras.Model) -> bool:
    layers = every_layer(model)  # those that `Bidirectional` and the like wrap among them
    slow = any(isinstance(layer, library_of(layer).layers.RNN) or _draws(layer) for layer in layers)
    if slow or has_noise(model):
        return False
    return all(len(variable.shape) <= 2 for variable in model.weights)


def _draws(layer: Any) -> bool:
    """Tells whether a layer draws random numbers, as dropout does, in Keras 3 or tf_keras."""
    generator = getattr(layer, "seed_generator", None) or getattr(layer, "_random_generator", None)
    return generator is not None


def _on_cpu_tensorflow() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Gives variables their saved values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class _Test(Callback):
    """Adds the accuracy on the test data to the logs."""

    def __init__(self, test: Data) -> None:
        super().__init__()
        self._test = test

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs["test_accuracy"] = evaluate(self.model, self._test)["accuracy"]


class _Checkpoint(Callback):
    """Restores a phase's state when training begins, saves it after every epoch and says so.

    The state holds the variables given, and apart from them what exists only while the phase
    runs: the optimizer's variables and those of a bound penalty.
    """

    def __init__(
        self,
        trainer: Trainer,
        phase: Phase,
        history: list[dict[str, Any]],
        state: State | None,
        variables: list[Any],
    ) -> None:
        super().__init__()
        self._trainer, self._phase, self._history = trainer, phase, history
        self._state, self._variables = state, variables

    def _passing_variables(self) -> list[Any]:
        known = {id(variable) for variable in self._variables}
        attachment = attachment_of(self.model)
        held = [] if attachment is None else attachment.state()
        return [v for v in held if id(v) not in known] + list(self.model.optimizer.variables)

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._state is None:
            return
        self.model.optimizer.build(self.model.trainable_variables)
        assign(self._variables, self._state.arrays["model"])
        assign(self._passing_variables(), self._state.arrays["passing"])

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        entry: dict[str, Any] = {"phase": self._phase.name, "epoch": epoch + 1}
        entry.update({key: float(value) for key, value in logs.items()})
        entry["seconds"] = time.perf_counter() - self._started
        if not np.isfinite(entry["loss"]):
            raise DivergedError(
                f"The loss is {entry['loss']} in epoch {epoch + 1} of phase '{self._phase.name}'. "
                "The state of the epoch before is kept. Try a smaller learning rate or penalty."
            )
        self._history.append(entry)
        arrays = {
            "model": [to_numpy(variable) for variable in self._variables],
            "passing": [to_numpy(variable) for variable in self._passing_variables()],
        }
        self._trainer.run.save(self._phase.name, {"history": self._history}, arrays)
        self._trainer.say(_line(entry, self._phase.epochs))


def _line(entry: dict[str, Any], epochs: int) -> str:
    names = {
        "loss": "loss {:.4f}",
        "gss_penalty": "penalty {:.4f}",
        "accuracy": "accuracy {:.4f}",
        "val_accuracy": "validation {:.4f}",
        "test_accuracy": "test {:.4f} (not used)",
        "gss_macs": "MACs left {:,.0f}",
        "seconds": "{:.1f} s",
    }
    values = [text.format(entry[name]) for name, text in names.items() if name in entry]
    return "  ".join([f"{entry['phase']:8} {entry['epoch']:3}/{epochs}", *values])
