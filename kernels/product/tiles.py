"""The tiles of one weight block: sums come from biases or AM, go through the inner product, return.

Sums live in AM from the first chunk of a window to its last; what `finish` does with finished ones
is done on the way out of the last chunk. Pointers run on from tile to tile and block to block.
"""

from __future__ import annotations

from isa import Builder
from isa.operands import Register
from isa.program import Buffer
from kernels.product.blocking import Blocking
from kernels.product.chunks import Chunk
from kernels.product.finish import Finish
from kernels.product.inner_product import Operands, multiply_steps
from kernels.samples.blocks import DeviceBlock
from kernels.streaming.streams import Stream


class TileLoop:
    """Registers that run over the tiles of a chunk, and the code of one tile."""

    def __init__(
        self,
        k: Builder,
        blocking: Blocking,
        block: DeviceBlock,
        images: Stream,
        weights: Stream,
        outputs: Stream,
        biases: Buffer | None,
        chunk: Chunk,
        finish: Finish,
    ) -> None:
        self.k, self.blocking, self.block, self.chunk = k, blocking, block, chunk
        self.images, self.weights, self.outputs, self.biases = images, weights, outputs, biases
        self.finish = finish
        tile = blocking.tile
        self.sums, self.output = k.scalar("sums of tile"), k.scalar("first output of tile")
        self.accumulators = k.vectors("sum", tile.outputs, tile.vectors)
        self.image_pointers = tuple(k.vector_address("image") for _ in range(tile.vectors))
        self.sum_pointers = tuple(k.vector_address("sums") for _ in range(tile.vectors))
        self.weight_pointer = k.scalar_address("weights")
        self.bias_pointer = k.scalar_address("biases")

    def begin_chunk(self) -> None:
        """Go back to the first tile of the group."""
        self.k.smov(self.outputs.current, self.sums)
        self.k.smovi(0, self.output)

    def emit(self) -> None:
        """Emit the loop over the tiles of the weight block in work."""
        k, tile = self.k, self.blocking.tile
        weights = k.smov(self.weights.current)
        with k.loop("tiles", self.blocking.tiles):
            self._begin_sums()
            self._point_images()
            k.point_at(self.weight_pointer, weights, self.weights.buffer)
            registers = Operands(
                self.accumulators, self.image_pointers, self.block.row_step,
                self.weight_pointer, self.blocking.block_outputs,
            )  # fmt: skip
            multiply_steps(k, tile, registers, self.chunk.steps)
            self._finish()
            self._store_sums()
            k.sadd(weights, 4 * tile.outputs, weights)
            k.sadd(self.output, tile.outputs, self.output)
            k.sadd(self.sums, k.smulis(self.block.row_bytes, tile.outputs), self.sums)

    def _finish(self) -> None:
        if not self.finish.has_tile:
            return
        with self.k.when(self.chunk.last):
            self.finish.tile(self.output, self.accumulators, self.sum_pointers, self.image_pointers)

    def _point_images(self) -> None:
        self._point(self.image_pointers, self.images.current, self.images.buffer)

    def _point_sums(self) -> None:
        self._point(self.sum_pointers, self.sums, self.outputs.buffer)

    def _point(self, pointers: tuple[Register, ...], row: Register, buffer: Buffer) -> None:
        for pointer, offset in zip(pointers, self.block.offsets, strict=True):
            with self.k.scope():
                self.k.point_at(pointer, self.k.sadd(row, offset), buffer)

    def _begin_sums(self) -> None:
        """Start from the biases in the first chunk of a window, else from the sums so far."""
        k = self.k
        with k.when(self.chunk.first):
            if self.biases is None:
                for register in self.accumulators:
                    k.vmovi(0, register)
            else:
                self._load_biases(self.biases)
        with k.when_zero(self.chunk.first):
            self._point_sums()
            for o in range(self.blocking.tile.outputs):
                for v, pointer in enumerate(self.sum_pointers):
                    k.vldw(pointer.post(self.block.row_step), self.accumulators[o, v])

    def _load_biases(self, biases: Buffer) -> None:
        k = self.k
        k.point(self.bias_pointer, biases, k.sshfll(2, self.output))
        pairs = [k.scalar_pair("bias pair") for _ in range(2)]
        for o in range(0, self.blocking.tile.outputs, 2):
            pair = k.slddw(self.bias_pointer + o // 2, pairs[o // 2 % 2])
            for half in range(2):
                first = self.accumulators[o + half, 0]
                k.svbcast(Register(pair.file, pair.index + half), first)
                for v in range(1, self.blocking.tile.vectors):
                    k.vmov(first, self.accumulators[o + half, v])

    def _store_sums(self) -> None:
        self._point_sums()
        for o in range(self.blocking.tile.outputs):
            for v, pointer in enumerate(self.sum_pointers):
                self.k.vstw(self.accumulators[o, v], pointer.post(self.block.row_step))
