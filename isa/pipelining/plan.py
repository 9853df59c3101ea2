"""From the body of a loop to a plan of its pipeline: interval, places, registers, and why so.

The builder calls `plan`. Intervals are tried from the bounds upwards. Where a bound is no whole
number of cycles, two or four steps are taken as one. At each interval the registers are tried as
they are first, since a register may be handed on in the cycle of its last use; then every value
that lives within a turn may have copies.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from heapq import heappop, heappush
from math import ceil

from attrs import frozen

from isa.instructions.scalar_integer import SSUB
from isa.machine import Machine
from isa.operands import Register
from isa.packing.dependences import result_latency
from isa.packing.scheduler import schedule
from isa.packing.slot_choices import SlotChoices
from isa.pipelining.bounds import Bound, recurrence_bound, resource_bound
from isa.pipelining.expansion import Names, Shortage, Spare, assign, copies, lifetimes
from isa.pipelining.graph import Apart, edges
from isa.pipelining.modulo import Place, Placing
from isa.pipelining.pointers import FURTHEST, Pointers, find_pointers, move_latency
from isa.pipelining.webs import NO_WEBS, Webs, find_webs, written
from isa.program import Operation

GROUPS = (1, 2, 4)
"""So many steps may be taken as one, to come nearer to a bound that is no whole number."""

LARGEST_GROUP = 96
"""Operations of steps that are taken as one."""

LONGEST_SHARED = 16
"""Cycles a step from which on parts of a cycle are not worth the longer loop."""

ATTEMPTS = 24
"""Intervals that are tried before a loop is left as it is."""


@frozen
class Plan:
    """A pipeline: every `interval` cycles a turn of `steps` steps begins; `unroll` turns repeat."""

    operations: tuple[Operation, ...]
    """Of one turn, in the author's order."""
    places: tuple[Place, ...]
    steps: int
    interval: int
    unroll: int
    webs: Webs
    names: Names
    pointers: Pointers
    counter: Place
    """Where the loop counts down, in its cycles."""
    branch: int
    """The cycle of the loop in which it branches."""
    counts_first: bool
    """Whether the branch sees the count of its own turn, not the one before."""
    stages: int
    """Turns that overlap."""

    @property
    def cycles(self) -> int:
        """Cycles of the loop from its label to its branch's target."""
        return self.interval * self.unroll


@frozen
class Outcome:
    """The plan, None where the loop is better left alone; the bounds; why it is not faster."""

    plan: Plan | None
    resource: Bound
    recurrence: Bound
    reason: str


def plan(
    operations: Sequence[Operation],
    machine: Machine,
    own: Collection[Register],
    spare: Spare,
    *,
    powers_of_two: bool,
    apart: frozenset[str] = frozenset(),
) -> Outcome:
    """Return how to overlap the turns of a body.

    `own` are the body's own registers, which nobody needs outside it; `spare` are those that it may
    use, its own included. With `powers_of_two` the loop is unrolled so that device code can divide
    by it. `apart` names buffers of which no two steps touch the same bytes.
    """
    return _Search(operations, machine, own, spare, powers_of_two, apart).outcome()


class _Group:
    """Some steps taken as one turn, with its dependences."""

    def __init__(
        self,
        operations: Sequence[Operation],
        steps: int,
        machine: Machine,
        own: Collection[Register],
        apart: frozenset[str],
    ) -> None:
        self.operations, self.steps = tuple(operations) * steps, steps
        never = Apart(apart, len(operations))
        self.webs = find_webs(self.operations, own)
        self.pointers = find_pointers(self.operations)
        self.free = edges(self.operations, machine, self.webs, self.pointers, never)
        self.fixed = edges(self.operations, machine, NO_WEBS, self.pointers, never)
        self.free_placing = Placing(self.operations, machine, self.free)
        self.fixed_placing = Placing(self.operations, machine, self.fixed)
        self.late = _makers(self.operations, self.webs)
        self.fixed_bound = recurrence_bound(self.operations, self.fixed).cycles

    def usable(self, spare: Spare) -> Spare:
        """Return the spare registers without those of the body that stay where they are."""
        kept = {
            register
            for position, operation in enumerate(self.operations)
            for register in (*operation.reads, *written(operation))
            if (position, register) not in self.webs.at
        }
        return {
            file: [index for index in numbers if Register(file, index) not in kept]
            for file, numbers in spare.items()
        }


