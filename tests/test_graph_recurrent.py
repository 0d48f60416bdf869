"""Recurrent layers and the wrappers around layers: gates, states, both directions, every step."""

import keras
import numpy as np
import pytest
from keras import layers
from planted import DTYPES, check_planted, check_slim, draw, plant, zero

import keras_gss as gss

KINDS = {
    "SimpleRNN": layers.SimpleRNN,
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "GRU, reset before": lambda units, **options: layers.GRU(units, reset_after=False, **options),
}
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3, "GRU, reset before": 3}


def head(x):
    return layers.Dense(2, name="out")(x)


def stacked(kind):
    x = keras.Input((5, 3))
    y = layers.Dense(4, "relu", name="in")(x)
    y = kind(4, return_sequences=True, dropout=0.2, recurrent_dropout=0.1, name="first")(y)
    return keras.Model(x, head(kind(6, go_backwards=True, name="second")(y)))


def encoder_decoder(kind):
    """The last states of one layer are the first of another, sequence and states being read."""
    x, z = keras.Input((5, 3)), keras.Input((4, 2))
    _, *states = kind(4, return_state=True, name="encoder")(x)
    y = kind(4, return_sequences=True, use_bias=False, name="decoder")(z, initial_state=states)
    return keras.Model([x, z], [head(y), layers.Dense(1, name="state")(states[-1])])


def bidirectional(kind, mode):
    x = keras.Input((5, 3))
    y = layers.Dense(4, "relu", name="in")(x)
    y = layers.Bidirectional(kind(4, return_sequences=True), merge_mode=mode, name="both")(y)
    y = layers.Concatenate()(y) if mode is None else y
    return keras.Model(x, head(y))


@pytest.mark.parametrize("name", KINDS)
def test_stacked_layers_lose_exactly_the_unread_units(name, tmp_path):
    _, small = check_planted(lambda: stacked(KINDS[name]), tmp_path, DTYPES[-1])
    units = small.get_layer("first").units
    assert 0 < units < 4
    shape = tuple(small.get_layer("first").cell.recurrent_kernel.shape)
    assert shape == (units, GATES[name] * units)


@pytest.mark.parametrize("name", KINDS)
def test_states_tie_the_layers_they_pass_between(name, tmp_path):
    model, small = check_planted(lambda: encoder_decoder(KINDS[name]), tmp_path, DTYPES[-1])
    (group,) = gss.find_groups(model)
    assert [piece.layer.name for piece in group.incoming] == ["encoder"] * 2 + ["decoder"] * 2
    assert small.get_layer("encoder").units == small.get_layer("decoder").units < 4


@pytest.mark.parametrize(
    ("name", "mode"),
    [("LSTM", "concat"), ("GRU", "sum"), ("SimpleRNN", "mul"), ("GRU", "ave"), ("LSTM", None)],
)
def test_bidirectional(name, mode, tmp_path):
    model, small = check_planted(lambda: bidirectional(KINDS[name], mode), tmp_path, DTYPES[-1])
    (group,) = (g for g in gss.find_groups(model) if g.name == "both")
    assert len(group.incoming) == 4
    units = [
        getattr(small.get_layer("both"), f"{way}_layer").units for way in ("forward", "backward")
    ]
    assert 0 < units[0] == units[1] < 4


def test_bidirectional_with_states_and_a_backward_layer_of_its_own(tmp_path):
    def build():
        x = keras.Input((5, 3))
        backward = layers.LSTM(4, go_backwards=True, return_state=True, name="b")
        both = layers.Bidirectional(
            layers.LSTM(4, return_state=True, name="f"), backward_layer=backward, name="both"
        )
        y, *states = both(x)
        y = layers.Bidirectional(layers.LSTM(2), name="next")(
            layers.RepeatVector(3)(y), initial_state=[layers.Dense(2)(s) for s in states]
        )
        return keras.Model(x, head(y))

    _, small = check_planted(build, tmp_path, DTYPES[-1])
    both = small.get_layer("both")
    assert both.forward_layer.units == both.backward_layer.units < 4


