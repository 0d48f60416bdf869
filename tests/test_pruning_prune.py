import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss.pruning import FixedZeros


def dense_model(**options):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh", name="a", **options),
            layers.BatchNormalization(name="n"),
            layers.Dense(3, name="b"),
        ]
    )


def data(outputs=3):
    random = np.random.default_rng(0)
    return random.normal(size=(32, 4)), random.normal(size=(32, outputs))


def fit(model, **options):
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(*data(model.output_shape[-1]), batch_size=8, epochs=2, verbose=0, **options)


def zeros_of(model):
    return [np.asarray(value) == 0 for value in model.get_weights()]


def test_the_pruned_model_has_zeros_where_the_masks_say_and_else_the_same_values():
    model = dense_model()
    threshold = gss.StdThreshold(0.8)
    masks = threshold.masks(model, "element")
    pruned = gss.prune(model, threshold)
    assert type(pruned) is keras.Sequential
    assert not pruned.compiled
    assert [layer.name for layer in pruned.layers] == ["a", "n", "b"]
    for before, after in zip(model.weights, pruned.weights, strict=True):
        mask = masks.get(id(before), True)
        expected = np.where(mask, keras.ops.convert_to_numpy(before), 0.0)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(after), expected)
    assert 0 < np.count_nonzero(pruned.layers[0].get_weights()[0] == 0) < 24


