"""What a function of machine code carries: slots for registers and flights, and the record.

Slots are filled from the record when the function begins and written back when it ends. LLVM turns
them into values, so that within a loop registers are registers of the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

from attrs import field, frozen
from llvmlite import ir

from isa.instruction import Effect
from isa.machine import Machine
from isa.operands import Register
from isa.program import Program
from isa.values import Value
from simulator.compiled.flights import Flight
from simulator.compiled.llvm_values import REGISTER, WORD
from simulator.compiled.native import align_stack
from simulator.compiled.packets import LANE_MASK, Registers, Sent, whole
from simulator.compiled.places import Space
from simulator.compiled.record import Record
from simulator.compiled.steady_state import SteadyState
from simulator.compiled.stretches import Entry, Stretch

BYTE = ir.IntType(8)
FUNCTION = ir.FunctionType(REGISTER, [ir.PointerType()])


class Code(IntEnum):
    """Why a function returned."""

    ONWARD = 0
    LIMIT = 1
    FAULT = 2
    START = 3
    WAIT = 4
    BARRIER = 5
    HALT = 6
    END = 7


CODES = {
    Effect.DMA_START: Code.START,
    Effect.DMA_WAIT: Code.WAIT,
    Effect.BARRIER: Code.BARRIER,
    Effect.HALT: Code.HALT,
}


@frozen
class Plan:
    """What all functions of a program share."""

    program: Program
    machine: Machine
    stretches: Mapping[Entry, Stretch]
    numbers: Mapping[Entry, int]
    sends: Sequence[Sequence[Flight]]
    """What each packet sends to registers."""
    flights: Mapping[Entry, frozenset[Flight]]
    record: Record
    steady: Mapping[Entry, SteadyState] = field(factory=dict)
    """Loops that have a steady state; their functions' numbers follow those of the stretches."""

    def steady_number(self, entry: Entry) -> int:
        """Return the number of the function that runs many turns of a loop."""
        return len(self.stretches) + list(self.steady).index(entry)


@frozen
class Landing:
    """A result on its way within the function, and the cycle of the stretch when it lands."""

    time: int
    sent: Sent
    issued: int
    """The cycle of its packet; -1 if it was on its way before."""


