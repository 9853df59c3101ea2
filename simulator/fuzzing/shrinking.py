"""Cuts a program that shows a difference down to what still shows it.

Packets, operations, predicates, cores, initial data and machine overrides are taken away, constants
made simple, as long as the smaller program is legal, ends as it did, and the engines still differ.
Called by `campaign` once a difference is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from attrs import evolve

from isa.errors import Ftm7004Error
from isa.instruction import REGISTRY, Effect
from isa.operands import Address
from isa.packing.legality import findings
from isa.program import Operation, Packet, Program
from simulator.fuzzing.case import Case
from simulator.fuzzing.comparing import Verdict

Judge = Callable[[Case], Verdict]

Cut = Callable[[Program, int, int], Program]

SECONDS = 120.0
"""How long one program is cut down at most."""

HARMLESS = ("in which no result has landed yet", "where nothing was stored, placed or transferred")
"""Complaints of checked runs that a smaller program may have: registers and memories start at 0."""


def shrink(case: Case, judge: Judge, seconds: float = SECONDS) -> Case:
    """Return the smallest case found that `judge` still finds a difference in."""
    return _Shrinking(case, judge, time.monotonic() + seconds).run()


class _Shrinking:
    def __init__(self, case: Case, judge: Judge, deadline: float) -> None:
        self.case, self._judge, self._deadline = case, judge, deadline

    def run(self) -> Case:
        changed = True
        while changed and not self._late:
            before = self.case
            self._cut_overrides()
            self._try_each(_with_less_data)
            self._cut(_names, without_names)
            self._cut(_operations, without_operations)
            self._cut(_packets, without_packets)
            self._try_each(_simpler_operations)
            changed = self.case is not before
        return self.case

    @property
    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _accept(self, smaller: Case) -> bool:
        """Take a smaller case if it still shows a difference."""
        if self._late or findings(smaller.program, smaller.machine):
            return False
        verdict = self._judge(smaller)
        if any(text in verdict.complaint for text in HARMLESS):
            smaller = evolve(smaller, checked=False)
            verdict = self._judge(smaller)
        if verdict.difference is None:
            return False
        self.case = smaller
        return True

    def _cut_overrides(self) -> None:
        for override in self.case.overrides:
            left = tuple(o for o in self.case.overrides if o != override)
            try:
                self._accept(evolve(self.case, overrides=left))
            except Ftm7004Error:
                continue

    def _cut(self, count: Callable[[Program], int], without: Cut) -> None:
        """Take away packets or operations, many at once first, the last first."""
        length = max(1, count(self.case.program) // 2)
        while length and not self._late:
            first = count(self.case.program) - length
            while first > -length and not self._late:
                smaller = without(self.case.program, max(first, 0), length + min(first, 0))
                if smaller.packets != self.case.program.packets:
                    self._accept(evolve(self.case, program=smaller))
                first -= length
            length //= 2

    def _try_each(self, variants: Callable[[Case], Iterator[Callable[[Case], Case]]]) -> None:
        """Apply each change of a list to the case as it is by then."""
        for change in variants(self.case):
            if self._late:
                return
            smaller = change(self.case)
            if smaller is not self.case:
                self._accept(smaller)


def without_packets(program: Program, first: int, count: int) -> Program:
    """Return the program without so many packets; labels move to the next packet left."""
    end = min(first + count, len(program.packets))
    packets = (*program.packets[:first], *program.packets[end:])
    labels = {
        name: at if at <= first else max(first, at - (end - first))
        for name, at in program.labels.items()
    }
    return evolve(program, packets=packets, labels=labels)


def _packets(program: Program) -> int:
    return len(program.packets)


def _names(program: Program) -> int:
    return len(_used(program))


def _used(program: Program) -> list[str]:
    """Return the instructions that a program uses, in the order of the registry."""
    used = {o.instruction.name for packet in program.packets for o in packet.operations}
    return [name for name in REGISTRY if name in used]


def without_names(program: Program, first: int, count: int) -> Program:
    """Return the program without so many of the instructions it uses; every HALT stays."""
    gone = set(_used(program)[first : first + count])
    packets = (
        evolve(
            packet,
            operations=tuple(
                o for o in packet.operations if o.instruction.name not in gone or _halts(o)
            ),
        )
        for packet in program.packets
    )
    return evolve(program, packets=tuple(packets))


def _halts(operation: Operation) -> bool:
    return operation.instruction.effect is Effect.HALT


def _operations(program: Program) -> int:
    return sum(len(packet.operations) for packet in program.packets)


def without_operations(program: Program, first: int, count: int) -> Program:
    """Return the program without operations number `first` and on; packets and HALTs stay."""
    packets, number = [], 0
    for packet in program.packets:
        kept = [
            operation
            for at, operation in enumerate(packet.operations, number)
            if not first <= at < first + count or _halts(operation)
        ]
        number += len(packet.operations)
        packets.append(evolve(packet, operations=tuple(kept)))
    return evolve(program, packets=tuple(packets))


def _simpler_operations(case: Case) -> Iterator[Callable[[Case], Case]]:
    for at, packet in enumerate(case.program.packets):
        for place in range(len(packet.operations)):
            for simplify in (_unpredicated, _with_small_numbers, _with_plain_address):
                yield lambda now, at=at, place=place, s=simplify: _edited(now, at, place, s)  # type: ignore[misc]


def _with_less_data(case: Case) -> Iterator[Callable[[Case], Case]]:
    program = case.program
    if case.ddr.any():
        yield lambda now: evolve(now, ddr=np.zeros_like(now.ddr))
    for cores in range(1, program.cores):
        yield lambda now, cores=cores: _with_cores(now, cores)  # type: ignore[misc]
    for piece in reversed(range(len(program.scalar_data[0]) if program.scalar_data else 0)):
        yield lambda now, piece=piece: _without_piece(now, piece)  # type: ignore[misc]


def _with_cores(case: Case, cores: int) -> Case:
    program = case.program
    if cores >= program.cores:
        return case
    data = program.scalar_data[:cores]
    return evolve(case, program=evolve(program, cores=cores, scalar_data=data))


def _without_piece(case: Case, piece: int) -> Case:
    data = tuple((*d[:piece], *d[piece + 1 :]) for d in case.program.scalar_data)
    return evolve(case, program=evolve(case.program, scalar_data=data))


def _edited(
    case: Case, at: int, place: int, change: Callable[[Operation], Operation | None]
) -> Case:
    """Return the case with one operation changed or, for None, taken away."""
    packets = case.program.packets
    if at >= len(packets) or place >= len(packets[at].operations):
        return case
    operations = packets[at].operations
    changed = change(operations[place])
    if changed is operations[place]:
        return case
    new = () if changed is None else (changed,)
    packet: Packet = evolve(
        packets[at], operations=(*operations[:place], *new, *operations[place + 1 :])
    )
    program = evolve(case.program, packets=(*packets[:at], packet, *packets[at + 1 :]))
    return evolve(case, program=program)


def _unpredicated(operation: Operation) -> Operation:
    return operation if operation.predicate is None else evolve(operation, predicate=None)


def _with_small_numbers(operation: Operation) -> Operation:
    operands = tuple(1 if type(o) is int and o not in (0, 1) else o for o in operation.operands)
    return operation if operands == operation.operands else evolve(operation, operands=operands)


def _with_plain_address(operation: Operation) -> Operation:
    operands = tuple(
        Address(o.base) if isinstance(o, Address) and o != Address(o.base) else o
        for o in operation.operands
    )
    return operation if operands == operation.operands else evolve(operation, operands=operands)
