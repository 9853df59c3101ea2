"""Values of a loop in its steady state: what operands see, as machine code, for any turn.

`FromRecord` reads what a function of the loop begins with. `SteadyValues` makes the operands and
results of one turn from it: scalars that move by a fixed step are a start and an offset, other
results are computed where they are wanted, by the one semantics. Called by `steady_code`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isa.operands import Address, AddressKind, File, Kind, Register
from isa.program import Operation
from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.flights import Flight
from simulator.compiled.frame import BYTE, PACKET_MASK, PACKET_SHIFT, UNKNOWN_BIT
from simulator.compiled.linear import Amount
from simulator.compiled.llvm_values import BIT, REGISTER, WORD
from simulator.compiled.packets import LANE_MASK, OperationTranslator, Sent
from simulator.compiled.places import Space, WholePlace
from simulator.compiled.plan import Plan
from simulator.compiled.steady_state import Definition, SteadyState, address_of
from simulator.compiled.timing_only import TimingTranslator


class FromRecord:
    """What the record holds when the function begins, read in its first block."""

    def __init__(self, plan: Plan, loop: SteadyState, builder: ir.IRBuilder, record: Value) -> None:
        self.plan, self.loop, self.builder, self.record = plan, loop, builder, record
        self.entry, self.lanes = loop.stretch.entry, plan.machine.vpu.lanes
        self.vector = ir.VectorType(WORD, self.lanes)
        self._known: dict[Any, Value] = {}
        bits = builder.load(self.at(plan.record.register(LANE_MASK)), typ=REGISTER, align=8)
        self.lane_bits = bits
        narrow = builder.trunc(bits, ir.IntType(self.lanes))
        self.enabled = builder.bitcast(narrow, ir.VectorType(BIT, self.lanes))

    def at(self, offset: int, builder: ir.IRBuilder | None = None) -> Value:
        b = builder or self.builder
        return b.gep(self.record, [REGISTER(offset)], source_etype=BYTE)

    def number(self, name: str) -> Value:
        return self.at(self.plan.record.numbers[name])

    def load(self, name: str) -> Value:
        return self._once(name, lambda: self.builder.load(self.number(name), typ=REGISTER, align=8))

    def _once(self, key: Any, make: Callable[[], Value]) -> Value:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def register(self, register: Register) -> Value:
        """Return what a register holds."""
        kind = self.vector if register.file is File.VECTOR else REGISTER
        place = self.plan.record.register(register)
        return self._once(register, lambda: self.builder.load(self.at(place), typ=kind, align=4))

    def _flight(self, flight: Flight) -> Value:
        kind = self.vector if flight.result.has_lanes else REGISTER
        place = self.plan.record.flights[self.entry, flight]
        return self._once(flight, lambda: self.builder.load(self.at(place), typ=kind, align=4))

    def sent_before(self, definition: Definition, turns: int) -> Value:
        """Return a result sent so many turns before the first: on its way, or landed."""
        remaining = definition.lands - turns * self.loop.cycles
        if remaining >= 0:
            return self._flight(Flight(definition.flight.result, remaining))
        return self.register(definition.target)

    def before(self, definition: Definition, b: ir.IRBuilder) -> Value:
        """Return an accumulator as its first turn sees it; nothing must be written yet."""
        remaining = definition.lands - self.loop.cycles
        record = self.plan.record
        place = record.register(definition.target)
        if remaining >= 0:
            place = record.flights[self.entry, Flight(definition.flight.result, remaining)]
        return b.load(self.at(place, b), typ=self.vector, align=4)

    def initial(self, register: Register, time: int) -> Value:
        """Return the scalar that a read at a cycle of the first turn sees."""
        key = register, time
        return self._once(key, lambda: self._find_initial(register, time))

    def _find_initial(self, register: Register, time: int) -> Value:
        seen = self.loop.seen(register, time)
        if seen is None:
            return self.register(register)
        if seen.turns > 0:
            return self.sent_before(seen.definition, seen.turns)
        value = self.loop.linear(seen.definition)
        assert value is not None
        amount = self.amount(value.amount)
        if value.root is None:
            return amount
        return self.builder.add(self.initial(value.root, seen.definition.issued), amount)

    def amount(self, amount: Amount) -> Value:
        """Return an amount as a number."""

        def make() -> Value:
            total: Value = REGISTER(amount.constant)
            for register, factor in sorted(amount.products, key=str):
                part = self.builder.mul(self.register(register), REGISTER(factor))
                total = self.builder.add(total, part)
            return total

        return self._once(amount, make)

    def start(self, register: Register, time: int, turn: int) -> Value:
        """Return what a read sees in a turn counted from the first one, if it moves steadily."""
        motion = self.loop.motion(register, time)
        assert motion is not None

        def make() -> Value:
            step = self.amount(motion.step)
            back = self.builder.mul(step, REGISTER(turn))
            return self.builder.add(self.initial(register, time), back)

        return self._once((register, time, turn), make)

    def address(self, operation: Operation, time: int, turn: int) -> Value:
        """Return the byte address that an operation accesses in a turn."""
        address, moved = address_of(operation)
        base = self.start(address.base, time, turn)
        if not moved:
            return base
        displacement = self.loop.displacement(operation)
        return self.builder.add(base, self.amount(displacement))

    def pointer(self, operation: Operation, time: int, turn: int) -> Value:
        """Return the host's pointer to that address."""
        kind = operation.address_kind
        assert kind is not None
        machine = self.plan.machine
        memory, name = (machine.am, "array") if kind.vector else (machine.sm, "scalar")
        b = self.builder

        def make() -> Value:
            first = b.inttoptr(self.load(name), ir.PointerType())
            offset = b.sub(self.address(operation, time, turn), REGISTER(memory.base))
            return b.gep(first, [offset], source_etype=BYTE)

        return self._once((id(operation), time, turn), make)

    def shadow(self) -> Value:
        """Return the host's pointer to the shadow of SM."""
        return self._once(
            "shadow pointer", lambda: self.builder.inttoptr(self.load("shadow"), ir.PointerType())
        )

    def flag(self, register: Register) -> Value | None:
        """Return whether nobody knows a register that the loop leaves as it is."""
        if not self.plan.timing:
            return None
        place = self.plan.record.unknown_flag(register)
        byte = self._once(
            ("flag", register), lambda: self.builder.load(self.at(place), typ=BYTE, align=1)
        )
        return self.builder.icmp_unsigned("!=", byte, BYTE(0))

    def flight_flag(self, flight: Flight) -> Value:
        """Return whether nobody knows a scalar on its way."""
        b, place = self.builder, self.plan.record.flights[self.entry, flight] + 8
        state = b.load(self.at(place), typ=REGISTER, align=4)
        return b.trunc(b.lshr(state, REGISTER(UNKNOWN_BIT)), BIT)

    def leave_flag(
        self, b: ir.IRBuilder, definition: Definition, flight: Flight | None, flag: Value | None
    ) -> None:
        """Write whether nobody knows a scalar result to where that stands."""
        if flight is None:
            byte = BYTE(0) if flag is None else b.zext(flag, BYTE)
            b.store(byte, self.at(self.plan.record.unknown_flag(definition.target), b), align=1)
            return
        bit = REGISTER(0) if flag is None else b.shl(b.zext(flag, REGISTER), REGISTER(UNKNOWN_BIT))
        packet = (definition.packet & PACKET_MASK) << PACKET_SHIFT
        state = b.or_(REGISTER(-(2**63) + packet), bit)
        b.store(state, self.at(self.plan.record.flights[self.entry, flight] + 8, b), align=4)

    def leave(
        self, b: ir.IRBuilder, definition: Definition, flight: Flight | None, value: Value
    ) -> None:
        """Write a result to where it is when the next turn begins."""
        if flight is not None:
            place = self.plan.record.flights[self.entry, flight]
            b.store(value, self.at(place, b), align=4)
            return
        place = self.plan.record.register(definition.target)
        if definition.flight.result.has_lanes:
            old = b.load(self.at(place, b), typ=self.vector, align=4)
            value = b.select(self.enabled, value, old)
        b.store(value, self.at(place, b), align=4)


