"""Images to columns on the chip: the first layer's NCHW images through the DMA's transpose.

Each core turns its own samples: for a run of pixels and each channel one transpose from DDR to AM
puts the samples side by side, destination rows `channels` apart; the finished rows then go to the
column matrix in DDR as one transfer. Two halves of AM alternate. An image with more channels than
AM holds of one pixel is turned in pieces of its channels.
"""

from __future__ import annotations

from typing import Any

from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.operands import Register
from isa.program import Buffer
from kernels.samples.blocks import DeviceBlock, each_block, rows_of_half
from kernels.samples.columns import BatchSplit
from kernels.streaming.streams import BOTH_LATER, LATER, Stream

ROW_CHANNEL, TRANSPOSE_CHANNEL = 0, 2


def unpack_images(k: Builder, images: Buffer, columns: Buffer, p: Any, split: BatchSplit) -> None:
    """Emit the transposition of `images` (N, C, H, W) into `columns`, block by block."""
    with each_block(k, split) as block:
        _Unpacking(k, images, columns, p, split, block).emit()


class _Unpacking:
    """The registers of one block of samples."""

    def __init__(
        self,
        k: Builder,
        images: Buffer,
        columns: Buffer,
        p: Any,
        split: BatchSplit,
        block: DeviceBlock,
    ) -> None:
        self.k, self.images, self.columns, self.block = k, images, columns, block
        self.channels, self.pixels = p.channels, p.height * p.width
        rows = rows_of_half(k, split)
        self.piece = min(self.channels, rows)
        self.run = min(self.pixels, rows // self.piece)
        buffer = k.array_buffer("pixel runs", 8 * self.run * self.piece * split.largest)
        self.rows = Stream.make(k, "pixel runs", buffer, ROW_CHANNEL, BOTH_LATER)
        image = Plane(0, 1, 1, 4 * self.channels * self.pixels)
        self.plane = k.descriptor("channel plane", TransferRequest(image, LATER, transpose=True))

    def emit(self) -> None:
        """Emit the loop over pieces of the channels."""
        k = self.k
        names = ("plane", "columns", "channels left", "channels")
        source, target, left, count = (k.scalar(name) for name in names)
        with k.scope():
            image = k.constant(4 * self.channels * self.pixels)
            self.block.find(k, image, (self.images, source), (self.columns, target))
        k.constant(self.channels, left)
        with k.until_zero("channel pieces", left):
            k.smin(left, k.number(self.piece), count)
            self._fix_fields(count)
            self._turn_piece(source, target, count)
            with k.scope():
                k.sadd(source, k.smulis(count, k.number(4 * self.pixels)), source)
                k.sadd(target, k.smulis(count, k.sshfll(2, self.block.samples)), target)
            k.ssub(count, left, left)

    def _turn_piece(self, first_plane: Register, first_row: Register, channels: Register) -> None:
        """Emit the loop over runs of pixels."""
        k, block = self.k, self.block
        left, words, pixel = (k.scalar(n) for n in ("pixels left", "run words", "pixel bytes"))
        source, target = k.smov(first_plane), k.smov(first_row)
        k.constant(self.pixels, left)
        k.smulis(k.sshfll(2, block.samples), k.number(self.channels), pixel)
        self.rows.reset()
        busy, other_busy = k.smovi(0), k.smovi(0)
        with k.until_zero("pixel runs", left):
            run = k.smin(left, k.number(self.run))
            with k.when(busy):
                self.rows.wait()
            self._transpose_channels(source, run, channels)
            k.smulis(k.smulis(run, channels), block.samples, words)
            self._store(target, words)
            k.smov(other_busy, busy)
            k.smovi(1, other_busy)
            self.rows.turn()
            k.sadd(source, k.sshfll(2, run), source)
            k.sadd(target, k.smulis(run, pixel), target)
            k.ssub(run, left, left)
        for half, flag in ((False, busy), (True, other_busy)):
            with k.when(flag):
                self.rows.wait(other=half)

    def _fix_fields(self, channels: Register) -> None:
        """Fill in what the block's number of samples and the piece's channels decide."""
        k, samples = self.k, self.block.samples
        with k.scope():
            k.set_field(self.plane, "source_rows", samples)
            k.set_field(self.plane, "destination_row_words", samples)
            stride = k.smulis(k.sshfll(2, samples), channels)
            k.set_field(self.plane, "destination_stride", stride)

    def _transpose_channels(self, source: Register, run: Register, channels: Register) -> None:
        """Transpose a run of pixels channel by channel, two transfers at a time."""
        k = self.k
        with k.scope():
            k.set_field(self.plane, "source_row_words", run)
            k.set_field(self.plane, "destination_rows", run)
            plane, target = k.smov(source), k.smov(self.rows.current)
            parity, row = k.smovi(0), k.sshfll(2, self.block.samples)
            with k.loop("channels", channels) as left:
                k.set_address(self.plane, "source", plane)
                k.set_field(self.plane, "destination_low", target)
                k.start(self.plane, k.sadd(parity, TRANSPOSE_CHANNEL))
                k.sxor(parity, 1, parity)
                with k.when(k.sxor(k.seq(left, channels), 1)):
                    k.wait(k.sadd(parity, TRANSPOSE_CHANNEL))
                k.sadd(plane, k.number(4 * self.pixels), plane)
                k.sadd(target, row, target)
            k.wait(k.sadd(k.sxor(parity, 1), TRANSPOSE_CHANNEL))

    def _store(self, target: Register, words: Register) -> None:
        """Start the transfer of the finished rows to the column matrix."""
        k, descriptor = self.k, self.rows.descriptor
        k.set_address(descriptor, "destination", target)
        k.set_field(descriptor, "source_low", self.rows.current)
        k.set_field(descriptor, "source_row_words", words)
        k.set_field(descriptor, "destination_row_words", words)
        self.rows.start(other=False)
