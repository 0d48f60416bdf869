"""The reproduction example: smoke runs of a table and a figure, and what is made of their lines."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import keras_gss as gss
from keras_gss import zoo
from keras_gss.loading import load_model

FOLDER = Path(__file__).parents[1] / "examples" / "reproduce"
sys.path.insert(0, str(FOLDER))
_spec = importlib.util.spec_from_file_location("reproduce", FOLDER / "__main__.py")
reproduce = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reproduce)
runs, settings, figures, render = (
    importlib.import_module(name) for name in ("runs", "settings", "figures", "render")
)

pytestmark = pytest.mark.xdist_group("reproduce")  # one process makes what all of them read


def run(folder, *arguments):
    reproduce.main([*arguments, "--directory", str(folder)])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A row of Table 2 and one of Figure 6, which are the same smoke run."""
    folder = tmp_path_factory.mktemp("paper")
    run(folder, "table2", "--quick", "--seeds", "1", "--only", "GSS-element$")
    run(folder, "figure6", "--quick", "--seeds", "1", "--only", "fashion")
    return folder


def test_a_line_says_what_was_run_and_what_came_out(folder):
    (line,) = lines_of(folder / "results" / "table2.jsonl")
    (asked,) = [each for each in settings.TABLE2 if each.row == "GSS-element"]
    assert runs.asked(asked.smoke()).items() <= line.items()
    assert line["quick"] is True
    assert line["command"].startswith("python examples/reproduce table2 --quick")
    inputs, first, second = line["structure"]
    assert line["flops"] == inputs * first + first * second + second * 10
    assert line["nonzero_weights"] == sum(line["layers"].values()) <= 0.3 * 6464
    accuracy = line["accuracy"]
    assert 0 < accuracy["test_last_epoch"] <= accuracy["test_best_epoch"] <= 1
    assert 0 < accuracy["dense_test"] <= 1


def test_every_kind_of_run_has_a_smoke_run(tmp_path):
    results = tmp_path / "results"
    run(tmp_path, "figure3", "--quick", "--only", "structure-mnist")
    (record,) = lines_of(results / "structure-mnist.jsonl")[-1:]
    assert record["quick"] and record["role"] == "final" and record["target"] == 0.24
    run(tmp_path, "cost", "--quick")
    costs = lines_of(results / "cost.jsonl")
    assert [each["method"] for each in costs] == ["gss-structure", "gss-element", "group-greg"]
    assert all(each["quick"] and each["plain_milliseconds"] > 0 for each in costs)
    run(tmp_path, "levers-resnet-56", "--quick", "--only", "distillation", "--seeds", "0")
    (line,) = lines_of(results / "search-levers-resnet-56.jsonl")
    assert line["quick"] and line["accuracy"]["test_last_epoch"] is None
    with pytest.raises(ValueError, match="lines in .* are of smoke runs"):
        run(tmp_path, "render", "--results", str(results))


@pytest.mark.parametrize("file", ["search-levers.jsonl", "search-levers-resnet-56.jsonl"])
def test_no_table_is_made_of_a_smoke_run_on_held_out_images(tmp_path, file):
    asked = settings.LEVERS[0].smoke()
    runs.append(tmp_path / file, {**runs.asked(asked), "accuracy": {"validation": 0.5}})
    with pytest.raises(ValueError, match="1 lines in .* are of smoke runs"):
        run(tmp_path, "render", "--results", str(tmp_path))


def test_what_is_finished_is_not_run_again_and_stages_are_shared(folder, monkeypatch):
    stages = sorted(path.name.split("-")[0] for path in folder.iterdir())
    assert stages == ["dense", "final", "final", "results", "trained"]  # cut, and finetuned
    monkeypatch.setattr(runs, "compress", None)
    run(folder, "table2", "--quick", "--seeds", "1", "--only", "GSS-element$")
    assert len(lines_of(folder / "results" / "table2.jsonl")) == 1


def test_a_network_cut_in_rounds_is_trained_and_finetuned_small(tmp_path, monkeypatch):
    (asked,) = [each for each in settings.TABLE5 if each.row == "GSS-structure, ours"]
    asked = replace(asked, rounds=(0.8, 0.6))  # shares of what is there, in a smoke run
    monkeypatch.setitem(settings.RUNS, "table5", [asked])
    run(tmp_path, "table5", "--quick", "--only", "ours$")
    (line,) = lines_of(tmp_path / "results" / "table5.jsonl")
    macs = [
        gss.count(load_model(path)).macs for path in sorted(tmp_path.glob("trained-*/model.keras"))
    ]
    last, *rounds = sorted(macs)  # the last one is not cut until the end
    whole = gss.count(zoo.build("digits-cnn")).macs
    assert last in rounds and max(rounds) <= 0.8 * whole and last <= 0.6 * max(rounds)
    assert line["flops"] <= 0.3 * last
    assert runs.asked(asked.smoke()) in runs.finished(tmp_path / "results", asked)


