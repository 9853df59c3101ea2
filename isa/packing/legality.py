"""The machine's rules that can be checked before a program runs, one small function each.

`check` is called on every finished program and again when a pinned schedule meets another machine;
it reports everything wrong at once, at the author's lines. Here are the rules of one operation and
of one packet; those of time (landings, write ports, delay slots) are in `isa.packing.timing_rules`,
those of memory in `isa.packing.memory_rules`. What depends on predicates, addresses and paths
through the program is left to the checks at run time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from attrs import evolve, frozen

from isa.errors import KernelError
from isa.instruction import Effect
from isa.machine import Machine
from isa.operands import FILE_LENGTH, Address, AddressKind, File, Kind, Operand, Register
from isa.packing.memory_rules import MEMORY_RULES, stores_apart
from isa.packing.timing_rules import TIMING_RULES
from isa.program import Operation, Packet, Program, operation_text

REPORTED = 20
"""So many findings are printed; one mistake in a loop of the author often makes hundreds."""


@frozen
class Finding:
    """One broken rule; `message` is the complete line, `packet` is -1 for the whole program."""

    packet: int
    operation: Operation | None
    rule: str
    message: str


def check(program: Program, machine: Machine) -> None:
    """Raise KernelError with every broken rule of the program, a line each, up to twenty."""
    found = findings(program, machine)
    if not found:
        return
    lines = [finding.message for finding in found[:REPORTED]]
    if len(found) > REPORTED:
        lines.append(f"... and {len(found) - REPORTED} more")
    raise KernelError("\n".join(lines))


def findings(program: Program, machine: Machine) -> list[Finding]:
    """Return every broken rule of the program, in packet order."""
    found = list(_in_operations(program, machine))
    malformed = {id(finding.operation) for finding in found if finding.rule in _MALFORMED}
    sound = _without(program, malformed) if malformed else program
    found += _in_packets(sound, machine)
    for rules in (MEMORY_RULES, TIMING_RULES):
        for name, rule in rules.items():
            for number, operation, problem in rule(sound, machine):
                found.append(_finding(program, number, operation, name, problem))
    return sorted(found, key=lambda finding: finding.packet)


def _in_operations(program: Program, machine: Machine) -> Iterator[Finding]:
    for number, packet in enumerate(program.packets):
        for operation in packet.operations:
            for name, rule in OPERATION_RULES.items():
                for problem in rule(operation, machine):
                    yield _finding(program, number, operation, name, problem)


def _in_packets(program: Program, machine: Machine) -> Iterator[Finding]:
    for number, packet in enumerate(program.packets):
        if len(packet.operations) > 1:
            for name, rule in PACKET_RULES.items():
                for operation, problem in rule(packet, machine):
                    yield _finding(program, number, operation, name, problem)


def _finding(
    program: Program, number: int, operation: Operation | None, rule: str, problem: str
) -> Finding:
    if operation is not None:
        where = f"{operation.origin}: packet {number}: {_text(operation)}"
    elif number >= 0:
        where = f"{program.packets[number].origin}: packet {number}"
    else:
        where = f"program '{program.name}'"
    return Finding(number, operation, rule, f"{where}: {problem}")


def _text(operation: Operation) -> str:
    """Return the assembly text, also of an operation whose operands do not fit its kinds."""
    if not any(_operands(operation)):
        return operation_text(operation)
    return f"{operation.instruction.mnemonic} {', '.join(map(str, operation.operands))}"


def _without(program: Program, malformed: set[int]) -> Program:
    """Return the program without operations that the other rules could not make sense of."""
    packets = (
        evolve(packet, operations=tuple(o for o in packet.operations if id(o) not in malformed))
        for packet in program.packets
    )
    return evolve(program, packets=tuple(packets))


# One operation ----------------------------------------------------------------------------------


def _slot(operation: Operation, machine: Machine) -> Iterator[str]:
    slot, units = operation.slot, operation.instruction.units
    if slot not in machine.issue.slots:
        slots = ", ".join(machine.issue.slots)
        yield f"slot '{slot}' does not exist on {machine.name}; choose one of {slots}"
        return
    allowed = [name for unit in units for name in machine.slots_of(unit)]
    if slot not in allowed:
        yield f"cannot issue in slot {slot}; choose one of {', '.join(allowed)}"


def _operands_fit(operation: Operation, machine: Machine) -> Iterator[str]:
    return _operands(operation)


def _operands(operation: Operation) -> Iterator[str]:
    entry = operation.instruction
    wanted, given = len(entry.kinds), len(operation.operands)
    if given != wanted:
        yield f"takes {wanted} operands, has {given}; give all sources, then the destination"
        return
    roles = [name for name, _ in entry.sources] + ["destination"] * len(entry.results)
    for role, kind, operand in zip(roles, entry.kinds, operation.operands, strict=True):
        for problem in _misfit(kind, operand):
            yield f"operand '{role}': {problem}"


def _misfit(kind: type[Kind], operand: Operand) -> Iterator[str]:
    if isinstance(operand, Address) and issubclass(kind, AddressKind):
        problem = kind.problem(operand)
        if problem:
            yield f"{operand}: {problem}; use {kind.wanted}"
        if isinstance(operand.offset, int) and operand.offset < 0:
            yield f"offset {operand.offset} is below 0; state the direction as `negative`"
    elif not kind.accepts(operand):
        yield f"must be {kind.wanted}, is {operand}"
        return
    if isinstance(operand, Register | Address):
        for register in kind.registers(operand):
            length = FILE_LENGTH[register.file]
            if not 0 <= register.index < length:
                prefix = register.file.value
                yield f"{register} does not exist; the last one is {prefix}{length - 1}"


def _latency(operation: Operation, machine: Machine) -> Iterator[str]:
    entry = operation.instruction
    for name in {entry.latency_class, entry.scalar_latency_class} - {""}:
        if name not in machine.latency:
            yield f"machine '{machine.name}' has no latency.{name}; add it to the machine file"


def _predicate(operation: Operation, machine: Machine) -> Iterator[str]:
    predicate, entry = operation.predicate, operation.instruction
    if predicate is None:
        return
    files = {
        File.SCALAR: machine.issue.scalar_predicates,
        File.VECTOR: machine.issue.lane_predicates,
    }
    allowed = [f"{f.value}{i}" for f, count in files.items() for i in range(count)]
    if entry.effect is Effect.IDLE:
        yield f"a SNOP cannot be predicated, has {predicate}; branch around it"
    elif not 0 <= predicate.register.index < files.get(predicate.register.file, 0):
        names = ", ".join(allowed)
        yield f"{predicate.register} cannot be a predicate; move the condition to one of {names}"
    elif predicate.is_lane_predicate and not entry.masks_lanes:
        yield (
            f"lane predicate {predicate} on an instruction that neither writes nor stores vector "
            "lanes; use a scalar predicate"
        )


def _in_place(operation: Operation, machine: Machine) -> Iterator[str]:
    if not (machine.issue.mac_in_place and operation.instruction.in_place):
        return
    if len(operation.operands) < 2 or not operation.instruction.results:
        return
    addend, result = operation.operands[-2:]
    if addend != result:
        yield (
            f"adds in place on {machine.name}, but its last source is {addend} and its "
            f"destination {result}; name one register for both"
        )


OperationRule = Callable[[Operation, Machine], Iterator[str]]

OPERATION_RULES: dict[str, OperationRule] = {
    "slot": _slot,
    "operands": _operands_fit,
    "latency": _latency,
    "predicate": _predicate,
    "in place": _in_place,
}

_MALFORMED = frozenset({"operands", "latency"})


# One packet -------------------------------------------------------------------------------------

PacketProblem = tuple[Operation, str]


def _one_a_slot(packet: Packet, machine: Machine) -> Iterator[PacketProblem]:
    used = Counter(operation.slot for operation in packet.operations)
    for operation in packet.operations:
        count = used.pop(operation.slot, 0)
        if count > 1:
            problem = f"slot {operation.slot} holds {count} operations of this packet, 1 fits"
            yield operation, f"{problem}; move the others to free slots or other packets"


def _one_branch(packet: Packet, machine: Machine) -> Iterator[PacketProblem]:
    branches = [o for o in packet.operations if o.instruction.effect is Effect.BRANCH]
    for operation in branches[1:]:
        problem = f"is one of {len(branches)} branches in a packet, 1 is allowed"
        yield operation, f"{problem}; issue it {machine.latency['branch']} cycles later"


def _snop_alone(packet: Packet, machine: Machine) -> Iterator[PacketProblem]:
    for operation in packet.operations:
        if operation.instruction.effect is Effect.IDLE:
            others = len(packet.operations) - 1
            problem = f"shares its packet with {others} others, a SNOP has none beside it"
            yield operation, f"{problem}; give it a packet of its own"


PACKET_RULES: dict[str, Callable[[Packet, Machine], Iterator[PacketProblem]]] = {
    "one a slot": _one_a_slot,
    "one branch": _one_branch,
    "SNOP alone": _snop_alone,
    "stores apart": stores_apart,
}
