"""The one-call pipeline on data of a few hundred points: what it makes, refuses and survives."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest
from keras import tree

import keras_gss as gss
from keras_gss import report
from keras_gss.compress.data import batches, check_data, epoch_order
from keras_gss.compress.distillation import one_hot, soften
from keras_gss.compress.optimizers import AdamL2
from keras_gss.compress.phases import Phase, Speed, choose_speed, in_words, loss_for
from keras_gss.compress.pipeline import _WarnIfEmptied
from keras_gss.compress.search import largest_accepted
from keras_gss.compress.state import RunDirectory

FAST = {
    "batch_size": 20,
    "learning_rate": 1e-2,
    "jit_compile": False,
    "steps_per_execution": 1,
    "verbose": False,
}


@pytest.fixture(autouse=True)
def _no_latencies(monkeypatch):
    """Leaves out of the reports what takes seconds to measure and belongs to test_report.py."""
    monkeypatch.setattr(report, "latency", lambda before, after, batch: (1.0, 1.0))


def blobs(samples=200, seed=0):
    """Three classes of points; of the six features two carry nothing."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, samples)
    centres = np.random.default_rng(7).normal(size=(3, 6)) * [2, 2, 2, 2, 0, 0]
    return np.float32(centres[labels] + random.normal(size=(samples, 6))), labels


def small_model(seed=0, activation=None):
    initializers = iter(keras.initializers.GlorotUniform(seed=k) for k in range(seed, seed + 9))
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(
                16, activation="relu", kernel_initializer=next(initializers), name="a"
            ),
            keras.layers.Dense(
                8, activation="relu", kernel_initializer=next(initializers), name="b"
            ),
            keras.layers.Dense(
                3, activation=activation, kernel_initializer=next(initializers), name="c"
            ),
        ]
    )


def run(**changes):
    arguments = {
        "model": small_model(),
        "train": blobs(),
        "validation": blobs(100, seed=1),
        "target": gss.MacsBudget(0.4, inputs=True),
        "regularizer": gss.GSSStructure(1e-3, inputs=True),
        "pretrain_epochs": 1,
        "epochs": 3,
        "finetune_epochs": 2,
        **FAST,
    }
    return gss.compress(**{**arguments, **changes})


