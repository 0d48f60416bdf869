"""Comparisons: the same protocol for every method, what is written, and the table made of it."""

import dataclasses
import functools
import json
import multiprocessing
import re
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_gss as gss
from keras_gss import datasets, zoo
from keras_gss.comparison import METHODS, Comparison, Protocol, load_comparison, protocol
from keras_gss.comparison import compare as running
from keras_gss.comparison.methods import AT_FIRST, Task
from keras_gss.comparison.protocol import Run
from keras_gss.comparison.store import Store, read
from keras_gss.compress.described import described, fingerprint
from keras_gss.compress.phases import DivergedError
from keras_gss.regularizers.binding import Attachment
from keras_gss_cli import main

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("comparison")  # one process makes what all of them read
FAST = {"jit_compile": False, "steps_per_execution": 1}  # XLA takes longer than these runs
TINY = {"pretrain_epochs": 2, "epochs": 2, "finetune_epochs": 1, "learning_rate": 5e-3}
PROTOCOL = Protocol(model="digits-mlp", dataset="digits", budget=3, **TINY)


def compare(directory, **changes):
    arguments = {
        "methods": ["l1", "snip"],
        "target_macs": 0.3,
        "seeds": [1, 2],
        "budget": 2,
        "verbose": False,
    }
    return gss.compare_methods(
        "digits-mlp", "digits", directory, **{**arguments, **TINY, **changes}
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "compress", functools.partial(gss.compress, **FAST))
        return directory, compare(directory, command="typed")


@pytest.fixture(scope="module")
def task():
    data = datasets.load("digits")
    return Task(
        model=zoo.build("digits-mlp"),
        train=data.train,
        budget=gss.MacsBudget,
        fraction=0.3,
        granularity="neuron",
        inputs=True,
        epochs=3,
        seed=0,
    )


def of(compared, **wanted):
    return [r for r in compared.records if wanted.items() <= r.items()]


def test_every_method_searches_with_one_seed_and_runs_the_others_with_its_choice(compared):
    _, found = compared
    searched = of(found, role="search")
    assert [(r["method"], r["strength"], r["seed"]) for r in searched] == [
        ("l1", 0.2812, 0),
        ("l1", 0.8891, 0),
    ]
    best = max(searched, key=lambda record: record["validation"])["strength"]
    final = [(r["method"], r["strength"], r["seed"]) for r in of(found, role="final")]
    expected = [("l1", best), ("snip", None)]
    assert final == [(*each, seed) for each in expected for seed in (1, 2)]


def test_all_meet_the_same_cost_after_the_same_number_of_epochs(compared):
    _, found = compared
    for record in found.records:
        assert 0.2 * 6464 < record["live_macs"] <= 0.3 * 6464
        assert record["dense_macs"] == 6464
        settings = record["settings"]
        trained = settings["epochs"] + settings["finetune_epochs"]
        assert trained == (5 if record["method"] == "snip" else 3)
        assert settings["epochs"] == (2 if record["method"] == "l1" else 0)
        structure = [int(width) for width in record["structure"].split("-")]
        assert np.dot(structure[:-1], structure[1:]) + structure[-1] * 10 == record["live_macs"]


def test_all_but_those_that_prune_at_initialisation_begin_alike(compared):
    directory, found = compared
    starts = {(r["method"], r["seed"]): r["settings"]["model"] for r in of(found, role="final")}
    for seed in (1, 2):
        dense = gss.load_model(directory / f"dense-seed{seed}" / "trained.keras")
        assert starts["l1", seed] == fingerprint(dense)
        assert starts["snip", seed] == fingerprint(zoo.build("digits-mlp", seed))
    assert len({r["settings"]["train"] for r in found.records}) == 1


def test_test_data_are_read_by_the_final_runs_alone(compared):
    for record in compared[1].records:
        read_test = record["settings"]["test"]
        assert read_test == (record["role"] == "final") == (record["test_last"] is not None)
        if read_test:
            assert 0 < record["test_last"] <= record["test_best"] <= 1


