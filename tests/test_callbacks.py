"""GroupSparsity: binds for one fit, follows its schedule, and logs numbers that are right."""

import csv
import importlib

import keras
import numpy as np
import pytest
from keras import ops

import keras_gss as gss

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
layers = keras.layers
LOGGED = ["gss_penalty", "gss_sparsity", "gss_macs"]


def chain(*regularizers, rate=0.1, **compiled):
    """Dense layers 4 -> 3 -> 2 named d0 and d1, trained by SGD."""
    keras.utils.set_random_seed(1)
    regularizers = regularizers or (None, None)
    model = keras.Sequential([keras.Input((4,))])
    for k, (width, regularizer) in enumerate(zip((3, 2), regularizers, strict=True)):
        model.add(layers.Dense(width, kernel_regularizer=regularizer, name=f"d{k}"))
    model.compile(keras.optimizers.SGD(rate), "mse", **compiled)
    return model


def kernels(model):
    return [np.asarray(ops.convert_to_numpy(layer.kernel), "float64") for layer in model.layers]


def norms(a, b):
    return np.sqrt((a**2).sum(0) + (b**2).sum(1))


def descend(a, b, factor, steps, rate=0.1):
    """Gradient descent on the (2, 2) penalty alone."""
    for _ in range(steps):
        n = norms(a, b)
        slope = 2 * factor * rate * n.sum() / n
        a, b = a - slope * a, b - slope[:, None] * b
    return a, b


# With inputs and targets of zero, only the penalty moves the kernels.
X, Y = np.zeros((8, 4), "float32"), np.zeros((8, 2), "float32")


def fit(model, *callbacks, **options):
    options = {"batch_size": 4, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options).history


def check_kernels(model, expected):
    for got, want in zip(kernels(model), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "compiled", [{}, {"jit_compile": True}, {"steps_per_execution": 2}], ids=str
)
def test_the_penalty_follows_the_schedule_in_a_traced_step(compiled):
    model = chain(**compiled)
    a, b = kernels(model)
    values = []
    for multiplier in (0.0, 0.5, 1.0, 1.0):
        a, b = descend(a, b, 0.1 * multiplier, steps=2)
        values.append(0.1 * multiplier * norms(a, b).sum() ** 2)
    history = fit(
        model, gss.GroupSparsity(gss.GSSStructure(0.1), schedule=gss.WarmUpFactor(2)), epochs=4
    )
    check_kernels(model, (a, b))
    np.testing.assert_allclose(history["gss_penalty"], values, rtol=1e-5, atol=1e-12)


def test_a_resumed_fit_goes_on_with_the_schedule():
    model = chain()
    seen = []
    callback = gss.GroupSparsity(
        gss.GSSStructure(0.1), schedule=lambda epoch: seen.append(epoch) or 0.5 * epoch
    )
    a, b = descend(*descend(*kernels(model), 0.15, steps=2), 0.2, steps=2)
    fit(model, callback, initial_epoch=3, epochs=5)
    assert seen == [3, 4]
    check_kernels(model, (a, b))


def test_a_schedule_that_returns_nonsense_is_refused():
    callback = gss.GroupSparsity(gss.GSSStructure(0.1), schedule=lambda epoch: -1.0)
    with pytest.raises(ValueError, match=r"`schedule\(0\)` must be a finite number >= 0"):
        fit(chain(), callback)


def test_a_penalty_passed_belongs_to_that_fit():
    model = chain()
    callback = gss.GroupSparsity(gss.GSSStructure(0.1))
    for _ in range(2):
        expected = descend(*kernels(model), 0.1, steps=4)
        history = fit(model, callback, epochs=2)
        check_kernels(model, expected)
        assert model.losses == []
        assert all(v.regularizer is None for v in model.weights)
        assert [v.path for v in model.variables] == [v.path for v in model.weights]
        assert set(LOGGED) < set(history)
        history = fit(model)
        check_kernels(model, expected)
        assert list(history) == ["loss"]


