"""`slim` on examples small enough to work out by hand."""

import importlib
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss._keras import full_precision, run


def read(variable):
    return keras.ops.convert_to_numpy(variable)


def put(layer, *values):
    layer.set_weights([np.array(value, "float32") for value in values])


def mlp():
    """3 -> 3 -> 2 -> 1, relu; neuron 1 of 'a' emits relu(2) whatever comes in."""
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            layers.Dense(3, "relu", name="a"),
            layers.Dense(2, "relu", name="b"),
            layers.Dense(1, name="c"),
        ]
    )
    a, b, c = model.layers
    put(a, [[1.0, 0, 2], [0, 0, 0], [3, 0, 1]], [0.5, 2.0, 0.0])
    put(b, [[1.0, 2], [10, 20], [3, 4]], [0.25, 0.5])
    put(c, [[1.0], [1.0]], [0.0])
    return model


def test_a_constant_is_folded_into_the_bias_behind_it():
    small = gss.slim(mlp())
    a, b, _ = small.layers
    np.testing.assert_array_equal(read(a.kernel), [[1, 2], [0, 0], [3, 1]])
    np.testing.assert_array_equal(read(a.bias), [0.5, 0.0])
    np.testing.assert_array_equal(read(b.kernel), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(read(b.bias), [0.25 + 2 * 10, 0.5 + 2 * 20])


def test_what_dies_because_another_died_goes_too():
    model = mlp()
    put(model.layers[2], [[1.0], [0.0]], [0.0])  # nobody reads neuron 1 of 'b'
    b = model.layers[1]
    put(b, [[1.0, 2], [10, 20], [0, 4]], [0.25, 0.5])  # only it reads neuron 2 of 'a'
    small = gss.slim(model)
    assert [layer.units for layer in small.layers] == [1, 1, 1]
    np.testing.assert_array_equal(read(small.layers[1].bias), [20.25])


def test_a_layer_of_constants_keeps_one_neuron_that_nothing_reads():
    model = mlp()
    put(model.layers[0], np.zeros((3, 3)), [1.0, 2.0, 0.0])
    small, report = gss.slim(model, return_report=True)
    assert [layer.units for layer in small.layers] == [1, 1, 1]
    np.testing.assert_array_equal(read(small.layers[2].kernel), [[0.0]])
    np.testing.assert_array_equal(read(small.layers[2].bias), [21.25 + 42.5])
    assert report.max_difference == 0
    again = gss.slim(small)
    assert again.get_config() == small.get_config()
    for first, second in zip(small.weights, again.weights, strict=True):
        np.testing.assert_array_equal(read(first), read(second))


@pytest.mark.parametrize("inputs", ["keep", "narrow", "select"])
def test_unused_inputs(inputs):
    model = mlp()
    small, report = gss.slim(model, inputs=inputs, return_report=True)
    assert report.input_features == {"x": (3, 2)}
    assert small.input_shape == (None, 2 if inputs == "narrow" else 3)
    x = np.arange(6.0, dtype="float32").reshape(2, 3)
    y = read(small(x[:, [0, 2]] if inputs == "narrow" else x))
    np.testing.assert_allclose(y, read(model(x)), rtol=1e-6)
    assert gss.count(small).macs == {"keep": 12, "narrow": 10, "select": 10}[inputs]


def test_input_that_is_no_rectangle_is_refused_by_name():
    inputs = keras.Input((4, 4, 1), name="image")
    model = keras.Model(inputs, layers.Dense(2)(layers.Reshape((16,))(inputs)))
    kernel = np.ones((16, 2))
    kernel[5] = 0
    put(model.layers[-1], kernel, np.zeros(2))
    with pytest.raises(ValueError, match="'image' form no rectangle"):
        gss.slim(model, inputs="narrow")


@pytest.mark.parametrize(("inputs", "shape"), [("narrow", (None, 3)), ("select", (None, 2, 2, 1))])
def test_input_that_is_no_rectangle_is_narrowed_to_a_list(inputs, shape):
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(2)])
    put(model.layers[-1], [[1.0, 2], [0, 0], [3, 4], [5, 6]], np.zeros(2))
    small, report = gss.slim(model, inputs=inputs, return_report=True)
    assert small.input_shape == shape
    assert [flat.tolist() for flat in report.selected.values()] == [[0, 2, 3]]