def test_the_model_passed_in_is_not_changed():
    model = dense_model(kernel_constraint="non_neg")
    model.compile("sgd", "mse")
    before = model.get_config(), model.get_weights(), [v.constraint for v in model.weights]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    for granularity in ("element", "neuron"):
        gss.prune(model, gss.StdThreshold(0.3), granularity)
    assert model.get_config() == before[0]
    for old, new in zip(before[1], model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert [v.constraint for v in model.weights] == before[2]
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    assert model.compiled


@pytest.mark.parametrize("granularity", ["element", "neuron"])
def test_zeros_stay_in_training_and_the_rest_moves(granularity):
    pruned = gss.prune(dense_model(), gss.StdThreshold(0.9), granularity)
    last = pruned.layers[2].kernel
    before = keras.ops.convert_to_numpy(last)
    fit(pruned)
    after = keras.ops.convert_to_numpy(last)
    np.testing.assert_array_equal(after == 0, before == 0)
    assert 0 < np.count_nonzero(after == 0) < 18
    assert np.all(after[before != 0] != before[before != 0])


def test_a_dead_neuron_stays_dead_whole_and_slim_cuts_it():
    model = dense_model(bias_initializer="ones")
    weak = keras.ops.convert_to_numpy(model.layers[0].kernel)
    weak[:, [1, 4]] *= 1e-3
    model.layers[0].kernel.assign(weak)
    outgoing = keras.ops.convert_to_numpy(model.layers[2].kernel)
    outgoing[[1, 4]] *= 1e-3
    model.layers[2].kernel.assign(outgoing)
    pruned = gss.prune(model, gss.AbsoluteThreshold(0.01), granularity="neuron")
    fit(pruned)
    dead = [1, 4]
    first, norm, last = pruned.layers
    assert not np.any(keras.ops.convert_to_numpy(first.kernel)[:, dead])
    assert not np.any(keras.ops.convert_to_numpy(last.kernel)[dead])
    for variable in (first.bias, norm.gamma, norm.beta, norm.moving_mean):
        values = keras.ops.convert_to_numpy(variable)
        np.testing.assert_array_equal(np.flatnonzero(values == 0), dead)
    slim = gss.slim(pruned)
    assert [slim.layers[0].units, slim.layers[2].units] == [4, 3]
    x, _ = data()
    np.testing.assert_allclose(slim.predict(x, verbose=0), pruned.predict(x, verbose=0), atol=1e-5)


def test_zeros_survive_saving_and_further_training(tmp_path):
    pruned = gss.prune(dense_model(), gss.StdThreshold(0.9))
    expected = zeros_of(pruned)
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras")
    fit(loaded)
    kernel = loaded.layers[0].get_weights()[0]
    np.testing.assert_array_equal(kernel == 0, expected[0])


def test_the_users_constraints_and_regularizers_still_apply():
    model = dense_model(
        kernel_constraint=keras.constraints.MaxNorm(0.4, axis=0), kernel_regularizer="l2"
    )
    pruned = gss.prune(model, gss.StdThreshold(0.5))
    first = pruned.layers[0]
    assert isinstance(first.kernel.constraint, FixedZeros)
    assert isinstance(first.kernel.constraint.constraint, keras.constraints.MaxNorm)
    assert isinstance(first.kernel.regularizer, keras.regularizers.L2)
    zeros = zeros_of(first)[0]
    fit(pruned)
    kernel = keras.ops.convert_to_numpy(first.kernel)
    np.testing.assert_array_equal(kernel == 0, zeros)
    assert np.linalg.norm(kernel, axis=0).max() <= 0.4 + 1e-6


def test_a_constraint_set_on_the_variable_itself_still_applies():
    model = dense_model()
    model.layers[0].kernel.constraint = keras.constraints.NonNeg()
    pruned = gss.prune(model, gss.StdThreshold(0.5))
    fit(pruned)
    assert keras.ops.convert_to_numpy(pruned.layers[0].kernel).min() == 0.0


def test_cross_layer_penalties_are_dropped_so_that_finetuning_runs_without_them():
    model = dense_model(
        kernel_regularizer=gss.RegularizerSum([keras.regularizers.L2(0.1), gss.GSSStructure(1e-3)])
    )
    pruned = gss.prune(model, gss.StdThreshold(0.5))
    assert isinstance(pruned.layers[0].kernel.regularizer, keras.regularizers.L2)
    fit(pruned)


def test_pruning_again_adds_zeros_and_does_not_nest():
    model = dense_model(kernel_constraint="non_neg")
    once = gss.prune(model, gss.AbsoluteThreshold(0.1))
    twice = gss.prune(gss.prune(once, gss.AbsoluteThreshold(0.3)), gss.AbsoluteThreshold(0.0))
    constraint = twice.layers[0].kernel.constraint
    expected = np.abs(keras.ops.convert_to_numpy(model.layers[0].kernel)) >= 0.3
    np.testing.assert_array_equal(constraint.mask, expected)
    assert isinstance(constraint.constraint, keras.constraints.NonNeg)


def test_earlier_zeros_outlive_a_later_threshold_that_would_spare_them():
    once = gss.prune(dense_model(), gss.AbsoluteThreshold(0.3))
    zeros = zeros_of(once.layers[0])[0]
    fit(once)
    again = gss.prune(once, gss.AbsoluteThreshold(1e-9), granularity="neuron")
    fit(again)
    np.testing.assert_array_equal(zeros_of(again.layers[0])[0], zeros)


def test_shared_layers_and_nested_models_with_repeated_names():
    keras.utils.set_random_seed(0)
    inner_input = keras.Input((4,))
    inner = keras.Model(
        inner_input, layers.Dense(4, name="same", use_bias=False)(inner_input), name="inner"
    )
    shared = layers.Dense(4, name="same", use_bias=False)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(shared(shared(inputs))))
    expected = [np.where(np.abs(w) < 0.4, 0.0, w) for w in model.get_weights()]
    assert len(expected) == 2
    pruned = gss.prune(model, gss.AbsoluteThreshold(0.4))
    for kernel, values in zip(pruned.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(kernel, values)
    fit(pruned)
    for kernel, values in zip(pruned.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(kernel == 0, values == 0)


def test_all_kinds_of_kernels_keep_their_zeros():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 2)(inputs)
    x = layers.DepthwiseConv2D(2)(x)
    x = layers.SeparableConv2D(4, 2)(x)
    x = layers.Conv2DTranspose(3, 2)(x)
    x = layers.Reshape((4, 3))(x)
    model = keras.Model(inputs, layers.EinsumDense("abc,cd->abd", (None, 4))(x))
    pruned = gss.prune(model, gss.StdThreshold(0.7, biases=False))
    kernels = [w for w in pruned.weights if "kernel" in w.name]
    zeros = [keras.ops.convert_to_numpy(w) == 0 for w in kernels]
    assert len(kernels) == 6
    assert all(0 < z.mean() < 1 for z in zeros)
    pruned.compile("adam", "mse", jit_compile=False)
    random = np.random.default_rng(0)
    pruned.fit(random.normal(size=(8, 4, 4, 2)), random.normal(size=(8, 4, 4)), verbose=0)
    for kernel, expected in zip(kernels, zeros, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(kernel) == 0, expected)


def test_layers_left_empty_are_named_all_at_once():
    with pytest.raises(ValueError, match="nothing of 'a/kernel', 'b/kernel'") as refusal:
        gss.prune(dense_model(), gss.StdThreshold(50))
    assert "keep_strongest=True" in str(refusal.value)
    assert "Received: threshold=StdThreshold(ratio=50.0)" in str(refusal.value)
    with pytest.raises(ValueError, match="would leave nothing of"):
        gss.prune(dense_model(), gss.StdThreshold(50), granularity="neuron")


def test_a_kernel_that_was_zero_before_is_no_reason_to_refuse():
    model = dense_model()
    model.layers[2].kernel.assign(np.zeros((6, 3)))
    pruned = gss.prune(model, gss.AbsoluteThreshold(0.01))
    assert not np.any(pruned.layers[2].get_weights()[0])


class Masks:
    def __init__(self, masks):
        self._masks = masks

    def masks(self, model, granularity):
        return self._masks(model)


def test_any_object_with_masks_is_a_threshold_and_its_masks_are_checked():
    model = dense_model()
    kernel = model.layers[0].kernel
    mask = np.ones((4, 6), bool)
    mask[1, 2] = False
    pruned = gss.prune(model, Masks(lambda model: {id(kernel): mask}))
    assert np.argwhere(pruned.get_weights()[0] == 0).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"'a/kernel' a boolean array of shape \(4, 6\)"):
        gss.prune(model, Masks(lambda model: {id(kernel): mask.T}))
    with pytest.raises(ValueError, match="keys must be id"):
        gss.prune(model, Masks(lambda model: {"a/kernel": mask}))
    with pytest.raises(TypeError, match=r"`threshold` must have a method `masks"):
        gss.prune(model, 0.3)


