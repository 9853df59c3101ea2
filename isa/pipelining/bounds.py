"""How fast a loop could turn at best: by its issue slots, and by what a turn waits for.

Both bounds are exact fractions of cycles a turn. `isa.pipelining.plan` starts from them and
reports them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from attrs import frozen

from isa.packing.slot_choices import SlotChoices
from isa.pipelining.graph import Edge
from isa.program import Operation


@frozen
class Bound:
    """Cycles a turn takes at least, and what it is that takes them."""

    cycles: Fraction
    cause: str


def resource_bound(operations: Sequence[Operation], choices: SlotChoices) -> Bound:
    """Return the bound by issue slots: operations that share slots, over the slots they share."""
    slots = [frozenset(choices.of(operation)) for operation in operations]
    distinct = list(dict.fromkeys(slots))
    unions = dict.fromkeys(distinct)
    for slot_set in distinct:
        unions.update(dict.fromkeys([slot_set | other for other in unions]))
    best = Bound(Fraction(0), "nothing")
    for union in unions:
        inside = sum(1 for slot_set in slots if slot_set <= union)
        cycles = Fraction(inside, len(union))
        if cycles > best.cycles:
            best = Bound(cycles, f"{inside} operations on {', '.join(sorted(union))}")
    return best


def recurrence_bound(operations: Sequence[Operation], edges: Sequence[Edge]) -> Bound:
    """Return the bound by chains that lead from an operation to itself in a later turn."""
    best, chain = Fraction(0), [edge for edge in edges if edge[0] == edge[1] and edge[2] > 0][:1]
    while True:
        cycle = _longer_cycle(len(operations), edges, best)
        if not cycle:
            break
        chain = cycle
        best = Fraction(sum(edge[2] for edge in cycle), sum(edge[3] for edge in cycle))
    if best == 0:
        return Bound(best, "no chain")
    return Bound(best, _chain_text(operations, chain))


def _longer_cycle(count: int, edges: Sequence[Edge], cycles: Fraction) -> list[Edge]:
    """Return a chain that needs more than so many cycles a turn, or an empty list."""
    scale, rate = cycles.denominator, cycles.numerator
    weighted = [(edge, edge[2] * scale - edge[3] * rate) for edge in edges]
    weighted.sort(key=lambda entry: entry[0][1])
    way = [0] * count
    leads: list[Edge | None] = [None] * count
    while True:
        changed = False
        for edge, weight in weighted:
            reached = way[edge[0]] + weight
            if reached > way[edge[1]]:
                way[edge[1]], leads[edge[1]] = reached, edge
                changed = True
        if not changed:
            return []
        cycle = _cycle_of(leads)
        if cycle:
            return cycle


def _cycle_of(leads: Sequence[Edge | None]) -> list[Edge]:
    """Return a cycle of the edges by which operations were last reached, if there is one."""
    seen: dict[int, int] = {}
    for start in range(len(leads)):
        walked: list[Edge] = []
        at = start
        while at not in seen:
            seen[at] = start
            edge = leads[at]
            if edge is None:
                break
            walked.append(edge)
            at = edge[0]
        else:
            if seen[at] == start:
                first = next(n for n, edge in enumerate(walked) if edge[1] == at)
                return walked[first:][::-1]
    return []


def _chain_text(operations: Sequence[Operation], chain: Sequence[Edge]) -> str:
    """Return the chain in words, such as `VLDW -6-> VFADDS32, in the next turn again`."""
    steps = "".join(
        f"{operations[before].instruction.name} -{cycles}-> " for before, _, cycles, _ in chain
    )
    turns = sum(edge[3] for edge in chain)
    last = operations[chain[-1][1]]
    when = "the next turn" if turns == 1 else f"{turns} turns later"
    return f"{steps}{last.instruction.name} of {when}"
