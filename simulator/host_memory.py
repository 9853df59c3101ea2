"""Large memory of the host, used again from run to run: for DDR and for what is read back.

`simulator.placing` takes its arrays here. Memory that a process gets from its system comes page by
page, each cleared first, which can take longer than the work on it. So large arrays go back to a
pool when nobody holds them or a part of them any more, and the next run takes them from there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]

KEPT_SHARE = 8
"""The most that a pool keeps for later runs is one part in so many of the host's memory."""

FEWEST_KEPT_BYTES = 1 << 30
"""And at least this, where the host does not tell or has little."""

SPARE_BYTES = 1 << 28
"""What an array may be larger than needed, and what is kept besides a new one."""

LARGE_BYTES = 1 << 20
"""Below this the system is as fast."""


def keepable_bytes() -> int:
    """Return the most bytes to keep on this host.

    The largest layer of VGG16 holds 2.5 GB at 64 samples, and clearing as much anew takes a quarter
    of its run.
    """
    return max(FEWEST_KEPT_BYTES, host_bytes() // KEPT_SHARE)


def host_bytes() -> int:
    """Return the bytes of the host's memory; 0 where the host does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


class _Loan:
    """Memory in use: numpy holds it as the base of every view, so its end is that of the last."""

    def __init__(self, block: Words, words: int, give_back: Callable[[Words], None]) -> None:
        self._block, self._give_back = block, give_back
        self.__array_interface__ = block[:words].__array_interface__

    def __del__(self) -> None:
        self._give_back(self._block)


class Pool:
    """Blocks of memory that nobody uses, oldest first; threads may share one."""

    def __init__(self, kept_bytes: int | None = None) -> None:
        self._most = keepable_bytes() if kept_bytes is None else kept_bytes
        self._blocks: list[Words] = []
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Bytes kept for later."""
        return sum(block.nbytes for block in self._blocks)

    def take(self, words: int) -> tuple[Words, bool]:
        """Return an array of so many words, and whether all of them are 0."""
        if 4 * words < LARGE_BYTES:
            return np.zeros(words, np.uint32), True
        with self._lock:
            block = self._fitting(4 * words)
        used = block is not None
        if block is None:
            block = np.zeros(words, np.uint32)
        return np.asarray(_Loan(block, words, self._give_back)), not used

    def _fitting(self, size: int) -> Words | None:
        """Take out the smallest block that fits; without one, make room for a new one.

        So what no run has a use for any more does not stay.
        """
        fitting = [b for b in self._blocks if size <= b.nbytes <= size + SPARE_BYTES]
        if not fitting:
            self._shrink(SPARE_BYTES)
            return None
        found = min(fitting, key=lambda block: block.nbytes)
        self._blocks = [block for block in self._blocks if block is not found]
        return found

    def _give_back(self, block: Words) -> None:
        """Keep a block; not if the pool is at work, which this may even have interrupted."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self.kept_bytes + block.nbytes <= self._most:
                self._blocks.append(block)
        finally:
            self._lock.release()

    def _shrink(self, most: int) -> None:
        """Let go of the oldest blocks until no more than so many bytes are kept."""
        while self.kept_bytes > most:
            del self._blocks[0]


POOL = Pool()
"""The pool of this process."""
