"""tf_keras models: the same groups, penalties, masks and cuts as in Keras 3, in tf_keras' own `fit`."""

import itertools
import os
import random
import subprocess
import sys

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf_keras runs on TensorFlow only", allow_module_level=True)

import tensorflow as tf
import tf_keras
from random_models import random_case

import keras_gss as gss
from keras_gss import zoo

layers = tf_keras.layers
PENALTIES = [
    gss.GSSStructure(1e-3, inputs=True),
    gss.GSSStructure(1e-3, p=1, q=2),
    gss.GSSElement(1e-4),
    gss.DeepGSS121(1e-3),
]


def chain(*regularizers, widths=(4, 5, 3, 2), **compiled):
    """A chain of Dense layers named d0, d1, ..."""
    tf_keras.utils.set_random_seed(1)
    regularizers = regularizers or (None,) * (len(widths) - 1)
    model = tf_keras.Sequential([layers.Input((widths[0],))])
    for k, (width, regularizer) in enumerate(zip(widths[1:], regularizers, strict=True)):
        model.add(layers.Dense(width, kernel_regularizer=regularizer, name=f"d{k}"))
    model.compile(tf_keras.optimizers.SGD(0.1), "mse", **compiled)
    return model


def data(rows=8, wide=4, out=2):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(rows, n)).astype("float32") for n in (wide, out))


def structure(model):
    """The (2, 2) penalty of a chain, without factor."""
    kernels = [layer.kernel.numpy().astype("float64") for layer in model.layers]
    pairs = itertools.pairwise(kernels)
    return sum(np.sqrt((a**2).sum(0) + (b**2).sum(1)).sum() ** 2 for a, b in pairs)


def groups_as_values(groups):
    slices = [
        [(s.layer.name, s.axis, s.index.tolist()) for s in (*g.incoming, *g.outgoing)]
        for g in groups
    ]
    facts = [(g.name, g.size, g.removable, g.kind) for g in groups]
    return facts, slices


@pytest.fixture(scope="module", params=["lenet-300-100", "lenet-5"])
def pair(request):
    """A model of Keras 3 and the same in tf_keras."""
    model = zoo.build(request.param)
    return model, gss.to_tf_keras(model)


def test_groups_equal_those_of_keras_3(pair):
    first, second = (gss.find_groups(model, inputs=True) for model in pair)
    assert groups_as_values(first) == groups_as_values(second)
    assert first.skipped == second.skipped
    counts = [gss.count(model) for model in pair]
    assert counts[0].summary() == counts[1].summary()


@pytest.mark.parametrize("penalty", PENALTIES, ids=["2,2", "1,2", "element", "deep"])
def test_penalties_and_gradients_equal_those_of_keras_3(pair, penalty):
    found = []
    for model in pair:
        gss.attach(model, penalty)
        kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
        with tf.GradientTape() as tape:
            value = tf.add_n(model.losses)
        values = [kernel.value if hasattr(kernel, "path") else kernel for kernel in kernels]
        found.append((float(value), tape.gradient(value, values)))
        gss.detach(model)
        assert not model.losses
    (value, gradients), (other_value, other_gradients) = found
    assert other_value == pytest.approx(value, rel=1e-6)
    for one, other in zip(gradients, other_gradients, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6 * np.abs(one).max())


@pytest.mark.parametrize("granularity", ["element", "neuron"])
def test_masks_slim_structure_and_outputs_equal_those_of_keras_3(pair, granularity):
    threshold = gss.MacsBudget(0.3) if granularity == "neuron" else gss.StdThreshold(1.5)
    pruned = [gss.prune(model, threshold, granularity) for model in pair]
    small, reports = zip(*[gss.slim(m, return_report=True) for m in pruned], strict=True)
    assert gss.count(pruned[0]).summary() == gss.count(pruned[1]).summary()
    assert reports[0].cut == reports[1].cut
    for one, other in zip(small[0].weights, small[1].weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    x = np.random.default_rng(0).random((4, 28, 28, 1), dtype=np.float32)
    outputs = [m(x, training=False).numpy() for m in small]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5 * np.abs(outputs[0]).max(), rtol=0)
    assert type(small[1]) is tf_keras.Sequential
    assert reports[1].max_difference <= 1e-5


