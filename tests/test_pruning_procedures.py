"""Soft and gradual pruning: what is zero when, and what may come back."""

import keras
import numpy as np
import pytest
from test_compress import blobs
from test_procedures import assert_same_end, before_the_last_epoch, run

import keras_gss as gss
from keras_gss import report
from keras_gss._keras import Callback
from keras_gss.procedures.soft_pruning import incoming_only

HALF = gss.MagnitudeThreshold(fraction=0.5)


@pytest.fixture(autouse=True)
def _no_latencies(monkeypatch):
    monkeypatch.setattr(report, "latency", lambda before, after, batch: (1.0, 1.0))


def model_of(*widths):
    hidden = [
        keras.layers.Dense(w, "relu", bias_initializer="ones", name=f"h{k}")
        for k, w in enumerate(widths[1:-1])
    ]
    return keras.Sequential(
        [keras.Input((widths[0],)), *hidden, keras.layers.Dense(widths[-1], name="head")]
    )


def train(model, procedure, epochs, watch=None):
    model = procedure.begin(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    seen = [] if watch is None else [watch]
    options = {"batch_size": 20, "epochs": epochs, "verbose": 0}
    model.fit(*blobs(), callbacks=[*procedure.callbacks(), *seen], **options)
    return procedure.end(model)


class Weights(Callback):
    """Keeps the kernels as they are at the end of each step and of each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def kernels(self):
        return [np.array(keras.ops.convert_to_numpy(layer.kernel)) for layer in self.model.layers]

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.steps.append(self.kernels())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.kernels())


def test_soft_pruned_neurons_lose_their_incoming_kernels_and_can_come_back():
    model, watch = model_of(6, 8, 8, 3), Weights()
    train(model, gss.SoftPruning(HALF), 3, watch)
    for kernels in watch.epochs:
        gone = [~kernel.any(axis=0) for kernel in kernels[:2]]
        assert sum(each.sum() for each in gone) == 8
    first = np.concatenate([~kernel.any(axis=0) for kernel in watch.epochs[0][:2]])
    after = np.concatenate([kernel.any(axis=0) for kernel in watch.steps[-1][:2]])
    assert (after & first).sum() >= 4  # grown again within the next epochs' steps
    assert all(kernel.any(axis=1).all() for kernel in watch.steps[-1][2:])


def test_soft_pruned_weights_are_the_globally_weakest():
    model = model_of(6, 8, 3)
    soft = gss.SoftPruning(gss.MagnitudeThreshold(fraction=0.25), granularity="element")
    model = soft.begin(model)
    before = [np.array(w) for w in model.get_weights()]
    soft.update(0)
    flat = np.concatenate([before[0].ravel(), before[2].ravel()])
    limit = np.sort(np.abs(flat))[-18]
    for k in (0, 2):
        expected = np.where(np.abs(before[k]) >= limit, before[k], 0)
        np.testing.assert_array_equal(model.get_weights()[k], expected)
    np.testing.assert_array_equal(model.get_weights()[1], before[1])


def test_masks_of_incoming_kernels_alone():
    model = model_of(4, 3, 3, 2)
    masks = gss.MagnitudeThreshold(fraction=0.5, inputs=True).masks(model, "neuron")
    found = incoming_only(model, masks, inputs=True)
    a, b, head = (masks[id(layer.kernel)] for layer in model.layers)
    stay_a, stay_b, stay_x = b.any(axis=1), head.any(axis=1), a.any(axis=1)
    np.testing.assert_array_equal(found[id(model.layers[0].kernel)], stay_x[:, None] & stay_a)
    columns = np.broadcast_to(stay_b, (3, 3))
    np.testing.assert_array_equal(found[id(model.layers[1].kernel)], columns)
    assert set(found) == {id(layer.kernel) for layer in model.layers[:2]}


def test_budgets_are_settled_once_and_count_from_the_dense_model():
    result = run(
        gss.SoftPruning(gss.MacsBudget(0.4, by=gss.MagnitudeThreshold(per_layer=True))),
        target=gss.MacsBudget(0.4, by=gss.MagnitudeThreshold(per_layer=True)),
    )
    dense, left = result.report.live_macs
    assert 0.25 * dense < left <= 0.4 * dense
    assert result.threshold.per_layer


def test_gradual_fractions_are_those_of_the_cubic_formula():
    gradual = gss.GradualPruning(gss.MagnitudeThreshold(fraction=0.1), 5, "element")
    for epoch in range(8):
        sparsity = 0.9 + (0 - 0.9) * (1 - min(epoch + 1, 5) / 5) ** 3
        assert gradual.fraction_at(epoch, 0.1) == pytest.approx(1 - sparsity)


def test_gradual_zeros_grow_by_the_schedule_and_hold_at_every_step():
    model, watch = model_of(6, 8, 8, 3), Weights()
    own = keras.constraints.NonNeg()
    model.layers[0].kernel.constraint = own
    gradual = gss.GradualPruning(gss.MagnitudeThreshold(fraction=0.25), 3, "element")
    model = train(model, gradual, 4, watch)
    numbers = [round(136 * gradual.fraction_at(epoch, 0.25)) for epoch in range(4)]
    assert numbers == [64, 38, 34, 34]
    for step, kernels in enumerate(watch.steps):
        assert sum(np.count_nonzero(kernel) for kernel in kernels) <= numbers[step // 10]
        assert (kernels[0] >= 0).all()
    for before, after in zip(watch.epochs, watch.epochs[1:], strict=False):
        for a, b in zip(before, after, strict=True):
            assert not (b[a == 0]).any()  # what is gone stays gone
    assert model.layers[0].kernel.constraint is own
    assert model.layers[1].kernel.constraint is None


def test_gradual_pruning_reaches_the_budget_and_resumes(tmp_path):
    budget = gss.MacsBudget(0.4, by=gss.MagnitudeThreshold())

    def procedure():
        return gss.GradualPruning(budget, epochs=2)

    whole = run(procedure(), target=budget, directory=tmp_path / "whole")
    dense, left = whole.report.live_macs
    assert 0.25 * dense < left <= 0.4 * dense
    killed = before_the_last_epoch(tmp_path / "whole", tmp_path / "killed")
    assert_same_end(run(procedure(), target=budget, directory=killed), whole)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`threshold` must be a ranking with a fraction"):
        gss.GradualPruning(gss.MagnitudeThreshold(), epochs=2)
    with pytest.raises(ValueError, match="`threshold` must be a ranking with a fraction"):
        gss.GradualPruning(gss.MacsBudget(0.5), epochs=2)
    with pytest.raises(ValueError, match="`epochs` must be an integer >= 1"):
        gss.GradualPruning(HALF, epochs=0)
    with pytest.raises(TypeError, match="`threshold` must have a method `masks"):
        gss.SoftPruning(0.5)
    if keras.backend.backend() == "tensorflow":
        legacy = gss.to_tf_keras(model_of(3, 4, 2))
        with pytest.raises(ValueError, match="PolynomialDecay"):
            gss.GradualPruning(HALF, epochs=1).begin(legacy)
