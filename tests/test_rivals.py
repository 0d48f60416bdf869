"""The penalties of other authors: values, gradients, special cases; on a kernel, across layers."""

import keras
import numpy as np
import oracles
import pytest
from keras import layers, ops

import keras_gss as gss
from keras_gss._keras import registry

FACTOR = 0.25


def l2(groups):
    return np.array([np.linalg.norm(each) for each in groups])


def l1(groups):
    return np.array([np.abs(each).sum() for each in groups])


def smooth(x, m=0.3):
    x = np.abs(x)
    return np.where(x < m, -(x**4) / (8 * m**3) + 3 * x**2 / (4 * m) + 3 * m / 8, x)


def ratio(x):
    return np.abs(x).sum() / np.sqrt((x**2).sum())


def nothing(_):
    return 0.0


# build, the part about the weights of a kernel, the part about groups (a list of flat arrays)
RIVALS = {
    "L1": (lambda: gss.L1(FACTOR), lambda w: np.abs(w).sum(), nothing),
    "Hoyer": (lambda: gss.Hoyer(FACTOR), ratio, nothing),
    "HoyerSquare": (lambda: gss.HoyerSquare(FACTOR), lambda w: ratio(w) ** 2, nothing),
    "TransformedL1": (
        lambda: gss.TransformedL1(FACTOR, a=0.5),
        lambda w: (1.5 * np.abs(w) / (0.5 + np.abs(w))).sum(),
        nothing,
    ),
    "L1Trim": (
        lambda: gss.L1Trim(FACTOR, h=2),
        lambda w: np.sort(np.abs(w), axis=None)[:-2].sum(),
        nothing,
    ),
    "L1Trim share": (
        lambda: gss.L1Trim(FACTOR, h=0.4),
        lambda w: np.sort(np.abs(w), axis=None)[: w.size - int(0.4 * w.size)].sum(),
        nothing,
    ),
    "GroupLasso": (lambda: gss.GroupLasso(FACTOR), nothing, lambda g: l2(g).sum()),
    "GroupHoyerSquare": (
        lambda: gss.GroupHoyerSquare(FACTOR),
        nothing,
        lambda g: l2(g).sum() ** 2 / (l2(g) ** 2).sum(),
    ),
    "ExclusiveLasso": (lambda: gss.ExclusiveLasso(FACTOR), nothing, lambda g: (l1(g) ** 2).sum()),
    "CGES": (
        lambda: gss.CGES(FACTOR, mu=0.3),
        nothing,
        lambda g: 0.7 * l2(g).sum() + 0.15 * (l1(g) ** 2).sum(),
    ),
    "SparseGroupLasso": (
        lambda: gss.SparseGroupLasso(FACTOR, alpha=0.3),
        lambda w: 0.3 * np.abs(w).sum(),
        lambda g: 0.7 * l2(g).sum(),
    ),
    "GroupL1Trim": (
        lambda: gss.GroupL1Trim(FACTOR, h=1),
        nothing,
        lambda g: np.sort(l2(g))[:-1].sum(),
    ),
    "SHSQGL12": (
        lambda: gss.SHSQGL12(FACTOR, ratio=0.5, m=0.3),
        lambda w: ratio(smooth(w)) ** 2,
        lambda g: 0.5 * np.sqrt(smooth(l2(g))).sum(),
    ),
}
SHAPES = [(4, 5), (3, 3, 2, 4), (6,)]


def number(x):
    return float(ops.convert_to_numpy(x))


def kernel(shape, seed=1):
    """A kernel with single zeros and, if it has columns, a column of zeros."""
    w = np.random.default_rng(seed).normal(size=shape)
    w[np.abs(w) < 0.2] = 0
    if len(shape) > 1:
        w[..., 1] = 0
    return w.astype("float32")


def of_kernel(label, w):
    """The oracle of a kernel: rows and columns by plain loops."""
    _, weights, groups = RIVALS[label]
    value = weights(w)
    for axis in range(w.ndim)[-2:]:
        value += groups([np.take(w, j, axis=axis).ravel() for j in range(w.shape[axis])])
    return FACTOR * value


def of_model(label, groups, values):
    """The oracle across layers; `values` maps ids of variables to float64 arrays."""
    _, weights, each_group = RIVALS[label]
    neurons = [
        [np.concatenate(both) for both in oracles.neurons(group, values)] for group in groups
    ]
    return FACTOR * (sum(weights(w) for w in values.values()) + sum(map(each_group, neurons)))