def test_files_saved_meanwhile_are_free_of_a_penalty_passed(tmp_path):
    model = chain()
    path = str(tmp_path / "best.keras")
    saves = keras.callbacks.ModelCheckpoint(path, "gss_penalty", save_best_only=True, mode="min")
    fit(model, gss.GroupSparsity(gss.GSSStructure(0.1)), saves)
    loaded = keras.saving.load_model(path)
    assert [layer.kernel_regularizer for layer in loaded.layers] == [None, None]
    check_kernels(loaded, kernels(model))
    assert loaded.evaluate(X, Y, verbose=0) == 0.0


def test_declared_penalties_are_bound_and_stay_bound():
    model = chain(gss.GSSStructure(0.1), None)
    expected = descend(*kernels(model), 0.1, steps=2)
    fit(model, gss.GroupSparsity())
    check_kernels(model, expected)
    value = 0.1 * norms(*expected).sum() ** 2
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(value, rel=1e-5)
    expected = descend(*expected, 0.1, steps=2)
    fit(model)
    check_kernels(model, expected)
    fit(model, gss.GroupSparsity(schedule=gss.ConstantFactor(0.5)))
    expected = descend(*expected, 0.05, steps=2)
    check_kernels(model, expected)
    fit(model, gss.GroupSparsity())
    check_kernels(model, descend(*expected, 0.1, steps=2))


def test_declared_penalties_work_when_keras_builds_its_metrics_first():
    model = chain(gss.GSSStructure(0.1), None, metrics=["mae"])
    history = fit(model, gss.GroupSparsity(), validation_data=(X, Y))
    assert history["val_loss"][0] == pytest.approx(history["gss_penalty"][0], rel=1e-5)


def test_an_attached_penalty_is_logged_and_left():
    model = chain()
    gss.attach(model, gss.GSSStructure(0.1))
    history = fit(model, gss.GroupSparsity())
    value = 0.1 * norms(*kernels(model)).sum() ** 2
    assert history["gss_penalty"][0] == pytest.approx(value, rel=1e-5)
    assert float(sum(ops.convert_to_numpy(v) for v in model.losses)) == pytest.approx(value)
    with pytest.raises(ValueError, match="attached already"):
        fit(model, gss.GroupSparsity(gss.GSSStructure(0.1)))


def test_two_callbacks_with_a_penalty_each_are_refused():
    both = [gss.GroupSparsity(gss.GSSStructure(0.1)), gss.GroupSparsity(gss.GSSElement(0.1))]
    with pytest.raises(ValueError, match="attached already"):
        fit(chain(), *both)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_after_an_interrupted_fit_the_next_one_starts_afresh():
    model = chain()
    with pytest.raises(KeyboardInterrupt):
        fit(model, gss.GroupSparsity(gss.GSSStructure(0.1)), Interrupt())
    expected = descend(*kernels(model), 0.2, steps=2)
    fit(model, gss.GroupSparsity(gss.GSSStructure(0.2)))
    check_kernels(model, expected)
    fit(model)
    check_kernels(model, expected)


def test_evaluate_alone_binds_what_is_needed():
    model = chain()
    value = 0.1 * norms(*kernels(model)).sum() ** 2
    callback = gss.GroupSparsity(gss.GSSStructure(0.1))
    for _ in range(2):
        loss = model.evaluate(X, Y, verbose=0, callbacks=[callback])
        assert loss == pytest.approx(value, rel=1e-6)
        assert model.evaluate(X, Y, verbose=0) == 0.0
    declared = chain(gss.GSSStructure(0.1), None)
    loss = declared.evaluate(X, Y, verbose=0, callbacks=[gss.GroupSparsity()])
    assert loss == pytest.approx(value, rel=1e-6)


