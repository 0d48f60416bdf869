"""`load_model`: files of both libraries, and clear words about all others."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf_keras runs on TensorFlow only", allow_module_level=True)

import tf_keras

import keras_gss as gss


def build(library):
    return library.Sequential(
        [library.Input((4,)), library.layers.Dense(3, name="fc"), library.layers.Dense(2)]
    )


@pytest.mark.parametrize("library", [keras, tf_keras], ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5", "folder"])
def test_the_library_that_wrote_a_file_reads_it(library, name, tmp_path):
    model = build(library)
    if name == "folder" and library is keras:
        gss.export(model, tmp_path / name)
        with pytest.raises(ValueError, match=r"made by `export` holds functions only"):
            gss.load_model(tmp_path / name)
        return
    model.save(tmp_path / name)
    loaded = gss.load_model(tmp_path / name)
    assert type(loaded) is type(model)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("library", [keras, tf_keras], ids=lambda each: each.__name__)
def test_fixed_zeros_are_read_with_the_model(library, tmp_path):
    pruned = gss.prune(build(library), gss.StdThreshold(0.8))
    pruned.save(tmp_path / "pruned.keras")
    loaded = gss.load_model(tmp_path / "pruned.keras")
    assert gss.count(loaded).nonzero_weights == gss.count(pruned).nonzero_weights < 18
    loaded.compile("adam", "mse")
    loaded.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    assert gss.count(loaded).nonzero_weights == gss.count(pruned).nonzero_weights


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_other_files_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(ValueError, match=f"{name}' does not load as a Keras model"):
        gss.load_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        gss.load_model(tmp_path / f"absent-{name}")