def test_shared_layer_folds_only_what_all_its_calls_bring():
    left, right = keras.Input((2,)), keras.Input((2,))
    a, b = layers.Dense(2, name="a"), layers.Dense(2, name="b")
    shared = layers.Dense(1, name="shared")
    model = keras.Model([left, right], [shared(a(left)), shared(b(right))])
    dead = np.array([[0.0, 1.0], [0.0, 1.0]])
    put(shared, [[5.0], [1.0]], [0.0])
    put(a, dead, [3.0, 0.0])
    put(b, dead, [4.0, 0.0])
    assert gss.slim(model).get_layer("a").units == 2
    put(b, dead, [3.0, 0.0])
    small = gss.slim(model)
    assert small.get_layer("a").units == small.get_layer("b").units == 1
    np.testing.assert_array_equal(read(small.get_layer("shared").bias), [15.0])


@pytest.mark.parametrize(("sizes", "left"), [((4, 6), 2), ((4, 5), 3), ((5, 4), 3)])
def test_a_shared_layer_folds_only_what_no_call_pads(sizes, left):
    ends = [keras.Input((size, 2)) for size in sizes]
    first = layers.Conv1D(3, 1, name="first")
    shared = layers.Conv1D(2, 2, strides=2, padding="same")
    model = keras.Model(ends, [shared(first(end)) for end in ends])
    kill(first, 1, 0.5)
    assert gss.slim(model).get_layer("first").filters == left


def test_batch_normalisation_with_zero_scale_is_a_constant():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)]
    )
    _, norm, out = model.layers
    put(out, [[1.0], [2.0], [3.0]], [0.0])
    put(norm, [1.0, 0.0, 1.0], [0.0, 5.0, 0.0], np.zeros(3), np.ones(3))
    small = gss.slim(model)
    assert small.layers[0].units == 2
    assert small.layers[1].gamma.shape == (2,)
    np.testing.assert_array_equal(read(small.layers[2].bias), [10.0])


def test_bias_is_added_where_there_was_none():
    model = mlp()
    config = model.get_config()
    next(entry for entry in config["layers"] if entry["config"]["name"] == "b")["config"][
        "use_bias"
    ] = False
    bare = keras.Sequential.from_config(config)
    for layer, source in zip(bare.layers, model.layers, strict=True):
        layer.set_weights(source.get_weights()[: len(layer.weights)])
    small = gss.slim(bare)
    np.testing.assert_array_equal(read(small.layers[1].bias), [20.0, 40.0])


def test_slim_drops_masks_and_penalties_and_keeps_the_users_own():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(
                6,
                kernel_regularizer=gss.RegularizerSum(
                    [keras.regularizers.L2(1e-4), gss.GSSStructure(1e-6)]
                ),
                kernel_constraint="non_neg",
            ),
            layers.Dense(2, kernel_regularizer=gss.GSS212(1e-3)),
        ]
    )
    small = gss.slim(gss.prune(model, gss.StdThreshold(0.1)))
    assert "keras_gss" not in small.to_json()
    assert isinstance(small.layers[0].kernel_regularizer, keras.regularizers.L2)
    assert isinstance(small.layers[0].kernel_constraint, keras.constraints.NonNeg)
    assert small.layers[1].kernel_regularizer is None


@keras.saving.register_keras_serializable("test_slimming")
class MyPenalty(gss.CrossLayerRegularizer):
    def terms(self, groups):
        return [keras.ops.zeros(()) for _ in groups]


def with_regularizer(*own):
    both = gss.RegularizerSum([*own, gss.GSSStructure(1e-6)])
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, kernel_regularizer=both), layers.Dense(2)]
    )


def test_several_regularizers_of_the_users_become_one():
    l1, l2 = keras.regularizers.L1(0.01), keras.regularizers.L2(0.25)
    small = gss.slim(with_regularizer(l1, l2, keras.regularizers.L1L2(0.5, 0.5)))
    merged = small.layers[0].kernel_regularizer
    assert type(merged) is keras.regularizers.L1L2
    assert (merged.l1, merged.l2) == pytest.approx((0.51, 0.75))
    assert "keras_gss" not in small.to_json()
    with pytest.warns(UserWarning, match="keeps Orthogonal.* only"):
        small = gss.slim(with_regularizer(keras.regularizers.OrthogonalRegularizer(), l2))
    assert isinstance(small.layers[0].kernel_regularizer, keras.regularizers.OrthogonalRegularizer)


def test_penalties_of_ones_own_and_in_nested_layers_are_dropped_too():
    hidden = layers.Dense(6, kernel_regularizer=MyPenalty(1e-6))
    inner = layers.Dense(2, kernel_regularizer=gss.GSSStructure(1e-6))
    model = keras.Sequential([keras.Input((3, 4)), hidden, layers.TimeDistributed(inner)])
    small = gss.slim(model)
    assert small.layers[0].kernel_regularizer is None
    assert small.layers[1].layer.kernel_regularizer is None


