"""Python's own standard library as data: every character of its source and what it is part of.

The text is that of the modules `*.py` at the top of the standard library of the Python that runs
this. The labels come from `tokenize`: what a syntax highlighter would colour alike. Whole modules
are held out, a fifth of them (by a checksum of their names) for validation and test, and of each
part windows of consecutive characters are drawn that begin anywhere: to tell a docstring from code
a network has to look around.
"""

import builtins
import functools
import keyword
import sysconfig
import tokenize
import zlib
from pathlib import Path

import numpy as np

CLASSES = (
    *("blank", "comment", "string", "number", "operator"),
    *("keyword", "builtin", "definition", "name"),
)
CODES = 128  # ASCII
_BUILTINS = set(dir(builtins))


def load(samples, length, seed=0):
    """Draws windows of source code and what each of their characters is part of.

    Args:
        samples: how many windows, by the part's name: "train", "validation", "test".
        length: characters per window.
        seed: decides where the windows begin.

    Returns:
        `{part: (characters, labels)}`, int32, both of shape (samples, length): ASCII codes (63, a
        question mark, for what is not ASCII) and indices into `CLASSES`.

    Raises:
        FileNotFoundError: this Python brings no source code of its library.
    """
    random = np.random.default_rng(seed)
    parts = {}
    for part, count in samples.items():
        read = [labelled(path) for path in modules(part)]
        characters, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        starts = random.integers(len(characters) - length, size=(count, 1))
        windows = starts + np.arange(length)
        parts[part] = characters[windows], labels[windows]
    return parts


def modules(part):
    """Returns the paths of a part's modules."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in sorted(folder.glob("*.py")) if not p.name.startswith("_sysconfigdata")]
    if not paths:
        raise FileNotFoundError(f"There is no source code of the standard library in {folder}.")
    return [path for path in paths if part_of(path.name) == part]


def part_of(name):
    """Returns the part that a module of this name belongs to."""
    tenth = zlib.crc32(name.encode()) % 10
    return {0: "test", 1: "validation"}.get(tenth, "train")


@functools.cache
def labelled(path):
    """Returns the characters of a module, ASCII codes, and their labels, each of shape (length,).

    Source: `tokenize`; names are told apart by `keyword`, `builtins` and whether they follow `def`
    or `class`.
    """
    with tokenize.open(path) as file:
        lines = list(file)
    begins = np.cumsum([0, *map(len, lines)])
    text = np.frombuffer("".join(lines).encode("ascii", "replace"), np.uint8).astype(np.int32)
    labels = np.zeros(len(text), np.int32)
    before = ""
    for token in tokenize.generate_tokens(iter(lines).__next__):
        (row, column), (last_row, last_column) = token.start, token.end
        if kind := _kind(token, before):
            span = slice(begins[row - 1] + column, begins[last_row - 1] + last_column)
            labels[span] = CLASSES.index(kind)
        before = token.string
    return text, labels


def _kind(token, before):
    kind = tokenize.tok_name[token.type]
    if kind != "NAME":
        kind = kind.removeprefix("F").partition("_")[0]  # FSTRING_MIDDLE, since Python 3.12
        return {"COMMENT": "comment", "STRING": "string", "NUMBER": "number"}.get(
            kind, "operator" if kind == "OP" else None
        )
    if keyword.iskeyword(token.string):
        return "keyword"
    if before in ("def", "class"):
        return "definition"
    return "builtin" if token.string in _BUILTINS else "name"