def chain(widths=(4, 5, 3, 2)):
    model = keras.Sequential([keras.Input(widths[:1]), *[layers.Dense(n) for n in widths[1:]]])
    random = np.random.default_rng(0)
    for layer in model.layers:
        w = random.normal(size=layer.kernel.shape)
        w[0] = 0 if layer is model.layers[-1] else w[0]
        layer.kernel.assign(w)
    hidden = model.layers[-2].kernel
    hidden.assign(ops.convert_to_numpy(hidden) * (np.arange(hidden.shape[1]) > 0))
    return model


def repeated():
    inputs = keras.Input((3,))
    again = layers.Dense(4, name="again")
    x = again(again(layers.Dense(4, name="first")(inputs)))
    return keras.Model(inputs, layers.Dense(2)(x))


def kernels(groups):
    parts = [part for each in groups for part in (*each.incoming, *each.outgoing)]
    return list({id(part.weight): part.weight for part in parts}.values())


def check_gradients(found, expected, values):
    for got, wanted, value in zip(found, expected, values, strict=True):
        zero = value == 0
        assert np.all(got[zero] == 0)
        np.testing.assert_allclose(
            np.where(zero, 0, got), np.where(zero, 0, wanted), atol=1e-4 * abs(wanted).max()
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("label", RIVALS)
def test_value_of_a_kernel_equals_the_oracle(label, shape):
    w, penalty = kernel(shape), RIVALS[label][0]()
    expected = of_kernel(label, w.astype("float64"))
    assert number(penalty(w)) == pytest.approx(expected, rel=1e-6)
    assert number(penalty(-w)) == number(penalty(w))


@pytest.mark.parametrize("label", RIVALS)
def test_gradient_by_a_kernel_equals_finite_differences(label):
    w, penalty = kernel((4, 5)), RIVALS[label][0]()
    variable = keras.Variable(w)
    found = oracles.gradients(lambda: penalty(variable), [variable])
    expected = oracles.finite_differences(
        lambda values: of_kernel(label, values[0]), [w.astype("float64")]
    )
    check_gradients(found, expected, [w])


@pytest.mark.parametrize("scale", [0, 1e-30, 1e-12, 1e6])
@pytest.mark.parametrize("label", RIVALS)
def test_value_and_gradient_are_finite_at_any_scale(label, scale):
    penalty, variable = RIVALS[label][0](), keras.Variable(scale * kernel((4, 5)))
    assert np.isfinite(number(penalty(variable)))
    (gradient,) = oracles.gradients(lambda: penalty(variable), [variable])
    assert np.all(np.isfinite(gradient))
    if scale == 0:
        assert np.all(gradient == 0)


@pytest.mark.parametrize(("build", "inputs"), [(chain, True), (repeated, False)])
@pytest.mark.parametrize("label", RIVALS)
def test_value_across_layers_equals_the_oracle(label, build, inputs):
    groups = gss.find_groups(build(), inputs=inputs)
    values = {id(v): ops.convert_to_numpy(v).astype("float64") for v in kernels(groups)}
    across = gss.CrossLayer(RIVALS[label][0]())
    expected = of_model(label, groups, values)
    assert number(across.penalty(groups)) == pytest.approx(expected, rel=1e-6)
    each = gss.EachKernel(RIVALS[label][0]())
    expected = sum(of_kernel(label, value) for value in values.values())
    assert number(each.penalty(groups)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("label", RIVALS)
def test_gradient_across_layers_equals_finite_differences(label):
    groups = gss.find_groups(chain(), inputs=True)
    variables, across = kernels(groups), gss.CrossLayer(RIVALS[label][0]())
    values = [ops.convert_to_numpy(each).astype("float64") for each in variables]
    found = oracles.gradients(lambda: across.penalty(groups), variables)
    expected = oracles.finite_differences(
        lambda values: of_model(
            label, groups, {id(v): value for v, value in zip(variables, values, strict=True)}
        ),
        values,
    )
    check_gradients(found, expected, values)
    for variable in variables:
        variable.assign(np.zeros(variable.shape))
    for gradient in oracles.gradients(lambda: across.penalty(groups), variables):
        assert np.all(gradient == 0)


@pytest.mark.parametrize("label", RIVALS)
def test_configs_make_equal_penalties_again(label):
    penalty, w = RIVALS[label][0](), kernel((4, 5))
    for one in (penalty, gss.CrossLayer(penalty, inputs=True), gss.EachKernel(penalty)):
        config = keras.saving.serialize_keras_object(one)
        assert config["registered_name"] == f"keras_gss>{type(one).__name__}"
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is type(one)
        assert again.get_config() == one.get_config()
    again = keras.regularizers.get(keras.regularizers.serialize(penalty))
    assert vars(again) == vars(penalty)
    assert number(again(w)) == number(penalty(w))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("label", RIVALS)
def test_half_precision_weights_are_computed_in_float32(label, dtype):
    variable = keras.Variable(kernel((4, 5)), dtype=dtype)
    exact = ops.convert_to_numpy(ops.cast(variable, "float32")).astype("float64")
    found = RIVALS[label][0]()(variable)
    assert ops.dtype(found) == "float32"
    assert number(found) == pytest.approx(of_kernel(label, exact), rel=1e-6)


@pytest.mark.parametrize("label", RIVALS)
def test_factor_zero_is_a_constant_zero(label):
    penalty = RIVALS[label][0]()
    config = {**penalty.get_config(), "factor": 0}
    without, nan = type(penalty).from_config(config), np.full((2, 2), np.nan)
    assert number(without(nan)) == 0
    assert np.isnan(number(penalty(nan)))
    model = chain()
    groups = gss.find_groups(model)
    model.layers[0].kernel.assign(np.full((4, 5), np.nan))
    for one in (gss.CrossLayer(without), gss.EachKernel(without)):
        assert number(one.penalty(groups)) == 0


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("wrap", [gss.EachKernel, gss.CrossLayer])
def test_all_of_them_train_in_one_step_under_any_policy(wrap, policy):
    """One compiled step with a zero kernel: all penalties on the layers, one attached."""
    every = gss.RegularizerSum([build() for build, _, _ in RIVALS.values()])
    zeros = layers.Dense(3, dtype=policy, kernel_initializer="zeros", kernel_regularizer=every)
    model = keras.Sequential([keras.Input((4,)), zeros, layers.Dense(1, dtype=policy)])
    gss.attach(model, wrap(gss.SHSQGL12(0.1)))
    model.compile("sgd", "mse", jit_compile=True)
    history = model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert all(np.all(np.isfinite(ops.convert_to_numpy(each))) for each in model.weights)


def test_attached_penalties_count_every_kernel_once_and_are_saved(tmp_path):
    model = chain()
    w = [ops.convert_to_numpy(layer.kernel).astype("float64") for layer in model.layers]
    groups = gss.attach(model, gss.L1(0.5))
    expected = 0.5 * sum(np.abs(each).sum() for each in w)
    assert number(sum(model.losses)) == pytest.approx(expected, rel=1e-6)
    assert [group.size for group in groups] == [5, 3]
    model.save(tmp_path / "model.keras")
    gss.detach(model)
    assert sum(model.losses) == 0
    again = gss.load_model(tmp_path / "model.keras")
    gss.attach(again)
    assert number(sum(again.losses)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("file", ["model.keras", "model.h5"])
def test_files_of_keras_keep_them(file, tmp_path):
    every = [build() for build, _, _ in RIVALS.values()]
    model = keras.Sequential(
        [keras.Input((4,)), *[layers.Dense(4, kernel_regularizer=each) for each in every]]
    )
    model.save(tmp_path / file)
    again = gss.load_model(tmp_path / file)
    assert [type(layer.kernel_regularizer) for layer in again.layers] == [*map(type, every)]
    for found, expected in zip(again.losses, model.losses, strict=True):
        assert number(found) == number(expected)


def test_contradicting_penalties_are_named_as_one_writes_them():
    model = chain()
    gss.attach(model, gss.CrossLayer(gss.GroupLasso(1.0)))
    again = keras.models.clone_model(model)
    across = r"declares CrossLayer\(penalty=GroupLasso\(factor=1.0\), inputs=False\), and another"
    with pytest.raises(ValueError, match=across):
        gss.attach(again, gss.L1(1.0))


def test_any_regularizer_of_keras_can_be_attached():
    model = chain()
    gss.attach(model, keras.regularizers.L2(0.5))
    squares = sum(np.square(ops.convert_to_numpy(layer.kernel)).sum() for layer in model.layers)
    assert number(sum(model.losses)) == pytest.approx(0.5 * squares, rel=1e-6)


@pytest.mark.parametrize("penalty", [gss.L1(1e-4), gss.CrossLayer(gss.CGES(1e-4), inputs=True)])
def test_compress_takes_them(penalty):
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 4)).astype("float32")
    data = (x, (x[:, 0] > 0).astype("int32"))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "relu"), layers.Dense(2)])
    result = gss.compress(
        model,
        data,
        data,
        target=gss.MacsBudget(0.5),
        regularizer=penalty,
        epochs=1,
        finetune_epochs=1,
        batch_size=32,
        verbose=False,
    )
    before, after = result.report.live_macs
    assert after <= 0.5 * before


