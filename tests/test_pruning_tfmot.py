"""tf_keras models in tfmot's wrappers: zeros that hold at any moment, and tfmot's own ways to prune."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf_keras runs on TensorFlow only", allow_module_level=True)

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import (
    PruneLowMagnitude,
)
from tensorflow_model_optimization.sparsity import keras as tfmot

import keras_gss as gss
from keras_gss._keras import without_wrappers

layers = tf_keras.layers
optimizers = tf_keras.optimizers


def network():
    tf_keras.utils.set_random_seed(3)
    return tf_keras.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(3, name="out"),
        ]
    )


def data(rows=32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 6, 6, 1)).astype("float32"), rng.integers(0, 3, rows)


def train(model, epochs=2, optimizer=None, callbacks=(), **compiled):
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or optimizers.Adam(0.01), loss, **compiled)
    return model.fit(*data(), epochs=epochs, batch_size=8, verbose=0, callbacks=list(callbacks))


def kernels(model):
    return [v.numpy() for v in model.trainable_weights if len(v.shape) > 1]


def zeros(model):
    return [value == 0 for value in kernels(model)]


def outputs(model):
    return model(data()[0], training=False).numpy()


def raw_outputs(wrapped):
    """What a wrapped model computes: its masks are applied by the call."""
    return outputs(without_wrappers(wrapped))


def same(first, second):
    return all((one == other).all() for one, other in zip(first, second, strict=True))


def wrappers(model):
    return [each for each in model.layers if isinstance(each, PruneLowMagnitude)]


@pytest.fixture
def pruned():
    return gss.prune(network(), gss.StdThreshold(0.7))


def test_prune_wraps_with_our_masks_and_leaves_the_model_alone():
    model = network()
    before, nodes = model.get_weights(), [len(each._inbound_nodes) for each in model.layers]
    pruned = gss.prune(model, gss.StdThreshold(0.7))
    assert [type(each).__name__ for each in pruned.layers] == [
        "PruneLowMagnitude",
        "Flatten",
        "PruneLowMagnitude",
        "PruneLowMagnitude",
    ]
    expected = gss.StdThreshold(0.7).masks(model, "element")
    for wrapper, layer in zip(pruned.layers, model.layers, strict=True):
        if wrapper.name != layer.name:
            ((weight, mask, _),) = wrapper.pruning_vars
            np.testing.assert_array_equal(mask.numpy() > 0, expected[id(layer.kernel)])
            np.testing.assert_array_equal(weight.numpy() != 0, expected[id(layer.kernel)])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert nodes == [len(each._inbound_nodes) for each in model.layers]


class Watch(tf_keras.callbacks.Callback):
    """Notes the zeros after every batch and epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(zeros(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(zeros(self.model))


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.SGD(0.1, momentum=0.9),
        optimizers.Adam(0.01),
        optimizers.AdamW(0.01, weight_decay=0.1),
        optimizers.RMSprop(0.01),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("callback", [True, False], ids=["with callback", "callback forgotten"])
def test_zeros_hold_at_any_moment(pruned, optimizer, callback):
    before, watch = zeros(pruned), Watch()
    optimizer = type(optimizer).from_config(optimizer.get_config())
    train(pruned, 2, optimizer, [watch] + [tfmot.UpdatePruningStep()] * callback)
    assert len(watch.seen) == 2 * (4 + 1)
    assert all(same(before, seen) for seen in watch.seen)
    assert 0.2 < np.mean(np.concatenate([z.ravel() for z in before])) < 0.9


@pytest.mark.parametrize("compiled", [{"jit_compile": True}, {"steps_per_execution": 4}], ids=str)
def test_zeros_hold_however_fit_executes(pruned, compiled):
    before = zeros(pruned)
    train(pruned, **compiled)
    assert same(before, zeros(pruned))


def test_zeros_hold_under_averages_with_keep_zeros(pruned):
    before = zeros(pruned)
    train(pruned, 2, optimizers.Adam(0.01, use_ema=True), [gss.KeepZeros()])
    assert same(before, zeros(pruned))
    assert same(before, zeros(without_wrappers(pruned)))


def test_zeros_hold_under_mixed_precision():
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = network()
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    pruned = gss.prune(model, gss.StdThreshold(0.7))
    before = zeros(pruned)
    train(pruned)
    assert same(before, zeros(pruned))
    assert gss.slim(pruned).layers[0].compute_dtype == "float16"


def test_zeros_hold_in_files_under_prune_scope(pruned, tmp_path):
    before = zeros(pruned)
    train(pruned, 1)
    expected = raw_outputs(pruned)
    for name in ("model.keras", "model.h5"):
        pruned.save(tmp_path / name)
        with tfmot.prune_scope():
            loaded = tf_keras.models.load_model(tmp_path / name)
        assert len(wrappers(loaded)) == 3
        np.testing.assert_allclose(raw_outputs(loaded), expected, atol=1e-6)
        train(loaded, 1)
        assert same(before, zeros(loaded))
        again = gss.load_model(tmp_path / name)
        np.testing.assert_allclose(raw_outputs(again), expected, atol=1e-6)
    pruned.save_weights(tmp_path / "weights.h5")
    fresh = gss.prune(network(), gss.StdThreshold(0.7))
    fresh.load_weights(tmp_path / "weights.h5")
    np.testing.assert_allclose(raw_outputs(fresh), expected, atol=1e-6)


def test_slim_export_and_count_see_the_masked_weights(pruned, tmp_path):
    """Also where someone has written weights between two calls."""
    expected = raw_outputs(pruned)
    count = gss.count(pruned).nonzero_weights
    for wrapper in wrappers(pruned):
        weight, mask, _ = wrapper.pruning_vars[0]
        weight.assign(weight + 7.0 * (1.0 - mask))
    assert gss.count(pruned).nonzero_weights == count
    np.testing.assert_allclose(outputs(gss.slim(pruned)), expected, atol=1e-6)
    gss.export(pruned, tmp_path / "saved")
    gss.export(pruned, tmp_path / "model.keras", format="keras")
    served = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(served.serve(data()[0]).numpy(), expected, atol=1e-6)
    loaded = gss.load_model(tmp_path / "model.keras")
    assert not wrappers(loaded)
    np.testing.assert_allclose(outputs(loaded), expected, atol=1e-6)


def test_the_slim_model_is_an_ordinary_one(pruned):
    small = gss.slim(gss.prune(network(), gss.MacsBudget(0.5), granularity="neuron"))
    assert [type(each) for each in small.layers] == [
        layers.Conv2D,
        layers.Flatten,
        layers.Dense,
        layers.Dense,
    ]
    assert "keras_gss" not in small.to_json()
    assert not small.layers[0].kernel_constraint
    train(small, 1)


def test_pruning_a_pruned_model_adds_to_its_zeros(pruned):
    again = gss.prune(pruned, gss.StdThreshold(1.0))
    for old, new in zip(zeros(pruned), zeros(again), strict=True):
        assert (new >= old).all()
        assert new.sum() > old.sum()
    assert len(wrappers(again)) == 3


def test_the_zeros_of_a_wrapped_model_rewind_another(pruned):
    before = network()
    rewound = gss.prune(before, gss.ZerosOf(pruned))
    assert [type(layer) for layer in rewound.layers] == [type(layer) for layer in pruned.layers]
    for old, zeros, new in zip(kernels(before), kernels(pruned), kernels(rewound), strict=True):
        np.testing.assert_array_equal(new, np.where(zeros == 0, 0, old))


def test_groups_and_penalties_of_a_wrapped_model_are_those_of_its_layers(pruned):
    groups = gss.find_groups(pruned)
    assert [(group.name, group.size) for group in groups] == [("conv", 4), ("hidden", 8)]
    assert groups[0].incoming[0].weight is pruned.layers[0].layer.kernel
    history = train(pruned, 1, callbacks=[gss.GroupSparsity(gss.GSSStructure(0.01))]).history
    assert history["gss_penalty"][0] > 0


def test_tfmots_callbacks_work(pruned, tmp_path):
    log = str(tmp_path / "log")
    train(pruned, 2, callbacks=[tfmot.UpdatePruningStep(), tfmot.PruningSummaries(log)])
    assert any((tmp_path / "log").rglob("events*"))
    assert all(int(wrapper.pruning_step) >= 8 for wrapper in wrappers(pruned))


class OnlyDense(tfmot.PruningPolicy):
    def allow_pruning(self, layer):
        return isinstance(layer, layers.Dense)

    def ensure_model_supports_pruning(self, model):
        assert model.layers


@pytest.mark.parametrize(
    "arguments",
    [
        {"pruning_schedule": tfmot.ConstantSparsity(0.6, 0, frequency=1)},
        {"pruning_schedule": tfmot.PolynomialDecay(0.2, 0.8, 0, 6, frequency=1)},
        {
            "pruning_schedule": tfmot.ConstantSparsity(0.5, 0, frequency=1),
            "sparsity_m_by_n": (2, 4),
        },
        {
            "pruning_schedule": tfmot.ConstantSparsity(0.6, 0, frequency=1),
            "pruning_policy": OnlyDense(),
        },
    ],
    ids=["constant", "polynomial", "2:4", "policy"],
)
def test_what_tfmot_prunes_is_slimmed(arguments):
    model = network()
    train(model, 2, callbacks=[gss.GroupSparsity(gss.GSSStructure(1e-3))])
    wrapped = tfmot.prune_low_magnitude(model, **arguments)
    train(wrapped, 3, callbacks=[tfmot.UpdatePruningStep()])
    masked = without_wrappers(wrapped)
    share = np.mean(np.concatenate([z.ravel() for z in zeros(masked)]))
    assert share > 0.3
    small, report = gss.slim(wrapped, return_report=True)
    assert report.max_difference <= 1e-5
    np.testing.assert_allclose(outputs(small), outputs(masked), atol=1e-5)
    assert not wrappers(small)
    further = gss.prune(wrapped, gss.StdThreshold(0.1), granularity="neuron")
    assert gss.count(further).nonzero_weights <= gss.count(wrapped).nonzero_weights


def test_layers_that_tfmot_cannot_wrap_are_named_and_keep_their_zeros():
    class Own(layers.Dense):
        pass

    tf_keras.utils.set_random_seed(4)
    model = tf_keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            Own(5, name="own"),
            layers.Dense(2, name="out"),
        ]
    )
    with pytest.warns(UserWarning, match=r"'depthwise' \(DepthwiseConv2D\), 'own'"):
        pruned = gss.prune(model, gss.StdThreshold(0.7))
    assert [each.name for each in wrappers(pruned)] == ["prune_low_magnitude_out"]
    before = zeros(pruned)
    assert all(each.any() for each in before)
    x, y = np.ones((16, 6, 6, 2), "float32"), np.ones((16, 2), "float32")
    pruned.compile(optimizers.Adam(0.1), "mse")
    pruned.fit(x, y, epochs=2, verbose=0)
    assert same(before, zeros(pruned))


def test_nested_and_shared_layers_are_wrapped_once():
    tf_keras.utils.set_random_seed(5)
    inner = tf_keras.Sequential([layers.Dense(4, "relu", name="inner")], name="nested")
    shared = layers.Dense(4, "relu", name="shared")
    inputs = layers.Input((4,))
    model = tf_keras.Model(inputs, layers.Dense(2, name="out")(shared(shared(inner(inputs)))))
    pruned = gss.prune(model, gss.StdThreshold(0.7))
    assert [type(each).__name__ for each in pruned.get_layer("nested").layers] == [
        "PruneLowMagnitude"
    ]
    assert len(wrappers(pruned)) == 2
    before = zeros(pruned)
    pruned.compile("adam", "mse")
    pruned.fit(np.ones((16, 4), "float32"), np.ones((16, 2), "float32"), epochs=2, verbose=0)
    assert same(before, zeros(pruned))
    assert gss.slim(pruned).count_params() <= model.count_params()
