"""Rival methods on equal terms: `keras_gss.compare_methods` with the settings of a panel."""

import shutil

import settings

import keras_gss as gss


def run_panel(name, methods, targets, options, command):
    """Runs some methods of a panel; the lines in the folder of results are gone on from.

    Args:
        name: of `settings.PANELS`.
        methods: of `keras_gss.comparison.METHODS`.
        targets: the fractions that may remain.
        options: of the command line.
        command: what was typed, for the lines.
    """
    panel = settings.PANELS[name]
    folder, lines = options.directory / name, options.results / panel.results
    folder.mkdir(parents=True, exist_ok=True)
    lines.parent.mkdir(parents=True, exist_ok=True)
    if lines.exists() and not (folder / "results.jsonl").exists():
        shutil.copy(lines, folder / "results.jsonl")
    protocol = dict(panel.protocol)
    unit = protocol.pop("unit")
    seeds = options.seeds or panel.seeds
    if options.quick:
        protocol |= {"model": settings.QUICK_MODELS[protocol["model"]], "dataset": "digits"}
        protocol["validation"] = settings.QUICK["validation"]
        methods, targets, seeds = methods[:1], targets[:1], seeds[:1]
    else:
        protocol |= options.schedule
    try:
        gss.compare_methods(
            directory=folder,
            methods=methods,
            **{f"target_{unit}": targets},
            seeds=seeds,
            jobs=options.jobs,
            quick=options.quick,
            command=command,
            **protocol,
        )
    finally:
        if (folder / "results.jsonl").exists():
            shutil.copy(folder / "results.jsonl", lines)
