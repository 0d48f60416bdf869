"""The command line: what it prints and writes, its exit codes, and its one-line errors."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gss as gss
import keras_gss_cli
from keras_gss import cli, datasets, zoo
from keras_gss.comparison import METHODS
from keras_gss.export import FORMATS
from keras_gss.regularizers.named import PENALTIES
from keras_gss_cli import build_parser, main

COMMANDS = ("demo", "inspect", "compress", "slim", "export", "compare")


@pytest.fixture
def dead(tmp_path):
    """A .keras file of a model of whose four neurons nobody reads two."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            keras.layers.Dense(4, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="logits"),
        ]
    )
    kernel = keras.ops.convert_to_numpy(model.get_layer("logits").kernel)
    model.get_layer("logits").kernel.assign(kernel * np.array([[1], [0], [1], [0]]))
    path = tmp_path / "dead.keras"
    model.save(path)
    return path


@pytest.fixture
def points(tmp_path):
    """An .npz file of points that two classes split easily."""
    random = np.random.default_rng(0)
    x = random.standard_normal((120, 3)).astype("float32")
    y = (x.sum(1) > 0).astype("int32")
    path = tmp_path / "points.npz"
    np.savez(path, x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    return path


def fails(capsys, *arguments):
    """Returns the one line on stderr of a command whose work fails."""
    assert main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith(f"keras-gss {arguments[0]}: ")
    return error


def refuses(capsys, *arguments):
    """Returns what stderr says about wrong usage."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_names_in_the_help_are_those_that_exist():
    assert set(keras_gss_cli.MODELS) == set(zoo.MODELS)
    assert keras_gss_cli.FORMATS == FORMATS
    assert set(keras_gss_cli.DATASETS) == set(datasets.READERS)
    assert set(keras_gss_cli.REGULARIZERS) == set(PENALTIES)
    assert list(keras_gss_cli.METHODS) == list(METHODS)
    assert all(callable(getattr(cli, name)) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example_that_parses(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    example = text.partition("example:")[2].replace("\\\n", " ").split()
    assert example[:2] == ["keras-gss", command]
    known = [word.replace("pruned.keras", "lenet-5") for word in example[1:]]
    known = [word.replace("small.keras", "lenet-5") for word in known]
    assert build_parser().parse_args(known).command == command
    undocumented = [
        action.dest
        for action in _parser_of(command)._actions
        if not action.help and action.dest != "help"
    ]
    assert undocumented == []


def _parser_of(command):
    (commands,) = (a for a in build_parser()._actions if a.dest == "command")
    return commands.choices[command]


def test_inspect_prints_groups_and_costs(capsys, dead):
    assert main(["inspect", str(dead)]) == 0
    out = capsys.readouterr().out
    assert "hidden" in out and "logits" in out
    assert gss.count(keras.models.load_model(dead)).summary() in out
    assert "75.0% of the multiply-accumulates" in out


def test_slim_writes_a_smaller_model(capsys, dead, tmp_path):
    target = tmp_path / "small.keras"
    assert main(["slim", str(dead), str(target)]) == 0
    out = capsys.readouterr().out
    assert "neurons of hidden: 4 -> 2" in out and f"written and checked: {target}" in out
    small, big = keras.models.load_model(target), keras.models.load_model(dead)
    assert small.get_layer("hidden").units == 2
    x = np.ones((2, 3), "float32")
    np.testing.assert_allclose(small.predict(x), big.predict(x), atol=1e-6)
    assert "exists" in fails(capsys, "slim", dead, target)
    assert main(["slim", str(dead), str(target), "--overwrite"]) == 0


def test_export_writes_a_saved_model(capsys, dead, tmp_path):
    assert main(["export", str(dead), str(tmp_path / "serving")]) == 0
    loaded = tf.saved_model.load(str(tmp_path / "serving"))
    assert loaded.serve(np.ones((5, 3), "float32")).shape == (5, 2)
    assert main(["export", str(dead), str(tmp_path / "b.keras"), "--format", "keras"]) == 0
    assert (tmp_path / "b.keras").is_file()


def compress(dead, points, *more):
    return [
        *("compress", str(dead), "--data", str(points), "--factor", "1e-3", "--epochs", "2"),
        *("--finetune-epochs", "1", "--batch-size", "20", *map(str, more)),
    ]


def test_compress_writes_model_and_results(capsys, dead, points, tmp_path):
    output, results = tmp_path / "small", tmp_path / "results" / "run.json"
    files = ("--output", output, "--results", results, "--directory", tmp_path / "run")
    command = compress(dead, points, "--macs", "0.5", "--seed", "3", *files)
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "accuracy, test" in out and f"written and checked: {output}" in out
    assert tf.saved_model.load(str(output)).serve(np.ones((1, 3), "float32")).shape == (1, 2)
    written = json.loads(results.read_text())
    assert written["command"] == " ".join(["keras-gss", *command])
    assert written["date"].endswith("+00:00")
    assert written["versions"]["keras"] == keras.__version__
    assert written["versions"]["keras-gss"] == gss.__version__
    assert written["backend"] == keras.backend.backend()
    assert written["settings"]["seed"] == 3
    assert written["report"]["live_macs"][1] <= 0.5 * (3 * 4 + 4 * 2)  # training revives neurons
    phases = [entry["phase"] for entry in written["history"]]
    assert phases == ["train", "train", "finetune"]
    assert 0 <= written["accuracies"]["test_last_epoch"] <= 1


@pytest.mark.parametrize("ending", ["h5", "keras", "folder"])
def test_files_of_tf_keras_go_the_same_way(capsys, dead, points, tmp_path, ending):
    path, small = tmp_path / f"legacy.{ending}", tmp_path / "small.keras"
    gss.to_tf_keras(keras.models.load_model(dead)).save(path)
    assert main(["inspect", str(path)]) == 0
    assert "hidden" in capsys.readouterr().out
    assert main(["slim", str(path), str(small)]) == 0
    assert type(gss.load_model(small)).__module__.startswith("tf_keras.")
    assert gss.load_model(small).get_layer("hidden").units == 2
    if ending == "h5":
        results = tmp_path / "run.json"
        assert main(compress(path, points, "--macs", "0.5", "--results", results)) == 0
        versions = json.loads(results.read_text())["versions"]
        assert {"tf-keras", "tensorflow-model-optimization"} <= versions.keys()


def test_compress_passes_on_what_it_is_told(monkeypatch, dead, points, tmp_path):
    passed = {}

    def record(model, train, validation, **settings):
        passed.update(settings, sizes=(len(train[1]), len(validation[1])))
        raise RuntimeError("enough seen")

    monkeypatch.setattr(gss, "compress", record)
    options = "--regularizer gss-structure --p 1 --q 2 --weights macs --penalise-inputs "
    options += "--params 0.25 --granularity element --inputs narrow --pretrain-epochs 4 "
    options += "--learning-rate 0.01 --weight-decay 0.5 --validation 30 "
    options += "--distillation 0.25 --warm-up 7 --no-jit --steps-per-execution 3"
    assert main(compress(dead, points, *options.split())) == 1
    penalty = passed.pop("regularizer")
    assert (
        penalty.get_config()
        == gss.GSSStructure(1e-3, p=1, q=2, weights="macs", inputs=True).get_config()
    )
    assert passed.pop("target") == gss.ParamsBudget(0.25, inputs=True)
    assert passed.pop("schedule").get_config() == gss.WarmUpFactor(7).get_config()
    np.testing.assert_array_equal(passed.pop("test")[1], np.load(points)["y_test"])
    assert passed == {
        "sizes": (50, 30),
        "granularity": "element",
        "inputs": "narrow",
        "pretrain_epochs": 4,
        "epochs": 2,
        "finetune_epochs": 1,
        "batch_size": 20,
        "learning_rate": 0.01,
        "weight_decay": 0.5,
        "distillation": 0.25,
        "directory": None,
        "seed": 0,
        "jit_compile": False,
        "steps_per_execution": 3,
    }


@pytest.mark.parametrize(("options", "jit"), [([], None), (["--jit"], True), (["--no-jit"], False)])
def test_speed_is_chosen_unless_told(dead, points, options, jit):
    args = build_parser().parse_args(compress(dead, points, *options))
    assert (args.jit, args.steps_per_execution) == (jit, None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], gss.AccuracyDrop(0.01)),
        (["--accuracy-drop", "0.02"], gss.AccuracyDrop(0.02)),
        (["--round-to", "8"], gss.AccuracyDrop(0.01, round_to=8)),
        (["--macs", "0.5", "--round-to", "8"], gss.MacsBudget(0.5, round_to=8)),
        (["--ratio", "0.3"], gss.StdThreshold(0.3)),
        (["--threshold", "1e-3"], gss.AbsoluteThreshold(1e-3)),
        (["--macs", "0.25"], gss.MacsBudget(0.25)),
        (["--macs", "5"], gss.MacsBudget(5 / 10)),
        (["--params", "0.5"], gss.ParamsBudget(0.5)),
        (["--ratio", "1", "--penalise-inputs"], gss.StdThreshold(1.0, inputs=True)),
        (
            ["--latency", "0.4", "--latency-runtime", "tf_saved_model", "--latency-batch", "8"],
            gss.Latency(0.4, runtime="tf_saved_model", batch=8),
        ),
    ],
)
def test_targets(dead, points, options, expected):
    args = build_parser().parse_args(compress(dead, points, *options))
    assert cli._target(args, keras.models.load_model(dead)) == expected


def test_other_penalties_and_weights_by_group(dead, points):
    def built(*options):
        return cli._regularizer(build_parser().parse_args(compress(dead, points, *options)))

    assert isinstance(built("--regularizer", "gss-element"), gss.GSSElement)
    assert isinstance(built("--regularizer", "deep-gss121"), gss.DeepGSS121)
    lasso = built("--regularizer", "cross-group-lasso", "--penalise-inputs")
    assert lasso.inputs and isinstance(lasso.penalised, gss.GroupLasso)
    trimmed = built("--regularizer", "l1-trim", "--free", "0.25")
    assert trimmed.regularizer.get_config() == {"factor": 1e-3, "h": 0.25}
    assert built("--weights", "x=4,hidden=0.5").weights == {"x": 4.0, "hidden": 0.5}


def test_demo_goes_the_whole_way(capsys, monkeypatch, tmp_path):
    short = {"pretrain_epochs": 2, "epochs": 2, "finetune_epochs": 1}
    monkeypatch.setattr(cli, "_DEMO", {"target": gss.MacsBudget(0.5), **short})
    output = tmp_path / "digits"
    assert main(["demo", "--model", "digits-mlp", "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "fc1" in out and "accuracy, test" in out
    assert f"SavedModel '{output}' loaded again, on 359 test images" in out
    assert (output / "saved_model.pb").is_file()


def test_failures_are_one_line_and_exit_with_1(capsys, dead, points, tmp_path):
    foreign = tmp_path / "foreign.keras"
    foreign.write_text("not a model")
    assert "does not load as a Keras model" in fails(capsys, "inspect", foreign)
    blocked = tmp_path / "dead.keras" / "out"
    assert "cannot be written" in fails(capsys, "export", dead, blocked)
    assert "cannot be written" in fails(capsys, "slim", dead, blocked)
    assert "cannot be written" in fails(capsys, *compress(dead, points, "--output", blocked))
    assert "cannot be written" in fails(capsys, *compress(dead, points, "--results", blocked))
    broken = tmp_path / "broken.npz"
    broken.write_text("not arrays")
    assert "no .npz file of plain arrays" in fails(capsys, *compress(dead, broken))
    np.savez(broken, x=np.ones(3))
    assert "must hold x_train and y_train. Received: x" in fails(capsys, *compress(dead, broken))
    os.remove(tmp_path / "points.npz")
    np.savez(points, x_train=np.ones((9, 4)), y_train=np.zeros(9, int))
    assert "`train` must hold inputs of shape" in fails(capsys, *compress(dead, points))


def test_what_would_fail_after_hours_of_training_fails_before(
    capsys, monkeypatch, dead, points, tmp_path
):
    monkeypatch.setattr(gss, "compress", lambda *args, **settings: pytest.fail("trained"))

    def wrong(*options):
        return fails(capsys, *compress(dead, points, *options))

    assert "is a folder, and it has to be a file" in wrong("--results", tmp_path)
    for output in (tmp_path / "run", tmp_path / "run" / ".." / "run"):
        files = ("--output", output, "--directory", tmp_path / "run" / "state")
        assert "--output" in wrong(*files) and "would replace --directory" in wrong(*files)
    assert "--macs must be above 0 and at most what the model has, 10." in wrong("--macs", "11")
    assert "--params must be above 0" in wrong("--params", "0")


def test_damaged_and_uneven_arrays_are_told(capsys, dead, points):
    arrays = dict(np.load(points))
    np.savez(points, **{**arrays, "y_train": arrays["y_train"][:-1]})
    assert "as many labels as inputs" in fails(capsys, *compress(dead, points))
    np.savez(points, x_train=1.0, y_train=1)
    assert "as many labels as inputs" in fails(capsys, *compress(dead, points))
    np.savez_compressed(points, **arrays)
    content = bytearray(points.read_bytes())
    content[100:160] = b"x" * 60
    points.write_bytes(content)
    assert "no .npz file of plain arrays" in fails(capsys, *compress(dead, points))


def test_export_writes_what_the_ending_says(capsys, dead, tmp_path):
    assert main(["export", str(dead), str(tmp_path / "copy.keras")]) == 0
    assert (tmp_path / "copy.keras").is_file()
    wrong = ("export", dead, tmp_path / "b.keras", "--format", "tf_saved_model")
    assert "pass format='keras' for a file" in fails(capsys, *wrong)
    assert not (tmp_path / "b.keras").exists()


def test_slim_and_export_write_for_other_runtimes(capsys, dead, tmp_path, monkeypatch):
    files = (tmp_path / "small.tflite", tmp_path / "small.onnx")
    assert main(["slim", str(dead), str(files[0])]) == 0
    assert main(["export", str(dead), str(files[1]), "--format", "onnx"]) == 0
    assert all(path.is_file() for path in files)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = fails(capsys, "slim", dead, tmp_path / "b.onnx")
    assert "needs onnxruntime" in error and "pip install 'keras-gss[onnx]'" in error


def test_debug_shows_the_traceback(tmp_path):
    foreign = tmp_path / "foreign.keras"
    foreign.write_text("not a model")
    with pytest.raises(ValueError, match="does not load"):
        main(["inspect", str(foreign), "--debug"])


def test_wrong_usage_exits_with_2(capsys, dead, points, tmp_path):
    assert "COMMAND" in refuses(capsys)
    assert "received 'vgg'" in refuses(capsys, "inspect", "vgg")
    assert "there is no file 'gone.keras'" in refuses(capsys, "inspect", "gone.keras")
    assert "received 'cats'" in refuses(capsys, "compress", dead, "--data", "cats")
    assert "--factor" in refuses(capsys, "compress", dead, "--data", "digits")
    assert "expected a number >= 0" in refuses(capsys, *compress(dead, points, "--ratio", "-1"))
    assert "expected a number >= 0" in refuses(capsys, *compress(dead, points, "--macs", "nan"))
    both = compress(dead, points, "--macs", "0.5", "--ratio", "1")
    assert "not allowed with" in refuses(capsys, *both)
    assert "expected an integer >= 1" in refuses(capsys, *compress(dead, points, "--batch-size=0"))
    none = compress(dead, points, "--steps-per-execution", "0")
    assert "--steps-per-execution: expected an integer >= 1, received 0" in refuses(capsys, *none)
    assert "invalid choice: 'h5'" in refuses(capsys, "export", dead, tmp_path / "x", "--format=h5")
    assert "NAME=NUMBER" in refuses(capsys, *compress(dead, points, "--weights", "hidden"))


def test_the_module_is_the_command(dead):
    run = subprocess.run(
        [sys.executable, "-m", "keras_gss", "inspect", str(dead)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "hidden" in run.stdout