def test_records_say_what_made_them(compared):
    directory, found = compared
    lines = (directory / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(found.records)
    record = json.loads(lines[0])
    assert record["command"] == "typed" and record["schedule"] == "2 + 2 + 1 epochs"
    assert record["versions"]["keras"] == keras.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", record["date"])
    assert record["settings"]["regularizer"]["registered_name"] == "keras_gss>EachKernel"
    assert record["protocol"]["model"] == "digits-mlp" and record["quick"] is False
    assert not list((directory / "running").iterdir()) and not (directory / "trained").exists()


def test_one_training_serves_every_target(compared, monkeypatch, tmp_path):
    directory, _ = compared
    shutil.copytree(directory / "dense-seed1", tmp_path / "dense-seed1")
    trained = []

    def train(same, run, directory):
        trained.append(run.training)
        return protocol.train(same, run, directory)

    monkeypatch.setattr(running, "train", train)
    monkeypatch.setattr(protocol, "compress", functools.partial(gss.compress, **FAST))
    again = compare(tmp_path, methods=["l1"], target_macs=[0.3, 0.2], budget=1, seeds=[1])
    assert trained == ["l1-0.5-seed1"]
    assert Run("l1-trim", 0.3, 0.5, 1, "final").training == "l1-trim-0.3-0.5-seed1"
    (record,) = of(again, method="l1", target=0.3)
    assert record["test_last"] == alone("l1", 0.3, AT_FIRST, seed=1, directory=directory)


def alone(name, target, strength, seed, directory):
    """Returns what a run gives if one call trains, cuts and finetunes."""
    data = datasets.load("digits", PROTOCOL.validation)
    dense = gss.load_model(directory / f"dense-seed{seed}" / "trained.keras")
    task = Task(
        model=dense,
        train=data.train,
        budget=gss.MacsBudget,
        fraction=target,
        granularity="neuron",
        inputs=False,
        epochs=2,
        seed=seed,
    )
    recipe = METHODS[name].build(task, strength)
    schedule = {"epochs": 2, "finetune_epochs": 1, "learning_rate": 5e-3, "seed": seed}
    how = {"regularizer": recipe.regularizer, "test": data.test, "verbose": False, **FAST}
    result = gss.compress(
        dense, data.train, data.validation, target=recipe.target, timed=False, **schedule, **how
    )
    return result.accuracies["test_last_epoch"]


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_whether_their_training_depends_on_the_target(task, name):
    method = METHODS[name]
    wide, narrow = (
        method.build(dataclasses.replace(task, fraction=fraction), method.strength)
        for fraction in (0.5, 0.2)
    )
    told = [described(r.regularizer, None, r.procedure, False) for r in (wide, narrow)]
    if wide.regularizer is None and wide.procedure is None:
        assert method.training == "none"
    else:
        assert method.training == ("shared" if told[0] == told[1] else "aimed")


def test_a_training_that_diverged_is_told_in_the_records_and_not_begun_again(
    compared, monkeypatch, tmp_path
):
    begun = []

    def diverge(*data, epochs, **settings):
        begun.append(epochs)
        raise DivergedError("the loss is nan")

    shutil.copytree(compared[0] / "dense-seed1", tmp_path / "dense-seed1")
    monkeypatch.setattr(protocol, "compress", diverge)
    found = compare(tmp_path, methods=["l1"], seeds=[1], budget=1, target_macs=[0.3, 0.2])
    assert [record["error"] for record in found.records] == ["the loss is nan"] * 2
    assert begun == [2]


def test_it_goes_on_where_it_was_and_takes_more(compared, monkeypatch, tmp_path):
    directory, found = compared
    executed = []

    def record(same, run, directory):
        executed.append(run)
        return {**found.records[-1], **asdict(run)}

    monkeypatch.setattr(running, "execute", record)
    for stage in ("pretrain", "train"):
        monkeypatch.setattr(running, stage, lambda *arguments: None)
    again = compare(directory)
    assert not executed and again.records == found.records
    lines = (directory / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:100])
    more = compare(tmp_path, methods=["l1", "snip", "magnitude"], seeds=[1, 2, 3])
    assert [(run.method, run.seed) for run in executed] == [
        ("l1", 3),
        *(("snip", seed) for seed in (1, 2, 3)),
        *(("magnitude", seed) for seed in (1, 2, 3)),
    ]
    assert list(more.records) == read(tmp_path / "results.jsonl")
    assert len(more.records) == 11


