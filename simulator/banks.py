"""The optional bank model of AM: what the vector accesses of one packet cost.

AM is interleaved over `banks` banks in rows of `bank_row_bytes`; a bank serves one row access a
cycle. An access is taken whole, whatever lanes are masked, so the cost never depends on data.
"""

from __future__ import annotations

from collections.abc import Sequence

from isa.machine import ArrayMemory


def bank_conflict_cycles(accesses: Sequence[tuple[int, int]], memory: ArrayMemory) -> int:
    """Return the extra cycles of a packet's accesses, each (byte address, bytes)."""
    load = [0] * memory.banks
    for address, size in accesses:
        offset = address - memory.base
        first = offset // memory.bank_row_bytes
        last = (offset + size - 1) // memory.bank_row_bytes
        for row in range(first, last + 1):
            load[row % memory.banks] += 1
    return max(load) - 1
