"""Turns lines of results into Markdown tables and pictures."""

import dataclasses
import json
import statistics

import figures
import numpy as np
import settings

from keras_gss import zoo
from keras_gss.comparison.published import PUBLISHED
from keras_gss.comparison.store import read
from keras_gss.comparison.table import Comparison, mean_and_spread
from keras_gss.count import count

INTRODUCTION = """# The paper's tables and figures

Made by `python examples/reproduce render` of the lines beside this file, each of which holds the
command that wrote it. "Test, best epoch" is the paper's protocol, which picks the epoch of
finetuning on the test images; "last epoch" is the figure to rely on. The settings of LeNet-300-100
were chosen on held-out training images and frozen before the test images were read. Those of
LeNet-5 are guesses, but for the rows "searched"; the factor 6e-5 comes from a prototype that was
judged by its best epoch on the test images. FLOPs are multiply-accumulates between live inputs and
live neurons, as in the paper; a structure is that of the first seed, other figures are means. The
rivals' lines hold no figures of single layers, so their tables lack these columns; where
"the paper prints" is empty, its figure is not at hand.
"""
# In the project's README, around what is written there.
BEGIN = "<!-- written by `python examples/reproduce render` -->\n"
END = "<!-- end -->\n"


def render(results, readme=None):
    """Writes `README.md` and the pictures into the folder of results.

    Args:
        results: the folder of the lines.
        readme: another file, between whose marks the summary goes.

    Raises:
        ValueError: lines of smoke runs, or none at all.
    """
    lines = {name: lines_of(results / f"{name}.jsonl") for name in settings.TITLES}
    searched = {name: lines_of(results / f"search-{name}.jsonl") for name in settings.HELD_OUT}
    panels = {name: lines_of(results / panel.results) for name, panel in settings.PANELS.items()}
    all_lines = (*lines.values(), *searched.values(), *panels.values())
    quick = sum(line["quick"] for each in all_lines for line in each)
    if quick:
        raise ValueError(
            f"{quick} lines in '{results}' are of smoke runs (quick), of which no table is made."
        )
    sections = [INTRODUCTION, originals([line for each in lines.values() for line in each])]
    for name, title in settings.TITLES.items():
        content = ""
        if name in settings.HELD_OUT:
            content = held_out(searched[name])
        elif name in settings.TABLES:
            content = table(lines[name])
            content += rivals(settings.RIVALS[name], panels) if name in settings.RIVALS else ""
        elif figures.draw(name, lines[name], panels, results / f"{name}.png"):
            content = f"![{title}]({name}.png)\n"
        if content:
            claim = settings.CLAIMS.get(name, "")
            sections.append("\n\n".join(filter(None, [f"## {title}", claim, content])))
    if len(sections) == 2 and not sections[1]:
        raise ValueError(f"There are no lines in '{results}': run a table or a figure first.")
    (results / "README.md").write_text("\n".join(filter(None, sections)))
    print(f"written: {results / 'README.md'}")
    if readme:
        write_between_marks(readme, summary(lines))
        runs = (results.parent / "resnet56.jsonl").read_text().splitlines()
        content = resnet_56([json.loads(line) for line in runs])
        write_between_marks(results.parent / "README.md", content)


def write_between_marks(path, content):
    """Replaces what is between `BEGIN` and `END` in a file."""
    before, rest = path.read_text().split(BEGIN)
    path.write_text(before + BEGIN + content + END + rest.split(END)[1])


def lines_of(path):
    """Returns the lines of a file, none if it is not there."""
    return read(path) if path.exists() else []


def summary(lines):
    """Returns the table of what the paper prints and what was reached on its schedule."""
    rows = ["| | the paper | its recipe, here | ours |", "|---|---|---|---|"]
    for name, (what, ours) in settings.SUMMARY.items():
        recipe = settings.RUNS[name][0]
        asked = {run.row: schedule(dataclasses.asdict(run)) for run in settings.RUNS[name]}
        printed = PUBLISHED[recipe.model, recipe.dataset, recipe.method].split(" (")[0]
        cells = [what, printed]
        for row_ in (recipe.row, ours):
            full = [line for line in lines[name] if line["row"] == row_]
            cells.append(reached([line for line in full if schedule(line) == asked[row_]]))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def reached(lines):
    """Returns the accuracy at the best and the last epoch, and the cost, of one row."""
    if not lines:
        return ""
    best, last = (
        100 * statistics.fmean(line["accuracy"][key] for line in lines)
        for key in ("test_best_epoch", "test_last_epoch")
    )
    unit, key = ("MACs", "flops") if lines[0]["unit"] == "macs" else ("weights", "nonzero_weights")
    cost = statistics.fmean(line[key] for line in lines) / 1000
    return f"{best:.2f} % ({last:.2f}) at {cost:.1f}k {unit}"


