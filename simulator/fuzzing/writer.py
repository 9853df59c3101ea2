"""Packets in the making: what must stand in a packet, and random work in its other slots.

`control` and `transfers` say what must be there; every packet they ask for is filled up. Operations
that must be there are marked, so that `landings` removes others where two results would meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from attrs import define, evolve, field

from isa.instruction import REGISTRY, Unit
from isa.machine import Machine
from isa.operands import File, Label, Operand, Predicate, Register
from isa.packing.dependences import landings, result_latency
from isa.packing.timing_rules import complementary
from isa.program import Operation
from simulator.fuzzing.classes import Class
from simulator.fuzzing.drawing import OFFSETS, Drawing, Drawn
from simulator.fuzzing.layout import Layout, Palette, Region
from simulator.fuzzing.state import Pointed, State


@define(eq=False)
class Draft:
    """An operation of a packet in the making."""

    operation: Operation
    needed: bool = False


@define
class DraftPacket:
    """A packet in the making."""

    drafts: list[Draft] = field(factory=list)
    cycles: int = 1


@define
class Settings:
    """How one program is drawn."""

    cores: int
    strict: bool
    """Keep loads and transfers out of the latency of stores."""
    data_control: bool
    """Let predicates and lane masks depend on tensor data."""
    computed: bool
    """Let branches go to where registers say."""
    density: float
    """Share of free slots that are filled."""
    size: int
    """Packets aimed at, in text."""


class Writer:
    """The packets of one program so far, and what is certain at their end."""

    def __init__(
        self, random: Random, machine: Machine, layout: Layout, palette: Palette, settings: Settings
    ) -> None:
        self.random, self.machine, self.layout = random, machine, layout
        self.palette, self.settings, self.state = palette, settings, State()
        self.packets: list[DraftPacket] = []
        self.labels: dict[str, int] = {}
        self.computed: dict[int, tuple[str, ...]] = {}
        """Packets with a branch to a register: the labels it may hold."""
        self.memory = True
        """Whether random work may access memory."""
        self.homes: dict[Region, Register] = {}
        self.steps: dict[bool, list[Register]] = {}
        """Registers that hold addresses of regions, and values of offset registers."""
        self.drawing = Drawing(random, machine, palette, self.state, settings.strict)
        self._slots = {unit: machine.slots_of(unit) for unit in Unit}
        self._free = list(palette.reserved)
        self._arriving: set[tuple[str, int]] = set()
        """When results of needed operations leave which slot; two must not leave it together."""

    def slots_of(self, unit: Unit) -> tuple[str, ...]:
        """Return the issue slots of a unit."""
        return self._slots[unit]

    # Registers ----------------------------------------------------------------------------------

    def take(self) -> Register:
        """Hand out a scalar register that random work leaves alone."""
        return self._free.pop()

    def give(self, register: Register) -> None:
        """Take it back."""
        self._free.append(register)

    @property
    def spare(self) -> int:
        """How many registers are left to hand out."""
        return len(self._free)

    def restore(self, state: State) -> None:
        """Go on from another state, as where another way through the program begins."""
        self.state = self.drawing.state = state

    # Packets ------------------------------------------------------------------------------------

    def packet(self, *needed: Operation, work: Sequence[Operation] | None = None) -> None:
        """Append a packet with these operations, and with random ones or the given work."""
        drafts = [Draft(operation, True) for operation in self._placed(needed)]
        self.drawing.stored_now = set()
        taken = {draft.operation.slot for draft in drafts}
        slots = [slot for slot in self.machine.issue.slots if slot not in taken]
        self.random.shuffle(slots)
        for operation in work or ():
            self._add_given(drafts, operation, slots)
        for slot in slots if work is None else ():
            if self.random.random() < self.settings.density:
                self._add(drafts, self._drawn(slot))
        self._append(drafts)

    def _append(self, drafts: list[Draft]) -> None:
        state = self.state
        self.packets.append(DraftPacket(drafts))
        for region in self.drawing.stored_now:
            state.stored[region] = state.now
        for draft in drafts:
            if draft.needed and draft.operation.writes:
                self._arriving.add(self._arrival(draft.operation))
        state.now += 1

    def _arrival(self, operation: Operation) -> tuple[str, int]:
        """Return from which slot and when a result arrives."""
        return operation.slot, self.state.now + result_latency(operation, self.machine)

    def fill(self, packets: int) -> None:
        """Append packets of random work."""
        for _ in range(packets):
            self.packet()

    def idle(self, cycles: int) -> None:
        """Append a SNOP."""
        operation = Operation(REGISTRY["SNOP"], (cycles,), slot=self._slot_of("SNOP"))
        self.packets.append(DraftPacket([Draft(operation, True)], cycles))
        self.state.now += cycles

    def compute(self, name: str, *operands: Operand, predicate: Predicate | None = None) -> None:
        """Append a packet with an operation, and work until its result can be read."""
        operation = self.make(name, *operands, predicate=predicate)
        self.packet(operation)
        self.fill(result_latency(operation, self.machine) - 1)

    def make(self, name: str, *operands: Operand, predicate: Predicate | None = None) -> Operation:
        """Return an operation that must be there."""
        return Operation(REGISTRY[name], operands, predicate)

    def label(self) -> Label:
        """Return a new name for a place."""
        name = f"L{len(self.labels)}"
        self.labels[name] = -1
        return Label(name)

    def place(self, label: Label) -> None:
        """Let a label name the next packet."""
        self.labels[label.name] = len(self.packets)

    def branch(self, target: Operand, predicate: Predicate | None = None) -> None:
        """Append a branch, without its delay slots."""
        self.packet(self.make("SBR", target, predicate=predicate))

    def delay(self, cycles: int | None = None) -> None:
        """Append work for the delay slots of a branch."""
        left = self.machine.latency["branch"] - 1 if cycles is None else cycles
        while left > 0:
            if self.random.random() < 0.15:
                count = self.random.randint(1, left)
                self.idle(count)
                left -= count
            else:
                self.packet()
                left -= 1

    # Filling ------------------------------------------------------------------------------------

    def _placed(self, operations: tuple[Operation, ...]) -> list[Operation]:
        placed: list[Operation] = []
        for operation in operations:
            taken = {other.slot for other in placed}
            units = operation.instruction.units
            free = [s for unit in units for s in self.slots_of(unit) if s not in taken]
            choices = [evolve(operation, slot=slot) for slot in free]
            apart = [c for c in choices if self._arrival(c) not in self._arriving]
            placed.append(self.random.choice(apart or choices))
        return placed

    def _slot_of(self, name: str) -> str:
        return self.slots_of(REGISTRY[name].units[0])[0]

    def _drawn(self, slot: str) -> Drawn | None:
        drawn = self.random.random()
        if slot in self.slots_of(REGISTRY["SMVAGA"].units[0]) and drawn < 0.35:
            return self._home(slot) if drawn < 0.28 else self._offset(slot)
        return self.drawing.draw(slot, self.memory)

    def _add(self, drafts: list[Draft], drawn: Drawn | None) -> None:
        if drawn is None or self._meets(drawn.operation, drafts):
            return
        drafts.append(Draft(drawn.operation, drawn.needed))
        drawn.commit()

    def _add_given(self, drafts: list[Draft], operation: Operation, slots: list[str]) -> None:
        """Put an operation into a free slot of its units; leave it out where there is none."""
        allowed = {slot for unit in operation.instruction.units for slot in self.slots_of(unit)}
        slot = next((slot for slot in slots if slot in allowed), None)
        if slot is not None:
            slots.remove(slot)
            self._add(drafts, Drawn(evolve(operation, slot=slot)))

    def _meets(self, operation: Operation, drafts: list[Draft]) -> bool:
        """Tell whether a result would land with one of the same packet, in the same register."""
        mine = set(landings(operation, self.machine))
        return any(
            mine & set(landings(draft.operation, self.machine))
            and not _exclude(operation, draft.operation)
            for draft in drafts
        )

    def _home(self, slot: str) -> Drawn | None:
        """Return an operation that sets a pointer to the address of its region."""
        state = self.state
        lost = [p for p in self.palette.pointers if p not in state.pointers]
        choices = lost or [p for p in self.palette.pointers if p not in state.frozen]
        if not choices or not self.memory:
            return None
        pointer = self.random.choice(choices)
        region = self.palette.pointers[pointer]
        operation = Operation(REGISTRY["SMVAGA"], (self.homes[region], pointer), slot=slot)
        lands = state.now + result_latency(operation, self.machine)
        if state.landing.get(pointer, 0) >= lands or self._arrival(operation) in self._arriving:
            return None

        def commit() -> None:
            address = home_address(region)
            state.pointers[pointer] = Pointed(address, address, lands)
            state.landing[pointer] = lands

        return Drawn(operation, commit, needed=True)

    def _offset(self, slot: str) -> Drawn:
        """Return an operation that gives an offset register another small number."""
        offset = self.random.choice(self.palette.offsets)
        source = self.random.choice(self.steps[offset.is_vector_half])
        return Drawn(Operation(REGISTRY["SMVAGA"], (source, offset), slot=slot))


def _exclude(one: Operation, other: Operation) -> bool:
    """Tell whether only one of two operations executes; lane predicates still move addresses."""
    predicate = one.predicate
    lanes = predicate is not None and predicate.is_lane_predicate
    return complementary(one, other) and not (lanes and one.address and other.address)


def home_address(region: Region) -> int:
    """Return the address in a region from which pointers start."""
    return region.address + region.bytes // 3 // 16 * 16


def first_values(writer: Writer) -> list[Operation]:
    """Return operations that give every register of the palette a value; also fixes constants."""
    random, palette = writer.random, writer.palette
    operations: list[Operation] = []

    def move(value: int, register: Register) -> None:
        operations.append(writer.make("SMOVI", value, register))

    for region in sorted(set(palette.pointers.values()), key=lambda region: region.name):
        writer.homes[region] = writer.take()
        move(home_address(region), writer.homes[region])
    for vector in (True, False):
        writer.steps[vector] = [writer.take(), writer.take()]
        for register in writer.steps[vector]:
            move(random.choice(OFFSETS[vector]), register)
    scalars = [palette.steering, *palette.reserved, *palette.scalars[Class.FLOAT]]
    scalars += [*palette.scalars[Class.CONTROL], *palette.scalars[Class.INTEGER]]
    given = {operation.operands[-1] for operation in operations}
    for register in dict.fromkeys(scalars):
        if register not in given:
            move(writer.drawing.immediate(), register)
    _fill_pointers(writer, operations)
    _fill_vectors(writer, operations)
    return operations


def _fill_pointers(writer: Writer, operations: list[Operation]) -> None:
    palette, make = writer.palette, writer.make
    for pointer, region in palette.pointers.items():
        operations.append(make("SMVAGA", writer.homes[region], pointer))
        address = home_address(region)
        writer.state.pointers[pointer] = Pointed(address, address, 0)
    for offset in (*palette.offsets, *palette.idle_offsets):
        source = writer.random.choice(writer.steps[offset.is_vector_half])
        operations.append(make("SMVAGA", source, offset))
    for pointer in palette.idle_pointers:
        operations.append(make("SMVAGA", palette.steering, pointer))


def _fill_vectors(writer: Writer, operations: list[Operation]) -> None:
    palette, random, make = writer.palette, writer.random, writer.make
    integers = palette.vectors[Class.INTEGER]
    for register in integers:
        operations.append(make("VMOVI", writer.drawing.immediate(), register))
    operations.append(make("VLANE", random.choice(integers)))
    for register in palette.vectors[Class.FLOAT]:
        if random.random() < 0.5:
            operations.append(make("VMOVI", writer.drawing.immediate(), register))
        else:
            scalar = random.choice(palette.scalars[Class.FLOAT])
            operations.append(make("SVBCAST", scalar, register))
    operations.append(make("VMVCGC", random.choice(integers), Register(File.EXCHANGE, -1)))
    for entry in range(writer.machine.vpu.lanes, 16):
        source = random.choice(palette.scalars[Class.INTEGER])
        operations.append(make("SMVCGC", source, Register(File.EXCHANGE, entry)))
