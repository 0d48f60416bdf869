"""Embeddings, EinsumDense and convolutions in groups: which slices, and what a cut leaves."""

import keras
import numpy as np
import pytest
from keras import layers
from planted import DTYPES, check_planted, check_slim, draw, zero

import keras_gss as gss


def read(variable):
    return keras.ops.convert_to_numpy(variable)


def tokens(mask_zero=False):
    x, places = keras.Input((5,), dtype="int32"), keras.Input((5,), dtype="int32")
    y = layers.Embedding(9, 6, mask_zero=mask_zero, name="table")(x)
    y = layers.Add()([y, layers.Embedding(7, 6, name="places")(places)])
    return keras.Model([x, places], layers.Dense(2, name="out")(y))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask_zero", [False, True])
def test_columns_of_embeddings_are_neurons(mask_zero, dtype, tmp_path):
    model, small = check_planted(lambda: tokens(mask_zero), tmp_path, dtype)
    (group,) = gss.find_groups(model)
    assert [(p.layer.name, p.axis) for p in group.incoming] == [("table", 1), ("places", 1)]
    assert small.get_layer("table").output_dim == small.get_layer("places").output_dim < 6
    assert small.get_layer("table").mask_zero == mask_zero
    assert gss.count(small).macs == 5 * small.get_layer("table").output_dim * 2


def test_a_column_of_one_number_is_a_constant(tmp_path):
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(9, 6, name="table")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    draw(model)
    table = read(model.get_layer("table").embeddings).copy()
    table[:, 1], table[:, 2] = 0.7, 0.0
    table[:, 3] = 0.7
    table[4, 3] = 0.6
    model.get_layer("table").embeddings.assign(table)
    small, left, _ = check_slim(model, tmp_path)
    assert left == {"table": 4}
    added = read(small.get_layer("out").bias) - read(model.get_layer("out").bias)
    np.testing.assert_allclose(added, 0.7 * read(model.get_layer("out").kernel)[1], rtol=1e-5)


def test_neurons_that_make_indices_stay():
    x = keras.Input((3,))
    y = layers.Embedding(9, 4)(layers.Dense(3, "relu", name="indices")(x))
    groups = gss.find_groups(keras.Model(x, layers.Dense(1)(layers.Flatten()(y))))
    assert "as an index" in groups.skipped["indices"]


def test_reversible_embeddings_are_left_whole():
    if not hasattr(layers, "ReversibleEmbedding"):
        return
    x = keras.Input((5,), dtype="int32")
    tied = layers.ReversibleEmbedding(9, 6, name="tied")
    y = layers.Dense(6, name="inside")(tied(x))
    groups = gss.find_groups(keras.Model(x, tied(y, reverse=True)))
    assert groups.skipped["tied"].startswith("ReversibleEmbedding has no rule")
    assert "inside" in groups.skipped


def test_a_table_held_in_the_graph_is_left_whole():
    x = keras.Input((5, 3))
    y = layers.Dense(4, name="in")(x) + np.ones((1, 5, 4), "float32")
    groups = gss.find_groups(keras.Model(x, layers.Dense(2)(y)))
    assert "array held in the graph" in groups.skipped["in"]


