"""What a run leaves behind row by row, as flat integers, and how it is read.

A layer has up to a million transfers: their results, and stalls by place, become objects only when
somebody looks at them. Written by `release` and, compiled, `compiled.rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from simulator.result import CAUSES, StallPlace, TransferResult

Rows = np.ndarray[Any, np.dtype[np.int64]]

FIRST_ROOM = 256
"""Rows of a new log."""

# A row of the log of stalls
STALL_CORE = 0
STALL_PACKET = 1
STALL_CAUSE = 2  # number in CAUSES
STALL_TRANSFER = 3
STALL_CYCLES = 4
STALL_SIZE = 5


class Log:
    """Rows of integers in one flat array: the event code fills it, this class makes it larger."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.flat: Any = np.zeros(FIRST_ROOM * size, np.int64)

    def make_room(self, used: int, wanted: int) -> None:
        """Let so many rows follow those in use; what is there stays, at another address."""
        room = len(self.flat) // self.size
        if room - used >= wanted:
            return
        larger = np.zeros(max(2 * room, used + wanted) * self.size, np.int64)
        larger[: used * self.size] = self.flat[: used * self.size]
        self.flat = larger

    def rows(self, used: int) -> Rows:
        """Return the rows in use."""
        rows: Rows = self.flat[: used * self.size].reshape(used, self.size)
        return rows


class Transfers(Sequence[TransferResult]):
    """The transfers of a run in the order of their ends; equal to any sequence of equal ones."""

    def __init__(self, rows: Rows, result: Callable[[list[int]], TransferResult]) -> None:
        self._rows, self._result = rows, result
        self._made: list[TransferResult] | None = None

    def _all(self) -> list[TransferResult]:
        if self._made is None:
            self._made = [self._result(row) for row in self._rows.tolist()]
        return self._made

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[TransferResult]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


class Stalls(Mapping[StallPlace, int]):
    """The stalls of one core by place, from its rows of the log; equal to a dict of the same."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._made: dict[StallPlace, int] | None = None

    def _all(self) -> dict[StallPlace, int]:
        if self._made is None:
            self._made = {}
            for _, packet, cause, transfer, cycles in self._rows.tolist():
                place = StallPlace(packet, CAUSES[cause], transfer)
                self._made[place] = self._made.get(place, 0) + cycles
        return self._made

    def __getitem__(self, place: StallPlace) -> int:
        return self._all()[place]

    def __iter__(self) -> Iterator[StallPlace]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def by_cause(self) -> dict[str, int]:
        """Return the stalled cycles of every cause that occurred."""
        cycles = np.bincount(self._rows[:, STALL_CAUSE], _weights(self._rows), len(CAUSES))
        return {cause: int(n) for cause, n in zip(CAUSES, cycles, strict=True) if n}

    def by_packet(self) -> dict[int, int]:
        """Return the stalled cycles of every packet that stalled."""
        cycles = np.bincount(self._rows[:, STALL_PACKET], _weights(self._rows))
        return {int(packet): int(cycles[packet]) for packet in np.flatnonzero(cycles)}


def stall_rows(core: int, stalls: Mapping[StallPlace, int]) -> Rows:
    """Return the stalls of a core as rows of the log."""
    rows = [
        (core, place.packet, CAUSES.index(place.cause), place.transfer, cycles)
        for place, cycles in stalls.items()
    ]
    return np.array(rows, np.int64).reshape(-1, STALL_SIZE)


def _weights(rows: Rows) -> Rows:
    return rows[:, STALL_CYCLES]


def stalls_by_cause(stalls: Mapping[StallPlace, int]) -> dict[str, int]:
    """Return the stalled cycles of every cause that occurred."""
    if isinstance(stalls, Stalls):
        return stalls.by_cause()
    return _summed((place.cause, cycles) for place, cycles in stalls.items())


def stalls_by_packet(stalls: Mapping[StallPlace, int]) -> dict[int, int]:
    """Return the stalled cycles of every packet that stalled."""
    if isinstance(stalls, Stalls):
        return stalls.by_packet()
    return _summed((place.packet, cycles) for place, cycles in stalls.items())


def _summed(pairs: Any) -> dict[Any, int]:
    totals: dict[Any, int] = {}
    for key, cycles in pairs:
        totals[key] = totals.get(key, 0) + cycles
    return totals
