"""Exports: what is written computes the same, and nothing half-written or lost is left behind."""

import os
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gss as gss
from keras_gss.export import export, saved_model

module = sys.modules["keras_gss.export"]


def chain(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            keras.layers.Dense(5, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, name="logits"),
        ]
    )


def branches(outputs="list"):
    keras.utils.set_random_seed(1)
    left = keras.Input((4,), name="left")
    right = keras.Input((4, 2), name="right", dtype="float16")
    both = keras.layers.Concatenate()([left, keras.layers.Flatten()(right)])
    a = keras.layers.Dense(2, name="a")(both)
    b = keras.layers.Dense(1, name="b")(both)
    return keras.Model([left, right], [a, b] if outputs == "list" else {"p": a, "q": b})


def signature(path):
    loaded = tf.saved_model.load(str(path)).signatures["serving_default"]
    inputs = {
        k: (v.shape.as_list(), v.dtype) for k, v in loaded.structured_input_signature[1].items()
    }
    outputs = {k: (v.shape.as_list(), v.dtype) for k, v in loaded.structured_outputs.items()}
    return inputs, outputs


def test_saved_model_computes_the_same_for_any_batch_size(tmp_path):
    model = chain()
    path = export(model, tmp_path / "small")
    loaded = tf.saved_model.load(str(path))
    for batch in (1, 2, 17):
        x = np.random.default_rng(batch).standard_normal((batch, 6)).astype("float32")
        expected = keras.ops.convert_to_numpy(model(x, training=False))
        np.testing.assert_allclose(loaded.serve(x).numpy(), expected, rtol=0, atol=1e-6)


def test_signature_has_the_models_names_dtypes_and_a_free_batch_axis(tmp_path):
    inputs, outputs = signature(export(chain(), tmp_path / "chain"))
    assert inputs == {"features": ([None, 6], tf.float32)}
    assert outputs == {"output_0": ([None, 3], tf.float32)}
    inputs, outputs = signature(export(branches(), tmp_path / "list"))
    assert inputs == {"left": ([None, 4], tf.float32), "right": ([None, 4, 2], tf.float16)}
    assert outputs == {"output_0": ([None, 2], tf.float32), "output_1": ([None, 1], tf.float32)}
    assert set(signature(export(branches("dict"), tmp_path / "dict"))[1]) == {"p", "q"}


def test_signature_equals_the_one_keras_writes(tmp_path):
    model = branches("dict")
    model.export(str(tmp_path / "keras"), verbose=False)
    assert signature(export(model, tmp_path / "ours")) == signature(tmp_path / "keras")


