"""What a loop does turn after turn, once nothing of the time before it is on its way any more.

A loop that only loads, computes and counts repeats one pattern: every operand sees the same result
of the same turn or of one so many turns ago. Its addresses and counters move by the same amount
each turn, so what it loads is known for any turn at once; only sums over turns (*accumulators*)
must be computed one turn after the other. `steady_state` finds that pattern, `steady_code` writes
machine code from it. Loops that store, start transfers, or predicate results have none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import define, frozen

from isa.instruction import Effect
from isa.machine import Machine
from isa.operands import SVR, Address, File, Register, RPair, SVRi, Update, VRPair
from isa.program import Operation, Program
from simulator.compiled.flights import Flight, base_update, results
from simulator.compiled.linear import Amount, Linear, linear, source
from simulator.compiled.stretches import Stretch, leads_back

DEEPEST = 6
"""Turns that an operand may look back, by way of the operands of its operands."""

SCALARS = (File.SCALAR, File.ADDRESS, File.OFFSET)


@define(eq=False)
class Definition:
    """One result of the loop: sent by an operation each turn, landing so many cycles into it."""

    operation: Operation
    packet: int
    issued: int
    flight: Flight
    """As it is sent; `remaining` is the latency."""
    position: int | None
    """Which of the operation's results it is; None for a moved address register."""

    @property
    def lands(self) -> int:
        return self.issued + self.flight.remaining

    @property
    def target(self) -> Register:
        return self.flight.result.target


@frozen
class Seen:
    """What an operand sees: a result, of this turn or of one so many turns ago."""

    definition: Definition
    turns: int


@frozen
class Motion:
    """How a scalar value moves: the amount it grows by each turn."""

    step: Amount


class IrregularError(Exception):
    """Raised where a loop has no steady state that machine code can be written from."""


