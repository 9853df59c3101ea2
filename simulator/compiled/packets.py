"""Operations in compiled code: operands gathered, the one semantics called, results sent.

All reads of a packet come before its writes, and its stores after its loads. What an operation
sends is returned as `Sent`; when it lands is the stretch's concern.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from isa.descriptor import DESCRIPTOR_WORDS
from isa.instruction import Effect, Instruction
from isa.machine import Machine
from isa.operands import (
    FILE_LENGTH,
    SVR,
    VR,
    VRI,
    Address,
    AddressKind,
    File,
    Kind,
    Label,
    Operand,
    Register,
    RPair,
    SVRi,
    Update,
    VRPair,
)
from isa.program import Operation, Program
from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.flights import Flight, base_update, results
from simulator.compiled.llvm_values import BIT, REGISTER, WORD, LlvmScalar, LlvmVector
from simulator.compiled.places import Deferred, Fault, ScalarPlace, Space, VectorPlace


@frozen
class Sent:
    """A result that an operation sends: where to, what, whether at all, and which lanes."""

    flight: Flight
    value: Value
    sent: Value | None
    """The predicate (i1); None if always."""
    mask: Value | None
    """Enabled lanes of a vector (<lanes x i1>); None: those that VLR enables."""
    unknown: Value | None = None
    """Whether nobody knows the value in a run without numbers (i1); None: it is known."""
    packet: int | Value = 0
    """The packet that sent it: its number, or a state that holds it."""


@frozen
class Access:
    """A vector access of AM: byte address (i64), bytes, and its predicate."""

    address: Value
    bytes: int
    allowed: Value | None


@define
class Actions:
    """What the packet in work does to its core, besides its results."""

    taken: list[tuple[int, Value | None, Value]] = field(factory=list)
    """Branches: packet, predicate, target (i64)."""
    stops: list[tuple[Effect, Value | None, Value]] = field(factory=list)
    """Waits, barriers, halts and starts: effect, predicate, channel (i64)."""


class Registers:
    """The registers that a stretch touches, as values of its function."""

    def __init__(
        self, builder: ir.IRBuilder, lanes: int, load: Callable[[Register], Value]
    ) -> None:
        self.builder, self.lanes, self._load = builder, lanes, load
        self.values: dict[Register, Value] = {}
        self.unknown: dict[Register, Value | None] = {}
        """Whether nobody knows a scalar in a run without numbers (i1)."""
        self.changed: dict[Register, None] = {}
        """Registers whose values are not the record's any more, in the order of their changes."""
        self.uniform = False
        """Tell whether VLR stays as it is, and lanes do not see each other.

        Then results may land in all lanes; the disabled ones get their old values back at the end.
        """
        self._masks: Value | None = None
        self.load_flag: Callable[[Register], Value | None] = _is_known

    def kind(self, register: Register) -> ir.Type:
        """Return the type of a register's content; the exchange register is one vector."""
        if register.file is File.VECTOR:
            return ir.VectorType(WORD, self.lanes)
        if register.file is File.EXCHANGE:
            return ir.VectorType(WORD, FILE_LENGTH[File.EXCHANGE])
        return REGISTER

    def read(self, register: Register) -> Value:
        register = whole(register)
        value = self.values.get(register)
        if value is None:
            value = self.values[register] = self._load(register)
        return value

    def write(self, register: Register, value: Value, unknown: Value | None = None) -> None:
        register = whole(register)
        self.values[register] = value
        self.unknown[register] = unknown
        self.changed[register] = None
        if register.file is File.LANE_MASK:
            self._masks = None

    def know_masks(self, builder: ir.IRBuilder) -> None:
        """Compute the lanes that VLR enables where a builder stands, for all of a function."""
        self._masks = lanes_of(builder, self.read(LANE_MASK), self.lanes)

    def flag(self, register: Register) -> Value | None:
        """Return whether nobody knows a scalar (i1); None if it is known for sure."""
        if register not in self.unknown:
            self.unknown[register] = self.load_flag(register)
        return self.unknown[register]

    def enabled(self) -> Value:
        """Return the lanes that VLR enables, computed once for each of its values."""
        if self._masks is None:
            self._masks = lanes_of(self.builder, self.read(LANE_MASK), self.lanes)
        return self._masks


LANE_MASK = Register(File.LANE_MASK)


def whole(register: Register) -> Register:
    """Return the register that holds a register: entries of SVR are kept together."""
    return Register(File.EXCHANGE, 0) if register.file is File.EXCHANGE else register


