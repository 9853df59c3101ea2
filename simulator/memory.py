"""The memories: AM and SM of each core, the one DDR, as flat arrays of 32-bit words.

Engines and DMA reach them by byte address. An access outside a memory, or at an address that is
not a multiple of four, is an error that names the address and the memory's range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from isa.descriptor import Plane
from isa.errors import SimulationError

Words = np.ndarray[Any, np.dtype[np.uint32]]


@frozen(eq=False)
class Memory:
    """One memory: its name, first byte address, and words (uint32)."""

    name: str
    base: int
    words: Words

    @staticmethod
    def make(name: str, base: int, size: int) -> Memory:
        """Return a memory of `size` bytes, all zero."""
        return Memory(name, base, np.zeros(-(-size // 4), np.uint32))

    @property
    def end(self) -> int:
        return self.base + 4 * len(self.words)

    def holds(self, first: int, end: int) -> bool:
        """Tell whether the bytes from `first` to `end` lie in this memory."""
        return self.base <= first and end <= self.end

    def index(self, address: int, words: int) -> int:
        """Return the word index of an access of `words` words, or raise SimulationError."""
        offset = address - self.base
        if offset < 0 or offset + 4 * words > 4 * len(self.words) or offset & 3:
            raise SimulationError(self._refusal(address, 4 * words))
        return offset >> 2

    def _refusal(self, address: int, count: int) -> str:
        if address & 3:
            return f"address {address:#x} is not a multiple of 4"
        return (
            f"{count} bytes at {address:#x} are outside {self.name} "
            f"({self.base:#x} to {self.end - 1:#x})"
        )

    def plane(self, plane: Plane) -> Words:
        """Return the words of a plane as a (rows, row_words) view."""
        start = (plane.address - self.base) >> 2
        shape = (plane.rows, plane.row_words)
        if plane.stride == plane.row_bytes or plane.rows == 1:
            return self.words[start : start + plane.words].reshape(shape)
        return np.lib.stride_tricks.as_strided(
            self.words[start:], shape, (plane.stride, 4), writeable=True
        )