@pytest.mark.parametrize(
    ("best", "beyond", "tried", "chosen"),
    [
        (2.0, 0, [0.2812, 0.8891], 0.8891),
        (2.0, 1, [0.2812, 0.8891, 2.812], 2.812),
        (2.0, 9, [0.2812, 0.8891, 2.812, 8.892], 2.812),
        (0.07, 9, [0.02812, 0.08892, 0.2812, 0.8891], 0.08892),
        (1e9, 2, [0.2812, 0.8891, 2.812, 8.892], 0.2812),  # all alike: the stronger side
    ],
)
def test_a_search_goes_on_beyond_its_ends(
    compared, monkeypatch, tmp_path, best, beyond, tried, chosen
):
    def record(same, run, directory):
        distance = abs(np.log(run.strength / best)) if run.strength else 0.0
        validation = 0.1 if distance > 9 else 0.9 - distance / 100
        (like, *_) = of(compared[1], role=run.role)
        made = {**like, **asdict(run), "validation": validation}
        return {**made, "protocol": asdict(same)}

    monkeypatch.setattr(running, "execute", record)
    for stage in ("pretrain", "train"):
        monkeypatch.setattr(running, stage, lambda *arguments: None)
    found = compare(tmp_path, beyond=beyond)
    searched = [r["strength"] for r in of(found, role="search")]
    assert sorted(searched) == pytest.approx(tried, rel=1e-3)
    final = {r["strength"] for r in of(found, role="final", method="l1")}
    assert final == {min(final)} and min(final) == pytest.approx(chosen, rel=1e-3)
    assert compare(tmp_path, beyond=beyond).records == found.records
    told = f"2 strengths{f' (and up to {beyond} more' if beyond else ' tried'}"
    assert told in found.table()


def test_records_from_before_a_setting_was_there_are_gone_on_from(compared, tmp_path):
    line = json.loads((compared[0] / "results.jsonl").read_text().splitlines()[0])
    del line["protocol"]["beyond"]
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    assert len(Store(tmp_path, Protocol(**line["protocol"])).records) == 1
    with pytest.raises(ValueError, match="holds runs with beyond=0, and these are with beyond=2"):
        Store(tmp_path, Protocol(**{**line["protocol"], "beyond": 2}))


def test_the_table_ranks_by_the_last_epoch_and_sets_the_best_bold(compared):
    table = compared[1].table()
    assert "### digits-mlp on digits, at most 0.3 of the live MACs" in table
    assert "2 + 2 + 1 epochs" in table and "6,464 MACs" in table
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert {row[0].strip("| ") for row in rows} == {"l1", "snip"}
    means = {}
    for method in ("l1", "snip"):
        values = [100 * r["test_last"] for r in of(compared[1], role="final", method=method)]
        means[method] = np.mean(values)
        text = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} %"
        assert text in table
    order = [row[0].strip("| ") for row in rows]
    assert [means[name] for name in order] == sorted(means.values(), reverse=True)
    assert rows[0][2].startswith("**") and not rows[-1][2].startswith("**")


def test_published_figures_stand_beside_ours_and_failures_are_shown(compared):
    base = {**of(compared[1], role="final", method="l1")[0]}
    base["protocol"] = {**base["protocol"], "model": "lenet-300-100", "dataset": "fashion_mnist"}
    ours = {**base, "method": "gss-structure"}
    failed = {k: v for k, v in base.items() if not k.startswith(("test", "valid", "struct"))}
    failed.update(method="hoyer", error="The loss is nan")
    table = Comparison((ours, failed)).table()
    assert "89.51 % at 32.6k MACs" in table
    assert "failed: The loss is nan" in table