def test_unnamed_inputs_keep_their_name_when_the_model_is_rebuilt(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    rebuilt = keras.Sequential.from_config(model.get_config())
    before = signature(export(model, tmp_path / "before"))
    assert signature(export(rebuilt, tmp_path / "after")) == before


@pytest.mark.parametrize("name", ["my input", "größe", "x:0"])
def test_input_names_that_tensorflow_cannot_have(tmp_path, name):
    model = keras.Sequential([keras.Input((4,), name=name), keras.layers.Dense(2)])
    inputs, _ = signature(export(model, tmp_path / "out"))
    assert list(inputs) == [re.sub("[^a-z0-9]", "_", name)]


def test_several_inputs_are_called_in_the_models_own_structure(tmp_path):
    model = branches()
    loaded = tf.saved_model.load(str(export(model, tmp_path / "two")))
    x = [np.ones((2, 4), "float32"), np.ones((2, 4, 2), "float16")]
    for expected, received in zip(model(x, training=False), loaded.serve(x), strict=True):
        np.testing.assert_allclose(
            received.numpy(), keras.ops.convert_to_numpy(expected), rtol=0, atol=1e-5
        )


def test_saved_model_holds_every_weight_once(tmp_path):
    path = export(keras.Sequential([keras.Input((300,)), keras.layers.Dense(200)]), tmp_path / "m")
    size = (path / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert 4 * 300 * 200 <= size < 1.1 * 4 * 300 * 200
    assert len(tf.saved_model.load(str(path)).trainable_variables) == 2


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf_keras, TFSMLayer: TF only")
def test_saved_model_of_tf_keras_is_as_small_quiet_and_loads_as_a_layer(tmp_path, capsys):
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((300,)), tf_keras.layers.Dense(200)])
    path = export(model, tmp_path / "m")
    assert capsys.readouterr().out == ""
    assert tf_keras.utils.is_interactive_logging_enabled()
    size = (path / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert 4 * 300 * 200 <= size < 1.1 * 4 * 300 * 200
    x = np.random.default_rng(0).standard_normal((2, 300)).astype("float32")
    layer = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default")
    np.testing.assert_allclose(layer(x)["output_0"], model(x), rtol=0, atol=1e-5)
    ours = keras.Sequential([keras.Input((300,)), keras.layers.Dense(200)])
    layer = keras.layers.TFSMLayer(str(export(ours, tmp_path / "k")), call_endpoint="serve")
    np.testing.assert_allclose(layer(x), ours(x), rtol=0, atol=1e-5)


def test_saved_model_loads_without_keras_gss_and_without_keras(tmp_path):
    path = export(chain(), tmp_path / "small")
    code = (
        "import sys, tensorflow as tf\n"
        f"loaded = tf.saved_model.load({str(path)!r})\n"
        "print(loaded.serve(tf.ones((2, 6))).shape)\n"
        "assert 'keras_gss' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(2, 3)"


def test_integer_inputs_of_an_embedding_are_checked_with_valid_indices(tmp_path):
    words = keras.Input((7,), name="words")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(3, 4)(words))
    path = export(keras.Model(words, keras.layers.Dense(2)(hidden)), tmp_path / "text")
    assert signature(path)[0] == {"words": ([None, 7], tf.float32)}


def test_keras_format(tmp_path):
    model = chain()
    path = export(model, str(tmp_path / "small.keras"), format="keras")
    x = np.ones((2, 6), "float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.models.load_model(path)(x)),
        keras.ops.convert_to_numpy(model(x)),
    )


def test_model_is_not_changed(tmp_path):
    model = chain()
    config, weights = model.get_config(), model.get_weights()
    export(model, tmp_path / "small")
    assert model.get_config() == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("received", ["tflite", "h5", "", None, 3])
def test_other_formats_are_refused_by_name(tmp_path, received):
    with pytest.raises(ValueError, match="one of 'tf_saved_model', .* 'onnx'. Received: format="):
        export(chain(), tmp_path / "small", format=received)
    assert os.listdir(tmp_path) == []


def test_a_keras_file_needs_its_ending(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in '.keras' .* Received: .*small.h5"):
        export(chain(), tmp_path / "small.h5", format="keras")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="says what JAX cannot do")
@pytest.mark.parametrize(("form", "ending"), [("litert", "tflite"), ("onnx", "onnx")])
def test_formats_converted_from_a_graph_need_tensorflow_as_the_backend(tmp_path, form, ending):
    with pytest.raises(RuntimeError, match="runs on 'jax'. Write a .keras file, and export that"):
        export(chain(), tmp_path / f"small.{ending}", form)
    assert os.listdir(tmp_path) == []


def test_an_unbuilt_model_and_nan_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`export` needs a built model"):
        export(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "small")
    model = chain()
    model.get_layer("hidden").bias.assign(np.full(5, np.nan))
    with pytest.raises(ValueError, match="`export` needs finite weights"):
        export(model, tmp_path / "small")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("format", "name"), [("tf_saved_model", "small"), ("keras", "s.keras")])
def test_an_existing_target_is_replaced_only_when_asked(tmp_path, format, name):
    path = export(chain(seed=0), tmp_path / name, format=format)
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        export(chain(seed=1), path, format=format)
    second = chain(seed=1)
    export(second, path, format=format, overwrite=True)
    load = keras.models.load_model if format == "keras" else tf.saved_model.load
    loaded = load(str(path))
    x = np.ones((1, 6), "float32")
    received = loaded(x) if format == "keras" else loaded.serve(x)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(received),
        keras.ops.convert_to_numpy(second(x, training=False)),
        atol=1e-6,
    )
    assert os.listdir(tmp_path) == [name]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert export(chain(), f"{tmp_path}/out/") == tmp_path / "out"
    assert (tmp_path / "out" / "saved_model.pb").is_file()


