"""Results in flight over the ends of stretches: which values travel, and when they land.

The pipeline is exposed, so a result may land in a later stretch than that of its packet, and
until then a register holds its old value. For every entry this says which results can be on
their way there; the translator keeps a place for each. Whether one really is, is known at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from isa.instruction import ONE_WRITE_PORT
from isa.machine import Machine
from isa.operands import SVR, File, Register, Update
from isa.program import Operation, Program
from simulator.compiled.stretches import Entry, Stretch, successors

PORTED = frozenset(unit.name for unit in ONE_WRITE_PORT)


@frozen
class Result:
    """A value on its way to a register, or to every entry of the exchange register."""

    target: Register
    port: str
    """The slot whose only write port it takes, or nothing."""
    whole_exchange: bool = False
    partial: bool = False
    """Tell whether a lane predicate may keep it from lanes that VLR enables."""

    @property
    def has_lanes(self) -> bool:
        """Tell whether it is a vector, with lanes that land and lanes that do not."""
        return self.target.file is File.VECTOR or self.whole_exchange

    @property
    def unseen(self) -> bool:
        """Tell whether a run without numbers leaves it out."""
        return self.target.file in (File.VECTOR, File.EXCHANGE)


@frozen
class Flight:
    """A result on its way, and the cycles until it lands; 0 is before the next packet reads."""

    result: Result
    remaining: int


def results(operation: Operation, machine: Machine) -> list[Flight]:
    """Return what an operation sends to registers, in the order of its semantics' values."""
    entry = operation.instruction
    latency = entry.latency(machine.latency, operation.operands)
    unit = operation.slot.rstrip("0123456789")
    port = operation.slot if unit in PORTED else ""
    if entry.results and entry.results[0] is SVR:
        return [Flight(Result(Register(File.EXCHANGE, 0), port, whole_exchange=True), latency)]
    predicate = operation.predicate
    partial = predicate is not None and predicate.is_lane_predicate
    return [Flight(Result(target, port, partial=partial), latency) for target in operation.writes]


def base_update(operation: Operation, machine: Machine) -> Flight | None:
    """Return the move of the address register that an operation makes, or None."""
    address = operation.address
    if address is None or address.update is Update.NONE:
        return None
    return Flight(Result(address.base, ""), machine.latency["address_update"])


def sent(program: Program, machine: Machine) -> list[list[Flight]]:
    """Return every result of every packet."""
    return [
        [flight for operation in packet.operations for flight in _sent(operation, machine)]
        for packet in program.packets
    ]


def surely_sent(program: Program, machine: Machine) -> list[list[Flight]]:
    """Return every result of every packet that no predicate can keep back."""
    return [
        [
            flight
            for operation in packet.operations
            if operation.predicate is None or operation.predicate.is_lane_predicate
            for flight in _sent(operation, machine)
        ]
        for packet in program.packets
    ]


def _sent(operation: Operation, machine: Machine) -> Iterator[Flight]:
    yield from results(operation, machine)
    moved = base_update(operation, machine)
    if moved is not None:
        yield moved


def leaving(
    sends: Sequence[Sequence[Flight]], stretch: Stretch, arriving: frozenset[Flight]
) -> frozenset[Flight]:
    """Return what can be in flight at the end of a stretch."""
    landings = [(flight.result, flight.remaining) for flight in arriving]
    for issue in stretch.issues:
        landings += [
            (flight.result, issue.time + flight.remaining) for flight in sends[issue.packet]
        ]
    return frozenset(
        Flight(result, time - stretch.cycles) for result, time in landings if time >= stretch.cycles
    )


def in_flight(
    program: Program, sends: Sequence[Sequence[Flight]], stretches: Mapping[Entry, Stretch]
) -> dict[Entry, frozenset[Flight]]:
    """Return, for every entry, what can be in flight there."""
    found: dict[Entry, frozenset[Flight]] = {entry: frozenset() for entry in stretches}
    waiting = list(stretches)
    while waiting:
        stretch = stretches[waiting.pop()]
        left = leaving(sends, stretch, found[stretch.entry])
        for entry in successors(program, stretch):
            if not left <= found[entry]:
                found[entry] |= left
                waiting.append(entry)
    return found


def surely_in_flight(
    program: Program, sure: Sequence[Sequence[Flight]], stretches: Mapping[Entry, Stretch],
    possible: Mapping[Entry, frozenset[Flight]],
) -> dict[Entry, frozenset[Flight]]:  # fmt: skip
    """Return, for every entry, what is in flight there whichever way the program came."""
    first = next(iter(stretches))
    found = {**possible, first: frozenset[Flight]()}
    waiting = list(stretches)
    while waiting:
        stretch = stretches[waiting.pop()]
        left = leaving(sure, stretch, found[stretch.entry])
        for entry in successors(program, stretch):
            if not found[entry] <= left:
                found[entry] &= left
                waiting.append(entry)
    return found
