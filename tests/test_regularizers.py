import keras
import numpy as np
import oracles
import pytest
from keras import layers, ops

import keras_gss as gss
from keras_gss.regularizers.neuron_sums import fold

PQ = [(2, 2), (1, 2), (2, 1), (1, 1)]
FACTOR = 0.25


def group(incoming, outgoing, name="fc"):
    """Returns the group of the neurons between two Dense kernels, and the kernels' variables."""
    into, out = keras.Variable(incoming), keras.Variable(outgoing)
    index = np.arange(into.shape[1])
    made = gss.WeightSlice(None, into, 1, index)
    read = gss.WeightSlice(None, out, 0, index)
    return gss.NeuronGroup(name, len(index), (made,), (read,), (), True, "", "neuron"), [into, out]


def number(x):
    return float(ops.convert_to_numpy(x))


def chain():
    """A chain with a zero neuron: two competing groups that share the kernel in the middle."""
    random = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, name="fc1"),
            layers.Dense(3, name="fc2"),
            layers.Dense(2, name="fc3"),
        ]
    )
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape))
    first, second = model.layers[0].kernel, model.layers[1].kernel
    first.assign(ops.convert_to_numpy(first) * np.array([1, 1, 0, 1, 1]))
    second.assign(ops.convert_to_numpy(second) * np.array([1, 1, 0, 1, 1])[:, None])
    return model


def convolutional():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, name="conv")(inputs)
    x = layers.Conv2DTranspose(2, 2, name="up")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(4, name="fc")(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def branched():
    inputs = keras.Input((3,))
    a, b = layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)
    c = layers.Dense(2, name="c")(inputs)
    x = layers.Concatenate()([layers.Add()([a, b]), c, a])
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(3, name="d")(x)))


def repeated():
    inputs = keras.Input((3,))
    again = layers.Dense(4, name="again")
    x = again(again(layers.Dense(4, name="first")(inputs)))
    return keras.Model(inputs, layers.Dense(2)(x))


MODELS = {each.__name__: each for each in (chain, convolutional, branched, repeated)}

PENALTIES = {
    "element": (lambda: gss.GSSElement(FACTOR), oracles.element, 2),
    "element root": (lambda: gss.GSSElement(FACTOR, squared=False), oracles.element, 1),
    "deep 121": (lambda: gss.DeepGSS121(FACTOR), oracles.deep_gss121, 1),
}
for p, q in PQ:
    PENALTIES[f"structure {p} {q}"] = (
        lambda p=p, q=q: gss.GSSStructure(FACTOR, p, q),
        lambda groups, values, p=p, q=q: oracles.structure(groups, values, p, q),
        p,
    )
    PENALTIES[f"structure {p} {q} root"] = (
        lambda p=p, q=q: gss.GSSStructure(FACTOR, p, q, squared=False),
        PENALTIES[f"structure {p} {q}"][1],
        1,
    )


def kernels(groups):
    """Returns the penalised variables, once each."""
    parts = [part for each in groups for part in (*each.incoming, *each.outgoing)]
    return list({id(part.weight): part.weight for part in parts}.values())


def oracle(terms, groups, variables, root, values):
    """Returns FACTOR * the sum of the terms, or its root, at float64 values of the variables."""
    by_id = {id(v): value for v, value in zip(variables, values, strict=True)}
    total = sum(terms(groups, by_id))
    return FACTOR * (np.sqrt(total) if root else total)


def values_of(variables):
    return [ops.convert_to_numpy(each).astype("float64") for each in variables]


