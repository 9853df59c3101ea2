"""The outer product: a tile of weight gradients, the samples of both operands in the lanes.

Each step takes one output position: rows of gradients dz for 8 outputs and image rows for
4 channels, all samples. For every vector of samples it multiplies each of the 8 with each of the 4
and adds the products to 32 sums, lane by lane; nothing is broadcast or exchanged. Steps walk over
the positions of a rectangle row by row, so that one pipeline runs through all of them.

When each operation issues follows from the machine's latencies and slots, see `Rhythm`. One vector
of samples as on FT-M7004 (cycle of the vector; z0.. gradients, x0.. image rows):

    0..7     VLDW z0 .. z7              lands 8 later, just when it is first used
    0..3     VLDW x0 .. x3              beside them; lands when it is first used, held for 8 cycles
    8..15    VFMULAS32 z0..z7 with x0; one, two, three cycles later with x1, x2, x3

A vector takes 8 cycles of all four VMACs, and a step as many times 8 as rows have vectors.
"""

from __future__ import annotations

from functools import partial
from itertools import count

from attrs import frozen

from isa import Builder, unless, when_set
from isa.instruction import Unit
from isa.language.allocation import RegisterBlock
from isa.machine import Machine
from isa.operands import Register
from kernels.streaming.pinned_steps import At, PinnedSteps
from kernels.streaming.pipeline import shortest_interval

OUTPUTS, CHANNELS = 8, 4
"""Rows of gradients and of the image that a tile multiplies with each other."""


@frozen
class Rhythm:
    """Cycles between the operations of a step on one machine; no register is overwritten in use."""

    vectors: int
    """Vectors of a row."""
    output: int
    """From an output's multiply-adds to the next one's."""
    channels: tuple[int, ...]
    """Cycle of a vector in which each channel's row is loaded and, a load later, first used."""

    @staticmethod
    def make(vectors: int, machine: Machine) -> Rhythm:
        """Return the fastest rhythm that the slots and latencies of the machine allow."""
        loads, multipliers = (len(machine.slots_of(unit)) for unit in (Unit.VLDST, Unit.VMAC))
        for output in count(1):
            channels = _channel_cycles(output, loads, multipliers)
            rhythm = Rhythm(vectors, output, channels)
            if len(channels) == CHANNELS and rhythm._suits(machine):
                return rhythm
        raise AssertionError("a rhythm slow enough suits any machine")

    @property
    def vector(self) -> int:
        """Cycles of one vector of samples."""
        return OUTPUTS * self.output

    @property
    def interval(self) -> int:
        """From step to step, the initiation interval."""
        return self.vectors * self.vector

    @property
    def gradients(self) -> int:
        """Registers that rows of gradients are loaded into in turn; divides their number."""
        held = max(self.channels) + 1
        return next(n for n in (1, 2, 4, OUTPUTS) if n * self.output >= held)

    def _suits(self, machine: Machine) -> bool:
        """Tell whether a sum is ready for its next product, and a step for the next step."""
        latency = machine.latency
        moves = latency["address_add_vector"] + 1 + 2 * latency["scalar_integer"]
        least = max(moves, shortest_interval(machine))
        return self.vector >= latency["vector_multiply_add_float"] and self.interval >= least


def _channel_cycles(output: int, loads: int, multipliers: int) -> tuple[int, ...]:
    """Give each channel the first cycle with a slot for its load and its multiply-adds.

    A row of gradients is loaded every `output` cycles. A channel's multiply-adds come every
    `output` cycles, too: channels whose cycles agree modulo `output` share the VMACs.
    """
    chosen: list[int] = []
    for cycle in (c for c in range(OUTPUTS * output - 1) for _ in range(CHANNELS)):
        loading = (cycle % output == 0) + chosen.count(cycle)
        multiplying = sum(cycle % output == other % output for other in chosen)
        if loading < loads and multiplying < multipliers and len(chosen) < CHANNELS:
            chosen.append(cycle)
    return tuple(chosen)


