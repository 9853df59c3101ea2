"""Packets of a pipeline: the stretch that fills it, the loop, the stretch that drains it.

All three are windows on the same picture: turn n begins `interval` cycles behind turn n - 1, and
its operations issue at their cycles from there. The builder puts the windows together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from isa.instruction import Unit
from isa.instructions.control import SNOP
from isa.machine import Machine
from isa.operands import Address, Operand, Predicate, Register
from isa.packing.dependences import in_flight
from isa.pipelining.plan import Plan
from isa.pipelining.pointers import move_latency, shifted
from isa.program import Operation, Origin, Packet

Extra = Mapping[int, Sequence[Operation]]
"""Operations that are not the author's, by cycle: counting down and the branch."""


@frozen
class Turns:
    """Turns 0 to `whole` - 1, and the first `steps` steps of one more.

    `first` and `last` tell whether none came before and none come after them.
    """

    whole: int
    steps: int = 0
    first: bool = False
    last: bool = False


class Stretches:
    """Windows on the pipeline of one plan; `home` is the author's line of the loop."""

    def __init__(self, plan: Plan, machine: Machine, home: Origin) -> None:
        self._plan, self._machine, self._home = plan, machine, home
        self._rank = {slot: rank for rank, slot in enumerate(machine.issue.slots)}
        self._size = len(plan.operations) // plan.steps

    def loop(self, path: str, extra: Extra) -> list[Packet]:
        """Return the packets of the loop, all turns under way."""
        plan = self._plan
        begin = (plan.stages - 1) * plan.interval
        turns = Turns(plan.stages - 1 + plan.unroll)
        return self.packets(path, begin, begin + plan.cycles, turns, extra)

    def drained(self, turns: Turns) -> int:
        """Return the cycle, from the start of turn 0, in which nothing is under way any more.

        Without a whole turn among them, the one before turn 0 may still be under way.
        """
        return max(cycle + flight for cycle, flight in self._flights(turns))

    def packets(
        self, path: str, begin: int, end: int, turns: Turns, extra: Extra | None = None
    ) -> list[Packet]:
        """Return the packets of cycles `begin` to `end` - 1, as part of the loop `path`."""
        at: dict[int, list[tuple[int, Operation]]] = {}
        for turn, position, cycle in self._issues(turns):
            if begin <= cycle < end:
                operation = self._named(turn, position, cycle, turns)
                at.setdefault(cycle - begin, []).append((position, operation))
        for cycle, operations in (extra or {}).items():
            at.setdefault(cycle, []).extend((len(self._plan.operations), o) for o in operations)
        return list(self._folded(at, end - begin, path))

    def _issues(self, turns: Turns) -> Iterator[tuple[int, int, int]]:
        """Yield turn, position and cycle of every operation."""
        for turn in range(turns.whole):
            yield from self._turn(turn, len(self._plan.operations))
        yield from self._turn(turns.whole, turns.steps * self._size)

    def _turn(self, turn: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield turn, position and cycle of the first operations of a turn."""
        begin = turn * self._plan.interval
        for position in range(count):
            yield turn, position, begin + self._plan.places[position][0]

    def _flights(self, turns: Turns) -> Iterator[tuple[int, int]]:
        last = self._turn(turns.whole - 1, len(self._plan.operations))
        part = self._turn(turns.whole, turns.steps * self._size)
        for _, position, cycle in (*last, *part):
            yield cycle, in_flight(self._plan.operations[position], self._machine)

    def _named(self, turn: int, position: int, cycle: int, turns: Turns) -> Operation:
        """Return an operation with the registers, the offset and the slot it has in a turn."""
        plan = self._plan
        operation = evolve(plan.operations[position], slot=plan.places[position][1])
        apart = self._apart(turn, position, cycle, turns)
        if apart:
            operation = shifted(operation, apart)
        if not plan.names:
            return operation

        def name(register: Register) -> Register:
            web = plan.webs.at.get((position, register))
            if web is None:
                return register
            half = plan.webs.webs[web].registers.index(register)
            return plan.names[web, turn % plan.unroll][half]

        return renamed(operation, name)

    def _apart(self, turn: int, position: int, cycle: int, turns: Turns) -> int:
        """Return the bytes by which a pointer is behind where the author's order has it."""
        plan, pointers = self._plan, self._plan.pointers
        address = plan.operations[position].address
        if position not in pointers.free or address is None:
            return 0
        actual = 0
        for move in pointers.moves[address.base]:
            issue = plan.places[move.position][0] + move_latency(self._machine)
            made = (cycle - issue) // plan.interval + 1  # by turns up to this one
            if turns.first:
                made = max(made, 0)
            if turns.last:
                made = min(made, turns.whole + (move.position < turns.steps * self._size))
            actual += made * move.bytes
        step = pointers.steps[address.base]
        assert step is not None
        return turn * step + pointers.free[position] - actual

    def _folded(
        self, at: Mapping[int, list[tuple[int, Operation]]], length: int, path: str
    ) -> Iterator[Packet]:
        """Yield the packets in order, with one SNOP for each run of empty cycles."""
        done, origin = 0, evolve(self._home, loop=path)
        for cycle in [*sorted(at), length]:
            if cycle > done:
                slot = self._machine.slots_of(Unit.SBR)[0]
                idle = Operation(SNOP, (cycle - done,), slot=slot, origin=origin)
                yield Packet((idle,), origin)
            if cycle == length:
                return
            entries = sorted(at[cycle], key=lambda entry: entry[0])
            moved = [evolve(o, origin=evolve(o.origin, loop=path)) for _, o in entries]
            origin = moved[0].origin
            yield Packet(tuple(sorted(moved, key=lambda o: self._rank[o.slot])), origin)
            done = cycle + 1


def renamed(operation: Operation, name: Callable[[Register], Register]) -> Operation:
    """Return an operation with other registers."""

    def operand(value: Operand) -> Operand:
        if isinstance(value, Register):
            return name(value)
        if isinstance(value, Address):
            offset = name(value.offset) if isinstance(value.offset, Register) else value.offset
            return evolve(value, base=name(value.base), offset=offset)
        return value

    predicate = operation.predicate
    if predicate is not None:
        predicate = Predicate(name(predicate.register), predicate.negated)
    return evolve(operation, operands=tuple(map(operand, operation.operands)), predicate=predicate)
