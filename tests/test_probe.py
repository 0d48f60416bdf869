"""Comparing outputs: what counts as equal and what as different."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gss._probe import (
    in_float64,
    is_blurred,
    max_difference,
    random_inputs,
    tolerance_elsewhere,
    tolerance_in_float64,
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


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 only")
def test_what_a_model_does_to_rounding_decides_what_may_be_rounding():
    assert is_blurred(waves(1), 5e-3) and not is_blurred(waves(1), 5e-2)
    assert is_blurred(waves(4), 5e-2)
    assert not is_blurred(waves(4), 1e-6)  # as equal as float32 can be
    assert not is_blurred(waves(4), np.inf) and not is_blurred(waves(4), np.nan)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 only")
def test_chaos_loosens_even_float64():
    assert tolerance_in_float64(in_float64(waves(1))) == 1e-10
    assert 1e-10 < tolerance_in_float64(in_float64(waves(4))) <= 1e-5


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 only")
def test_another_runtime_may_differ_by_what_summation_and_chaos_do():
    assert tolerance_elsewhere(waves(1)) == 1e-4
    assert 1e-4 < tolerance_elsewhere(waves(4)) <= 1e-2
    assert tolerance_elsewhere(in_float64(waves(1))) == 1e-4


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
