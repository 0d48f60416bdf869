"""The training procedures: what each computes, and all of them through `compress`."""

import keras
import numpy as np
import pytest
from test_compress import blobs, small_model, without_seconds

import keras_gss as gss
from keras_gss import report
from keras_gss._keras import Callback, track_state


@pytest.fixture(autouse=True)
def _no_latencies(monkeypatch):
    monkeypatch.setattr(report, "latency", lambda before, after, batch: (1.0, 1.0))


def run(procedure, **changes):
    arguments = {
        "model": small_model(),
        "train": blobs(),
        "validation": blobs(100, seed=1),
        "target": gss.MacsBudget(0.4),
        "epochs": 3,
        "finetune_epochs": 1,
        "batch_size": 20,
        "learning_rate": 1e-2,
        "jit_compile": False,
        "steps_per_execution": 1,
        "verbose": False,
    }
    return gss.compress(procedure=procedure, **{**arguments, **changes})


def interrupted(procedure, directory, after, **changes):
    """Runs until `after` is printed, and goes no further."""

    def say(text, **options):
        if text.startswith(after):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", say)
        with pytest.raises(KeyboardInterrupt):
            run(procedure, directory=directory, verbose=True, **changes)


def assert_same_end(one, other):
    assert without_seconds(one.history) == without_seconds(other.history)
    for a, b in zip(one.trained.get_weights(), other.trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# The hook in `compress`


class Waning(gss.Procedure):
    """Multiplies the weights after each epoch by what a variable holds, which falls meanwhile."""

    def begin(self, model):
        self.steps = []
        self.share = track_state(model, 1.0, "share")
        return model

    def callbacks(self):
        return [_Wane(self)]

    def state(self):
        return [self.share]

    def end(self, model):
        self.steps.append("end")
        return model


class _Wane(Callback):
    def __init__(self, procedure):
        super().__init__()
        self.procedure = procedure

    def on_epoch_end(self, epoch, logs=None):
        share = self.procedure.share
        share.assign(share * 0.8)
        factor = float(keras.ops.convert_to_numpy(share))
        self.procedure.steps.append(round(factor, 4))
        self.model.set_weights([factor * weight for weight in self.model.get_weights()])


def test_hooks_are_called_around_the_training_and_its_state_is_saved(tmp_path):
    procedure = Waning()
    whole = run(procedure)
    assert procedure.steps == [0.8, 0.64, 0.512, "end"]
    assert [entry["phase"] for entry in whole.history] == ["train"] * 3 + ["finetune"]
    assert whole.settings["procedure"] == {"class_name": "Waning", "config": {}}
    interrupted(Waning(), tmp_path, after="train      2/3")
    resumed = Waning()
    assert_same_end(run(resumed, directory=tmp_path), whole)
    assert resumed.steps == [0.512, "end"]
    again = Waning()
    assert_same_end(run(again, directory=tmp_path), whole)
    assert again.steps == ["end"]
    with pytest.raises(ValueError, match="`directory` holds a run with .*procedure={"):
        run(None, directory=tmp_path, regularizer=gss.GSSStructure(1e-3))


def test_a_penalty_may_be_given_with_it_unless_it_brings_its_own():
    both = run(Waning(), regularizer=gss.GSSStructure(1e-3), epochs=1)
    assert both.history[0]["gss_penalty"] > 0
    assert "gss_penalty" not in run(Waning(), epochs=1).history[0]

    class Jealous(gss.Procedure):
        takes_penalty = False

    with pytest.raises(ValueError, match=r"Jealous\(\) brings a penalty of its own"):
        run(Jealous(), regularizer=gss.GSSStructure(1e-3))
    with pytest.raises(TypeError, match="`procedure` must be a Procedure"):
        run("spred")
