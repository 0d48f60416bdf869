"""The ResNet-56 example: its smoke run, broken off and resumed, and what it writes."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "resnet56"
sys.path.insert(0, str(FOLDER))
_spec = importlib.util.spec_from_file_location("resnet56", FOLDER / "__main__.py")
resnet56 = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(resnet56)


pytestmark = pytest.mark.xdist_group("resnet56")  # one process makes what all of them read


# each backend proves one of the precisions
PRECISION = "mixed_bfloat16" if keras.backend.backend() == "tensorflow" else "float32"
OPTIONS = ["--quick", "--precision", PRECISION, "--streams", "0.5"]


def quick(folder):
    return resnet56.Run(resnet56.parsed([*OPTIONS, "--directory", str(folder)]))


def state_of(folder, name):
    with np.load(folder / f"{name}.npz") as content:
        return {key: content[key] for key in content.files if key != "meta"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One run in one go, and one that is broken off after its first epoch and resumed."""
    whole, broken = (tmp_path_factory.mktemp(name) for name in ("whole", "broken"))
    quick(whole)()
    run = quick(broken)
    epoch = run.trainer.epoch

    def last_epoch(*arguments):
        run.options.time_limit = 0.0
        return epoch(*arguments)

    run.trainer.epoch = last_epoch
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 0
    assert sorted(path.name for path in broken.iterdir()) == ["base.npz"]
    resumed = quick(broken)
    resumed.options.train_only = True
    resumed()
    return whole, broken