def resnet_56(lines):
    """Returns the table of `examples/resnet56`: accuracies beside those of its dense network."""

    def percent(value):
        return f"{100 * value:.2f} %"

    base = lines[0]["accuracy"]["base"]
    dense = base["last"]["test"]
    cells = [*map(percent, (dense, base["best_on_test"]["test"], base["last"]["validation"])), ""]
    macs, parameters = lines[0]["macs"][0], lines[0]["parameters"][0]
    rows = [[f"dense, {base['last']['epoch']} epochs", f"{macs:,}", f"{parameters:,}", *cells, ""]]
    groups = {}
    for line in lines:
        decay = line["settings"].get("finetune_weight_decay")
        groups.setdefault((line["ratio"], decay), []).append(line)
    for (ratio, decay), group in sorted(groups.items(), key=str):
        name = f"{ratio:g}x fewer MACs" if ratio > 1 else "dense"
        name += "" if decay is None else f", weight decay {decay:g}"
        allowed = settings.RESNET_56_ASKED.get(ratio)
        asked = "" if allowed is None else f"-{allowed:.1f}" if allowed else "0.0"
        losses = []
        for line in group:
            found = line["accuracy"]["finetune"]
            losses.append(100 * (found["last"]["test"] - dense))
            rows.append(
                [
                    f"{name}, {line['settings']['finetune_epochs']} epochs of finetuning",
                    f"{line['macs'][1]:,}",
                    f"{line['parameters'][1]:,}",
                    percent(found["last"]["test"]),
                    percent(found["best_on_test"]["test"]),
                    percent(found["last"]["validation"]),
                    f"{losses[-1]:+.2f}",
                    asked,
                ]
            )
        if len(group) > 1:
            rows.append(
                [f"{name}, mean of {len(group)}", *[""] * 5, f"{np.mean(losses):+.2f}", asked]
            )
    head = "| | MACs | parameters | test, last epoch | best epoch | held-out, last epoch "
    head += "| last, to dense | asked for |"
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{head}\n|---{'|--:' * 7}|\n{body}\n"


def originals(lines):
    """Returns the table of the dense networks, of those that were trained longest."""
    rows = []
    for (model, dataset), printed in settings.ORIGINAL.items():
        plain = [
            line
            for line in lines
            if (line.get("model"), line.get("dataset")) == (model, dataset)
            and not (line["dropout"] or line.get("shift"))
        ]
        longest = max((line["pretrain_epochs"] for line in plain), default=0)
        trained = {  # lines of one seed may share a network, or be of several machines
            (line["seed"], line["accuracy"]["dense_test"])
            for line in plain
            if line["pretrain_epochs"] == longest
        }
        if trained:
            whole = count(zoo.build(model))
            rows.append(
                f"| {model}, {dataset} | {printed:.2f} % "
                f"| {mean_and_spread([100 * accuracy for _, accuracy in sorted(trained)])} "
                f"| {whole.weights:,} | {whole.live_macs:,} | {longest} | {len(trained)} "
                f"| {', '.join(map(str, sorted({seed for seed, _ in trained})))} |"
            )
    head = "| Original | the paper prints | ours, last epoch | weights | FLOPs | epochs | networks "
    head += "| seeds |"
    return "\n".join([head, "|---" * 8 + "|", *rows, ""]) if rows else ""


def held_out(lines):
    """Returns the Markdown table of rows for which the test images were not read."""
    if not lines:
        return ""
    named = [run.row for run in settings.RUNS[lines[0]["target"]]]
    rows = []
    for name in sorted({line["row"] for line in lines}, key=named.index):
        own = [line for line in lines if line["row"] == name]
        accuracies = [100 * line["accuracy"]["validation"] for line in own]
        seeds = ", ".join(str(seed) for seed in sorted(line["seed"] for line in own))
        rows.append(f"| {name} | {mean_and_spread(accuracies)} | {schedule(own[0])} | {seeds} |")
    head = "| row | held-out images, last epoch | epochs | seeds |"
    return "\n".join([head, "|---" * 4 + "|", *rows, ""])


def table(lines):
    """Returns the Markdown table of the rows of one table, one row per schedule."""
    if not lines:
        return ""
    head = ["row", "test, best epoch", "test, last epoch", "weights", "FLOPs"]
    kinds = ["CONV" if name.startswith("conv") else "FC" for name in lines[0]["layers"]]
    head += [f"{kind}{kinds[:place].count(kind) + 1}" for place, kind in enumerate(kinds)]
    head += ["structure (first seed)", "factor", "epochs", "seeds", "the paper prints"]
    groups = {}
    for line in lines:
        key = (line["row"], line["factor"], schedule(line), line["cost"])
        groups.setdefault(key, []).append(line)
    named = [run.row for run in settings.RUNS[lines[0]["target"]]]
    groups = dict(sorted(groups.items(), key=lambda each: [*named, each[0][0]].index(each[0][0])))
    dense = count(zoo.build(lines[0]["model"]))
    rows = [
        row(group, {each.name: each.weights for each in dense.layers}) for group in groups.values()
    ]
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)) + "\n"
    )


def row(lines, weights):
    """Returns the cells of one row; `weights` are those of the dense layers."""
    lines = sorted(lines, key=lambda line: line["seed"])
    first = lines[0]

    def mean(value):
        return statistics.fmean(map(value, lines))

    def share(name):
        return f"{100 * mean(lambda line: line['layers'][name]) / weights[name]:.2f} %"

    accuracies = [
        mean_and_spread([100 * line["accuracy"][key] for line in lines])
        for key in ("test_best_epoch", "test_last_epoch")
    ]
    return [
        first["row"],
        *accuracies,
        f"{mean(lambda line: line['nonzero_weights']):,.0f}",
        f"{mean(lambda line: line['flops']):,.0f}",
        *map(share, first["layers"]),
        "-".join(map(str, first["structure"])),
        f"{first['factor']:g}",
        schedule(first),
        ", ".join(str(line["seed"]) for line in lines),
        PUBLISHED.get((first["model"], first["dataset"], first["method"]), ""),
    ]


def schedule(line):
    """Returns the epochs of the three phases."""
    return " + ".join(str(line[name]) for name in settings.QUICK_EPOCHS)


def rivals(asked, panels):
    """Returns the table of rival methods on equal terms, if there are any."""
    records = [
        record
        for record in panels[asked.panel]
        if record["target"] == asked.target
        and record["role"] == "final"
        and record["method"] in asked.methods
    ]
    return f"\n#{Comparison(tuple(records)).table()}" if records else ""
