import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss.pruning.emptied import Masked, connected, names_of_emptied
from keras_gss.pruning.pieces import survey


@pytest.fixture
def model():
    """2-3-1 without biases; neuron 1 has no outgoing weight, neuron 2 no incoming one."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, use_bias=False, name="a"),
            layers.Dense(1, use_bias=False, name="b"),
        ]
    )
    model.set_weights(
        [np.array([[3.0, 1.0, 0.0], [-4.0, 1.0, 0.0]]), np.array([[-2.0], [0.0], [5.0]])]
    )
    return model


def values_of(model):
    return {id(v): keras.ops.convert_to_numpy(v) for v in model.weights}


def test_elements_are_compared_by_magnitude_tensor_by_tensor(model):
    found = survey(model, "element")
    assert [piece.strengths.tolist() for piece in found.pieces] == [
        [[3.0, 1.0, 0.0], [4.0, 1.0, 0.0]],
        [[2.0], [0.0], [5.0]],
    ]


def test_neurons_are_compared_by_root_mean_square(model):
    (piece,) = survey(model, "neuron").pieces
    expected = np.sqrt([(9 + 16 + 4) / 3, (1 + 1 + 0) / 3, (0 + 0 + 25) / 3])
    np.testing.assert_allclose(piece.strengths, expected, rtol=1e-12)
    assert sorted(piece.values) == [-4.0, -2.0, 0.0, 0.0, 0.0, 1.0, 1.0, 3.0, 5.0]


def test_masks_of_neurons_cover_their_columns_and_rows(model):
    found = survey(model, "neuron")
    masks = found.masks([np.array([True, False, True])])
    kernels = [masks[id(v)].astype(int).tolist() for v in model.weights]
    assert kernels == [[[1, 0, 1], [1, 0, 1]], [[1], [0], [1]]]


def test_masked_zeroes_only_where_there_is_a_mask(model):
    first, second = model.weights
    after = Masked(values_of(model), {id(second): np.array([[False], [True], [True]])})
    np.testing.assert_array_equal(after[id(second)], [[0.0], [0.0], [5.0]])
    np.testing.assert_array_equal(after[id(first)], keras.ops.convert_to_numpy(first))


def test_a_neuron_is_connected_by_both_ends(model):
    (group,) = gss.find_groups(model)
    assert connected(group, values_of(model)).tolist() == [True, False, False]


def test_an_emptied_group_is_named_though_its_kernels_are_not_empty(model):
    found = survey(model, "element")
    first = model.weights[0]
    mask = np.array([[False, True, True], [False, True, True]])
    names = names_of_emptied(found.weights, found.groups, found.values, {id(first): mask})
    assert names == ["the neurons of 'a'"]
    names = names_of_emptied(found.weights, found.groups, found.values, {id(first): mask & False})
    assert names == ["'a/kernel'"]
