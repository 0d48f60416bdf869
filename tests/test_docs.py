"""The examples of the README, of CONTRIBUTING and of every docstring run and are true."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import keras_gss

ROOT = Path(__file__).parents[1]
FOUND = pkgutil.walk_packages(keras_gss.__path__, "keras_gss.")
MODULES = ["keras_gss", *(each.name for each in FOUND if not each.name.endswith("__main__"))]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_python_blocks_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    names = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0


def test_links_of_the_pages_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page}: {target}"
        for path in re.findall(r"`((?:keras_gss|tests)/[\w/.]+)`", (ROOT / page).read_text()):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_the_commands_in_the_pages_exist():
    from keras_gss_cli import build_parser

    words = "compress lenet-300-100 --data fashion_mnist --factor 2e-6 --macs 32600 "
    words += "--directory run --output small --results run.json"
    text = re.sub(r"\\\n\s*", "", (ROOT / "README.md").read_text())
    assert f"keras-gss {words}" in text
    assert build_parser().parse_args(words.split()).macs == 32600
