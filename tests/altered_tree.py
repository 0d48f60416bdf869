"""A copy of the tree to plant errors in, and its tests run without importing Keras anew each time."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import conftest  # noqa: F401  sets the environment before TensorFlow is imported
import hypothesis  # noqa: F401  what all children import is imported once
import keras  # noqa: F401
import pytest
import tensorflow as tf  # noqa: F401

sys.modules.pop("conftest")
ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A folder with the library, its tests and its examples, as they are now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for part in ("keras_gss", "tests", "examples"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
        for file in ("setup.cfg", "keras_gss_cli.py"):
            shutil.copy(ROOT / file, folder)
        yield folder


@contextlib.contextmanager
def altered(path: Path, text: str) -> Iterator[None]:
    """The file holds this text for a while."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def run_tests(
    folder: Path, arguments: list[str], plugins: tuple = (), seconds: float = 3600
) -> tuple[int, str]:
    """Runs pytest on the tree under `folder` in a forked process.

    Returns:
        Its exit code (negative: the signal it died of, SIGKILL when it took too many seconds) and
        its output.

    Raises:
        RuntimeError: if another tree's library was imported.
    """
    log = folder / "output"
    child = os.fork()
    if child == 0:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.chdir(folder)
        sys.path[:0] = [str(folder), str(folder / "tests")]
        os.environ["PYTHONPATH"] = str(folder)
        code = pytest.main(["-p", "no:cacheprovider", *arguments], plugins=plugins)
        library = sys.modules.get("keras_gss")
        if library is not None and not Path(library.__file__).is_relative_to(folder):
            code = 70
        sys.stdout.flush()
        os._exit(code)
    deadline = time.monotonic() + seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.02)
    output = log.read_text(errors="replace")
    code = os.waitstatus_to_exitcode(ended[1])
    if code == 70:
        raise RuntimeError(f"The tests did not run on the library under {folder}:\n{output}")
    return code, output


def first_failure(output: str) -> str:
    """Returns the id of the first test that failed, or nothing."""
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split(" - ")[0].split(" ", 1)[1] if failed else ""
