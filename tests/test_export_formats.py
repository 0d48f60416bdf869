"""LiteRT and ONNX files compute what the model does, in their own runtimes."""

import os
import sys

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_gss as gss
from keras_gss.export import saved_model

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="both formats come from a graph of TensorFlow"
)
ENDINGS = {"litert": "tflite", "onnx": "onnx"}
both = pytest.mark.parametrize("form", ENDINGS)


def write(model, folder, form, **options):
    return gss.export(model, folder / f"small.{ENDINGS[form]}", form, **options)


def run(path, **inputs):
    """Calls a file as its users do, without anything of keras_gss."""
    if path.suffix == ".tflite":
        return Interpreter(model_path=str(path)).get_signature_runner()(**inputs)
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def expected(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def dense():
    return keras.Sequential(
        [
            keras.Input((12, 12), name="image"),
            layers.Flatten(),
            layers.Dense(30, activation="relu", name="fc1"),
            layers.Dense(10, activation="relu", name="fc2"),
            layers.Dense(4, name="logits"),
        ]
    )


def convolutional():
    """Half of the channels of the first convolution are read by nobody."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1), name="image"),
            layers.Conv2D(8, 5, name="conv1"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 3, name="conv2"),
            layers.Flatten(),
            layers.Dense(4, name="logits"),
        ]
    )
    norm, conv2 = model.get_layer("norm"), model.get_layer("conv2")
    norm.moving_mean.assign(normal(8))
    norm.moving_variance.assign(np.abs(normal(8)))
    conv2.kernel.assign(conv2.kernel * np.tile([0.0, 1.0], 4)[:, None])
    return model


@both
def test_outputs_are_the_models_for_any_batch_size(tmp_path, form):
    model = dense()
    path = write(model, tmp_path, form)
    for batch in (1, 3, 17):
        x = normal(batch, 12, 12)
        received = run(path, image=x)
        assert list(received) == ["output_0"]
        np.testing.assert_allclose(received["output_0"], expected(model, x), rtol=0, atol=1e-5)
    assert os.listdir(tmp_path) == [path.name]
    parameters = 144 * 30 + 30 + 30 * 10 + 10 + 10 * 4 + 4
    assert 4 * parameters < path.stat().st_size < 4 * parameters + 4000  # every weight once


@both
def test_what_slim_cut_is_not_in_the_file(tmp_path, form):
    model = convolutional()
    small = gss.slim(model)
    assert small.get_layer("conv1").filters == 4
    path, x = write(small, tmp_path, form), normal(5, 12, 12, 1)
    np.testing.assert_allclose(
        run(path, image=x)["output_0"], expected(model, x), rtol=0, atol=1e-5
    )
    parameters = small.count_params()
    assert path.stat().st_size < 4 * parameters + 12_000


@both
def test_names_of_inputs_and_outputs_are_those_of_the_saved_model(tmp_path, form):
    left, right = keras.Input((4,), name="the left"), keras.Input((2,), name="right", dtype="int32")
    x = layers.Concatenate()([left, layers.Flatten()(layers.Embedding(5, 3)(right))])
    model = keras.Model([left, right], {"q": layers.Dense(2)(x), "p": layers.Dense(1)(x)})
    path = write(model, tmp_path, form)
    inputs = {"the_left": normal(3, 4), "right": np.array([[0, 1], [2, 3], [4, 4]], "int32")}
    received, wanted = run(path, **inputs), model(list(inputs.values()))
    assert set(received) == {"p", "q"}
    for name in received:
        np.testing.assert_allclose(received[name], wanted[name].numpy(), rtol=0, atol=1e-6)


@both
def test_tf_keras_models(tmp_path, form):
    model = gss.to_tf_keras(dense())
    path, x = write(model, tmp_path, form), normal(3, 12, 12)
    np.testing.assert_allclose(run(path, image=x)["output_0"], model(x).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "linear"])
def test_onnx_of_what_tf2onnx_does_not_know(tmp_path, activation):
    """Keras compiles convolutions in groups with XLA, and GELU is made of erfc."""
    groups = 1 if activation == "gelu" else 2
    conv = layers.Conv2D(4, 3, groups=groups, activation=activation)
    model = keras.Sequential([keras.Input((5, 5, 4), name="x"), conv])
    path, x = write(model, tmp_path, "onnx"), normal(2, 5, 5, 4)
    np.testing.assert_allclose(run(path, x=x)["output_0"], expected(model, x), rtol=0, atol=1e-6)


def test_a_recurrent_litert_file_takes_one_sample_at_a_time_and_says_so(tmp_path):
    model = keras.Sequential([keras.Input((3, 2), name="x"), layers.SimpleRNN(2)])
    with pytest.warns(UserWarning, match="written for one sample at a time"):
        path = write(model, tmp_path, "litert")
    x = normal(1, 3, 2)
    np.testing.assert_allclose(run(path, x=x)["output_0"], expected(model, x), rtol=0, atol=1e-6)


def test_litert_files_compute_in_float32_whatever_the_model_does(tmp_path):
    hidden = layers.Dense(4, dtype="mixed_float16", name="half")
    model = keras.Sequential([keras.Input((8,), name="x"), hidden])
    path, x = write(model, tmp_path, "litert"), normal(2, 8)
    received = run(path, x=x)["output_0"]
    assert received.dtype == np.float32
    np.testing.assert_allclose(
        received, x @ hidden.kernel.numpy() + hidden.bias.numpy(), rtol=0, atol=1e-6
    )


@both
def test_operations_that_a_format_lacks_are_named(tmp_path, form):
    function = layers.Lambda(lambda x: tf.raw_ops.Betainc(a=x * x, b=x * x, x=tf.sigmoid(x)))
    model = keras.Sequential([keras.Input((4,)), function])
    with pytest.raises(RuntimeError, match=f"cannot be written in the format '{form}'.*Betainc"):
        write(model, tmp_path, form)
    assert os.listdir(tmp_path) == []


@both
def test_a_file_that_computes_something_else_is_not_kept(tmp_path, form, monkeypatch):
    path = tmp_path / f"small.{ENDINGS[form]}"
    path.write_text("earlier")

    def lying(model, folder, batch=None):
        other = keras.models.clone_model(model)
        other.set_weights([1.001 * weight for weight in model.get_weights()])
        honest(other, folder, batch)

    honest = saved_model.write
    monkeypatch.setattr(saved_model, "write", lying)
    with pytest.raises(RuntimeError, match="differs from .* Nothing was kept"):
        write(dense(), tmp_path, form, overwrite=True)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "earlier"


@both
def test_an_earlier_file_is_replaced_only_when_asked(tmp_path, form):
    path = tmp_path / f"small.{ENDINGS[form]}"
    path.write_text("earlier")
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        write(dense(), tmp_path, form)
    model = dense()
    write(model, tmp_path, form, overwrite=True)
    x = normal(1, 12, 12)
    np.testing.assert_allclose(
        run(path, image=x)["output_0"], expected(model, x), rtol=0, atol=1e-5
    )
    path.unlink()
    path.mkdir()
    (path / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="no earlier export"):
        write(dense(), tmp_path, form, overwrite=True)


@both
def test_a_file_needs_its_ending_and_a_folder_none(tmp_path, form):
    with pytest.raises(ValueError, match=f"`path` must end in '.{ENDINGS[form]}' for format"):
        gss.export(dense(), tmp_path / "small.keras", form)
    with pytest.raises(ValueError, match=f"should not: pass format='{form}' for a file"):
        gss.export(dense(), tmp_path / f"small.{ENDINGS[form]}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("form", "module"),
    [
        ("litert", "ai_edge_litert.interpreter"),
        ("onnx", "tf2onnx"),
        ("onnx", "onnxruntime"),
    ],
)
def test_an_absent_package_is_named_before_any_work(tmp_path, monkeypatch, form, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(saved_model, "write", lambda *_: pytest.fail("work began"))
    with pytest.raises(ImportError, match=rf"{module}.*pip install 'keras-gss\[{form}\]'"):
        write(dense(), tmp_path, form)
    assert os.listdir(tmp_path) == []
