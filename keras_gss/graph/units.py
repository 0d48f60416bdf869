"""Neurons as integers: a union-find over the units that a model's tensors carry."""

import numpy as np

FIXED = 0


class Units:
    """Unit ids, the ties between them, and the reasons why some must stay.

    Unit ``0`` (``FIXED``) stands for every channel that can never be cut. All methods take
    integer arrays of any shape and work on whole arrays at once.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1024, dtype=np.int64)  # doubled when full: linear in all units
        self._count = 1
        self._reasons: list[tuple[np.ndarray, str]] = []

    def __len__(self) -> int:
        return self._count

    def fresh(self, count: int) -> np.ndarray:
        """Returns the ids of `count` new, untied units, shape `(count,)`."""
        first, self._count = self._count, self._count + count
        ids = np.arange(first, self._count, dtype=np.int64)
        if self._count > len(self._parent):
            self._parent = np.resize(self._parent, 2 * self._count)
        self._parent[first : self._count] = ids
        return ids

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """Returns the smallest unit tied to each of `labels`, same shape."""
        roots = self._parent[labels]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                self._parent[labels] = roots  # shorter paths for the next who asks
                return roots
            roots = above

    def tie(self, first: np.ndarray, second: np.ndarray, reason: str) -> None:
        """Gives the units at the same positions of two (broadcastable) arrays one fate.

        A unit tied to `FIXED` becomes fixed, for `reason`.
        """
        first, second = (np.ravel(a) for a in np.broadcast_arrays(first, second))
        movable = (first != FIXED) & (second != FIXED)
        if not movable.all():
            self.fix(first[~movable], reason)
            self.fix(second[~movable], reason)
            first, second = first[movable], second[movable]
        while True:
            a, b = self.roots(first), self.roots(second)
            apart = a != b
            if not apart.any():
                return
            low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
            if (high[1:] > high[:-1]).all():  # each root gets one parent: nothing is left to tie
                self._parent[high] = low
                return
            np.minimum.at(self._parent, high, low)

    def fix(self, labels: np.ndarray, reason: str) -> None:
        """Marks units as never to be cut; the first reason given to a unit is the one told."""
        labels = labels[labels != FIXED]
        if labels.size:
            self._reasons.append((labels, reason))

    def fixed(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns a mask over all units (true for fixed roots) and each one's reason, or ""."""
        mask = np.zeros(len(self), dtype=bool)
        mask[FIXED] = True
        why = np.zeros(len(self), dtype=np.int64)
        texts = np.array(["", *(reason for _, reason in self._reasons)], dtype=object)
        for number, (labels, _) in enumerate(self._reasons, start=1):
            roots = self.roots(labels)
            new = roots[~mask[roots]]
            mask[new] = True
            why[new] = number
        return mask, texts[why]
