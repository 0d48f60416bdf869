"""Schedules: multipliers by epoch, their checks and their configs."""

import json

import keras
import pytest

import keras_gss as gss
from keras_gss.schedules import multiplier_at


def test_constant():
    assert [gss.ConstantFactor()(epoch) for epoch in (0, 7)] == [1.0, 1.0]
    assert gss.ConstantFactor(2)(3) == 2.0


def test_warm_up_rises_linearly_and_stays():
    assert [gss.WarmUpFactor(2)(epoch) for epoch in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert [gss.WarmUpFactor(4, start=0.2)(epoch) for epoch in (0, 4, 9)] == [0.2, 1.0, 1.0]
    assert gss.WarmUpFactor(4, start=0.2)(2) == pytest.approx(0.6, abs=1e-15)
    assert [gss.WarmUpFactor(2, start=3.0)(epoch) for epoch in range(3)] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("schedule", [gss.ConstantFactor(0.5), gss.WarmUpFactor(3, start=0.1)])
def test_round_trip(schedule):
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    again = keras.saving.deserialize_keras_object(stored)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "1", None])
def test_wrong_multipliers_are_refused(value):
    with pytest.raises(ValueError, match=r"`multiplier` must be a finite number >= 0. Received"):
        gss.ConstantFactor(value)
    with pytest.raises(ValueError, match=r"`start` must be a finite number >= 0. Received"):
        gss.WarmUpFactor(3, start=value)
    with pytest.raises(ValueError, match=r"`schedule\(4\)` must be a finite number >= 0"):
        multiplier_at(lambda epoch: value, 4)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, "3"])
def test_wrong_lengths_are_refused(epochs):
    with pytest.raises(ValueError, match=r"`epochs` must be an integer >= 1. Received"):
        gss.WarmUpFactor(epochs)


def test_any_function_of_the_epoch_is_a_schedule():
    assert multiplier_at(lambda epoch: epoch + 1, 4) == 5.0
