"""Comparing outputs: what counts as equal and what as different."""

import numpy as np
import pytest

from keras_gss._probe import max_difference

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
