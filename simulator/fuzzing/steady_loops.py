"""Loops as kernels have them: loads through moving pointers, sums, a counter, nothing else.

The compiled engine runs many turns of such a loop at once, so random programs hold some: no
predicates, no stores, more turns than other loops. Called by `control`.
"""

from __future__ import annotations

from attrs import frozen

from isa.instruction import REGISTRY, Effect, Instruction
from isa.operands import VR, VRI, Address, Operand, Predicate, Register, Update
from isa.program import Operation
from simulator.fuzzing.classes import Class, flows
from simulator.fuzzing.state import Pointed
from simulator.fuzzing.values import SHORT_IMMEDIATES
from simulator.fuzzing.writer import Writer

TURNS = (3, 4, 5, 7, 12, 20, 33)
LOADS = ("VLDW", "VLDW", "VLDDW", "SLDW")


@frozen
class Registers:
    """The roles of registers in a loop; no register has two."""

    loaded: tuple[Register, ...]
    sums: tuple[Register, ...]
    made: tuple[Register, ...]
    still: tuple[Register, ...]


def write_steady_loop(writer: Writer) -> None:
    """Append a loop that repeats one pattern."""
    random, steering = writer.random, writer.palette.steering
    latency = writer.machine.latency["branch"]
    turns = random.choice(TURNS)
    writer.compute("SMOVI", turns, steering)
    roles = _roles(writer)
    before = random.randint(2, 6)
    loads = _loads(writer, roles, turns)
    moving = [load.address for load in loads if load.address is not None]
    work = [*loads, *_sums(writer, roles), *_others(writer, roles)]
    random.shuffle(work)
    head = writer.label()
    writer.place(head)
    counting = writer.make("SSUB", 1, steering, steering)
    branching = writer.make("SBR", head, predicate=Predicate(steering))
    at_branch = max(before, writer.machine.latency["scalar_integer"])
    for at in range(at_branch + latency):
        needed = [counting] if at == 0 else [branching] if at == at_branch else []
        share, work = _share(writer, work, at_branch + latency - at)
        writer.packet(*needed, work=share)
    for address in moving:
        lands = writer.state.now + writer.machine.latency["address_update"]
        writer.state.landing[address.base] = lands


def _share(
    writer: Writer, work: list[Operation], packets: int
) -> tuple[list[Operation], list[Operation]]:
    """Return the operations of this packet, and those of later ones."""
    count = -(-len(work) // packets)
    return work[:count], work[count:]


def _roles(writer: Writer) -> Registers:
    floats = list(writer.palette.vectors[Class.FLOAT])
    evens = [r for r in floats if r.index % 2 == 0]
    writer.random.shuffle(evens)
    pairs = [(even, Register(even.file, even.index + 1)) for even in evens]
    loaded, sums, other = pairs[0] + pairs[1], pairs[2] + pairs[3], pairs[4]
    return Registers(loaded, sums, other[:1], other[1:])


def _loads(writer: Writer, roles: Registers, turns: int) -> list[Operation]:
    """Return loads through different pointers that stay in their regions for all turns."""
    random, found = writer.random, list[Operation]()
    targets = [roles.loaded[:2], roles.loaded[2:]]
    scalars = writer.palette.scalars[Class.FLOAT]
    pointers = [p for p in writer.palette.pointers if writer.state.usable(p) is not None]
    random.shuffle(pointers)
    for pointer in pointers:
        entry = REGISTRY[random.choice(LOADS)]
        if not entry.is_vector and scalars and not pointer.is_vector_half:
            target, scalars = scalars[0], scalars[1:]
        elif entry.is_vector and targets and pointer.is_vector_half:
            target = targets.pop()[0]
        else:
            continue
        address = _moving(writer, entry, pointer, turns)
        if address is not None:
            buffer = writer.palette.pointers[pointer].name
            found.append(Operation(entry, (address, target), buffer=buffer))
    return found


def _moving(writer: Writer, entry: Instruction, pointer: Register, turns: int) -> Address | None:
    """Return an address that moves by the same step each turn, and note where it may come to."""
    pointed, region = writer.state.usable(pointer), writer.palette.pointers[pointer]
    if pointed is None or not writer.drawing.may_load(entry, region):
        return None
    unit = 4 * (2 if entry.name == "VLDDW" else 1)
    span = unit * (writer.machine.vpu.lanes if entry.is_vector else 1)
    most = (region.end - span - pointed.high) // (unit * turns)
    least = -((pointed.low - region.address) // (unit * turns))
    if most < 0 or least > 0 or pointed.low < region.address:
        return None
    if pointer in writer.state.frozen:
        return Address(pointer)
    step = writer.random.randint(least, most)
    update = writer.random.choice((Update.POST, Update.PRE))
    end = turns * unit * step
    writer.state.pointers[pointer] = Pointed(
        pointed.low + min(0, end), pointed.high + max(0, end), pointed.ready
    )
    return Address(pointer, update, abs(step), step < 0)


def _sums(writer: Writer, roles: Registers) -> list[Operation]:
    """Return multiply-adds, each into a register of its own."""
    entries = [e for e in REGISTRY.values() if e.in_place and e.is_vector]
    read = (*roles.loaded, *roles.made, *roles.still)
    found = []
    for total in roles.sums:
        a, b = writer.random.choice(read), writer.random.choice(read)
        found.append(Operation(writer.random.choice(entries), (a, b, total, total)))
    return found


def _others(writer: Writer, roles: Registers) -> list[Operation]:
    """Return an operation that makes something of what was loaded, and a broadcast."""
    random, read = writer.random, (*roles.loaded, *roles.still)
    entries = [
        entry
        for entry in REGISTRY.values()
        if entry.is_vector
        and entry.effect is Effect.NONE
        and not entry.in_place
        and not entry.cross_lane
        and all(issubclass(kind, VR | VRI) for kind in entry.kinds)
    ]
    entry = random.choice(entries)
    flow = random.choice(flows(entry))
    sources: list[Operand] = []
    for (_, kind), is_float in zip(entry.sources, flow.sources, strict=True):
        if is_float:
            sources.append(random.choice(read))
        elif issubclass(kind, VRI) and random.random() < 0.3:
            sources.append(random.choice(SHORT_IMMEDIATES))
        else:
            sources.append(random.choice(writer.palette.vectors[Class.INTEGER]))
    return [Operation(entry, (*sources, roles.made[0]))]
