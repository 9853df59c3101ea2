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
from isa.operands import File, Register
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
    MASKS = 8
    """Results are in flight that were sent under another VLR: see `Plan.masked`."""


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
    sure: Mapping[Entry, frozenset[Flight]]
    """What is in flight at an entry whichever way the program came."""
    record: Record
    masked: bool = False
    """Tell whether every result lands in its own lanes only, whatever VLR was when it was sent.

    Else most stretches take it that nothing has changed VLR since.
    """
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


def is_uniform(plan: Plan, stretch: Stretch) -> bool:
    """Tell whether VLR stays as it is in a stretch, and no lane sees another."""
    packets = [plan.program.packets[issue.packet] for issue in stretch.issues]
    crossing = any(o.instruction.cross_lane for packet in packets for o in packet.operations)
    landing = [flight for issue in stretch.issues for flight in plan.sends[issue.packet]]
    landing += plan.flights[stretch.entry]
    return not crossing and all(f.result.target.file is not File.LANE_MASK for f in landing)


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
        self.registers.uniform = not plan.masked and is_uniform(plan, stretch)
        self.landings: list[Landing] = []
        self.changed: set[Register] = set()
        self.saving = self.function.append_basic_block("save")

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
        self.code = b.alloca(REGISTER)
        self.lane_bits = self.registers.read(LANE_MASK)
        if self.registers.uniform:
            self.registers.enabled()
            self.lane_count = b.ctpop(self.lane_bits)
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
        if self.registers.uniform:
            self._refuse_other_masks()

    def _refuse_other_masks(self) -> None:
        """Leave if a result on its way has other lanes than VLR now says."""
        b, others = self.builder, list[Value]()
        for flight, (_, state) in self.arriving.items():
            if flight.result.has_lanes and not flight.result.partial:
                bits = b.load(state, typ=REGISTER)
                came = b.icmp_signed("<", bits, REGISTER(0))
                sent = b.and_(bits, REGISTER((1 << self.lanes) - 1))
                others.append(b.and_(came, b.icmp_unsigned("!=", sent, self.lane_bits)))
        if others:
            some = others[0]
            for other in others[1:]:
                some = b.or_(some, other)
            with b.if_then(some, likely=False):
                b.ret(REGISTER(Code.MASKS))

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
        refused, going = (self.function.append_basic_block(n) for n in ("limit", "going"))
        b.cbranch(b.icmp_signed(">", end, self.limit), refused, going).set_weights([1, 10_000])
        b.position_at_end(refused)
        self._store_arriving()
        self._exit(self.plan.numbers[self.entry], REGISTER(Code.LIMIT))
        b.position_at_end(going)

    def _store_arriving(self) -> None:
        """Write back what is on its way at the beginning of the stretch."""
        b = self.builder
        for flight, (value, state) in self.arriving.items():
            content = b.load(value, typ=self._kind(flight))
            self._store_flight(self.entry, flight, content, b.load(state, typ=REGISTER))
        for branch, slots in self.coming.items():
            for number, slot in enumerate(slots):
                place = self._at(self.plan.record.pending[self.entry, branch] + 8 * number)
                b.store(b.load(slot, typ=REGISTER), place, align=8)

    def _exit(self, following: int, code: Value) -> None:
        """End the function with a code, by way of the block that saves the registers."""
        b = self.builder
        b.store(REGISTER(following), self._number("next"))
        b.store(code, self.code)
        b.branch(self.saving)

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

    def _write_saving(self) -> None:
        """Write the block that stores registers and counters in the record, and returns."""
        b = self.builder
        b.position_at_end(self.saving)
        if self.registers.uniform:
            self._restore_disabled_lanes()
        for register in sorted(self.changed, key=Register.__str__):
            place = self._at(self.plan.record.register(register))
            b.store(self.registers.read(register), place, align=4)
        for name in ("issue", "vmac_lanes"):
            b.store(b.load(self.counters[name], typ=REGISTER), self._number(name))
        place = self._at(self.plan.record.counts + 8 * self.plan.numbers[self.entry])
        count = b.add(
            b.load(place, typ=REGISTER, align=8), b.load(self.counters["count"], typ=REGISTER)
        )
        b.store(count, place, align=8)
        b.ret(b.load(self.code, typ=REGISTER))

    def _restore_disabled_lanes(self) -> None:
        b = self.builder
        vectors = [r for r in self.changed if r.file is File.VECTOR]
        full = REGISTER((1 << self.lanes) - 1)
        some = b.icmp_unsigned("!=", self.lane_bits, full)
        if not vectors:
            return
        with b.if_then(some, likely=False):
            for register in sorted(vectors, key=Register.__str__):
                kind, place = self.registers.kind(register), self.plan.record.register(register)
                old = b.load(self._at(place), typ=kind, align=4)
                new = b.select(self.registers.enabled(), self.registers.read(register), old)
                self.registers.write(register, new)