class _Operands:
    """Stands for the registers in the translator: operands are those of a cycle and a turn."""

    def __init__(self, values: SteadyValues) -> None:
        self.values, self.time, self.turn = values, 0, 0
        self.uniform = True

    def read(self, register: Register) -> Value:
        return self.values.read(register, self.time, self.turn)

    def enabled(self) -> Value:
        return self.values.all_lanes

    def flag(self, register: Register) -> Value | None:
        return self.values.flag(register, self.time, self.turn)


class _Translator(OperationTranslator):
    """Translates operations whose addresses are known to be right."""

    registers: Any

    def _place(self, kind: type[AddressKind], address: Address, own: Value | None) -> Any:
        return self.registers.values.place(kind, self.registers.time, self.registers.turn)


class _ShadowedWords(WholePlace):
    """Words of SM, of which the translator gets to know whether anybody knows them."""

    def __init__(self, place: WholePlace, shadow: Value, translator: _TimingTranslator) -> None:
        super().__init__(place.builder, place.pointer, place.lanes)
        self.shadow, self.translator = shadow, translator

    def load_word(self, word: int) -> Value:
        b = self.builder
        flag = b.load(b.gep(self.shadow, [REGISTER(word)], source_etype=BYTE), typ=BYTE, align=1)
        self.translator.loaded.append(b.icmp_unsigned("!=", flag, BYTE(0)))
        return super().load_word(word)


class _TimingTranslator(TimingTranslator):
    """Translates such operations without numbers."""

    registers: Any

    def _place(self, kind: type[AddressKind], address: Address, own: Value | None) -> Any:
        values, time, turn = self.registers.values, self.registers.time, self.registers.turn
        place = values.place(kind, time, turn)
        return _ShadowedWords(place, values.shadow_at(place, self.shadow), self)

    def _know_address(self, address: Address) -> None:
        """Addresses were found known before."""