def test_the_check_finds_a_wrong_cut(monkeypatch):
    monkeypatch.setattr(
        "keras_gss.graph.Liveness.folded", lambda self, edge: np.zeros(edge.outputs.shape)
    )
    with pytest.raises(RuntimeError, match="outputs differ"):
        gss.slim(mlp())


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (keras.Sequential([layers.Dense(2)]), ValueError, "needs a built model"),
        ("model.keras", TypeError, "expected a Keras 3"),
        (layers.Dense(2), TypeError, "expected a Keras 3"),
    ],
)
def test_bad_models_are_refused(model, error, words):
    for call in (gss.slim, gss.count, gss.find_groups):
        with pytest.raises(error, match=words):
            call(model)


def test_nan_weights_and_wrong_choices_are_refused_by_name():
    model = mlp()
    with pytest.raises(ValueError, match=r"`inputs`.*'cut'"):
        gss.slim(model, inputs="cut")
    model.layers[0].bias.assign([np.nan, 0.0, 0.0])
    with pytest.raises(ValueError, match="a/bias.* 1 NaN"):
        gss.slim(model)


def kill(layer, neuron, bias):
    """Leaves one neuron of a layer nothing but its bias."""
    kernel, biases = (read(w).copy() for w in (layer.kernel, layer.bias))
    kernel[..., neuron], biases[neuron] = 0, bias
    layer.set_weights([kernel, biases])


def same_after(model, small):
    x = np.random.default_rng(0).normal(size=(2, *(n or 5 for n in model.input_shape[1:])))
    with full_precision():
        expected, found = read(model(x)), read(small(x))
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    again = gss.slim(small)
    assert again.get_config() == small.get_config()
    for first, second in zip(small.weights, again.weights, strict=True):
        np.testing.assert_array_equal(read(first), read(second))


@pytest.mark.parametrize("axis", [1, 2])
def test_parts_joined_along_space_lose_a_channel_together(axis):
    x = keras.Input((4, 4, 2))
    a, b = layers.Conv2D(3, 1, name="a"), layers.Conv2D(3, 1, name="b")
    y = layers.Flatten()(layers.Concatenate(axis=axis)([a(x), b(x)]))
    model = keras.Model(x, layers.Dense(2)(y))
    kill(a, 0, 0.5)  # channel 0 of 'b' lives
    kill(a, 1, 0.5)
    kill(b, 1, 2.0)
    small = gss.slim(model)
    assert small.get_layer("a").filters == small.get_layer("b").filters == 2
    same_after(model, small)
    for dead in (0, 2):
        kill(a, dead, 0.5)
    kill(b, 2, 1.0)
    small = gss.slim(model)
    assert small.get_layer("a").filters == small.get_layer("b").filters == 1
    same_after(model, small)


def test_parts_joined_along_an_axis_of_unknown_length_lose_a_channel_together():
    x = keras.Input((None, 2))
    parts = [layers.Conv1D(3, 1, name=name) for name in ("a", "b")]
    y = layers.Concatenate(axis=1)([part(x) for part in parts])
    model = keras.Model(x, layers.Conv1D(2, 1)(y))
    for neuron, biases, left in ((0, (0.5, 0.4), 3), (1, (0.5, 0.5), 2)):
        for part, bias in zip(parts, biases, strict=True):
            kill(part, neuron, bias)
        small = gss.slim(model)
        assert [small.get_layer(name).filters for name in ("a", "b")] == [left, left]


def test_what_an_earlier_cut_left_of_a_reshape_is_cut_no_further():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(6),
            layers.Reshape((3, 2)),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    for neuron in (1, 2, 3, 4, 5):  # 0, 2 and 4 share a channel, as do 1, 3 and 5
        kill(model.layers[0], neuron, neuron)
    small = gss.slim(model)
    assert small.layers[0].units == 3
    assert small.layers[1].target_shape == (3, 1)
    same_after(model, small)


def test_a_reshape_to_one_channel_ties_what_it_splits():
    reshaped = [layers.Reshape((2, 1)), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2), *reshaped])
    kill(model.layers[0], 1, 1.0)
    assert gss.slim(model).layers[0].units == 2


def test_same_padding_of_an_unknown_size_may_pad():
    x = keras.Input((None, None, 2))
    first = layers.Conv2D(3, 1)
    model = keras.Model(x, layers.Conv2D(2, 2, strides=2, padding="same")(first(x)))
    kill(first, 1, 0.5)
    small, report = gss.slim(model, return_report=True)
    assert small.layers[1].filters == 3
    assert "border" in " ".join(report.kept.values())


