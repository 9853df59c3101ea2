"""What checked runs remember beside registers and memories: what was written, what was stored when.

One `RegisterShadow` a core, one `MemoryShadow` a memory, both kept by `simulator.checking.checker`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from isa.operands import FILE_LENGTH, File, Register
from simulator.checking.footprint import Footprint, Where, indices, span

_FIRST_BIT = {
    file: sum(FILE_LENGTH[earlier] for earlier in list(File)[:position])
    for position, file in enumerate(File)
}


def register_mask(registers: Iterable[Register]) -> int:
    """Return registers of any files as one bit mask."""
    mask = 0
    for register in registers:
        mask |= 1 << _FIRST_BIT[register.file] + register.index
    return mask


class RegisterShadow:
    """Which registers of one core a result has landed in; the lane mask starts full."""

    __slots__ = ("written",)

    def __init__(self) -> None:
        self.written = register_mask([Register(File.LANE_MASK)])


class MemoryShadow:
    """One memory, word by word: filled or not; and the stores that are not yet safe to read.

    With no words (a timing-only run, which holds no tensors) everything passes for filled.
    """

    def __init__(self, words: int, store_latency: int) -> None:
        # bytes are far quicker than numpy on a vector's few words, numpy on a transfer's many
        self._filled = bytearray(words)
        self._view = np.frombuffer(self._filled, np.bool_)
        self._latency = store_latency
        self._stores: list[tuple[int, Where]] = []

    def fill(self, where: Where) -> None:
        """Note that a store or the host wrote these words."""
        if not self._filled:
            return
        if isinstance(where, slice):
            count = len(range(where.start, where.stop, where.step or 1))
            self._filled[where] = b"\1" * count
        else:
            self._view[where] = True

    def fill_plane(self, footprint: Footprint) -> None:
        """Note that a transfer wrote these words."""
        if self._filled:
            self._rows(footprint)[...] = True

    def first_unfilled(self, where: Where) -> int:
        """Return the first of these words that nothing ever wrote, or -1."""
        if not self._filled:
            return -1
        if isinstance(where, slice):
            found = self._filled[where].find(0)
            return found if found < 0 else where.start + found * (where.step or 1)
        empty = where[~self._view[where]]
        return int(empty[0]) if len(empty) else -1

    def first_unfilled_in(self, footprint: Footprint) -> int:
        """Return the first word of a transfer's source that nothing ever wrote, or -1."""
        if not self._filled or (rows := self._rows(footprint)).all():
            return -1
        row, word = divmod(int(rows.argmin()), footprint.run)
        return footprint.first + row * footprint.stride + word

    def _rows(self, footprint: Footprint) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
        """Return a view of the words of a footprint, one row a run."""
        shape, strides = (footprint.rows, footprint.run), (footprint.stride, 1)
        start = self._view[footprint.first : footprint.end]
        return np.lib.stride_tricks.as_strided(start, shape, strides)

    def stored(self, issue: int, where: Where) -> None:
        """Note a store at an issue time of the core."""
        self._stores = [store for store in self._stores if issue - store[0] < self._latency]
        self._stores.append((issue, where))

    def store_age(self, issue: int, where: Where) -> int:
        """Return the cycles since the latest store to these words that is not safe yet, or -1."""
        if not self._stores or issue - self._stores[-1][0] >= self._latency:
            return -1
        first, end = span(where)
        for stored_at, stored in reversed(self._stores):
            low, high = span(stored)
            near = issue - stored_at < self._latency and low < end and first < high
            if near and len(np.intersect1d(indices(stored), indices(where))):
                return issue - stored_at
        return -1

    def store_age_in(self, issue: int, footprint: Footprint) -> int:
        """Return the same for one side of a transfer."""
        for stored_at, stored in reversed(self._stores):
            if issue - stored_at < self._latency and len(footprint.shared(indices(stored))):
                return issue - stored_at
        return -1
