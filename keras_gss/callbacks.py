"""The callback that trains a model under a cross-layer penalty and tells how sparse it gets."""

from typing import Any

import keras
import numpy as np

from keras_gss._checks import check_choice, reject
from keras_gss._keras import Callback, to_numpy
from keras_gss.count import count_values
from keras_gss.graph import NeuronGroup, WeightSlice
from keras_gss.pruning.thresholds import GRANULARITIES, HasMasks, StdThreshold
from keras_gss.regularizers.binding import Attachment, attachment_of
from keras_gss.regularizers.penalty import as_cross_layer
from keras_gss.schedules import Schedule, multiplier_at


class GroupSparsity(Callback):
    """Binds a cross-layer penalty to the model in `fit`, schedules it, and logs what it does.

    A penalty passed here belongs to that `fit`: it is taken off when training ends, and files
    saved meanwhile are free of it. Penalties that the layers declare, or that `attach` bound, stay
    bound after `fit`, so that the model can be evaluated. (Should training be interrupted by an
    error, the next `fit` with this callback starts afresh; without it, call `detach` first.)

    At the end of every epoch the logs get three entries, in the progress bar and the History
    always, in TensorBoard, CSVLogger, ModelCheckpoint and the like if they come after this
    callback in the list:

    - `gss_penalty`: the penalty's present value, factor and schedule included.
    - `gss_sparsity`: of the penalised neurons, the share whose incoming or whose outgoing
      weights would all be zero after `prune(model, threshold, granularity)`.
    - `gss_macs`: the live MACs of one input that would then remain (`count(...).live_macs`).

    Args:
        regularizer: a penalty, as for `attach`. None uses what is attached, or what layers declare.
        schedule: function of the epoch (an int from 0) that returns what the factor is multiplied
            by during that epoch, such as `WarmUpFactor(5)`. None is always 1.
        threshold: for `gss_sparsity` and `gss_macs`; by default `StdThreshold(0.3)`.
        granularity: likewise; "neuron" or "element".

    Raises:
        TypeError, ValueError: an argument is wrong; or, when training starts, as `attach`.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> history = model.fit(
    ...     np.ones((32, 4)), np.ones((32, 2)), epochs=2, verbose=0,
    ...     callbacks=[gss.GroupSparsity(gss.GSSStructure(1e-3), schedule=gss.WarmUpFactor(1))])
    >>> history.history["gss_penalty"][0]
    0.0
    """

    def __init__(
        self,
        regularizer: keras.Regularizer | None = None,
        schedule: Schedule | None = None,
        threshold: HasMasks | None = None,
        granularity: str = "neuron",
    ) -> None:
        super().__init__()
        if schedule is not None and not callable(schedule):
            raise reject("schedule", "a function of the epoch", schedule)
        if threshold is not None and not callable(getattr(threshold, "masks", None)):
            raise reject("threshold", "a threshold such as StdThreshold(0.3)", threshold)
        self.regularizer = None if regularizer is None else as_cross_layer(regularizer)
        self.schedule = schedule
        self.threshold = StdThreshold(0.3) if threshold is None else threshold
        self.granularity = check_choice("granularity", granularity, GRANULARITIES)
        self._attachment: Attachment | None = None
        self._bound_for_test = False
        self._held: list[tuple[Any, np.ndarray]] = []

    def set_model(self, model: keras.Model) -> None:
        """Takes off what a `fit` that was interrupted left behind."""
        super().set_model(model)
        self._attachment = None
        self._bound_for_test = False
        left = attachment_of(model)
        if left is not None and not left.lasting:
            left.remove()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Binds the penalty, and has Keras make a training step that contains it."""
        self._attachment = self._bind()
        self._attachment.schedule(on=self.schedule is not None)
        self.model.make_train_function()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the multiplier of the epoch."""
        if self.schedule is not None:
            self._attached().multiply(multiplier_at(self.schedule, epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the three entries to the logs."""
        if logs is not None:
            logs["gss_penalty"] = float(keras.ops.convert_to_numpy(self._attached().penalty()))
            logs["gss_sparsity"], logs["gss_macs"] = self._outlook()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes off a penalty that was passed to the callback."""
        attachment, self._attachment = self._attached(), None
        if not attachment.lasting:
            attachment.remove()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Binds the penalty for an `evaluate` of its own, and notes the selections held."""
        if self._attachment is None:
            self._attachment = self._bind()
            self._bound_for_test = True
            self.model.make_test_function()
        self._held = [(v, to_numpy(v)) for v in self._attachment.held_state()]

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the selections back: evaluation is no step."""
        for variable, value in self._held:
            variable.assign(value)
        if self._bound_for_test:
            self.on_train_end()

    def _bind(self) -> Attachment:
        present = attachment_of(self.model)
        if present is not None and present.lasting and self.regularizer is None:
            return present
        return Attachment(self.model, self.regularizer, lasting=False)

    def _attached(self) -> Attachment:
        if self._attachment is None:
            raise RuntimeError("`GroupSparsity` works only while `fit` or `evaluate` calls it.")
        return self._attachment

    def _outlook(self) -> tuple[float, float]:
        values = {id(v): to_numpy(v) for v in self.model.weights}
        if not all(np.isfinite(value).all() for value in values.values()):
            return float("nan"), float("nan")
        masks = self.threshold.masks(self.model, self.granularity)
        values.update({key: values[key] * mask for key, mask in masks.items()})
        dead = [_dead_neurons(group, values) for group in self._attached().groups]
        share = float(np.mean(np.concatenate(dead)))
        return share, count_values(self.model, values).live_macs


def _dead_neurons(group: NeuronGroup, values: dict[int, np.ndarray]) -> np.ndarray:
    """Tells which neurons have only zeros coming in, or only zeros going out; bool, (size,)."""
    dead = np.zeros(group.size, dtype=bool)
    for pieces in (group.incoming, group.outgoing):
        if pieces:
            dead |= ~np.any([_touched(piece, group.size, values) for piece in pieces], axis=0)
    return dead


def _touched(piece: WeightSlice, size: int, values: dict[int, np.ndarray]) -> np.ndarray:
    value = values[id(piece.weight)]
    others = tuple(axis for axis in range(value.ndim) if axis != piece.axis)
    owned = (piece.index >= 0) & np.any(value != 0, axis=others)
    return np.bincount(piece.index[owned], minlength=size) > 0
