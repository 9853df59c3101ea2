"""One random operation for an issue slot, legal at this point of the program, operands by kind.

A new instruction takes part as soon as it is registered. Address registers that are followed hold
addresses inside one region always: an access or a move is drawn such that every address they may
hold stays there. Called by `writer` for each slot of each packet.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import evolve, frozen

from isa.instruction import REGISTRY, Effect, Instruction
from isa.machine import Machine
from isa.operands import (
    AR,
    AROR,
    RI,
    SVR,
    VLR,
    VR,
    VRI,
    Address,
    AddressKind,
    File,
    Imm32,
    Kind,
    Operand,
    Predicate,
    R,
    Register,
    RPair,
    SVRi,
    Update,
    VRPair,
)
from isa.program import Operation
from simulator.fuzzing.classes import Class, Flow, flows
from simulator.fuzzing.layout import Palette, Region
from simulator.fuzzing.state import Pointed, State
from simulator.fuzzing.values import SHORT_IMMEDIATES, random_float, random_word

DRAWN_EFFECTS = (Effect.NONE, Effect.LOAD, Effect.STORE)
"""Effects of operations that may stand anywhere; `control` and `transfers` place the others."""

HOLDS_FLOATS = (R, RPair, VR, VRPair, SVR, SVRi)
SVR_WHOLE = Register(File.EXCHANGE, -1)
LANE_MASK = Register(File.LANE_MASK)
OFFSETS = {True: (-16, -4, 0, 1, 3, 4, 16), False: (-3, -1, 0, 1, 2, 5)}
"""What offset registers hold, for vector and scalar accesses, in units of the access."""


class ImpossibleError(Exception):
    """Nothing fits here at the moment."""


@frozen
class Drawn:
    """An operation, and what becomes true if it is issued now."""

    operation: Operation
    commit: Callable[[], None] = lambda: None
    needed: bool = False
    """Whether what follows relies on it."""


def drawable(machine: Machine, slot: str) -> list[Instruction]:
    """Return the instructions that may be drawn for a slot."""
    return [
        entry
        for entry in REGISTRY.values()
        if entry.effect in DRAWN_EFFECTS
        and any(slot in machine.slots_of(unit) for unit in entry.units)
    ]


class Drawing:
    """Draws operations for one program."""

    def __init__(
        self, random: Random, machine: Machine, palette: Palette, state: State, strict: bool
    ) -> None:
        self.random, self.machine, self.palette = random, machine, palette
        self.state, self.strict = state, strict
        self.stored_now: set[Region] = set()
        """Regions that the packet in the making stores to."""
        self._entries = {slot: drawable(machine, slot) for slot in machine.issue.slots}

    def draw(self, slot: str, memory: bool = True) -> Drawn | None:
        """Return an operation for the slot, or None where luck finds none that fits."""
        entries = [e for e in self._entries[slot] if memory or e.effect is Effect.NONE]
        for _ in range(4 if entries else 0):
            try:
                drawn = self._draw(self.random.choice(entries), memory)
            except ImpossibleError:
                continue
            return evolve(drawn, operation=evolve(drawn.operation, slot=slot))
        return None

    # One operation ------------------------------------------------------------------------------

    def _draw(self, entry: Instruction, memory: bool) -> Drawn:
        if entry.name in ("SADDA", "SSUBA") and memory and self.random.random() < 0.5:
            return self._move(entry)
        flow = self.random.choice(self._flows(entry))
        known, holds = self._destination_class(entry, flow)
        place = self._address(entry, flow, known) if entry.address_position is not None else None
        if place is not None and place[1].holds is Class.CONTROL and entry.effect is Effect.STORE:
            known = True
        sources = [
            place[0] if place is not None and position == entry.address_position
            else self._source(kind, is_float, known)
            for position, ((_, kind), is_float) in enumerate(
                zip(entry.sources, flow.sources, strict=True)
            )
        ]  # fmt: skip
        results = [self._result(kind, holds) for kind in entry.results]
        if entry.in_place and self.machine.issue.mac_in_place:
            sources[-1] = results[-1]
        operation = Operation(
            entry, (*sources, *results), self._predicate(entry), "", place[1].name if place else ""
        )
        return Drawn(operation, lambda: self._commit(operation, place))

    def _flows(self, entry: Instruction) -> list[Flow]:
        """Return the choices of classes; an accumulator is of its result's."""
        in_place = entry.in_place and self.machine.issue.mac_in_place
        return [f for f in flows(entry) if not in_place or f.sources[-1] == f.result]

    def _destination_class(self, entry: Instruction, flow: Flow) -> tuple[bool, Class]:
        """Return whether all sources must be known without data, and what the result may go to."""
        if not entry.results:
            return False, Class.INTEGER
        (kind,) = entry.results
        if flow.result:
            if not issubclass(kind, HOLDS_FLOATS) or self._whole_integers(kind):
                raise ImpossibleError
            return False, Class.FLOAT
        if issubclass(kind, AROR | AR | VLR):
            return self._knowable(entry, flow)
        if entry.in_place or issubclass(kind, SVR | SVRi):
            return False, Class.INTEGER
        chosen = self.random.random()
        if issubclass(kind, R | RPair) and chosen < 0.5:
            return self._knowable(entry, flow)
        return False, Class.FLOAT if chosen > 0.9 else Class.INTEGER

    def _whole_integers(self, kind: type[Kind]) -> bool:
        return issubclass(kind, SVR | SVRi) and self.palette.exchange is Class.INTEGER

    def _knowable(self, entry: Instruction, flow: Flow) -> tuple[bool, Class]:
        if any(flow.sources) or any(issubclass(k, SVRi | SVR | VR) for _, k in entry.sources):
            raise ImpossibleError
        return True, Class.CONTROL

    def _commit(self, operation: Operation, place: tuple[Address, Region] | None) -> None:
        if place is None:
            return
        address, region = place
        if operation.instruction.effect is Effect.STORE:
            self.stored_now.add(region)
        if address.update is not Update.NONE:
            low, high = self._moved(operation, address)
            self._widen(address.base, low, high, self.machine.latency["address_update"])

    def _widen(self, pointer: Register, low: int, high: int, latency: int) -> None:
        state = self.state
        state.pointers[pointer] = state.pointers[pointer].joined(low, high)
        state.landing[pointer] = max(state.landing.get(pointer, 0), state.now + latency)

    # Registers and immediates -------------------------------------------------------------------

    def _source(self, kind: type[Kind], is_float: bool, known: bool) -> Operand:
        random, palette = self.random, self.palette
        if issubclass(kind, RI | VRI) and not is_float and random.random() < 0.35:
            return random.choice((*SHORT_IMMEDIATES, random.randint(-(2**15), 2**15 - 1)))
        if issubclass(kind, RPair):
            return self._even(self._scalars(is_float, known))
        if issubclass(kind, R):
            return random.choice(self._scalars(is_float, known))
        if issubclass(kind, VRPair):
            return self._even(self._vectors(is_float))
        if issubclass(kind, VR):
            return random.choice(self._vectors(is_float))
        if issubclass(kind, SVR | SVRi):
            if (palette.exchange is Class.FLOAT) != is_float or known:
                raise ImpossibleError
            return SVR_WHOLE if issubclass(kind, SVR) else self._entry()
        if issubclass(kind, AR):
            return random.choice([*palette.pointers, *palette.idle_pointers])
        if issubclass(kind, AROR):
            return random.choice([*palette.pointers, *palette.offsets])
        if issubclass(kind, VLR):
            return LANE_MASK
        if issubclass(kind, Imm32):
            return self.immediate()
        raise ImpossibleError

    def immediate(self) -> int:
        """Return a random 32-bit immediate: bits of a float or an integer."""
        make = random_float if self.random.random() < 0.4 else random_word
        return int(Imm32.encode(make(self.random)))  # type: ignore[arg-type]

    def _scalars(self, is_float: bool, known: bool) -> list[Register]:
        scalars = self.palette.scalars
        if is_float:
            return scalars[Class.FLOAT]
        control = [*scalars[Class.CONTROL], self.palette.steering, *self.palette.reserved[:6]]
        return control if known else control + scalars[Class.INTEGER]

    def _vectors(self, is_float: bool) -> list[Register]:
        return self.palette.vectors[Class.FLOAT if is_float else Class.INTEGER]

    def _even(self, registers: list[Register]) -> Register:
        held = set(registers)
        evens = [
            register
            for register in registers
            if register.index % 2 == 0 and Register(register.file, register.index + 1) in held
        ]
        return self.random.choice(evens)

    def _entry(self) -> Register:
        return Register(File.EXCHANGE, self.random.randrange(16))

    def _result(self, kind: type[Kind], holds: Class) -> Operand:
        random, palette = self.random, self.palette
        if issubclass(kind, RPair):
            return self._even(palette.scalars[holds])
        if issubclass(kind, R):
            return random.choice(palette.scalars[holds])
        if issubclass(kind, VRPair):
            return self._even(palette.vectors[holds])
        if issubclass(kind, VR):
            return random.choice(palette.vectors[holds])
        if issubclass(kind, SVR):
            return SVR_WHOLE
        if issubclass(kind, SVRi):
            return self._entry()
        if issubclass(kind, VLR):
            return LANE_MASK
        if issubclass(kind, AR):
            return random.choice(palette.idle_pointers)
        if issubclass(kind, AROR):
            return random.choice([*palette.idle_pointers, *palette.idle_offsets])
        raise ImpossibleError

    def _predicate(self, entry: Instruction) -> Predicate | None:
        random, rules = self.random, self.machine.issue
        drawn, negated = random.random(), random.random() < 0.5
        if drawn < 0.2:
            return Predicate(
                Register(File.SCALAR, random.randrange(min(3, rules.scalar_predicates))), negated
            )
        if drawn < 0.4 and entry.masks_lanes:
            return Predicate(
                Register(File.VECTOR, random.randrange(min(2, rules.lane_predicates))), negated
            )
        return None

    # Addresses ----------------------------------------------------------------------------------

    def _address(self, entry: Instruction, flow: Flow, known: bool) -> tuple[Address, Region]:
        position = entry.address_position
        assert position is not None
        kind = entry.sources[position][1]
        assert issubclass(kind, AddressKind)
        candidates = [
            (pointer, region, pointed)
            for pointer, region in self.palette.pointers.items()
            if pointer.is_vector_half == kind.vector
            and (pointed := self.state.usable(pointer)) is not None
            and self._open(entry, region, flow.sources[position], known)
        ]
        if not candidates:
            raise ImpossibleError
        pointer, region, pointed = self.random.choice(candidates)
        return self._through(pointer, region, pointed, kind), region

    def may_load(self, entry: Instruction, region: Region) -> bool:
        """Tell whether a load of floats from a region is legal now."""
        return self._open(entry, region, True, False)

    def _open(self, entry: Instruction, region: Region, is_float: bool, known: bool) -> bool:
        """Tell whether a load or store of a region is legal now."""
        state = self.state
        if (region.holds is Class.FLOAT) != is_float or state.writing[region]:
            return False
        if entry.effect is Effect.STORE:
            return not state.reading[region] and region not in self.stored_now
        if known and region.holds is not Class.CONTROL:
            return False
        return not self.strict or state.age(region) >= self.machine.latency["store"]

    def _through(
        self, pointer: Register, region: Region, pointed: Pointed, kind: type[AddressKind]
    ) -> Address:
        """Return an address operand all of whose possible accesses lie in the region."""
        span = kind.unit_bytes * (self.machine.vpu.lanes if kind.vector else 1)
        free = pointer not in self.state.frozen
        update = self.random.choice(list(Update)) if free else Update.NONE
        if self.random.random() < 0.3:
            address = self._register_offset(pointer, kind, update)
            reach = kind.unit_bytes * max(map(abs, OFFSETS[kind.vector]))
            moves = (-reach, reach)
        else:
            step = self._step(pointed, region, kind, span, update)
            address = Address(pointer, update, abs(step) // kind.unit_bytes, step < 0)
            moves = (step, step)
        at = (0, 0) if update is Update.POST else moves
        if pointed.low + at[0] < region.address or pointed.high + at[1] + span > region.end:
            raise ImpossibleError
        if update is not Update.NONE and not _inside(pointed, moves, region):
            raise ImpossibleError
        return address

    def _register_offset(
        self, pointer: Register, kind: type[AddressKind], update: Update
    ) -> Address:
        offsets = [o for o in self.palette.offsets if o.is_vector_half == kind.vector]
        return Address(pointer, update, self.random.choice(offsets), self.random.random() < 0.5)

    def _step(
        self, pointed: Pointed, region: Region, kind: type[AddressKind], span: int, update: Update
    ) -> int:
        """Return an offset in bytes that is likely to fit: none, a unit, a vector, or anywhere."""
        unit = kind.unit_bytes
        if self.random.random() < 0.5 or update is not Update.NONE:
            lanes = self.machine.vpu.lanes if kind.vector else 1
            return self.random.choice((0, 1, -1, 2, lanes, -lanes, lanes, 3)) * unit
        least = -((pointed.low - region.address) // unit)
        most = (region.end - span - pointed.high) // unit
        if least > most:
            raise ImpossibleError
        return self.random.randint(least, most) * unit

    def _moved(self, operation: Operation, address: Address) -> tuple[int, int]:
        """Return the lowest and highest value that an update may give its pointer."""
        kind, pointed = operation.address_kind, self.state.pointers[address.base]
        assert kind is not None
        if isinstance(address.offset, Register):
            reach = kind.unit_bytes * max(map(abs, OFFSETS[kind.vector]))
            return pointed.low - reach, pointed.high + reach
        step = kind.unit_bytes * address.offset * (-1 if address.negative else 1)
        return pointed.low + step, pointed.high + step

    def _move(self, entry: Instruction) -> Drawn:
        """Return an address addition from one pointer of a region to another."""
        sources = [p for p in self.palette.pointers if self.state.usable(p) is not None]
        if not sources:
            raise ImpossibleError
        source = self.random.choice(sources)
        region = self.palette.pointers[source]
        targets = [
            p for p in sources
            if self.palette.pointers[p] == region and p not in self.state.frozen
        ]  # fmt: skip
        if not targets:
            raise ImpossibleError
        target, step = self.random.choice(targets), 4 * self.random.randint(-16, 16)
        pointed, moved = self.state.pointers[source], step if entry.name == "SADDA" else -step
        if not _inside(pointed, (moved, moved), region):
            raise ImpossibleError
        operation = Operation(entry, (step, source, target), self._predicate(entry))
        latency = entry.latency(self.machine.latency, operation.operands)

        def commit() -> None:
            self._widen(target, pointed.low + moved, pointed.high + moved, latency)

        return Drawn(operation, commit)


def _inside(pointed: Pointed, moves: tuple[int, int], region: Region) -> bool:
    """Tell whether a moved pointer still points into its region."""
    return pointed.low + moves[0] >= region.address and pointed.high + moves[1] < region.end
