"""Reproduces the paper's tables and figures, one command each.

    python examples/reproduce table4                        # three seeds, 250 + 50 epochs
    python examples/reproduce table5 --epochs 40 --finetune-epochs 20 --seeds 1 2 3
    python examples/reproduce table2 --search 0.5 1 2 --only ours             # held-out images
    python examples/reproduce render                        # the tables and figures themselves
    python examples/reproduce table2 --quick --directory /tmp/quick              # a smoke run

A run that is finished is a line of `RESULTS/TARGET.jsonl`; one that is not goes on in the directory
when the same command is given again. What is run is in `settings.py`.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import runs
import settings

RESULTS = Path(__file__).parents[1] / "results" / "paper"


def parsed(arguments):
    """Returns the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("target", choices=[*settings.RUNS])
    add("--seeds", type=int, nargs="+", help="default: 1 2 3 for Tables 2 and 4, else 1")
    add("--only", metavar="TEXT", help="only rows whose name holds the text")
    add("--search", type=float, nargs="+", metavar="M", help="try these multiples of each factor")
    for name in ("epochs", "finetune-epochs", "pretrain-epochs"):
        add(f"--{name}", type=int, help="instead of the full schedule")
    add("--quick", action="store_true", help="a smoke run; no table is made of its lines")
    add("--jobs", type=int, default=1, help="processes; with 1, every epoch prints a line")
    add("--directory", type=Path, default=Path("runs/paper"), help="state of unfinished runs")
    add("--results", type=Path, help="folder of the lines; default: examples/results/paper")
    options = parser.parse_args(arguments)
    if options.results is None:
        options.results = options.directory / "results" if options.quick else RESULTS
    return options


def asked_for(options):
    """Returns the runs that the options ask for."""
    seeds = options.seeds or ([0] if options.search else settings.SEEDS.get(options.target, [1]))
    epochs = {key: getattr(options, key) for key in settings.QUICK_EPOCHS}
    epochs = {key: value for key, value in epochs.items() if value is not None}
    rows = [run for run in settings.RUNS[options.target] if (options.only or "") in run.row]
    rows = [replace(run, seed=seed) for run in rows for seed in seeds]
    if options.search:
        rows = [
            replace(run, factor=float(f"{multiple * run.factor:.4g}"), **settings.SEARCH)
            for run in rows
            for multiple in options.search
        ]
    rows = [run.smoke() for run in rows] if options.quick else rows
    return [replace(run, **epochs) for run in rows]


def main(arguments=None):
    """Does what was asked for."""
    options = parsed(arguments)
    command = " ".join(["python examples/reproduce", *(arguments or sys.argv[1:])])
    runs.execute(asked_for(options), options.directory, options.results, options.jobs, command)


if __name__ == "__main__":
    main()
