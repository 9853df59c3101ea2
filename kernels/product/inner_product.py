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

from attrs import frozen

from isa import Builder
from isa.instruction import Unit
from isa.language.allocation import RegisterBlock
from isa.machine import Machine
from isa.operands import Register
from kernels.streaming.pipeline import PinnedPipeline, shortest_interval


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
        x = k.vectors("image", tile.vectors)
        w = k.vectors("weight", 2)
        pair = k.scalar_pair("weights")
        left = k.scalar_predicate("steps left")
        pipeline = _pipeline(k, tile, registers, x, w, pair)
        long_enough = k.scalar("long enough")
        with k.scope():
            k.slt(k.constant(pipeline.stages - 1), steps, long_enough)
        k.smov(steps, left)
        with k.when(long_enough):
            pipeline.emit(left)
            k.smovi(0, left)
        with k.loop("short inner product", left):
            _one_step(k, tile, registers, x, w, pair)


def _pipeline(
    k: Builder, tile: Tile, registers: Operands, x: RegisterBlock, w: RegisterBlock, pair: Register
) -> PinnedPipeline:
    latency, rhythm = k.machine.latency, Rhythm.make(tile, k.machine)
    pipeline = PinnedPipeline(k, "inner product", rhythm.interval)
    first_use = max(latency["scalar_load"] + latency["broadcast"], latency["vector_load"])
    for v in range(tile.vectors):
        load = first_use + rhythm.of_vector(v) - latency["vector_load"]
        pipeline.at(load, _Load(k, registers, x, v))
    for o in range(tile.outputs):
        use = first_use + rhythm.of_output(o)
        broadcast = use - latency["broadcast"]
        if o % 2 == 0:
            pipeline.at(broadcast - latency["scalar_load"], _Weights(k, tile, registers, pair, o))
        pipeline.at(broadcast, _Broadcast(k, pair, w, o))
        for v in range(tile.vectors):
            pipeline.at(use + rhythm.of_vector(v), _Multiply(k, registers, x, w, o, v))
    return pipeline


def _one_step(
    k: Builder, tile: Tile, registers: Operands, x: RegisterBlock, w: RegisterBlock, pair: Register
) -> None:
    """Emit one step in plain order, for counts too short for the pipeline."""
    for v in range(tile.vectors):
        _Load(k, registers, x, v)()
    for o in range(tile.outputs):
        if o % 2 == 0:
            _Weights(k, tile, registers, pair, o)()
        _Broadcast(k, pair, w, o)()
        for v in range(tile.vectors):
            _Multiply(k, registers, x, w, o, v)()


@frozen
class _Load:
    k: Builder
    registers: Operands
    x: RegisterBlock
    vector: int

    def __call__(self) -> None:
        pointer = self.registers.images[self.vector]
        self.k.vldw(pointer.post(self.registers.row_step), self.x[self.vector])


@frozen
class _Weights:
    k: Builder
    tile: Tile
    registers: Operands
    pair: Register
    output: int

    def __call__(self) -> None:
        """Load two weights; the last pair of a tile moves on to the next row of the block."""
        last = self.output == self.tile.outputs - 2
        skip = (self.registers.weight_row - self.tile.outputs) // 2 if last else 0
        self.k.slddw(self.registers.weights.post(1 + skip), self.pair)


@frozen
class _Broadcast:
    k: Builder
    pair: Register
    w: RegisterBlock
    output: int

    def __call__(self) -> None:
        half = Register(self.pair.file, self.pair.index + self.output % 2)
        self.k.svbcast(half, self.w[self.output % 2])


@frozen
class _Multiply:
    k: Builder
    registers: Operands
    x: RegisterBlock
    w: RegisterBlock
    output: int
    vector: int

    def __call__(self) -> None:
        acc = self.registers.accumulators[self.output, self.vector]
        self.k.vfmulas32(self.w[self.output % 2], self.x[self.vector], acc, acc)
