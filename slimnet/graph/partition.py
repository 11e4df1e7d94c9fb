"""Partitions of numbered items: classes split by what differs, and components joined by ties."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.int64]


class Partition:
    """Units in classes, split until the units of a class agree in everything."""

    def __init__(self, count: int) -> None:
        self.of = np.zeros(count, dtype=np.int64)
        self._count = 1

    def split(self, units: Units) -> None:
        """Part these units from the others of their classes."""
        before = self.of[units]
        classes = distinct(before, self._count)
        renumbered = np.arange(self._count)
        renumbered[classes] = self._count + np.arange(len(classes))
        self.of[units] = renumbered[before]
        self._count += len(classes)

    def split_by(self, facts: NDArray[np.int64]) -> None:
        """Part units with different facts, (units,), each at least 0."""
        pairs = self.of * (facts.max() + 1) + facts
        occurs = np.zeros(self._count * (facts.max() + 1), dtype=bool)
        occurs[pairs] = True
        self.of = (np.cumsum(occurs) - 1)[pairs]
        self._count = int(occurs.sum())

    def members(self, made: Units) -> list[Units]:
        """The units of each class in the order of `made`; classes are numbered by first appearance."""
        first = np.full(len(self.of), -1)
        first[made[::-1]] = np.arange(len(made))[::-1]
        units = made[first[made] == np.arange(len(made))]
        classes = self.of[units]
        appearance = np.full(self._count, len(units))
        appearance[classes[::-1]] = np.arange(len(units))[::-1]
        numbered = np.argsort(np.argsort(appearance))[classes]
        self.of = np.full(len(self.of), -1, dtype=np.int64)
        self.of[units] = numbered
        order = np.argsort(numbered, kind="stable")
        return np.split(units[order], np.cumsum(np.bincount(numbered))[:-1])


def distinct(numbers: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The numbers that occur, sorted; all are below `limit`. Without sorting, as np.unique would."""
    occurs = np.zeros(limit, dtype=bool)
    occurs[numbers] = True
    return np.flatnonzero(occurs)


def components(count: int, ties: NDArray[np.int64]) -> Units:
    """Number the connected components of `count` atoms under `ties` (2, E), by first atom."""
    label = np.arange(count)
    while True:
        smaller = np.minimum(label[ties[0]], label[ties[1]])
        lowered = label.copy()
        np.minimum.at(lowered, ties[0], smaller)
        np.minimum.at(lowered, ties[1], smaller)
        np.minimum.at(lowered, label[ties[0]], smaller)
        np.minimum.at(lowered, label[ties[1]], smaller)
        lowered = lowered[lowered]
        if np.array_equal(lowered, label):
            is_first = label == np.arange(count)
            return (np.cumsum(is_first) - 1)[label]
        label = lowered