def test_no_table_is_made_of_a_smoke_run(compared):
    smoke = {**compared[1].records[-1], "quick": True}
    for make in (Comparison.table, lambda made: made.figure("x.png")):
        with pytest.raises(ValueError, match="1 of 2 records are of a smoke run"):
            make(Comparison((compared[1].records[-1], smoke)))
    with pytest.raises(ValueError, match="No run is finished yet"):
        Comparison(compared[1].records[:1]).table()


def test_curves_have_a_point_for_each_cost(compared, tmp_path):
    cheap = [{**r, "target": 0.1, "live_macs": 640} for r in of(compared[1], role="final")]
    both = Comparison((*compared[1].records, *cheap))
    curves = both.curves([0.1, 0.3])
    assert set(curves) == {"l1", "snip"}
    for points in curves.values():
        assert points[0][0] == 640 < points[1][0]
        assert points[0][1:] == points[1][1:]
    pytest.importorskip("matplotlib", reason="figures need the extra `plots`")
    both.figure(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_recipe_that_compress_takes(task, name):
    method = METHODS[name]
    recipe = method.build(task, method.strength)
    assert recipe.target.fraction == 0.3
    ranking = recipe.target.by or recipe.target
    assert ranking.inputs and ranking.keep_strongest
    assert (recipe.regularizer is None) or (recipe.procedure is None)
    if method.strength == AT_FIRST and recipe.regularizer is not None:
        begins = float(
            Attachment(keras.models.clone_model(task.model), recipe.regularizer).penalty()
        )
        assert begins > 0  # of other weights
        own = zoo.build("digits-mlp")
        assert float(Attachment(own, recipe.regularizer).penalty()) == pytest.approx(AT_FIRST, 1e-4)
    again = method.build(task, method.strength)
    assert repr(again.target) == repr(recipe.target)


def test_strengths_are_half_a_decade_apart_around_the_default():
    found = PROTOCOL.strengths(METHODS["group-greg"])
    np.testing.assert_allclose(found, [5e-4 / 10**0.5, 5e-4, 5e-4 * 10**0.5], rtol=1e-3)
    assert PROTOCOL.strengths(METHODS["pfpnet"]) == [None]


def test_a_directory_belongs_to_one_protocol(compared):
    with pytest.raises(ValueError, match=r"holds runs with epochs=2, and these are with epochs=3"):
        compare(compared[0], epochs=3)


def test_a_torn_line_is_passed_over_and_the_next_one_is_whole(tmp_path):
    store = Store(tmp_path, PROTOCOL)
    run = Run("l1", 0.3, 0.5, 1, "final")
    record = {**asdict(run), "protocol": asdict(PROTOCOL)}
    store.add(record)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"method": "l1", "torn')
    again = Store(tmp_path, PROTOCOL)
    assert again.of(run) == record and again.of(Run("l1", 0.3, 0.6, 1, "final")) is None
    again.add({**record, "seed": 2})
    assert [r["seed"] for r in read(tmp_path / "results.jsonl")] == [1, 2]


def test_processes_share_the_runs(tmp_path, capsys):
    untrained = dict.fromkeys(TINY, 0) | {"learning_rate": 1e-3}
    methods = ["random", "magnitude"]
    compare(tmp_path / "out", methods=methods, seeds=[1], jobs=2, verbose=True, **untrained)
    assert "2/2  " in capsys.readouterr().out
    records = read(tmp_path / "out" / "results.jsonl")
    assert {r["method"] for r in records} == set(methods)


def test_processes_are_renewed_until_all_is_done(monkeypatch):
    monkeypatch.setattr(running, "RUNS_PER_PROCESS", 1)
    with running.workers(2, 0, -1) as submit:  # max stands for what runs
        assert sorted(submit(max, [1, 2, 3])) == [(1, 1), (2, 2), (3, 3)]


def bear(connection):
    child = multiprocessing.get_context("fork").Process(target=wait_for_hours, args=(connection,))
    child.start()
    child.join()


def wait_for_hours(connection):
    running._end_with_parent()
    connection.send("begun")
    time.sleep(10_000)


def test_no_process_outlives_the_one_that_began_it():
    here, there = multiprocessing.Pipe()
    parent = multiprocessing.get_context("spawn").Process(target=bear, args=(there,))
    parent.start()
    there.close()
    assert here.recv() == "begun"
    parent.kill()
    parent.join()
    assert here.poll(60), "the child still holds its end of the pipe"
    with pytest.raises(EOFError):
        here.recv()


def test_bad_input_is_told_before_any_work(tmp_path):
    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            compare(tmp_path / "none", **changes)

    refused("`methods` must be 'all' or some of gss-structure, .*Received: 'l3'", methods=["l3"])
    refused("`target_macs` must be a number with 0 < target_macs <= 1", target_macs=[0.1, 2])
    refused("Give one of `target_macs` and `target_params`", target_params=0.1)
    refused("`seeds` must be at least one integer", seeds=[])
    refused("`budget` must be an integer >= 1", budget=0)
    refused("`epochs` must be an integer >= 0", epochs=-1)
    refused("`granularity` must be one of", granularity="layer")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="`model` must be a file, or one of lenet-300-100"):
        gss.compare_methods("vgg", "digits", tmp_path, target_macs=0.1)
    with pytest.raises(OSError, match=r"There is no .*results\.jsonl"):
        load_comparison(tmp_path)


