"""Networks are compared in full float32, whatever an accelerator would round to by default."""

import importlib

import keras
import pytest

import keras_gss as gss
from keras_gss import slimming, zoo
from keras_gss._keras import full_precision, precision

BACKEND = keras.backend.backend()


def rounds():
    """Tells whether float32 numbers are rounded before they are multiplied, on an accelerator."""
    if BACKEND == "jax":
        import jax

        return jax.config.jax_default_matmul_precision != "highest"
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """Lets JAX believe that it has one; TensorFlow has the same switch on any machine."""
    if BACKEND == "jax":
        monkeypatch.setattr(precision, "_platform", lambda: "gpu")
    assert rounds()


def test_it_holds_inside_and_ends_with_an_error():
    with pytest.raises(KeyError), full_precision():
        assert not rounds()
        raise KeyError
    assert rounds()


def test_jax_compiles_nothing_anew_for_a_processor(monkeypatch):
    monkeypatch.setattr(precision, "_platform", lambda: "cpu")
    with full_precision():
        assert rounds() is (BACKEND == "jax")


def test_slim_compares_so(monkeypatch):
    seen = recorded(monkeypatch, slimming._keras, "predict_lean")
    gss.slim(zoo.digits_mlp())
    assert seen == [False, False]
    assert rounds()


def test_export_compares_so(monkeypatch, tmp_path):
    seen = recorded(monkeypatch, importlib.import_module("keras_gss.export"), "random_inputs")
    gss.export(zoo.digits_mlp(), tmp_path / "model.keras", format="keras")
    assert seen == [False, False]


def test_a_reparametrised_model_is_compared_so(monkeypatch):
    from keras_gss.procedures import reparametrise

    seen = recorded(monkeypatch, reparametrise, "random_inputs")
    reparametrise._outputs(zoo.digits_mlp())
    assert seen == [False]


def recorded(monkeypatch, module, name):
    """Returns a list to which each call of a function adds whether numbers are rounded."""
    seen = []
    own = getattr(module, name)
    monkeypatch.setattr(
        module, name, lambda *given, **named: (seen.append(rounds()), own(*given, **named))[1]
    )
    return seen
