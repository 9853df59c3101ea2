"""Which registers of a loop's body only live within a turn, and so may have copies.

A *web* is a register (or an even/odd pair) from an operation that writes all of it to the last use
of that value. Turns that overlap may hold it in different registers. Whatever a body reads before
it writes, every register that is not the body's own, and predicates, of which there are too few for
copies, have no web and stay where they are.
`isa.pipelining.graph` leaves the order between the webs of different turns out,
`isa.pipelining.expansion` gives them registers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from attrs import field, frozen

from isa.operands import File, Register, RPair, VRPair
from isa.packing.dependences import LANE_MASK
from isa.program import Operation


@frozen
class Web:
    """A value that lives within one turn: one register or a pair, lowest first."""

    registers: tuple[Register, ...]


@frozen
class Webs:
    """The webs of a body; `at[position, register]` is the number of an operand's web."""

    webs: tuple[Web, ...] = ()
    at: dict[tuple[int, Register], int] = field(factory=dict)


NO_WEBS = Webs()


def find_webs(operations: Sequence[Operation], own: Collection[Register]) -> Webs:
    """Return the webs of a body; `own` are the registers that nobody needs outside it."""
    kept = _read_across_lanes(operations)
    kept.update(o.predicate.register for o in operations if o.predicate is not None)
    webs: list[Web] = []
    at: dict[tuple[int, Register], int] = {}
    for group in _groups(operations):
        if not all(r in own and r not in kept for r in group):
            continue
        for positions in _pieces(operations, group):
            at.update({(p, r): len(webs) for p in positions for r in group})
            webs.append(Web(group))
    return Webs(tuple(webs), at)


def written(operation: Operation) -> tuple[Register, ...]:
    """Return every register an operation changes, an updated address register included."""
    address = operation.address
    moved = (address.base,) if address is not None and address.update.value != "none" else ()
    return operation.writes + moved


def _read_across_lanes(operations: Sequence[Operation]) -> set[Register]:
    """Return vector registers whose disabled lanes somebody may see; copies differ in these."""
    changes_mask = any(LANE_MASK in operation.writes for operation in operations)
    return {
        register
        for operation in operations
        for register in (*operation.reads, *operation.writes)
        if register.file is File.VECTOR
        and (changes_mask or (operation.instruction.cross_lane and register in operation.reads))
    }


def _groups(operations: Sequence[Operation]) -> Iterator[tuple[Register, ...]]:
    """Yield each general register the body touches, pairs together."""
    pairs: set[Register] = set()
    touched: dict[Register, None] = {}
    for operation in operations:
        entry = operation.instruction
        for kind, operand in zip(entry.kinds, operation.operands, strict=True):
            if issubclass(kind, RPair | VRPair):
                pairs.update(kind.registers(operand))
        touched.update(dict.fromkeys((*operation.reads, *written(operation))))
    for register in touched:
        if register.file in (File.EXCHANGE, File.LANE_MASK):
            continue
        if register not in pairs:
            yield (register,)
        elif register.index % 2 == 0:
            yield (register, Register(register.file, register.index + 1))
        elif Register(register.file, register.index - 1) not in touched:
            yield (Register(register.file, register.index - 1), register)


def _pieces(operations: Sequence[Operation], group: tuple[Register, ...]) -> list[list[int]]:
    """Return the positions that touch each value of a register; empty if it lives across turns."""
    pieces: list[list[int]] = []
    for position, operation in enumerate(operations):
        reads = any(register in operation.reads for register in group)
        writes = written(operation)
        if not reads and not any(register in writes for register in group):
            continue
        if not reads and operation.predicate is None and all(r in writes for r in group):
            pieces.append([])
        if not pieces:
            return []
        pieces[-1].append(position)
    return pieces
