"""The state of one core as compiled code sees it: a block of memory, and what lies where in it.

Registers, position and counters come first; behind them, for every entry of a stretch, places for
the branches and results that can be on their way there. Python reads and writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa.descriptor import DESCRIPTOR_WORDS
from isa.machine import Machine
from isa.operands import FILE_LENGTH, File, Register
from simulator.compiled.flights import Flight
from simulator.compiled.stretches import Entry, Pending

ALIGNMENT = 64
"""Bytes of a cache line, and of the longest vector register of a host."""

NUMBERS = (
    "next", "code", "channel", "issue", "stalled", "limit", "vmac_lanes", "core", "array",
    "scalar", "last", "shadow", "masked", "conflict",
)  # fmt: skip
"""Fields of 64 bits, one behind the other."""


UNKNOWN_FLAGS = sum(
    FILE_LENGTH[file] for file in (File.SCALAR, File.ADDRESS, File.OFFSET, File.LANE_MASK)
)
"""Bytes that say which scalars a run without numbers does not know."""


class Record:
    """Byte offsets of everything in the record of a core of one program."""

    def __init__(
        self,
        machine: Machine,
        entries: Mapping[Entry, int],
        flights: Mapping[Entry, frozenset[Flight]],
        packets: int,
    ) -> None:
        self.lanes, self._end = machine.vpu.lanes, 0
        self.vectors = self._take(4 * self.lanes * FILE_LENGTH[File.VECTOR])
        self.exchange = self._take(4 * FILE_LENGTH[File.EXCHANGE])
        self.numbers = {name: self._take(8) for name in NUMBERS}
        self.files = {
            file: self._take(8 * FILE_LENGTH[file])
            for file in (File.SCALAR, File.ADDRESS, File.OFFSET, File.LANE_MASK)
        }
        self.unknown = self._take(UNKNOWN_FLAGS)
        self.descriptor = self._take(4 * DESCRIPTOR_WORDS)
        self.sums = self._take(4 * self.lanes * FILE_LENGTH[File.VECTOR])
        self.banks = self._take(8 * machine.am.banks)
        self.bank_stalls = self._take(8 * packets if machine.am.bank_model else 0)
        self.counts = self._take(8 * len(entries))
        self.pending: dict[tuple[Entry, Pending], int] = {}
        self.flights: dict[tuple[Entry, Flight], int] = {}
        for entry in entries:
            for branch in entry.pending:
                self.pending[entry, branch] = self._take(16)
            for flight in sorted(flights[entry], key=str):
                size = 8 + (4 * self.lanes if flight.result.has_lanes else 8)
                self.flights[entry, flight] = self._take(size)
        self.bytes = self._end

    def _take(self, size: int) -> int:
        start = -(-self._end // ALIGNMENT) * ALIGNMENT if size >= ALIGNMENT else self._end
        self._end = start + -(-size // 8) * 8
        return start

    def register(self, register: Register) -> int:
        """Return where a register is."""
        if register.file is File.VECTOR:
            return self.vectors + 4 * self.lanes * register.index
        if register.file is File.EXCHANGE:
            return self.exchange
        return self.files[register.file] + 8 * register.index

    def unknown_flag(self, register: Register) -> int:
        """Return where it stands whether nobody knows a scalar, one byte."""
        return (
            self.unknown
            + (self.files[register.file] - self.files[File.SCALAR]) // 8
            + (register.index)
        )

    def make(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a record of zeros that begins at a multiple of `ALIGNMENT`."""
        return aligned(self.bytes)


def aligned(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return so many bytes of zeros, at an address that is a multiple of `ALIGNMENT`."""
    room = np.zeros(size + ALIGNMENT, np.uint8)
    first = -room.ctypes.data % ALIGNMENT
    return room[first : first + size]
