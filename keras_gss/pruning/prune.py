"""Pruning: a new model with the weights that a threshold drops fixed at zero."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_gss._checks import check_choice, check_threshold
from keras_gss._keras import (
    Unwritten,
    check_model,
    is_tf_keras,
    put,
    rebuild,
    to_numpy,
    without_wrappers,
)
from keras_gss.graph import find_groups
from keras_gss.pruning.emptied import names_of_emptied
from keras_gss.pruning.masks import FixedZeros, FixedZerosOfParts, Mask, own_constraint
from keras_gss.pruning.pieces import Masks
from keras_gss.pruning.thresholds import GRANULARITIES, HasMasks
from keras_gss.pruning.weights import Weight, weights_of
from keras_gss.regularizers.declared import without_declarations


def prune(model: keras.Model, threshold: HasMasks, granularity: str = "element") -> keras.Model:
    """Returns a copy of a model whose small weights are zero, and stay zero when it is trained.

    The zeros are fixed by `FixedZeros` constraints in the layers' configs, so they survive
    training, saving and cloning. Constraints and regularizers that the model has still apply, but
    for cross-layer penalties: those are dropped, since finetuning runs without them. Pruning a
    pruned model adds to its zeros. Under `use_ema=True` train with the `KeepZeros` callback.

    Args:
        model: a built Keras 3 Sequential or functional model; it is not changed.
        threshold: `StdThreshold`, `AbsoluteThreshold`, `MacsBudget`, `ParamsBudget`, or any
            object with `masks(model, granularity)`.
        granularity: "element" compares single weights. "neuron" compares the neurons of each
            NeuronGroup, and zeroes a neuron whole: its in- and outgoing weights, its bias and its
            normalisation entries.

    Returns:
        A new, uncompiled model.

    Raises:
        TypeError: `model` has no graph, or `threshold` no `masks`.
        ValueError: the model is unbuilt or has NaN weights, `granularity` is another word, or
            the threshold would empty a layer.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    >>> model.set_weights([np.array([[1.0, -2.0], [0.1, 2.0]])])
    >>> pruned = gss.prune(model, gss.StdThreshold(ratio=0.3))
    >>> pruned.compile("adam", "mse")
    >>> history = pruned.fit(np.ones((4, 2)), np.ones((4, 2)), epochs=3, verbose=0)
    >>> float(pruned.layers[0].kernel[1, 0])
    0.0
    """
    check_choice("granularity", granularity, GRANULARITIES)
    check_threshold("threshold", threshold)
    check_model(model, "prune")
    model = without_wrappers(model)
    weights = list(weights_of(model))
    masks = threshold.masks(model, granularity)
    _check_masks(weights, masks)
    masks = _Kept(masks)
    values = {id(weight.variable): to_numpy(weight.variable) for weight in weights}
    emptied = names_of_emptied(weights, find_groups(model), values, masks)
    if emptied:
        raise ValueError(
            f"`prune` would leave nothing of {', '.join(emptied)}. Use a lower threshold, or one "
            f"with `keep_strongest=True`. Received: threshold={threshold!r}"
        )
    zeroed = {key: _zeroed(values[key], mask) for key, mask in masks.of.items()}
    pruned = rebuild(model, _fixing(weights, masks), zeroed)
    _check_fixed(weights, list(weights_of(pruned)), masks)
    if not is_tf_keras(pruned):
        return pruned
    from keras_gss.pruning.tfmot import wrap

    return wrap(pruned)


def _zeroed(value: np.ndarray, mask: Mask) -> Unwritten:
    def write(array: np.ndarray) -> None:
        np.copyto(array, value, casting="unsafe")
        mask.clear(array)

    return Unwritten(mask.shape, value.dtype, write)


def _fixing(weights: list[Weight], masks: "_Kept") -> Any:
    """Returns an edit for `rebuild` that writes the masks into the configs' constraints."""
    by_layer: dict[int, list[Weight]] = {}
    for weight in weights:
        if _is_fixed(weight, masks):
            by_layer.setdefault(id(weight.layer), []).append(weight)

    def edit(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
        config = without_declarations(config)
        parts: dict[str, FixedZerosOfParts] = {}
        for weight in by_layer.get(id(layer), ()):
            kept = masks.of[id(weight.variable)]
            zeros: Any = FixedZeros(kept, own_constraint(weight.variable))
            if weight.part:
                before = weight.variable.constraint
                if not isinstance(before, FixedZerosOfParts):
                    before = FixedZerosOfParts({}, before)
                known = parts.setdefault(
                    weight.key, FixedZerosOfParts(before.parts, before.constraint)
                )
                known.parts[weight.part], zeros = zeros, known
            put(config, weight.key, zeros.live_config())
        return config

    return edit


def _is_fixed(weight: Weight, masks: Masks) -> bool:
    # A mask without zeros needs no constraint. A variable that no optimizer moves, such as a
    # batch normalisation's mean, has none, and is only set to zero.
    mask = masks.get(id(weight.variable))
    return bool(weight.kind) and mask is not None and not mask.all()


class _Kept(Mapping[int, np.ndarray]):
    """Masks, each made anew when asked for from what is kept of it."""

    def __init__(self, masks: Masks):
        self.of = {key: Mask.of(np.asarray(mask)) for key, mask in masks.items()}

    def __getitem__(self, key: int) -> np.ndarray:
        return self.of[key].array

    def __iter__(self) -> Iterator[int]:
        return iter(self.of)

    def __len__(self) -> int:
        return len(self.of)


def _check_masks(weights: list[Weight], masks: Masks) -> None:
    by_id = {id(weight.variable): weight for weight in weights}
    for key, mask in masks.items():
        if key not in by_id:
            raise ValueError(
                "`threshold.masks` returned a mask for no floating-point weight of the model; its "
                f"keys must be id(variable). Received: key={key!r}"
            )
        weight = by_id[key]
        shape = tuple(weight.variable.shape)
        if np.asarray(mask).dtype != bool or np.shape(mask) != shape:
            raise ValueError(
                f"`threshold.masks` must give '{weight.path}' a boolean array of shape {shape}. "
                f"Received: {np.asarray(mask).dtype} of shape {np.shape(mask)}"
            )
        if _is_fixed(weight, masks) and _is_function(own_constraint(weight.variable)):
            raise ValueError(
                f"'{weight.path}' has a plain function as its constraint, which cannot be kept "
                "beside the zeros. Make it a `keras.constraints.Constraint`."
            )
        moved = {id(variable) for variable in weight.layer.trainable_variables}
        if not weight.kind and key in moved and not mask.all():
            raise ValueError(
                f"'{weight.path}' cannot keep zeros: its layer's config has no constraint "
                "argument for it. Leave it out of the masks."
            )


def _is_function(constraint: Any) -> bool:
    return constraint is not None and not hasattr(constraint, "get_config")


def _check_fixed(old: list[Weight], new: list[Weight], masks: Masks) -> None:
    for before, after in zip(old, new, strict=True):
        constraint = own_constraint(after.variable)
        if _is_fixed(before, masks) and not isinstance(constraint, FixedZeros):
            raise ValueError(
                f"'{before.path}' cannot keep zeros: {type(before.layer).__name__} does not hand "
                f"its `{before.key}` to the weight."
            )
