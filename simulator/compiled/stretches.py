"""A program cut into stretches: packets that issue one after the other without a choice.

A stretch begins at an `Entry`: a packet, and the branches that were issued before it and land
later. It ends where a branch lands, where another stretch begins, or behind a packet after which
the core may not go on at once. Called by the translator, which makes a function of each.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field, frozen

from isa.instruction import Effect
from isa.machine import Machine
from isa.operands import Label
from isa.program import Operation, Program

LONGEST = 160
"""Packets of a stretch; longer straight code is cut, for a compiler's sake."""

STOPPING = frozenset({Effect.DMA_START, Effect.DMA_WAIT, Effect.BARRIER, Effect.HALT})


@frozen
class Pending:
    """A branch on its way: it lands after so many cycles, if it was taken."""

    remaining: int
    packet: int
    """The packet that issued it."""


@frozen
class Entry:
    """Where a stretch begins: its first packet, and branches still to land."""

    packet: int
    pending: tuple[Pending, ...] = ()


@frozen
class Issue:
    """A packet in its stretch, and the cycle of its issue counted from the beginning."""

    time: int
    packet: int


@frozen
class Stretch:
    """Packets of a stretch, its cycles, and where it leads."""

    entry: Entry
    issues: tuple[Issue, ...]
    cycles: int
    onward: Entry
    """Where it goes on if no branch is taken."""
    landing: Pending | None = None
    """The branch that lands at its end, counted from its beginning."""
    always: bool = False
    """Tell whether that branch has no predicate."""
    stops: bool = False
    """Tell whether the core may have to wait behind the last packet."""
    skipped: tuple[Pending, ...] = field(default=())
    """Branches that would land within a SNOP: an error if taken."""


def branches(program: Program, packet: int) -> list[Operation]:
    """Return the branches of a packet."""
    operations = program.packets[packet].operations
    return [o for o in operations if o.instruction.effect is Effect.BRANCH]


def walk(program: Program, machine: Machine, entry: Entry, leaders: frozenset[int]) -> Stretch:
    """Return the stretch that begins at an entry; `leaders` are packets where one must begin."""
    time, packet, issues = 0, entry.packet, list[Issue]()
    pending, skipped = list(entry.pending), list[Pending]()
    while True:
        landed = [branch for branch in pending if branch.remaining == time]
        if landed:
            left = _shift([b for b in pending if b not in landed], time)
            always = branches(program, landed[0].packet)[0].predicate is None
            return Stretch(
                entry, tuple(issues), time, Entry(packet, left), landed[0], always, False,
                tuple(skipped),
            )  # fmt: skip
        full = len(issues) >= LONGEST or (issues and packet in leaders)
        if full or packet >= len(program.packets):
            onward = Entry(packet, _shift(pending, time))
            return Stretch(entry, tuple(issues), time, onward, skipped=tuple(skipped))
        issues.append(Issue(time, packet))
        pending += [
            Pending(time + machine.latency["branch"], packet) for _ in branches(program, packet)
        ]
        cycles = program.packets[packet].cycles
        skipped += [b for b in pending if time < b.remaining < time + cycles]
        pending = [b for b in pending if b not in skipped]
        time, packet = time + cycles, packet + 1
        if any(o.instruction.effect in STOPPING for o in program.packets[packet - 1].operations):
            onward = Entry(packet, _shift(pending, time))
            return Stretch(entry, tuple(issues), time, onward, stops=True, skipped=tuple(skipped))


def _shift(pending: list[Pending], time: int) -> tuple[Pending, ...]:
    return tuple(Pending(b.remaining - time, b.packet) for b in pending)


def leaders(program: Program) -> frozenset[int]:
    """Return the packets that a branch can reach, and those whose branch a register leads."""
    led = (n for n in range(len(program.packets)) if by_register(program, n))
    return frozenset({0, *program.labels.values(), *led})


def by_register(program: Program, packet: int) -> bool:
    """Tell whether a packet has a branch whose target a register says."""
    return any(not isinstance(branch.sources[0], Label) for branch in branches(program, packet))


def branch_targets(program: Program, packet: int) -> list[int]:
    """Return where the branch of a packet leads: to its label, or to any that a register holds."""
    (branch,) = branches(program, packet)
    label = branch.sources[0]
    return [program.target(label)] if isinstance(label, Label) else held_labels(program)


def held_labels(program: Program) -> list[int]:
    """Return the packets of labels that some operation takes as a number."""
    operations = (o for packet in program.packets for o in packet.operations)
    taken = (o for o in operations if o.instruction.effect is not Effect.BRANCH)
    held = {program.target(x) for o in taken for x in o.operands if isinstance(x, Label)}
    return sorted(packet for packet in held if packet < len(program.packets))


def leads_back(program: Program, stretch: Stretch) -> bool:
    """Tell whether a taken branch at its end leads to the stretch itself."""
    if stretch.landing is None or any(by_register(program, i.packet) for i in stretch.issues):
        return False
    targets = branch_targets(program, stretch.landing.packet)
    return [Entry(target, stretch.onward.pending) for target in targets] == [stretch.entry]


def successors(program: Program, stretch: Stretch) -> Iterator[Entry]:
    """Yield every entry that may follow a stretch."""
    if not stretch.always and stretch.onward.packet < len(program.packets):
        yield stretch.onward
    if stretch.landing is None:
        return
    for target in branch_targets(program, stretch.landing.packet):
        if target < len(program.packets):
            yield Entry(target, stretch.onward.pending)


def stretches(program: Program, machine: Machine) -> dict[Entry, Stretch]:
    """Return all stretches that a program can come to, by their entries, the first one first."""
    found: dict[Entry, Stretch] = {}
    waiting, starts = [Entry(0)], leaders(program)
    while waiting:
        entry = waiting.pop()
        if entry not in found:
            found[entry] = walk(program, machine, entry, starts)
            waiting += successors(program, found[entry])
    return found