def is_root(label):
    return label.endswith("root") and not label.startswith("structure 1")


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("label", PENALTIES)
def test_value_equals_the_oracle(label, model, inputs):
    build, terms, _ = PENALTIES[label]
    groups = gss.find_groups(MODELS[model](), inputs=inputs)
    variables = kernels(groups)
    expected = oracle(terms, groups, variables, is_root(label), values_of(variables))
    assert number(build().penalty(groups)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", ["chain", "repeated"])
@pytest.mark.parametrize("label", PENALTIES)
def test_gradient_equals_finite_differences(label, model):
    build, terms, _ = PENALTIES[label]
    groups = gss.find_groups(MODELS[model](), inputs=True)
    variables, regularizer = kernels(groups), build()
    found = oracles.gradients(lambda: regularizer.penalty(groups), variables)
    differences = oracles.finite_differences(
        lambda values: oracle(terms, groups, variables, is_root(label), values),
        values_of(variables),
    )
    for got, expected, variable in zip(found, differences, variables, strict=True):
        zero = ops.convert_to_numpy(variable) == 0
        np.testing.assert_allclose(
            np.where(zero, 0, got), np.where(zero, 0, expected), atol=1e-4 * abs(expected).max()
        )
        assert np.all(got[zero] == 0)


@pytest.mark.parametrize("label", PENALTIES)
def test_contract_of_every_cross_layer_penalty(label):
    build, _, degree = PENALTIES[label]
    regularizer, model = build(), chain()
    groups = gss.find_groups(model)
    variables = kernels(groups)
    before = [ops.convert_to_numpy(each) for each in variables]

    def penalty_at(scale):
        for variable, value in zip(variables, before, strict=True):
            variable.assign(scale * value)
        return number(regularizer.penalty(groups))

    value = penalty_at(1)
    assert np.isfinite(value)
    assert value > 0
    assert penalty_at(-1) == value
    assert penalty_at(3) == pytest.approx(3**degree * value, rel=1e-5)
    assert penalty_at(0) == 0
    gradients = oracles.gradients(lambda: regularizer.penalty(groups), variables)
    assert all(np.all(each == 0) for each in gradients)
    check_config(regularizer)


KERNEL_PENALTIES = {
    "121": (lambda: gss.GSS121(FACTOR, inner=(0, 1), middle=2), 1),
    "121 defaults": (lambda: gss.GSS121(FACTOR), 1),
    "212": (lambda: gss.GSS212(FACTOR, inner=(0, -2), middle=(-1,)), 1),
    "212 squared": (lambda: gss.GSS212(FACTOR, inner=(0, 1), squared=True, middle=(2,)), 2),
}


@pytest.mark.parametrize("label", KERNEL_PENALTIES)
def test_contract_of_every_penalty_on_one_kernel(label):
    build, degree = KERNEL_PENALTIES[label]
    regularizer = build()
    w = np.random.default_rng(1).normal(size=(3, 4, 5)).astype("float32")
    w[..., 2] = 0
    value = number(regularizer(w))
    assert np.isfinite(value)
    assert value > 0
    assert number(regularizer(-w)) == value
    assert number(regularizer(3 * w)) == pytest.approx(3**degree * value, rel=1e-5)
    assert number(regularizer(0 * w)) == 0
    for at in (w, 0 * w):
        variable = keras.Variable(at)
        (gradient,) = oracles.gradients(lambda v=variable: regularizer(v), [variable])
        assert np.all(np.isfinite(gradient))
        assert np.all(gradient[at == 0] == 0)
    check_config(regularizer)


def check_config(regularizer):
    """Checks that the config holds plain values and makes an equal regularizer again."""
    config = keras.saving.serialize_keras_object(regularizer)
    assert config["registered_name"] == f"keras_gss>{type(regularizer).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(regularizer)
    assert again.get_config() == regularizer.get_config()
    assert vars(again) == vars(regularizer)


def test_four_numbers_by_hand():
    groups = [group([[3.0, 0.0]], [[4.0], [-2.0]])[0]]

    def value(regularizer):
        return number(regularizer.penalty(groups))

    assert value(gss.GSSElement(2.0)) == 2 * (9 + 16 + 0 + 4)
    assert value(gss.GSSElement(2.0, squared=False)) == pytest.approx(2 * np.sqrt(29))
    assert value(gss.DeepGSS121(2.0)) == 2 * (5 + 2)
    assert value(gss.GSSStructure(2.0)) == 2 * 49
    assert value(gss.GSSStructure(2.0, squared=False)) == 2 * 7
    assert value(gss.GSSStructure(1.0, 1, 2)) == pytest.approx((7 ** (2 / 3) + 2 ** (2 / 3)) ** 1.5)
    assert value(gss.GSSStructure(1.0, 2, 1)) == pytest.approx((5 ** (2 / 3) + 2 ** (2 / 3)) ** 3)
    assert value(gss.GSSStructure(1.0, 1, 1)) == pytest.approx((7**0.5 + 2**0.5) ** 2)


def test_an_entry_in_both_slices_of_a_neuron_counts_once():
    recurrent = keras.Variable([[3.0, 1.0], [0.0, -2.0]])
    index = np.arange(2)
    slices = [gss.WeightSlice(None, recurrent, axis, index) for axis in (0, 1)]
    groups = [gss.NeuronGroup("rnn", 2, (slices[1],), (slices[0],), (), True, "", "neuron")]
    # in_0 = (0), out_0 = (3, 1), in_1 = (1), out_1 = (0, -2)
    assert number(gss.GSSElement(1.0).penalty(groups)) == 0 + 16 + 1 + 4
    expected = (np.sqrt(10) + np.sqrt(5)) ** 2
    assert number(gss.GSSStructure(1.0).penalty(groups)) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_computed_in_float32(dtype):
    made = keras.Variable(np.ones((600, 1)), dtype=dtype)
    piece = gss.WeightSlice(None, made, 1, np.arange(1))
    groups = [gss.NeuronGroup("fc", 1, (piece,), (), (), True, "", "neuron")]
    # 360,000 exceeds float16, and bfloat16 cannot tell 600 from 602.
    for regularizer in (gss.GSSElement(1.0), gss.GSSStructure(600.0)):
        found = regularizer.penalty(groups)
        assert ops.dtype(found) == "float32"
        assert number(found) == 360000


def test_scattered_positions_fold_in_a_compiled_training_step():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="made")(inputs)
    y = layers.Dense(2, name="between")(inputs)
    read = layers.Dense(1, name="read", use_bias=False)
    model = keras.Model(inputs, read(layers.Concatenate()([x, y, x])))
    gss.attach(model, gss.GSSElement(1.0))
    model.compile("sgd", "mse", jit_compile=True)
    before = [ops.convert_to_numpy(each).astype("float64") for each in kernels_of(model)]
    data = np.zeros((8, 4), "float32")
    loss = model.fit(data, np.zeros((8, 1)), batch_size=8, verbose=0).history["loss"][0]
    made, between, out = (np.abs(each) for each in before)
    owned = [out[[j, 5 + j]].sum() for j in range(3)] + [out[3].sum(), out[4].sum()]
    columns = [*made.sum(axis=0), *between.sum(axis=0)]
    assert loss == pytest.approx(np.square([*owned, *columns]).sum(), rel=1e-5)


