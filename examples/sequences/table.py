"""Lines of results as a table in Markdown: every figure before and after, a column per seed."""

from statistics import mean


def table(rows):
    """Returns the tables of all networks and settings, in the order of their first lines."""
    runs = {}
    for row in rows:
        if not row["settings"]["quick"]:
            runs.setdefault((row["network"], str(row["settings"])), []).append(row)
    if not runs:
        raise SystemExit("There are no results but those of --quick, which make no table.")
    return "\n".join(_one(rows) for rows in runs.values())


def _one(rows):
    first = rows[0]
    settings = ", ".join(f"{key} {value}" for key, value in first["settings"].items())
    accuracy = {
        f"accuracy, {k}": lambda row, k=k: row["accuracy"][k] for k in ("test", "validation")
    }
    counted = {key: lambda row, key=key: row[key] for key in ("macs", "parameters", "file_bytes")}
    timed = {
        f"latency, batch {n}, ms": lambda row, n=n: row["latency_ms"][n]
        for n in first["latency_ms"]
    }
    groups = {name: lambda row, name=name: row["groups"][name] for name in first["groups"]}
    lines = [
        f"## {first['network']}\n\n{settings}; most frequent class of each character: "
        f"{mean(row['accuracy']['by_character'] for row in rows):.2%}\n",
        _line("", *(f"seed {row['seed']}" for row in rows), "mean"),
        _line(*["---"] * (len(rows) + 2)),
    ]
    for form, quantities in (
        ("{:.2%}", accuracy), ("{:,.0f}", counted), ("{:.2f}", timed), ("{:g}", groups)
    ):  # fmt: skip
        for name, of in quantities.items():
            pairs = [of(row) for row in rows]
            pairs.append([mean(side) for side in zip(*pairs, strict=True)])
            lines.append(_line(name, *(" → ".join(map(form.format, pair)) for pair in pairs)))
    return "\n".join(lines) + "\n"


def _line(*cells):
    return "| " + " | ".join(cells) + " |"