def test_the_command_makes_the_table_of_what_is_there(compared, capsys, tmp_path):
    directory, found = compared
    output = tmp_path / "table.md"
    command = ["compare", "--directory", str(directory), "--table-only", "--output", str(output)]
    assert main(command) == 0
    assert output.read_text() == found.table()
    assert found.table() in capsys.readouterr().out
    assert main(["compare", "--directory", str(directory)]) == 1
    assert "--model and --dataset are needed" in capsys.readouterr().err


def test_the_command_passes_on_what_it_is_told(monkeypatch, capsys, compared, tmp_path):
    passed = {}

    def record(model, dataset, directory, **settings):
        passed.update(settings, names=(model, dataset, directory))
        return compared[1]

    monkeypatch.setattr(gss, "compare_methods", record)
    command = ["compare", "--model", "digits-mlp", "--dataset", "digits", "--methods", "l1,snip"]
    command += [
        "--target-params",
        "0.1",
        "0.2",
        "--budget",
        "7",
        "--beyond",
        "3",
        "--seeds",
        "4",
        "5",
        "--jobs",
        "2",
    ]
    command += ["--quick", "--penalise-inputs", "--directory", str(tmp_path)]
    assert main(command) == 0
    assert "a smoke run: no table" in capsys.readouterr().out
    assert passed.pop("names") == ("digits-mlp", "digits", tmp_path)
    assert passed == {
        "methods": ["l1", "snip"],
        "target_macs": None,
        "target_params": [0.1, 0.2],
        "seeds": [4, 5],
        "jobs": 2,
        "quick": True,
        "command": " ".join(["keras-gss", *command]),
        "inputs": True,
        "validation": 0.1,
        "granularity": "neuron",
        "budget": 7,
        "beyond": 3,
        "search_seed": 0,
        "pretrain_epochs": 30,
        "epochs": 30,
        "finetune_epochs": 15,
        "batch_size": 100,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
    }


def test_the_page_of_methods_names_every_method_and_no_other():
    text = (ROOT / "docs" / "methods.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)`", text, re.MULTILINE)
    assert sorted(rows) == sorted(METHODS)
    for name in set(re.findall(r"`gss\.(\w+)", text)):
        assert hasattr(gss, name), name
