"""Attention layers: heads, the width of keys, the width of values; what no weight stands between."""

import keras
import numpy as np
import pytest
from keras import layers
from planted import DTYPES, check_planted, check_slim, draw, floats, zero

import keras_gss as gss
from keras_gss.graph import trace


def read(variable):
    return keras.ops.convert_to_numpy(variable)


def block(attention, width=8, mask=None, **options):
    """Embedding, a residual attention block with what comes after it, and an output."""
    x = keras.Input((5, 6))
    y = layers.Dense(width, name="in")(x)
    y = layers.Add()([y, attention(y, y, attention_mask=mask, **options)])
    y = layers.Dense(7, "relu", name="up")(y)
    return keras.Model(x, layers.Dense(2, name="out")(y))


# Keras on JAX has no values of another width than the keys'.
WIDTH = 4 if keras.backend.backend() == "jax" else 5
KINDS = {
    "MultiHeadAttention": lambda: layers.MultiHeadAttention(3, 4, value_dim=WIDTH, name="mha"),
    "without bias": lambda: layers.MultiHeadAttention(3, 4, use_bias=False, name="mha"),
    "with dropout": lambda: layers.MultiHeadAttention(3, 4, dropout=0.2, name="mha"),
    "GroupedQueryAttention": lambda: layers.GroupQueryAttention(4, 6, 3, name="mha"),
    "one query per key": lambda: layers.GroupQueryAttention(4, 3, 3, use_bias=False, name="mha"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
def test_heads_and_widths_lose_exactly_what_is_not_read(name, dtype, tmp_path):
    _, small = check_planted(lambda: block(KINDS[name]()), tmp_path, dtype)
    config = small.get_layer("mha").get_config()
    assert 0 < config.get("num_heads", config.get("num_key_value_heads")) < 3
    assert 0 < config.get("key_dim", config.get("head_dim")) < 4


@pytest.mark.parametrize(
    "options", [{"use_causal_mask": True}, {"mask": np.tri(5, dtype=bool)[None]}]
)
@pytest.mark.parametrize("name", ["MultiHeadAttention", "GroupedQueryAttention"])
def test_under_masks(name, options, tmp_path):
    check_planted(lambda: block(KINDS[name](), **options), tmp_path, DTYPES[-1])


def test_padding_masks(tmp_path):
    def build():
        x = keras.Input((5,), dtype="int32")
        y = layers.Embedding(7, 8, mask_zero=True, name="table")(x)
        y = layers.MultiHeadAttention(3, 4, name="mha")(y, y)
        return keras.Model(x, layers.Dense(2, name="out")(layers.GlobalAveragePooling1D()(y)))

    with floats("float32"):
        model = build()
        draw(model)
        kernel = model.get_layer("mha").output_dense.kernel
        zero(kernel, 0, [1])
        zero(kernel, 1, [0, 2])
        zero(model.get_layer("mha").key_dense.kernel, 2, [1, 3])
        ids = np.array([[1, 2, 0, 0, 0], [3, 0, 4, 5, 6]])
        _, left, _ = check_slim(model, tmp_path, inputs=ids)
    assert left == {"table": 8, "mha:heads": 2, "mha:keys": 2, "mha:values": 2, "mha:outputs": 8}


def test_cross_attention_with_keys_of_their_own_images_and_scores(tmp_path):
    def build():
        x, z = keras.Input((4, 3)), keras.Input((2, 3, 3))
        q, v, k = (
            layers.Dense(width, name=name)(source)
            for source, width, name in ((x, 4, "q"), (x, 5, "v"), (x, 6, "k"))
        )
        y, scores = layers.MultiHeadAttention(3, 3, value_dim=4, output_shape=7, name="cross")(
            q, v, k, return_attention_scores=True
        )
        image = layers.Conv2D(4, 1, name="conv")(z)
        image = layers.MultiHeadAttention(2, 3, attention_axes=(1, 2), name="image")(image, image)
        scores = layers.Dense(1, name="scores")(layers.Permute((2, 3, 1))(scores))
        outputs = [layers.Dense(2, name="a")(y), layers.Dense(2, name="b")(image), scores]
        return keras.Model([x, z], outputs)

    model, small = check_planted(build, tmp_path, DTYPES[-1], seed=1)
    assert small.get_layer("cross").get_config()["output_shape"][0] < 7
    signals = trace(model, numeric=False).signals
    assert all(len(s.shape) == s.labels.ndim == s.value.ndim for s in signals)


def test_a_shared_attention_layer(tmp_path):
    def build():
        x = keras.Input((4, 3))
        shared = layers.MultiHeadAttention(3, 4, name="shared")
        y = layers.Dense(6, name="in")(x)
        y = shared(y, y)
        return keras.Model(x, layers.Dense(2, name="out")(shared(y, y)))

    check_planted(build, tmp_path, DTYPES[-1])


@pytest.mark.skipif("float64" not in DTYPES, reason="JAX computes in float32 here")
def test_the_width_that_scores_are_divided_by_is_rescaled_to_the_last_digit(tmp_path):
    """With dropout Keras computes the scores in float64, and divides by a root in float32."""
    with floats("float64"):
        model = block(layers.MultiHeadAttention(3, 4, value_dim=2, dropout=0.2, name="mha"))
        draw(model)
        zero(model.get_layer("mha").key_dense.kernel, 2, [0])
        small, _, _ = check_slim(model, tmp_path)
        x = np.random.default_rng(0).normal(size=(3, 5, 6))
        one, other = read(model(x)), read(small(x))
    assert small.get_layer("mha").key_dim == 3
    assert np.abs(one - other).max() <= 1e-12 * np.abs(one).max()


@pytest.mark.skipif(
    not hasattr(layers.MultiHeadAttention(1, 1), "_use_gate"), reason="this Keras has no gates"
)
@pytest.mark.parametrize(
    "attention",
    [
        lambda: layers.MultiHeadAttention(3, 4, use_gate=True, name="mha"),
        lambda: layers.GroupQueryAttention(4, 6, 3, use_gate=True, name="mha"),
    ],
)
def test_gates(attention, tmp_path):
    model, _ = check_planted(lambda: block(attention()), tmp_path, DTYPES[-1])
    gates = model.get_layer("mha")._gate_dense.kernel
    heads = next(g for g in gss.find_groups(model) if g.name == "mha:heads")
    assert any(piece.weight is gates for piece in heads.incoming)


def test_slices_by_hand():
    x = keras.Input((5, 6))
    y = layers.MultiHeadAttention(3, 4, value_dim=WIDTH, output_shape=7, name="mha")(x, x)
    heads, keys, values, outputs = gss.find_groups(keras.Model(x, layers.Dense(1, name="o")(y)))
    names = {
        id(layer.kernel): name
        for name, layer in {
            "query": model_part(y, "query"),
            "key": model_part(y, "key"),
            "value": model_part(y, "value"),
            "output": model_part(y, "output"),
        }.items()
    }

    def slices(pieces):
        return [(names.get(id(p.weight), "o"), p.axis) for p in pieces]

    assert [g.size for g in (heads, keys, values, outputs)] == [3, 4, WIDTH, 7]
    assert slices(heads.incoming) == [("query", 1), ("key", 1), ("value", 1)]
    assert slices(heads.outgoing) == [("output", 0)]
    assert slices(keys.incoming) == [("query", 2)]
    assert slices(keys.outgoing) == [("key", 2)]
    assert slices(values.incoming) == [("value", 2)]
    assert slices(values.outgoing) == [("output", 1)]
    assert slices(outputs.incoming) == [("output", 2)]
    assert slices(outputs.outgoing) == [("o", 0)]


def model_part(tensor, name):
    return getattr(tensor._keras_history.operation, f"_{name}_dense")


@pytest.mark.skipif(WIDTH == 4, reason="where keys are as wide as values, both have to go")
def test_a_key_that_is_the_same_everywhere_is_taken_away_by_softmax(tmp_path):
    """A key's bias adds the same to the scores of all places; a query's does not."""
    model = block(KINDS["MultiHeadAttention"]())
    draw(model)
    mha = model.get_layer("mha")
    zero(mha.query_dense.kernel, 2, [3])
    assert check_slim(model, tmp_path)[0].get_layer("mha").key_dim == 4
    zero(mha.query_dense.bias, 1, [3])
    assert check_slim(model, tmp_path)[0].get_layer("mha").key_dim == 3
    zero(mha.key_dense.kernel, 2, [1])
    small, _, _ = check_slim(model, tmp_path)
    assert small.get_layer("mha").key_dim == 2
    kept = [0, 2]  # the scores are divided by the root of a smaller width
    np.testing.assert_allclose(
        read(small.get_layer("mha").query_dense.kernel),
        read(mha.query_dense.kernel)[:, :, kept] * np.sqrt(2 / 4),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        read(small.get_layer("mha").key_dense.kernel), read(mha.key_dense.kernel)[:, :, kept]
    )


def test_widths_that_differ_between_heads_stay_for_the_one_that_needs_them(tmp_path):
    model = block(KINDS["MultiHeadAttention"]())
    draw(model)
    mha = model.get_layer("mha")
    kernel = read(mha.output_dense.kernel).copy()
    kernel[0, 2] = kernel[1, 2] = 0.0  # head 2 still hands on its number 2
    mha.output_dense.kernel.assign(kernel)
    assert check_slim(model, tmp_path)[0].get_layer("mha").value_dim == WIDTH
    zero(mha.output_dense.kernel, 0, [2])  # no longer
    small = check_slim(model, tmp_path)[0].get_layer("mha")
    assert (small.num_heads, small.value_dim) == (2, 4)


def test_an_input_that_only_a_dead_head_reads_goes_with_it(tmp_path):
    model = block(KINDS["MultiHeadAttention"]())
    x = keras.Input((5, 6))
    y = layers.Dense(8, name="in")(x)
    y = layers.MultiHeadAttention(3, 4, name="mha")(y, y)
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    draw(model)
    mha = model.get_layer("mha")
    zero(mha.output_dense.kernel, 0, [1])
    for dense in (mha.query_dense, mha.key_dense, mha.value_dense):
        kernel = read(dense.kernel).copy()
        kernel[3, [0, 2]] = 0.0
        dense.kernel.assign(kernel)
    _, left, _ = check_slim(model, tmp_path)
    assert left == {"in": 7, "mha:heads": 2, "mha:keys": 4, "mha:values": 4, "mha:outputs": 8}


def test_constants_fold_into_the_projections_and_none_through_them(tmp_path):
    """A constant input is folded; a constant value is not followed, for masks may show it."""
    x = keras.Input((5, 6))
    y = layers.Dense(8, "relu", name="in")(x)
    y = layers.MultiHeadAttention(3, 4, name="mha")(y, y)
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    draw(model)
    dense, mha = model.get_layer("in"), model.get_layer("mha")
    zero(dense.kernel, 1, [1, 2])
    dense.bias.assign([0.5, 0.7, 0.3, 0.2, 0.4, 0.1, 0.6, 0.2])
    zero(mha.value_dense.kernel, 2, [0])
    _, left, _ = check_slim(model, tmp_path)
    assert left == {"in": 6, "mha:heads": 3, "mha:keys": 4, "mha:values": 4, "mha:outputs": 8}
    zero(mha.key_dense.kernel, 2, [2])
    assert check_slim(model, tmp_path)[1]["mha:values"] == 4
    zero(mha.value_dense.bias, 1, [0])
    assert check_slim(model, tmp_path)[1]["mha:values"] == 3


@pytest.mark.parametrize("attention", [layers.MultiHeadAttention, layers.GroupQueryAttention])
def test_the_narrower_of_two_equal_widths_is_filled_up_with_what_nothing_reads(attention, tmp_path):
    """Keras on JAX has no values of another width than the keys', and one `head_dim` is both."""
    arguments = (4, 2, 2) if attention is layers.GroupQueryAttention else (2, 4)
    model = block(attention(*arguments, name="mha"))
    draw(model)
    mha = model.get_layer("mha")
    zero(mha._output_dense.kernel, 1, [0, 2, 3])
    zero(mha._key_dense.kernel, 2, [1])
    small, left, _ = check_slim(model, tmp_path)
    assert (left["mha:keys"], left["mha:values"]) == (3, 3)
    rows = read(small.get_layer("mha")._output_dense.kernel).any((0, 2))
    assert sorted(rows.tolist()) == [False, False, True]


@pytest.mark.parametrize("use_bias", [False, True])
def test_two_numbers_per_head_stay_where_there_are_biases(use_bias, tmp_path):
    """`ops.add` takes a bias (3, 1) for a vector, and lays it along any axis of length 3."""
    x = keras.Input((3, 6))  # as many places as heads
    y = layers.MultiHeadAttention(3, 4, use_bias=use_bias, name="mha")(x, x)
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    draw(model)
    mha = model.get_layer("mha")
    zero(mha.key_dense.kernel, 2, [0, 1, 3])
    zero(mha.output_dense.kernel, 1, [0, 1, 3])
    small = check_slim(model, tmp_path)[0].get_layer("mha")
    assert small.key_dim == small.value_dim == (2 if use_bias else 1)


def test_macs_are_those_of_the_projections():
    model = block(KINDS["MultiHeadAttention"]())
    (mha,) = (layer for layer in gss.count(model).layers if layer.name == "mha")
    assert mha.macs == 5 * 8 * 3 * (4 + 4 + WIDTH + WIDTH)


def test_barriers(tmp_path):
    x, mask = keras.Input((5, 6)), keras.Input((3, 5, 5), dtype="bool")
    y = layers.Dense(8, name="in")(x)

    def reasons(made, inputs=x):
        model = keras.Model(inputs, layers.Dense(2, name="out")(made))
        groups = gss.find_groups(model)
        assert not any(group.removable for group in groups)
        gss.slim(model)
        return " ".join(groups.skipped.values())

    per_head = layers.MultiHeadAttention(3, 4)(y, y, attention_mask=mask)
    assert "mask of its own for every head" in reasons(per_head, [x, mask])
    wide = layers.MultiHeadAttention(3, 4, output_shape=(2, 3))(y, y)
    assert "several widths" in reasons(wide)
    assert "Attention has no rule" in reasons(layers.Attention()([y, y]))
    assert "AdditiveAttention has no rule" in reasons(layers.AdditiveAttention()([y, y]))