EQUATIONS = {
    "abc,cd->abd": ((4, 6), "d"),
    "...x,xy->...y": (6, "y"),
    "...x,xy->...y, no bias": (6, None),
    "abc,cd->adb": ((6, 4), None),
    "abc,cde->abde": ((4, 2, 6), "de"),
    "abc,cde->abde, bias of e": ((4, 2, 6), "e"),
    "abc,bcd->ad": (6, "d"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EQUATIONS)
def test_einsum_dense(name, dtype, tmp_path):
    shape, bias = EQUATIONS[name]

    def build():
        x = keras.Input((4, 3))
        y = layers.Dense(5, name="in")(x)
        equation = name.split(", ")[0]
        y = layers.EinsumDense(equation, shape, "relu", bias_axes=bias, name="made")(y)
        if "cde" in equation:  # and back, by a kernel that reads two axes
            y = layers.EinsumDense("abde,def->abf", (4, 4), bias_axes="f", name="back")(y)
        elif "adb" in equation:
            y = layers.Permute((2, 1))(y)
        return keras.Model(x, layers.Dense(2, name="out")(y))

    model, small = check_planted(build, tmp_path, dtype)
    # the five inputs of a place are not told apart where a kernel reads places too
    assert small.get_layer("in").units < 5
    sizes = np.ravel(small.get_layer("made").get_config()["output_shape"])
    assert sum(size == 6 for size in sizes) == 0
    assert gss.count(model).uncounted == {}


def test_einsum_slices_and_macs_by_hand():
    x = keras.Input((4, 3))
    y = layers.EinsumDense("abc,cde->abde", (4, 2, 5), bias_axes="de", name="made")(x)
    y = layers.EinsumDense("abde,def->abf", (4, 2), name="back")(y)
    model = keras.Model(x, layers.Dense(1, name="out")(y))
    made, back = gss.find_groups(model)
    assert [(p.layer.name, p.axis) for p in made.incoming] == [("made", 2)]
    assert [(p.layer.name, p.axis) for p in made.outgoing] == [("back", 1)]
    assert [(p.weight.name, p.axis) for p in made.companions] == [("bias", 1)]
    assert [(p.layer.name, p.axis) for p in back.incoming] == [("back", 2)]
    assert gss.count(model).macs == 4 * (3 * 10 + 10 * 2 + 2)


@pytest.mark.parametrize("bias", ["de", "e", None])
def test_constants_through_einsum_dense(bias, tmp_path):
    x = keras.Input((4, 3))
    y = layers.Dense(5, "relu", name="in")(x)
    y = layers.EinsumDense("abc,cde->abde", (None, 2, 6), bias_axes=bias, name="made")(y)
    y = layers.EinsumDense("abde,def->abf", (None, 2), bias_axes="f", name="back")(y)
    model = keras.Model(x, y)
    draw(model)
    zero(model.get_layer("in").kernel, 1, [1])
    model.get_layer("in").bias.assign([0.3, 0.7, 0.2, 0.4, 0.5])
    zero(model.get_layer("made").kernel, 2, [2])  # what is left of these is their bias
    _, left, _ = check_slim(model, tmp_path)
    # a bias that is not there, or is shared, cannot take a constant up, and neither can a kernel
    # that reads the neuron at several places with one constant each
    assert left["in"] == (4 if bias == "de" else 5)
    assert left["made"] == (6 if bias == "de" else 5)


def test_a_bias_that_keras_can_lay_along_a_wrong_axis(tmp_path):
    """`ops.add` takes a bias (2, 1) for a vector, and lays it along any axis of length 2."""
    x = keras.Input((4, 3))
    for bias, equation, shape in (("d", "abc,cde->abde", (4, 2, 3)), ("d", "abc,cd->adb", (6, 4))):
        y = layers.EinsumDense(equation, shape, bias_axes=bias, name="made")(x)
        groups = gss.find_groups(keras.Model(x, layers.Dense(1)(layers.Flatten()(y))))
        assert "another axis than the last" in groups.skipped["made"]
    y = layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de", name="made")(x)
    model = keras.Model(x, layers.EinsumDense("abde,def->abf", (4, 2), name="out")(y))
    draw(model)
    zero(model.get_layer("out").kernel, 1, [0, 1])
    _, left, _ = check_slim(model, tmp_path)
    assert left == {"made": 2}  # one would do, but leaves a bias (2, 1)


@pytest.mark.parametrize(
    ("equation", "shape"), [("abc,c->abc", (4, 3)), ("abc,cd->ad", 6), ("abc,c->ab", 4)]
)
def test_other_equations_are_left_whole(equation, shape):
    x = keras.Input((4, 3))
    y = layers.EinsumDense(equation, shape, name="odd")(layers.Dense(3, name="in")(x))
    groups = gss.find_groups(keras.Model(x, layers.Dense(2)(layers.Flatten()(y))))
    assert "no matrix product" in groups.skipped["odd"]
    assert "in" in groups.skipped


def grouped(rank=2, **options):
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    x = keras.Input((5,) * rank + (3,))
    y = kind(8, 1, activation="relu", name="in")(x)
    y = kind(6, 3, groups=2, activation="relu", name="grouped", **options)(y)
    return keras.Model(x, kind(2, 1, name="out")(y))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_in_groups_lose_the_same_of_every_group(rank, tmp_path):
    model, small = check_planted(lambda: grouped(rank), tmp_path, "float32")
    first, second = gss.find_groups(model)
    assert (first.size, second.size) == (4, 3)
    assert [p.index.tolist() for p in second.incoming] == [[0, 1, 2, 0, 1, 2]]
    assert [p.index.tolist() for p in first.incoming] == [[0, 1, 2, 3, 0, 1, 2, 3]]
    layer = small.get_layer("grouped")
    assert layer.groups == 2 and layer.filters in (2, 4)


def test_a_filter_stays_for_its_like_in_another_group(tmp_path):
    model = grouped()
    draw(model)
    zero(model.get_layer("out").kernel, -2, [1])
    assert check_slim(model, tmp_path)[0].get_layer("grouped").filters == 6
    zero(model.get_layer("out").kernel, -2, [4])
    assert check_slim(model, tmp_path)[0].get_layer("grouped").filters == 4


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_constants_fold_into_a_convolution_in_groups(padding, tmp_path):
    model = grouped(padding=padding)
    draw(model)
    zero(model.get_layer("in").kernel, -1, [1, 5])
    model.get_layer("in").bias.assign([0.1, 0.7, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1])
    small, _, kept = check_slim(model, tmp_path)
    assert small.get_layer("in").filters == (6 if padding == "valid" else 8)
    assert ("border" in kept.get("grouped", "")) == (padding == "same")


@pytest.mark.parametrize(("filters", "groups"), [(8, 8), (16, 8), (2, 2)])
def test_groups_of_one_channel_are_left_whole(filters, groups):
    x = keras.Input((5, 5, 3))
    y = layers.Conv2D(filters, 3, groups=groups, name="deep")(layers.Conv2D(8, 1, name="in")(x))
    groups = gss.find_groups(keras.Model(x, layers.Conv2D(2, 1)(y)))
    assert "`DepthwiseConv`" in groups.skipped["deep"]


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.SeparableConv2D, layers.DepthwiseConv2D])
def test_dilation(kind, tmp_path):
    def build():
        x = keras.Input((9, 9, 3))
        y = layers.Conv2D(6, 1, name="in")(x)
        filters = () if kind is layers.DepthwiseConv2D else (5,)
        y = kind(*filters, 3, dilation_rate=2, padding="same", activation="relu", name="wide")(y)
        return keras.Model(x, layers.Conv2D(2, 1, name="out")(y))

    check_planted(build, tmp_path, "float32")