def test_random_models_are_grouped_and_cut_as_in_keras_3():
    converted = 0
    for seed in range(40):
        case = random_case(random.Random(seed), seed=seed, dtype="float32")
        try:
            model = gss.to_tf_keras(case.model)
        except TypeError as error:
            assert "`to_tf_keras`" in str(error)
            continue
        converted += 1
        pairs = (case.model, model)
        first, second = (groups_as_values(gss.find_groups(m, inputs=True)) for m in pairs)
        assert first == second, f"seed {seed}"
        (_, first), (small, second) = (gss.slim(m, return_report=True) for m in pairs)
        assert first.cut == second.cut, f"seed {seed}"
        assert first.input_features == second.input_features, f"seed {seed}"
        if second.max_difference is not None:
            assert second.max_difference <= 1e-5, f"seed {seed}"
        again = gss.slim(small)
        assert again.get_config() == small.get_config(), f"seed {seed}"
        for one, other in zip(small.weights, again.weights, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert converted >= 25


def graph_of_functions():
    """A model written with TensorFlow functions, a nested model and a shared layer."""
    tf_keras.utils.set_random_seed(2)
    image = layers.Input((8, 8, 2), name="image")
    x = layers.Conv2D(6, 3, name="conv")(image)
    x = tf.nn.relu(layers.BatchNormalization(name="norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x) * 2.0
    x = tf.concat([x + y, layers.Conv2D(4, 1, activation=tf.nn.relu, name="point")(x)], axis=-1)
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    inner = tf_keras.Sequential([layers.Dense(5, "tanh", name="inner")], name="nested")
    shared = layers.Dense(5, "swish", name="shared")
    x = shared(shared(inner(x)))
    return tf_keras.Model(image, [layers.Dense(3, name="out")(x), layers.Dense(1, name="aux")(x)])


def silence(model, seed=0):
    """Zeroes what leaves random neurons; returns how many neurons of each group stay."""
    rng = np.random.default_rng(seed)
    widths = {}
    for group in gss.find_groups(model):
        if not group.removable:
            continue
        dead = rng.random(group.size) < 0.5
        dead[0] = False
        for part in group.outgoing:
            shape = [1] * len(part.weight.shape)
            shape[part.axis] = -1
            gone = np.append(dead, False)[part.index].reshape(shape)
            part.weight.assign(np.where(gone, 0, part.weight.numpy()))
        widths[group.name] = int((~dead).sum())
    return widths


def test_tensorflow_functions_nested_and_shared_layers_are_followed():
    model = graph_of_functions()
    sizes = {g.name: (g.size, g.removable) for g in gss.find_groups(model)}
    assert sizes == {
        "conv": (6, True),
        "point": (4, True),
        "nested/inner": (5, True),
    }
    before = [w.numpy() for w in model.weights]
    widths = silence(model)
    small, report = gss.slim(model, return_report=True)
    assert {name: after for name, (_, after) in report.cut.items()} == widths
    assert report.max_difference <= 1e-5
    assert type(small).__module__.startswith("tf_keras.")
    assert [w.shape for w in model.weights] == [w.shape for w in before]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: tf.nn.softmax(x), "is an operation without a rule|has no rule"),
        (lambda x: tf.reshape(x, (-1, 2, 3)), "has no rule"),
        (lambda x: layers.Lambda(lambda y: y)(x), "has no rule"),
        (lambda x: layers.LayerNormalization()(x), ""),
    ],
)
def test_what_has_no_rule_is_left_whole_and_named(function, reason):
    inputs = layers.Input((4,))
    x = layers.Flatten()(function(layers.Dense(6, name="hidden")(inputs)))
    model = tf_keras.Model(inputs, layers.Dense(2)(x))
    groups = gss.find_groups(model)
    assert not any(group.removable for group in groups)
    assert "hidden" in groups.skipped
    assert gss.slim(model).layers[1].units == 6


