"""Reproduces the paper's tables and figures, one command each.

    python examples/reproduce table4                        # three seeds, 250 + 50 epochs
    python examples/reproduce table5 --epochs 40 --finetune-epochs 20 --seeds 1 2 3
    python examples/reproduce table2 --rivals               # rivals on equal terms
    python examples/reproduce table2 --search 0.5 1 2 --only ours             # held-out images
    python examples/reproduce render                        # the tables and figures themselves
    python examples/reproduce table2 --quick --directory /tmp/quick              # a smoke run

A run that is finished is a line of `RESULTS/TARGET.jsonl`; one that is not goes on in the directory
when the same command is given again. What is run is in `settings.py`.
"""

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cost
import harness
import render
import runs
import settings

RESULTS = Path(__file__).parents[1] / "results" / "paper"
README = Path(__file__).parents[2] / "README.md"


def parsed(arguments):
    """Returns the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("target", choices=[*settings.RUNS, "figure3", "cost", "render"])
    add("--seeds", type=int, nargs="+", help="default: 1 2 3 for Tables 2 and 4, else 1")
    add("--only", metavar="REGEX", default="", help="only rows (figure3: panels) of such names")
    add("--rivals", action="store_true", help="the rival methods' rows of a table instead")
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
    if options.rivals and options.target not in settings.RIVALS:
        parser.error(f"--rivals goes with {', '.join(settings.RIVALS)}")
    given = {name: getattr(options, name) for name in settings.QUICK_EPOCHS}
    options.schedule = {name: epochs for name, epochs in given.items() if epochs is not None}
    return options


def asked_for(options):
    """Returns the runs that the options ask for."""
    seeds = options.seeds or ([0] if options.search else settings.SEEDS.get(options.target, [1]))
    rows = [run for run in settings.RUNS[options.target] if re.search(options.only, run.row)]
    rows = [replace(run, seed=seed) for run in rows for seed in seeds]
    if options.search:
        rows = [
            replace(run, factor=float(f"{multiple * run.factor:.4g}"), **settings.SEARCH)
            for run in rows
            for multiple in options.search
        ]
    rows = [run.smoke() for run in rows] if options.quick else rows
    return [replace(run, **options.schedule) for run in rows]


def main(arguments=None):
    """Does what was asked for."""
    options = parsed(arguments)
    command = " ".join(["python examples/reproduce", *(arguments or sys.argv[1:])])
    if options.target == "render":
        render.render(options.results, README if options.results == RESULTS else None)
    elif options.target == "cost":
        cost.measure(options, command)
    elif options.target == "figure3":
        for name in settings.FIGURE3:
            if re.search(options.only, name):
                panel = settings.PANELS[name]
                harness.run_panel(name, panel.methods, panel.targets, options, command)
    elif options.rivals:
        rivals = settings.RIVALS[options.target]
        harness.run_panel(rivals.panel, rivals.methods, [rivals.target], options, command)
    else:
        runs.execute(asked_for(options), options.directory, options.results, options.jobs, command)


if __name__ == "__main__":
    main()