class _Search:
    def __init__(
        self,
        operations: Sequence[Operation],
        machine: Machine,
        own: Collection[Register],
        spare: Spare,
        powers_of_two: bool,
        apart: frozenset[str],
    ) -> None:
        self._operations, self._machine, self._own = operations, machine, own
        self._spare, self._powers_of_two, self._apart = spare, powers_of_two, apart
        self._groups: dict[int, _Group] = {1: _Group(operations, 1, machine, own, apart)}
        self._resource = resource_bound(operations, SlotChoices(operations, machine))
        self._recurrence = recurrence_bound(operations, self._groups[1].free)
        self._failures: list[str] = []

    def outcome(self) -> Outcome:
        """Try intervals, the shortest for a step first; at last with the registers as they are."""
        sequential = sum(packet.cycles for packet in schedule(self._operations, self._machine))
        longest = sequential + self._machine.latency["branch"]
        waiting: list[tuple[Fraction, int, int]] = []
        for steps, interval in self._starts():
            heappush(waiting, (Fraction(interval, steps), steps, interval))
        for _ in range(ATTEMPTS):
            ratio, steps, interval = heappop(waiting)
            if ratio >= longest:
                break
            found = self._attempt(steps, interval)
            if found is not None:
                return self._outcome(found)
            for taken, longer in self._next(steps, interval):
                heappush(waiting, (Fraction(longer, taken), taken, longer))
        for interval in range(ceil(self._groups[1].fixed_bound), longest):
            found = self._as_they_are(self._groups[1], interval)
            if found is not None:
                return self._outcome(found)
        return self._outcome(None)

    def _outcome(self, found: Plan | None) -> Outcome:
        reached = Fraction(found.interval, found.steps) if found else None
        best = max(self._resource.cycles, self._recurrence.cycles)
        tried = list(dict.fromkeys(self._failures))
        reason = "; ".join(tried[:3]) if tried else "a turn takes whole cycles"
        return Outcome(found, self._resource, self._recurrence, "" if reached == best else reason)

    def _starts(self) -> list[tuple[int, int]]:
        """Return the numbers of steps worth taking as one, each with its shortest interval."""
        bound = max(self._resource.cycles, self._recurrence.cycles)
        starts: list[tuple[int, int]] = []
        best = None
        for steps in GROUPS:
            interval = max(1, ceil(bound * steps))
            ratio = Fraction(interval, steps)
            small = steps * len(self._operations) <= LARGEST_GROUP and bound <= LONGEST_SHARED
            if best is None or (small and ratio < best):
                starts.append((steps, interval))
                best = ratio
        return starts

    def _next(self, steps: int, interval: int) -> list[tuple[int, int]]:
        """Return what to try after an interval has failed: larger groups end in between."""
        after = [(steps, interval + 1)]
        if steps == 1 and interval <= LONGEST_SHARED:
            room = LARGEST_GROUP // len(self._operations)
            after += [(group, group * interval + 1) for group in GROUPS if 1 < group <= room]
        return after

    def _attempt(self, steps: int, interval: int) -> Plan | None:
        group = self._group(steps)
        found = self._as_they_are(group, interval)
        if found is not None:
            return found
        failures = []
        for late in (group.late, ()):
            places = group.free_placing.place(interval, late)
            if places is None:
                failures.append("no schedule was found")
                continue
            lives = lifetimes(group.operations, self._machine, group.webs, places)
            unroll = self._unrolled(copies(lives, interval), interval)
            names = assign(group.webs, lives, interval, unroll, group.usable(self._spare))
            if not isinstance(names, Shortage):
                return self._counted(group, places, interval, unroll, group.webs, names)
            failures.append(f"{names.missing} {names.file.value} registers are missing")
        self._failed(steps, interval, failures[0])
        return None

    def _as_they_are(self, group: _Group, interval: int) -> Plan | None:
        """Return a plan in which every register stays where it is."""
        if group.fixed_bound > interval:
            return None
        places = group.fixed_placing.place(interval)
        if places is None:
            return None
        return self._counted(group, places, interval, self._unrolled(1, interval), NO_WEBS, {})

    def _group(self, steps: int) -> _Group:
        if steps not in self._groups:
            self._groups[steps] = _Group(
                self._operations, steps, self._machine, self._own, self._apart
            )
        return self._groups[steps]

    def _failed(self, steps: int, interval: int, what: str) -> None:
        turn = "" if steps == 1 else f" for {steps} steps"
        self._failures.append(f"at {interval} cycles{turn} {what}")

    def _unrolled(self, least: int, interval: int) -> int:
        """Return how many turns repeat: enough for copies of registers, and for the branch."""
        latency = self._machine.latency
        shortest = max(latency["branch"], latency[SSUB.latency_class])
        turns = max(least, -(-shortest // interval))
        return 1 << (turns - 1).bit_length() if self._powers_of_two else turns

    def _counted(
        self,
        group: _Group,
        places: Sequence[Place],
        interval: int,
        unroll: int,
        webs: Webs,
        names: Names,
    ) -> Plan | None:
        """Return the plan with a place for counting down, or None without one."""
        branch = interval * unroll - self._machine.latency["branch"]
        counter = self._counter(group, places, interval, interval * unroll, branch)
        if counter is None:
            self._failed(group.steps, interval, "no slot is left to count down")
            return None
        stages = _stages(group, places, interval, self._machine)
        if stages > FURTHEST:
            self._failed(group.steps, interval, f"{stages} steps would overlap")
            return None
        counts_first = counter[0] + self._machine.latency[SSUB.latency_class] <= branch
        return Plan(
            group.operations, tuple(places), group.steps, interval, unroll, webs, names,
            group.pointers, counter, branch, counts_first, stages,
        )  # fmt: skip

    def _counter(
        self, group: _Group, places: Sequence[Place], interval: int, cycles: int, branch: int
    ) -> Place | None:
        """Return a free place to count down in: before the branch, if possible just before it."""
        machine, latency = self._machine, self._machine.latency[SSUB.latency_class]
        issued = {(slot, cycle % interval) for cycle, slot in places}
        landed = {
            (slot, (cycle + result_latency(operation, machine)) % interval)
            for operation, (cycle, slot) in zip(group.operations, places, strict=True)
            if result_latency(operation, machine)
        }
        before = range(branch - latency, -1, -1)
        after = range(max(branch - latency + 1, 0), min(cycles, cycles + branch - latency + 1))
        slots = [slot for unit in SSUB.units for slot in machine.slots_of(unit)][::-1]
        for cycle in (*before, *after):
            for slot in slots:
                landing = (slot, (cycle + latency) % interval)
                if (slot, cycle % interval) not in issued and landing not in landed:
                    return cycle, slot
        return None


def _stages(group: _Group, places: Sequence[Place], interval: int, machine: Machine) -> int:
    """Return in how many intervals every operation has issued and every pointer has moved."""
    ends = [cycle for cycle, _ in places]
    late = move_latency(machine) - 1
    ends += [places[m.position][0] + late for made in group.pointers.moves.values() for m in made]
    return max(ends) // interval + 1


def _makers(operations: Sequence[Operation], webs: Webs) -> set[int]:
    """Return the operations that hold no more registers with their sources than with results.

    They are better late: what they make is then held for a shorter time, and what they need no
    longer than that.
    """
    found = set()
    for position, operation in enumerate(operations):
        made = [r for r in operation.writes if (position, r) in webs.at]
        used = {r for r in operation.reads if (position, r) in webs.at}
        if made and len(used) <= len(made) and not used & set(made):
            found.add(position)
    return found
