"""What must come before what in a loop whose turns overlap: distances in cycles and in turns.

The modulo scheduler goes by it. The rules are those of `isa.packing.dependences`, with one turn
added: an operation also follows what earlier turns did to its registers and to its memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from attrs import define, frozen

from isa.instruction import Effect
from isa.machine import Machine
from isa.operands import Register
from isa.packing.dependences import access_bytes, landings, reads
from isa.pipelining.pointers import Pointers, moves
from isa.pipelining.webs import Webs
from isa.program import Operation

Edge = tuple[int, int, int, int]
"""(before, after, cycles, turns): operation `after` of a turn issues at least so many cycles after
operation `before` of so many turns earlier."""


@frozen
class Apart:
    """Buffers of which no two steps touch the same bytes; a step is `size` operations of a turn."""

    buffers: frozenset[str]
    size: int

    def covers(self, first: _Access, second: _Access) -> bool:
        """Tell whether two accesses meet at the most within a step."""
        return first.buffer == second.buffer and first.buffer in self.buffers


NOTHING_APART = Apart(frozenset(), 1)


def edges(
    operations: Sequence[Operation],
    machine: Machine,
    webs: Webs,
    pointers: Pointers,
    apart: Apart = NOTHING_APART,
) -> list[Edge]:
    """Return the dependences of a body that is run again and again.

    `webs` are the values that each turn may hold in registers of its own; `pointers` tells which
    accesses need not keep their order with the moves of their pointer.
    """
    longest: dict[tuple[int, int, int], int] = {}
    found = [
        *_register_edges(operations, machine, webs, pointers),
        *_memory_edges(operations, machine, pointers, apart),
    ]
    for before, after, cycles, turns in found:
        key = (before, after, turns)
        longest[key] = max(cycles, longest.get(key, cycles))
    return [(before, after, cycles, turns) for (before, after, turns), cycles in longest.items()]


# Registers --------------------------------------------------------------------------------------


@define
class _Last:
    """Who wrote a register last, with its latency, and who has read it since; turns 0 and 1."""

    writer: tuple[int, int, int] | None = None
    readers: tuple[tuple[int, int], ...] = ()


def _register_edges(
    operations: Sequence[Operation], machine: Machine, webs: Webs, pointers: Pointers
) -> Iterator[Edge]:
    """Go through two turns; what the second adds to the first is carried by one turn."""
    last: dict[tuple[Register, int, int], _Last] = defaultdict(_Last)
    touched = [
        (_ordered_reads(position, operation, pointers), landings(operation, machine))
        for position, operation in enumerate(operations)
    ]

    def place(turn: int, position: int, register: Register) -> _Last:
        web = webs.at.get((position, register), -1)
        return last[register, web, turn if web >= 0 else 0]

    for turn in (0, 1):
        for position, (read, landed) in enumerate(touched):
            for register in read:
                held = place(turn, position, register)
                if held.writer is not None and not (turn and held.writer[1]):
                    yield held.writer[0], position, held.writer[2], turn - held.writer[1]
            for register, latency in landed:
                held = place(turn, position, register)
                for reader, then in held.readers:
                    if not (turn and then):
                        # the old value stays until the result lands
                        yield reader, position, 1 - latency, turn - then
                if held.writer is not None and not (turn and held.writer[1]):
                    before, then, landing = held.writer
                    yield before, position, landing + 1 - latency, turn - then
            for register in read:
                held = place(turn, position, register)
                held.readers = (*held.readers, (position, turn))
            for register, latency in landed:
                held = place(turn, position, register)
                held.writer = (position, turn, latency)
                held.readers = ()


def _ordered_reads(position: int, operation: Operation, pointers: Pointers) -> tuple[Register, ...]:
    read = reads(operation)
    if position not in pointers.free or operation.address is None:
        return read
    return tuple(register for register in read if register != operation.address.base)


# Memory -----------------------------------------------------------------------------------------


@frozen
class _Access:
    """A load or store; bytes count from where its pointer was when the turn began.

    `path` numbers the ways of a pointer whose ends are not known; `step` is what a turn moves it
    by, None where that is not known; `reach` is None where an offset is a register.
    """

    position: int
    stores: bool
    vector: bool
    buffer: str
    base: Register
    path: int
    reach: tuple[int, int] | None
    step: int | None


def _memory_edges(
    operations: Sequence[Operation], machine: Machine, pointers: Pointers, apart: Apart
) -> Iterator[Edge]:
    accesses = _accesses(operations, machine, pointers)
    store = machine.latency["store"]
    for first in accesses:
        for second in accesses:
            if not (first.stores or second.stores):
                continue
            turns = _first_meeting(first, second)
            if turns is not None and apart.covers(first, second):
                same_step = first.position // apart.size == second.position // apart.size
                turns = 0 if turns == 0 and same_step else None
            if turns is not None:
                cycles = 0 if not first.stores else 1 if second.stores else store
                yield first.position, second.position, cycles, turns


def _accesses(
    operations: Sequence[Operation], machine: Machine, pointers: Pointers
) -> list[_Access]:
    steps = pointers.steps
    moved: dict[Register, int] = defaultdict(int)
    path: dict[Register, int] = defaultdict(int)
    found = []
    for position, operation in enumerate(operations):
        address, kind = operation.address, operation.address_kind
        if address is not None and kind is not None:
            base = address.base
            reach = access_bytes(operation, address, machine)
            if reach is not None:
                reach = (reach[0] + moved[base], reach[1] + moved[base])
            stores = operation.instruction.effect is Effect.STORE
            found.append(
                _Access(
                    position, stores, kind.vector, operation.buffer, base, path[base], reach,
                    steps.get(base, 0),
                )
            )  # fmt: skip
        for register, step in moves(operation):
            if step is None:
                path[register] += 1
            else:
                moved[register] += step
    return found


def _first_meeting(first: _Access, second: _Access) -> int | None:
    """Return after how many turns at the earliest `second` may touch what `first` touched."""
    least = 0 if first.position < second.position else 1
    named_apart = first.buffer and second.buffer and first.buffer != second.buffer
    if first.vector != second.vector or named_apart:
        return None
    same = first.base == second.base and first.path == second.path
    if not same or first.reach is None or second.reach is None:
        return least
    if least == 0 and first.reach[0] < second.reach[1] and second.reach[0] < first.reach[1]:
        return 0
    return _later_meeting(first.reach, second.reach, second.step)


def _later_meeting(first: tuple[int, int], second: tuple[int, int], step: int | None) -> int | None:
    """Return the fewest turns, at least 1, after which `second` meets where `first` was."""
    if step is None:
        return 1
    if step < 0:
        return _later_meeting((-first[1], -first[0]), (-second[1], -second[0]), -step)
    if step == 0:
        return 1 if first[0] < second[1] and second[0] < first[1] else None
    turns = max(1, (first[0] - second[1]) // step + 1)
    return turns if second[0] + turns * step < first[1] else None