def kernels_of(model):
    return [model.get_layer(name).kernel for name in ("made", "between", "read")]


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize(("p", "q"), PQ)
def test_selection_of_this_step_gives_the_closed_form(p, q, squared):
    regularizer = gss.GSSStructure(FACTOR, p, q, squared=squared, inputs=True)
    groups = gss.find_groups(chain(), inputs=True)
    variables = kernels(groups)

    def selected():
        return regularizer.selected_penalty(groups, regularizer.selection(groups))

    def closed():
        return regularizer.penalty(groups)

    assert number(selected()) == pytest.approx(number(closed()), rel=1e-6)
    both = [oracles.gradients(form, variables) for form in (selected, closed)]
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * abs(other).max())


@pytest.mark.parametrize(("p", "q"), PQ)
@pytest.mark.parametrize("squared", [True, False])
def test_a_held_penalty_has_its_value_then_and_the_gradient_of_the_weights_now(p, q, squared):
    regularizer = gss.GSSStructure(FACTOR, p, q, squared=squared, inputs=True)
    groups = gss.find_groups(chain(), inputs=True)
    kept, selection = regularizer.to_hold(groups), regularizer.selection(groups)
    before = number(regularizer.selected_penalty(groups, selection))
    variables = kernels(groups)
    for variable in variables:
        variable.assign(1.5 * ops.convert_to_numpy(variable))

    def held():
        return regularizer.held_penalty(groups, kept)

    def now():
        return regularizer.selected_penalty(groups, selection)

    assert number(held()) == pytest.approx(before, rel=1e-6) != number(now())
    both = [oracles.gradients(form, variables) for form in (held, now)]
    # the root of the sum, where that is the penalty, is taken of the sum then
    scale = 1 if squared or p == 1 else number(now()) / number(held())
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, scale * other, rtol=1e-5, atol=1e-6 * abs(other).max())