def test_layers_and_models_shared_by_tensors_of_two_sizes_are_cut():
    inner_input = keras.Input((None, None, 3))
    conv = layers.Conv2D(4, 3, name="conv")
    pooled = layers.GlobalAveragePooling2D()(conv(inner_input))
    inner = keras.Model(inner_input, pooled, name="inner")
    x = keras.Input((8, 8, 3))
    first = layers.Conv2D(3, 1, name="first")
    far, near = first(x), first(layers.AveragePooling2D(2)(x))
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()([inner(far), inner(near)])))
    kill(conv, 1, 0.7)
    kill(first, 0, 0.5)
    small = gss.slim(model)
    assert small.get_layer("first").filters == 2
    assert small.get_layer("inner").get_layer("conv").filters == 3
    assert small.get_layer("inner").input_shape == (None, None, None, 2)
    same_after(model, small)


def test_an_input_of_integers_is_not_narrowed_with_the_others():
    ids, numbers = keras.Input((3,), dtype="int32"), keras.Input((4,))
    table = layers.Flatten()(layers.Embedding(5, 2)(ids))
    out = layers.Dense(1, name="out")
    model = keras.Model([ids, numbers], out(layers.Concatenate()([table, numbers])))
    kernel = np.ones((10, 1))
    kernel[7] = 0.0
    put(out, kernel, np.zeros(1))
    small, report = gss.slim(model, inputs="narrow", return_report=True)
    assert [tuple(x.shape) for x in small.inputs] == [(None, 3), (None, 3)]
    assert [each.tolist() for each in report.selected.values()] == [[0, 1, 2], [0, 2, 3]]


def test_flattened_images_narrow_to_the_pixels_used():
    inputs = keras.Input((3, 3, 1), name="image")
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)))
    kernel = np.arange(18.0).reshape(9, 2)
    kernel[[0, 4, 5]] = 0  # what is left is no rectangle
    put(model.layers[-1], kernel, np.ones(2))
    small = gss.slim(model, inputs="narrow")
    assert small.input_shape == (None, 6)
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype("float32")
    used = x.reshape(4, 9)[:, [1, 2, 3, 6, 7, 8]]
    np.testing.assert_allclose(read(small(used)), read(model(x)), rtol=1e-5)


def test_several_inputs_narrow_each_its_own_way():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    out = layers.Dense(1)
    model = keras.Model([left, right], out(layers.Concatenate()([left, right])))
    put(out, [[1.0], [0.0], [2.0], [3.0], [4.0]], [0.0])
    small, report = gss.slim(model, inputs="narrow", return_report=True)
    assert report.input_features == {"left": (3, 2), "right": (2, 2)}
    a, b = np.array([[1.0, 5, 2]]), np.array([[3.0, 4]])
    assert read(small([a[:, [0, 2]], b])).item() == read(model([a, b])).item() == 30


@pytest.mark.parametrize(
    "first",
    [
        layers.Rescaling([1.0, 2, 3], offset=[4.0, 5, 6]),
        layers.Rescaling(np.array([1.0, 2, 3]), offset=0.5),
        layers.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6]),
        layers.Normalization(mean=1.0, variance=4.0),
        layers.Normalization(),
    ],
)
def test_numbers_per_feature_go_with_their_feature(first):
    x = np.arange(12, dtype="float32").reshape(4, 3)
    first = type(first).from_config(first.get_config())
    model = keras.Sequential([keras.Input((3,)), first, layers.Dense(2)])
    if first.weights:
        first.adapt(x**2)
    put(model.layers[1], [[1.0, 2], [0, 0], [3, 4]], [0.0, 0])
    small = gss.slim(model, inputs="narrow")
    assert small.input_shape == (None, 2)
    np.testing.assert_allclose(read(small(x[:, [0, 2]])), read(model(x)), rtol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(small))
    assert again.layers[0].get_config() == small.layers[0].get_config()


class Offset(layers.Layer):
    """Adds a number that its config does not tell: whoever builds it anew loses it."""

    offset = 0.0

    def call(self, x):
        return x + self.offset


def test_state_that_rebuilding_loses_is_an_error():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), Offset(), layers.Dense(2)])
    assert gss.slim(model).count_params() == model.count_params()
    model.layers[1].offset = 5.0
    with pytest.raises(RuntimeError, match="differ from those"):
        gss.slim(model)