def test_group_lasso_is_the_root_form_of_gss_on_one_layer():
    groups = gss.find_groups(chain((4, 5, 2)))
    assert len(groups) == 1
    lasso = gss.CrossLayer(gss.GroupLasso(2.0))
    structure = gss.GSSStructure(2.0, squared=False)
    assert number(lasso.penalty(groups)) == pytest.approx(number(structure.penalty(groups)))


def test_exclusive_lasso_is_gss_with_subgroups_of_one_weight():
    w, lasso = kernel((4, 5)), gss.ExclusiveLasso(2.0)
    columns, rows = (gss.GSS212(2.0, (), middle, squared=True) for middle in (0, 1))
    assert number(lasso(w)) == pytest.approx(number(columns(w)) + number(rows(w)), rel=1e-6)


@pytest.mark.parametrize("place", ["kernel", "model"])
def test_special_cases_coincide(place):
    w, groups = kernel((4, 5)), gss.find_groups(chain())

    def value(penalty):
        on_kernel = place == "kernel"
        return number(penalty(w) if on_kernel else gss.CrossLayer(penalty).penalty(groups))

    lasso, exclusive = value(gss.GroupLasso(1.0)), value(gss.ExclusiveLasso(1.0))
    assert value(gss.CGES(1.0, mu=0)) == pytest.approx(lasso, rel=1e-6)
    assert value(gss.CGES(2.0, mu=1)) == pytest.approx(exclusive, rel=1e-6)
    assert value(gss.SparseGroupLasso(1.0, alpha=0)) == pytest.approx(lasso, rel=1e-6)
    assert value(gss.SparseGroupLasso(1.0, alpha=1)) == pytest.approx(value(gss.L1(1.0)), rel=1e-6)
    for h in (0, 0.0):
        assert value(gss.GroupL1Trim(1.0, h)) == pytest.approx(lasso, rel=1e-6)
        assert value(gss.L1Trim(1.0, h)) == pytest.approx(value(gss.L1(1.0)), rel=1e-6)
    for h in (1000, 1.0):
        assert value(gss.GroupL1Trim(1.0, h)) == value(gss.L1Trim(1.0, h)) == 0
    assert value(gss.TransformedL1(1.0, a=1e5)) == pytest.approx(value(gss.L1(1.0)), rel=1e-4)


