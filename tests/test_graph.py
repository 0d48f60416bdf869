"""Groups of hand-made graphs: who makes which neuron, who reads it."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss


def slices(pieces):
    return [(p.layer.name, p.axis, p.index.tolist()) for p in pieces]


def test_chain():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, name="a"), layers.Dense(1, name="b")]
    )
    (group,) = gss.find_groups(model)
    assert (group.name, group.size, group.removable, group.kind) == ("a", 3, True, "neuron")
    assert slices(group.incoming) == [("a", 1, [0, 1, 2])]
    assert slices(group.outgoing) == [("b", 0, [0, 1, 2])]
    assert slices(group.companions) == [("a", 0, [0, 1, 2])]
    source, _ = gss.find_groups(model, inputs=True)
    assert (source.kind, source.removable, source.incoming) == ("input", False, ())
    assert repr(group) == "<NeuronGroup a: 3 neurons, made by a, read by b>"
    assert repr(group.incoming[0]).endswith("kernel, axis 1>")
    assert slices(source.outgoing) == [("a", 0, [0, 1])]
    assert len({source, *source.outgoing, *group.incoming}) == 3  # each is itself alone


def test_a_flattened_channel_owns_all_its_rows():
    model = keras.Sequential(
        [
            keras.Input((3, 1, 1)),
            layers.Conv2D(2, 1, name="c"),
            layers.Flatten(),
            layers.Dense(1, name="d"),
        ]
    )
    (group,) = gss.find_groups(model)
    assert slices(group.outgoing) == [("d", 0, [0, 1, 0, 1, 0, 1])]


def test_channels_first_flatten_orders_rows_alike():
    model = keras.Sequential(
        [
            keras.Input((2, 3)),
            layers.Conv1D(2, 1, data_format="channels_first", name="c"),
            layers.Flatten(data_format="channels_first"),
            layers.Dense(1, name="d"),
        ]
    )
    (group,) = gss.find_groups(model)
    assert slices(group.outgoing) == [("d", 0, [0, 1, 0, 1, 0, 1])]


def test_inputs_of_a_million_numbers_have_a_unit_per_channel():
    small, large = ((rows, 2) for rows in (2**19, 2**19 + 1))
    for shape, size in ((small, 2**20), (large, 2)):
        flat = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(1)])
        assert [group.size for group in gss.find_groups(flat, inputs=True)] == [size]


def test_residual_addition_is_one_group_and_concatenation_two():
    x = keras.Input((2,))
    a, b = layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(x)
    added = keras.Model(x, layers.Dense(1, name="out")(a + b))
    (group,) = gss.find_groups(added)
    assert [p.layer.name for p in group.incoming] == ["a", "b"]
    joined = keras.Model(x, layers.Dense(1, name="out")(layers.Concatenate()([a, b])))
    first, second = gss.find_groups(joined)
    assert slices(first.outgoing) == [("out", 0, [0, 1, -1, -1])]
    assert slices(second.outgoing) == [("out", 0, [-1, -1, 0, 1])]


def test_shared_layer_counts_its_slices_once_and_ties_its_inputs():
    left, right = keras.Input((2,)), keras.Input((2,))
    shared = layers.Dense(3, name="shared")
    a, b = layers.Dense(2, name="a")(left), layers.Dense(2, name="b")(right)
    out = layers.Dense(1, name="out")(layers.Concatenate()([shared(a), shared(b)]))
    tied, made = gss.find_groups(keras.Model([left, right], out))
    assert sorted(p.layer.name for p in tied.incoming) == ["a", "b"]
    assert slices(tied.outgoing) == [("shared", 0, [0, 1])]
    assert slices(made.incoming) == [("shared", 1, [0, 1, 2])]
    assert slices(made.outgoing) == [("out", 0, [0, 1, 2, 0, 1, 2])]


def test_nested_models_give_paths():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="d")], name="inner")
    model = keras.Sequential([keras.Input((2,)), inner, layers.Dense(1, name="d")])
    (group,) = gss.find_groups(model)
    assert group.name == "inner/d"


def test_gate_of_one_channel_stays_whole():
    x = keras.Input((4, 4, 2))
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="gate")(x)
    y = layers.Conv2D(3, 1, name="y")(x)
    model = keras.Model(x, layers.Dense(1)(layers.Flatten()(layers.Multiply()([y, gate]))))
    by_name = {g.name: g for g in gss.find_groups(model)}
    assert by_name["y"].removable
    assert "broadcast" in by_name["gate"].reason


def test_output_and_its_ties_are_no_groups():
    x = keras.Input((2,))
    a = layers.Dense(2, name="a")(x)
    model = keras.Model(x, layers.Add()([a, layers.Dense(2, name="b")(a)]))
    groups = gss.find_groups(model)
    assert len(groups) == 0
    assert groups.skipped == {
        "a": "Dense is the model's output",
        "b": "Dense is the model's output",
    }


def test_summary_names_groups_and_what_is_left_whole():
    x = keras.Input((4,))
    y = layers.LayerNormalization(name="norm")(layers.Dense(3, name="a")(x))
    text = gss.find_groups(keras.Model(x, layers.Dense(1, name="b")(y))).summary()
    assert "stays: feeds 'norm' (LayerNormalization), which normalises over the channels" in text
    assert "norm: LayerNormalization normalises over the channels together, so that" in text


def test_summary_tells_what_a_neuron_costs():
    x = keras.Input((4, 4, 2))
    y = layers.BatchNormalization()(layers.Conv2D(3, 3, name="a")(x))
    y = layers.Dense(5, name="b")(layers.Flatten()(y))
    groups = gss.find_groups(keras.Model(x, y))
    # 18 weights and a bias, four numbers of the normalisation, four rows of five
    assert groups[0].parameters == 18 + 1 + 4 + 4 * 5
    assert groups[0].macs == 18 * 4 + 4 * 5
    head, line, row, *_ = groups.summary().splitlines()
    assert row.split()[:4] == ["a", "3", "43", "92"]
    assert line == "-" * len(head)


@pytest.mark.parametrize("places", [0, 1, 4])
def test_the_slope_of_a_single_neuron_is_its_own(places):
    x = keras.Input((places, 2) if places else (2,))
    slope = layers.PReLU(shared_axes=[1] if places else None, name="slope")
    y = layers.Flatten()(slope(layers.Dense(1, name="a")(x)))
    (group,) = gss.find_groups(keras.Model(x, layers.Dense(3)(y)))
    assert [piece.layer.name for piece in group.companions] == ["a", "slope"]


def test_summary_shortens_long_lists_of_layers():
    y = x = keras.Input((4,))
    for number in range(5):
        z = layers.Dense(4, name=f"d{number}")(y)
        y = z if number == 0 else layers.Add()([y, z])
    text = gss.find_groups(keras.Model(x, layers.Dense(2)(y))).summary()
    assert "d0, d1, 3 more" in text


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (layers.Lambda(lambda x: x * 2.0, name="odd"), "has no rule: write it with `keras.ops`"),
        (type("Own", (keras.Model,), {"call": lambda self, x: x})(name="odd"), "functional model"),
        (type("Twice", (layers.Dense,), {})(3, name="odd"), "`gss.register_rule`"),
    ],
)
def test_reasons_say_what_to_do(kind, reason):
    x = keras.Input((4,))
    y = kind(layers.Dense(3, name="a")(x))
    skipped = gss.find_groups(keras.Model(x, layers.Dense(1)(y))).skipped
    assert reason in skipped["odd"] and reason in skipped["a"]


def test_a_layer_is_whole_whose_own_activation_couples_its_channels():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(1)(layers.Dense(3, "softmax", name="a")(x)))
    (group,) = gss.find_groups(model)
    assert group.reason.startswith("is made by 'a', which applies the activation 'softmax'")


def test_a_weight_that_two_layers_hold_is_left_whole():
    x = keras.Input((3,))
    a, b = layers.Dense(3, name="a"), layers.Dense(3, name="b")
    y = layers.Dense(1, name="c")(b(a(x)))
    b._tracker.unlock()
    b._kernel = a._kernel
    b._trainable_variables[0] = a._trainable_variables[0]
    groups = gss.find_groups(keras.Model(x, y))
    assert all("shares the weight" in group.reason for group in groups)


def test_find_groups_changes_nothing():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(1)])
    before = model.to_json(), [len(layer._inbound_nodes) for layer in model.layers]
    gss.find_groups(model)
    gss.count(model)
    gss.slim(model)
    assert before == (model.to_json(), [len(layer._inbound_nodes) for layer in model.layers])


def test_register_rule_refuses_what_is_no_layer_class():
    with pytest.raises(TypeError, match="layer classes"):
        gss.register_rule(layers.Dense(2))


def test_units_tie_transitively_and_fix_for_the_first_reason():
    from keras_gss.graph.units import Units

    units = Units()
    a, b, c = units.fresh(3), units.fresh(3), units.fresh(3)
    units.tie(b, c, "")
    units.tie(a, b, "")
    np.testing.assert_array_equal(units.roots(c), a)
    units.fix(c[1:2], "first")
    units.fix(a[1:2], "second")
    mask, reasons = units.fixed()
    assert mask[a].tolist() == [False, True, False]
    assert reasons[a[1]] == "first"


@pytest.mark.parametrize("seed", range(100))
def test_units_tie_as_a_list_of_components_says(seed):
    from keras_gss.graph.units import Units

    random = np.random.default_rng(seed)
    count = int(random.integers(2, 14))
    units, components = Units(), list(range(count + 1))
    units.fresh(count)
    for _ in range(random.integers(1, 6)):
        one, other = random.integers(1, count + 1, (2, random.integers(1, 6)))
        other = np.sort(other) if random.random() < 0.5 else other
        units.tie(one, other, "")
        for a, b in zip(one, other, strict=True):
            ends = {components[a], components[b]}
            components = [min(ends) if each in ends else each for each in components]
    assert units.roots(np.arange(count + 1)).tolist() == components


def test_units_tied_to_what_is_fixed_are_fixed_on_either_side():
    from keras_gss.graph.units import FIXED, Units

    units = Units()
    a, b = units.fresh(2), units.fresh(2)
    units.tie(np.array([FIXED, a[1]]), a, "left")
    units.tie(b, np.array([b[0], FIXED]), "right")
    mask, reasons = units.fixed()
    assert mask[a].tolist() == [True, False] and mask[b].tolist() == [False, True]
    assert (reasons[a[0]], reasons[b[1]]) == ("left", "right")