def test_held_selection_bounds_the_penalty_from_above():
    regularizer = gss.GSSStructure(1.0)
    groups = gss.find_groups(chain())
    held = regularizer.selection(groups)
    for seed in range(5):
        for variable in kernels(groups):
            noise = np.random.default_rng(seed).normal(scale=0.3, size=variable.shape)
            variable.assign(ops.convert_to_numpy(variable) * (1 + noise))
        assert number(regularizer.selected_penalty(groups, held)) >= number(
            regularizer.penalty(groups)
        )


def test_factor_may_be_replaced_by_a_number_or_a_variable():
    regularizer = gss.GSSElement(1.0)
    groups = [group([[3.0, 0.0]], [[4.0], [-2.0]])[0]]
    assert number(regularizer.penalty(groups, factor=0.5)) == 14.5
    assert number(regularizer.penalty(groups, factor=keras.Variable(0.5))) == 14.5
    assert number(regularizer.penalty(groups, factor=ops.convert_to_tensor(2.0))) == 58
    with pytest.raises(ValueError, match="`factor` must be a finite number >= 0"):
        regularizer.penalty(groups, factor=-1.0)


@pytest.mark.parametrize("label", PENALTIES)
def test_factor_zero_is_a_constant_zero(label):
    regularizer = PENALTIES[label][0]()
    groups = gss.find_groups(chain())
    # NaN weights would show any arithmetic on them.
    for variable in kernels(groups):
        variable.assign(np.full(variable.shape, np.nan))
    assert number(regularizer.penalty(groups, factor=0.0)) == 0
    assert number(regularizer.penalty([])) == 0
    for one in (gss.GSS121(0), gss.GSS212(0.0)):
        assert number(one(np.full((2, 2), np.nan))) == 0


def test_multipliers():
    groups = [group([[3.0]], [[4.0]], "a")[0], group([[1.0]], [[0.0]], "b")[0]]
    uniform, macs = gss.GSSStructure(1.0), gss.GSSStructure(1.0, weights="macs")
    chosen = gss.GSSStructure(1.0, weights={"b": np.float32(3)})
    assert uniform.multipliers(groups) == [1, 1]
    assert chosen.multipliers(groups) == [1, 3]
    assert macs.multipliers(groups, macs=[300.0, 100.0]) == [1.5, 0.5]
    assert number(uniform.penalty(groups)) == 26
    assert number(chosen.penalty(groups)) == 28
    assert number(macs.penalty(groups, multipliers=[1.5, 0.5])) == 38
    root = gss.GSSStructure(1.0, squared=False, weights={"b": 11})
    assert number(root.penalty(groups)) == 6
    assert gss.GSSElement(1.0).multipliers(groups) == [1, 1]
    check_config(chosen)
    check_config(macs)
    with pytest.raises(ValueError, match='weights="macs" needs `macs`'):
        macs.penalty(groups)
    with pytest.raises(ValueError, match=r"`weights` must be keyed by groups.*Received.*'c'"):
        gss.GSSStructure(1.0, weights={"c": 2}).penalty(groups)


@pytest.mark.parametrize(
    "cls", [gss.GSSElement, gss.GSSStructure, gss.DeepGSS121, gss.GSS121, gss.GSS212]
)
@pytest.mark.parametrize("factor", [-1e-9, float("nan"), float("inf"), True, "1e-6", None])
def test_wrong_factors_are_refused_by_name(cls, factor):
    with pytest.raises(
        ValueError, match="`factor` must be a finite number >= 0. Received: factor="
    ):
        cls(factor)