def _is_known(register: Register) -> None:
    """Say of every register that it is known, as in runs with numbers."""


def lanes_of(builder: ir.IRBuilder, bits: Value, lanes: int) -> Value:
    """Return the low bits of a number (i64) as a mask, a bit for each lane (<lanes x i1>)."""
    narrow = builder.trunc(bits, ir.IntType(lanes))
    return builder.bitcast(narrow, ir.VectorType(BIT, lanes))


def bits_of(builder: ir.IRBuilder, mask: Value) -> Value:
    """Return a mask of lanes as the low bits of a number (i64)."""
    return builder.zext(builder.bitcast(mask, ir.IntType(mask.type.count)), REGISTER)


class _Control:
    """Control words; the same for scalar and vector vocabulary."""

    translator: OperationTranslator

    def core_id(self) -> Value:
        return self.translator.core

    def branch(self, target: Value) -> None:
        self.translator.branched(target)

    def dma_start(self, address: Value, channel: Value) -> None:
        self.translator.started(address, channel)

    def dma_wait(self, channel: Value) -> None:
        self.translator.stopped(Effect.DMA_WAIT, channel)

    def barrier(self) -> None:
        self.translator.stopped(Effect.BARRIER, 0)

    def halt(self) -> None:
        self.translator.stopped(Effect.HALT, 0)

    def idle(self, cycles: Value) -> None:
        """A SNOP's cycles are counted where stretches are cut."""


class ScalarVocabulary(_Control, LlvmScalar):
    """Scalar words with control."""


class VectorVocabulary(_Control, LlvmVector):
    """Vector words with control."""