class Scale(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight("scale", (shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


def test_a_rule_for_a_layer_of_ones_own():
    model = tf_keras.Sequential(
        [layers.Input((4,)), layers.Dense(6, name="a"), Scale(), layers.Dense(2)]
    )
    assert not gss.find_groups(model)[0].removable

    @gss.register_rule(Scale)
    def scale(call):
        labels, _ = call.along(call.x, axis=-1)
        call.declare("scale", axis=0, labels=labels)
        return call.like(value=float("nan"))

    widths = silence(model)
    small = gss.slim(model)
    assert small.layers[0].units == widths["a"] < 6
    assert type(small.layers[1]) is Scale


def test_inputs_are_narrowed_or_selected():
    model = chain()
    kernel = model.layers[0].kernel
    kernel.assign(kernel * np.array([[1.0], [0.0], [1.0], [0.0]], "float32"))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = model(x).numpy()
    narrow, select = (gss.slim(model, inputs=how) for how in ("narrow", "select"))
    assert narrow.input_shape == (None, 2)
    np.testing.assert_allclose(narrow(x[:, [0, 2]]).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(select(x).numpy(), expected, atol=1e-6)


def test_the_callback_logs_and_leaves_no_trace():
    model = chain()
    x, y = data()
    history = model.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        callbacks=[gss.GroupSparsity(gss.GSSStructure(0.01), schedule=gss.WarmUpFactor(2))],
    ).history
    assert history["gss_penalty"][0] == 0
    assert history["gss_penalty"][2] == pytest.approx(0.01 * structure(model), rel=1e-6)
    assert history["gss_macs"] == [4 * 5 + 5 * 3 + 3 * 2] * 3
    assert history["gss_sparsity"] == [0.0] * 3
    assert not model.losses
    plain = [w.numpy() for w in model.weights]
    model.fit(x, y, verbose=0)
    assert any((w.numpy() != old).any() for w, old in zip(model.weights, plain, strict=True))


@pytest.mark.parametrize(
    "compiled",
    [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 2}],
    ids=str,
)
def test_training_equals_that_of_keras_3(compiled):
    x, y = data(16)
    reference = keras.Sequential(
        [keras.Input((4,))] + [keras.layers.Dense(n, name=f"d{k}") for k, n in enumerate((5, 3, 2))]
    )
    model = chain(**compiled)
    reference.set_weights(model.get_weights())
    reference.compile(keras.optimizers.SGD(0.1), "mse")
    penalty = gss.GSSStructure(0.05, refresh_every=2)
    for each in (reference, model):
        callbacks = [gss.GroupSparsity(penalty, schedule=gss.WarmUpFactor(2, 0.5))]
        each.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    for one, other in zip(reference.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6, rtol=0)


def test_factor_zero_trains_bit_identically():
    x, y = data()
    weights = []
    for callbacks in ([], [gss.GroupSparsity(gss.GSSStructure(0.0))]):
        model = chain()
        model.fit(x, y, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_declared_penalty_raises_until_it_is_bound(tmp_path):
    penalty = gss.GSSStructure(0.01)
    model = chain(penalty, penalty, None)
    x, y = data()
    with pytest.raises(RuntimeError, match="declared but not bound"):
        model.fit(x, y, verbose=0)
    history = model.fit(x, y, verbose=0, callbacks=[gss.GroupSparsity()]).history
    assert history["gss_penalty"][0] == pytest.approx(0.01 * structure(model), rel=1e-6)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        loaded = gss.load_model(tmp_path / name)
        with pytest.raises(RuntimeError, match="declared but not bound"):
            _ = loaded.losses
        gss.attach(loaded)
        assert float(sum(loaded.losses)) == pytest.approx(0.01 * structure(model), rel=1e-6)
        gss.detach(loaded, declared=True)
        assert float(sum(loaded.losses)) == 0
        assert loaded.layers[0].kernel_regularizer is None


def test_the_users_regularizer_stays_in_force():
    model = chain(tf_keras.regularizers.L2(0.1), None, None)
    own = float(sum(model.losses))
    gss.attach(model, gss.GSSStructure(0.01))
    assert float(sum(model.losses)) == pytest.approx(own + 0.01 * structure(model), rel=1e-6)
    with pytest.raises(ValueError, match="attached already"):
        gss.attach(model, gss.GSSStructure(0.01))
    gss.detach(model)
    assert float(sum(model.losses)) == pytest.approx(own, rel=1e-6)
    assert type(model.layers[0].kernel_regularizer) is tf_keras.regularizers.L2


def test_freezing_the_first_layer_keeps_the_penalty():
    model = chain()
    gss.attach(model, gss.GSSStructure(0.01))
    model.layers[0].trainable = False
    assert float(sum(model.losses)) == pytest.approx(0.01 * structure(model), rel=1e-6)


MIRRORED = """
import numpy as np, tensorflow as tf, tf_keras
import keras_gss as gss
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
def train(strategy):
    tf_keras.utils.set_random_seed(1)
    with strategy.scope():
        model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(6),
                                     tf_keras.layers.Dense(2)])
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
    penalty = gss.GSSStructure(0.05, refresh_every=2)
    history = model.fit(x, x[:, :2], batch_size=8, epochs=2, shuffle=False, verbose=0,
                        callbacks=[gss.GroupSparsity(penalty, schedule=gss.WarmUpFactor(2, 0.5))])
    with strategy.scope():
        pruned = gss.prune(model, gss.StdThreshold(0.5))
        pruned.compile(tf_keras.optimizers.Adam(0.1), "mse")
    zeros = gss.count(pruned).nonzero_weights
    pruned.fit(x, x[:, :2], batch_size=8, epochs=2, shuffle=False, verbose=0)
    raw = sum(int(np.count_nonzero(w.numpy())) for w in pruned.trainable_weights
              if len(w.shape) > 1)
    assert raw == zeros < 36, (raw, zeros)
    return model.get_weights(), history.history, pruned.get_weights()
one, first, pruned_one = train(tf.distribute.get_strategy())
two, second, pruned_two = train(strategy)
for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
for a, b in zip(pruned_one, pruned_two, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4, rtol=0)
np.testing.assert_allclose(first["gss_penalty"], second["gss_penalty"], rtol=1e-5)
np.testing.assert_allclose(first["loss"], second["loss"], rtol=1e-5)
print("penalty counted once")
"""


def test_mirrored_strategy_counts_the_penalty_once_and_keeps_zeros():
    run = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True)
    assert "penalty counted once" in run.stdout, run.stderr[-2000:]


ORDERS = """
{imports}
import numpy as np
models = [
    library.Sequential([library.layers.Input((4,)), library.layers.Dense(3, name="hidden"),
                        library.layers.Dense(2)])
    for library in (keras, tf_keras)
]
x = np.ones((8, 4), "float32")
for library, model in zip((keras, tf_keras), models):
    model.compile(library.optimizers.SGD(0.1), "mse")
    model.fit(x, x[:, :2], verbose=0, callbacks=[gss.GroupSparsity(gss.GSSStructure(1e-3))])
    small = gss.slim(gss.prune(model, gss.StdThreshold(0.1)))
    assert type(small).__module__.startswith(library.__name__ + "."), type(small)
    small.compile("adam", "mse")
    small.fit(x, x[:, :2], verbose=0)
print("both work")
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import keras_gss as gss, keras, tf_keras",
        "import tensorflow_model_optimization, tf_keras, keras, keras_gss as gss",
    ],
)
def test_one_process_uses_both_whatever_is_imported_first(imports):
    code = ORDERS.format(imports=imports)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "both work" in run.stdout, run.stderr[-2000:]


def test_a_keras_3_program_imports_neither_tf_keras_nor_tfmot():
    code = (
        "import keras, keras_gss as gss, sys\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])\n"
        "gss.slim(gss.prune(model, gss.StdThreshold(0.1)))\n"
        "print([m for m in ('tf_keras', 'tensorflow_model_optimization') if m in sys.modules])"
    )
    own = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=own)
    assert run.stdout.strip().endswith("[]"), run.stdout + run.stderr[-1000:]


def test_mixed_objects_are_refused():
    model = tf_keras.Sequential(
        [layers.Input((4,)), layers.Dense(3, kernel_constraint=keras.constraints.NonNeg())]
    )
    with pytest.raises(TypeError, match="model of tf_keras.*holds a NonNeg of keras"):
        gss.find_groups(model)
    with pytest.raises(  # older versions of Keras refuse it when the layer is built
        (TypeError, ValueError),
        match="model of keras.*holds a L2 of tf_keras|regularizer=<tf_keras",
    ):
        dense = keras.layers.Dense(3, kernel_regularizer=tf_keras.regularizers.L2(0.1))
        gss.prune(keras.Sequential([keras.Input((4,)), dense]), gss.StdThreshold(0.1))
    with pytest.raises(TypeError, match="is a tf_keras model already"):
        gss.to_tf_keras(chain())
    with pytest.raises(TypeError, match="cross-layer penalty"):
        gss.attach(chain(), tf_keras.regularizers.L2(0.1))


def test_bad_models_are_refused_by_name():
    with pytest.raises(ValueError, match=r"tf_keras.Input\(shape\)"):
        gss.find_groups(tf_keras.Sequential([layers.Dense(2)]))

    class Own(tf_keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match=r"defines its own `call`.*tf_keras.Model"):
        gss.slim(Own())
    model = chain()
    model.layers[0].kernel.assign(np.full((4, 5), np.nan))
    with pytest.raises(ValueError, match="d0/kernel"):
        gss.count(model)


def test_another_backend_than_tensorflow_is_refused():
    code = (
        "import tf_keras, keras_gss as gss\n"
        "gss.find_groups(tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert "KERAS_BACKEND=tensorflow" in run.stderr, run.stderr[-1000:]


SEQUENCE_LAYERS = {
    "SimpleRNN": lambda x: keras.layers.SimpleRNN(6)(x),
    "LSTM": lambda x: keras.layers.LSTM(6, return_sequences=True)(x),
    "GRU": lambda x: keras.layers.GRU(6)(x),
    "GRU, reset before": lambda x: keras.layers.GRU(6, reset_after=False)(x),
    "stacked": lambda x: keras.layers.LSTM(4)(keras.layers.GRU(5, return_sequences=True)(x)),
    "Bidirectional": lambda x: keras.layers.Bidirectional(keras.layers.LSTM(4))(x),
    "Bidirectional, two layers": lambda x: keras.layers.Bidirectional(
        keras.layers.GRU(4), "sum", backward_layer=keras.layers.GRU(4, go_backwards=True)
    )(x),
    "TimeDistributed": lambda x: keras.layers.TimeDistributed(keras.layers.Dense(5, "relu"))(x),
    "MultiHeadAttention": lambda x: keras.layers.MultiHeadAttention(3, 4, value_dim=5)(x, x),
    "EinsumDense": lambda x: keras.layers.EinsumDense("abc,cd->abd", (7, 6), bias_axes="d")(x),
    "GroupNormalization": lambda x: keras.layers.GroupNormalization(2)(x),
    "LayerNormalization": lambda x: keras.layers.LayerNormalization()(x),
    "Conv1D, groups": lambda x: keras.layers.Conv1D(8, 3, groups=2)(x),
    "SeparableConv1D": lambda x: keras.layers.SeparableConv1D(5, 2)(x),
}


@pytest.mark.parametrize("name", SEQUENCE_LAYERS)
def test_layers_of_sequence_models_are_cut_as_in_keras_3(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((7, 8))
    x = SEQUENCE_LAYERS[name](keras.layers.Dense(8, "relu", name="before")(inputs))
    x = keras.layers.Flatten()(x) if len(x.shape) > 2 else x
    model = keras.Model(inputs, keras.layers.Dense(3, name="out")(x))
    converted = gss.to_tf_keras(model)
    widths = [silence(each) for each in (model, converted)]
    assert widths[0] == widths[1]
    first, second = (gss.slim(m, return_report=True)[1] for m in (model, converted))
    assert first.cut == second.cut
    assert {group: after for group, (_, after) in second.cut.items()} == widths[1]
    assert second.max_difference <= 1e-5


def test_states_given_by_other_layers_and_time_first_are_left_whole():
    inputs = layers.Input((5, 4))
    state = layers.Dense(3, name="state")(layers.Flatten()(inputs))
    x = layers.LSTM(3, name="lstm")(inputs, initial_state=[state, state])
    x = layers.Concatenate()([x, layers.SimpleRNN(3, name="time", time_major=True)(inputs)])
    groups = gss.find_groups(tf_keras.Model(inputs, layers.Dense(2)(x)))
    assert "starts from a state that another layer gives" in groups.skipped["lstm"]
    assert "time_major=True" in groups.skipped["time"]
    assert not any(group.removable for group in groups)
