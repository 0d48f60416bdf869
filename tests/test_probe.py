"""Comparing outputs: what counts as equal and what as different."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gss._probe import (
    in_float64,
    max_difference,
    may_be_rounding,
    random_inputs,
    tolerance,
    tolerance_elsewhere,
)

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([1.0, NAN], [1.5, NAN], 0.5),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([INF, 1.0], [INF, 1.25], 0.25),
        ([INF, 1.0], [-INF, 1.0], INF),
        ([INF, 1.0], [1.0, 1.0], INF),
    ],
)
def test_numbers_that_are_none(one, other, difference):
    assert max_difference([np.array(one)], [np.array(other)])[0] == difference


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        max_difference([np.ones(2)], [np.ones(3)])


def waves(number):
    """Each wave makes 50 times as much of what rounding did before it."""
    x = y = keras.Input((3,))
    for _ in range(number):
        y = ops.sin(50.0 * y)
    return keras.Model(x, keras.layers.Dense(1, use_bias=False)(y))


class Offset(keras.layers.Layer):
    """Holds what its config does not."""

    offset = 0.0

    def call(self, x):
        return x + self.offset


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 only")
def test_float64_decides_unless_copying_loses_something():
    model = waves(4)
    assert may_be_rounding(model, 0.5)
    assert not may_be_rounding(model, 1e-6)  # as equal as float32 can be
    assert not may_be_rounding(model, np.inf) and not may_be_rounding(model, np.nan)
    lossy = keras.Sequential([keras.Input((3,)), Offset()])
    assert may_be_rounding(lossy, 0.5)
    lossy.layers[0].offset = 1.0
    assert not may_be_rounding(lossy, 0.5)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 only")
def test_copies_in_float64_show_what_rounding_hid():
    model = waves(4)
    exact = in_float64(model)
    assert tolerance(model) == 1e-5 and tolerance(exact) == 1e-7
    inputs = random_inputs(model, batch=4)
    outputs = exact(inputs)
    difference, scale = max_difference(outputs, model(inputs))
    assert difference > 0.01 * scale
    difference, scale = max_difference(outputs, exact(inputs.astype("float64") * (1 + 1e-15)))
    assert difference < 1e-7 * scale


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-4), ("float16", 1e-2)])
def test_another_runtime_may_sum_otherwise(dtype, allowed):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, dtype=dtype)])
    assert tolerance_elsewhere(model) == allowed


def test_whole_numbers_stay_so_in_a_copy_that_computes_in_another_dtype():
    words = keras.Input((7,), dtype="int32")
    model = keras.Model(words, keras.layers.Embedding(3, 4)(words))
    assert in_float64(model).inputs[0].dtype == "int32"
    assert in_float64(model).output.dtype == "float64"


def test_inputs_suit_the_rescaling_that_reads_them():
    x = keras.Input((1000,))
    rescaling = keras.layers.Rescaling(1 / 255, offset=-1.0)
    model = keras.Model(x, rescaling(x))
    values = random_inputs(model, batch=4)
    assert abs(values.mean() - 255) < 20 and abs(values.std() - 255) < 20
    seen = keras.ops.convert_to_numpy(model(values))
    assert abs(seen.mean()) < 0.1 and abs(seen.std() - 1) < 0.1