def test_a_constant_goes_through_its_layers_own_activation():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, activation="relu"), layers.Dense(1)]
    )
    model.layers[0].kernel.assign([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    model.layers[0].bias.assign([0.0, -0.7, 0.5])
    model.layers[1].kernel.assign([[1.0], [2.0], [4.0]])
    assert float(gss.slim(model).layers[1].bias[0]) == 2.0


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 only")
def test_narrowed_inputs_are_compared_in_float64_too(monkeypatch):
    module = sys.modules["keras_gss.slimming"]
    monkeypatch.setattr(module, "may_be_rounding", lambda model, difference: True)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    put(model.layers[0], [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]], [0.0, 0.0])
    assert gss.slim(model, inputs="narrow").input_shape == (None, 2)


def test_what_cannot_be_compiled_as_a_whole_is_compared_step_by_step():
    def bent(x):  # which way depends on a value: JAX cannot compile it
        return x if float(keras.ops.max(x)) > 100 else -x

    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "relu", name="a"),
            layers.Dense(2, name="b"),
            layers.Lambda(bent, output_shape=(2,)),
        ]
    )
    put(model.layers[0], np.ones((3, 4)), [0.0, 0, -9, 0])
    put(model.layers[1], [[1.0, 2], [3, 4], [5, 6], [0, 0]], [0.0, 0])
    small, report = gss.slim(model, return_report=True)
    assert small.layers[0].units == 3
    assert report.max_difference < 1e-6


def test_a_model_of_chance_is_cut_and_said_not_to_be_compared():
    model = mlp()
    noisy = layers.Lambda(lambda x: x + keras.random.normal((4, 1)), output_shape=(1,))
    model.add(noisy)
    with pytest.warns(UserWarning, match="gives two different outputs for the same input"):
        small, report = gss.slim(model, return_report=True)
    assert report.max_difference is None
    assert small.layers[0].units == 2


@pytest.mark.parametrize(("side", "samples"), [(8, 4), (200, 1)])
def test_a_network_of_large_inputs_is_compared_on_one_sample(monkeypatch, side, samples):
    model = keras.Sequential(
        [
            keras.Input((side, side, 3)),
            layers.Conv2D(2, 3, side // 4, name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="logits"),
        ]
    )
    put(model.get_layer("logits"), [[1.0, 2.0], [0.0, 0.0]], [0.0, 0.0])
    seen, slimming = [], importlib.import_module("keras_gss.slimming")
    lean = slimming._keras.predict_lean
    monkeypatch.setattr(
        slimming._keras, "predict_lean", lambda m, x: seen.append(x.shape[0]) or lean(m, x)
    )
    small, report = gss.slim(model, return_report=True)
    assert seen == [samples] * 2
    assert small.get_layer("conv").filters == 1
    assert report.max_difference < 1e-6


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="JAX's own arrays lie among NumPy's"
)
@pytest.mark.parametrize(
    "threshold", [gss.StdThreshold(1.0), gss.MacsBudget(0.5)], ids=["threshold", "budget"]
)
def test_cutting_takes_little_memory_beside_the_models(threshold):
    """Arrays of NumPy, in sizes of the weights; those of the models are TensorFlow's."""
    wide = [layers.Dense(1500, "relu"), layers.Dense(10)]
    model = keras.Sequential([keras.Input((1500,)), *wide])

    def peak(function, *arguments, **options):
        tracemalloc.start()
        found = function(*arguments, **options)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found, most / (4 * model.count_params())

    gss.slim(gss.prune(model, threshold, granularity="neuron"))  # what is loaded only once
    pruned, most = peak(gss.prune, model, threshold, granularity="neuron")
    assert most < 1.7
    small, most = peak(gss.slim, pruned)
    assert most < 0.75
    assert small.count_params() < 0.6 * model.count_params()


class Halved(layers.Layer):
    """Computes with values, which a graph has not; notes whether it was called eagerly."""

    def call(self, x):
        import tensorflow as tf

        self.eager = [*getattr(self, "eager", []), tf.executing_eagerly()]
        return keras.ops.convert_to_tensor(np.asarray(read(x)) / 2)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX compiles models whole")
@pytest.mark.parametrize(("large", "eager"), [(2**25, [True]), (0, [False, True])])
def test_layers_given_large_tensors_run_as_graphs_and_compute_the_same(monkeypatch, large, eager):
    halved = Halved()
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("silu")(x)
    x = layers.Add()([halved(x), x])
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    image = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
    expected = read(model(image))
    halved.eager = []
    monkeypatch.setattr(run, "_LARGE", large)
    np.testing.assert_allclose(read(run.predict_lean(model, image)), expected, 1e-5, 1e-6)
    assert halved.eager == eager