def test_hoyer_measures_count_what_is_not_zero_at_any_scale():
    w = np.zeros((4, 5), "float32")
    w[:2, :3] = 1
    for scale in (1e-6, 1, 1e6):
        assert number(gss.HoyerSquare(1.0)(scale * w)) == pytest.approx(6, rel=1e-6)
        assert number(gss.Hoyer(1.0)(scale * w)) == pytest.approx(np.sqrt(6), rel=1e-6)
        assert number(gss.GroupHoyerSquare(1.0)(scale * w)) == pytest.approx(2 + 3, rel=1e-6)


def test_smoothing_vanishes_with_its_width():
    w = kernel((4, 5)) + 1
    groups = sum(np.sqrt(np.linalg.norm(w, axis=axis)).sum() for axis in (0, 1))
    expected = ratio(w) ** 2 + 3 * groups
    assert number(gss.SHSQGL12(1.0, ratio=3.0, m=1e-6)(w)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [False, True])
def test_one_step_leaves_the_largest_neurons_unshrunk(share):
    model = chain((4, 6, 2))
    groups = gss.find_groups(model)
    (group,), variables = groups, kernels(groups)
    penalty = gss.CrossLayer(gss.GroupL1Trim(1.0, h=0.34 if share else 2))

    def lengths():
        values = {id(v): ops.convert_to_numpy(v).astype("float64") for v in variables}
        return l2([np.concatenate(both) for both in oracles.neurons(group, values)])

    before = lengths()
    for variable, gradient in zip(
        variables, oracles.gradients(lambda: penalty.penalty(groups), variables), strict=True
    ):
        variable.assign(ops.convert_to_numpy(variable) - 0.01 * gradient)
    shrunk = before - lengths()
    free = np.argsort(before)[-2:]
    rest = np.setdiff1d(np.flatnonzero(before), free)
    assert np.all(shrunk[free] == 0)
    np.testing.assert_allclose(shrunk[rest], 0.01, rtol=1e-4)


