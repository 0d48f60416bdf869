"""Plants each of the bugs in `bugs.py` into a copy of the tree and runs the tests that should see it.

python tests/planted_bugs              # all of them, minutes; writes results.md
python tests/planted_bugs --only flatten
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from bugs import BUGS

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
    environment = os.environ | {"PYTHONPATH": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests.split()]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    finally:
        path.write_text(text)
    if done.returncode not in (0, 1):
        raise ValueError(f"pytest ended with {done.returncode}: {done.stdout[-500:]}{done.stderr}")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return done.returncode == 1, failed[0].split(" - ")[0][7:] if failed else "-"


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
