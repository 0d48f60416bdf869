"""Zeros that stay: a constraint that fixes them, and a callback for averaged weights."""

import base64
import binascii
import functools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss._checks import reject
from keras_gss._keras import Callback, eagerly, path_of


@dataclass(frozen=True, eq=False)
class Mask:
    """A boolean array, kept by the vectors whose outer product it is, one per axis, if it is one.

    The zeros of whole neurons are such products; they take a byte per neuron then, not per weight.

    Example:
    >>> mask = Mask.of(np.outer([True, False], [True, True, False]))
    >>> [vector.tolist() for vector in mask.vectors]
    [[True, False], [True, True, False]]
    >>> Mask.of(np.eye(2, dtype=bool)).array.tolist()
    [[True, False], [False, True]]
    """

    vectors: tuple[np.ndarray, ...] = ()
    whole: np.ndarray | None = None

    @classmethod
    def of(cls, array: np.ndarray) -> "Mask":
        """Returns an array's mask, which holds the array itself where it is no such product."""
        axes = range(array.ndim)
        others = [tuple(k for k in axes if k != axis) for axis in axes]
        vectors = tuple(np.asarray(array.any(axis=each)) for each in others)
        if array.ndim > 1 and np.array_equal(_outer(vectors), array):
            return cls(vectors=vectors)
        return cls(whole=array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return tuple(map(len, self.vectors)) if self.whole is None else self.whole.shape

    @property
    def array(self) -> np.ndarray:
        """The boolean array, not to be written to."""
        return _outer(self.vectors) if self.whole is None else self.whole

    def clear(self, array: np.ndarray) -> None:
        """Writes zeros into an array of this shape, where the mask is False."""
        if self.whole is not None:
            np.copyto(array, 0, where=~self.whole)
            return
        for axis, vector in enumerate(self.vectors):
            array[(slice(None),) * axis + (~vector,)] = 0


def _outer(vectors: tuple[np.ndarray, ...]) -> np.ndarray:
    return functools.reduce(np.logical_and.outer, vectors)


@keras.saving.register_keras_serializable(package="keras_gss")
class FixedZeros(keras.constraints.Constraint):
    """Keeps chosen weights at exactly zero, whatever the optimizer does.

    Keras applies a constraint after every optimizer step, so a masked weight is 0.0 between any
    two steps: also under momentum, weight decay or a NaN gradient, because it is overwritten, not
    multiplied.

    Args:
        mask: boolean array of the weight's shape, True where the weight may differ from zero.
        constraint: the constraint the weight has besides (anything `keras.constraints.get`
            understands). It sees the masked weight, and its result is masked again. If it is a
            `FixedZeros` itself, the two become one, with the zeros of both.

    Raises:
        ValueError: if `mask` is not boolean; when called, if the weight has another shape.

    Example:
    >>> import keras, numpy as np
    >>> from keras_gss.pruning import FixedZeros
    >>> zeros = FixedZeros(np.array([True, False, True]), constraint="non_neg")
    >>> print(keras.ops.convert_to_numpy(zeros(keras.ops.array([1.0, 2.0, -3.0]))))
    [1. 0. 0.]
    """

    def __init__(self, mask: "np.ndarray | Mask", constraint: Any = None):
        if not isinstance(mask, Mask):
            mask = np.asarray(mask)
            if mask.dtype != bool:
                raise reject("mask", "a boolean array", mask)
        inner = keras.constraints.get(constraint)
        if isinstance(inner, FixedZeros):
            own = mask.array if isinstance(mask, Mask) else mask
            mask, inner = own & inner.mask, inner.constraint
        self._mask = mask if isinstance(mask, Mask) else Mask.of(mask)
        self.constraint: Any = inner
        self._divisor: Any = None

    @property
    def mask(self) -> np.ndarray:
        """The boolean array, not to be written to."""
        return self._mask.array

    def apply_mask(self, w: Any) -> Any:
        """Returns `w` with zeros where the mask is False, without the inner constraint."""
        if tuple(w.shape) != self._mask.shape:
            raise ValueError(
                f"`FixedZeros` holds a mask of shape {self._mask.shape}, and the weight's shape is "
                f"{tuple(w.shape)}. Prune the model again after changing its layers."
            )
        w = ops.convert_to_tensor(w)
        if self._divisor is None:
            # Converted once and eagerly: a traced step then holds a reference instead of a constant
            # of its own, and the cast below costs nothing where weights are of this dtype.
            with eagerly():
                self._divisor = ops.convert_to_tensor(self.mask, keras.config.floatx())
        # w / 1 or, by definition, 0 for anything over 0: in TensorFlow half the time of `where`.
        return ops.divide_no_nan(w, ops.cast(self._divisor, w.dtype))

    def __call__(self, w: Any) -> Any:
        """Returns `w` masked, then constrained by the inner constraint, then masked again."""
        w = self.apply_mask(w)
        return w if self.constraint is None else self.apply_mask(self.constraint(w))

    def get_config(self) -> dict[str, Any]:
        """Returns the mask as packed, compressed text, its shape and the wrapped constraint."""
        packed = zlib.compress(np.packbits(self.mask).tobytes(), 9)
        return {
            "mask": base64.b64encode(packed).decode("ascii"),
            "shape": list(self._mask.shape),
            "wrapped": keras.constraints.serialize(self.constraint) if self.constraint else None,
        }

    def live_config(self) -> dict[str, Any]:
        """Returns what Keras builds an equal constraint from at once, which will hold this mask.

        Made text and read again, the mask would be there twice while a model is pruned.
        """
        config = keras.constraints.serialize(FixedZeros(np.ones(0, bool), self.constraint))
        config["config"]["mask"] = self._mask
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FixedZeros":
        """Builds the constraint from `get_config`'s result; ValueError if its mask is damaged."""
        if isinstance(config["mask"], Mask):
            return cls(config["mask"], config["wrapped"])
        shape = tuple(config["shape"])
        try:
            packed = zlib.decompress(base64.b64decode(config["mask"], validate=True))
            bits = np.unpackbits(np.frombuffer(packed, np.uint8))
            if not 0 <= len(bits) - math.prod(shape) < 8:
                raise ValueError(f"{len(bits)} bits for the shape {shape}")
            mask = bits[: math.prod(shape)].astype(bool).reshape(shape)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise ValueError(
                f"The mask of a `FixedZeros` config is damaged ({error}). Received: {config}"
            ) from error
        return cls(mask, config["wrapped"])


@keras.saving.register_keras_serializable(package="keras_gss")
class FixedZerosOfParts(keras.constraints.Constraint):
    """The `FixedZeros` of weights that have one constraint argument in common.

    An attention layer hands its `kernel_constraint` to the kernels of all its projections. Whose
    turn it is says the path of the variable, with which Keras calls a constraint.

    Args:
        parts: the constraint of each part by its name, "query" for instance.
        constraint: that of the parts not named (anything `keras.constraints.get` understands).

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> x = keras.Input((5, 4))
    >>> model = keras.Model(x, keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x))
    >>> kernel = model.get_layer("attention").value_dense.kernel
    >>> _ = kernel.assign(kernel * np.array([[1.0], [0.0]]))  # the second head
    >>> pruned = gss.prune(model, gss.AbsoluteThreshold(1e-9))
    >>> bool(own_constraint(pruned.get_layer("attention").value_dense.kernel).mask[:, 1].any())
    False
    """

    def __init__(self, parts: dict[str, Any], constraint: Any = None):
        self.parts = {name: keras.constraints.get(each) for name, each in parts.items()}
        self.constraint: Any = keras.constraints.get(constraint)

    def of(self, variable: Any) -> Any:
        """Returns the constraint of one variable, or None."""
        return self.parts.get(path_of(variable).split("/")[-2], self.constraint)

    def __call__(self, w: Any) -> Any:
        """Returns what the constraint of the variable `w` makes of it."""
        own = self.of(w)
        return w if own is None else own(w)

    def live_config(self) -> dict[str, Any]:
        """Returns what Keras builds an equal constraint from, see `FixedZeros.live_config`."""
        config = keras.constraints.serialize(FixedZerosOfParts({}, self.constraint))
        config["config"]["parts"] = {
            name: each.live_config()
            if isinstance(each, FixedZeros)
            else keras.constraints.serialize(each)
            for name, each in self.parts.items()
        }
        return config

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, serialised."""
        serialize = keras.constraints.serialize
        return {
            "parts": {name: serialize(each) for name, each in self.parts.items()},
            "constraint": serialize(self.constraint) if self.constraint else None,
        }


def own_constraint(variable: Any) -> Any:
    """Returns the constraint that acts on a variable, or None."""
    constraint = getattr(variable, "constraint", None)
    return constraint.of(variable) if isinstance(constraint, FixedZerosOfParts) else constraint


def fixed_zeros(model: Any) -> list[tuple[Any, FixedZeros]]:
    """Returns `(variable, constraint)` for every weight of a model whose zeros are fixed."""
    owned = [(variable, own_constraint(variable)) for variable in model.weights]
    return [(variable, own) for variable, own in owned if isinstance(own, FixedZeros)]


class KeepZeros(Callback):
    """Keeps a pruned model's zeros under `use_ema=True`, where constraints alone do not.

    Keras averages the weights before it applies constraints, and writes the averages over the
    weights when training ends (`SwapEMAWeights` also before). This callback masks the averages in
    the very step that updates them, so every copy of them has the zeros: in the model, in
    checkpoints and in the optimizer's state, wherever the callback stands in the list. It also
    applies the zeros at the begin and end of training and after every epoch, should another
    callback have written weights.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.set_weights([np.array([[1.0], [0.1]]), np.zeros(1)])
    >>> pruned = gss.prune(model, gss.AbsoluteThreshold(0.5))
    >>> pruned.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    >>> x, y = np.ones((8, 2)), np.ones((8, 1))
    >>> history = pruned.fit(x, y, verbose=0, callbacks=[gss.KeepZeros()])
    >>> float(pruned.layers[0].kernel[1, 0])
    0.0
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Applies the zeros, and makes the optimizer mask its averages."""
        self._reapply()
        averaging = _averaging(self.model.optimizer)
        wrapped = [_mask_averages(optimizer, self.model) for optimizer in averaging]
        if any(wrapped):
            # A step that was traced before the averages were masked would go on as it was.
            self.model.make_train_function(force=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Applies the zeros."""
        self._reapply()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Applies the zeros, and leaves the optimizer as it was."""
        self._reapply()
        for optimizer in _averaging(self.model.optimizer):
            vars(optimizer).pop("_update_model_variables_moving_average", None)

    def _reapply(self) -> None:
        for variable, constraint in fixed_zeros(self.model):
            variable.assign(constraint.apply_mask(variable))


def _averaging(optimizer: Any) -> Iterator[Any]:
    """Yields the optimizers with `use_ema=True` in an optimizer that may wrap others."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for each in getattr(optimizer, "optimizers", [optimizer]):
        if getattr(each, "use_ema", False):
            yield each


def _mask_averages(optimizer: Any, model: Any) -> bool:
    """Makes an optimizer mask its averages whenever it updates them; False if it does already."""
    update = optimizer._update_model_variables_moving_average
    if getattr(update, "masks_averages", False):
        return False

    def update_and_mask(variables: list) -> None:
        update(variables)
        _mask_now(optimizer, variables)

    vars(update_and_mask)["masks_averages"] = True
    if getattr(optimizer, "_model_variables_moving_average", None):
        for average in optimizer._model_variables_moving_average:
            if average is not None:
                # Where training has ended once, the JAX backend shares the averages' buffers with
                # the weights, and fails to donate them twice when it trains again.
                average.assign(ops.copy(average))
        _mask_now(optimizer, getattr(optimizer, "_trainable_variables", model.trainable_variables))
    optimizer._update_model_variables_moving_average = update_and_mask
    return True


def _mask_now(optimizer: Any, variables: list) -> None:
    for variable, average in zip(variables, optimizer._model_variables_moving_average, strict=True):
        zeros = own_constraint(variable)
        if average is not None and isinstance(zeros, FixedZeros):
            average.assign(zeros.apply_mask(average))