def test_what_is_no_export_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="no earlier export"):
        export(chain(), tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "folder.keras" / "notes.txt").write_text("more work")
    with pytest.raises(FileExistsError, match="no earlier export"):
        export(chain(), tmp_path / "folder.keras", format="keras", overwrite=True)


def test_an_unwritable_target_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(saved_model, "write", lambda *_: pytest.fail("work began"))
    with pytest.raises(OSError, match=r"file/out' cannot be written: "):
        export(chain(), tmp_path / "file" / "out")


def failing(model, path, batch=None):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"half")
    raise OSError("No space left on device")


def lying(model, path, batch=None):
    other = keras.models.clone_model(model)
    other.set_weights([1.5 * weight for weight in model.get_weights()])
    write(other, path)


write = saved_model.write


def lying_a_little(model, path, batch=None):
    other = keras.models.clone_model(model)
    other.set_weights([1.0003 * weight for weight in model.get_weights()])
    write(other, path)


@pytest.mark.parametrize(
    ("writer", "error", "message"),
    [
        (failing, OSError, "No space"),
        (lying, RuntimeError, "differs from .* Nothing was kept"),
        (lying_a_little, RuntimeError, "differs from .* Nothing was kept"),
    ],
)
def test_a_failure_leaves_the_earlier_export_and_nothing_else(
    tmp_path, monkeypatch, writer, error, message
):
    path = export(chain(), tmp_path / "small")
    before = signature(path), sorted(p.stat().st_mtime_ns for p in path.rglob("*"))
    monkeypatch.setattr(saved_model, "write", writer)
    with pytest.raises(error, match=message):
        export(chain(), path, overwrite=True)
    with pytest.raises(error, match=message):
        export(chain(), tmp_path / "new")
    assert os.listdir(tmp_path) == ["small"]
    assert (signature(path), sorted(p.stat().st_mtime_ns for p in path.rglob("*"))) == before


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 only")
@pytest.mark.parametrize("form", ["tf_saved_model", "keras"])
def test_what_rounding_blurs_is_compared_in_float64(tmp_path, monkeypatch, form):
    model = chain()
    compared, difference = [], module._difference

    def noisy(one, reloaded):
        compared.append(one.layers[-1].compute_dtype)
        return difference(one, reloaded) + (2e-5 if compared[-1] == "float32" else 0.0)

    monkeypatch.setattr(module, "_difference", noisy)
    path = export(model, tmp_path / ("small.keras" if form == "keras" else "small"), form)
    assert compared == ["float32", "float64"]
    assert os.listdir(tmp_path) == [path.name]


def test_a_failed_swap_puts_the_earlier_export_back(tmp_path, monkeypatch):
    path = export(chain(), tmp_path / "small")
    rename = type(path).rename

    def refuse(self, target):
        if target == path and not self.name.endswith(".previous"):
            raise OSError("the disk went away")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", refuse)
    with pytest.raises(OSError, match="the disk went away"):
        export(chain(seed=1), path, overwrite=True)
    assert os.listdir(tmp_path) == ["small"]
    assert (path / "saved_model.pb").is_file()


def test_mixed_precision_is_compared_with_what_half_floats_allow(tmp_path):
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [keras.Input((8,), name="x"), keras.layers.Dense(4, dtype=policy, name="half")]
    )
    assert signature(export(model, tmp_path / "half"))[1] == {"output_0": ([None, 4], tf.float16)}


def test_a_written_keras_file_is_a_whole_archive(tmp_path):
    path = export(chain(), tmp_path / "small.keras", format="keras")
    assert zipfile.ZipFile(path).testzip() is None
    assert gss.export is export
