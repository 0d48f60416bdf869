"""Plants each of the bugs in `bugs.py` into a copy of the tree and runs the tests that should see it.

python tests/planted_bugs              # all of them, minutes; writes results.md
python tests/planted_bugs --only flatten
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
import conftest  # noqa: F401  sets the environment before TensorFlow is imported
import hypothesis  # noqa: F401  what all children import is imported once
import keras  # noqa: F401
import pytest
import tensorflow as tf  # noqa: F401
from bugs import BUGS

sys.modules.pop("conftest")
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.md")


def caught(folder: Path, file: str, right: str, wrong: str, tests: str) -> tuple[bool, str]:
    """Plants one bug in the tree under `folder`, runs tests, and takes it out again.

    Returns:
        Whether a test failed, and pytest's last line.

    Raises:
        ValueError: if the text is not in the file exactly once, or the tests did not run.
    """
    path = folder / file
    text = path.read_text()
    if text.count(right) != 1:
        raise ValueError(f"{file} holds {text.count(right)} times: {right!r}")
    path.write_text(text.replace(right, wrong))
    try:
        code, output = in_child(folder, ["-qx", "-p", "no:cacheprovider", *tests.split()])
    finally:
        path.write_text(text)
    if code not in (0, 1):
        raise ValueError(f"pytest ended with {code}: {output[-2000:]}")
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    return code == 1, failed[0].split(" - ")[0][7:] if failed else "-"


def in_child(folder: Path, arguments: list[str]) -> tuple[int, str]:
    """Runs pytest on the tree under `folder` in a process that need not import Keras again."""
    log = folder / "output"
    child = os.fork()
    if child == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.chdir(folder)
        sys.path[:0] = [str(folder), str(folder / "tests")]
        os.environ["PYTHONPATH"] = str(folder)
        code = pytest.main(arguments)
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def main() -> int:
    """Returns the number of bugs that no test saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="bugs whose description holds this")
    only = parser.parse_args().only
    chosen = [bug for bug in BUGS if only.lower() in bug[0].lower()]
    lines, missed = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("keras_gss", "tests", "examples"):
            shutil.copytree(ROOT / part, folder / part)
        for file in ("setup.cfg", "keras_gss_cli.py"):
            shutil.copy(ROOT / file, folder)
        for what, *bug in chosen:
            started = time.perf_counter()
            seen, by = caught(folder, *bug)
            missed += not seen
            lines.append(f"| {what} | `{bug[0]}` | {'caught' if seen else '**missed**'} | `{by}` |")
            print(lines[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
    versions = ", ".join(f"{each} {version(each)}" for each in ("keras", "tensorflow", "numpy"))
    total = f"{len(chosen) - missed} of {len(chosen)} planted bugs caught"
    print(total)
    if not only:
        head = [
            f"Written by `python tests/planted_bugs` on {time.strftime('%Y-%m-%d')} with {versions}.",
            *("", f"{total}.", "", "| bug | in | | first test to fail |", "|---|---|---|---|"),
        ]
        RESULTS.write_text("\n".join([*head, *lines]) + "\n")
    return missed


if __name__ == "__main__":
    sys.exit(main())
