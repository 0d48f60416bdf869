"""Runs `slim` on as many random models as one likes: `python tests/fuzz.py --cases 20000 --seed 0`.

Prints how often each kind of layer and planted death occurred and the seed of every failure, which
`python tests/fuzz.py --only SEED` runs again, printing the model. `--results FILE` adds the same as
one line of JSON, so that many short runs add up (`--sum FILE`).
"""

import argparse
import datetime
import json
import random
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import conftest  # noqa: F401  sets the environment before TensorFlow is imported
import keras
from random_models import random_case
from test_slimming_properties import check_case

import keras_gss as gss


def run(seed: int, size: int | None, dtype: str | None) -> tuple[Counter, str]:
    """Checks the case of one seed; returns what it held and the traceback of its failure, or ""."""
    case = random_case(random.Random(seed), size=size, seed=seed, dtype=dtype)
    try:
        return check_case(case, more=seed % 10 == 0), ""
    except (AssertionError, ValueError, TypeError, RuntimeError, KeyError, IndexError):
        return case.kinds(), traceback.format_exc()


def report(counted: Counter, last: str) -> None:
    """Prints the counts and a last line."""
    for kind, count in counted.most_common():
        print(f"{count:8d} {kind}")
    print(last)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="how many models")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first model")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--size", type=int, help="blocks per model; default: random")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="default: random")
    parser.add_argument("--only", type=int, help="run this one seed and print its model")
    parser.add_argument("--results", type=Path, help="file that gets a line of JSON")
    parser.add_argument("--sum", type=Path, help="only add up the lines of such a file")
    args = parser.parse_args()
    if args.sum:
        rows = [json.loads(line) for line in args.sum.read_text().splitlines()]
        report(
            sum((Counter(row["kinds"]) for row in rows), Counter()),
            f"{sum(row['cases'] for row in rows)} cases in {len(rows)} runs, "
            f"{sum(len(row['failed']) for row in rows)} failed",
        )
        return 0
    warnings.filterwarnings("ignore", message="You are using a softmax over axis -1")
    if args.only is not None:
        case = random_case(
            random.Random(args.only), size=args.size, seed=args.only, dtype=args.dtype
        )
        print(case.source())
        check_case(case, more=True)
        print("passed")
        return 0
    counted, failures, start, cases = Counter(), {}, time.time(), 0
    for seed in range(args.seed, args.seed + args.cases):
        if time.time() - start > args.seconds:
            break
        cases += 1
        kinds, error = run(seed, args.size, args.dtype)
        counted += kinds
        if error:
            failures[seed] = error
            print(f"FAILED {seed}: {error}", flush=True)
        if seed % 100 == 99:
            keras.backend.clear_session()
    seconds = time.time() - start
    backend = keras.backend.backend()
    report(
        counted,
        f"{cases} cases in {seconds:.0f} s on {backend}, {len(failures)} failed: "
        f"{sorted(failures)}",
    )
    if args.results:
        row = {
            "cases": cases,
            "first_seed": args.seed,
            "failed": sorted(failures),
            "date": datetime.date.today().isoformat(),
            "command": " ".join(["python", *sys.argv]),
            "versions": {"keras_gss": gss.__version__, "keras": keras.__version__},
            "backend": backend,
            "seconds": round(seconds),
            "kinds": dict(counted.most_common()),
        }
        with args.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
