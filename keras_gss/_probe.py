"""Comparing two ways to compute a model: random inputs, the largest difference, what is allowed."""

from typing import Any

import keras
import numpy as np

from keras_gss._keras import (
    dtype_of,
    input_structure,
    is_layer,
    leaf_layers,
    library_of,
    nodes,
    rebuild,
)

# TensorFlow's CPU kernels read beyond the data where a stack of strided convolutions comes down to
# one position, and give another result each time: long enough an axis does not get there.
_FREE_AXIS = 64
# Keras takes the means and exponentials of these in float32 whatever their dtype is.
_PARTLY_FLOAT32 = (
    *(keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention),
    *(keras.layers.LayerNormalization, keras.layers.RMSNormalization),
    keras.layers.GroupNormalization,
)
# float64 rounds at 1e-16, of which the deepest networks make ten million times as much.
_ELSEWHERE = 1e-4
_RELATIVE_TOLERANCE = {"float64": 1e-7, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}


def random_inputs(model: keras.Model, batch: int, seed: int = 0) -> Any:
    """Draws inputs for a model, in the structure and the dtypes that its call expects.

    Floating inputs are standard normal, before a Rescaling such that they are so behind it.
    Integer inputs, and any input that an Embedding reads, are valid indices. An axis of unknown
    length becomes 64 long.

    Args:
        model: a Sequential or functional model.
        batch: number of samples; a model built for a fixed batch gets that one instead.
        seed: of NumPy's generator.

    Returns:
        NumPy arrays in the structure of the model's inputs.

    Example:
    >>> import keras
    >>> from keras_gss._probe import random_inputs
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> random_inputs(model, batch=3).shape
    (3, 4)
    """
    rng = np.random.default_rng(seed)

    def draw(tensor: Any) -> np.ndarray:
        first, *rest = tensor.shape
        shape = (first or batch, *(size or _FREE_AXIS for size in rest))
        dtype = dtype_of(tensor)
        if dtype == "string":
            return np.full(shape, "a")
        if dtype == "bool":
            return rng.random(shape) < 0.5
        readers = [node.layer for node in nodes(model) if any(x is tensor for x in node.inputs)]
        rows = _embedding_rows(model, readers)
        if rows or "int" in dtype:
            return rng.integers(0, rows or 2, shape).astype(dtype)
        values = rng.standard_normal(shape)
        for layer in readers:
            if isinstance(layer, library_of(model).layers.Rescaling) and np.all(layer.scale):
                values = (values - np.asarray(layer.offset)) / np.asarray(layer.scale)
                break
        return keras.ops.convert_to_numpy(keras.ops.cast(values, dtype))

    return keras.tree.map_structure(draw, input_structure(model))


def _embedding_rows(model: Any, readers: list[Any]) -> int | None:
    embeddings = [r for r in readers if isinstance(r, library_of(model).layers.Embedding)]
    return min((layer.input_dim for layer in embeddings), default=None)


def max_difference(expected: Any, received: Any) -> tuple[float, float]:
    """Returns `max|expected - received|` and `max|expected|` over two structures of tensors.

    Entries that are not a number in both, or the same infinity in both, count as equal; one that
    is not a number in one alone differs infinitely.

    Raises:
        ValueError: if the structures or the shapes differ.

    Example:
    >>> import numpy as np
    >>> from keras_gss._probe import max_difference
    >>> max_difference([np.array([1.0, -4.0])], [np.array([1.0, -3.5])])
    (0.5, 4.0)
    """
    keras.tree.assert_same_structure(expected, received)
    difference = scale = 0.0
    pairs = zip(keras.tree.flatten(expected), keras.tree.flatten(received), strict=True)
    for one, other in pairs:
        one, other = (keras.ops.convert_to_numpy(x).astype(np.float64) for x in (one, other))
        if one.shape != other.shape:
            raise ValueError(f"The outputs' shapes differ: {one.shape} and {other.shape}.")
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        if not same.all():
            with np.errstate(invalid="ignore"):
                gap = np.abs(one - other)[~same]
            difference = max(difference, float(np.where(np.isnan(gap), np.inf, gap).max()))
        finite = np.abs(one[np.isfinite(one)])
        scale = max(scale, float(finite.max(initial=0.0)))
    return difference, scale


def tolerance(model: keras.Model) -> float:
    """Returns the difference allowed per unit of output, by the coarsest dtype computed in.

    It is 1e-7 for float64, 1e-5 for float32, 1e-2 for float16 and 5e-2 for bfloat16. Attention,
    interpolation, layer, group and RMS normalisation count as float32 in float64: Keras, or
    TensorFlow, computes parts in that.
    """
    used = float_dtypes(model)
    layers = (layer for _, layer in leaf_layers(model))
    if any(isinstance(layer, _PARTLY_FLOAT32) or _interpolates(layer) for layer in layers):
        used.add("float32")
    return max((_RELATIVE_TOLERANCE[dtype] for dtype in used), default=1e-5)


def tolerance_elsewhere(model: keras.Model) -> float:
    """Returns the difference allowed to another runtime, which computes in float32 at best.

    It may sum one by one what TensorFlow sums pairwise: LiteRT's means over 4,000 numbers are off
    by 1e-5.
    """
    return max(tolerance(model), _ELSEWHERE)


def float_dtypes(model: keras.Model) -> set[str]:
    """Returns the floating dtypes that the layers of a model compute in."""
    # What an input layer says it computes in is the policy of the day, not its tensor's dtype.
    inputs = library_of(model).layers.InputLayer
    layers = [layer for _, layer in leaf_layers(model) if not isinstance(layer, inputs)]
    return {layer.compute_dtype for layer in layers} & set(_RELATIVE_TOLERANCE)


def _interpolates(layer: Any) -> bool:
    return getattr(layer, "interpolation", "nearest") != "nearest"


def may_be_rounding(model: keras.Model, difference: float) -> bool:
    """Tells whether copies in float64 are to decide about a relative difference that is too large.

    A deep network can blow up the last bit to any size, on inputs unlike those it is made for above
    all. The copies can decide unless copying loses something that the outputs depend on.
    """
    if not tolerance(model) < difference < np.inf or keras.backend.backend() == "jax":
        return False
    inputs = random_inputs(model, batch=4)
    outputs, copied = (each(inputs, training=False) for each in (model, rebuild(model)))
    lost, scale = max_difference(outputs, copied)
    return lost <= tolerance(model) * (scale or 1.0)


def in_float64(model: keras.Model) -> keras.Model:
    """Returns a copy of a model that computes in float64."""
    return computing_in(model, "float64")


def computing_in(model: keras.Model, dtype: str) -> keras.Model:
    """Returns a copy of a model that computes in another floating dtype."""

    def edit(operation: Any, config: dict[str, Any]) -> dict[str, Any]:
        if "dtype" in config and is_layer(operation) and not _counts(config["dtype"]):
            config["dtype"] = dtype
        return config

    return rebuild(model, edit)


def _counts(dtype: Any) -> bool:
    return any(kind in str(dtype) for kind in ("int", "bool", "string"))
