"""What the package promises to those who install it."""

import ast
import configparser
import importlib
import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import keras
import pytest

import keras_gss as gss

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def run(*command, **variables):
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Builds a wheel from a copy of the tree, so that nothing is left in the tree itself."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    files = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "keras_gss_cli.py"]
    for name in [*files, *(str(p.relative_to(ROOT)) for p in package_files())]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    built = run(sys.executable, "-m", "pip", "wheel", str(tree), *options)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


def package_files():
    return [*(ROOT / "keras_gss").rglob("*.py"), ROOT / "keras_gss" / "py.typed"]


def test_wheel_holds_the_package_its_type_marker_and_license_and_nothing_else(wheel):
    assert wheel.name == f"keras_gss-{gss.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    expected = {str(path.relative_to(ROOT)) for path in package_files()}
    assert inside == {*expected, "keras_gss_cli.py"}
    assert "keras_gss/py.typed" in inside
    assert any(name.endswith("/LICENSE") for name in names)
    scripts = next(name for name in names if name.endswith("entry_points.txt"))
    assert "keras-gss = keras_gss_cli:main" in zipfile.ZipFile(wheel).read(scripts).decode()


def test_wheel_installs_and_its_command_runs_outside_of_the_tree(wheel, tmp_path):
    site = tmp_path / "site"
    options = ("--no-deps", "--no-index", "--target", str(site))
    installed = run(sys.executable, "-m", "pip", "install", *options, str(wheel))
    assert installed.returncode == 0, installed.stderr
    code = (
        "import keras_gss, os; from importlib import metadata;"
        "print(os.path.dirname(keras_gss.__file__), metadata.version('keras-gss'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
    )
    assert found.stdout.split() == [str(site / "keras_gss"), gss.__version__]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_importing_it_loads_nothing_that_only_some_need(backend):
    """What Keras loads by itself (scikit-learn if it is there, JAX on TensorFlow) is not ours."""
    code = (
        "import sys, keras; before = set(sys.modules)\n"
        "import keras_gss; loaded = set(sys.modules) - before\n"
        "print(sum(name.startswith('keras_gss.') for name in loaded))\n"
        "print('tensorflow' in sys.modules)\n"
        "print(*{name.split('.')[0] for name in loaded})"
    )
    found = run(sys.executable, "-c", code, KERAS_BACKEND=backend, PYTHONPATH=str(ROOT))
    assert found.returncode == 0, found.stderr
    modules, tensorflow, loaded = found.stdout.splitlines()[-3:]
    # 24 of some 120 modules: a file read takes 0.3 to 1 ms, and 50 ms is what all may take.
    assert int(modules) <= 30
    assert tensorflow == str(backend == "tensorflow")
    assert set(loaded.split()) - set(sys.stdlib_module_names) == {"keras_gss"}


def test_help_does_not_wait_for_keras():
    code = (
        "import sys, keras_gss_cli\n"
        "try:\n    keras_gss_cli.main(['compress', '--help'])\n"
        "finally:\n    assert not {'keras', 'numpy', 'keras_gss'} & set(sys.modules)\n"
    )
    seconds = []
    for _ in range(3):  # the quickest, for other processes may hold one up
        start = time.perf_counter()
        found = run(sys.executable, "-c", code, PYTHONPATH=str(ROOT))
        seconds.append(time.perf_counter() - start)
        assert found.returncode == 0, found.stderr
    assert min(seconds) < 1.0


def test_every_dependency_has_a_lower_bound_and_what_is_installed_meets_it():
    extras = SETUP["options.extras_require"]
    lines = SETUP["options"]["install_requires"]
    lines += "".join(extras[name] for name in ("demo", "jax", "litert", "onnx"))
    wanted = [line for line in lines.split("\n") if line and not line.startswith("#")]
    assert len(wanted) == 13
    for line in wanted:
        name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups()
        installed = re.match(r"[\d.]+", metadata.version(name)).group().rstrip(".")
        assert [int(part) for part in installed.split(".")] >= [
            int(part) for part in bound.split(".")
        ], line


def test_every_module_imported_is_a_declared_dependency():
    declared = {"keras", "numpy", "tensorflow", "tensorflow_datasets", "sklearn", "jax", "h5py"}
    declared |= {"tf_keras", "tensorflow_model_optimization", "matplotlib"}
    declared |= {"ai_edge_litert", "tf2onnx", "onnxruntime"}
    found = set()
    for path in [*(ROOT / "keras_gss").rglob("*.py"), ROOT / "keras_gss_cli.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    assert found - set(sys.stdlib_module_names) - {"keras_gss", "keras_gss_cli"} <= declared


@pytest.mark.parametrize("package", ["keras_gss", "keras_gss.pruning"])
def test_names_loaded_lazily_are_those_that_type_checkers_see(package):
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name: node.module for node in seen.body for alias in node.names}
    (table,) = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    names = ast.literal_eval(table)
    assert {name: f"{package}.{module}" for name, module in names.items()} == imported
    assert set(names) < set(importlib.import_module(package).__all__)


def test_a_name_wins_over_its_module_in_any_order_of_imports():
    code = (
        "import keras_gss as gss, keras_gss.count, keras_gss.pruning.prune\n"
        "from keras_gss.count import count; from keras_gss import export, zoo\n"
        "assert gss.count is count and callable(gss.prune) and callable(export)\n"
        "assert gss.pruning.prune is gss.prune and gss.zoo is zoo and 'slim' in dir(gss)\n"
        "assert gss.norms.safe_sqrt and not hasattr(gss, 'nowhere')\n"
    )
    found = run(sys.executable, "-c", code, PYTHONPATH=str(ROOT))
    assert found.returncode == 0, found.stderr


def test_files_with_penalties_and_fixed_zeros_load_after_the_import_alone(tmp_path):
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, kernel_regularizer=gss.GSSStructure(0.1))]
    )
    gss.prune(model, gss.AbsoluteThreshold(0.5)).save(tmp_path / "pruned.keras")
    model.save(tmp_path / "model.keras")
    code = (
        f"import keras, keras_gss; load = keras.saving.load_model; folder = {str(tmp_path)!r}\n"
        "print(load(folder + '/model.keras').layers[0].kernel_regularizer.factor)\n"
        "print(load(folder + '/pruned.keras').layers[0].kernel.constraint)\n"
    )
    found = run(sys.executable, "-c", code, PYTHONPATH=str(ROOT))
    assert found.stdout.startswith("0.1\n<keras_gss.pruning.masks.FixedZeros"), found.stderr


def test_public_names_are_there_and_documented():
    assert len(gss.__all__) == len(set(gss.__all__))
    for name in gss.__all__:
        assert getattr(gss, name).__doc__, f"{name} has no docstring"


def test_version_stands_in_the_changelog():
    assert f"## [{gss.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_gate_runs_the_commands_of_the_readme():
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    gate = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in commands:
        assert gate.count(command) == 1
    assert "set -euo pipefail" in gate
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_linter_is_pinned_and_python_versions_agree():
    assert re.search(r"^ruff==\d", SETUP["options.extras_require"]["test"], re.MULTILINE)
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    floor = SETUP["options"]["python_requires"].removeprefix(">=")
    assert ruff["target-version"] == "py" + floor.replace(".", "")
