"""The pictures: one column of panels, readable on a phone and at a paper's column width."""

import numpy as np
import settings

from keras_gss.comparison.table import Comparison

MARKERS = "osv^D"
WIDTH, HEIGHT = 5.0, 3.4  # of a panel, inches; text is 10 points high
KERNEL = (300, 100)


def draw(name, lines, panels, path):
    """Draws a figure, if there are lines for it.

    Args:
        name: of the figure.
        lines: its lines.
        panels: the lines of `settings.PANELS` by their names, for Figure 3.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    if name == "figure3":
        found = {each: compared(each, panels[each]) for each in settings.FIGURE3}
        painters = [painter for painter in found.values() if painter]
    else:
        painters = PAINTERS[name](lines) if lines else []
    if not painters:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT * len(painters)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, paint in zip(
        figure.subplots(len(painters), squeeze=False)[:, 0], painters, strict=True
    ):
        paint(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=200)
    return True


def compared(name, records):
    """Returns what paints one panel of Figure 3, None without final runs of its methods."""
    panel = settings.PANELS[name]
    records = [
        record
        for record in records
        if record["role"] == "final"
        and record["method"] in panel.methods
        and record["target"] in panel.targets
    ]
    return Comparison(tuple(records)).plot if records else None


def series(lines, keys, x, y):
    """Returns `{label: (xs, ys)}`, ascending in x; `keys` make the label, seeds are averaged."""
    points = {}
    for line in lines:
        at = points.setdefault(", ".join(str(line[key]) for key in keys), {})
        at.setdefault(line.get("cost") or line["factor"], []).append((x(line), y(line)))
    means = {label: [np.mean(each, axis=0) for each in at.values()] for label, at in points.items()}
    return {label: np.array(sorted(map(tuple, each))).T for label, each in means.items()}


def plotted(found, **axis):
    """Returns what plots series, a marker each."""

    def paint(axes):
        for marker, (label, (xs, ys)) in zip(MARKERS, found.items(), strict=False):
            axes.plot(xs, ys, marker=marker, label=label)
        axes.set(**axis)
        axes.grid(alpha=0.3)

    return paint


def last(line):
    """Returns the test accuracy after the last epoch, in %."""
    return 100 * line["accuracy"]["test_last_epoch"]


def figure4(lines):
    """Paints accuracy, and what remains, against the factor."""

    def left(line):
        element = line["unit"] == "weights"
        return 100 * (line["nonzero_weights"] if element else line["flops"]) / 266_200

    axis = {"xscale": "log", "xlabel": "factor (the paper's lambda)"}
    keys = ("method", "dataset")
    return [
        plotted(
            series(lines, keys, lambda line: line["factor"], value),
            **axis,
            ylabel=label,
            yscale=scale,
        )
        for value, label, scale in (
            (last, "test accuracy, last epoch, %", "linear"),
            (left, "weights or FLOPs left, %", "log"),
        )
    ]


def figure5(lines):
    """Paints accuracy against FLOPs, and the FLOPs at equal accuracies."""
    found = series(lines, ("p", "q"), lambda line: line["flops"], last)
    found = {f"({label})": points for label, points in found.items()}
    reached = min(ys.max() for _, ys in found.values())
    levels = [np.floor(10 * reached) / 10 - drop for drop in (0.0, 0.2, 0.4)]

    def paint(axes):
        for place, (label, (xs, ys)) in enumerate(found.items()):
            costs = [min(xs[ys >= level], default=0) for level in levels]
            at = np.arange(len(levels)) + place / (len(found) + 1)
            axes.bar(at, costs, 1 / (len(found) + 1), label=label)
        axes.set_xticks(np.arange(len(levels)) + 0.3, [f"{level:.1f} %" for level in levels])
        axes.set(xlabel="test accuracy reached", ylabel="FLOPs that suffice")
        axes.margins(y=0.5)  # for the legend

    axis = {"xlabel": "FLOPs", "ylabel": "test accuracy, last epoch, %", "xscale": "log"}
    best = max(ys.max() for _, ys in found.values())
    axis["ylim"] = (np.floor(reached) - 2, best + 0.5)  # without networks that the cut destroyed
    return [plotted(found, **axis), paint]


def figure6(lines):
    """Paints loss and penalty, and the held-out accuracy, over the epochs."""

    def curves(names, scale, **axis):
        def paint(axes):
            for line in lines:
                for name, dashes in zip(names, ("-", "--"), strict=False):
                    values = np.array(line["curve"][name]) * scale
                    label = f"{line['dataset']}, {LABELS[name]}"
                    axes.plot(np.arange(1, len(values) + 1), values, dashes, label=label)
            axes.set(xlabel="epoch under the penalty", **axis)
            axes.grid(alpha=0.3)

        return paint

    return [
        curves(("loss", "gss_penalty"), 1, ylabel="loss", yscale="log"),
        curves(("val_accuracy",), 100, ylabel="accuracy on held-out images, %"),
    ]


LABELS = {"loss": "loss and penalty", "gss_penalty": "penalty", "val_accuracy": "held out"}


def figure1(lines):
    """Paints the second kernel of both networks, neurons in the order of their strength."""
    return [kernel(line) for line in lines]


def kernel(line):
    """Returns what paints |w| between the strongest neurons of two layers."""
    matrix = np.zeros(KERNEL)
    for i, j, weight in line["kernel"]:
        matrix[i, j] = abs(weight)
    rows, columns = (np.argsort(-np.linalg.norm(matrix, axis=axis)) for axis in (1, 0))
    matrix = matrix[rows][:, columns][:60, :60]
    element = line["method"] == "gss-element"

    def paint(axes):
        shown = axes.imshow(np.where(matrix > 0, matrix, np.nan), cmap="viridis", aspect="auto")
        axes.figure.colorbar(shown, ax=axes, label="|w|")
        what = "weights of a neuron compete" if element else "a neuron's cooperate, neurons compete"
        axes.set_title(f"{line['row']}: {what}", fontsize="medium")
        axes.set(xlabel="neurons of FC2 (a column: weights in)")
        axes.set(ylabel="neurons of FC1 (a row: weights out)")

    return paint


def cost(lines):
    """Paints what a step takes longer than the plain one, against the number of weights."""
    found = {}
    for line in lines:
        found.setdefault(line["method"], []).append((line["weights"], line["extra_milliseconds"]))
    sizes = np.array(sorted({line["weights"] for line in lines}))
    found = {  # on a logarithmic axis; noise can be below zero
        method: np.array(sorted(point for point in points if point[1] > 0)).T
        for method, points in found.items()
    }

    def paint(axes):
        plotted(found, xscale="log", yscale="log", xlabel="weights")(axes)
        _, ys = next(iter(found.values()))
        axes.plot(sizes, ys[-1] * sizes / sizes[-1], "k:", label="linear")
        axes.set(ylabel="extra milliseconds per step")
        axes.set_xticks(sizes, [f"{size / 1e6:.1f}M" for size in sizes])
        axes.tick_params(axis="x", which="minor", labelbottom=False)

    return [paint]


PAINTERS = {
    "figure1": figure1,
    "figure4": figure4,
    "figure5": figure5,
    "figure6": figure6,
    "cost": cost,
}
