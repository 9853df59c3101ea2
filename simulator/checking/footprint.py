"""Which words of a memory an access touches, and whether two accesses share one, exactly.

Word numbers count from the memory's base. Two strided planes may interleave without sharing a
word, as when each core writes its own columns of the same rows. Called by the checks of checked
runs, once for each start of a transfer and load or store near one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import field, frozen

from isa.descriptor import Plane

Indices = np.ndarray[Any, np.dtype[np.intp]]
Where = slice | Indices
"""The words of a load or store as the engine indexes them: a slice, or ascending indices."""


def span(where: Where) -> tuple[int, int]:
    """Return the first word and one past the last; (0, 0) where no lane is enabled."""
    if isinstance(where, slice):
        return where.start, where.stop
    return (int(where[0]), int(where[-1]) + 1) if len(where) else (0, 0)


def indices(where: Where) -> Indices:
    """Return the words of a load or store one by one."""
    if isinstance(where, slice):
        return np.arange(where.start, where.stop, where.step or 1)
    return where


@frozen
class Footprint:
    """`rows` runs of `run` words, the first at word `first`, each `stride` words after the last.

    Runs are ascending and lie apart: what touches or overlaps is one run.
    """

    first: int
    rows: int
    run: int
    stride: int
    end: int = field(init=False, eq=False)
    """One past the last word."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "end", self.first + (self.rows - 1) * self.stride + self.run)

    @staticmethod
    def of(plane: Plane, base: int) -> Footprint:
        """Return the words of one side of a transfer in the memory that begins at `base`."""
        first, stride = (plane.first - base) >> 2, abs(plane.stride) >> 2
        if plane.rows == 1 or stride <= plane.row_words:
            run = (plane.end - plane.first) >> 2
            return Footprint(first, 1, run, run)
        return Footprint(first, plane.rows, plane.row_words, stride)

    @property
    def words(self) -> Indices:
        """Every word, ascending."""
        return (self._starts[:, None] + np.arange(self.run)).reshape(-1)

    @property
    def _starts(self) -> Indices:
        return self.first + self.stride * np.arange(self.rows)

    def shared(self, words: Indices) -> Indices:
        """Return those of the given words that lie in the footprint."""
        offset = words - self.first
        inside = (offset >= 0) & (words < self.end) & (offset % self.stride < self.run)
        return words[inside]

    def meets(self, other: Footprint) -> bool:
        """Tell whether the two have a word in common."""
        if self.end <= other.first or other.end <= self.first:
            return False
        if self.rows == 1 or other.rows == 1 or self.stride == other.stride:
            stride = other.stride if self.rows == 1 else self.stride
            return bool(_meet(self.first, self.rows, self.run, other, stride))
        few, many = (self, other) if self.rows <= other.rows else (other, self)
        return bool(_meet(few._starts, 1, few.run, many, many.stride).any())

    def first_shared(self, other: Footprint) -> int:
        """Return the lowest word that the two, which meet, have in common."""
        few, many = (self, other) if self.rows <= other.rows else (other, self)
        row, offset = np.divmod(few._starts - many.first, many.stride)
        inside = (row >= 0) & (row < many.rows) & (offset < many.run)
        begins = many.first + np.maximum(row + 1, 0) * many.stride  # the run of the other behind
        ahead = (row + 1 < many.rows) & (begins < few._starts + few.run)
        found = np.where(inside, few._starts, begins)
        return int(found[inside | ahead].min())


def _meet(first: Any, rows: int, run: int, other: Footprint, stride: int) -> Any:
    """Tell whether `rows` runs from `first` on share a word with `other`, both at one stride.

    Run i of the one begins at first + i * stride, run j of the other at other.first + j * stride.
    They share a word when -run < first - other.first + (i - j) * stride < other.run, and i - j
    takes every value from 1 - other.rows to rows - 1. `first` may be an array: one answer each.
    """
    distance = first - other.first
    lowest = (-run - distance) // stride + 1
    highest = -((distance - other.run) // stride) - 1
    return (lowest <= highest) & (lowest <= rows - 1) & (1 - other.rows <= highest)
