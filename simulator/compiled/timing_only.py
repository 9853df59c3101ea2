"""Operations of a run without numbers: vectors are left out, what depends on data is unknown.

Scalars carry a bit that says whether anybody knows them; memory has it in a shadow, a byte for each
word of SM. A control instruction, a predicate or an address that is unknown ends the stretch with a
fault, and the reference engine says what is wrong. Called in place of the translator of `packets`.
"""

from __future__ import annotations

from typing import Any

from isa.instruction import Effect
from isa.operands import (
    VR,
    Address,
    AddressKind,
    File,
    Register,
    RPair,
    VRPair,
)
from isa.program import Operation
from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.flights import base_update, results
from simulator.compiled.llvm_values import BIT, REGISTER
from simulator.compiled.packets import Access, OperationTranslator, Sent, as_number
from simulator.compiled.places import ScalarPlace

BYTE = ir.IntType(8)

CARRIES = (Effect.NONE, Effect.LOAD, Effect.STORE)
"""Effects of operations that may work on what nobody knows."""


class ShadowedPlace(ScalarPlace):
    """One access of SM that knows which words nobody knows."""

    translator: TimingTranslator

    def load_word(self, word: int) -> Value:
        index = self._index(word)
        b, place = self.builder, self.translator.shadow_at(index)
        loaded = b.icmp_unsigned("!=", b.load(place, typ=BYTE, align=1), BYTE(0))
        self.translator.loaded.append(loaded)
        return b.load(self._pointer(index), align=4, typ=ir.IntType(32))

    def store_word(self, word: int, value: Value) -> None:
        super().store_word(word, value)
        b, store = self.builder, self.deferred.stores.pop()
        unknown = self.translator.stored.pop(0)
        place = self.translator.shadow_at(self.deferred.touched[-1][1])

        def store_both() -> None:
            store()
            flag = BYTE(0) if unknown is None else b.zext(unknown, BYTE)
            if self.allowed is None:
                b.store(flag, place, align=1)
                return
            with b.if_then(self.allowed):
                b.store(flag, place, align=1)

        self.deferred.stores.append(store_both)


class TimingTranslator(OperationTranslator):
    """Translates operations without numbers."""

    shadow: Value
    """The host's pointer to the shadow of SM."""

    loaded: list[Value]
    """Of every word that the operation in work has loaded, whether it is unknown."""
    stored: list[Value | None]
    """Of every word that it will store, whether it is unknown."""

    def translate(self, operation: Operation, packet: int) -> list[Sent]:
        entry = operation.instruction
        self._packet, self._allowed = packet, self._predicate(operation)
        self.loaded, self.stored = [], []
        if operation.predicate is not None and not operation.predicate.is_lane_predicate:
            self._know(operation.predicate.register)
        if operation.slot.startswith("VMAC"):
            self.multiplied.append((self._allowed, None))
        if operation.address is not None:
            self._know_address(operation.address)
        if entry.is_vector or any(issubclass(kind, VR | VRPair) for kind in entry.results):
            return self._left_out(operation)
        flags = self._flags(operation)
        if entry.effect is Effect.STORE:
            self.stored = list(flags)
        elif entry.effect not in CARRIES:
            for flag in flags:
                self._refuse_unknown(flag)
        values = [
            self._source(entry, kind, operand, None, False)
            for (_, kind), operand in zip(entry.sources, operation.sources, strict=True)
        ]
        result = entry.semantics(self.scalar_words, *values)
        return self._with_flags(operation, result, flags)

    def _left_out(self, operation: Operation) -> list[Sent]:
        """Return what a vector operation sends: nothing to see, and its moved address."""
        if operation.instruction.effect not in CARRIES:
            raise AssertionError(f"{operation}: vectors do not control a core")
        found = []
        address, kind = operation.address, operation.address_kind
        if address is not None and kind is not None and kind.vector:
            base = self.address_value(kind, address)
            self.accesses.append(Access(base, kind.unit_bytes * self.lanes, self._allowed))
        for flight in results(operation, self.machine):
            unknown = None if flight.result.unseen else BIT(1)
            found.append(Sent(flight, REGISTER(0), self._allowed, None, unknown))
        return found + self._moved(operation)

    def _with_flags(
        self, operation: Operation, result: Any, flags: list[Value | None]
    ) -> list[Sent]:
        flights = results(operation, self.machine)
        values = result if isinstance(result, tuple) else (result,)
        found = []
        together = self._any(flags)
        for position, (flight, value) in enumerate(zip(flights, values, strict=False)):
            unknown = self.loaded[position] if self.loaded else together
            found.append(Sent(flight, as_number(value), self._allowed, None, unknown))
        return found + self._moved(operation)

    def _moved(self, operation: Operation) -> list[Sent]:
        moved = base_update(operation, self.machine)
        if moved is None:
            return []
        return [Sent(moved, self._moved_address(operation), self._allowed, None)]

    # What nobody knows --------------------------------------------------------------------------

    def unknown(self, register: Register) -> Value | None:
        """Return whether nobody knows a scalar register."""
        if register.file in (File.VECTOR, File.EXCHANGE):
            return BIT(1)
        return self.registers.flag(register)

    def _flags(self, operation: Operation) -> list[Value | None]:
        """Return of every register operand whether it is unknown."""
        flags = []
        kinds = (kind for _, kind in operation.instruction.sources)
        for kind, operand in zip(kinds, operation.sources, strict=True):
            if isinstance(operand, Register):
                flags.append(self.unknown(operand))
                if issubclass(kind, RPair):
                    flags.append(self.unknown(Register(operand.file, operand.index + 1)))
        return flags

    def _any(self, flags: list[Value | None]) -> Value | None:
        found: Value | None = None
        for flag in flags:
            if flag is not None:
                found = flag if found is None else self.builder.or_(found, flag)
        return found

    def _know(self, register: Register) -> None:
        flag = self.unknown(register)
        if flag is not None:
            self.fault(flag)

    def _know_address(self, address: Address) -> None:
        for register in (address.base, address.offset):
            if isinstance(register, Register):
                self._refuse_unknown(self.unknown(register))

    def _refuse_unknown(self, flag: Value | None) -> None:
        if flag is not None:
            self._refuse(flag)

    def _place(self, kind: type[AddressKind], address: Address, own: Value | None) -> Any:
        place = ShadowedPlace(
            self.builder, self.scalar, self.address_value(kind, address), self._allowed,
            self.fault, self.deferred,
        )  # fmt: skip
        place.translator = self
        return place

    def _descriptor_place(self, address: Value) -> ScalarPlace:
        place = ShadowedPlace(
            self.builder, self.scalar, address, self._allowed, self.fault, self.deferred
        )
        place.translator = self
        return place

    def started(self, address: Value, channel: Value) -> None:
        super().started(address, channel)
        for flag in self.loaded:
            self._refuse(flag)
        self.loaded = []

    def shadow_at(self, index: Value) -> Value:
        """Return the place of a word's flag."""
        return self.builder.gep(self.shadow, [index], source_etype=BYTE)
