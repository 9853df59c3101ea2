"""Rules about time and control: landings, write ports, branches, the end of the program.

They look along straight stretches of packets, where it is certain which packet follows which and
when; `isa.packing.legality` calls them. Collisions of predicated operations in different packets,
and across labels, are found at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from isa.errors import unknown
from isa.instruction import ONE_WRITE_PORT, Effect
from isa.machine import Machine
from isa.operands import File, Label, Register
from isa.packing.dependences import landings, result_latency
from isa.program import Operation, Packet, Program

Complaint = tuple[int, Operation | None, str]
"""Packet number (-1: the whole program), operation if any, what is wrong and what to do."""

Placed = tuple[int, int, Packet]
"""Packet number, cycle of issue, packet."""


def complementary(one: Operation, other: Operation) -> bool:
    """Tell whether two operations of a packet can never both execute: `[R0]` and `[!R0]`."""
    first, second = one.predicate, other.predicate
    if first is None or second is None:
        return False
    return first.register == second.register and first.negated != second.negated


def straight_stretches(program: Program, machine: Machine) -> Iterator[list[Placed]]:
    """Yield runs of packets that follow each other unless a predicated branch is taken."""
    targets = set(program.labels.values())
    stretch: list[Placed] = []
    cycle, end = 0, None
    for number, packet in enumerate(program.packets):
        if number in targets or (end is not None and cycle >= end):
            yield stretch
            stretch, cycle, end = [], 0, None
        stretch.append((number, cycle, packet))
        if end is None and surely(packet, Effect.BRANCH):
            end = cycle + machine.latency["branch"]
        if surely(packet, Effect.HALT):
            end = cycle
        cycle += packet.cycles
    yield stretch


def surely(packet: Packet, effect: Effect) -> Operation | None:
    """Return the unpredicated operation of a packet with an effect, or None."""
    for operation in packet.operations:
        if operation.instruction.effect is effect and operation.predicate is None:
            return operation
    return None


# Results ----------------------------------------------------------------------------------------


def _register_landings(program: Program, machine: Machine) -> Iterator[Complaint]:
    for stretch in straight_stretches(program, machine):
        landed: dict[tuple[Register, int], list[tuple[int, Operation]]] = {}
        for number, cycle, packet in stretch:
            for operation in packet.operations:
                for register, latency in landings(operation, machine):
                    others = landed.setdefault((register, cycle + latency), [])
                    for earlier, other in others:
                        if _collide(register, operation, other, number == earlier):
                            yield number, operation, _landing(register, earlier, other)
                    others.append((number, operation))


def _collide(register: Register, operation: Operation, other: Operation, together: bool) -> bool:
    """Tell whether both results really land, as far as that is known before the program runs."""
    if together:
        predicate = operation.predicate
        by_lane = predicate is not None and predicate.is_lane_predicate
        # a lane predicate does not keep an address register from moving
        return not complementary(operation, other) or (by_lane and register.file is File.ADDRESS)
    return operation.predicate is None and other.predicate is None


def _landing(register: Register, number: int, other: Operation) -> str:
    return (
        f"{register} gets 2 results in one cycle, 1 can land: the other is of packet {number}, "
        f"'{other}'; issue one of them in another cycle or change its destination"
    )


def _write_ports(program: Program, machine: Machine) -> Iterator[Complaint]:
    if not machine.issue.one_result_per_unit:
        return
    ported = {slot for unit in ONE_WRITE_PORT for slot in machine.slots_of(unit)}
    for stretch in straight_stretches(program, machine):
        landed: dict[tuple[str, int], tuple[int, Operation]] = {}
        for number, cycle, packet in stretch:
            for operation in packet.operations:
                if operation.slot not in ported or operation.predicate or not operation.writes:
                    continue
                place = (operation.slot, cycle + result_latency(operation, machine))
                earlier, other = landed.setdefault(place, (number, operation))
                if earlier != number:
                    yield number, operation, _port(operation.slot, earlier, other)


def _port(slot: str, number: int, other: Operation) -> str:
    return (
        f"{slot} gives 2 results in one cycle, it has 1 write port: the other is of packet "
        f"{number}, '{other}'; use another slot or issue it a cycle later"
    )


# Branches ---------------------------------------------------------------------------------------


def _branches(program: Program) -> Iterator[tuple[int, Operation]]:
    for number, packet in enumerate(program.packets):
        for operation in packet.operations:
            if operation.instruction.effect is Effect.BRANCH:
                yield number, operation


def _delay_slots(program: Program, number: int, machine: Machine) -> Iterator[Placed]:
    """Yield the packets that issue after a branch and before its target, cycles from the branch."""
    cycle = 1
    for later in range(number + 1, len(program.packets)):
        packet = program.packets[later]
        if cycle >= machine.latency["branch"]:
            return
        yield later, cycle, packet
        if surely(packet, Effect.HALT):
            return
        cycle += packet.cycles


def _labels(program: Program, machine: Machine) -> Iterator[Complaint]:
    for number, packet in enumerate(program.packets):
        for operation in packet.operations:
            labels = [operand for operand in operation.operands if isinstance(operand, Label)]
            for problem in filter(None, (_misplaced(label, program) for label in labels)):
                yield number, operation, problem


def _misplaced(label: Label, program: Program) -> str:
    if label.name not in program.labels:
        return unknown("label", label.name, program.labels)
    target, last = program.target(label), len(program.packets) - 1
    if 0 <= target <= last:
        return ""
    return f"label '{label}' is at packet {target}, packets go from 0 to {last}; place it there"


def _one_pending_branch(program: Program, machine: Machine) -> Iterator[Complaint]:
    branch = machine.latency["branch"]
    for number, operation in _branches(program):
        if operation.predicate is not None:
            continue
        for later, cycle, packet in _delay_slots(program, number, machine):
            second = surely(packet, Effect.BRANCH)
            if second is not None:
                problem = (
                    f"branches {cycle} cycles after '{operation}' of packet {number}, which is"
                )
                yield later, second, f"{problem} pending for {branch}; issue it later"


def _snop_across_branch(program: Program, machine: Machine) -> Iterator[Complaint]:
    branch = machine.latency["branch"]
    for number, operation in _branches(program):
        for later, cycle, packet in _delay_slots(program, number, machine):
            left = branch - cycle
            if packet.cycles > left:
                problem = (
                    f"idles across the branch point of '{operation}' of packet {number}: it has"
                )
                limit = f"{packet.cycles} cycles, {left} delay slots are left"
                advice = f"split it after {left}"
                yield later, surely(packet, Effect.IDLE), f"{problem} {limit}; {advice}"


def _halts(program: Program, machine: Machine) -> Iterator[Complaint]:
    effects = (o.instruction.effect for packet in program.packets for o in packet.operations)
    if Effect.HALT not in effects:
        yield -1, None, "has no HALT, at least 1 is needed; end the program with one"


def _no_end_to_pass(program: Program, machine: Machine) -> Iterator[Complaint]:
    """The last packet must halt, or be the last delay slot of a branch that is surely taken."""
    if not program.packets or surely(program.packets[-1], Effect.HALT):
        return
    branch, cycles = machine.latency["branch"], 0
    for packet in reversed(program.packets):
        cycles += packet.cycles
        if cycles == branch and surely(packet, Effect.BRANCH):
            return
        if cycles >= branch:
            break
    advice = f"end with HALT, or with an unpredicated SBR and its {branch - 1} delay slots"
    yield len(program.packets) - 1, None, f"execution can run past this last packet; {advice}"


TIMING_RULES: dict[str, Callable[[Program, Machine], Iterator[Complaint]]] = {
    "register landings": _register_landings,
    "write ports": _write_ports,
    "labels": _labels,
    "one pending branch": _one_pending_branch,
    "SNOP across branch": _snop_across_branch,
    "HALT": _halts,
    "end": _no_end_to_pass,
}
