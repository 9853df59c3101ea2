"""The race rule of checked runs: who is ordered after whose transfer, whatever the actual timing.

A transfer is over for its own core at that core's wait, for the other cores at the barrier after
that wait. AM and SM belong to one core; DDR is everybody's. A core's own part of a broadcast is
its transfer. `Races` is told of every start, wait and barrier by `simulator.checking.checker`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from attrs import frozen

from isa.descriptor import TransferRequest
from isa.program import Origin, Program
from simulator.checking.footprint import Footprint, Where, indices, span
from simulator.checking.places import buffer_name, place
from simulator.dma import CheckedTransfer

SHARED_MEMORY = "DDR"


@frozen(eq=False)
class Side:
    """What a transfer does in one memory; `base` is the memory's first byte address."""

    memory: str
    base: int
    footprint: Footprint
    writes: bool


@frozen(eq=False)
class Started:
    """A transfer as one core started it, and where in the program."""

    core: int
    channel: int
    packet: int
    origin: Origin
    request: TransferRequest
    source: Side
    destination: Side

    @staticmethod
    def of(
        core: int, channel: int, packet: int, origin: Origin, transfer: CheckedTransfer
    ) -> Started:
        """Return the transfer with its words in both memories."""
        sides = [
            Side(memory.name, memory.base, Footprint.of(plane, memory.base), writes)
            for memory, plane, writes in (
                (transfer.source, transfer.request.source, False),
                (transfer.destination, transfer.request.destination, True),
            )
        ]
        return Started(core, channel, packet, origin, transfer.request, *sides)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.source, self.destination

    def title(self, program: Program) -> str:
        """Return core, channel, buffers and place of the start."""
        source = buffer_name(program, self.request.source.address)
        destination = buffer_name(program, self.request.destination.address)
        return (
            f"core {self.core}'s transfer on channel {self.channel} ({source} to {destination}, "
            f"started by packet {self.packet} at {self.origin})"
        )


class Races:
    """All transfers of a run that something may still clash with."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.open: list[dict[int, Started]] = [{} for _ in range(program.cores)]
        """The transfers of each core that it has not waited for, by channel."""
        self._unordered = [_Unordered() for _ in range(program.cores)]

    def start(self, new: Started) -> str:
        """Note a start; return what it clashes with, or an empty string."""
        clash = self._own_clash(new) or self._other_clash(new)
        self.open[new.core][new.channel] = new
        if self._program.cores > 1:
            self._unordered[new.core].add(new)
        return clash

    def wait(self, core: int, channel: int) -> None:
        """Note that a core waited for its transfer on a channel."""
        self.open[core].pop(channel, None)

    def barrier(self) -> None:
        """Note a barrier: whatever was waited for is over for every core."""
        for transfers, unordered in zip(self.open, self._unordered, strict=True):
            unordered.keep(transfers.values())

    def access(self, core: int, memory: str, where: Where, writes: bool) -> str:
        """Return what a load or store clashes with, or an empty string."""
        transfers = self.open[core]
        if not transfers:
            return ""
        first, end = span(where)
        for started in transfers.values():
            for side in started.sides:
                footprint = side.footprint
                if first >= footprint.end or footprint.first >= end or side.memory != memory:
                    continue
                if side.writes or writes:
                    shared = footprint.shared(indices(where))
                    if len(shared):
                        return self._access_text(started, side, int(shared[0]), writes)
        return ""

    def _access_text(self, started: Started, side: Side, word: int, writes: bool) -> str:
        spot = place(self._program, side.base + 4 * word)
        return (
            f"{_does(writes)} {side.memory} at {spot} while {started.title(self._program)} "
            f"{_does(side.writes)} it; wait for channel {started.channel} first"
        )

    def _own_clash(self, new: Started) -> str:
        for old in self.open[new.core].values():
            for side in new.sides:
                for other in old.sides:
                    if _clash(side, other):
                        remedy = f"wait for channel {old.channel} before this start"
                        return f"{self._pair_text(new, side, old, other, 'while')}; {remedy}"
        return ""

    def _other_clash(self, new: Started) -> str:
        for core, unordered in enumerate(self._unordered):
            if core == new.core:
                continue
            for side in new.sides:
                if side.memory == SHARED_MEMORY and (found := unordered.clash(side)):
                    old, other = found
                    text = self._pair_text(new, side, old, other, "and")
                    return f"{text}, with no order between them; {_remedy(new, old)}"
        return ""

    def _pair_text(self, new: Started, side: Side, old: Started, other: Side, link: str) -> str:
        word = side.footprint.first_shared(other.footprint)
        spot = place(self._program, side.base + 4 * word)
        return (
            f"{new.title(self._program)} {_does(side.writes)} {side.memory} at {spot} {link} "
            f"{old.title(self._program)} {_does(other.writes)} it"
        )


class _Unordered:
    """The sides in DDR of one core's transfers that are not over for the other cores."""

    def __init__(self) -> None:
        self._found: list[tuple[Started, Side]] = []
        self._noted: set[tuple[Footprint, bool]] = set()
        self._columns = np.empty((3, 16), np.int64)

    def add(self, started: Started) -> None:
        """Add a transfer; the same words once more change nothing."""
        for side in started.sides:
            key = (side.footprint, side.writes)
            if side.memory == SHARED_MEMORY and key not in self._noted:
                self._noted.add(key)
                self._append(started, side)

    def _append(self, started: Started, side: Side) -> None:
        count = len(self._found)
        if count == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, self._columns], axis=1)
        footprint = side.footprint
        self._columns[:, count] = footprint.first, footprint.end, side.writes
        self._found.append((started, side))

    def keep(self, transfers: Iterable[Started]) -> None:
        """Forget all but these transfers."""
        self._found.clear()
        self._noted.clear()
        for started in transfers:
            self.add(started)

    def clash(self, side: Side) -> tuple[Started, Side] | None:
        """Return a transfer that clashes with one side of another core's, or None."""
        for started, other in self._near(side):
            if _clash(side, other):
                return started, other
        return None

    def _near(self, side: Side) -> Iterator[tuple[Started, Side]]:
        """Yield those whose range of words meets the side's; there may be thousands that do not."""
        first, end, writes = self._columns[:, : len(self._found)]
        near = (first < side.footprint.end) & (side.footprint.first < end)
        if not side.writes:
            near &= writes == 1
        return (self._found[position] for position in np.flatnonzero(near))


def _clash(one: Side, other: Side) -> bool:
    return (
        one.memory == other.memory
        and (one.writes or other.writes)
        and one.footprint.meets(other.footprint)
    )


def _does(writes: bool) -> str:
    return "writes" if writes else "reads"


def _remedy(new: Started, old: Started) -> str:
    return (
        f"let the core that comes first (core {old.core}: channel {old.channel}, or core "
        f"{new.core}: channel {new.channel}) wait for its transfer, then all cores pass a barrier, "
        "then the other core start"
    )
