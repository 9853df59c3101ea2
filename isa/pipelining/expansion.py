"""Registers for turns that overlap: modulo expansion by unrolling, without rotating files.

A value that lives longer than the interval needs several registers, which the turns use one after
the other; so the loop is unrolled that often. Lifetimes are arcs on a circle, the cycles of one
turn of the unrolled loop; values whose arcs are apart share a register. A value lands in the very
cycle behind the last use of the one before: until then its register holds the old value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from isa.machine import Machine
from isa.operands import File, Register
from isa.packing.dependences import landings, reads
from isa.pipelining.modulo import Place
from isa.pipelining.webs import Web, Webs
from isa.program import Operation

Spare = Mapping[File, Sequence[int]]
"""Numbers of the registers of each file that the loop may use, the most wanted first."""


@frozen
class Lifetime:
    """A web from the cycle in which its value lands to the one of its last use, both included."""

    web: int
    first: int
    last: int

    @property
    def cycles(self) -> int:
        return self.last - self.first + 1


@frozen
class Shortage:
    """Registers do not suffice: so many of a file were found, and this many are missing."""

    file: File
    missing: int


Names = Mapping[tuple[int, int], tuple[Register, ...]]
"""The registers that hold a web in a turn, by (web, turn modulo the unrolled turns)."""


def lifetimes(
    operations: Sequence[Operation], machine: Machine, webs: Webs, places: Sequence[Place]
) -> list[Lifetime]:
    """Return the lifetime of every web in a schedule."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, (operation, (cycle, _)) in enumerate(zip(operations, places, strict=True)):
        for register, latency in landings(operation, machine):
            web = webs.at.get((position, register))
            if web is not None:
                first[web] = min(first.get(web, cycle + latency), cycle + latency)
                last[web] = max(last.get(web, 0), cycle + latency)
        for register in reads(operation):
            web = webs.at.get((position, register))
            if web is not None:
                last[web] = max(last.get(web, 0), cycle)
    return [Lifetime(web, first[web], last[web]) for web in sorted(first)]


def copies(found: Sequence[Lifetime], interval: int) -> int:
    """Return how many turns at the most hold the same web at one time, at least 1."""
    return max((-(-lifetime.cycles // interval) for lifetime in found), default=1)


def assign(
    webs: Webs,
    found: Sequence[Lifetime],
    interval: int,
    unroll: int,
    spare: Spare,
) -> Names | Shortage:
    """Return registers for every web in every one of `unroll` turns, or what is missing."""
    circle = interval * unroll
    held: dict[Register, int] = {}
    names: dict[tuple[int, int], tuple[Register, ...]] = {}
    missing: dict[File, int] = {}
    order = sorted(found, key=lambda lifetime: _rank(webs.webs[lifetime.web], lifetime))
    for lifetime in order:
        web = webs.webs[lifetime.web]
        candidates = _candidates(web, spare)
        for turn in range(unroll):
            arc = _arc(lifetime.first + turn * interval, lifetime.cycles, circle)
            for registers in candidates:
                if not any(held.get(register, 0) & arc for register in registers):
                    held.update({r: held.get(r, 0) | arc for r in registers})
                    names[lifetime.web, turn] = registers
                    break
            else:
                file = web.registers[0].file
                missing[file] = missing.get(file, 0) + len(web.registers)
    if missing:
        return Shortage(*next(iter(missing.items())))
    return names


def _rank(web: Web, lifetime: Lifetime) -> tuple[int, int, int]:
    """Put pairs first, then go by the cycle of landing."""
    return -len(web.registers), lifetime.first, lifetime.web


def _arc(first: int, cycles: int, circle: int) -> int:
    """Return the cycles of a lifetime on the circle as bits."""
    bits = ((1 << min(cycles, circle)) - 1) << (first % circle)
    return (bits | bits >> circle) & ((1 << circle) - 1)


def _candidates(web: Web, spare: Spare) -> list[tuple[Register, ...]]:
    """Return the registers, or pairs, that may hold a web; its own come first."""
    own = web.registers
    file, free = own[0].file, set(spare.get(own[0].file, ()))
    found = [own]
    for index in spare.get(file, ()):
        registers = tuple(Register(file, index + half) for half in range(len(own)))
        fits = all(register.index in free for register in registers)
        if len(own) == 2:
            fits = fits and index % 2 == 0
        if file in (File.ADDRESS, File.OFFSET):
            fits = fits and registers[0].is_vector_half == own[0].is_vector_half
        if fits and registers != own:
            found.append(registers)
    return found
