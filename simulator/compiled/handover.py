"""Between the engines: a core's state out of its record to the reference engine, and back into it.

The record of a compiled core holds a state only where a stretch begins. `leave` makes of it the
registers, results in flight and pending branch of the reference engine, which can run on to any
cycle; `enter` writes them back as soon as they are what a stretch begins with. Called by `core`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

from isa.operands import FILE_LENGTH, File, Register
from simulator.compiled.flights import Flight, Result
from simulator.compiled.frame import PACKET_MASK, PACKET_SHIFT, UNKNOWN_BIT
from simulator.compiled.stretches import Entry, Pending, branch_targets, branches
from simulator.reference.core import NO_BRANCH
from simulator.reference.decode import AnyWrite, ExchangeWrite, Write
from simulator.reference.unknown import UNKNOWN

if TYPE_CHECKING:
    from simulator.compiled.core import CompiledCore

SCALAR_FILES = (File.SCALAR, File.ADDRESS, File.OFFSET)

SENT = -(1 << 63)
"""Of a flight's state: it is really on its way."""

LANE_MASK = Register(File.LANE_MASK)


def leave(core: CompiledCore) -> None:
    """Take the state out of the record, where the last stretch has left it."""
    number = int(core.numbers["next"][0])
    take_registers(core)
    core.packet, core.idle = len(core.program.packets), 0
    if core.timing_only:
        core.unknown_words = set(np.flatnonzero(core.shadow).tolist())
    if number < 0:
        return
    entry = core.compiled.entries[number]
    core.packet = entry.packet
    for branch in entry.pending:
        taken, target = _integers(core, core.layout.pending[entry, branch], 2)
        if taken:
            core.branch_at, core.branch_to = core.issue + branch.remaining, int(target)
    for flight in sorted(core.compiled.plan.flights[entry], key=str):
        _put_in_flight(core, entry, flight)


def enter(core: CompiledCore) -> bool:
    """Write the state to the record if a stretch begins with it; tell whether one does."""
    if core.idle:
        return False
    packet, taken = core.packet, None
    if core.branch_at == core.issue:
        packet = core.branch_to
    elif core.branch_at != NO_BRANCH:
        taken = core.branch_at - core.issue
    flying: list[_Flying] | None = None
    for entry in core.compiled.beginning_with.get(packet, ()):
        if not _has_branches(core, entry, taken):
            continue
        flying = list(_in_flight(core)) if flying is None else flying
        flights = _as_flights(core, entry, flying)
        if flights is not None:
            _write(core, entry, taken, flights)
            return True
    return False


# Registers ----------------------------------------------------------------------------------------


def take_registers(core: CompiledCore) -> None:
    """Read the registers from the record."""
    layout = core.layout
    for file in SCALAR_FILES:
        numbers = _integers(core, layout.files[file], FILE_LENGTH[file]).tolist()
        core.scalar_file(file)[:] = numbers
        for index in range(FILE_LENGTH[file]) if core.timing_only else ():
            if core.record[layout.unknown_flag(Register(file, index))]:
                core.scalar_file(file)[index] = UNKNOWN
    core.vectors.reshape(-1)[:] = _words(core, layout.vectors, core.vectors.size)
    core.exchange[:] = _words(core, layout.exchange, len(core.exchange))
    core.set_lane_mask(int(_integers(core, layout.register(LANE_MASK), 1)[0]))


def _give_registers(core: CompiledCore) -> None:
    layout = core.layout
    for file in SCALAR_FILES:
        values = core.scalar_file(file)
        numbers = [0 if value is UNKNOWN else value for value in values]
        _integers(core, layout.files[file], FILE_LENGTH[file])[:] = numbers
        first = layout.unknown_flag(Register(file, 0))
        core.record[first : first + len(values)] = [value is UNKNOWN for value in values]
    _words(core, layout.vectors, core.vectors.size)[:] = core.vectors.reshape(-1)
    _words(core, layout.exchange, len(core.exchange))[:] = core.exchange
    _integers(core, layout.register(LANE_MASK), 1)[0] = core.lane_mask
    core.record[layout.unknown_flag(LANE_MASK)] = 0


# Out of the record --------------------------------------------------------------------------------


def _put_in_flight(core: CompiledCore, entry: Entry, flight: Flight) -> None:
    place, lanes = core.layout.flights[entry, flight], flight.result.has_lanes
    state = int(_integers(core, place + _size(core, flight), 1)[0])
    if state >= 0:
        return
    value: Any = _words(core, place, core.lanes).copy() if lanes else _integer(core, place)
    if core.timing_only and (flight.result.unseen or state >> UNKNOWN_BIT & 1):
        value = UNKNOWN
    if core.timing_only:
        state |= (1 << core.lanes) - 1
    enabled = np.array([state >> lane & 1 for lane in range(core.lanes)], bool)
    ports = (flight.result.port,) if flight.result.port else ()
    packet = state >> PACKET_SHIFT & PACKET_MASK
    write: Write = AnyWrite((flight.result.target,), packet, ports)
    if flight.result.whole_exchange:
        entries = tuple(Register(File.EXCHANGE, index) for index in range(core.lanes))
        write = ExchangeWrite(entries, packet, ports)
    due = core.ring[(core.issue + flight.remaining) % len(core.ring)]
    due.append((write, value, None if enabled.all() or not lanes else enabled))