def test_one_step_leaves_the_largest_weights_unshrunk():
    variable, penalty = keras.Variable(kernel((4, 5))), gss.L1Trim(1.0, h=3)
    (gradient,) = oracles.gradients(lambda: penalty(variable), [variable])
    w = ops.convert_to_numpy(variable)
    free = np.unravel_index(np.argsort(np.abs(w), axis=None)[-3:], w.shape)
    expected = np.sign(w)
    expected[free] = 0
    np.testing.assert_array_equal(gradient, expected)


def test_the_share_of_exclusive_sparsity_grows_with_depth():
    model = chain()
    groups = gss.find_groups(model)
    by_hand = [
        number(gss.CrossLayer(gss.CGES(1.0, mu)).penalty([group]))
        for mu, group in zip((0.5, 1.0), groups, strict=True)
    ]
    found = number(gss.CrossLayer(gss.CGES(1.0)).penalty(groups))
    assert found == pytest.approx(sum(by_hand), rel=1e-6)
    by_hand = [
        number(gss.CGES(1.0, (k + 1) / 3)(layer.kernel)) for k, layer in enumerate(model.layers)
    ]
    found = number(gss.EachKernel(gss.CGES(1.0)).penalty(groups))
    assert found == pytest.approx(sum(by_hand), rel=1e-6)
    with pytest.raises(ValueError, match="`mu` must be a number from 0 to 1 unless the penalty is"):
        gss.CGES(1.0)(np.ones((2, 2)))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        *[(lambda cls=cls: cls(-1.0), "factor") for cls in (gss.L1, gss.GroupLasso, gss.CGES)],
        *[(lambda h=h: gss.L1Trim(1.0, h), "h") for h in (-1, 1.5, True, "2", float("nan"), None)],
        (lambda: gss.GroupL1Trim(1.0, -0.1), "h"),
        (lambda: gss.TransformedL1(1.0, a=0), "a"),
        (lambda: gss.CGES(1.0, mu=1.1), "mu"),
        (lambda: gss.SparseGroupLasso(1.0, alpha=-0.1), "alpha"),
        (lambda: gss.SHSQGL12(1.0, ratio=-1), "ratio"),
        (lambda: gss.SHSQGL12(1.0, m=0), "m"),
        (lambda: gss.CrossLayer(keras.regularizers.L1(0.1)), "penalty"),
        (lambda: gss.CrossLayer(gss.L1(1.0), inputs=1), "inputs"),
        (lambda: gss.EachKernel(gss.GSSStructure(1.0)), "regularizer"),
        (lambda: gss.EachKernel(0.1), "regularizer"),
    ],
)
def test_wrong_arguments_are_refused_by_name(build, name):
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
        build()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf_keras needs TensorFlow")
@pytest.mark.parametrize("file", ["model.keras", "model.h5"])
def test_tf_keras_trains_saves_and_loads_them(file, tmp_path):
    import tf_keras

    registry.register_with(tf_keras)
    # HDF5 names classes alone, and L1 is one of tf_keras.
    every = [
        build() for label, (build, _, _) in RIVALS.items() if (file, label) != ("model.h5", "L1")
    ]
    model = tf_keras.Sequential([tf_keras.Input((4,))])
    for penalty in every:
        model.add(tf_keras.layers.Dense(4, kernel_regularizer=penalty))
    model.add(tf_keras.layers.Dense(4, kernel_regularizer=tf_keras.regularizers.L1(0.1)))
    model.compile("sgd", "mse")
    model.save(tmp_path / file)
    again = gss.load_model(tmp_path / file)
    found = [type(layer.kernel_regularizer) for layer in again.layers]
    assert found == [*map(type, every), tf_keras.regularizers.L1]
    np.testing.assert_allclose(again.losses, model.losses, rtol=1e-6)
    gss.attach(again, gss.CrossLayer(gss.GroupL1Trim(0.1, h=1)))
    again.compile("sgd", "mse")
    history = again.fit(np.ones((2, 4)), np.ones((2, 4)), verbose=0).history
    assert np.isfinite(history["loss"][0])
