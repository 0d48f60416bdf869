"""What the package promises to those who install it."""

import ast
import configparser
import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

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
        "import keras_gss; print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    found = run(sys.executable, "-c", code, KERAS_BACKEND=backend, PYTHONPATH=str(ROOT))
    assert found.returncode == 0, found.stderr
    loaded = set(found.stdout.split()) - set(sys.stdlib_module_names)
    assert loaded == {"keras_gss"}
    code = "import sys, keras_gss; print('tensorflow' in sys.modules)"
    found = run(sys.executable, "-c", code, KERAS_BACKEND=backend, PYTHONPATH=str(ROOT))
    assert found.stdout.strip() == str(backend == "tensorflow"), found.stderr


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
