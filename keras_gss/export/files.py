"""Files and folders that are whole or absent: staged beside their place, put there at the end."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_replaceable(target: Path, format: str, overwrite: bool) -> None:
    """Raises `FileExistsError` unless a path is free, or holds an export that may be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(
            f"'{target}' exists. Pass overwrite=True (--overwrite) to replace it."
        )
    folder = format == "tf_saved_model"
    if not (target / "saved_model.pb" if folder else target).is_file():
        raise FileExistsError(
            f"'{target}' exists and is no earlier export in the format '{format}', so it is not "
            "replaced. Choose another path."
        )


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Gives a path on the target's own file system, and removes it with all it holds at the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OSError(f"'{target}' cannot be written: {error.strerror}.") from error
    try:
        yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(staged: Path, target: Path) -> None:
    """Moves what was staged to the target, or leaves there what was there before."""
    if staged.is_file() or not target.exists():
        staged.replace(target)
        return
    # No portable call swaps two folders: the old one steps aside, and back again on a failure.
    aside = staged.parent.with_name(f"{staged.parent.name}.previous")
    target.rename(aside)
    try:
        staged.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
