import fractions

import numpy as np
import pytest

from keras_gss import _checks

NO_NUMBERS = [True, np.True_, "1", None, 1j, [1.0], np.array([1.0]), float("nan"), float("inf")]


@pytest.mark.parametrize(
    "value", [0, 0.5, np.float32(0.5), np.int64(3), np.float16(2), fractions.Fraction(1, 2)]
)
def test_real_numbers_become_floats(value):
    checked = _checks.check_factor("factor", value)
    assert type(checked) is float
    assert checked == value


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1e-30, -np.inf, np.float32("nan"), 10**400])
def test_a_wrong_factor_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"`factor` must be .*Received: factor="):
        _checks.check_factor("factor", value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1])
def test_zero_is_not_positive(value):
    with pytest.raises(ValueError, match="`floor` must be a finite number > 0"):
        _checks.check_positive("floor", value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -0.1, 1.0001])
def test_a_fraction_is_above_zero_and_at_most_one(value):
    assert _checks.check_fraction("fraction", 1) == 1.0
    with pytest.raises(ValueError, match="`fraction` must be a number with 0 < fraction <= 1"):
        _checks.check_fraction("fraction", value)


@pytest.mark.parametrize("value", [True, 1.0, "2", 0, -1, None])
def test_integers(value):
    assert type(_checks.check_integer("epochs", np.int32(4), minimum=1)) is int
    with pytest.raises(ValueError, match="`epochs` must be an integer >= 1. Received: epochs="):
        _checks.check_integer("epochs", value, minimum=1)


@pytest.mark.parametrize("value", [0, 1, "True", None])
def test_flags_are_booleans_only(value):
    assert _checks.check_flag("squared", np.False_) is False
    with pytest.raises(ValueError, match="`squared` must be True or False"):
        _checks.check_flag("squared", value)


@pytest.mark.parametrize("value", [3, True, "2", None, [1], np.array([1, 2])])
def test_a_choice_is_one_of_the_choices(value):
    assert _checks.check_choice("p", np.int64(2), (1, 2)) == 2
    with pytest.raises(ValueError, match="`p` must be one of 1, 2. Received: p="):
        _checks.check_choice("p", value, (1, 2))


def test_axes_become_a_tuple_of_ints():
    assert _checks.check_axes("inner", np.int64(-1)) == (-1,)
    assert _checks.check_axes("inner", np.array([0, 2])) == (0, 2)
    assert _checks.check_axes("inner", ()) == ()


@pytest.mark.parametrize("value", [None, "01", 1.0, (0, True), [[0]], {0: 1}])
def test_what_names_no_axes_is_refused(value):
    with pytest.raises(ValueError, match="`inner` must be an axis"):
        _checks.check_axes("inner", value)


def test_repeated_axes_are_refused():
    with pytest.raises(ValueError, match="`inner` must be a tuple of axes without repetitions"):
        _checks.check_axes("inner", (0, 1, 0))
