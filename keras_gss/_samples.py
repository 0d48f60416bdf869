"""Samples handed over as arrays: checking them, and telling one set of them from another."""

import functools
import zlib
from typing import Any

import numpy as np
from keras import tree

from keras_gss._checks import reject


def check_arrays(name: str, value: Any) -> Any:
    """Returns an array, or a structure of arrays, of one number of samples and finite numbers.

    Raises:
        ValueError: no samples, different numbers of them, NaN, infinite values or no numbers.

    Example:
    >>> check_arrays("x", [[1.0, 2.0], [3.0, 4.0]]).shape
    Traceback (most recent call last):
    ValueError: `x` must be an array of numbers or a structure of arrays. Received: a float
    """
    flat = tree.flatten(value)
    for leaf in flat:
        if not hasattr(leaf, "shape"):
            kind = f"a {type(leaf).__name__}"
            raise ValueError(
                f"`{name}` must be an array of numbers or a structure of arrays. Received: {kind}"
            )
    arrays = [np.asarray(leaf) for leaf in flat]
    sizes = {len(array) if array.ndim else 0 for array in arrays}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"`{name}` must hold one number of samples, at least one. Received: {sorted(sizes)}"
        )
    for array in arrays:
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise reject(name, "finite numbers", f"dtype {array.dtype}, NaN or infinite")
    return tree.pack_sequence_as(value, arrays)


def checksum(data: Any) -> str:
    """Returns a short text that two different structures of arrays do not share.

    Example:
    >>> checksum(np.zeros((3, 2)))
    '3 samples f288b395'
    """
    arrays = [np.ascontiguousarray(array) for array in tree.flatten(data)]
    crc = functools.reduce(lambda value, array: zlib.crc32(array.data, value), arrays, 0)
    return f"{len(arrays[-1])} samples {crc:08x}"
