"""Removes random work whose results would land together with others, on any way through a program.

Two results must not land in one register, nor leave one unit, in the same cycle. Which results can
be in flight at a packet is followed through all branches, predicates taken for unknown. Called by
`generator` on the finished drafts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from attrs import frozen

from isa.instruction import ONE_WRITE_PORT, Effect
from isa.operands import Label, Register
from isa.packing.dependences import landings, result_latency
from isa.program import Operation
from simulator.fuzzing.writer import Draft, Writer

Place = Register | str
"""Where a result arrives: a register, or the write port of a slot."""


class StuckError(Exception):
    """Two operations that must be there meet: the program cannot be made legal."""


@frozen
class Node:
    """A packet, and the taken branch that lands after so many cycles (0: none)."""

    packet: int
    lands_after: int = 0
    target: int = -1


@frozen
class Flying:
    """A result of a draft that arrives after so many cycles."""

    after: int
    place: Place
    packet: int
    draft: Draft


def remove_meetings(writer: Writer) -> int:
    """Take out random operations until no results meet; return how many went."""
    return _Removal(writer).run()


class _Removal:
    def __init__(self, writer: Writer) -> None:
        self._writer, self._machine = writer, writer.machine
        self._removed: set[Draft] = set()
        machine = writer.machine
        units = ONE_WRITE_PORT if machine.issue.one_result_per_unit else ()
        self._ported = {slot for unit in units for slot in machine.slots_of(unit)}
        self._arrivals = [
            [(draft, self._arrivals_of(draft.operation)) for draft in packet.drafts]
            for packet in writer.packets
        ]
        self._flying: dict[Node, set[Flying]] = defaultdict(set)

    def run(self) -> int:
        waiting, seen = [Node(0)], {Node(0)}
        while waiting:
            node = waiting.pop()
            cycles = self._writer.packets[node.packet].cycles
            leaving = self._issue(node)
            for following in self._following(node, cycles):
                before = len(self._flying[following])
                self._flying[following] |= leaving
                if following not in seen or len(self._flying[following]) > before:
                    seen.add(following)
                    waiting.append(following)
        for packet in self._writer.packets:
            packet.drafts = [draft for draft in packet.drafts if draft not in self._removed]
        return len(self._removed)

    def _issue(self, node: Node) -> set[Flying]:
        """Add a packet's results to what is in flight; return what is left when it is over."""
        by_arrival: dict[tuple[int, Place], list[Flying]] = defaultdict(list)
        for flying in self._flying[node]:
            if flying.draft not in self._removed:
                by_arrival[flying.after, flying.place].append(flying)
        for draft, arrivals in self._arrivals[node.packet]:
            if draft in self._removed:
                continue
            new = [Flying(after, place, node.packet, draft) for place, after in arrivals]
            for flying in new:
                for other in by_arrival[flying.after, flying.place]:
                    if other.packet != node.packet:
                        self._remove_one(draft, other.draft)
            if draft not in self._removed:
                for flying in new:
                    by_arrival[flying.after, flying.place].append(flying)
        cycles = self._writer.packets[node.packet].cycles
        return {
            Flying(f.after - cycles, f.place, f.packet, f.draft)
            for (after, _), there in by_arrival.items()
            if after > cycles
            for f in there
            if f.draft not in self._removed
        }

    def _remove_one(self, one: Draft, other: Draft) -> None:
        if other in self._removed or one in self._removed:
            return
        if one.needed and other.needed:
            raise StuckError
        self._removed.add(other if one.needed else one)

    def _following(self, node: Node, cycles: int) -> Iterator[Node]:
        packet = self._writer.packets[node.packet]
        if any(_surely_halts(draft.operation) for draft in packet.drafts):
            return
        yield from self._onward(node, cycles)
        branch = next((d.operation for d in packet.drafts if _branches(d.operation)), None)
        if branch is None or node.lands_after:
            return
        for target in self._targets(node.packet, branch):
            taken = Node(node.packet, self._machine.latency["branch"], target)
            yield from self._onward(taken, cycles)

    def _onward(self, node: Node, cycles: int) -> Iterator[Node]:
        left = node.lands_after - cycles
        if node.lands_after and left == 0:
            yield Node(node.target)
        elif node.lands_after and left < 0:
            return
        elif node.packet + 1 < len(self._writer.packets):
            yield Node(node.packet + 1, max(left, 0), node.target if left > 0 else -1)

    def _arrivals_of(self, operation: Operation) -> list[tuple[Place, int]]:
        """Return where results of an operation arrive, and after how many cycles."""
        found: list[tuple[Place, int]] = list(landings(operation, self._machine))
        if operation.slot in self._ported and operation.writes:
            found.append((operation.slot, result_latency(operation, self._machine)))
        return found

    def _targets(self, packet: int, branch: Operation) -> list[int]:
        (target,) = branch.operands
        names = (target.name,) if isinstance(target, Label) else self._writer.computed[packet]
        return [self._writer.labels[name] for name in names]


def _branches(operation: Operation) -> bool:
    return operation.instruction.effect is Effect.BRANCH


def _surely_halts(operation: Operation) -> bool:
    return operation.instruction.effect is Effect.HALT and operation.predicate is None