def test_a_unit_stays_for_one_that_stays_for_another():
    model = keras.Sequential([keras.Input((5, 3)), layers.SimpleRNN(4), layers.Dense(1)])
    recurrent, dense = model.layers
    kernel, _, bias = recurrent.get_weights()
    reads = np.zeros((4, 4))
    reads[1, 0], reads[2, 1] = 0.5, -0.5  # unit 0 reads 1, which reads 2, and none reads 3
    recurrent.set_weights([kernel, reads, bias])
    dense.kernel.assign([[1.0], [0.0], [0.0], [0.0]])
    assert gss.slim(model).layers[0].units == 3


def test_gates_of_a_unit_by_hand():
    model = keras.Sequential([keras.Input((5, 3)), layers.GRU(2, name="gru"), layers.Dense(1)])
    (group,) = gss.find_groups(model)
    slices = [(p.weight.name, p.axis, p.index.tolist()) for p in group.incoming]
    assert slices == [
        ("kernel", 1, [0, 1, 0, 1, 0, 1]),
        ("recurrent_kernel", 1, [0, 1, 0, 1, 0, 1]),
    ]
    slices = [(p.layer.name, p.weight.name, p.axis, p.index.tolist()) for p in group.outgoing]
    assert slices[0] == ("gru", "recurrent_kernel", 0, [0, 1])
    assert slices[1][1:] == ("kernel", 0, [0, 1])
    (bias,) = group.companions
    assert (bias.axis, bias.index.tolist()) == (1, [0, 1, 0, 1, 0, 1])
    assert tuple(bias.weight.shape) == (2, 6)