def test_validation_is_no_step_of_a_refresh():
    trained = []
    for validation in (None, (X, Y)):
        model = chain()
        penalty = gss.GSSStructure(0.1, refresh_every=3)
        fit(model, gss.GroupSparsity(penalty), epochs=4, validation_data=validation)
        trained.append(kernels(model))
    for without, with_validation in zip(*trained, strict=True):
        np.testing.assert_array_equal(without, with_validation)


def planted(rate=0.0):
    """4 -> 3 -> 2 where neuron 2 is weak on both sides, and one weight of neuron 0 is small."""
    model = chain(rate=rate)
    first = np.ones((4, 3), "float32")
    first[:, 2], first[0, 0] = 0.01, 0.02
    second = np.array([[1.0, -1.0], [1.0, 1.0], [0.01, -0.02]], "float32")
    model.set_weights([first, np.zeros(3), second, np.zeros(2)])
    return model


def test_sparsity_and_macs_are_those_of_the_threshold():
    penalty = gss.GSSStructure(0.1)
    history = fit(planted(), gss.GroupSparsity(penalty))
    assert history["gss_sparsity"] == [pytest.approx(1 / 3)]
    assert history["gss_macs"] == [4 * 2 + 2 * 2]
    everything = gss.GroupSparsity(penalty, threshold=gss.StdThreshold(0.0))
    history = fit(planted(), everything)
    assert history["gss_sparsity"] == [0.0]
    assert history["gss_macs"] == [4 * 3 + 3 * 2]


def test_at_element_granularity_a_neuron_goes_with_one_of_its_sides():
    model = planted()
    weights = model.get_weights()
    weights[2][2] = 1.0
    model.set_weights(weights)
    outlook = gss.GroupSparsity(
        gss.GSSElement(0.1), threshold=gss.AbsoluteThreshold(0.1), granularity="element"
    )
    history = fit(model, outlook)
    assert history["gss_sparsity"] == [pytest.approx(1 / 3)]
    assert history["gss_macs"] == [4 * 2 + 2 * 2]
    pruned = gss.prune(model, gss.AbsoluteThreshold(0.1), "element")
    assert gss.count(pruned).live_macs == 12


def test_weights_that_became_nan_do_not_stop_the_logs():
    callback = gss.GroupSparsity(gss.GSSStructure(0.1))
    history = planted().fit(X + np.nan, Y, verbose=0, callbacks=[callback]).history
    assert np.isnan([history[name][0] for name in LOGGED]).all()


def test_the_logs_reach_progress_bar_and_csv(tmp_path, capsys):
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    callback = gss.GroupSparsity(gss.GSSStructure(0.1))
    history = fit(planted(), callback, logger, verbose=2)
    shown = capsys.readouterr().out
    assert "gss_sparsity: 0.3333" in shown and "gss_macs: 12.0000" in shown
    with open(tmp_path / "log.csv") as file:
        (row,) = csv.DictReader(file)
    for name in LOGGED:
        assert float(row[name]) == pytest.approx(history[name][0])


@pytest.mark.skipif(not ON_TENSORFLOW, reason="Keras' TensorBoard callback writes by TensorFlow")
def test_the_logs_reach_tensorboard(tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(
        importlib.import_module("tensorflow.summary"),
        "scalar",
        lambda name, value, step: written.setdefault(name, float(value)),
    )
    board = keras.callbacks.TensorBoard(str(tmp_path), write_graph=False)
    history = fit(planted(), gss.GroupSparsity(gss.GSSStructure(0.1)), board)
    for name in LOGGED:
        assert written[f"epoch_{name}"] == history[name][0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"regularizer": "l2"}, TypeError, "`regularizer` must be a cross-layer"),
        ({"schedule": 0.5}, ValueError, "`schedule` must be a function of the epoch. Received"),
        ({"threshold": 0.3}, ValueError, "`threshold` must be a threshold such as StdThr"),
        ({"granularity": "layer"}, ValueError, "`granularity` must be one of 'element', 'neuron'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        gss.GroupSparsity(**arguments)
