"""The optional bank model of AM: what the vector accesses of one packet cost.

AM is interleaved over `banks` banks in rows of `bank_row_bytes`; a bank serves one row access a
cycle. An access is taken whole, whatever lanes are masked, so the cost never depends on data.
Functions in integers, which the compiled engine translates and the reference engine calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from isa.machine import ArrayMemory

Record = list[int]


def count_rows(loads: Record, banks: int, row_bytes: int, offset: int, size: int) -> None:
    """Add the rows of one access, `offset` bytes into AM, to the loads of their banks."""
    for row in range(offset // row_bytes, (offset + size - 1) // row_bytes + 1):
        loads[row % banks] += 1


def take_busiest(loads: Record, banks: int) -> int:
    """Return the accesses of the busiest bank, and forget all."""
    busiest = 0
    for bank in range(banks):
        busiest = max(busiest, loads[bank])
        loads[bank] = 0
    return busiest


def bank_conflict_cycles(accesses: Sequence[tuple[int, int]], memory: ArrayMemory) -> int:
    """Return the extra cycles of a packet's accesses, each (byte address, bytes)."""
    loads = [0] * memory.banks
    for address, size in accesses:
        count_rows(loads, memory.banks, memory.bank_row_bytes, address - memory.base, size)
    return take_busiest(loads, memory.banks) - 1