class Frame:
    """The function of one stretch: its slots, and its way to the record and back."""

    def __init__(self, module: ir.Module, plan: Plan, stretch: Stretch) -> None:
        self.plan, self.stretch, self.entry = plan, stretch, stretch.entry
        self.function = ir.Function(module, FUNCTION, f"stretch{plan.numbers[stretch.entry]}")
        align_stack(self.function)
        self.record = self.function.args[0]
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.faulty = self.function.append_basic_block("fault")
        self.lanes = plan.machine.vpu.lanes
        self.registers = Registers(self.builder, self.lanes)
        self.landings: list[Landing] = []
        self.changed: set[Register] = set()

    # The record ---------------------------------------------------------------------------------

    def _at(self, offset: int) -> Value:
        return self.builder.gep(self.record, [REGISTER(offset)], source_etype=BYTE)

    def _number(self, name: str) -> Value:
        return self._at(self.plan.record.numbers[name])

    def _load(self, name: str) -> Value:
        return self.builder.load(self._number(name), typ=REGISTER, align=8)

    def _take_slots(self) -> None:
        """Take a slot for everything the loop carries, and fill it from the record."""
        b, plan = self.builder, self.plan
        packets = [issue.packet for issue in self.stretch.issues]
        landing = {flight for packet in packets for flight in plan.sends[packet]}
        landing |= plan.flights[self.entry]
        self.changed = {whole(flight.result.target) for flight in landing}
        operations = (o for packet in packets for o in plan.program.packets[packet].operations)
        read = {whole(register) for operation in operations for register in operation.reads}
        touched = self.changed | read | {LANE_MASK}
        for register in sorted(touched, key=str):
            kind = self.registers.kind(register)
            slot = b.alloca(kind)
            b.store(b.load(self._at(self.plan.record.register(register)), typ=kind, align=4), slot)
            self.registers.slots[register] = slot
        self.counters = {name: b.alloca(REGISTER) for name in ("issue", "vmac_lanes", "count")}
        for name, slot in self.counters.items():
            b.store(REGISTER(0) if name == "count" else self._load(name), slot)
        self.limit = b.sub(self._load("limit"), self._load("stalled"))
        self.array = self._space("AM", "array")
        self.scalar = self._space("SM", "scalar")
        self.core = self._load("core")
        self.arriving = {
            flight: self._flight_slot(flight)
            for flight in sorted(self.plan.flights[self.entry], key=str)
        }
        self.coming = {}
        for branch in self.entry.pending:
            slots = b.alloca(REGISTER), b.alloca(REGISTER)
            for number, slot in enumerate(slots):
                place = self._at(self.plan.record.pending[self.entry, branch] + 8 * number)
                b.store(b.load(place, typ=REGISTER, align=8), slot)
            self.coming[branch] = slots

    def _space(self, name: str, field: str) -> Space:
        memory = self.plan.machine.am if name == "AM" else self.plan.machine.sm
        address = self.builder.inttoptr(self._load(field), ir.PointerType())
        return Space(memory.base, memory.bytes // 4, address)

    def _kind(self, flight: Flight) -> ir.Type:
        vector = flight.result.has_lanes
        return ir.VectorType(WORD, self.lanes) if vector else REGISTER

    def _flight_slot(self, flight: Flight) -> tuple[Value, Value]:
        """Return slots of a flight's value and state (bit 63: sent; low bits: lanes)."""
        b, kind = self.builder, self._kind(flight)
        offset = self.plan.record.flights[self.entry, flight]
        value, state = b.alloca(kind), b.alloca(REGISTER)
        size = 4 * self.lanes if flight.result.has_lanes else 8
        b.store(b.load(self._at(offset), typ=kind, align=4), value)
        b.store(b.load(self._at(offset + size), typ=REGISTER, align=4), state)
        return value, state

    def _refuse_limit(self) -> None:
        """Leave, with all written back, if the stretch would reach the cycle limit."""
        b = self.builder
        end = b.add(b.load(self.counters["issue"], typ=REGISTER), REGISTER(self.stretch.cycles))
        with b.if_then(b.icmp_signed(">", end, self.limit), likely=False):
            self._save()
            for flight, (value, state) in self.arriving.items():
                kind = self._kind(flight)
                self._store_flight(
                    self.entry, flight, b.load(value, typ=kind), b.load(state, typ=REGISTER)
                )
            for branch, slots in self.coming.items():
                for number, slot in enumerate(slots):
                    place = self._at(self.plan.record.pending[self.entry, branch] + 8 * number)
                    b.store(b.load(slot, typ=REGISTER), place, align=8)
            b.store(REGISTER(self.plan.numbers[self.entry]), self._number("next"))
            b.ret(REGISTER(Code.LIMIT))

    def fault(self, wrong: Value) -> None:
        """End the function where `wrong` holds."""
        b = self.builder
        after = self.function.append_basic_block("right")
        weights = b.cbranch(wrong, self.faulty, after)
        weights.set_weights([1, 10_000])
        b.position_at_end(after)

    def _add(self, name: str, amount: Value) -> None:
        slot = self.counters[name]
        self.builder.store(self.builder.add(self.builder.load(slot, typ=REGISTER), amount), slot)

    def _store_flight(
        self, entry: Entry, flight: Flight, value: Value | None, state: Value
    ) -> None:
        offset = self.plan.record.flights[entry, flight]
        size = 4 * self.lanes if flight.result.has_lanes else 8
        if value is not None:
            self.builder.store(value, self._at(offset), align=4)
        self.builder.store(state, self._at(offset + size), align=4)

    def _save(self) -> None:
        """Write registers and counters back to the record."""
        b = self.builder
        for register in sorted(self.changed, key=str):
            place = self._at(self.plan.record.register(register))
            b.store(self.registers.read(register), place, align=4)
        for name in ("issue", "vmac_lanes"):
            b.store(b.load(self.counters[name], typ=REGISTER), self._number(name))
        place = self._at(self.plan.record.counts + 8 * self.plan.numbers[self.entry])
        count = b.add(
            b.load(place, typ=REGISTER, align=8), b.load(self.counters["count"], typ=REGISTER)
        )
        b.store(count, place, align=8)