@pytest.fixture(scope="module")
def whole():
    """The result of an uninterrupted run with the settings of `run`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "latency", lambda before, after, batch: (1.0, 1.0))
        return run()


def without_seconds(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


def test_result_is_small_and_equal_to_the_pruned_model(whole):
    model = small_model()
    before = model.get_weights()
    result = run(model=model, test=blobs(50, seed=2))
    for a, b in zip(result.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # test data change nothing
    phases = [(entry["phase"], entry["epoch"]) for entry in result.history]
    assert phases == [
        ("pretrain", 1),
        ("train", 1),
        ("train", 2),
        ("train", 3),
        ("finetune", 1),
        ("finetune", 2),
    ]
    dense, left = result.report.live_macs
    assert dense == 6 * 16 + 16 * 8 + 8 * 3
    assert left == gss.count(result.pruned).live_macs <= 0.4 * dense
    x = blobs(20, seed=3)[0]
    np.testing.assert_allclose(result.model(x), result.pruned(x), rtol=0, atol=1e-5)
    assert result.model.count_params() < model.count_params()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_finetuning_keeps_the_zeros_and_moves_the_rest(whole):
    cut = gss.prune(whole.trained, whole.threshold, granularity="neuron")
    for zeroed, tuned in zip(cut.get_weights(), whole.pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(tuned[zeroed == 0], 0)
        assert np.abs(tuned - zeroed).max() > 1e-4


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_distillation_mixes_what_the_dense_model_holds_for_likely(activation):
    teacher = small_model(activation=activation)
    inputs, labels = one_hot(blobs(30), teacher)
    np.testing.assert_array_equal(labels.argmax(-1), blobs(30)[1])
    logits = np.float64(teacher(inputs))
    if activation:
        logits = np.log(logits)
    softened = np.exp(logits / 2) / np.exp(logits / 2).sum(-1, keepdims=True)
    _, mixed = soften((inputs, labels), teacher, 0.25)
    np.testing.assert_allclose(mixed, 0.75 * labels + 0.25 * softened, atol=1e-6)
    assert mixed.dtype == np.float32


def test_distillation_draws_the_finetuned_model_to_the_dense_one(whole):
    x = blobs(200, seed=3)[0]
    dense = keras.ops.softmax(whole.trained(x) / 2)
    distances = []
    for share in (0.0, 1.0):
        result = run(distillation=share, finetune_epochs=20, test=blobs(50, seed=2))
        distances.append(np.abs(keras.ops.softmax(result.pruned(x)) - dense).mean())
        assert result.accuracies["test_last_epoch"] > 0.8
    assert distances[1] < 0.5 * distances[0]
    np.testing.assert_array_equal(result.trained.get_weights()[0], whole.trained.get_weights()[0])


def test_the_penalty_acts_in_training_only(whole):
    strong = run(regularizer=gss.GSSStructure(1e-2, inputs=True), finetune_epochs=1)

    def size(model):
        return sum(np.abs(w).sum() for w in model.get_weights()[::2])

    assert size(strong.trained) < 0.7 * size(whole.trained)
    train = [entry for entry in strong.history if entry["phase"] == "train"]
    assert all(entry["gss_penalty"] > 0 for entry in train)
    assert "gss_penalty" not in strong.history[0]
    assert "gss_penalty" not in strong.history[-1]


def test_the_schedule_says_how_strong_the_penalty_is():
    def from_the_second(epoch):
        return float(epoch > 0)

    late = run(schedule=from_the_second, pretrain_epochs=0, epochs=2, finetune_epochs=0)
    first, second = (entry["gss_penalty"] for entry in late.history)
    assert first == 0 < second
    assert "from_the_second" in late.settings["schedule"]


def test_accuracies_are_those_of_the_models():
    test = blobs(80, seed=2)
    result = run(test=test)

    def accuracy(model, data):
        return np.mean(np.argmax(model(data[0]), axis=1) == data[1])

    found = result.accuracies
    assert found["trained"] == pytest.approx(accuracy(result.trained, blobs(100, seed=1)))
    assert found["finetuned"] == pytest.approx(accuracy(result.model, blobs(100, seed=1)))
    assert found["test_last_epoch"] == pytest.approx(accuracy(result.model, test))
    by_epoch = [e["test_accuracy"] for e in result.history if e["phase"] == "finetune"]
    assert len(by_epoch) == 2 and found["test_best_epoch"] == max(by_epoch)
    assert found["test_last_epoch"] == by_epoch[-1]
    assert "test_accuracy" not in result.history[0]
    assert found["finetuned"] > 0.8


def test_test_data_are_read_once_and_after_every_choice(tmp_path):
    calls = []

    def read():
        calls.append(sorted(path.name for path in tmp_path.iterdir()))
        return blobs(30, seed=2)

    run(directory=tmp_path, test=read, pretrain_epochs=0, epochs=1, finetune_epochs=1)
    assert len(calls) == 1
    assert "trained.keras" in calls[0] and "finetune.npz" not in calls[0]


def test_accuracy_drop_takes_the_largest_ratio_that_holds():
    target = gss.AccuracyDrop(0.05, probe_epochs=1, probes=4)
    result = run(target=target, pretrain_epochs=5)
    floor = result.accuracies["dense"] - 0.05
    held = [entry["ratio"] for entry in result.search if entry["accuracy"] >= floor]
    failed = [entry["ratio"] for entry in result.search if entry["accuracy"] < floor]
    assert len(result.search) == 4 and held
    assert result.threshold == gss.StdThreshold(max(held), inputs=True)
    assert all(ratio > max(held) for ratio in failed)


def test_accuracy_drop_empties_no_layer_however_much_may_be_lost():
    target = gss.AccuracyDrop(0.99, probe_epochs=0, probes=3)
    result = run(target=target, pretrain_epochs=0, epochs=0, finetune_epochs=0)
    emptied = [entry["ratio"] for entry in result.search if entry["live_macs"] == 0]
    assert emptied and result.threshold.ratio < min(emptied)
    assert result.report.live_macs[1] > 0


def test_accuracy_drop_that_cannot_be_met():
    with pytest.raises(ValueError, match="no ratio tried keeps a validation accuracy of"):
        run(
            target=gss.AccuracyDrop(0.0, probe_epochs=0, probes=1),
            pretrain_epochs=8,
            epochs=0,
        )


def test_element_granularity_and_one_hot_labels():
    (x, y), (vx, vy) = blobs(), blobs(100, seed=1)
    result = run(
        model=small_model(activation="softmax"),
        train=(x, np.eye(3, dtype="float32")[y]),
        validation=(vx, np.eye(3, dtype="float32")[vy]),
        target=gss.StdThreshold(0.8),
        granularity="element",
    )
    assert result.threshold == gss.StdThreshold(0.8)
    zeros = [np.mean(weight == 0) for weight in result.pruned.get_weights()[::2]]
    assert all(0.2 < share < 0.9 for share in zeros)


def test_penalties_that_the_layers_declare():
    penalty = gss.GSSStructure(1e-3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, activation="relu", kernel_regularizer=penalty, name="a"),
            keras.layers.Dense(8, activation="relu", kernel_regularizer=penalty, name="b"),
            keras.layers.Dense(3, name="c"),
        ]
    )
    result = run(model=model, regularizer=None, epochs=1, finetune_epochs=0)
    assert result.history[1]["gss_penalty"] > 0
    result.pruned.compile(
        "adam", "sparse_categorical_crossentropy"
    )  # the penalty is gone: unbound it would raise here
    result.pruned.fit(np.ones((4, 6)), np.zeros(4, int), verbose=0)


# Resuming


SCRIPT = textwrap.dedent(
    """
    import sys
    sys.path[:0] = [{tests!r}, {root!r}]
    import test_compress
    test_compress.run(directory={directory!r}, verbose=True)
    """
)


def run_and_kill(directory, after):
    """Runs `run` in a process of its own and kills it as soon as it has printed `after`."""
    tests = os.path.dirname(__file__)
    script = SCRIPT.format(tests=tests, root=os.path.dirname(tests), directory=str(directory))
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith(after):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


def test_killed_runs_end_where_an_uninterrupted_one_ends(tmp_path, whole):
    run_and_kill(tmp_path, "train      2/3")
    run_and_kill(tmp_path, "finetune   1/2")
    resumed = run(directory=tmp_path)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    for name in ("trained", "pruned", "model"):
        pairs = zip(
            getattr(resumed, name).get_weights(), getattr(whole, name).get_weights(), strict=True
        )
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)


def noisy(inputs, random):
    """Adds noise to arrays in any structure."""
    return tree.map_structure(lambda a: a + 10 * random.random(a.shape, "float32"), inputs)


def with_dropout():
    layers = small_model().layers
    return keras.Sequential([keras.Input((6,)), layers[0], keras.layers.Dropout(0.5), *layers[1:]])


@pytest.mark.parametrize(
    "changes",
    [{"model": with_dropout()}, {"augment": noisy, "schedule": gss.WarmUpFactor(1, start=0.5)}],
)
def test_what_is_drawn_follows_from_the_seed(tmp_path, changes):
    def short(**more):
        return run(pretrain_epochs=0, epochs=2, finetune_epochs=1, **changes, **more)

    def say(text, **options):
        if text.startswith(("train      1/2", "StdThreshold")):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", say)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                short(directory=tmp_path, verbose=True)
    resumed, whole = short(directory=tmp_path), short()
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    for a, b in zip(resumed.pruned.get_weights(), whole.pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_finished_directory_gives_the_result_again(tmp_path):
    first = run(directory=tmp_path, epochs=1, finetune_epochs=1)
    again = run(directory=tmp_path, epochs=1, finetune_epochs=1)
    assert again.history == first.history
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b, c in zip(
        first.model.get_weights(), again.model.get_weights(), loaded.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 4}, "epochs=3, and this one has epochs=4"),
        ({"seed": 1}, "seed=0, and this one has seed=1"),
        ({"model": small_model(seed=3)}, "model="),
        ({"train": blobs(seed=9)}, "train="),
        ({"regularizer": gss.GSSStructure(2e-3, inputs=True)}, "regularizer="),
        ({"target": gss.StdThreshold(0.1)}, "target="),
        ({"schedule": gss.WarmUpFactor(2)}, "schedule=None, and this one has schedule={'class_n"),
    ],
)
def test_directory_of_other_settings_is_refused(tmp_path_factory, change, named):
    directory = tmp_path_factory.getbasetemp() / "refused"
    if not directory.exists():
        run(directory=directory, pretrain_epochs=0, epochs=3, finetune_epochs=0)
    with pytest.raises(ValueError, match="`directory` holds a run with .*" + named):
        run(**{"directory": directory, "pretrain_epochs": 0, "finetune_epochs": 0, **change})


def test_directory_with_foreign_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="`directory` must be empty or hold an earlier run"):
        run(directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_failed_write_leaves_the_state_before(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path, {})
    directory.save("train", {"epoch": 1}, {"model": [np.ones(3)]})

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space left"):
        directory.save("train", {"epoch": 2}, {"model": [np.zeros(3)]})
    state = directory.load("train")
    assert state.meta == {"epoch": 1}
    np.testing.assert_array_equal(state.arrays["model"][0], np.ones(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.json", "train.npz"]


@pytest.mark.parametrize("size", [0, 10, 700])
def test_damaged_state_falls_back_to_the_one_before(tmp_path, size):
    directory = RunDirectory(tmp_path, {})
    for epoch in (1, 2):
        directory.save("train", {"epoch": epoch}, {"model": [np.full(300, epoch)]})
    content = (tmp_path / "train.npz").read_bytes()
    (tmp_path / "train.npz").write_bytes(content[:size])
    assert directory.load("train").meta == {"epoch": 1}
    (tmp_path / "train.npz.previous").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no readable state: train.npz .*train.npz.previous"):
        directory.load("train")


def test_kill_between_two_renames_leaves_a_state(tmp_path):
    directory = RunDirectory(tmp_path, {})
    directory.save("train", {"epoch": 1}, {"model": []})
    os.rename(tmp_path / "train.npz", tmp_path / "train.npz.previous")
    (tmp_path / ".tmp-left").write_bytes(b"half")
    assert RunDirectory(tmp_path, {}).load("train").meta == {"epoch": 1}
    assert not (tmp_path / ".tmp-left").exists()


# What is refused or warned of before any work


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (blobs()[0], r"be a pair \(inputs, labels\)"),
        ((np.ones((0, 6)), np.ones(0, int)), "hold at least one sample"),
        (
            (np.ones((3, 5)), np.ones(3, int)),
            r"inputs of shape \(None, 6\). Received: shape \(3, 5",
        ),
        ((np.ones((3, 6)), np.ones(4, int)), "as many labels as inputs"),
        ((np.full((3, 6), np.nan), np.ones(3, int)), "finite numbers only"),
        ((np.ones((3, 6)), np.array(["a", "b", "c"])), "finite numbers only"),
        (
            (np.ones((3, 6)), np.array([0, 1, 3])),
            "labels from 0 to 2. Received: labels from 0 to 3",
        ),
        ((np.ones((3, 6)), np.array([0, 1, -1])), "labels from 0 to 2. Received: labels from -1"),
        ((np.ones((3, 6)), np.array([0, 1, 0.5])), "whole numbers as labels"),
        ((np.ones((3, 6)), np.ones((3, 2))), r"Received: labels of shape \(3, 2\)"),
        ((np.ones((3, 6)), 1), "as many labels as inputs"),
    ],
)
@pytest.mark.parametrize("name", ["train", "validation"])
def test_bad_data_are_refused(name, data, message):
    with pytest.raises(ValueError, match=f"`{name}` must .*{message}"):
        run(**{name: data})


def test_labels_in_a_column_are_class_numbers():
    _, labels = check_data("train", (np.ones((3, 6)), np.ones((3, 1), "int64")), small_model())
    assert labels.shape == (3,) and labels.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.1}, "`target` must be an AccuracyDrop or a threshold"),
        ({"granularity": "filter"}, "`granularity` must be one of"),
        ({"schedule": 0.5}, "`schedule` must be a function of the epoch such as WarmUpFactor"),
        ({"schedule": gss.WarmUpFactor(1), "regularizer": None}, "there is none: give a `regul"),
        ({"epochs": -1}, "`epochs` must be an integer >= 0"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"learning_rate": 0}, "`learning_rate` must be a finite number > 0"),
        ({"steps_per_execution": -3}, "`steps_per_execution` must be an integer >= 1"),
        ({"jit_compile": "yes"}, "`jit_compile` must be True or False"),
        ({"verbose": 2}, "`verbose` must be True or False"),
        ({"weight_decay": -1.0}, "`weight_decay` must be a finite number >= 0"),
        ({"distillation": 1.5}, "`distillation` must be a number from 0 to 1"),
        ({"augment": lambda x, random: x[:1]}, r"`augment` must return inputs of shape \(2, 6\)"),
        ({"augment": lambda x, random: x / 0}, "`augment` must return finite numbers only"),
        ({"test": (np.ones((1, 6)), np.array([5]))}, "`test` must hold labels from 0 to 2"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)


def test_augmentation_in_place_leaves_the_data_alone():
    def blank(inputs, random):
        inputs[:] = 0
        return inputs

    data = blobs()
    run(train=data, augment=blank, epochs=1, finetune_epochs=1)
    np.testing.assert_array_equal(data[0], blobs()[0])


def test_augment_must_be_a_function():
    with pytest.raises(TypeError, match="`augment` must be a function"):
        run(augment="flip")


def test_nothing_removable_is_refused():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="finds no neurons in .* that could be removed"):
        run(model=model, regularizer=gss.GSSStructure(1e-3))


def test_two_outputs_are_refused():
    inputs = keras.Input((6,))
    outputs = [keras.layers.Dense(3)(inputs), keras.layers.Dense(3)(inputs)]
    with pytest.raises(ValueError, match="`model` must be a classifier: one output"):
        run(model=keras.Model(inputs, outputs))


def test_penalty_that_dwarfs_the_loss_is_told():
    with pytest.warns(UserWarning, match="more than 10 times the loss"):
        run(
            regularizer=gss.GSSStructure(10.0),
            target=gss.StdThreshold(0.0),
            pretrain_epochs=0,
            epochs=1,
            finetune_epochs=0,
        )


def test_penalty_that_empties_everything_is_told():
    callback = _WarnIfEmptied()
    with pytest.warns(UserWarning, match="every neuron is so weak"):
        callback.on_epoch_end(0, {"gss_sparsity": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_epoch_end(0, {"gss_sparsity": 0.99})
        callback.on_epoch_end(1, {"gss_sparsity": 1.0})


def test_diverging_training_keeps_the_last_good_state(tmp_path):
    with pytest.raises(RuntimeError, match="The loss is nan in epoch . of phase 'pretrain'"):
        run(directory=tmp_path, learning_rate=1e18, pretrain_epochs=9)
    state = RunDirectory(tmp_path, json.loads((tmp_path / "settings.json").read_text()))
    loaded = state.load("pretrain")
    assert loaded is None or np.isfinite(loaded.arrays["model"][0]).all()


@pytest.mark.parametrize(("drop", "extra"), [(1, {}), (-0.1, {}), (0.1, {"probes": 0})])
def test_accuracy_drop_refuses_bad_values(drop, extra):
    with pytest.raises(ValueError, match="must be"):
        gss.AccuracyDrop(drop, **extra)


# The pieces


def test_adam_l2_is_pytorchs_adam_with_weight_decay():
    w = np.float64([1.0, -2.0, 0.0])
    gradients = np.float64([[0.5, 0.1, 0.0], [-0.3, 0.2, 0.0], [0.1, -0.4, 0.0]])
    variable = keras.Variable(w, dtype="float64")
    optimizer = AdamL2(0.01, l2=0.1)
    m = v = np.zeros(3)
    for t, gradient in enumerate(gradients, start=1):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        g = gradient + 0.1 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    # Keras adds its epsilon before the bias correction of v
    np.testing.assert_allclose(variable, w, rtol=1e-5)
    assert variable[2] == 0
    assert AdamL2.from_config(optimizer.get_config()).l2 == 0.1


def test_learning_rate_falls_at_half():
    phase = Phase("finetune", 50, 1e-3, seed=(0, 2), decay=True)
    rates = [phase.learning_rate_at(epoch) for epoch in range(50)]
    assert rates[:25] == [1e-3] * 25 and rates[25:] == [1e-4] * 25


def test_order_depends_on_seed_and_epoch_only():
    orders = [epoch_order(50, (seed, 1), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[3], epoch_order(50, (1, 1), 1))


def test_batches_begin_at_any_epoch():
    data = (np.arange(11.0)[:, None], np.arange(11))
    whole = [np.array(y) for _, y in batches(data, 3, (5, 1), 0, 3)]
    later = [np.array(y) for _, y in batches(data, 3, (5, 1), 1, 3)]
    assert [len(y) for y in whole] == [3] * 9
    np.testing.assert_array_equal(whole[3:], later)
    np.testing.assert_array_equal(np.concatenate(later[:3]), epoch_order(11, (5, 1), 1)[:9])


@pytest.mark.parametrize(
    "inputs", [np.zeros((11, 1), "float32"), {"a": np.zeros((11, 1)), "b": np.ones((11, 2, 2))}]
)
def test_augmented_batches_follow_from_seed_epoch_and_step(inputs):
    data = (inputs, np.arange(11))
    whole, later, other = (
        [(tree.map_structure(np.array, x), np.array(y)) for x, y in batches(data, 3, *span, noisy)]
        for span in (((5, 1), 0, 3), ((5, 1), 1, 3), ((6, 1), 0, 3))
    )
    for (x, y), (x_later, y_later) in zip(whole[3:], later, strict=True):
        tree.map_structure(np.testing.assert_array_equal, x, x_later)
        np.testing.assert_array_equal(y, y_later)
    first = [tree.flatten(x)[0].ravel().tolist() for x, _ in whole + other]
    assert len({tuple(each) for each in first}) == 18  # no two steps drew the same
    assert [a.dtype for a in tree.flatten(whole[0][0])] == [a.dtype for a in tree.flatten(inputs)]


def test_augmentation_acts_in_every_phase_and_on_the_training_data_only():
    def blank(inputs, random):
        return 0 * inputs

    result = run(augment=blank, weight_decay=0.0)
    assert all(entry["accuracy"] < 0.45 for entry in result.history)  # of three classes
    assert run(weight_decay=0.0).history[-1]["accuracy"] > 0.6
    accuracy = result.accuracies["finetuned"]
    assert accuracy == result.history[-1]["val_accuracy"] != result.history[-1]["accuracy"]
    assert "blank" in result.settings["augment"]


@pytest.mark.parametrize(
    ("layers", "jit"),
    [
        ([keras.layers.Dense(4), keras.layers.BatchNormalization()], True),
        ([keras.layers.Reshape((6, 1)), keras.layers.Conv1D(2, 3)], False),
        ([keras.layers.Reshape((6, 1)), keras.layers.LSTM(2)], False),
        ([keras.layers.Reshape((6, 1)), keras.layers.Bidirectional(keras.layers.GRU(2))], False),
        ([keras.layers.Dropout(0.1), keras.layers.Dense(4)], False),
    ],
)
def test_xla_for_dense_nets_only(layers, jit):
    model = keras.Sequential([keras.Input((6,)), *layers])
    assert choose_speed(model, steps=10).jit_compile is jit
    assert choose_speed(model, steps=10, jit_compile=not jit).jit_compile is not jit


@pytest.mark.parametrize(
    ("steps", "asked", "chosen"), [(600, None, 50), (540, None, 45), (3, None, 3), (143, 12, 11)]
)
def test_steps_per_execution_divide_the_epoch(steps, asked, chosen):
    model = small_model()
    assert choose_speed(model, steps, steps_per_execution=asked).steps_per_execution == chosen


@pytest.mark.parametrize(
    ("layers", "asked", "line"),
    [
        ([], {}, "10 steps per epoch: compiled by XLA, 10 steps per call, "),
        (
            [keras.layers.Reshape((6, 1)), keras.layers.Conv1D(2, 3), keras.layers.Flatten()],
            {"steps_per_execution": 1},
            "10 steps per epoch: not compiled by XLA, 1 step per call, ",
        ),
    ],
)
def test_the_log_says_first_how_it_trains(capsys, monkeypatch, layers, asked, line):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    run(
        model=keras.Sequential(
            [keras.Input((6,)), *layers, *(keras.layers.Dense(3) for _ in "ab")]
        ),
        target=gss.StdThreshold(0.0),
        **{"pretrain_epochs": 0, "epochs": 0, "finetune_epochs": 0, "verbose": True},
        **{"jit_compile": None, "steps_per_execution": None, **asked},
    )
    line += "data in memory (tf.data), CPU threads: one per core (TensorFlow chooses)"
    assert capsys.readouterr().out.splitlines()[0] == line


def test_the_log_says_what_keras_and_tensorflow_do(monkeypatch):
    plain = choose_speed(small_model(), 10)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert in_words(plain, small_model()).endswith(", CPU threads: 3")
    assert in_words(Speed("auto", 10), small_model()).startswith("not compiled by XLA, ")
    refusing = small_model()
    refusing.layers[0].supports_jit = False
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        assert in_words(plain, refusing).startswith("not compiled by XLA, ")


def ends_in(*layers):
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), *layers])


@pytest.mark.parametrize(
    ("model", "from_logits"),
    [
        (ends_in(keras.layers.Softmax(), keras.layers.Reshape((3,))), False),
        (ends_in(keras.layers.Activation(keras.ops.softmax)), False),
        (keras.Sequential([keras.Input((6,)), ends_in(keras.layers.Softmax())]), False),
        (ends_in(keras.layers.Dense(4, "softmax", dtype="float16")), False),
        (ends_in(keras.layers.ReLU()), True),
        (ends_in(keras.layers.Activation("sigmoid")), True),
    ],
)
def test_a_softmax_is_found_wherever_it_stands(model, from_logits):
    assert loss_for(model, np.zeros(4)).get_config()["from_logits"] is from_logits


def test_several_inputs_as_a_list_or_by_name():
    def named(wrap):
        a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
        joined = keras.layers.Dense(4, "relu", kernel_initializer=keras.initializers.Ones())(
            keras.layers.Concatenate()([a, b])
        )
        outputs = keras.layers.Dense(3, kernel_initializer=keras.initializers.Zeros())(joined)
        return keras.Model(wrap(a, b), outputs)

    (x, y), (vx, vy) = blobs(60), blobs(30, seed=1)
    results = [
        run(
            model=named(wrap),
            train=(wrap(x[:, :4], x[:, 4:]), y),
            validation=(wrap(vx[:, :4], vx[:, 4:]), vy),
            epochs=0,
            finetune_epochs=0,
            target=gss.StdThreshold(0.0),
        )
        for wrap in (lambda a, b: [a, b], lambda a, b: {"b": b, "a": a})
    ]
    first, second = (without_seconds(result.history) for result in results)
    assert first == second and len(first) == 1


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_loss_fits_the_model(activation, one_hot):
    labels = np.array([0, 2, 1])
    inputs = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    model = small_model(activation=activation)
    logits = np.float64(small_model()(inputs))
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(3), labels])
    given = np.eye(3, dtype="float32")[labels] if one_hot else labels
    loss = loss_for(model, given)(given, model(inputs))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_bisection_ends_beside_the_limit():
    asked = []

    def accepts(ratio):
        asked.append(ratio)
        return ratio <= 1.3

    found = largest_accepted(accepts, 0.0, 4.0, 10)
    assert 1.3 - 4 / 2**10 <= found <= 1.3 and len(asked) == 10
    assert largest_accepted(lambda ratio: False, 0.0, 4.0, 5) == 0.0
