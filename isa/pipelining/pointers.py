"""Pointers that every turn moves by a fixed step: accesses beside them need not wait for the moves.

An access such as `*+AR0[16]` issues when its pointer has moved more or less often than in the
author's order. Which of the two is known from the schedule, so its offset is changed instead: it
neither follows a move nor holds the next one up. `isa.pipelining.graph` leaves these orders out,
`isa.pipelining.stretch` changes the offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve, frozen

from isa.machine import Machine
from isa.operands import Address, File, Register, Update
from isa.program import Operation

FURTHEST = 64
"""Turns by which an access may at most be apart from a move of its pointer."""


@frozen
class Move:
    """An operation that moves a pointer by so many bytes."""

    position: int
    bytes: int


@frozen
class Pointers:
    """What a body does to its pointers.

    `steps` is by how many bytes a turn moves each, None where that is not known; `moves` are the
    moves of pointers that only move by known bytes; `free` are the accesses whose offsets may be
    changed, with the bytes by which their pointer has moved before them in the author's order.
    """

    steps: dict[Register, int | None]
    moves: dict[Register, tuple[Move, ...]]
    free: dict[int, int]


def moves(operation: Operation) -> Iterator[tuple[Register, int | None]]:
    """Yield the address registers that an operation changes, by how many bytes where known."""
    for register in operation.writes:
        if register.file is File.ADDRESS:
            yield register, None
    address, kind = operation.address, operation.address_kind
    if address is None or kind is None or address.update is Update.NONE:
        return
    if isinstance(address.offset, Register) or operation.predicate is not None:
        yield address.base, None
    else:
        sign = -1 if address.negative else 1
        yield address.base, sign * address.offset * kind.unit_bytes


def find_pointers(operations: Sequence[Operation]) -> Pointers:
    """Return what a body does to its pointers."""
    steps: dict[Register, int | None] = {}
    found: dict[Register, list[Move]] = {}
    moved: dict[int, int] = {}
    for position, operation in enumerate(operations):
        address = operation.address
        if address is not None and address.update is Update.NONE:
            moved[position] = steps.get(address.base, 0) or 0
        for register, step in moves(operation):
            before = steps.get(register, 0)
            steps[register] = None if step is None or before is None else before + step
            found.setdefault(register, []).append(Move(position, step or 0))
    known = {base: tuple(made) for base, made in found.items() if steps[base] is not None}
    free = {
        position: moved[position] for position in moved if _can_change(operations[position], known)
    }
    return Pointers(steps, known, free)


def _can_change(
    operation: Operation,
    known: dict[Register, tuple[Move, ...]],
) -> bool:
    """Tell whether an offset can make up for any number of moves."""
    address, kind = operation.address, operation.address_kind
    if address is None or kind is None or address.base not in known:
        return False
    if isinstance(address.offset, Register):
        return False
    unit = kind.unit_bytes
    reach = FURTHEST * sum(abs(move.bytes) for move in known[address.base]) // unit
    whole = all(move.bytes % unit == 0 for move in known[address.base])
    return whole and address.offset + reach <= kind.largest_offset


def shifted(operation: Operation, by: int) -> Operation:
    """Return an access `by` bytes further on from its pointer."""
    address, kind = operation.address, operation.address_kind
    assert isinstance(address, Address)
    assert kind is not None
    assert isinstance(address.offset, int)
    offset = (-address.offset if address.negative else address.offset) + by // kind.unit_bytes
    moved = Address(address.base, Update.NONE, abs(offset), offset < 0)
    operands = tuple(moved if operand is address else operand for operand in operation.operands)
    return evolve(operation, operands=operands)


def move_latency(machine: Machine) -> int:
    """Return the cycles from a move until it can be read."""
    return machine.latency["address_update"]