def test_the_line_of_results(folders):
    (line,) = (folders[0] / "results.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["quick"] is True
    assert row["data"] == "synthetic"
    assert row["model"] == "resnet_8"
    dense, left = row["macs"]
    assert dense == 12_239_488
    assert 2.1 <= row["macs_ratio"] == round(dense / left, 4) < 2.4
    assert row["parameters"][1] < 0.7 * row["parameters"][0]
    assert row["slim_against_masked"]["test_predictions_changed"] == 0
    assert row["slim_against_masked"]["test_logits"] < 1e-5
    assert row["accuracy"]["slim"]["test"] == row["accuracy"]["finetune"]["last"]["test"]
    assert row["accuracy"]["gss"]["last"]["validation"] >= 0.2
    assert row["versions"]["backend"] == keras.backend.backend()


def test_streams_are_what_several_blocks_add_to():
    model = resnet56.zoo.cifar_resnet(2)
    assert resnet56.streams(model) == ["conv", "stage2_block1_2", "stage3_block1_2"]


def test_the_penalty_can_grow_and_finetuning_has_options_of_its_own(folders, tmp_path):
    more = ["--factor", "1e-3", "--distil", "0.5", "--finetune-weight-decay", "0.1", "--train-only"]
    losses = []
    for warm_up in ("0", "3"):
        folder = tmp_path / warm_up
        folder.mkdir()
        shutil.copy(folders[0] / "base.npz", folder)
        options = [*OPTIONS, *more, "--warm-up", warm_up, "--directory", str(folder)]
        run = resnet56.Run(resnet56.parsed(options))
        if keras.backend.backend() != "jax":
            with pytest.raises(SystemExit, match="--distil and --warm-up need --loop scan"):
                run()
            return
        run()
        assert run.trainer.l2 == 0.1
        with np.load(folder / "gss.npz") as content:
            losses.append(json.loads(str(content["meta"]))["history"][0]["loss"])
        assert (folder / "finetune-2.1.npz").exists()
    assert losses[1] < losses[0] - 0.1  # a quarter of the penalty in the first epoch


@pytest.mark.parametrize("by", ["loss", "magnitude"])
def test_neurons_compared_in_one_order_and_weights_rewound(folders, tmp_path, by):
    for name in ("base.npz", "gss.npz"):
        shutil.copy(folders[0] / name, tmp_path)
    options = [*OPTIONS, "--directory", str(tmp_path), "--by", by, "--rewind"]
    run = resnet56.Run(resnet56.parsed(options))
    sparse, base = (state_of(tmp_path, name) for name in ("gss", "base"))
    pruned = []
    keep = run.pruned
    run.pruned = lambda *arguments: pruned.extend(keep(*arguments)) or pruned
    run.phase = lambda number, name, model, state, *rest, **more: (
        stop(state) if number == 2 else type(run).phase(run, number, name, model, state, *rest)
    )

    def stop(state):
        kernels = [k for k in sorted(base) if k.startswith("trainable/")]
        assert len(kernels) == len(state.trainable)
        changed = 0
        for key, value in zip(kernels, state.trainable, strict=True):
            left = value != 0
            np.testing.assert_array_equal(value[left], base[key][left])
            changed += np.count_nonzero(base[key][left] != sparse[key][left])
        assert changed
        raise SystemExit

    with pytest.raises(SystemExit):
        run()
    dense, left = (resnet56.gss.count(model).live_macs for model in (run.host, pruned[0]))
    assert 1.9 < dense / left < 4


def test_without_finetuning_it_only_says_what_pruning_leaves(folders, tmp_path, capsys):
    for name in ("base.npz", "gss.npz"):
        shutil.copy(folders[0] / name, tmp_path)
    run = quick(tmp_path)
    run.options.epochs[2] = 0
    run()
    assert '\npruned-2.1 {"validation": ' in "\n" + capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.npz", "gss.npz"]


def test_the_loss_falls(folders):
    with np.load(folders[0] / "base.npz") as content:
        first, second = json.loads(str(content["meta"]))["history"]
    assert second["loss"] < 0.8 * first["loss"]


def test_the_export_is_the_model_of_the_row(folders):
    row = json.loads((folders[0] / "results.jsonl").read_text())
    small = keras.saving.load_model(folders[0] / "export" / "resnet56-2.1.keras")
    assert small.count_params() == row["parameters"][1]
    assert small.get_layer("conv").filters == row["structure"]["conv"]


@pytest.mark.parametrize("phase", ["base", "gss", "finetune-2.1"])
def test_a_resumed_run_equals_one_in_one_go(folders, phase):
    whole, resumed = (state_of(folder, phase) for folder in folders)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(resumed[name], value, atol=1e-4 * (1 + np.abs(value).max()))


def test_a_finished_run_adds_no_second_line(folders):
    before = (folders[0] / "results.jsonl").read_text()
    quick(folders[0])()
    assert (folders[0] / "results.jsonl").read_text() == before


def test_other_settings_are_refused(folders):
    run = quick(folders[0])
    run.options.factor = 1e-3
    with pytest.raises(SystemExit, match="made with other factor"):
        run()


@pytest.mark.parametrize(
    ("schedule", "begin", "end"), [("steps", 0.1, 0.001), ("cosine", 0.1, 0.0), ("onecycle", 0, 0)]
)
def test_schedules(schedule, begin, end):
    table = resnet56.rates(schedule, 0.1, 20, 5)
    assert table.shape == (20, 5)
    assert table.max() == 0.1
    assert table[0, 0] == begin
    assert table[-1, -1] == pytest.approx(end, abs=0.002)


def test_steps_fall_where_the_paper_lets_them():
    table = resnet56.rates("steps", 0.1, 164, 3)
    np.testing.assert_allclose(table[:, 0], [0.1] * 81 + [0.01] * 41 + [0.001] * 42)
    np.testing.assert_allclose(table[:, -1], [0.1] * 81 + [0.01] * 41 + [0.001] * 42)


def test_several_seeds_each_have_a_folder(monkeypatch):
    begun = []
    monkeypatch.setattr(resnet56, "Run", lambda o: lambda: begun.append((str(o.directory), o.seed)))
    monkeypatch.setattr(sys, "argv", ["resnet56"])
    resnet56.main(["--directory", "some", "--seeds", "3", "5", "--loop", "fit"])
    resnet56.main(["--directory", "some", "--seeds", "7", "--loop", "fit"])
    assert begun == [("some/seed3", 3), ("some/seed5", 5), ("some", 7)]
