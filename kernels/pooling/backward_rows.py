"""The device program of max pooling backward, row by row: nothing is scattered.

    for every block of samples:
        for every tile of dx (kernels.pooling.backward_tiles):
            for every piece of the windows that reach into it:      dz, index: DDR -> AM
                compare (kernels.pooling.backward_windows)
            dx: AM -> DDR

The next piece is on its way while one is worked on, and a tile while the next one is.
"""

from __future__ import annotations

from collections.abc import Sequence

from isa.language.transfers import Descriptor
from isa.operands import Register
from kernels.pooling.backward_layer import PoolingBackward
from kernels.pooling.backward_walk import Step, Walk
from kernels.pooling.backward_windows import Tile, Windows, place_of, run_of
from kernels.samples.blocks import DeviceBlock, each_block
from kernels.streaming.streams import BOTH_LATER, Stream


def emit_rows(layer: PoolingBackward) -> None:
    """Emit the whole layer; KernelError if AM does not hold its smallest tile."""
    with each_block(layer.k, layer.split) as block:
        _BlockBackward(layer, block).emit()


class _BlockBackward:
    """The registers and streams of one block of samples."""

    def __init__(self, layer: PoolingBackward, block: DeviceBlock) -> None:
        self.layer, self.block, self.k = layer, block, layer.k
        self.tiling = layer.tiling
        k, row = self.k, 4 * layer.split.largest
        self.part = self.tiling.piece * row
        pieces = k.array_buffer("gradients and indices", 4 * self.part)
        tiles = k.array_buffer("tiles of dx", 2 * self.tiling.tile * row)
        self.gradients = Stream.make(k, "gradients", pieces, 0, BOTH_LATER)
        self.indices = self.gradients.sharing(k, "indices", 2, BOTH_LATER)
        self.tiles = Stream.make(k, "tile of dx", tiles, 4, BOTH_LATER).drain()
        self.walk = Walk(k, layer.rows, layer.columns, layer.channels, self.tiling)
        self.step = Step.make(k, "this")
        self.windows = Windows(layer, block, pieces, tiles, self.part)

    def emit(self) -> None:
        """Emit the loop over pieces, one ahead of the work."""
        k, walk = self.k, self.walk
        self._begin()
        self._fetch(other=False)
        with k.until_zero("pieces", walk.more):
            for theirs, mine in zip(walk.step.registers(), self.step.registers(), strict=True):
                k.smov(theirs, mine)
            walk.advance()
            # What is asked for before a wait shares the DDR with what is waited for, and arrives
            # early; then nothing is under way while the core works.
            with k.scope(), k.when(k.smulis(self.step.rows, self.step.columns)):
                self.gradients.wait()
                self.indices.wait()
            with k.when(self.step.first):
                self.tiles.claim()
            with k.when(walk.more):
                self._fetch(other=True)
            with k.scope():
                tile = Tile(self.layer, self.block, self.step)
                self.windows.emit(self.step, tile, self.gradients, self.tiles.stream)
                with k.when(self.step.last):
                    self._store(tile)
            self.gradients.turn()
        self.tiles.finish()

    def _begin(self) -> None:
        k, layer = self.k, self.layer
        self.gradients.reset()
        self.tiles.reset()
        self.walk.restart()
        self.windows.begin()
        with k.scope():
            pixel = k.smulis(self.block.row_bytes, k.number(layer.channels))
            for descriptor, side, width in (
                (self.gradients.descriptor, "source_stride", layer.columns.outputs),
                (self.indices.descriptor, "source_stride", layer.columns.outputs),
                (self.tiles.stream.descriptor, "destination_stride", layer.columns.input),
            ):
                with k.scope():
                    whole = self.tiling.whole_channels
                    stride = k.smulis(pixel, k.number(width)) if whole else pixel
                    k.set_field(descriptor, side, stride)

    def _fetch(self, *, other: bool) -> None:
        """Start the transfers of the walk's piece, if it has windows."""
        k, layer, step = self.k, self.layer, self.walk.step
        windows = layer.rows.outputs * layer.columns.outputs
        with k.scope(), k.when(k.smulis(step.rows, step.columns)):
            offset = self._offset(step, windows, (step.row, layer.columns.outputs, step.column))
            area = (step.rows, step.columns, run_of(k, layer, step))
            half = self.gradients.other() if other else self.gradients.current
            for stream, tensor, part in (
                (self.gradients, layer.dz, 0), (self.indices, layer.index, self.part)
            ):  # fmt: skip
                with k.scope():
                    source = k.sadd(k.number(tensor.address), offset)
                    k.set_address(stream.descriptor, "source", source)
                    low = k.sadd(half, k.number(part))
                    k.set_field(stream.descriptor, "destination_low", low)
                self._shape(stream.descriptor, "source", "destination", area)
                stream.start(other=other)

    def _store(self, tile: Tile) -> None:
        """Start the transfer of a finished tile."""
        k, layer, step, stream = self.k, self.layer, self.step, self.tiles.stream
        pixels = layer.rows.input * layer.columns.input
        with k.scope():
            height, width = k.ssub(step.top, tile.bottom), k.ssub(step.left, tile.right)
            self._shape(stream.descriptor, "destination", "source", (height, width, tile.run))
        with k.scope():
            offset = self._offset(step, pixels, (step.top, layer.columns.input, step.left))
            self.tiles.send(k.sadd(k.number(layer.dx.address), offset))
        stream.turn()

    def _offset(self, step: Step, pixels: int, place: tuple[Register, int, Register]) -> Register:
        """Return the byte offset of a place (row, width, column) and the step's first channel."""
        k, channels = self.k, self.layer.channels
        offset = k.scalar("offset")
        with k.scope():
            row = k.sadd(k.smulis(place_of(k, *place), k.number(channels)), step.channel)
            base = k.smulis(self.block.first, k.number(4 * pixels * channels))
            k.sadd(base, k.smulis(row, self.block.row_bytes), offset)
        return offset

    def _shape(
        self, descriptor: Descriptor, outside: str, inside: str, area: Sequence[Register]
    ) -> None:
        """Fill in the extents of (rows, columns, channels): a rectangle in DDR, one row in AM."""
        k, (rows, columns, run) = self.k, area
        with k.scope():
            words = k.smulis(run, self.block.samples)
            if self.tiling.whole_channels:
                count, line = rows, k.smulis(columns, words)
            else:
                count, line = k.smulis(rows, columns), words
            k.set_field(descriptor, f"{outside}_rows", count)
            k.set_field(descriptor, f"{outside}_row_words", line)
            k.set_field(descriptor, f"{inside}_row_words", k.smulis(count, line))