@pytest.mark.parametrize(
    "arguments",
    [
        {"p": 3},
        {"q": 0.5},
        {"squared": 1},
        {"inputs": "yes"},
        {"refresh_every": 0},
        {"weights": "flops"},
        {"weights": None},
        {"weights": {"fc1": 0}},
        {"weights": {"fc1": float("nan")}},
    ],
)
def test_wrong_options_are_refused_by_name(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}.*` must be .*Received: {name}"):
        gss.GSSStructure(1e-6, **arguments)


@pytest.mark.parametrize("cls", [gss.GSS121, gss.GSS212])
def test_wrong_axes_are_refused_by_name(cls):
    with pytest.raises(ValueError, match=r"`middle` must be free of the axes of inner=\(0,\)"):
        cls(1.0, inner=0, middle=(1, 0))
    with pytest.raises(ValueError, match="`inner` must be a tuple of axes without repetitions"):
        cls(1.0, inner=(0, 0))
    for factor in (0.0, 1.0):
        with pytest.raises(ValueError, match="`middle` must be axes from -2 to 1"):
            cls(factor, middle=2)(np.ones((2, 2)))
        with pytest.raises(ValueError, match="`middle` must be free of the axes"):
            cls(factor, inner=1, middle=-1)(np.ones((2, 2)))


def test_unbound_penalties_raise():
    with pytest.raises(RuntimeError, match="GSSElement is declared but not bound"):
        gss.GSSElement(1e-6)(np.ones((2, 2)))


def trained(regularizer, policy="float32"):
    """Returns a model trained for a few steps, with its training loss."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu", kernel_regularizer=regularizer, dtype=policy),
            layers.Dense(1, dtype=policy),
        ]
    )
    model.compile("adam", "mse")
    history = model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0, shuffle=False)
    return model, history.history["loss"][-1]


def test_factor_zero_trains_bit_identically():
    plain, _ = trained(None)
    for regularizer in (gss.GSS212(0.0, squared=True), gss.GSS121(0)):
        for one, other in zip(plain.weights, trained(regularizer)[0].weights, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_training_and_saving_with_a_penalty_on_one_kernel(policy, tmp_path):
    strong, plain = gss.GSS212(1.0, inner=0, middle=1, squared=True), trained(None, policy)
    model, loss = trained(strong, policy)
    assert np.isfinite(loss)
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    assert np.abs(kernel).sum() < np.abs(ops.convert_to_numpy(plain[0].layers[0].kernel)).sum()
    assert number(model.losses[0]) == pytest.approx(
        oracles.gss212(kernel, (0,), (1,), squared=True), rel=1e-6
    )
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[0].kernel_regularizer.get_config() == strong.get_config()
    assert number(again.losses[0]) == number(model.losses[0])


def test_zero_groups_stay_finite_in_a_compiled_training_step():
    # TensorFlow's own root hides 0 * inf when it runs uncompiled, XLA's does not.
    penalty = gss.GSS212(1.0, squared=True)
    zeros = layers.Dense(3, kernel_initializer="zeros", kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((2,)), zeros, layers.Dense(1)])
    gss.attach(model, gss.GSSStructure(1.0))
    model.layers[1].kernel.assign(np.zeros((3, 1)))
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)
    assert all(np.all(np.isfinite(ops.convert_to_numpy(each))) for each in model.weights)


@pytest.mark.parametrize(
    "index",
    [
        np.arange(4),
        np.tile(np.arange(4), 6),
        np.repeat(np.arange(4), 6),
        np.r_[-1, -1, np.tile(np.arange(4), 3), -1],
        np.r_[-1, np.arange(4), -1, np.arange(4)],
        np.array([3, 2, 1, 0, 3]),
        np.array([2, 2]),
        np.array([-1, -1, -1]),
    ],
)
def test_fold_sums_by_owner(index):
    vector = np.random.default_rng(5).normal(size=len(index)).astype("float32")
    expected = [vector[index == j].sum() for j in range(4)]
    found = ops.convert_to_numpy(fold(ops.convert_to_tensor(vector), index, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