@frozen
class Walk:
    """Registers of a rectangle of positions: its columns, and how far pointers move, in bytes."""

    columns: Register
    gradient_step: Register
    """From a position to the next one of its row."""
    gradient_jump: Register
    """From the last position of a row to the first of the next."""
    image_step: Register
    image_jump: Register


class OuterProduct:
    """The micro-kernel: `sums` (8, 4) registers, pointers to the tile's first row of each operand.

    Every row takes `vectors` whole vectors in AM; lanes without a sample hold zeros.
    """

    def __init__(
        self, k: Builder, vectors: int, sums: RegisterBlock, gradients: Register, images: Register
    ) -> None:
        self.k, self.vectors, self.sums = k, vectors, sums
        self.gradients, self.images = gradients, images
        self.rhythm = Rhythm.make(vectors, k.machine)
        self.z = k.vectors("gradient", self.rhythm.gradients)
        self.x = k.vectors("image", CHANNELS)
        self.left, self.columns_left = k.scalar_predicate("left"), k.scalar_predicate("columns")

    def steps(self, walk: Walk) -> PinnedSteps:
        """Return the steps of a walk."""
        step = partial(self._step, walk)
        return PinnedSteps(self.k, "outer product", self.rhythm.interval, self.left, step)

    def begin(self, walk: Walk) -> None:
        """Start a walk; the pointers must be set."""
        self.k.smov(walk.columns, self.columns_left)

    def _step(self, walk: Walk, at: At) -> None:
        rhythm, first_use = self.rhythm, self.k.machine.latency["vector_load"]
        for v in range(self.vectors):
            begin = v * rhythm.vector
            for c, cycle in enumerate(rhythm.channels):
                at(begin + cycle, partial(self._load_image, c, v))
            for o in range(OUTPUTS):
                now = begin + o * rhythm.output
                at(now, partial(self._load_gradient, o, v))
                for c, cycle in enumerate(rhythm.channels):
                    at(now + first_use + cycle, partial(self._multiply, o, c))
        self._move_on(walk, at)

    def _load_image(self, channel: int, vector: int) -> None:
        self.k.vldw(self.images + self._place(channel, vector), self.x[channel])

    def _load_gradient(self, output: int, vector: int) -> None:
        self.k.vldw(self.gradients + self._place(output, vector), self._gradient(output))

    def _place(self, row: int, vector: int) -> int:
        return (row * self.vectors + vector) * self.k.machine.vpu.lanes

    def _gradient(self, output: int) -> Register:
        return self.z[output % len(self.z)]

    def _multiply(self, output: int, channel: int) -> None:
        total = self.sums[output, channel]
        self.k.vfmulas32(self._gradient(output), self.x[channel], total, total)

    def _move_on(self, walk: Walk, at: At) -> None:
        """Move the pointers behind the last loads of a step, just before the next one's first."""
        latency, end = self.k.machine.latency, self.rhythm.interval
        moved = end - latency["address_add_vector"]
        at(moved - 1 - latency["scalar_integer"], self._count_column)
        for cycle, pointer, step, jump in (
            (moved - 1, self.images, walk.image_step, walk.image_jump),
            (moved, self.gradients, walk.gradient_step, walk.gradient_jump),
        ):
            at(cycle, partial(self._move, pointer, step, inside=True))
            at(cycle, partial(self._move, pointer, jump, inside=False))
        at(end, partial(self._next_row, walk))

    def _count_column(self) -> None:
        self.k.ssub(1, self.columns_left, self.columns_left)

    def _move(self, pointer: Register, distance: Register, *, inside: bool) -> None:
        test = when_set if inside else unless
        self.k.sadda(distance, pointer, pointer, when=test(self.columns_left))

    def _next_row(self, walk: Walk) -> None:
        self.k.smov(walk.columns, self.columns_left, when=unless(self.columns_left))
