"""Iterative modulo scheduling: every operation of a loop's body gets a cycle and a slot.

After Rau (1994): a new turn begins every `interval` cycles, so a slot that is taken in a cycle is
taken in every cycle that differs by a multiple of the interval. Operations are placed one by one,
the one with the longest way to the end foremost. Where nothing is free, or where an operation that
was placed before is now too early, that one is taken out and placed again; only so many placements
are tried. `isa.pipelining.plan` calls `place` for one interval after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from isa.instruction import ONE_WRITE_PORT
from isa.machine import Machine
from isa.packing.dependences import result_latency
from isa.packing.slot_choices import SlotChoices
from isa.pipelining.graph import Edge
from isa.program import Operation

PLACEMENTS = 8
"""So often an operation is placed on average before an interval is given up."""

Place = tuple[int, str]
"""Cycle, counted from the start of the turn, and issue slot."""

MARGIN = 1 << 30


class Placing:
    """The operations of a body and what holds for them at any interval."""

    def __init__(
        self, operations: Sequence[Operation], machine: Machine, edges: Sequence[Edge]
    ) -> None:
        choices = SlotChoices(operations, machine)
        self.count = len(operations)
        self.slots = [tuple(choices.of(operation)) for operation in operations]
        self.latency = [result_latency(operation, machine) for operation in operations]
        units = ONE_WRITE_PORT if machine.issue.one_result_per_unit else ()
        self.ported = {slot for unit in units for slot in machine.slots_of(unit)}
        self.edges = edges
        self.before: list[list[tuple[int, int, int]]] = [[] for _ in operations]
        self.after: list[list[tuple[int, int, int]]] = [[] for _ in operations]
        for first, second, cycles, turns in edges:
            if first != second:
                self.after[first].append((second, cycles, turns))
                self.before[second].append((first, cycles, turns))

    def place(self, interval: int, late: Collection[int] = ()) -> list[Place] | None:
        """Return a place for every operation, the first cycle being 0, or None.

        The interval must not be below what the chains of the body need. Operations in `late` are
        placed as late as the longest way through the body allows, all others as early.
        """
        places = _Attempt(self, interval, late).run()
        if places is not None:
            for first, second, cycles, turns in self.edges:
                apart = places[second][0] + interval * turns - places[first][0]
                assert apart >= cycles, (first, second, cycles, turns)
        return places


class _Attempt:
    """One interval: which operation stands where, in which slots of the repeating pattern."""

    def __init__(self, placing: Placing, interval: int, late: Collection[int]) -> None:
        self._p, self._interval = placing, interval
        self._cycle: list[int | None] = [None] * placing.count
        self._slot = [""] * placing.count
        self._latest_try: list[int | None] = [None] * placing.count
        self._issued: dict[tuple[str, int], int] = {}
        self._landed: dict[tuple[str, int], int] = {}
        self._heights = self._ways_to_the_end()
        self._wanted = self._latest(late) if late else {}

    def _ways_to_the_end(self) -> list[int]:
        heights = list(self._p.latency)
        edges = sorted(self._p.edges, key=lambda edge: -edge[0])
        self._lengthen(heights, [(b, a, cycles, turns) for a, b, cycles, turns in edges])
        return heights

    def _lengthen(self, ways: list[int], edges: Sequence[Edge]) -> None:
        """Make every way at least as long as the one that an edge leads on from."""
        changed = True
        while changed:
            changed = False
            for before, after, cycles, turns in edges:
                way = ways[before] + cycles - self._interval * turns
                if way > ways[after]:
                    ways[after], changed = way, True

    def _latest(self, late: Collection[int]) -> dict[int, int]:
        """Return the last cycle of operations that does not make the longest way longer."""
        starts = [0] * self._p.count
        self._lengthen(starts, sorted(self._p.edges))
        longest = max(map(sum, zip(starts, self._heights, strict=True)))
        return {number: longest - self._heights[number] for number in late}

    def run(self) -> list[Place] | None:
        waiting = [(-height, number) for number, height in enumerate(self._heights)]
        heapify(waiting)
        budget = PLACEMENTS * self._p.count
        while waiting:
            _, number = heappop(waiting)
            if self._cycle[number] is not None:
                continue
            budget -= 1
            if budget < 0:
                return None
            for removed in self._put(number):
                heappush(waiting, (-self._heights[removed], removed))
        return self._from_zero()

    def _from_zero(self) -> list[Place]:
        cycles = [cycle for cycle in self._cycle if cycle is not None]
        first = min(cycles, default=0)
        return [(cycle - first, slot) for cycle, slot in zip(cycles, self._slot, strict=True)]

    def _put(self, number: int) -> list[int]:
        """Place an operation; return those that had to make room for it."""
        early, late = self._window(number)
        for cycle in self._cycles(number, early, late):
            free = self._first_free(number, cycle)
            if free is not None:
                self._take(number, free, cycle)
                return []
        cycle = early if early > -MARGIN else late if late < MARGIN else 0
        tried = self._latest_try[number]
        if tried is not None and cycle <= tried:
            cycle = tried + 1
        if cycle > late:  # some that follow must make room anyway: spare those in the slots
            for later in range(cycle, cycle + self._interval):
                free = self._first_free(number, later)
                if free is not None:
                    self._take(number, free, later)
                    return self._remove_too_early(number, later)
        slot = min(self._p.slots[number], key=lambda s: self._cost(number, s, cycle))
        removed = [o for other in self._occupants(number, slot, cycle) for o in self._remove(other)]
        self._take(number, slot, cycle)
        return removed + self._remove_too_early(number, cycle)

    def _window(self, number: int) -> tuple[int, int]:
        """Return the first and the last cycle that suit everything placed so far."""
        interval, placed = self._interval, self._cycle
        early, late = -MARGIN, MARGIN
        for other, cycles, turns in self._p.before[number]:
            at = placed[other]
            if at is not None and at + cycles - interval * turns > early:
                early = at + cycles - interval * turns
        for other, cycles, turns in self._p.after[number]:
            at = placed[other]
            if at is not None and at - cycles + interval * turns < late:
                late = at - cycles + interval * turns
        return early, late

    def _cycles(self, number: int, early: int, late: int) -> Iterable[int]:
        """Return the cycles to try: near what feeds the operation, else near what it feeds."""
        interval = self._interval
        wanted = self._wanted.get(number)
        if wanted is not None:
            last = min(late, max(early, wanted))
            return range(last, max(early, last - interval + 1) - 1, -1)
        if early > -MARGIN:
            return range(early, min(late, early + interval - 1) + 1)
        return range(late, late - interval, -1) if late < MARGIN else range(interval)

    def _first_free(self, number: int, cycle: int) -> str | None:
        free = (s for s in self._p.slots[number] if not self._occupants(number, s, cycle))
        return next(free, None)

    def _occupants(self, number: int, slot: str, cycle: int) -> list[int]:
        """Return the operations that issue or land where this one would."""
        interval, found = self._interval, []
        issued = self._issued.get((slot, cycle % interval))
        if issued is not None:
            found.append(issued)
        latency = self._p.latency[number]
        if latency and slot in self._p.ported:
            landed = self._landed.get((slot, (cycle + latency) % interval))
            if landed is not None and landed != issued:
                found.append(landed)
        return found

    def _cost(self, number: int, slot: str, cycle: int) -> tuple[int, int]:
        """Rate a slot by what must leave it: few operations, and those that are placed easily."""
        others = self._occupants(number, slot, cycle)
        return len(others), sum(self._heights[other] for other in others)

    def _take(self, number: int, slot: str, cycle: int) -> None:
        self._cycle[number], self._slot[number] = cycle, slot
        self._latest_try[number] = cycle
        self._issued[slot, cycle % self._interval] = number
        latency = self._p.latency[number]
        if latency and slot in self._p.ported:
            self._landed[slot, (cycle + latency) % self._interval] = number

    def _remove(self, number: int) -> list[int]:
        cycle, slot = self._cycle[number], self._slot[number]
        if cycle is None:
            return []
        del self._issued[slot, cycle % self._interval]
        latency = self._p.latency[number]
        if latency and slot in self._p.ported:
            del self._landed[slot, (cycle + latency) % self._interval]
        self._cycle[number] = None
        return [number]

    def _remove_too_early(self, number: int, cycle: int) -> list[int]:
        """Take out what would now come too early behind an operation, or too late before it."""
        return [
            removed for other in self._violating(number, cycle) for removed in self._remove(other)
        ]

    def _violating(self, number: int, cycle: int) -> Iterator[int]:
        for other, cycles, turns in self._p.after[number]:
            at = self._cycle[other]
            if at is not None and at < cycle + cycles - self._interval * turns:
                yield other
        for other, cycles, turns in self._p.before[number]:
            at = self._cycle[other]
            if at is not None and cycle < at + cycles - self._interval * turns:
                yield other