class SteadyValues:
    """Operands and results of one turn and the turns before it, where a builder stands."""

    def __init__(self, entered: FromRecord, builder: ir.IRBuilder) -> None:
        self.entered, self.loop, self.builder = entered, entered.loop, builder
        lanes = entered.lanes
        self.all_lanes = ir.Constant(ir.VectorType(BIT, lanes), [1] * lanes)
        self.sums: dict[int, Value] = {}
        """Accumulators as the turn sees them, by the identity of their definition."""
        self.offsets: dict[Amount, Value] = {}
        self._make_offset: Callable[[Amount], Value] | None = None
        self._results: dict[tuple[int, int], list[Sent]] = {}
        self._operands = _Operands(self)
        plan = entered.plan
        nowhere = Space(0, 0, REGISTER(0))
        operands: Any = self._operands
        kind = _TimingTranslator if plan.timing else _Translator
        self._translator = kind(
            builder, plan.program, plan.machine, operands, nowhere, nowhere, REGISTER(0),
            _no_descriptor, _no_fault,
        )  # fmt: skip
        if isinstance(self._translator, _TimingTranslator):
            self._translator.shadow = entered.shadow()
        self._operation: Operation | None = None

    def moved_by(self, make: Callable[[Amount], Value]) -> None:
        """Say how far values have moved when the turn begins, by the step of a turn."""
        self._make_offset = make

    def _offset(self, step: Amount) -> Value:
        if step not in self.offsets:
            assert self._make_offset is not None
            self.offsets[step] = self._make_offset(step)
        return self.offsets[step]

    def read(self, register: Register, time: int, turn: int) -> Value:
        """Return what an operand sees that is read at a cycle of a turn (0, or -1, -2, ...)."""
        seen = self.loop.seen(register, time)
        if seen is None:
            return self.entered.register(register)
        if register.file is not File.VECTOR:
            motion = self.loop.motion(register, time)
            if motion is not None:
                start = self.entered.start(register, time, turn)
                if not motion.step:
                    return start
                return self.builder.add(start, self._offset(motion.step))
        return self.value(seen.definition, turn - seen.turns)

    def value(self, definition: Definition, turn: int) -> Value:
        """Return a result of a turn."""
        if turn < 0 and id(definition) in self.sums:
            return self.sums[id(definition)]
        linear = self.loop.linear(definition)
        if linear is not None and self.loop.moves(definition) is not None:
            amount = self.entered.amount(linear.amount)
            if linear.root is None:
                return amount
            return self.builder.add(self.read(linear.root, definition.issued, turn), amount)
        position = definition.position
        assert position is not None
        return self._results_of(definition, turn)[position].value

    def unknown(self, definition: Definition, turn: int) -> Value | None:
        """Return whether nobody knows a scalar result of a turn; None if it is known."""
        if self.loop.moves(definition) is not None or definition.position is None:
            return None
        return self._results_of(definition, turn)[definition.position].unknown

    def flag(self, register: Register, time: int, turn: int) -> Value | None:
        """Return whether nobody knows what an operand sees; None if it is known."""
        seen = self.loop.seen(register, time)
        if seen is None:
            return self.entered.flag(register)
        if self.loop.motion(register, time) is not None:
            return None
        return self.unknown(seen.definition, turn - seen.turns)

    def shadow_at(self, place: WholePlace, shadow: Value) -> Value:
        """Return the place of the flag of a word of SM."""
        b = self.builder
        words = self.entered.load("scalar")
        offset = b.sub(b.ptrtoint(place.pointer, REGISTER), words)
        return b.gep(shadow, [b.lshr(offset, REGISTER(2))], source_etype=BYTE)

    def _results_of(self, definition: Definition, turn: int) -> list[Sent]:
        key = id(definition.operation), turn
        if key not in self._results:
            operands = self._operands
            before = operands.time, operands.turn, self._operation
            operands.time, operands.turn = definition.issued, turn
            self._operation = definition.operation
            sent = self._translator.translate(definition.operation, definition.packet)
            operands.time, operands.turn, self._operation = before
            self._results[key] = sent
        return self._results[key]

    def place(self, kind: type[Kind], time: int, turn: int) -> WholePlace:
        """Return the memory operand of the operation in work."""
        operation = self._operation
        assert operation is not None
        address, _ = address_of(operation)
        pointer = self.entered.pointer(operation, time, turn)
        motion = self.loop.motion(address.base, time)
        assert motion is not None
        if motion.step:
            pointer = self.builder.gep(pointer, [self._offset(motion.step)], source_etype=BYTE)
        return WholePlace(self.builder, pointer, self.entered.lanes)


def _no_descriptor(word: int) -> Value:
    raise AssertionError("a steady loop starts no transfer")


def _no_fault(wrong: Value) -> None:
    raise AssertionError("a steady loop was checked before")
