"""Neurons as integers: a union-find over the units that a model's tensors carry."""

import numpy as np

FIXED = 0


class Units:
    """Unit ids, the ties between them, and the reasons why some must stay.

    Unit ``0`` (``FIXED``) stands for every channel that can never be cut. All methods take
    integer arrays of any shape and work on whole arrays at once.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1, dtype=np.int64)
        self._reasons: list[tuple[np.ndarray, str]] = []

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> np.ndarray:
        """Returns the ids of `count` new, untied units, shape `(count,)`."""
        first = len(self._parent)
        ids = np.arange(first, first + count, dtype=np.int64)
        self._parent = np.concatenate([self._parent, ids])
        return ids

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """Returns the smallest unit tied to each of `labels`, same shape."""
        roots = self._parent[labels]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                return roots
            roots = above

    def tie(self, first: np.ndarray, second: np.ndarray, reason: str) -> None:
        """Gives the units at the same positions of two (broadcastable) arrays one fate.

        A unit tied to `FIXED` becomes fixed, for `reason`.
        """
        first, second = (np.ravel(a) for a in np.broadcast_arrays(first, second))
        self.fix(np.where(second == FIXED, first, FIXED), reason)
        self.fix(np.where(first == FIXED, second, FIXED), reason)
        movable = (first != FIXED) & (second != FIXED)
        first, second = first[movable], second[movable]
        while True:
            a, b = self.roots(first), self.roots(second)
            apart = a != b
            if not apart.any():
                return
            low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
            np.minimum.at(self._parent, high, low)

    def fix(self, labels: np.ndarray, reason: str) -> None:
        """Marks units as never to be cut; the first reason given to a unit is the one told."""
        labels = np.unique(labels)
        labels = labels[labels != FIXED]
        if labels.size:
            self._reasons.append((labels, reason))

    def fixed(self) -> tuple[np.ndarray, dict[int, str]]:
        """Returns a mask over all units (true for fixed roots) and each fixed root's reason."""
        mask = np.zeros(len(self), dtype=bool)
        mask[FIXED] = True
        reasons: dict[int, str] = {}
        for labels, reason in self._reasons:
            roots = np.unique(self.roots(labels))
            new = roots[~mask[roots]]
            mask[new] = True
            reasons.update(dict.fromkeys(new.tolist(), reason))
        return mask, reasons
