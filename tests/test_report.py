"""The table: its numbers are those of hand-counted models, and it fits a terminal."""

import json

import keras
import numpy as np
import pytest

from keras_gss import report
from keras_gss.report import compare, format_table
from keras_gss.slimming import slim


def network(hidden):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(hidden, activation="relu", name="fc"),
            keras.layers.Dense(3, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def made():
    """A network of which 5 of 8 neurons are dead, slimmed."""
    masked = network(8)
    kernel = masked.get_layer("logits").kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) * (np.arange(8) < 3)[:, None])
    small, slimming = slim(masked, return_report=True)
    accuracy = {"validation": (0.975, 0.97)}
    return compare(network(8), small, slimming=slimming, accuracy=accuracy)


def test_numbers_are_those_counted_by_hand(made):
    conv, fc, logits = made.layers
    assert (conv.shape, conv.parameters, conv.macs) == (
        ((3, 3, 1, 4), (3, 3, 1, 4)),
        (40, 40),
        (576, 576),
    )
    assert (fc.shape, fc.parameters, fc.macs) == (((64, 8), (64, 3)), (520, 195), (512, 192))
    assert (logits.shape, logits.parameters, logits.macs) == (((8, 3), (3, 3)), (27, 12), (24, 9))
    assert made.parameters == (587, 247)
    assert made.macs == made.live_macs == (1112, 777)
    assert made.cut["fc"] == (8, 3)
    assert made.input_features == {"image": (36, 36)}
    assert 0 <= made.max_difference <= 1e-5


def test_latency_and_file_size_are_measured(made):
    assert set(made.latency) == {1, 32}
    for seconds in made.latency.values():
        assert all(0 < each < 1 for each in seconds)
    before, after = made.file_bytes
    assert 4 * (587 - 247) <= before - after < 4 * (587 - 247) + 200


def test_table_tells_all_of_it_within_100_columns(made):
    text = made.table()
    assert text == str(made)
    assert max(map(len, text.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "layer kind shape -> after parameters -> after MACs -> after" in lines
    assert "fc Dense 64x8 64x3 520 195 512 192" in lines
    assert "total 587 247 1,112 777" in lines
    assert "parameters 587 247 2.4x" in lines
    assert "MACs, executed 1,112 777 1.4x" in lines
    assert "accuracy, validation 97.50% 97.00% -0.50 points" in lines
    assert "neurons of fc: 8 -> 3" in lines
    assert "neurons of conv: all stay" in lines
    assert any(line.startswith("latency at batch 32, ms ") for line in lines)
    assert any(line.startswith("file size (.keras), bytes ") for line in lines)
    assert any("slim and masked outputs differ by at most " in line for line in lines)


def test_columns_are_aligned(made):
    header, *rows = made.table().split("\n\n")[0].splitlines()
    assert len({len(row) for row in [header, *rows]}) == 1
    ends = [header.index(word) + len(word) for word in ("parameters", "MACs")]
    for row in rows:
        assert all(row[end - 1].isdigit() and row[end] == " " for end in ends)


def test_it_survives_json(made):
    loaded = json.loads(json.dumps(made.to_dict()))
    assert loaded["layers"][1]["shape"] == [[64, 8], [64, 3]]
    assert loaded["accuracy"] == {"validation": [0.975, 0.97]}
    assert loaded["max_difference"] == made.max_difference
    assert set(loaded["latency"]) == {"1", "32"}


def test_what_was_not_measured_is_left_out():
    bare = compare(network(8), network(3), timed=False)
    assert bare.latency == {} and bare.max_difference is None
    for word in ("latency", "accuracy", "neurons of", "random inputs"):
        assert word not in bare.table()


def test_latency_is_the_median_of_calls_in_turns(monkeypatch):
    clock, calls = [0.0], []
    durations = {"slow": [5.0, 1.0, 4.0], "fast": [2.0, 9.0, 1.0]}

    def compiled(model, batch):
        def call():
            calls.append(model)
            if len(calls) > 6:
                clock[0] += durations[model].pop(0)

        return call

    monkeypatch.setattr(report, "_compiled", compiled)
    monkeypatch.setattr(report.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(report, "_ROUNDS", 3)
    monkeypatch.setattr(report, "_SECONDS", 100.0)
    assert report.latency("slow", "fast", batch=7) == (4.0, 2.0)
    assert calls == ["slow", "fast"] * 6


def test_a_bound_batch_and_several_inputs_can_be_timed():
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    model = keras.Model(
        {"left": left, "right": right}, keras.layers.Dense(2)(keras.layers.Add()([left, right]))
    )
    assert all(seconds > 0 for seconds in report.latency(model, model, batch=2))


def test_format_table_aligns_left_then_right():
    rows = [("a", "bb", "c"), ("aaa", "b", "ccc")]
    assert format_table(rows, left=1) == "a    bb    c\naaa   b  ccc"