class SteadyState:
    """The repeating pattern of one loop."""

    def __init__(
        self, program: Program, machine: Machine, stretch: Stretch, arriving: Iterable[Flight],
        timing: bool = False,
    ) -> None:  # fmt: skip
        self.program, self.machine, self.stretch = program, machine, stretch
        self.timing = timing
        self.cycles = stretch.cycles
        self.operations = [
            (issue.time, issue.packet, operation)
            for issue in stretch.issues
            for operation in program.packets[issue.packet].operations
            if operation.instruction.effect is not Effect.IDLE
        ]
        self.branch = self._only_branch()
        self.definitions = [d for one in self.operations for d in self._definitions(*one)]
        self.of: dict[Register, list[Definition]] = defaultdict(list)
        for definition in self.definitions:
            self.of[definition.target].append(definition)
        self._motions: dict[tuple[Register, int], Motion | None] = {}
        self._lookback: dict[int, int] = {}
        self.accumulators = [d for d in self.definitions if self._feeds_itself(d)]
        self._refuse_irregular()
        self.step = self._countdown()
        self.warm_up = self._warm_up(arriving)
        """Turns after which the pattern holds."""

    def _warm_up(self, arriving: Iterable[Flight]) -> int:
        """Return the turns until operands see, as far back as they look, only the loop's results.

        `arriving`: what may be on its way when the loop is entered, which must have landed before.
        """
        foreign = [f.remaining for f in arriving if f.result.target in self.of]
        landed = max(foreign, default=-1) // self.cycles + 1
        depth = max((self.lookback(d) for d in self.definitions), default=0)
        sent = max((d.lands // self.cycles for d in self.definitions), default=0)
        return max(depth + landed, sent, 1)

    def _only_branch(self) -> tuple[int, Operation]:
        allowed = (Effect.NONE, Effect.LOAD, Effect.BRANCH)
        found = []
        for time, _, operation in self.operations:
            entry = operation.instruction
            if entry.effect is Effect.BRANCH:
                found.append((time, operation))
            elif operation.predicate is not None and not self._may_skip(operation):
                raise IrregularError("a predicate")
            kinds = (SVR, SVRi)
            exchange = any(issubclass(kind, kinds) for kind in entry.kinds)
            odd = entry.effect not in allowed or entry.cross_lane or exchange
            if odd and not self.is_left_out(operation):
                raise IrregularError(entry.name)
        if len(found) != 1:
            raise IrregularError("branches")
        return found[0]

    def is_left_out(self, operation: Operation) -> bool:
        """Tell whether a run without numbers does nothing for an operation but count it."""
        entry = operation.instruction
        memory = (Effect.NONE, Effect.LOAD, Effect.STORE)
        vectors = all(flight.result.unseen for flight in results(operation, self.machine))
        return self.timing and entry.is_vector and vectors and entry.effect in memory

    def _may_skip(self, operation: Operation) -> bool:
        predicate = operation.predicate
        lanes = predicate is not None and predicate.is_lane_predicate
        return lanes and self.is_left_out(operation)

    def _definitions(self, time: int, packet: int, operation: Operation) -> Iterator[Definition]:
        for position, flight in enumerate(results(operation, self.machine)):
            if flight.result.target.file is File.LANE_MASK:
                raise IrregularError("the lane mask changes")
            if not (self.timing and flight.result.unseen):
                yield Definition(operation, packet, time, flight, position)
        moved = base_update(operation, self.machine)
        if moved is not None:
            yield Definition(operation, packet, time, moved, None)

    # Who sees what ------------------------------------------------------------------------------

    def seen(self, register: Register, time: int) -> Seen | None:
        """Return the result that a read at a cycle of the turn sees; None: the loop writes none."""
        best: Seen | None = None
        latest = 0
        for definition in self.of.get(register, ()):
            turns = max(0, -(-(definition.lands - time) // self.cycles))
            landed = definition.lands - turns * self.cycles
            if best is None or landed > latest:
                best, latest = Seen(definition, turns), landed
        return best

    def reads(self, operation: Operation) -> list[Register]:
        """Return the registers that an operation reads as operands, not in its address."""
        found = []
        for kind, operand in zip(operation.instruction.kinds, operation.sources, strict=False):
            if isinstance(operand, Register):
                found.append(operand)
                if issubclass(kind, RPair | VRPair):
                    found.append(Register(operand.file, operand.index + 1))
        return found

    def _feeds_itself(self, definition: Definition) -> bool:
        if definition.target.file is not File.VECTOR or definition.position is None:
            return False
        return any(
            seen is not None and seen.definition is definition
            for seen in (self.seen(r, definition.issued) for r in self.reads(definition.operation))
        )

    # What moves ---------------------------------------------------------------------------------

    def linear(self, definition: Definition) -> Linear | None:
        """Return a scalar result as a sum of registers; None if it is none."""
        if definition.target.file not in SCALARS:
            return None
        operation = definition.operation
        if definition.position is None:
            assert operation.address is not None
            base = source(operation.address.base, self.of)
            return Linear(base.amount + self.displacement(operation), base.root)
        values: list[Any] = []
        for operand in operation.sources:
            if isinstance(operand, Register) and operand.file in SCALARS:
                values.append(source(operand, self.of))
            elif isinstance(operand, int):
                values.append(operand)
            else:
                return None
        return linear(operation.instruction.semantics, values)

    def displacement(self, operation: Operation) -> Amount:
        """Return by how many bytes an operation's address is offset or moved."""
        address, kind = operation.address, operation.address_kind
        assert address is not None
        assert kind is not None
        scale = kind.unit_bytes * (-1 if address.negative else 1)
        if isinstance(address.offset, int):
            return Amount(scale * address.offset)
        if address.offset in self.of:
            raise IrregularError("an offset register changes")
        return Amount(0, frozenset({(address.offset, scale)}))

    def motion(self, register: Register, time: int) -> Motion | None:
        """Return how what a read at a cycle of the turn sees moves; None if by no fixed step."""
        key = register, time
        if key not in self._motions:
            self._motions[key] = self._find_motion(register, time)
        return self._motions[key]

    def _find_motion(self, register: Register, time: int) -> Motion | None:
        """Follow a value back until the same result comes again, one turn earlier."""
        seen = self.seen(register, time)
        if seen is None:
            return Motion(Amount())
        total, turns = Amount(), 0
        passed: dict[int, tuple[Amount, int]] = {}
        while id(seen.definition) not in passed:
            passed[id(seen.definition)] = (total, turns)
            value = self.linear(seen.definition)
            if value is None:
                return None
            if value.root is None:
                return Motion(Amount())
            total += value.amount
            before = self.seen(value.root, seen.definition.issued)
            assert before is not None
            seen, turns = before, turns + before.turns
        amount, since = passed[id(seen.definition)]
        return Motion(total + -amount) if turns - since == 1 else None

    def moves(self, definition: Definition) -> Motion | None:
        """Return how a result moves from turn to turn; None if by no fixed step."""
        value = self.linear(definition)
        if value is None:
            return None
        if value.root is None:
            return Motion(Amount())
        return self.motion(value.root, definition.issued)

    # Whether it is regular ----------------------------------------------------------------------

    def _refuse_irregular(self) -> None:
        times: set[tuple[Register, int]] = set()
        for definition in self.definitions:
            key = definition.target, definition.lands % self.cycles
            if key in times:
                raise IrregularError("two results land in one register")
            times.add(key)
            if self.lookback(definition) > DEEPEST:
                raise IrregularError("operands from many turns ago")
        for _, _, operation in self.operations:
            address = operation.address
            if address is not None:
                self.displacement(operation)

    def lookback(self, definition: Definition, within: tuple[Definition, ...] = ()) -> int:
        """Return the turns that a result's operands reach back, not counting a sum's own."""
        known = self._lookback.get(id(definition))
        if known is not None:
            return known
        if definition in within:
            raise IrregularError("a recurrence that is no sum")
        found = 0
        if self.moves(definition) is None:
            found = max(
                (self._looks_back(read, definition, within) for read in self._wanted(definition)),
                default=0,
            )
        self._lookback[id(definition)] = found
        return found

    def _wanted(self, definition: Definition) -> list[Register]:
        operation = definition.operation
        address = operation.address
        if address is None:
            return self.reads(operation)
        if self.motion(address.base, definition.issued) is None:
            raise IrregularError("an address that moves by no fixed step")
        return []

    def _looks_back(
        self, register: Register, definition: Definition, within: tuple[Definition, ...]
    ) -> int:
        seen = self.seen(register, definition.issued)
        if seen is None:
            return 0
        if seen.definition is definition and definition in self.accumulators:
            if seen.turns != 1:
                raise IrregularError("interleaved sums")
            return 0
        if seen.definition in self.accumulators:
            raise IrregularError("a sum read by another operation")
        return seen.turns + self.lookback(seen.definition, (*within, definition))

    def _countdown(self) -> int:
        """Return by how much the branch's condition falls each turn."""
        time, operation = self.branch
        predicate = operation.predicate
        if predicate is None or predicate.negated or predicate.is_lane_predicate:
            raise IrregularError("a branch that counts nothing down")
        motion = self.motion(predicate.register, time)
        if motion is None or motion.step.products or motion.step.constant >= 0:
            raise IrregularError("a branch that counts nothing down")
        return -motion.step.constant


def steady_state(
    program: Program, machine: Machine, stretch: Stretch, arriving: Iterable[Flight],
    timing: bool = False,
) -> SteadyState | None:  # fmt: skip
    """Return the pattern of a stretch that leads back to itself; None if it has none.

    `arriving`: what may be on its way when it is entered; `timing`: of its scalars alone.
    """
    if stretch.landing is None or stretch.always or stretch.stops or stretch.skipped:
        return None
    if stretch.entry.pending or machine.am.bank_model:
        return None
    if not leads_back(program, stretch):
        return None
    try:
        return SteadyState(program, machine, stretch, arriving, timing)
    except IrregularError:
        return None


def address_of(operation: Operation) -> tuple[Address, bool]:
    """Return an operation's memory operand, and whether its move counts before the access."""
    address = operation.address
    assert address is not None
    return address, address.update is not Update.POST