def test_images_are_shifted_and_what_leaves_is_lost():
    images = np.random.default_rng(0).uniform(1, 2, (50, 6, 5, 2)).astype("float32")
    run_ = replace(settings.TABLE5[0], shift=1)
    shifted = runs.changed(run_)(images, np.random.default_rng(1))
    rows, columns = np.random.default_rng(1).integers(3, size=(2, 50)) - 1
    assert shifted.shape == images.shape and len(set(zip(rows, columns, strict=True))) == 9
    for image, made, down, right in zip(images, shifted, -rows, -columns, strict=True):
        expected = np.zeros_like(image)
        for i, j in np.ndindex(6, 5):
            if 0 <= i - down < 6 and 0 <= j - right < 5:
                expected[i, j] = image[i - down, j - right]
        np.testing.assert_array_equal(made, expected)
    assert runs.changed(settings.TABLE5[0]) is None


def test_images_are_mirrored_one_by_one():
    images = np.random.default_rng(0).uniform(1, 2, (50, 4, 4, 3)).astype("float32")
    run_ = replace(settings.TABLE5[0], shift=0, flips=True)
    made = runs.changed(run_)(images, np.random.default_rng(1))
    mirrored = (made == images[:, :, ::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(made[~mirrored], images[~mirrored])
    assert made.dtype == images.dtype and 10 < mirrored.sum() < 40


def test_fewer_and_smaller_images(monkeypatch):
    images = np.arange(5 * 4 * 4 * 3, dtype="float32").reshape(5, 4, 4, 3)
    whole = (images, np.arange(5))
    read = gss.datasets.Dataset("cifar10", 10, whole, whole, lambda: whole)
    monkeypatch.setattr(runs.datasets, "load", lambda name, validation: read)
    runs.dataset.cache_clear()
    data = runs.dataset("cifar10", 5, size=2, images=3)
    runs.dataset.cache_clear()
    for (small, labels), number in ((data.train, 3), (data.validation, 5), (data.test(), 5)):
        assert small.shape == (number, 2, 2, 3) and labels.tolist() == list(range(number))
        np.testing.assert_array_equal(small[1, 0, 1], images[1, :2, 2:].mean((0, 1)))


def test_a_network_for_smaller_images_has_the_same_weights():
    run_ = settings.RESNET_56[0]
    small, whole = runs.network(run_), zoo.build("resnet-56", run_.seed)
    assert small.input_shape == (None, 16, 16, 3)
    for one, other in zip(small.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 4 * gss.count(small).macs == gss.count(whole).macs + 3 * 640


def test_a_line_written_before_a_setting_was_there_counts_as_finished(tmp_path):
    asked = settings.TABLE2[0]
    older = {key: value for key, value in runs.asked(asked).items() if key != "shift"}
    runs.append(tmp_path / "table2.jsonl", older)
    assert runs.asked(asked) in runs.finished(tmp_path, asked)
    assert runs.asked(replace(asked, shift=1)) not in runs.finished(tmp_path, asked)


def test_a_search_reads_no_test_images_and_changes_factors_only():
    options = reproduce.parsed(["table4", "--search", "0.5", "2", "--epochs", "9"])
    tried = reproduce.asked_for(options)
    assert {each.role for each in tried} == {"search"}
    assert [each.factor for each in tried[:2]] == [1e-6, 4e-6]
    assert {each.epochs for each in tried} == {9}
    final = reproduce.asked_for(reproduce.parsed(["table4"]))
    assert [(each.seed, each.epochs, each.finetune_epochs) for each in final[:3]] == [
        (seed, 250, 50) for seed in (1, 2, 3)
    ]
    assert runs.lines_of(Path("x"), tried[0]).name == "search-table4.jsonl"


def test_structure_lists_the_flattened_width_after_convolutions():
    model = zoo.build("lenet-5")
    assert runs.structure(gss.count(model)) == [20, 50, 800, 500]
    kernel = np.array(model.get_layer("conv2").kernel)
    kernel[..., 30:] = 0
    model.get_layer("conv2").kernel.assign(kernel)
    model.get_layer("conv2").bias.assign(np.zeros(50))
    assert runs.structure(gss.count(model)) == [20, 30, 480, 500]
    assert runs.structure(gss.count(zoo.build("lenet-300-100"))) == [784, 300, 100]


def test_every_row_names_methods_and_models_that_exist():
    models = {name: zoo.build(name) for name in ("lenet-300-100", "lenet-5", "resnet-56")}
    for rows in settings.RUNS.values():
        assert len({each.row for each in rows}) == len(rows)
        for each in rows:
            assert runs.penalty(each).factor == each.factor > 0
            assert (each.cost is None) != (each.ratio is None)
            assert (each.model, each.dataset) in settings.ORIGINAL or rows is settings.RESNET_56
            assert each.smoke().model in zoo.MODELS
        assert runs.cut(rows[0], models[rows[0].model])["target"].keep_strongest
    for rivals in settings.RIVALS.values():
        protocol = gss.comparison.Protocol(**settings.PANELS[rivals.panel].protocol)
        assert 0 < rivals.target < 1 and protocol.epochs
        assert set(rivals.methods) <= set(gss.comparison.METHODS)


def test_no_table_is_made_of_smoke_runs(folder):
    with pytest.raises(ValueError, match="2 lines in .* are of smoke runs"):
        run(folder, "render", "--results", str(folder / "results"))
    with pytest.raises(ValueError, match="There are no lines"):
        run(folder, "render", "--results", str(folder / "dense"))


def test_tables_and_figures_of_lines(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="figures need the extra `plots`")
    for name in ("table2", "figure6"):
        (line,) = lines_of(folder / "results" / f"{name}.jsonl")
        line.update(quick=False, model="lenet-300-100", dataset="fashion_mnist")
        again = {**line, "seed": 2, "accuracy": {**line["accuracy"], "test_last_epoch": 0.5}}
        text = "".join(json.dumps(each) + "\n" for each in (line, again))
        (tmp_path / f"{name}.jsonl").write_text(text)
    run(tmp_path, "render", "--results", str(tmp_path))
    page = (tmp_path / "README.md").read_text()
    assert "## Table 2" in page and "![Figure 6" in page and "Table 3" not in page
    (cells,) = re.findall(r"^\| GSS-element \| (.*) \|$", page, re.MULTILINE)
    last = 100 * line["accuracy"]["test_last_epoch"]
    spread = abs(last - 50) / 2**0.5
    printed = gss.comparison.published.PUBLISHED["lenet-300-100", "fashion_mnist", "gss-element"]
    assert cells.split(" | ")[1] == f"{(last + 50) / 2:.2f} ± {spread:.2f} %"
    assert cells.endswith(f"| 1 + 2 + 1 | 1, 2 | {printed}")
    assert "| lenet-300-100, fashion_mnist | 90.29 % |" in page
    assert (tmp_path / "figure6.png").read_bytes().startswith(b"\x89PNG")


def test_the_readme_says_what_the_committed_lines_say():
    results = FOLDER.parent / "results" / "paper"
    lines = {name: render.lines_of(results / f"{name}.jsonl") for name in settings.SUMMARY}
    table = render.summary(lines)
    readme = (FOLDER.parents[1] / "README.md").read_text()
    assert render.BEGIN + table + render.END in readme
    assert "| 89.34 % (89.24) at 3.7k weights |" in table  # of three seeds
    for short in lines["table4"]:
        short["epochs"] = 100
    assert table != render.summary(lines)  # a row of another schedule is no such row


def test_the_table_of_resnet_56_says_what_the_committed_lines_say():
    results = FOLDER.parent / "results"
    lines = [json.loads(line) for line in (results / "resnet56.jsonl").read_text().splitlines()]
    table = render.resnet_56(lines)
    assert render.BEGIN + table + render.END in (results / "README.md").read_text()
    (mean,) = re.findall(r"^\| 4x fewer MACs, mean of 2 \|.*\| (\S+) \| -0.5 \|$", table, re.M)
    losses = [
        line["accuracy"]["finetune"]["last"]["test"] - line["accuracy"]["base"]["last"]["test"]
        for line in lines
        if line["ratio"] == 4 and "finetune_weight_decay" not in line["settings"]
    ]
    assert float(mean) == pytest.approx(100 * np.mean(losses), abs=0.006)


def test_dense_networks_are_averaged_over_all_that_were_trained():
    lines = [
        {
            **runs.asked(replace(settings.TABLE3[0], seed=seed, pretrain_epochs=epochs)),
            "accuracy": {"dense_test": accuracy},
        }
        for seed, epochs, accuracy in (
            *((1, 20, 0.99), (1, 20, 0.99), (1, 20, 0.97), (2, 20, 0.98), (3, 5, 0.5)),
        )
    ]
    (row,) = re.findall(r"^\| lenet-5, mnist \| (.*) \|$", render.originals(lines), re.M)
    assert row == "99.32 % | 98.00 ± 1.00 % | 430,500 | 2,293,000 | 20 | 3 | 1, 2"


def test_every_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="figures need the extra `plots`")
    for name in ("figure1", "figure4", "figure5"):
        lines = [
            {
                **runs.asked(each),
                "accuracy": {"test_last_epoch": 0.9 - 0.001 * k},
                "nonzero_weights": 1000 + k,
                "flops": 10000 + 100 * k,
                "kernel": [[1, 2, 0.5], [1, 3, -0.5], [4, 2, 0.1]],
            }
            for k, each in enumerate(settings.RUNS[name])
        ]
        assert figures.draw(name, lines, {}, tmp_path / f"{name}.png")
    costs = [
        {"method": method, "weights": weights, "extra_milliseconds": weights / 1e6}
        for method in ("gss-structure", "group-greg")
        for weights in (266_200, 592_000)
    ]
    assert figures.draw("cost", costs, {}, tmp_path / "cost.png")
    assert not figures.draw("figure4", [], {}, tmp_path / "none.png")
    assert len(list(tmp_path.glob("*.png"))) == 4
