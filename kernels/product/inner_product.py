"""The inner product: a tile of outputs, weights as scalars from SM, image rows as vectors from AM.

Each step takes one row of the image block (all samples) and, for every output of the tile, one
weight: load it into R, broadcast it to VR, multiply-add it to the image vectors. A tile is
8 outputs x 4 vectors, 16 x 2 or 16 x 1. With 4 or 2 vectors every packet of the steady state
issues a multiply-add on all four VMACs; with 1 vector the two broadcasts a cycle are the limit.

When each operation issues follows from the machine's latencies and slots, see `Rhythm`. One step,
8 x 4, as on FT-M7004 (cycle of the step; w0.. weights, x0.. vectors):

    0,2,4,6  SLDDW two weights          lands 6 later, just when it is broadcast
    2,3      VLDW x0 x1, then x2 x3     lands 8 later, just when it is first used
    6..13    SVBCAST w0 .. w7           lands 4 later, just when it is first used
    10..17   VFMULAS32 w0..w7 with x0 x1; one cycle later with x2 x3
"""

from __future__ import annotations

from functools import partial

from attrs import frozen

from isa import Builder
from isa.instruction import Unit
from isa.language.allocation import RegisterBlock
from isa.machine import Machine
from isa.operands import Register
from kernels.streaming.pinned_steps import At, PinnedSteps
from kernels.streaming.pipeline import shortest_interval


@frozen
class Tile:
    """Outputs and vectors of one tile."""

    outputs: int
    vectors: int

    @staticmethod
    def for_vectors(vectors: int) -> Tile:
        """Return the tile that keeps the VMACs busiest for 1, 2 or 4 vectors."""
        return Tile(8 if vectors == 4 else 16, vectors)


@frozen
class Rhythm:
    """Cycles between the operations of a step on one machine; no register is overwritten in use."""

    pair: int
    """From a pair of weights to the next: two weight registers serve all pairs in turn."""
    second: int
    """From the first weight of a pair to the second."""
    together: int
    """Vectors of an image row that are loaded, and multiplied by a weight, in one packet."""
    interval: int
    """From step to step, the initiation interval."""

    @staticmethod
    def make(tile: Tile, machine: Machine) -> Rhythm:
        """Return the fastest rhythm that the slots and latencies of the machine allow."""
        multipliers, loads, broadcasts = (
            len(machine.slots_of(unit)) for unit in (Unit.VMAC, Unit.VLDST, Unit.SMAC)
        )
        one_output = -(-tile.vectors // multipliers)
        both = 2 * tile.vectors <= multipliers and broadcasts > 1
        second = 0 if both else one_output
        together = min(loads, multipliers)
        one_weight = -(-tile.vectors // together)
        latency = machine.latency
        pair = max(second + one_output, one_weight, latency["address_update"])
        interval = max(
            tile.outputs // 2 * pair,
            latency["vector_multiply_add_float"],
            shortest_interval(machine),
        )
        return Rhythm(pair, second, together, interval)

    def of_output(self, output: int) -> int:
        """Return the cycles from the first multiply-add of a step to the first of an output."""
        return output // 2 * self.pair + output % 2 * self.second

    def of_vector(self, vector: int) -> int:
        """Return the cycles by which a vector runs behind the first."""
        return vector // self.together


@frozen
class Operands:
    """Registers of a tile: accumulators (outputs, vectors), pointers, the step of a weight row."""

    accumulators: RegisterBlock
    images: tuple[Register, ...]
    """One vector address register per vector of the image row, advanced by one row a step."""
    row_step: Register
    weights: Register
    """Scalar address register, advanced by one row of the weight block a step."""
    weight_row: int
    """Words of a row of the weight block; even."""


def multiply_steps(k: Builder, tile: Tile, registers: Operands, steps: Register) -> None:
    """Add `steps` products to every accumulator; a scalar register holds the count, 0 allowed."""
    with k.scope():
        product = _InnerProduct(k, tile, registers)
        left = k.scalar_predicate("steps left")
        pinned = PinnedSteps(k, "inner product", product.rhythm.interval, left, product.step)
        enough = pinned.enough(steps)
        k.smov(steps, left)
        with k.when(enough):
            pinned.pipeline.emit(left)
            k.smovi(0, left)  # the loop's own test for 0 then spares a second branch
        pinned.one_by_one(left)


class _InnerProduct:
    """The registers of a step, and its operations with their cycles."""

    def __init__(self, k: Builder, tile: Tile, registers: Operands) -> None:
        self.k, self.tile, self.registers = k, tile, registers
        self.rhythm = Rhythm.make(tile, k.machine)
        self.x = k.vectors("image", tile.vectors)
        self.w = k.vectors("weight", 2)
        self.pair = k.scalar_pair("weights")

    def step(self, at: At) -> None:
        """Place the operations of a step."""
        latency, rhythm = self.k.machine.latency, self.rhythm
        first_use = max(latency["scalar_load"] + latency["broadcast"], latency["vector_load"])
        for v in range(self.tile.vectors):
            load = first_use + rhythm.of_vector(v) - latency["vector_load"]
            at(load, partial(self._load, v))
        for o in range(self.tile.outputs):
            use = first_use + rhythm.of_output(o)
            broadcast = use - latency["broadcast"]
            if o % 2 == 0:
                at(broadcast - latency["scalar_load"], partial(self._load_weights, o))
            at(broadcast, partial(self._broadcast, o))
            for v in range(self.tile.vectors):
                at(use + rhythm.of_vector(v), partial(self._multiply, o, v))

    def _load(self, vector: int) -> None:
        pointer = self.registers.images[vector]
        self.k.vldw(pointer.post(self.registers.row_step), self.x[vector])

    def _load_weights(self, output: int) -> None:
        """Load two weights; the last pair of a tile moves on to the next row of the block."""
        last = output == self.tile.outputs - 2
        skip = (self.registers.weight_row - self.tile.outputs) // 2 if last else 0
        self.k.slddw(self.registers.weights.post(1 + skip), self.pair)

    def _broadcast(self, output: int) -> None:
        half = Register(self.pair.file, self.pair.index + output % 2)
        self.k.svbcast(half, self.w[output % 2])

    def _multiply(self, output: int, vector: int) -> None:
        total = self.registers.accumulators[output, vector]
        self.k.vfmulas32(self.w[output % 2], self.x[vector], total, total)
