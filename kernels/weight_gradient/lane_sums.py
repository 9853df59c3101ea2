"""Sums over lanes and over rows: how vectors of partial sums become the words of a gradient.

Samples are in the lanes, so a gradient of weights is a vector of partial sums until its end; then
`sum_lanes` makes one word of each. `RowSums` adds up rows of gradients, which gives the bias's.
"""

from __future__ import annotations

from functools import partial

from isa import Builder, when_set
from isa.instruction import Unit
from isa.language.allocation import RegisterBlock
from isa.machine import Machine
from isa.operands import Register
from kernels.streaming.pinned_steps import At, PinnedSteps
from kernels.streaming.pipeline import shortest_interval
from kernels.weight_gradient.outer_product import OUTPUTS

GROUP = OUTPUTS
"""Vectors of a step of `sum_lanes`, rows of a step of `RowSums`: those of a tile of outputs."""


def sum_lanes(k: Builder, vectors: Register, words: Register, count: int) -> None:
    """Sum `count` vectors in AM, whole groups, each over its lanes, to consecutive words in AM.

    `vectors` and `words` are address registers. On FT-M7004 a sum takes one cycle: VLDW, VFSUMS32
    8 cycles later, VSTW of lane 0 after 12 more; one of each in every packet.
    """
    with k.scope():
        lane, left = k.lane_predicate("first lane"), k.scalar_predicate("groups left")
        k.vseq(k.vlane(), 0, lane)
        step = partial(_sum_group, k, vectors, words, k.vector("vector"), k.vector("sum"), lane)
        steps = PinnedSteps(k, "lane sums", GROUP * _every(k.machine), left, step)
        groups = k.constant(count // GROUP)
        if count // GROUP >= steps.stages:
            steps.pipelined(groups)
        else:
            steps.one_by_one(groups)


def _every(machine: Machine) -> int:
    """Return the cycles from one sum to the next: pointers move, one VLDST loads and stores."""
    accesses = -(-2 // len(machine.slots_of(Unit.VLDST)))
    branch = -(-shortest_interval(machine) // GROUP)
    return max(accesses, branch, machine.latency["address_update"])


def _sum_group(
    k: Builder,
    vectors: Register,
    words: Register,
    vector: Register,
    total: Register,
    lane: Register,
    at: At,
) -> None:
    """Place a step: every result is used in the cycle in which it lands.

    A single VLDST stores in the cycle after, if it loads in this one.
    """
    every, latency = _every(k.machine), k.machine.latency
    store = latency["vector_load"] + latency["reduction"]
    if len(k.machine.slots_of(Unit.VLDST)) == 1 and store % every == 0:
        store += 1
    for number in range(GROUP):
        at(number * every, lambda: k.vldw(vectors.post(k.machine.vpu.lanes), vector))
        at(number * every + latency["vector_load"], lambda: k.vfsums32(vector, total))
        at(number * every + store, lambda: k.vstw(total, words.post(1), when=when_set(lane)))


class RowSums:
    """Adds rows of 8 outputs at every position to 8 sums, lane by lane: two loads and adds a cycle.

    `rows` points to the first row; a position lies `step` bytes behind the one before it.
    """

    def __init__(
        self, k: Builder, vectors: int, sums: RegisterBlock, rows: Register, step: Register
    ) -> None:
        self.k, self.vectors, self.sums, self.rows, self.distance = k, vectors, sums, rows, step
        slots = (len(k.machine.slots_of(unit)) for unit in (Unit.VLDST, Unit.VMAC))
        self.together = min(2, *slots)
        self.values = k.vectors("row", self.together)

    def add(self, positions: Register, left: Register) -> None:
        """Add the rows of so many positions; `left` is a scalar predicate."""
        PinnedSteps(self.k, "row sums", self._interval, left, self._step).run(positions)

    @property
    def _loads(self) -> int:
        return GROUP * self.vectors

    @property
    def _every(self) -> int:
        """Cycles from one load, or two together, to the next; a sum is ready after 8 loads."""
        latency = self.k.machine.latency
        step = max(shortest_interval(self.k.machine), latency["address_add_vector"])
        return max(
            -(-step * self.together // self._loads),
            -(-latency["vector_add_float"] * self.together // GROUP),
        )

    @property
    def _interval(self) -> int:
        return self._loads // self.together * self._every

    def _step(self, at: At) -> None:
        latency = self.k.machine.latency
        for load in range(self._loads):
            cycle = load // self.together * self._every
            at(cycle, partial(self._load, load))
            at(cycle + latency["vector_load"], partial(self._add, load))
        at(self._interval - latency["address_add_vector"], self._move_on)

    def _load(self, load: int) -> None:
        vector, row = divmod(load, GROUP)
        place = (row * self.vectors + vector) * self.k.machine.vpu.lanes
        self.k.vldw(self.rows + place, self.values[load % self.together])

    def _add(self, load: int) -> None:
        total = self.sums[load % GROUP]
        self.k.vfadds32(total, self.values[load % self.together], total)

    def _move_on(self) -> None:
        self.k.sadda(self.distance, self.rows, self.rows)
