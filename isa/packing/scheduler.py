"""List scheduling: one basic block of operations in plain order becomes packets.

The builder calls `schedule` for each straight stretch between labels and branches. Operations are
placed one by one, the one on the longest way to the end of the block first, each in the earliest
cycle and slot that its dependences, the issue slots and the write ports allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from attrs import evolve

from isa.errors import KernelError
from isa.instruction import ONE_WRITE_PORT, Effect, Unit
from isa.instructions.control import SNOP
from isa.machine import Machine
from isa.packing.dependences import Node, dependences, in_flight, result_latency
from isa.packing.slot_choices import SlotChoices
from isa.program import Operation, Packet

ENDINGS = frozenset({Effect.BRANCH, Effect.HALT})


def schedule(operations: Sequence[Operation], machine: Machine) -> list[Packet]:
    """Return the packets of one basic block: slots filled, empty cycles as SNOPs.

    Every result and store has landed when the block ends. A branch must come last; its delay slots
    are filled with the block's own work and the block ends with them. A HALT must come last and
    gets the last packet to itself.

    Raise KernelError, naming the author's line, for an operation after a branch or HALT, a SNOP,
    a unit without a slot on this machine, or a slot that does not belong to the instruction.
    """
    if not operations:
        return []
    choices = SlotChoices(operations, machine)
    _refuse_misplaced(operations)
    nodes = dependences(operations, machine)
    return _Block(operations, machine, nodes, choices).packets()


def _refuse_misplaced(operations: Sequence[Operation]) -> None:
    for operation, following in pairwise(operations):
        if operation.instruction.effect in ENDINGS:
            raise KernelError(
                f"{following.origin}: {following}: comes after '{operation}', which ends its "
                "block; put a label between them"
            )
    for operation in operations:
        if operation.instruction.effect is Effect.IDLE:
            raise KernelError(
                f"{operation.origin}: {operation}: the scheduler leaves empty cycles by itself; "
                "a SNOP belongs in a pinned packet"
            )


class _Reservations:
    """Cycles in which a slot cannot take an operation of some latency: issued in or landed on.

    `_taken[slot, latency]` leads from a cycle that is not free towards the next that may be, with
    the steps shortened as they are walked, so that long blocks stay linear.
    """

    def __init__(self, machine: Machine, latencies: set[int]) -> None:
        units = {unit for unit in ONE_WRITE_PORT if machine.issue.one_result_per_unit}
        self._ported = {slot for unit in units for slot in machine.slots_of(unit)}
        self._taken: Mapping[tuple[str, int], dict[int, int]] = {
            (slot, latency): {} for slot in machine.issue.slots for latency in latencies
        }
        self._latencies = sorted(latencies)

    def first(self, slot: str, latency: int, cycle: int) -> int:
        """Return the first cycle from `cycle` on in which the slot can take the operation."""
        taken = self._taken[slot, latency]
        walked = []
        while cycle in taken:
            walked.append(cycle)
            cycle = taken[cycle]
        taken.update(dict.fromkeys(walked, cycle))
        return cycle

    def take(self, slot: str, latency: int, cycle: int) -> None:
        for other in self._latencies:
            taken = self._taken[slot, other]
            taken.setdefault(cycle, cycle + 1)
            if latency and other and slot in self._ported:
                same_landing = cycle + latency - other
                taken.setdefault(same_landing, same_landing + 1)


class _Block:
    """One block being placed: a cycle and a slot for every operation."""

    def __init__(
        self,
        operations: Sequence[Operation],
        machine: Machine,
        nodes: Sequence[Node],
        choices: SlotChoices,
    ) -> None:
        self._operations, self._machine = operations, machine
        self._nodes, self._choices = nodes, choices
        self._latencies = [result_latency(operation, machine) for operation in operations]
        self._reservations = _Reservations(machine, set(self._latencies))
        self._cycle = [0] * len(nodes)
        self._placed: dict[int, list[tuple[int, Operation]]] = {}

    def packets(self) -> list[Packet]:
        """Place everything and return the packets of the block."""
        ends = self._operations[-1].instruction.effect in ENDINGS
        last = len(self._nodes) - 1
        for node in self._by_priority():
            if not (ends and node == last):
                self._place(node, self._earliest(node))
        length = self._drained()
        if ends:
            length = self._place_ending(last, length)
        return list(self._folded(length))

    def _by_priority(self) -> Iterator[int]:
        """Yield the nodes so that what they follow comes first, longest way to the end foremost."""
        followers: list[list[int]] = [[] for _ in self._nodes]
        waiting = [len(node.after) for node in self._nodes]
        for number, node in enumerate(self._nodes):
            for before, _ in node.after:
                followers[before].append(number)
        ways = self._ways_to_the_end()
        ready = [(-ways[n], n) for n, missing in enumerate(waiting) if not missing]
        heapify(ready)
        while ready:
            _, number = heappop(ready)
            yield number
            for follower in followers[number]:
                waiting[follower] -= 1
                if not waiting[follower]:
                    heappush(ready, (-ways[follower], follower))

    def _ways_to_the_end(self) -> list[int]:
        """Return for each node the least cycles from its issue to the end of the block."""
        ways = [self._own_way(node) for node in self._nodes]
        for number in range(len(self._nodes) - 1, -1, -1):
            for before, cycles in self._nodes[number].after:
                ways[before] = max(ways[before], ways[number] + cycles)
        return ways

    def _own_way(self, node: Node) -> int:
        if node.position is None:
            return 0
        operation = self._operations[node.position]
        if operation.instruction.effect is Effect.BRANCH:
            return self._machine.latency["branch"]
        return in_flight(operation, self._machine)

    def _earliest(self, number: int) -> int:
        after = self._nodes[number].after
        return max((self._cycle[before] + cycles for before, cycles in after), default=0)

    def _place(self, number: int, earliest: int) -> None:
        """Put a node into the first cycle from `earliest` on that has a slot for it."""
        self._cycle[number] = cycle = max(earliest, 0)
        position = self._nodes[number].position
        if position is None:
            return
        operation, latency = self._operations[position], self._latencies[position]
        slots = self._choices.of(operation)
        firsts = [self._reservations.first(slot, latency, cycle) for slot in slots]
        cycle = min(firsts)
        slot = slots[firsts.index(cycle)]
        self._reservations.take(slot, latency, cycle)
        self._cycle[number] = cycle
        self._placed.setdefault(cycle, []).append((position, evolve(operation, slot=slot)))

    def _place_ending(self, number: int, drained: int) -> int:
        """Place the branch or HALT; return the length of the block."""
        ending = self._operations[-1].instruction.effect
        branch = self._machine.latency["branch"] if ending is Effect.BRANCH else 0
        self._place(number, max(self._earliest(number), drained - branch))
        return self._cycle[number] + (branch or 1)

    def _drained(self) -> int:
        """Return the first cycle in which everything placed so far has landed."""
        machine = self._machine
        placed = ((cycle, entry) for cycle, entries in self._placed.items() for entry in entries)
        return max((c + in_flight(operation, machine) for c, (_, operation) in placed), default=0)

    def _folded(self, length: int) -> Iterator[Packet]:
        """Yield the packets in order, with one SNOP for each run of empty cycles."""
        order = {slot: rank for rank, slot in enumerate(self._machine.issue.slots)}
        cycles = sorted(self._placed)
        for cycle, following in zip(cycles, [*cycles[1:], length], strict=True):
            entries = self._placed[cycle]
            origin = min(entries, key=lambda entry: entry[0])[1].origin
            operations = (operation for _, operation in entries)
            yield Packet(tuple(sorted(operations, key=lambda o: order[o.slot])), origin)
            if following > cycle + 1:
                slot = self._machine.slots_of(Unit.SBR)[0]
                idle = (following - cycle - 1,)
                yield Packet((Operation(SNOP, idle, slot=slot, origin=origin),), origin)
