"""How the ResNet-56 example trains on JAX, an epoch in one compiled scan, on a small network."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "resnet56"))
import training

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="the scan needs KERAS_BACKEND=jax"
)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype("uint8")
LABELS = np.arange(12, dtype="int32") % 10
STEPS = np.arange(12).reshape(3, 4)


def network():
    conv = layers.Conv2D(6, 5, 4, activation="relu", kernel_initializer="he_normal")
    return keras.Sequential(
        [keras.Input((32, 32, 3)), conv, layers.GlobalAveragePooling2D(), layers.Dense(10)]
    )


def epoch(trainer, model, rate=0.0, seed=(0, 1), **options):
    state = training.State.of(model, trainer.optimizer())
    rates = np.full(len(STEPS), rate)
    return trainer.epoch(model, state, (IMAGES, LABELS), STEPS, rates, (*seed, 0), **options)


def test_an_epoch_follows_the_labels_and_keeps_fixed_zeros():
    model = network()
    pruned = gss.prune(model, gss.MacsBudget(0.5), granularity="neuron")
    trainer = training.ScanTrainer(model, 0.0, l2=1e-4)
    before, losses = training.State.of(pruned, trainer.optimizer()), []
    state = before
    for number in range(15):
        state, loss = trainer.epoch(
            pruned, state, (IMAGES, LABELS), STEPS, np.full(3, 0.1), (0, 1, number)
        )
        losses.append(loss)
    assert losses[-1] < losses[0] - 0.1
    state = state.numpy()
    dead = before.trainable[0] == 0
    assert dead.sum() == 3 * 75
    assert not state.trainable[0][dead].any() and (state.trainable[0] != 0)[~dead].all()


def test_the_penalty_is_added_by_its_strength():
    model = network()
    trainer = training.ScanTrainer(model, 0.0, l2=0.0)
    _, plain = epoch(trainer, model)
    gss.attach(model, gss.GSSStructure(0.01))
    penalty = float(sum(model.losses))
    for strength in (1.0, 0.25):
        _, loss = epoch(trainer, model, strength=strength)
        assert loss - plain == pytest.approx(strength * penalty, rel=1e-4)


def test_who_follows_itself_has_nothing_to_learn():
    model = network()
    trainer = training.ScanTrainer(model, 0.0, l2=0.0, distil=1.0)
    own = training.State.of(model, trainer.optimizer())
    state, loss = epoch(trainer, model, rate=0.1, teacher=own)
    assert loss == pytest.approx(0, abs=1e-5)
    for value, began in zip(state.trainable, own.trainable, strict=True):
        np.testing.assert_allclose(value, began, atol=1e-5)


def test_the_same_seed_trains_the_same_and_another_does_not():
    model = network()
    trainer = training.ScanTrainer(model, 0.0, l2=0.0)
    one, again, other = (
        epoch(trainer, model, rate=0.1, seed=seed)[0].trainable[0]
        for seed in ((0, 1), (0, 1), (5, 1))
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(np.array(one) - np.array(other)).max() > 1e-4  # other crops and flips


def test_logits_are_those_of_the_model():
    model = network()
    trainer = training.ScanTrainer(model, 0.0, l2=0.0)
    found = trainer.logits(model, training.State.of(model, trainer.optimizer()), IMAGES)
    expected = model.predict(training.normalised(IMAGES), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
