"""The accumulators of a loop, cut into groups that fit the host's registers.

A tile of the chip has more sums than the host has registers, so all at once would be stored and
loaded again in every turn. Sums do not depend on each other: each group runs through all turns by
itself, computing again what it needs of the operands. Sums that share operands come together.
Called by `steady_code`.
"""

from __future__ import annotations

from attrs import frozen

from isa.instruction import Effect
from isa.operands import File
from simulator.compiled.native import vector_registers
from simulator.compiled.steady_state import Definition, SteadyState

Need = tuple[int, int]
"""An operation, by identity, of a turn."""


@frozen
class Slice:
    """Accumulators whose sums are computed together."""

    accumulators: tuple[Definition, ...]


BLOCK_BYTES = 14_336
"""Bytes loaded in a block of turns: they stay in the host's first cache for every slice."""


def slices(loop: SteadyState) -> list[Slice]:
    """Return the accumulators in groups, each of which keeps its sums in the host's registers."""
    accumulators = loop.accumulators
    largest = largest_group(loop.machine.vpu.lanes)
    needs = {id(d): _needs(loop, d) for d in accumulators}
    waiting, found = list(accumulators), list[Slice]()
    groups = -(-len(waiting) // largest)
    while waiting:
        size = -(-len(waiting) // (groups - len(found)))
        group = [waiting.pop(0)]
        shared = dict(needs[id(group[0])])
        while waiting and len(group) < size:
            best = min(waiting, key=lambda d: _cost(needs[id(d)], shared))
            waiting.remove(best)
            group.append(best)
            shared |= needs[id(best)]
        found.append(Slice(tuple(group)))
    return found


def largest_group(lanes: int) -> int:
    """Return how many sums of so many lanes the host keeps in registers, and operands besides."""
    count, size = vector_registers()
    width = max(1, -(-4 * lanes // size))
    return max(1, count // 2 // width)


def turns_of_block(loop: SteadyState) -> int:
    """Return the turns that a slice runs before the next one does."""
    lanes, total = loop.machine.vpu.lanes, 0
    for _, _, operation in loop.operations:
        kind = operation.address_kind
        if kind is not None:
            total += kind.unit_bytes * (lanes if kind.vector else 2)
    return max(16, BLOCK_BYTES // max(1, total))


def _cost(needs: dict[Need, int], shared: dict[Need, int]) -> int:
    return sum(weight for need, weight in needs.items() if need not in shared)


def _needs(loop: SteadyState, accumulator: Definition) -> dict[Need, int]:
    """Return the operations whose vectors a sum needs, with the work that each is."""
    found: dict[Need, int] = {}
    waiting = [(accumulator, 0)]
    while waiting:
        definition, turn = waiting.pop()
        for register in loop.reads(definition.operation):
            seen = loop.seen(register, definition.issued)
            if seen is None or seen.definition is accumulator:
                continue
            if seen.definition.target.file is not File.VECTOR:
                continue
            need = id(seen.definition.operation), turn - seen.turns
            load = seen.definition.operation.instruction.effect is Effect.LOAD
            found[need] = 2 if load else 1
            waiting.append((seen.definition, turn - seen.turns))
    return found