class Plain(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], 2), name="table")

    def call(self, x):
        return keras.ops.matmul(x, self.table)


class Deaf(Plain):
    def __init__(self, table_constraint=None, **options):
        super().__init__(**options)
        self.table_constraint = table_constraint

    def get_config(self):
        constraint = keras.constraints.serialize(self.table_constraint)
        return {**super().get_config(), "table_constraint": constraint}


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Plain, "no constraint argument for it"), (Deaf, "does not hand its `table_constraint`")],
)
def test_zeros_that_could_not_be_kept_are_refused(kind, message):
    inputs = keras.Input((4,))
    with keras.saving.custom_object_scope({"Plain": Plain, "Deaf": Deaf}):
        layer = kind(name="custom")
        model = keras.Model(inputs, layer(inputs))
        mask = np.eye(4, 2, dtype=bool)
        with pytest.raises(ValueError, match=f"'custom/table' cannot keep zeros.*{message}"):
            gss.prune(model, Masks(lambda model: {id(layer.table): mask}))


def test_bad_models_and_arguments_are_refused_by_name():
    threshold = gss.StdThreshold(0.3)
    with pytest.raises(ValueError, match="`granularity` must be one of 'element', 'neuron'"):
        gss.prune(dense_model(), threshold, granularity="filter")
    with pytest.raises(ValueError, match="`prune` needs a built model"):
        gss.prune(keras.Sequential([layers.Dense(3)]), threshold)
    with pytest.raises(TypeError, match="`prune` expected a Keras"):
        gss.prune("model.keras", threshold)
    model = dense_model()
    model.layers[0].kernel.assign(np.full((4, 6), np.nan))
    with pytest.raises(ValueError, match=r"`prune` needs finite weights, and '.*a/kernel'"):
        gss.prune(model, threshold)