class OperationTranslator:
    """Translates one operation after the other where its builder stands."""

    def __init__(
        self, builder: ir.IRBuilder, program: Program, machine: Machine, registers: Registers,
        array: Space, scalar: Space, core: Value, descriptor: Callable[[int], Value], fault: Fault,
    ) -> None:  # fmt: skip
        self.builder, self.program, self.machine = builder, program, machine
        self.registers, self.array, self.scalar = registers, array, scalar
        self.core, self.descriptor, self.fault = core, descriptor, fault
        self.lanes = machine.vpu.lanes
        self.scalar_words, self.vector_words = (
            ScalarVocabulary(builder), VectorVocabulary(builder, self.lanes)
        )  # fmt: skip
        self.scalar_words.translator = self.vector_words.translator = self
        self.deferred, self.actions = Deferred([], []), Actions()
        self.multiplied: list[tuple[Value | None, Value | None]] = []
        """Predicate and lane predicate of every operation on a VMAC slot."""
        self.accesses: list[Access] = []
        """Vector accesses of the packet in work."""
        self._packet = 0
        self._allowed: Value | None = None

    def translate(self, operation: Operation, packet: int) -> list[Sent]:
        """Emit an operation; return what it sends."""
        entry = operation.instruction
        self._packet, self._allowed = packet, self._predicate(operation)
        own = self._own_lanes(operation) if entry.masks_lanes else None
        if operation.slot.startswith("VMAC"):
            self.multiplied.append((self._allowed, own))
        vector = entry.is_vector or any(issubclass(kind, VR | VRPair) for kind in entry.results)
        values = [
            self._source(entry, kind, operand, own, vector)
            for (_, kind), operand in zip(entry.sources, operation.sources, strict=True)
        ]
        words = self.vector_words if vector else self.scalar_words
        result = entry.semantics(words, *values)
        return self._results(operation, result, own)

    def _predicate(self, operation: Operation) -> Value | None:
        predicate = operation.predicate
        if predicate is None or predicate.is_lane_predicate:
            return None
        test = "==" if predicate.negated else "!="
        return self.builder.icmp_unsigned(
            test, self.registers.read(predicate.register), REGISTER(0)
        )

    def _own_lanes(self, operation: Operation) -> Value | None:
        """Return the lanes that the operation's lane predicate enables; None without one."""
        predicate = operation.predicate
        if predicate is None or not predicate.is_lane_predicate:
            return None
        test = "==" if predicate.negated else "!="
        zeros = self.vector_words.constant(0)
        return self.builder.icmp_unsigned(test, self.registers.read(predicate.register), zeros)

    def enabled(self, own: Value | None) -> Value:
        """Return the lanes that VLR, the lane predicate and the predicate enable together."""
        b, lanes = self.builder, self.registers.enabled()
        if own is not None:
            lanes = b.and_(lanes, own)
        if self._allowed is not None:
            none = ir.Constant(lanes.type, [0] * self.lanes)
            lanes = b.select(self._allowed, lanes, none)
        return lanes

    def _source(
        self, entry: Instruction, kind: type[Kind], operand: Operand, own: Value | None,
        vector: bool,
    ) -> Any:  # fmt: skip
        """Return one source as the semantics takes it."""
        if isinstance(operand, Label):
            return self.program.target(operand)
        if isinstance(operand, Address):
            assert issubclass(kind, AddressKind)
            return self._place(kind, operand, own)
        if isinstance(operand, int):
            return self.vector_words.constant(operand) if kind is VRI else operand
        read = self.registers.read
        if issubclass(kind, RPair | VRPair):
            return read(operand), read(Register(operand.file, operand.index + 1))
        if kind is SVR:
            first = ir.Constant(ir.VectorType(WORD, self.lanes), list(range(self.lanes)))
            entries = read(operand)
            return self.builder.shuffle_vector(
                entries, ir.Constant(entries.type, ir.Undefined), first
            )
        if kind is SVRi:
            entry_value = self.builder.extract_element(read(operand), WORD(operand.index))
            return self.builder.sext(entry_value, REGISTER)
        return read(operand)

    def _place(self, kind: type[AddressKind], address: Address, own: Value | None) -> Any:
        base = self.address_value(kind, address)
        if kind.vector:
            self.accesses.append(Access(base, kind.unit_bytes * self.lanes, self._allowed))
            return VectorPlace(
                self.builder, self.array, base, self.enabled(own), self.lanes, self.fault,
                self.deferred,
            )  # fmt: skip
        return ScalarPlace(
            self.builder, self.scalar, base, self._allowed, self.fault, self.deferred
        )

    def address_value(self, kind: type[AddressKind], address: Address) -> Value:
        """Return the byte address that a memory operand accesses."""
        base = self.registers.read(address.base)
        if address.update is Update.POST:
            return base
        return self.builder.add(base, self._amount(kind, address))

    def _amount(self, kind: type[AddressKind], address: Address) -> Value:
        """Return the bytes by which an address is offset or moved."""
        scale = kind.unit_bytes * (-1 if address.negative else 1)
        if isinstance(address.offset, Register):
            return self.builder.mul(self.registers.read(address.offset), REGISTER(scale))
        return REGISTER(scale * address.offset)

    def _results(self, operation: Operation, result: Any, own: Value | None) -> list[Sent]:
        flights = results(operation, self.machine)
        values = result if isinstance(result, tuple) else (result,)
        found = []
        for flight, value in zip(flights, values, strict=False):
            lanes = None
            if flight.result.has_lanes:
                bare = self.registers.uniform and not flight.result.whole_exchange
                lanes = own if bare else self.enabled(own)
            found.append(Sent(flight, as_number(value), self._allowed, lanes))
        moved = base_update(operation, self.machine)
        if moved is not None:
            found.append(Sent(moved, self._moved_address(operation), self._allowed, None))
        return found

    def _moved_address(self, operation: Operation) -> Value:
        address, kind = operation.address, operation.address_kind
        assert address is not None
        assert kind is not None
        amount = self._amount(kind, address)
        return self.builder.add(self.registers.read(address.base), amount)

    # What control words do ----------------------------------------------------------------------

    def branched(self, target: Value) -> None:
        self.actions.taken.append((self._packet, self._allowed, as_number(target)))

    def stopped(self, effect: Effect, channel: Value) -> None:
        number = as_number(channel)
        if effect in (Effect.DMA_WAIT, Effect.DMA_START):
            channels = REGISTER(self.machine.dma.channels)
            self._refuse(self.builder.icmp_unsigned(">=", number, channels))
        self.actions.stops.append((effect, self._allowed, number))

    def started(self, address: Value, channel: Value) -> None:
        """Copy the descriptor, as it is when the packet issues, to where Python finds it."""
        b = self.builder
        self.stopped(Effect.DMA_START, channel)
        place = self._descriptor_place(address)
        words = [place.load_word(word) for word in range(DESCRIPTOR_WORDS)]
        for number, word in enumerate(words):
            b.store(word, self.descriptor(number), align=4)

    def _descriptor_place(self, address: Value) -> ScalarPlace:
        return ScalarPlace(
            self.builder, self.scalar, address, self._allowed, self.fault, self.deferred
        )

    def _refuse(self, wrong: Value) -> None:
        if self._allowed is not None:
            wrong = self.builder.and_(wrong, self._allowed)
        self.fault(wrong)


def as_number(value: Value) -> Value:
    return REGISTER(value) if isinstance(value, int) else value
