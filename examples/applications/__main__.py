"""All models of `applications`: neuron groups, exact slimming, and what of them can be cut.

    python examples/applications                     # those not yet in the results, then the table
    python examples/applications --library tf_keras  # the same of tf_keras.applications
    python examples/applications --models ResNet50 NASNetMobile
    python examples/applications --groups-only       # quick: groups and shares, nothing is cut
    python examples/applications --table-only

Every model gets a process of its own, one at a time; its figures become one line of the results
file as soon as it is done, so that a run that is killed goes on where it was. A model that fails
is written down with its error and tried again the next time.
"""

import argparse
import datetime
import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = Path(__file__).parents[1] / "results"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def figures(name, library, everything):
    """Surveys one model in this process, or also cuts, reloads and trains it."""
    import check
    import keras
    import numpy as np

    import keras_gss as gss

    stamp = {
        "model": name,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python examples/applications", *sys.argv[1:]]),
        "versions": {
            "keras_gss": gss.__version__,
            library.__name__: library.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
            "python": sys.version.split()[0],
        },
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    return stamp | (check.check if everything else check.survey)(name, library)


def attempt(name, library, seconds):
    """Checks one model in a new process; returns its figures, or its name and the error."""
    command = [sys.executable, __file__, "--one", name, "--library", library.__name__]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"model": name, "error": f"took more than {seconds} s"}
    if done.returncode:
        return {"model": name, "error": done.stderr.strip()[-1000:] or f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def dash(row, show):
    """Returns `show(row)`, or a dash where the model was only surveyed."""
    return show(row) if "float32" in row else "-"


def table(rows):
    """Writes the rows as Markdown."""
    lines = [
        "| model | parameters | MACs | groups (removable) | removable parameters | removable MACs "
        "| find groups | slim | largest difference | reloaded |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if "error" in row:
            last = row["error"].splitlines()[-1].replace("|", "\\|")
            lines.append(f"| {row['model']} | failed: {last} |" + " |" * 8)
            continue
        find = row["find_groups"]
        lines.append(
            f"| {row['model']} | {row['parameters'] / 1e6:.1f} M | {row['macs'] / 1e9:.2f} G "
            f"| {row['groups']} ({row['removable_groups']}) "
            f"| {row['removable_parameters']:.1%} | {row['removable_macs']:.1%} "
            f"| {find['wall_seconds']:.2f} ({find['cpu_seconds']:.2f}) s "
            f"| {dash(row, slim_cell)} | {dash(row, difference_cell)} "
            f"| {dash(row, reloaded_cell)} |"
        )
    return "\n".join(lines)


def slim_cell(row):
    """Writes how long slimming took."""
    slim = row["float32"]["slim"]
    return f"{slim['wall_seconds']:.1f} ({slim['cpu_seconds']:.1f}) s"


def decisive(row):
    """Returns the figures that count and how to mark them: float64's where float32 was noisy."""
    return (row["float64"], " (float64)") if "float64" in row else (row["float32"], "")


def difference_cell(row):
    """Writes the largest difference between the planted and the slim model."""
    figures, mark = decisive(row)
    return f"{figures['difference']:.0e}{mark}"


def reloaded_cell(row):
    """Writes the largest difference between the slim model and its files."""
    figures, mark = decisive(row)
    return f"{max(figures['reloaded'].values()):.0e}{mark}"


def untouched(rows):
    """Writes what stays whole and why: models and layers with the same reasons together."""
    models = defaultdict(list)
    for row in rows:
        reasons = Counter(
            re.sub(r"'[^']*'", "...", re.sub(r"\d+ groups", "groups", why))
            for why in row.get("untouched", {}).values()
            if "is the model's output" not in why
        )
        models[tuple(reasons.most_common())].append(row["model"])
    lines = []
    for reasons, names in models.items():
        if reasons:
            lines.append(f"- {', '.join(names)}")
            lines += [f"  - {number} layers: {why}" for why, number in reasons]
        else:
            lines.append(f"- {', '.join(names)}: nothing but the layer that makes the output")
    return "\n".join(lines)


def main():
    """Checks what is asked for and not yet done, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", choices=["keras", "tf_keras"], default="keras")
    parser.add_argument("--models", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--results", type=Path, help="default: in examples/results")
    parser.add_argument("--page", type=Path, help="Markdown that holds the table's two marks")
    parser.add_argument("--again", action="store_true", help="also those already done")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds per model")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument(
        "--groups-only", action="store_true", help="survey only, all in this one process"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    library = importlib.import_module(arguments.library)
    if arguments.one:
        print(json.dumps(figures(arguments.one, library, everything=True)))
        return
    stem = "applications" if arguments.library == "keras" else "applications_tf_keras"
    results = arguments.results or RESULTS / f"{stem}.jsonl"
    page = arguments.page or RESULTS / f"{stem}.md"
    rows = {}
    if results.exists():
        lines = results.read_text().splitlines()
        rows = {row["model"]: row for row in map(json.loads, lines)}
    if not arguments.table_only:
        import check

        known = check.names(library)
        for name in arguments.models or known:
            if name not in known:
                parser.error(f"no model {name!r}. Expected one of {', '.join(known)}")
            done = "find_groups" if arguments.groups_only else "float32"
            if arguments.again or done not in rows.get(name, {}):
                rows[name] = (
                    figures(name, library, everything=False)
                    if arguments.groups_only
                    else attempt(name, library, arguments.timeout)
                )
                print(name, rows[name].get("error", "done"), flush=True)
                results.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    ordered = sorted(rows.values(), key=lambda row: row["model"].lower())
    left = "Left whole, and why (layer by layer in `applications.jsonl`):"
    parts = (before + BEGIN, table(ordered), "", left, "", untouched(ordered), END + after)
    page.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
