"""Planted dead neurons: the check that a layer kind is understood, whatever the kind."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

import keras_gss as gss
from keras_gss._probe import random_inputs, tolerance

# JAX computes in float64 only where a whole process is told to.
DTYPES = ["float32"] if keras.backend.backend() == "jax" else ["float32", "float64"]


@contextlib.contextmanager
def floats(dtype: str) -> Iterator[None]:
    """Layers and inputs made inside compute in this dtype."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def draw(model: keras.Model, seed: int = 0) -> None:
    """Gives every weight a random value that is not zero."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        value = random.uniform(0.2, 0.8, variable.shape)
        if "variance" not in variable.path:
            value *= random.choice([-1.0, 1.0], variable.shape)
        variable.assign(value)


def zero(variable, axis: int, positions) -> None:
    """Zeroes a weight at some positions of one axis."""
    value = np.moveaxis(keras.ops.convert_to_numpy(variable).copy(), axis, 0)
    value[positions] = 0.0
    variable.assign(np.moveaxis(value, 0, axis))


def plant(model: keras.Model, seed: int = 0) -> dict[str, int]:
    """Zeroes all outgoing slices of random neurons of every group; returns how many are left."""
    random = np.random.default_rng(seed)
    alive: dict[str, int] = {}
    counts: dict[int, int] = {}
    for group in gss.find_groups(model):
        if not group.removable:
            continue
        # two stay where there are three: some widths may not come down to one
        # and some widths must stay equal to others
        count = counts.setdefault(group.size, int(random.integers(1, max(group.size - 1, 2))))
        dead = random.choice(group.size, min(count, group.size - 1), replace=False)
        for piece in group.outgoing:
            zero(piece.weight, piece.axis, np.isin(piece.index, dead))
        alive[group.name] = group.size - len(dead)
    return alive


def outputs(model: keras.Model, x) -> list[np.ndarray]:
    if keras.backend.backend() == "jax":  # which would compile every operation for itself
        import jax

        @jax.jit
        def call(trainable, others, x):  # named as in `slim`: what both compile is compiled once
            return model.stateless_call(trainable, others, x, training=False)[0], {}

        variables = model.trainable_variables, model.non_trainable_variables
        found, _ = call(*([v.value for v in each] for each in variables), x)
    else:
        found = model(x)
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(found)]


def check_slim(model: keras.Model, folder: Path, inputs=None) -> tuple:
    """Slims a model and checks all that must hold of the result.

    Returns:
        `(small model, {group name: neurons left}, kept reasons)`.
    """
    small, report = gss.slim(model, return_report=True)
    # as many samples as `slim` compares on: JAX compiles for each number of them
    x = random_inputs(model, batch=4, seed=1) if inputs is None else inputs
    received = outputs(small, x)
    for one, other in zip(outputs(model, x), received, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= tolerance(model) * np.abs(one).max()
    again = gss.slim(small, check=False)
    assert again.to_json() == small.to_json()
    for one, other in zip(again.weights, small.weights, strict=True):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(w) for w in (one, other)))
    assert gss.count(model).live_macs == gss.count(small).live_macs
    small.save(folder / "small.keras")
    loaded = keras.models.load_model(folder / "small.keras")
    for one, other in zip(received, outputs(loaded, x), strict=True):
        np.testing.assert_array_equal(one, other)
    return small, {name: left for name, (_, left) in report.cut.items()}, report.kept


def check_planted(build: Callable[[], keras.Model], folder: Path, dtype: str, seed: int = 0):
    """Plants dead neurons into a model and checks that exactly these go; returns both models."""
    with floats(dtype):
        model = build()
        draw(model, seed)
        alive = plant(model, seed)
        small, left, _ = check_slim(model, folder)
    assert alive and left == alive
    return model, small
