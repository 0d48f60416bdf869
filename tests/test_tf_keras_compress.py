"""`compress` of a tf_keras model: tfmot's wrappers while it finetunes, a small model at the end."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf_keras runs on TensorFlow only", allow_module_level=True)

import tf_keras

import keras_gss as gss
from keras_gss import datasets, zoo

layers = tf_keras.layers
DIGITS = datasets.load("digits", validation=300)
SHORT = {
    "epochs": 3,
    "finetune_epochs": 2,
    "batch_size": 50,
    "jit_compile": False,
    "steps_per_execution": 1,
    "verbose": False,
}


def unwrapped(model):
    return [type(getattr(layer, "layer", layer)).__name__ for layer in model.layers]


def test_it_ends_in_a_small_model_and_begins_again_where_it_was(tmp_path):
    model = gss.to_tf_keras(zoo.build("digits-mlp"))
    before = model.get_weights()
    arguments = {
        "target": gss.MacsBudget(0.4),
        "regularizer": gss.GSSStructure(3e-4, refresh_every=3),
        "pretrain_epochs": 2,
        "test": DIGITS.test,
        "directory": tmp_path / "run",
        **SHORT,
    }
    result = gss.compress(model, DIGITS.train, DIGITS.validation, **arguments)
    dense, small = result.report.live_macs
    assert small <= 0.4 * dense
    assert result.report.max_difference <= 1e-5
    assert type(result.model) is tf_keras.Sequential
    assert type(result.pruned.layers[1]).__name__ == "PruneLowMagnitude"
    assert unwrapped(result.pruned) == unwrapped(result.model) == unwrapped(model)
    assert [entry["phase"] for entry in result.history].count("finetune") == 2
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    again = gss.compress(model, DIGITS.train, DIGITS.validation, **arguments)
    assert again.accuracies == result.accuracies
    loaded = gss.load_model(tmp_path / "run" / "model.keras")
    x = DIGITS.validation[0][:20]
    np.testing.assert_allclose(loaded(x).numpy(), result.model(x).numpy(), atol=1e-6)
    pruned = gss.load_model(tmp_path / "run" / "pruned.keras")
    assert gss.count(pruned).nonzero_weights == gss.count(result.pruned).nonzero_weights


class Stop(Exception):
    """Ends a run in the middle."""


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    from keras_gss.compress import state

    def run(name):
        return gss.compress(
            gss.to_tf_keras(zoo.build("digits-mlp")),
            DIGITS.train,
            DIGITS.validation,
            target=gss.StdThreshold(0.5),
            regularizer=gss.GSSStructure(3e-4, refresh_every=3),
            directory=tmp_path / name,
            **SHORT,
        )

    whole = run("whole")
    saved, save = [], state.RunDirectory.save

    def stop_after_two(self, *args):
        save(self, *args)
        saved.append(args[0])
        if len(saved) in (2, 4):
            raise Stop

    monkeypatch.setattr(state.RunDirectory, "save", stop_after_two)
    for _ in range(2):
        with pytest.raises(Stop):
            run("stopped")
    resumed = run("stopped")
    assert resumed.accuracies == whole.accuracies
    for one, other in zip(whole.model.weights, resumed.model.weights, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-6)


def test_softmax_accuracy_targets_and_element_zeros():
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(24, "relu", name="hidden"),
            layers.Dense(10, "softmax", name="out"),
        ]
    )
    result = gss.compress(
        model,
        DIGITS.train,
        DIGITS.validation,
        target=gss.AccuracyDrop(0.2, probes=3),
        regularizer=gss.GSSElement(1e-4),
        granularity="element",
        pretrain_epochs=3,
        **SHORT,
    )
    assert result.accuracies["finetuned"] > result.accuracies["dense"] - 0.2
    assert len(result.search) == 3
    assert gss.count(result.pruned).nonzero_weights < gss.count(model).nonzero_weights


def test_a_wrapped_model_is_taken_without_its_wrappers():
    model = gss.to_tf_keras(zoo.build("digits-mlp"))
    wrapped = gss.prune(model, gss.StdThreshold(0.3))
    result = gss.compress(
        wrapped,
        DIGITS.train,
        DIGITS.validation,
        target=gss.StdThreshold(0.3),
        regularizer=gss.GSSStructure(1e-4),
        **SHORT,
    )
    assert unwrapped(result.trained) == unwrapped(model)
    assert not any(hasattr(layer, "pruning_vars") for layer in result.trained.layers)
