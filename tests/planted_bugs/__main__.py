"""Plants each of the bugs in `bugs.py` into a copy of the tree and runs the tests that should see it.

python tests/planted_bugs              # all of them, minutes; writes results.md
python tests/planted_bugs --resume     # but those that results.md says were caught
python tests/planted_bugs --only flatten
"""

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from altered_tree import altered, copied, first_failure, run_tests
from bugs import BUGS

RESULTS = Path(__file__).with_name("results.md")


def caught(folder: Path, file: str, right: str, wrong: str, tests: str) -> tuple[bool, str]:
    """Plants one bug in the tree under `folder`, runs tests, and takes it out again.

    Returns:
        Whether a test failed, and the first that did.

    Raises:
        ValueError: if the text is not in the file exactly once, or the tests did not run.
    """
    path = folder / file
    text = path.read_text()
    if text.count(right) != 1:
        raise ValueError(f"{file} holds {text.count(right)} times: {right!r}")
    with altered(path, text.replace(right, wrong)):
        code, output = run_tests(folder, ["-qx", *tests.split()])
    if code not in (0, 1):
        raise ValueError(f"pytest ended with {code}: {output[-2000:]}")
    return code == 1, first_failure(output) or "-"


def write(rows: dict[str, str]) -> str:
    """Writes the rows of all bugs that were run; returns the line that counts them."""
    done = [rows[bug[0]] for bug in BUGS if bug[0] in rows]
    total = f"{sum('| caught |' in row for row in done)} of {len(BUGS)} planted bugs caught"
    if len(done) < len(BUGS):
        total += f", {len(BUGS) - len(done)} not run"
    versions = ", ".join(f"{each} {version(each)}" for each in ("keras", "tensorflow", "numpy"))
    head = [
        f"Written by `python tests/planted_bugs` on {time.strftime('%Y-%m-%d')} with {versions}.",
        *("", f"{total}.", "", "| bug | in | | first test to fail |", "|---|---|---|---|"),
    ]
    RESULTS.write_text("\n".join([*head, *done]) + "\n")
    return total


def main() -> int:
    """Returns the number of bugs that no test saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="bugs whose description holds this")
    parser.add_argument("--resume", action="store_true", help="keep what results.md says is caught")
    arguments = parser.parse_args()
    chosen = [bug for bug in BUGS if arguments.only.lower() in bug[0].lower()]
    rows, missed = {}, 0
    if arguments.resume or arguments.only:
        lines = (line for line in RESULTS.read_text().splitlines() if "| caught |" in line)
        rows = {line.split(" | ")[0][2:]: line for line in lines}
    if arguments.resume:
        chosen = [bug for bug in chosen if bug[0] not in rows]
    sys.dont_write_bytecode = True  # it is told from its source by second and size alone
    with copied() as folder:
        for what, *bug in chosen:
            started = time.perf_counter()
            seen, by = caught(folder, *bug)
            missed += not seen
            rows[what] = f"| {what} | `{bug[0]}` | {'caught' if seen else '**missed**'} | `{by}` |"
            print(rows[what], f"{time.perf_counter() - started:.0f} s", flush=True)
            write(rows)
    print(write(rows))
    return missed


if __name__ == "__main__":
    sys.exit(main())
