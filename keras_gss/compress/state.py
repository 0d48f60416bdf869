"""A run's directory: its settings, and one state file per phase that a kill cannot destroy.

A file is written under another name, flushed to the disk and then renamed over the old one, which
stays beside it as `<name>.previous` where it is a state. Whatever moment the process dies at, one
complete state is left.
"""

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_gss._keras import rebuild


@dataclass(frozen=True, eq=False)
class State:
    """What a phase had reached: `meta` (JSON values) and named lists of arrays."""

    meta: dict[str, Any]
    arrays: dict[str, list[np.ndarray]]


class RunDirectory:
    """The directory of one run of `compress`; without a path it remembers nothing.

    Args:
        path: the directory, made if it is absent; or None.
        settings: what the run was asked for, JSON values. A directory belongs to one set of
            settings.

    Raises:
        ValueError: the directory belongs to other settings, or holds foreign files only.
        OSError: it cannot be made or written.

    Example:
    >>> folder = tempfile.mkdtemp()
    >>> run = RunDirectory(folder, {"epochs": 3})
    >>> run.save("train", {"epoch": 1}, {"model": [np.ones(2)]})
    >>> RunDirectory(folder, {"epochs": 3}).load("train").meta
    {'epoch': 1}
    >>> RunDirectory(folder, {"epochs": 4})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: `directory` holds a run with epochs=3, and this one has epochs=4. ...
    """

    def __init__(self, path: str | os.PathLike | None, settings: Mapping[str, Any]):
        self.path = None if path is None else Path(path)
        if self.path is None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._clear()
            found = (self.path / "settings.json").exists()
            if not found and any(self.path.iterdir()):
                raise ValueError(
                    f"`directory` must be empty or hold an earlier run. Received: '{self.path}', "
                    "which holds other files."
                )
            if found:
                self._compare(json.loads((self.path / "settings.json").read_text()), settings)
            else:
                self.write_json("settings.json", settings)
        except OSError as error:
            raise OSError(f"`directory` '{self.path}' cannot be used: {error}.") from error

    def save(
        self, name: str, meta: Mapping[str, Any], arrays: Mapping[str, Sequence[np.ndarray]]
    ) -> None:
        """Writes the state of a phase; the one before stays as `<name>.npz.previous`."""
        if self.path is None:
            return
        content: dict[str, Any] = {"meta": np.array(json.dumps({**meta, "lists": list(arrays)}))}
        for key, values in arrays.items():
            content.update({f"{key}/{i:05d}": value for i, value in enumerate(values)})
        self._replace(f"{name}.npz", lambda file: np.savez(file, **content), keep=True)

    def load(self, name: str) -> State | None:
        """Returns the last complete state of a phase, None if there is none yet.

        Raises:
            ValueError: there are files, and none of them can be read.
        """
        if self.path is None:
            return None
        damaged = []
        for candidate in (self.path / f"{name}.npz", self.path / f"{name}.npz.previous"):
            try:
                return _read(candidate)
            except FileNotFoundError:
                continue
            except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
                damaged.append(f"{candidate.name} ({error})")
        if damaged:
            raise ValueError(
                f"`directory` '{self.path}' holds no readable state: {', '.join(damaged)}. Delete "
                "these files to begin that phase anew."
            )
        return None

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file."""
        text = json.dumps(value, indent=1).encode()
        self._replace(name, lambda file: file.write(text))

    def read_json(self, name: str) -> Any:
        """Reads a JSON file; None if it is not there yet."""
        if self.path is None or not (self.path / name).exists():
            return None
        return json.loads((self.path / name).read_text())

    def save_model(self, name: str, model: Any) -> None:
        """Writes a model as a `.keras` file, without its optimizer."""
        if self.path is not None:
            with tempfile.TemporaryDirectory(dir=self.path, prefix=".tmp-") as folder:
                rebuild(model).save(Path(folder) / name)
                os.replace(Path(folder) / name, self.path / name)

    def _replace(self, name: str, write: Callable[[Any], Any], keep: bool = False) -> None:
        if self.path is None:
            return
        handle, temporary = tempfile.mkstemp(dir=self.path, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if keep and (self.path / name).exists():
                os.replace(self.path / name, self.path / f"{name}.previous")
            os.replace(temporary, self.path / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _clear(self) -> None:
        """Removes what a killed process was writing."""
        for left in self.path.glob(".tmp-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _compare(self, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        asked = json.loads(json.dumps(settings))
        names = [key for key in {**found, **asked} if found.get(key) != asked.get(key)]
        if names:
            then = ", ".join(f"{key}={found.get(key)!r}" for key in names)
            now = ", ".join(f"{key}={asked.get(key)!r}" for key in names)
            raise ValueError(
                f"`directory` holds a run with {then}, and this one has {now}. Choose another "
                f"directory, or delete '{self.path}'."
            )


def _read(path: Path) -> State:
    with np.load(path, allow_pickle=False) as content:
        meta = json.loads(str(content["meta"]))
        keys = sorted(content.files)
        arrays = {
            name: [content[key] for key in keys if key.startswith(f"{name}/")]
            for name in meta.pop("lists")
        }
    return State(meta, arrays)
