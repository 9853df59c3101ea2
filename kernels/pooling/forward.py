"""The device program of max pooling forward: windows, rows of windows, runs of channels.

    for every block of samples:
        for every output position and run of channels:
            for every window row (in pieces, if it is wide):        image rows: DDR -> AM
                compare every pixel with the largest so far
            largest values and row numbers: AM -> DDR

The next piece is on its way while one is worked on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from attrs import frozen

from isa import Builder, unless, when_set
from isa.descriptor import LARGEST_STRIDE
from isa.language.allocation import ALIGNMENT
from isa.operands import Register
from isa.program import Buffer
from kernels.samples.blocks import DeviceBlock, each_block
from kernels.samples.columns import BatchSplit
from kernels.streaming.streams import BOTH_LATER, Stream

UNROLLED = 16
"""Most window pixels of a piece; a window of one piece a row is unrolled."""

FEWEST_OVERLAPPED = 8
"""Turns over channels from which on a pipeline saves more than it costs to fill and drain."""

NEGATIVE_INFINITY = float("-inf")


@frozen
class Pooling:
    """The sizes and buffers of one pooling layer."""

    k: Builder
    split: BatchSplit
    channels: int
    width: int
    image_rows: int
    size: tuple[int, int]
    stride: tuple[int, int]
    outputs: tuple[int, int]
    images: Buffer
    values: Buffer
    indices: Buffer

    @staticmethod
    def make(
        k: Builder,
        p: Any,
        split: BatchSplit,
        shape: tuple[int, ...],
        images: Buffer,
        values: Buffer,
        indices: Buffer,
    ) -> Pooling:
        """Return the pooling of a kernel's parameters."""
        return Pooling(
            k, split, p.channels, p.width, p.height * p.width * p.channels, p.size, p.stride,
            (shape[2], shape[3]), images, values, indices,
        )  # fmt: skip

    @property
    def piece(self) -> int:
        """Pixels of a window row that arrive together; fewer where AM holds no more."""
        most = min(self.size[1], UNROLLED)
        if self.channels * 4 * self.split.largest > LARGEST_STRIDE:
            return 1  # then no transfer steps from pixel to pixel
        return next((piece for piece in range(most, 1, -1) if self._fitting(piece)), 1)

    @property
    def run(self) -> int:
        """Channels worked on together: what fits AM, twice, in even runs; an error if none does."""
        fit = self._fitting(self.piece)
        if fit < 1:
            raise self.k.error(
                f"AM has {self.k.machine.am.bytes:,} bytes, {self._array_bytes(1):,} are needed: a "
                f"pixel, a value and an index for {self.split.largest} samples, twice; use a "
                "larger am.bytes or a smaller batch"
            )
        return -(-self.channels // -(-self.channels // fit))

    def _fitting(self, piece: int) -> int:
        """Return the channels for which AM holds pieces of so many pixels and two results."""
        return (self.k.machine.am.bytes - self._gaps) // (self._array_bytes(piece) - self._gaps)

    def _array_bytes(self, piece: int) -> int:
        """Return the bytes of AM that one channel takes: three double buffers."""
        return 4 * self.split.largest * (2 * piece + 4) + self._gaps

    @property
    def _gaps(self) -> int:
        """Bytes that the alignment of the second and third buffer may cost."""
        return 2 * ALIGNMENT if 8 * self.split.largest % ALIGNMENT else 0

    def emit(self) -> None:
        """Emit the whole layer."""
        with each_block(self.k, self.split) as block:
            _BlockPooling(self, block).emit()


class _BlockPooling:
    """The registers and streams of one block of samples."""

    def __init__(self, pooling: Pooling, block: DeviceBlock) -> None:
        self.pooling, self.block, self.k = pooling, block, pooling.k
        k, row = self.k, pooling.run * 4 * pooling.split.largest
        images = k.array_buffer("window pieces", 2 * pooling.piece * row)
        self.images = Stream.make(k, "window piece", images, 0, BOTH_LATER)
        self.values = Stream.make(
            k, "values", k.array_buffer("largest values", 2 * row), 2, BOTH_LATER
        )
        self.indices = Stream.make(
            k, "indices", k.array_buffer("their rows", 2 * row), 4, BOTH_LATER
        )
        self.walk = _Walk(pooling, block)
        names = ("pixels", "first", "last", "row number", "run", "busy", "other busy", "value out")
        (self.pixels, self.first, self.last, self.row, self.run, self.busy, self.other_busy,
         self.out) = (k.scalar(name) for name in names)  # fmt: skip
        self.pixel_step = k.vector_offset("pixel step")

    def emit(self) -> None:
        """Emit the loop over pieces, one ahead of the work."""
        k, walk = self.k, self.walk
        self._begin()
        self._fetch(other=False)
        with k.until_zero("window pieces", walk.more):
            for mine, theirs in (
                (self.pixels, walk.pixels), (self.first, walk.first), (self.last, walk.last),
                (self.row, walk.row_number), (self.run, walk.run),
            ):  # fmt: skip
                k.smov(theirs, mine)
            walk.advance()
            # Two transfers of one core would share its part of the DDR and end together, late; and
            # then nothing would be under way while the core works.
            self.images.wait()
            with k.when(walk.more):
                self._fetch(other=True)
            with k.when(self.first), k.when(self.busy):
                self.values.wait()
                self.indices.wait()
            self._compare_run()
            with k.when(self.last):
                self._store()
            self.images.turn()
        self._drain()

    def _begin(self) -> None:
        k = self.k
        for stream in (self.images, self.values, self.indices):
            stream.reset()
        k.smovi(0, self.busy)
        k.smovi(0, self.other_busy)
        self.walk.restart()
        with k.scope():
            outputs = self.pooling.outputs[0] * self.pooling.outputs[1] * self.pooling.channels
            k.smulis(self.block.first, k.constant(4 * outputs), self.out)
            stride = k.smulis(self.walk.row_bytes, k.constant(self.pooling.channels))
            k.set_field(self.images.descriptor, "source_stride", stride)

    def _fetch(self, *, other: bool) -> None:
        """Start the transfer of the walk's piece: a run of channels of each pixel."""
        k, walk, descriptor = self.k, self.walk, self.images.descriptor
        with k.scope():
            words = k.smulis(walk.run, self.block.samples)
            k.set_address(descriptor, "source", walk.address)
            k.set_field(descriptor, "source_rows", walk.pixels)
            k.set_field(descriptor, "source_row_words", words)
            k.set_field(descriptor, "destination_row_words", k.smulis(words, walk.pixels))
            half = self.images.other() if other else self.images.current
            k.set_field(descriptor, "destination_low", half)
        self.images.start(other=other)

    def _compare_run(self) -> None:
        """Work on every channel of the run; the first piece of a window starts from -infinity."""
        k = self.k
        with k.scope():
            k.smvaga(k.smulis(self.run, self.block.samples), self.pixel_step)
        with k.when(self.first):
            self._channels(starting=True)
        with k.when_zero(self.first):
            self._channels(starting=False)

    def _channels(self, *, starting: bool) -> None:
        k = self.k
        with k.scope():
            image = k.smov(self.images.current)
            value, index = k.smov(self.values.current), k.smov(self.indices.current)
            row = k.smov(self.row)
            with self._each_channel():
                self._one_channel(image, value, index, row, starting)
                for register in (image, value, index):
                    k.sadd(register, self.walk.row_bytes, register)
                k.sadd(row, 1, row)

    def _each_channel(self) -> AbstractContextManager[Register]:
        """Return the loop over channels; many overlap if a piece needs no loop over its pixels."""
        if not self._whole_rows or self.pooling.run < FEWEST_OVERLAPPED:
            return self.k.loop("channels", self.run)
        results = (self.values.buffer, self.indices.buffer)  # a row of samples for each channel
        return self.k.pipelined("channels", self.run, apart=results)

    @property
    def _whole_rows(self) -> bool:
        """Whether a piece is always a whole row of a window."""
        return self.pooling.piece == self.pooling.size[1]

    def _one_channel(
        self, image: Register, value: Register, index: Register, row: Register, starting: bool
    ) -> None:
        k, vectors = self.k, self.pooling.split.vectors
        best, where = k.vectors("largest", vectors), k.vectors("its row", vectors)
        pointers = [k.vector_address("pixels") for _ in range(vectors)]
        place = k.vector_address("result")
        values, indices = (value, self.values.buffer), (index, self.indices.buffer)
        for v, offset in enumerate(self.block.offsets):
            self._point(pointers[v], image, offset, self.images.buffer)
            if starting:
                k.vmovi(NEGATIVE_INFINITY, best[v])
                k.svbcast(row, where[v])
                continue
            for (start, buffer), target in ((values, best[v]), (indices, where[v])):
                k.vldw(self._point(place, start, offset, buffer) + 0, target)
        number = k.svbcast(row)
        if self._whole_rows:
            for _ in range(self.pooling.piece):
                self._one_pixel(pointers, best, where, number)
        else:
            with k.loop("pixels", self.pixels):
                self._one_pixel(pointers, best, where, number)
        for v, offset in enumerate(self.block.offsets):
            for (start, buffer), source in ((values, best[v]), (indices, where[v])):
                k.vstw(source, self._point(place, start, offset, buffer) + 0)

    def _point(
        self, pointer: Register, start: Register, offset: Register, buffer: Buffer
    ) -> Register:
        with self.k.scope():
            return self.k.point_at(pointer, self.k.sadd(start, offset), buffer)

    def _one_pixel(self, pointers: Any, best: Any, where: Any, number: Register) -> None:
        """Take a pixel where it is larger, or NaN; `number` is its row, and moves on."""
        k = self.k
        with k.scope():
            larger, ordered = k.lane_predicate("larger"), k.lane_predicate("not NaN")
            for v, pointer in enumerate(pointers):
                x = k.vldw(pointer.post(self.pixel_step))
                k.vfcmpgs32(x, best[v], larger)
                k.vfcmpes32(x, x, ordered)
                for source, target in ((x, best[v]), (number, where[v])):
                    k.vmov(source, target, when=when_set(larger))
                    k.vmov(source, target, when=unless(ordered))
            k.vadd(number, k.svbcast(k.constant(self.pooling.channels)), number)

    def _store(self) -> None:
        """Start the transfers of a finished run of channels."""
        k = self.k
        with k.scope():
            words = k.smulis(self.run, self.block.samples)
            for stream, target in (
                (self.values, self.pooling.values), (self.indices, self.pooling.indices)
            ):  # fmt: skip
                descriptor = stream.descriptor
                address = k.sadd(k.constant(target.address), self.out)
                k.set_address(descriptor, "destination", address)
                k.set_field(descriptor, "source_low", stream.current)
                k.set_field(descriptor, "source_row_words", words)
                k.set_field(descriptor, "destination_row_words", words)
                stream.start(other=False)
                stream.turn()
            k.sadd(self.out, k.sshfll(2, words), self.out)
        k.smov(self.other_busy, self.busy)
        k.smovi(1, self.other_busy)

    def _drain(self) -> None:
        for half, flag in ((False, self.busy), (True, self.other_busy)):
            with self.k.when(flag):
                self.values.wait(other=half)
                self.indices.wait(other=half)


class _Walk:
    """Registers that walk over positions, runs of channels, window rows and pieces of rows."""

    def __init__(self, pooling: Pooling, block: DeviceBlock) -> None:
        self.pooling, self.block, self.k = pooling, block, pooling.k
        names = ("row bytes", "base", "position row", "position column", "rows left",
                 "columns left", "channel", "window row", "window column", "more", "address",
                 "next pixels", "next run", "next row", "next first", "next last")  # fmt: skip
        (self.row_bytes, self.base, self.top, self.left, self.rows_left, self.columns_left,
         self.channel, self.window_row, self.window_column, self.more, self.address, self.pixels,
         self.run, self.row_number, self.first, self.last) = (
            self.k.scalar(name) for name in names
        )  # fmt: skip

    def restart(self) -> None:
        """Go to the first piece of the first position."""
        k, pooling = self.k, self.pooling
        k.sshfll(2, self.block.samples, self.row_bytes)
        with k.scope():
            sample = k.constant(4 * pooling.image_rows)
            self.block.find(k, sample, (pooling.images, self.base))
        for register in (self.top, self.left, self.channel, self.window_row, self.window_column):
            k.smovi(0, register)
        k.constant(pooling.outputs[0], self.rows_left)
        k.constant(pooling.outputs[1], self.columns_left)
        k.smovi(1, self.more)
        self._locate()

    def advance(self) -> None:
        """Go to the next piece; past the last one, `more` becomes 0."""
        k, pooling = self.k, self.pooling
        height, width = (k.constant(extent) for extent in pooling.size)
        k.sadd(self.window_column, self.pixels, self.window_column)
        with k.when_zero(k.slt(self.window_column, width)):
            k.smovi(0, self.window_column)
            k.sadd(self.window_row, 1, self.window_row)
            with k.when_zero(k.slt(self.window_row, height)):
                k.smovi(0, self.window_row)
                k.sadd(self.channel, self.run, self.channel)
                with k.when_zero(k.slt(self.channel, k.constant(pooling.channels))):
                    k.smovi(0, self.channel)
                    self._next_position()
        self._locate()

    def _next_position(self) -> None:
        k, pooling = self.k, self.pooling
        k.sadd(self.left, k.constant(pooling.stride[1]), self.left)
        k.ssub(1, self.columns_left, self.columns_left)
        with k.when_zero(self.columns_left):
            k.constant(pooling.outputs[1], self.columns_left)
            k.smovi(0, self.left)
            k.sadd(self.top, k.constant(pooling.stride[0]), self.top)
            k.ssub(1, self.rows_left, self.rows_left)
            k.slt(0, self.rows_left, self.more)

    def _locate(self) -> None:
        """Find the piece's size, its first matrix row and its place in the window."""
        k, pooling = self.k, self.pooling
        with k.scope():
            pixels_left = k.ssub(self.window_column, k.constant(pooling.size[1]))
            k.smin(pixels_left, k.constant(pooling.piece), self.pixels)
            channels_left = k.ssub(self.channel, k.constant(pooling.channels))
            k.smin(channels_left, k.constant(pooling.run), self.run)
            k.seq(k.sadd(self.window_row, self.window_column), 0, self.first)
            last_row = k.seq(self.window_row, k.constant(pooling.size[0] - 1))
            k.sand(last_row, k.seq(pixels_left, self.pixels), self.last)
        with k.scope():
            row = k.sadd(self.top, self.window_row)
            column = k.sadd(self.left, self.window_column)
            pixel = k.sadd(k.smulis(row, k.constant(pooling.width)), column)
            number = k.smulis(pixel, k.constant(pooling.channels))
            k.sadd(number, self.channel, self.row_number)
            k.sadd(self.base, k.smulis(self.row_number, self.row_bytes), self.address)
