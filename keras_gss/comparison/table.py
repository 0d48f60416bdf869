"""What came out of a comparison: a Markdown table, and curves of accuracy against cost."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_gss.comparison.methods import METHODS
from keras_gss.comparison.published import PUBLISHED

Record = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """The records of a comparison, one dict per finished run."""

    records: tuple[Record, ...]

    def table(self) -> str:
        """Returns a Markdown table for each target: methods by their mean test accuracy.

        Raises:
            ValueError: a record is of a smoke run, or none is final.
        """
        return "\n\n".join(self._section(target) for target in self._targets()) + "\n"

    def figure(self, path: str | os.PathLike) -> None:
        """Draws the accuracy of every method against its cost, and writes the picture.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: as for `table`.
        """
        curves = self.curves(self._targets())  # raises before matplotlib is asked for
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ImportError("Figures need matplotlib: pip install 'keras-gss[plots]'") from error
        figure = Figure(figsize=(9, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        self.plot(axes)
        best = {name: points[-1][1] for name, points in curves.items()}
        lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        names = sorted(best, key=lambda name: -best[name])
        figure.legend(
            [lines[name] for name in names],
            [f"{name} {best[name]:.2f}" for name in names],
            loc="outside right upper",
            fontsize="x-small",
            title="at the highest cost, %",
        )
        figure.savefig(path, dpi=150)

    def plot(self, axes: Any) -> None:
        """Plots the curves on matplotlib's `axes`; the legend is left to the caller.

        Raises:
            ValueError: as for `table`.
        """
        from matplotlib import ticker

        curves = self.curves(self._targets())
        for index, (method, points) in enumerate(curves.items()):
            costs, means, spreads = zip(*points, strict=True)
            style: dict[str, Any] = {"marker": "osv^D<>Px*"[index % 10], "capsize": 2}
            axes.errorbar(costs, means, spreads, label=method, **style)
        means = [mean for points in curves.values() for _, mean, _ in points]
        if len(means) > 10:  # what is far below all others must not flatten them into one line
            lowest = statistics.quantiles(means, n=10)[0]
            bottom = max(min(means), lowest - (max(means) - lowest) / 2)
            axes.set_ylim(bottom - 0.2, max(means) + 0.3)
        protocol = self.records[0]["protocol"]
        cost = "live MACs" if protocol["unit"] == "macs" else "non-zero parameters"
        axes.set(xlabel=cost, ylabel="test accuracy, last epoch, %", xscale="log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set_title(f"{protocol['model']}, {protocol['dataset']}, {_schedule(protocol)}")

    def curves(self, targets: Sequence[float]) -> dict[str, list[tuple[float, float, float]]]:
        """Returns, by method, (mean cost, mean accuracy in %, its spread), ascending in cost."""
        found: dict[str, list[tuple[float, float, float]]] = {}
        for target in sorted(targets):
            for method, records in self._by_method(target).items():
                fit = [each for each in records if "error" not in each]
                if fit:
                    unit = fit[0]["protocol"]["unit"]
                    costs = [_cost(each, unit) for each in fit]
                    accuracies = [100 * each["test_last"] for each in fit]
                    point = statistics.fmean(costs), statistics.fmean(accuracies), _sd(accuracies)
                    found.setdefault(method, []).append(point)
        return found

    def _targets(self) -> list[float]:
        quick = [record for record in self.records if record["quick"]]
        if quick:
            raise ValueError(
                f"{len(quick)} of {len(self.records)} records are of a smoke run (quick), of which "
                "no table is made. Compare without it, in another directory."
            )
        targets = {record["target"] for record in self.records if record["role"] == "final"}
        if not targets:
            raise ValueError("No run is finished yet whose strength was frozen: there is no table.")
        return sorted(targets, reverse=True)

    def _by_method(self, target: float) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.records:
            if record["role"] == "final" and record["target"] == target:
                found.setdefault(record["method"], []).append(record)
        return found

    def _section(self, target: float) -> str:
        methods = self._by_method(target)
        protocol = self.records[0]["protocol"]
        unit = "live MACs" if protocol["unit"] == "macs" else "non-zero parameters"
        finals = [record for records in methods.values() for record in records]
        # a method that prunes at initialisation begins with a network that is not trained
        trained = [
            r for r in finals if r["method"] not in METHODS or not METHODS[r["method"]].scratch
        ]
        dense = [100 * r["test_dense"] for r in trained if r.get("test_dense") is not None]
        whole = next((f"{r['dense_macs']:,}" for r in finals if "dense_macs" in r), "?")
        title = (
            f"### {protocol['model']} on {protocol['dataset']}, "
            f"at most {target:.4g} of the {unit}\n\n"
            f"{_schedule(protocol)} (pretraining, method, finetuning), granularity "
            f"{protocol['granularity']}, input features "
            f"{'compared too' if protocol['inputs'] else 'kept'}; {_searched(protocol)} "
            f"tried with seed {protocol['search_seed']}, chosen on the validation data. Dense: "
            f"{whole} MACs, {mean_and_spread(dense)} before the cut.\n"
        )
        rows = [_row(name, records, protocol) for name, records in methods.items()]
        rows.sort(key=lambda row: -row["order"])
        for column in ("last", "best"):
            top = max(row[f"{column}_mean"] for row in rows)
            for row in rows:
                if row[f"{column}_mean"] == top > 0:
                    row[column] = f"**{row[column]}**"
        header = (
            "| method | strength | test, last epoch | test, best epoch | validation | live MACs | "
            "parameters | structure | seeds | the paper prints |"
        )
        lines = [header, "|---" * 10 + "|"]
        keys = ("method", "strength", "last", "best", "validation", "macs", "parameters")
        keys += ("structure", "seeds", "published")
        lines += ["| " + " | ".join(row[key] for key in keys) + " |" for row in rows]
        return title + "\n" + "\n".join(lines)


def _row(method: str, records: Sequence[Record], protocol: Record) -> dict[str, Any]:
    fit = [record for record in records if "error" not in record]
    strengths = {record["strength"] for record in records}
    row: dict[str, Any] = {
        "method": method,
        "strength": ", ".join("-" if s is None else f"{s:.3g}" for s in strengths),
        "seeds": ", ".join(str(record["seed"]) for record in fit),
        "published": PUBLISHED.get((protocol["model"], protocol["dataset"], method), ""),
    }
    for column, key in (("last", "test_last"), ("best", "test_best"), ("validation",) * 2):
        values = [100 * record[key] for record in fit]
        row[column] = mean_and_spread(values)
        row[f"{column}_mean"] = statistics.fmean(values) if values else -1.0
    for column, key in (("macs", "live_macs"), ("parameters", "nonzero_parameters")):
        values = [record[key] for record in fit]
        row[column] = f"{statistics.fmean(values):,.0f}" if values else ""
    row["structure"] = fit[0]["structure"] if fit else f"failed: {records[0]['error']}"
    if len(fit) < len(records) and fit:
        row["seeds"] += f" ({len(records) - len(fit)} failed)"
    return {**row, "order": row["last_mean"]}


def _cost(record: Record, unit: str) -> float:
    return record["live_macs"] if unit == "macs" else record["nonzero_parameters"]


def _searched(protocol: Record) -> str:
    beyond = protocol.get("beyond")
    more = f" (and up to {beyond} more beyond the strongest or weakest one)" if beyond else ""
    return f"{protocol['budget']} strengths{more}"


def _schedule(protocol: Record) -> str:
    phases = ("pretrain_epochs", "epochs", "finetune_epochs")
    return f"{' + '.join(str(protocol[phase]) for phase in phases)} epochs"


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation of percentages, as "89.10 ± 0.20 %"."""
    if not values:
        return ""
    spread = f" ± {_sd(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread} %"


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
