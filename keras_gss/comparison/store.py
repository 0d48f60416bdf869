"""The directory of a comparison: its protocol, and one JSON line for each finished run."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from keras_gss.comparison.protocol import Protocol, Run

RESULTS = "results.jsonl"


class Store:
    """Reads and adds the records of a directory.

    A line is written in one go and flushed to the disk; what a kill left of one is passed over.

    Args:
        directory: made if it is absent.
        protocol: the directory's; a directory belongs to one.

    Raises:
        ValueError: the directory belongs to another protocol, named where it differs.
    """

    def __init__(self, directory: Path, protocol: Protocol) -> None:
        self.path = directory / RESULTS
        directory.mkdir(parents=True, exist_ok=True)
        self.records = read(self.path) if self.path.exists() else []
        asked = asdict(protocol)
        for record in self.records[:1]:
            found = record["protocol"]
            usual = {field.name: field.default for field in fields(protocol)}
            found = {**usual, **found}  # older records lack what was added since
            names = [name for name in asked if found[name] != asked[name]]
            if names:
                then = ", ".join(f"{name}={found[name]!r}" for name in names)
                now = ", ".join(f"{name}={asked[name]!r}" for name in names)
                raise ValueError(
                    f"`directory` '{directory}' holds runs with {then}, and these are with {now}. "
                    "Choose another directory."
                )

    def of(self, run: Run) -> dict[str, Any] | None:
        """Returns the record of a run, None if it is not finished."""
        asked = asdict(run)
        return next((r for r in self.records if asked.items() <= r.items()), None)

    def add(self, record: dict[str, Any]) -> None:
        """Appends a record."""
        append(self.path, record)
        self.records.append(record)


def append(path: Path, record: dict[str, Any]) -> None:
    """Appends a record to a file, in one go and flushed to the disk."""
    line = json.dumps(record).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" + line if torn else line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a file, without what a kill left of a line."""
    return [record for line in path.read_text().splitlines() for record in _parsed(line)]


def _parsed(line: str) -> Iterable[dict[str, Any]]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return []
    return [record] if isinstance(record, dict) and "method" in record else []