# Into the record ----------------------------------------------------------------------------------


@frozen(eq=False)
class _Flying:
    """A result on its way in the reference engine, in the terms of compiled code."""

    results: Sequence[Result]
    """What it may be there, best first."""
    remaining: int
    value: Any
    state: int


def _in_flight(core: CompiledCore) -> Iterator[_Flying]:
    """Yield every result on its way, each register's by itself."""
    for remaining in range(len(core.ring)):
        for write, value, lanes in core.ring[(core.issue + remaining) % len(core.ring)]:
            for place, (target, part) in enumerate(_parts(core, write, value)):
                port = write.ports[place % len(write.ports)] if write.ports else ""
                state = SENT | (write.packet & PACKET_MASK) << PACKET_SHIFT
                if part is UNKNOWN:
                    state |= 1 << UNKNOWN_BIT
                if write.has_lanes and not core.timing_only:
                    state |= _bits(core, lanes)
                yield _Flying(_results(core, write, target, port), remaining, part, state)


def _parts(core: CompiledCore, write: Write, value: Any) -> list[tuple[Register, Any]]:
    if isinstance(write, ExchangeWrite):
        return [(write.targets[0], value)]
    if core.timing_only and write.has_lanes:
        return [(target, UNKNOWN) for target in write.targets]
    return write.parts(value)


def _bits(core: CompiledCore, lanes: Any) -> int:
    if lanes is None:
        return (1 << core.lanes) - 1
    return sum(1 << int(lane) for lane in np.flatnonzero(lanes))


def _results(core: CompiledCore, write: Write, target: Register, port: str) -> list[Result]:
    """Return what a packet's result in a register may be.

    One that has lanes of its own comes first, as it is right for any lanes.
    """
    whole = isinstance(write, ExchangeWrite)
    found = {
        flight.result
        for flight in core.compiled.plan.sends[write.packet]
        if (flight.result.target, flight.result.port) == (target, port)
        and flight.result.whole_exchange == whole
    }
    return sorted(found, key=lambda result: not result.partial)


def _has_branches(core: CompiledCore, entry: Entry, taken: int | None) -> bool:
    """Tell whether the branches pending at an entry can be those of the core.

    `taken`: the cycles until the branch lands that was taken, None if none was. One that was not
    taken may be missing, and one that was never issued stand there, unless it is always taken.
    """
    matching = [b for b in entry.pending if _is_taken(core, b, taken)]
    others = [b for b in entry.pending if b not in matching]
    always = any(branches(core.program, b.packet)[0].predicate is None for b in others)
    return len(matching) == (taken is not None) and not always


def _is_taken(core: CompiledCore, branch: Pending, taken: int | None) -> bool:
    targets = branch_targets(core.program, branch.packet)
    return branch.remaining == taken and core.branch_to in targets


def _as_flights(
    core: CompiledCore, entry: Entry, flying: Sequence[_Flying]
) -> dict[Flight, _Flying] | None:
    """Return the places of an entry for all that is on its way, or None where there is none."""
    possible, found = core.compiled.plan.flights[entry], dict[Flight, _Flying]()
    for one in flying:
        choices = [Flight(result, one.remaining) for result in one.results]
        free = [choice for choice in choices if choice in possible and choice not in found]
        if not free:
            return None
        found[free[0]] = one
    return found if core.compiled.plan.sure[entry] <= found.keys() else None


def _write(
    core: CompiledCore, entry: Entry, taken: int | None, flights: Mapping[Flight, _Flying]
) -> None:
    _give_registers(core)
    for branch in entry.pending:
        state = (1, core.branch_to) if branch.remaining == taken else (0, 0)
        _integers(core, core.layout.pending[entry, branch], 2)[:] = state
    for flight in core.compiled.plan.flights[entry]:
        _write_flight(core, entry, flight, flights.get(flight))
    core.numbers["next"][0] = core.compiled.plan.numbers[entry]
    core.numbers["issue"][0] = core.issue
    if core.timing_only:
        core.shadow[:] = 0
        core.shadow[sorted(core.unknown_words)] = 1
    for due in core.ring:
        due.clear()
    core.branch_at = NO_BRANCH


def _write_flight(core: CompiledCore, entry: Entry, flight: Flight, one: _Flying | None) -> None:
    place = core.layout.flights[entry, flight]
    _integers(core, place + _size(core, flight), 1)[0] = 0 if one is None else one.state
    if one is None or one.value is UNKNOWN:
        return
    if not flight.result.has_lanes:
        _integers(core, place, 1)[0] = int(one.value)
    elif not core.timing_only:
        _words(core, place, core.lanes)[:] = one.value[: core.lanes]


# The record's bytes -------------------------------------------------------------------------------


def _size(core: CompiledCore, flight: Flight) -> int:
    """Return the bytes of a flight's value; its state follows them."""
    return 4 * core.lanes if flight.result.has_lanes else 8


def _integer(core: CompiledCore, offset: int) -> int:
    return int(_integers(core, offset, 1)[0])


def _integers(core: CompiledCore, offset: int, count: int) -> Any:
    return core.record[offset : offset + 8 * count].view(np.int64)


def _words(core: CompiledCore, offset: int, count: int) -> Any:
    return core.record[offset : offset + 4 * count].view(np.uint32)
