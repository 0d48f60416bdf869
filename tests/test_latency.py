"""Latencies are measured in turns; a latency as a target takes only what was measured."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss import latency
from keras_gss.latency.measure import take_turns
from keras_gss.pruning.budgets import BudgetError

TENSORFLOW = keras.backend.backend() == "tensorflow"
HERE = {"runtime": "tf_saved_model"}


def model(units=20, features=8):
    return keras.Sequential(
        [
            keras.Input((features,)),
            layers.Dense(units, "relu", name="hidden"),
            layers.Dense(3, name="classes"),
        ]
    )


def test_ratios_compare_within_rounds():
    # The second round is slow for both: the medians' ratio would be 0.25, the rounds' is 0.5.
    taken = gss.Latencies({"small": (1.0, 40.0, 1.0), "big": (2.0, 80.0, 4.0)})
    assert taken.median("small") == 1.0
    assert taken.ratio("small", to="big") == (0.5, 0.375, 0.5)
    expected = 1.2533 * np.std([0.0, 1.0]) * 0.125 / 0.5 / 1.349 / 0.5 / 3**0.5
    assert taken.noise("small", "big") == pytest.approx(expected, rel=1e-12)


def test_noise_is_the_medians_standard_error():
    rng = np.random.default_rng(0)
    medians = []
    for _ in range(2000):
        rounds = tuple(rng.normal(2.0, 0.2, 200))
        taken = gss.Latencies({"a": rounds, "b": (1.0,) * 200})
        medians.append(taken.ratio("a", "b")[0])
    assert taken.noise("a", "b") == pytest.approx(np.std(medians) / 2.0, rel=0.2)


@pytest.fixture
def timed(monkeypatch):
    """Makes calls that take so long, and the list of who was called."""
    clock, order = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def call(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds

        return run

    return call, order


def test_calls_take_turns(timed):
    call, order = timed
    taken = take_turns({"a": call("a", 0.0025), "b": call("b", 0.01)}, rounds=3)
    assert taken.seconds == {"a": pytest.approx((0.0025,) * 3), "b": pytest.approx((0.01,) * 3)}
    assert "".join(order[8:]) == "aab" + "baa" + "aab"  # after 4 calls of each


def test_what_takes_seconds_warms_up_once(timed):
    call, order = timed
    taken = take_turns({"a": call("a", 2.0), "b": call("b", 0.005)}, rounds=1)
    assert "".join(order) == "a" + "bbbb" + "ab"
    assert taken.median("a") == 2.0


@pytest.mark.parametrize("runtime", ["tf_saved_model", "litert", "onnx"])
def test_every_runtime_measures(runtime):
    if runtime != "tf_saved_model" and not TENSORFLOW:
        pytest.skip("LiteRT and ONNX files come from a graph of TensorFlow")
    x, flags = keras.Input((4,), name="x"), keras.Input((6,), name="some-flags")
    merged = layers.Concatenate()([layers.Dense(3)(x), flags])
    several = keras.Model({"a": x, "b": flags}, [merged, layers.Dense(2)(merged)])
    models = {"one": several, "other": model()}
    taken = gss.measure_latency(models, runtime=runtime, batch=3, rounds=2)
    assert set(taken.seconds) == {"one", "other"}
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in taken.seconds.values())


def test_goes_on_while_the_ratio_is_noisy(monkeypatch):
    monkeypatch.setattr(latency.measure, "prepare", lambda *arguments: lambda: None)
    rounds = iter([(1.0, 3.0), (2.0, 2.0), (2.0, 2.0), (9.0, 9.0)])

    def turns(calls, number):
        assert number == 2
        return gss.Latencies({"a": (1.0, 1.0), "b": next(rounds)})

    monkeypatch.setattr(latency.measure, "take_turns", turns)
    models = {"a": model(), "b": model()}
    taken = gss.measure_latency(models, rounds=2, noise=0.03, **HERE)
    assert taken.seconds["b"] == (1.0, 3.0, 2.0, 2.0, 2.0, 2.0)


def test_litert_takes_one_sample_of_a_recurrent_model_at_a_time():
    if not TENSORFLOW:
        pytest.skip("LiteRT files come from a graph of TensorFlow")
    recurrent = keras.Sequential([keras.Input((5, 2)), layers.GRU(3)])
    with pytest.warns(UserWarning, match="one sample at a time"):
        taken = gss.measure_latency({"gru": recurrent}, rounds=1)
    assert taken.median("gru") > 0
    with (
        pytest.warns(UserWarning, match="one sample at a time"),
        pytest.raises(ValueError, match="`batch` must be 1 for 'sequential.*batch=2"),
    ):
        gss.measure_latency({"gru": recurrent}, batch=2, rounds=1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": {}}, "`models` must be a dict of models"),
        ({"models": {"a": "model.keras"}}, "measure_latency"),
        ({"batch": 0}, "`batch`"),
        ({"threads": 1.5}, "`threads`"),
        ({"rounds": 0}, "`rounds`"),
        ({"noise": 0.0}, "`noise`"),
        ({"runtime": "tensorrt"}, "`runtime`"),
    ],
)
def test_bad_arguments(changed, message):
    arguments = {"models": {"a": model()}, **HERE, **changed}
    with pytest.raises((TypeError, ValueError), match=message):
        gss.measure_latency(**arguments)
    if "models" not in changed and {"rounds", "noise"}.isdisjoint(changed):
        with pytest.raises(ValueError, match=message):
            gss.Latency(0.5, **{**HERE, **changed})


def test_bad_targets():
    for changed in ({"fraction": 0.0}, {"fraction": 1.5}, {"probes": 0}, {"by": "l1"}):
        with pytest.raises(ValueError, match=f"`{next(iter(changed))}`"):
            gss.Latency(**{"fraction": 0.5, **HERE, **changed})


class Clock:
    """Takes the place of measuring: a call costs 1 and so many units per live MAC."""

    def __init__(self, monkeypatch, per_mac=0.01, lucky=()):
        self.per_mac, self.lucky, self.asked = per_mac, set(lucky), []
        monkeypatch.setattr(latency.target, "measure_latency", self.measure)

    def measure(self, models, *, rounds, noise, **options):
        macs = {name: gss.count(each).live_macs for name, each in models.items()}
        self.asked.append((macs["slim"], rounds, options))
        seconds = {name: 1.0 + self.per_mac * each for name, each in macs.items()}
        if macs["slim"] in self.lucky and rounds == latency.target._ROUNDS:
            seconds["slim"] = 1e-3
        return gss.Latencies({name: (each, each) for name, each in seconds.items()})


def units_left(dense, threshold):
    return gss.slim(gss.prune(dense, threshold, granularity="neuron")).layers[0].units


def test_the_target_takes_the_largest_model_that_is_fast_enough(monkeypatch):
    dense, clock = model(), Clock(monkeypatch)  # 20 * (8 + 3) MACs: 1 + 2.2 units of time
    target = gss.Latency(0.6, batch=7, threads=2, **HERE)
    threshold, measured = target.search(dense, "neuron")
    # 1.92 units are allowed: 0.92 for MACs, that is 8 neurons of 11 MACs.
    assert units_left(dense, threshold) == 8
    assert units_left(dense, target) == 8
    assert {tuple(options.items()) for *_, options in clock.asked} == {
        (("batch", 7), ("runtime", "tf_saved_model"), ("threads", 2))
    }
    chosen = measured[-1]
    assert chosen["live_macs"] == 88
    assert chosen["ratio"] == pytest.approx(1.88 / 3.2)
    assert chosen["noise"] == 0.0
    assert chosen["rounds"] == 4 * measured[0]["rounds"]


def test_a_lucky_measurement_is_not_trusted(monkeypatch):
    Clock(monkeypatch, lucky=(110,))
    dense = model()
    threshold, measured = gss.Latency(0.6, **HERE).search(dense, "neuron")
    assert 110 in [entry["live_macs"] for entry in measured]
    assert units_left(dense, threshold) == 8


def test_what_was_measured_is_not_measured_again(monkeypatch):
    dense, clock = model(), Clock(monkeypatch)
    target = gss.Latency(0.6, **HERE)
    threshold, measured = target.search(dense, "neuron")
    asked = len(clock.asked)
    again, same = target.search(dense, "neuron", tried=measured)
    assert (again, same, len(clock.asked)) == (threshold, measured, asked)
    heard = []
    target.search(dense, "neuron", tried=measured[:3], say=heard.append)
    assert heard == measured[3:]


def test_no_model_is_fast_enough(monkeypatch):
    Clock(monkeypatch)
    with pytest.raises(BudgetError, match=r"`Latency\(fraction=0.3.*fastest took 0\.35 of the"):
        gss.Latency(0.3, keep_strongest=True, **HERE).search(model(), "neuron")


def test_budgets_that_would_empty_a_layer_are_passed_over(monkeypatch):
    Clock(monkeypatch, per_mac=1.0)
    dense = model()
    kernel = dense.layers[0].kernel
    kernel.assign(keras.ops.ones_like(kernel))  # all neurons are alike: all go, or none
    dense.layers[1].kernel.assign(keras.ops.ones_like(dense.layers[1].kernel))
    with pytest.raises(BudgetError, match="fast enough.*At best 220 remain"):
        gss.Latency(0.5, **HERE).search(dense, "neuron")


def test_compress_reports_and_resumes(monkeypatch, tmp_path, capsys):
    clock = Clock(monkeypatch)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 8)).astype("float32"), rng.integers(0, 3, 60)

    def run():
        keras.utils.set_random_seed(0)
        return gss.compress(
            model(),
            (x, labels),
            (x, labels),
            target=gss.Latency(0.6, **HERE),
            epochs=0,
            finetune_epochs=0,
            timed=False,
            directory=tmp_path,
        )

    result = run()
    assert result.report.live_macs[1] == 88
    assert result.search[-1]["live_macs"] == 88
    assert "tf_saved_model latency 0.587 of the whole model's, +/- 0.0%" in capsys.readouterr().out
    asked = len(clock.asked)
    assert run().to_dict()["search"] == result.to_dict()["search"]
    assert len(clock.asked) == asked
