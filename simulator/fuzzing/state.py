"""What is certain at a point of a growing program: where pointers point, who uses which region.

Time counts cycles along the text of the program. Where ways through it meet, the state becomes
what is certain on all of them. Kept by `writer`, read by `drawing`.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, evolve, field, frozen

from isa.machine import Machine
from isa.operands import Register
from simulator.fuzzing.layout import Layout, Palette, Region

LONG_AGO = -1000


@frozen
class Pointed:
    """All byte addresses that a pointer may hold from cycle `ready` on."""

    low: int
    high: int
    ready: int

    def joined(self, low: int, high: int) -> Pointed:
        """Return the same with more addresses."""
        return evolve(self, low=min(self.low, low), high=max(self.high, high))


@define
class State:
    """Pointers, stores and transfers at cycle `now`."""

    now: int = 0
    pointers: dict[Register, Pointed] = field(factory=dict)
    """Pointers of which something is known; others must be set before they are followed."""
    landing: dict[Register, int] = field(factory=dict)
    """The cycle in which the last write of an address register lands."""
    frozen: frozenset[Register] = frozenset()
    """Pointers that must stay as they are, because a loop relies on them."""
    stored: dict[Region, int] = field(factory=dict)
    """When a region was last stored to."""
    reading: Counter[Region] = field(factory=Counter)
    writing: Counter[Region] = field(factory=Counter)
    """Transfers in flight that read or write a region."""

    def copy(self) -> State:
        """Return the state as it is now."""
        return evolve(
            self, pointers=dict(self.pointers), landing=dict(self.landing),
            stored=dict(self.stored), reading=Counter(self.reading), writing=Counter(self.writing),
        )  # fmt: skip

    def usable(self, pointer: Register) -> Pointed | None:
        """Return where a pointer points, or None where it must not be followed now."""
        found = self.pointers.get(pointer)
        return found if found is not None and found.ready <= self.now else None

    def age(self, region: Region) -> int:
        """Return the cycles since the last store to a region."""
        return self.now - self.stored.get(region, LONG_AGO)

    def meet(self, other: State) -> None:
        """Keep what is certain on this way and on another, which ends here as well."""
        shift = self.now - other.now
        for pointer in list(self.pointers):
            theirs = other.pointers.get(pointer)
            if theirs is None:
                del self.pointers[pointer]
                continue
            mine = self.pointers[pointer].joined(theirs.low, theirs.high)
            ready = max(mine.ready, theirs.ready + shift)
            self.pointers[pointer] = evolve(mine, ready=ready)
        for pointer, lands in other.landing.items():
            self.landing[pointer] = max(self.landing.get(pointer, 0), lands + shift)
        for region, when in other.stored.items():
            self.stored[region] = max(self.stored.get(region, LONG_AGO), when + shift)

    def enter_loop(
        self, kept: frozenset[Register], machine: Machine, palette: Palette, layout: Layout
    ) -> None:
        """Forget what a turn of a loop may change; `kept` pointers are left alone in it."""
        self.frozen |= kept
        for pointer in palette.pointers:
            if pointer not in self.frozen:
                self.pointers.pop(pointer, None)
                self.landing[pointer] = self.now + max(machine.latency.values())
        for region in (*layout.array, *layout.scalar):
            self.stored[region] = self.now
