"""From written operations to packets: the part of the builder that emits.

Operations in plain order are *scheduled*: each straight stretch goes through the list scheduler.
Operations inside `with k.packet():` are *pinned*: they issue together, and their reads see what
the exposed pipeline holds. Labels and branches separate stretches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from attrs import evolve

import isa.instructions  # noqa: F401  (fills the registry)
from isa.instruction import REGISTRY, Effect, Instruction
from isa.language.storage import Storage, block
from isa.machine import Machine
from isa.operands import VR, Address, File, Kind, Label, Predicate, R, Register, RPair, VRPair
from isa.packing.dependences import landings
from isa.packing.scheduler import schedule
from isa.program import Operation, Packet

MAX_PACKETS = 200_000
"""A larger program is taken for an endless Python loop in the kernel function."""


def when_set(register: Register) -> Predicate:
    """Predicate `[R0]`: execute where the register is not zero."""
    return Predicate(register)


def unless(register: Register) -> Predicate:
    """Predicate `[!R0]`: execute where the register is zero."""
    return Predicate(register, negated=True)


class Emitter(Storage):
    """Collects operations into blocks, pinned packets and labels; knows lines, loops, registers."""

    def __init__(self, name: str, machine: Machine, cores: int) -> None:
        super().__init__(name, machine, cores)
        self._packets: list[Packet] = []
        self._labels: dict[str, int] = {}
        self._block: list[Operation] = []
        self._packet: list[Operation] | None = None

    # Operations ---------------------------------------------------------------------------------

    def emit(
        self,
        entry: Instruction,
        *operands: Any,
        when: Predicate | None = None,
        slot: str = "",
        buffer: str = "",
    ) -> Any:
        """Add one operation; return its destination register.

        Operands are the sources and then, optionally, the destination; without one, a MAC writes
        its accumulator and any other instruction a fresh register of the current scope.
        """
        if when is not None and not isinstance(when, Predicate):
            wanted = "a predicate such as when_set(R0) or unless(R0)"
            raise self.error(f"{entry.name}: when must be {wanted}, got {when}")
        full = self._with_destination(entry, operands)
        for (role, kind), value in zip(_roles(entry), full, strict=True):
            if not kind.accepts(value):
                raise self.error(_refusal(entry, role, kind, value))
            self._refuse_returned(entry, value)
        self._refuse_returned(entry, when)
        encoded = tuple(kind.encode(v) for kind, v in zip(entry.kinds, full, strict=True))
        operation = Operation(entry, encoded, when, slot, buffer, self.origin())
        self._add(self._tagged(operation))
        return encoded[-1] if entry.results else None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the method of an instruction: `k.sadd(a, b)` adds a SADD."""
        entry = _METHODS.get(name)
        if entry is None:
            raise AttributeError(_unknown_word(name, dir(type(self))))

        def method(*operands: Any, **options: Any) -> Any:
            return self.emit(entry, *operands, **options)

        return method

    def _with_destination(self, entry: Instruction, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        wanted = len(entry.sources)
        if len(operands) == wanted + len(entry.results):
            return operands
        if len(operands) != wanted:
            raise self.error(f"{entry.name} takes {_wanted_operands(entry)}; got {len(operands)}")
        if entry.in_place:
            return (*operands, operands[-1])
        return (*operands, self._fresh(entry.results[0], entry))

    def _refuse_returned(self, entry: Instruction, value: Any) -> None:
        """Refuse a register whose scope has ended: its number may be somebody else's by now."""
        for register in _named_registers(value):
            name = self.registers.returned(register)
            if name:
                raise self.error(
                    f"{entry.name}: '{name}' ({register}) was given back at the end of its scope; "
                    "take it outside the loop"
                )

    def _fresh(self, kind: type[Kind], entry: Instruction) -> Register:
        name = f"result of {entry.name}"
        if kind is R:
            return self.scalar(name)
        if kind is VR:
            return self.vector(name)
        if kind is RPair:
            return self.scalar_pair(name)
        if kind is VRPair:
            return self.vector_pair(name)
        raise self.error(f"{entry.name} needs its destination: {kind.wanted}")

    def _tagged(self, operation: Operation) -> Operation:
        """Name the buffer of a memory access from its address register, and keep the tags true."""
        address = operation.address
        for register in operation.writes:
            if register.file is File.ADDRESS and operation.instruction.name == "SMVAGA":
                self._buffer_of.pop(register, None)
        if address is None or operation.buffer or address.base not in self._buffer_of:
            return operation
        return evolve(operation, buffer=self._buffer_of[address.base])

    def _add(self, operation: Operation) -> None:
        if self._packet is not None:
            self._packet.append(operation)
            return
        if operation.instruction.effect is Effect.IDLE:
            raise self.error("SNOP belongs to pinned code; scheduled code waits by itself")
        if len(self._block) >= MAX_PACKETS:
            raise self.error(
                f"a stretch of {MAX_PACKETS:,} scheduled operations; use a device loop (k.loop) "
                "instead of unrolling in Python"
            )
        self._block.append(operation)
        if operation.instruction.effect in (Effect.BRANCH, Effect.HALT):
            self.flush()

    # Packets and labels -------------------------------------------------------------------------

    @block
    def packet(self) -> Iterator[None]:
        """Issue the operations inside together, in one cycle (pinned code)."""
        if self._packet is not None:
            raise self.error("a packet inside a packet")
        self.flush()
        self._packet, origin = [], self.origin(skip=1)
        try:
            yield
            self._append(Packet(self._assign_slots(self._packet), origin, pinned=True))
        finally:
            self._packet = None

    def idle(self, cycles: int) -> None:
        """Leave `cycles` cycles empty in pinned code."""
        if cycles > 0:
            with self.packet():
                self.emit(REGISTRY["SNOP"], cycles)

    def flush(self) -> None:
        """Schedule the operations collected so far; results of pinned packets land first."""
        if not self._block:
            return
        block, self._block = self._block, []
        self._drain_pinned()
        for packet in schedule(block, self.machine):
            self._append(packet)

    def position(self) -> int:
        """Return the number of the packet that comes next."""
        return len(self._packets)

    def label(self, name: str) -> Label:
        """Put a label here; a name used twice gets a number."""
        label = self.new_label(name)
        self.place(label)
        return label

    def new_label(self, name: str) -> Label:
        """Make a label to be placed later; spaces become underscores."""
        plain = name.replace(" ", "_")
        unique, number = plain, 2
        while unique in self._labels:
            unique, number = f"{plain}_{number}", number + 1
        self._labels[unique] = -1
        return Label(unique)

    def place(self, label: Label) -> None:
        """Put a label made by `new_label` here."""
        if self._labels.get(label.name, -1) >= 0:
            raise self.error(f"label '{label}' is placed twice")
        self.flush()
        self._labels[label.name] = len(self._packets)

    def _append(self, packet: Packet) -> None:
        if len(self._packets) >= MAX_PACKETS:
            raise self.error(
                f"the program passes {MAX_PACKETS:,} packets; use a device loop (k.loop) instead "
                "of unrolling in Python"
            )
        self._packets.append(packet)

    def _drain_pinned(self) -> None:
        """Fill the delay slots of a pinned branch, and wait for what is in flight to land."""
        elapsed, longest, slots = 0, 0, 0
        latest = max(self.machine.latency.values())
        for packet in reversed(self._packets):
            if not packet.pinned or elapsed >= latest:
                break
            elapsed += packet.cycles
            for operation in packet.operations:
                landing = operation_latency(operation, self.machine) - elapsed
                longest = max(longest, landing)
                if operation.instruction.effect is Effect.BRANCH:
                    slots = max(slots, self.machine.latency["branch"] - elapsed)
        for cycles in (slots, longest - slots):  # one SNOP must not cross the branch point
            if cycles > 0:
                snop = Operation(REGISTRY["SNOP"], (cycles,), slot="SBR", origin=self.origin())
                self._append(Packet((snop,), self.origin()))

    def _assign_slots(self, operations: list[Operation]) -> tuple[Operation, ...]:
        """Give each operation of a pinned packet the first free slot of its units."""
        used = {operation.slot for operation in operations if operation.slot}
        placed = []
        for operation in operations:
            slot = operation.slot or self._free_slot(operation.instruction, used)
            used.add(slot)
            placed.append(with_slot(operation, slot))
        order = {slot: position for position, slot in enumerate(self.machine.issue.slots)}
        return tuple(sorted(placed, key=lambda operation: order.get(operation.slot, 99)))

    def _free_slot(self, entry: Instruction, used: set[str]) -> str:
        slots = [slot for unit in entry.units for slot in self.machine.slots_of(unit)]
        for slot in slots:
            if slot not in used:
                return slot
        raise self.error(
            f"{entry.name} finds no free slot in this packet: {', '.join(slots)} are taken"
        )


def _roles(entry: Instruction) -> tuple[tuple[str, type[Kind]], ...]:
    return (*entry.sources, *(("destination", kind) for kind in entry.results))


def _named_registers(value: Any) -> tuple[Register, ...]:
    """Return the registers that the author wrote in an operand or a predicate."""
    if isinstance(value, Register):
        return (value,)
    if isinstance(value, Predicate):
        return (value.register,)
    if isinstance(value, Address):
        return tuple(r for r in (value.base, value.offset) if isinstance(r, Register))
    return ()


def _wanted_operands(entry: Instruction) -> str:
    names = [role for role, _ in entry.sources]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    if not entry.results:
        return listed or "no operand"
    return f"{', '.join(names)} and optionally a destination" if names else "a destination"


def _unknown_word(name: str, words: list[str]) -> str:
    """Say that the builder has no such word, with the nearest of its words and instructions."""
    known = [*_METHODS, *(word for word in words if not word.startswith("_"))]
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "see docs/isa.md"
    return f"unknown builder word or instruction '{name}'; {hint}"


def _refusal(entry: Instruction, role: str, kind: type[Kind], value: Any) -> str:
    reason = ""
    if isinstance(value, Address) and hasattr(kind, "problem"):
        reason = f" ({kind.problem(value)})"
    shown = str(value) if isinstance(value, Register | Address | Label) else repr(value)
    return f"{entry.name}: {role} must be {kind.wanted}, got {shown}{reason}"


def with_slot(operation: Operation, slot: str) -> Operation:
    """Return the operation placed in an issue slot."""
    return evolve(operation, slot=slot)


def operation_latency(operation: Operation, machine: Machine) -> int:
    """Return the cycles until the last effect of an operation can be used."""
    landed = [cycles for _, cycles in landings(operation, machine)]
    if operation.instruction.effect is Effect.STORE:
        landed.append(machine.latency["store"])
    return max(landed, default=0)


_METHODS = {entry.method: entry for entry in REGISTRY.values()}