def test_the_penalty_counts_a_unit_that_reads_itself_once():
    """|| in_j ||^2 + || out_j ||^2 of one SimpleRNN unit: 1 + 4 into it, 9 + 16 out, w_jj = 4."""
    model = keras.Sequential([keras.Input((2, 1)), layers.SimpleRNN(1), layers.Dense(1)])
    rnn, dense = model.layers
    rnn.set_weights([np.array([[2.0]]), np.array([[4.0]]), np.array([7.0])])
    dense.set_weights([np.array([[3.0]]), np.array([5.0])])
    penalty = gss.GSSStructure(1.0, squared=True)
    assert float(penalty.penalty(gss.find_groups(model))) == pytest.approx(4 + 16 + 9, rel=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_a_constant_input_folds_into_the_biases_of_all_gates(name, tmp_path):
    model = stacked(KINDS[name])
    draw(model)
    dense = model.get_layer("in")
    zero(dense.kernel, 1, [1, 2])  # both emit relu(bias) at every step
    dense.bias.assign([0.1, 0.7, 0.3, 0.2])
    small, left, _ = check_slim(model, tmp_path)
    assert left == {"in": 2, "first": 4, "second": 6}
    assert small.get_layer("first").cell.bias.shape == model.get_layer("first").cell.bias.shape


def test_a_constant_input_gives_a_layer_without_bias_one(tmp_path):
    x = keras.Input((5, 3))
    y = layers.Dense(4, "relu", name="in")(x)
    y = layers.GRU(3, use_bias=False, name="gru")(y)
    model = keras.Model(x, head(y))
    draw(model)
    zero(model.get_layer("in").kernel, 1, [0])
    model.get_layer("in").bias.assign([0.7, 0.1, 0.1, 0.1])
    small, left, _ = check_slim(model, tmp_path)
    assert left["in"] == 3
    bias = keras.ops.convert_to_numpy(small.get_layer("gru").cell.bias)
    kernel = keras.ops.convert_to_numpy(model.get_layer("gru").cell.kernel)
    np.testing.assert_allclose(bias, [0.7 * kernel[0], np.zeros(9)], rtol=1e-6)


def test_a_constant_stays_where_a_wrapped_layer_has_no_bias(tmp_path):
    x = keras.Input((5, 3))
    y = layers.Dense(4, "relu", name="in")(x)
    y = layers.Bidirectional(layers.GRU(3, use_bias=False), name="both")(y)
    model = keras.Model(x, head(y))
    draw(model)
    zero(model.get_layer("in").kernel, 1, [0])
    model.get_layer("in").bias.assign([0.7, 0.1, 0.1, 0.1])
    _, left, kept = check_slim(model, tmp_path)
    assert left["in"] == 4
    assert "no bias" in kept["both"]


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_a_unit_without_incoming_weights_is_no_constant(name, tmp_path):
    """Its biases drive its state from step to step; without them as well it stays zero."""
    model = stacked(KINDS[name])
    draw(model)
    cell = model.get_layer("first").cell
    columns = np.arange(GATES[name]) * 4 + 1
    zero(cell.kernel, 1, columns)
    zero(cell.recurrent_kernel, 1, columns)
    assert check_slim(model, tmp_path)[1]["first"] == 4
    zero(cell.bias, -1, columns)
    assert check_slim(model, tmp_path)[1]["first"] == 3


def test_silent_units_that_only_reach_each_other_go_together(tmp_path):
    model = stacked(layers.SimpleRNN)
    draw(model)
    cell = model.get_layer("first").cell
    for weight in (cell.kernel, cell.bias):
        zero(weight, -1, [1, 2])
    recurrent = keras.ops.convert_to_numpy(cell.recurrent_kernel).copy()
    recurrent[np.ix_([0, 3], [1, 2])] = 0.0
    cell.recurrent_kernel.assign(recurrent)
    assert check_slim(model, tmp_path)[1]["first"] == 2
    recurrent[0, 1] = 0.5  # one of them hears something, and the other hears it
    cell.recurrent_kernel.assign(recurrent)
    assert check_slim(model, tmp_path)[1]["first"] == 4


def test_a_silent_unit_speaks_if_its_first_state_does(tmp_path):
    x, state = keras.Input((5, 3)), keras.Input((4,))
    y = layers.SimpleRNN(4, name="rnn")(x, initial_state=layers.Dense(4, name="start")(state))
    model = keras.Model([x, state], head(y))
    draw(model)
    cell = model.get_layer("rnn").cell
    for weight in (cell.kernel, cell.recurrent_kernel, cell.bias):
        zero(weight, -1, [1])
    assert check_slim(model, tmp_path)[1] == {"start": 4}
    zero(model.get_layer("start").kernel, 1, [1])
    model.get_layer("start").bias.assign([0.5] * 4)
    assert check_slim(model, tmp_path)[1] == {"start": 4}
    zero(model.get_layer("start").bias, 0, [1])
    assert check_slim(model, tmp_path)[1] == {"start": 3}


def test_masked_steps_stay_masked(tmp_path):
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(7, 6, mask_zero=True, name="table")(x)
    y = layers.LSTM(5, return_sequences=True, name="lstm")(y)
    y = layers.Bidirectional(layers.GRU(4), name="both")(y)
    model = keras.Model(x, head(y))
    draw(model)
    alive = plant(model, seed=3)
    ids = np.array([[1, 2, 0, 0, 0], [3, 0, 4, 5, 6], [0, 0, 0, 0, 0]])
    _, left, _ = check_slim(model, tmp_path, inputs=ids)
    assert left == alive


TIME = {
    "Dense": lambda: layers.Dense(4, "relu"),
    "BatchNormalization": layers.BatchNormalization,
    "EinsumDense": lambda: layers.EinsumDense("...x,xy->...y", 4, bias_axes="y"),
}


@pytest.mark.parametrize("name", TIME)
def test_time_distributed(name, tmp_path):
    def build():
        x = keras.Input((5, 3))
        y = layers.TimeDistributed(layers.Dense(6, "relu"), name="in")(x)
        y = layers.TimeDistributed(TIME[name](), name="again")(y)
        return keras.Model(x, layers.TimeDistributed(layers.Dense(2), name="out")(y))

    _, small = check_planted(build, tmp_path, DTYPES[-1])
    assert small.get_layer("in").layer.units < 6


def test_time_distributed_images(tmp_path):
    def build():
        x = keras.Input((3, 6, 6, 2))
        y = layers.TimeDistributed(layers.Conv2D(5, 3, activation="relu"), name="conv")(x)
        y = layers.TimeDistributed(layers.MaxPooling2D())(y)
        y = layers.TimeDistributed(layers.Flatten())(y)
        return keras.Model(x, head(layers.LSTM(3, name="lstm")(y)))

    model, small = check_planted(build, tmp_path, "float32")
    assert small.get_layer("conv").layer.filters < 5
    assert gss.count(model).layers[0].macs == 3 * 16 * 9 * 2 * 5


@pytest.mark.parametrize("name", KINDS)
def test_macs_per_step(name):
    model = keras.Sequential([keras.Input((5, 3)), KINDS[name](4)])
    assert gss.count(model).macs == 5 * GATES[name] * 4 * (3 + 4)
    free = keras.Sequential([keras.Input((None, 3)), KINDS[name](4, name="rnn")])
    assert gss.count(free).uncounted == {"rnn": "its spatial size is not known"}


@pytest.mark.parametrize(
    ("name", "wrap"), [("LSTM", lambda layer: layer), ("GRU", layers.Bidirectional)]
)
def test_pruned_units_are_zeroed_whole_stay_zero_and_go(name, wrap, tmp_path):
    x = keras.Input((5, 3))
    y = wrap(KINDS[name](4, return_sequences=True, name="rnn"))(x)
    model = keras.Model(x, head(y))
    draw(model)
    for group in gss.find_groups(model):  # unit 2 is the weakest by far
        for piece in (*group.incoming, *group.outgoing):
            scale = np.where(piece.index == 2, 1e-3, 1.0)
            shape = [-1 if axis == piece.axis else 1 for axis in range(len(piece.weight.shape))]
            piece.weight.assign(piece.weight * scale.reshape(shape))
    pruned = gss.prune(model, gss.AbsoluteThreshold(0.05), granularity="neuron")
    pruned.compile("adam", "mse")
    pruned.fit(np.ones((4, 5, 3)), np.ones((4, 5, 2)), epochs=2, verbose=0)
    _, left, _ = check_slim(pruned, tmp_path)
    assert set(left.values()) == {3}


def test_a_bound_penalty_is_saved_with_wrapped_and_recurrent_layers(tmp_path):
    x = keras.Input((5, 3))
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(x)
    y = layers.MultiHeadAttention(2, 3, name="mha")(y, y)
    model = keras.Model(x, head(layers.GRU(3, name="gru")(y)))
    groups = gss.attach(model, gss.GSSStructure(1e-3))
    before = float(sum(model.losses))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [g.name for g in gss.attach(loaded)] == [g.name for g in groups]
    assert float(sum(loaded.losses)) == pytest.approx(before, rel=1e-5)
    gss.detach(model)
    assert model.losses == []


BARRIERS = {
    "widths that differ": (
        lambda: layers.Bidirectional(
            layers.GRU(4), backward_layer=layers.GRU(3, go_backwards=True), merge_mode=None
        ),
        "different widths",
    ),
    "stateful": (lambda: layers.LSTM(4, stateful=True), "stateful"),
    "RNN of a cell": (lambda: layers.RNN(layers.LSTMCell(4)), "has no rule"),
    "StackedRNNCells": (
        lambda: layers.RNN(layers.StackedRNNCells([layers.GRUCell(4), layers.GRUCell(3)])),
        "has no rule",
    ),
    "Bidirectional of an RNN": (
        lambda: layers.Bidirectional(layers.RNN(layers.GRUCell(4))),
        "wraps 'forward_",
    ),
    "TimeDistributed model": (
        lambda: layers.TimeDistributed(keras.Sequential([layers.Dense(4)])),
        "wraps 'sequential",
    ),
    "Masking": (lambda: layers.Masking(), "has no rule"),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_what_has_no_rule_is_left_whole_and_named(name, tmp_path):
    make, words = BARRIERS[name]
    x = keras.Input((5, 3), batch_size=3 if name == "stateful" else None)
    y = layers.Dense(4, "relu", name="in")(x)
    model = keras.Model(x, make()(y))
    draw(model)
    zero(model.get_layer("in").kernel, 1, [1])
    groups = gss.find_groups(model)
    assert any(words in reason for reason in groups.skipped.values())
    assert "in" in groups.skipped
    assert gss.slim(model, check=name != "stateful").get_layer("in").units == 4


def test_an_activation_that_couples_units_keeps_them(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.SimpleRNN(4, activation="softmax", name="rnn"),
            layers.Dense(2),
        ]
    )
    draw(model)
    (group,) = gss.find_groups(model)
    assert not group.removable and "softmax" in group.reason
