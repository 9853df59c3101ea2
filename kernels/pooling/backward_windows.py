"""The work of max pooling backward: a piece of windows against the tile of dx that they reach into.

For every window, channel and pixel of the window in the tile: where the index is the pixel's row
number, dz is taken. Where windows lie apart, every pixel has one window and is just stored; else,
tiles start as zeros and windows add to them. What is not chosen is masked and never multiplied, so
that no NaN or infinity leaks. Used by `kernels.pooling.backward_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from isa import Builder, when_set
from isa.operands import Register
from isa.program import Buffer
from kernels.pooling.backward_layer import PoolingBackward
from kernels.pooling.backward_tiles import Extent
from kernels.pooling.backward_walk import Step
from kernels.pooling.forward import FEWEST_OVERLAPPED
from kernels.samples.blocks import DeviceBlock
from kernels.samples.columns import MAX_VECTORS
from kernels.streaming.streams import Stream

ZEROS = 4
"""Rows of a tile that one turn fills with zeros."""

TOGETHER = 4
"""Pixels of a line to which a window adds together."""


class Tile:
    """Registers of a step's tile: where it ends, its channels, bytes of its pixels and rows."""

    def __init__(self, layer: PoolingBackward, block: DeviceBlock, step: Step) -> None:
        k = layer.k
        names = ("bottom", "right", "pixel bytes", "line bytes")
        self.bottom, self.right, self.pixel_bytes, self.line_bytes = (
            k.scalar(f"tile {name}") for name in names
        )
        self.run = run_of(k, layer, step)
        for extent, most, first, end in (
            (layer.rows, layer.tiling.rows, step.top, self.bottom),
            (layer.columns, layer.tiling.columns, step.left, self.right),
        ):
            with k.scope():
                k.smin(k.sadd(first, k.number(most)), k.number(extent.input), end)
        k.smulis(self.run, block.row_bytes, self.pixel_bytes)
        with k.scope():
            k.smulis(k.ssub(step.left, self.right), self.pixel_bytes, self.line_bytes)


@frozen
class _Vector:
    """Some samples of one window and channel."""

    gradient: Register
    index: Register
    pointer: Register
    """Points to the pixel of dx."""
    number: Register
    """The pixel's row number, in every lane; one register for all vectors of a channel."""


class Windows:
    """The work on one piece: compare every index with the pixels of its window."""

    def __init__(
        self, layer: PoolingBackward, block: DeviceBlock, pieces: Buffer, tiles: Buffer, part: int
    ) -> None:
        self.layer, self.block, self.k, self.part = layer, block, layer.k, part
        self.pieces, self.tiles = pieces, tiles
        k, vectors = self.k, layer.split.vectors
        self.pixel_step = k.vector_offset("pixel step")
        self.line_step = k.vector_offset("line step")
        self.offsets = [k.vector_offset(f"vector {v}") for v in range(1, vectors)]
        self.channels, self.next_line = k.vector("channels"), k.vector("next line")
        self.chosen = [k.lane_predicate("chosen"), k.lane_predicate("chosen too")]
        names = ("dz and index", "pixel in AM", "row number", "window top", "window left",
                 "upper", "high", "leftmost", "wide")  # fmt: skip
        (self.source, self.target, self.number, self.top, self.left, self.upper, self.high,
         self.leftmost, self.wide) = (k.scalar(name) for name in names)  # fmt: skip

    def begin(self) -> None:
        """Prepare what stays the same for the block."""
        k, layer = self.k, self.layer
        with k.scope():
            for offset, register in zip(self.block.offsets[1:], self.offsets, strict=True):
                k.smvaga(k.sshflr(2, offset), register)
            k.svbcast(k.constant(layer.channels), self.channels)
            if layer.apart:
                skipped = layer.columns.input - layer.columns.size + 1
                k.svbcast(k.constant(skipped * layer.channels), self.next_line)

    def emit(self, step: Step, tile: Tile, gradients: Stream, dx: Stream) -> None:
        """Emit the loops over the windows of the step's piece."""
        k, layer = self.k, self.layer
        self._measure(tile)
        if not (layer.apart and layer.rows.covered and layer.columns.covered):
            with k.when(step.first):
                self._zero(step, tile, dx)
        k.smov(gradients.current, self.source)
        self._scaled(step.row, layer.rows.stride, self.top)
        with k.loop("window rows", step.rows):
            self._clip(layer.rows, self.top, step.top, tile.bottom, self.upper, self.high)
            self._scaled(step.column, layer.columns.stride, self.left)
            with k.loop("windows", step.columns):
                self._clip(
                    layer.columns, self.left, step.left, tile.right, self.leftmost, self.wide
                )
                self._locate(step, tile, dx)
                self._channels(tile)
                self._move(self.left, layer.columns.stride)
            self._move(self.top, layer.rows.stride)

    def _scaled(self, value: Register, factor: int, result: Register) -> None:
        with self.k.scope():
            self.k.smulis(value, self.k.number(factor), result)

    def _move(self, value: Register, step: int) -> None:
        with self.k.scope():
            self.k.sadd(value, self.k.number(step), value)

    def _measure(self, tile: Tile) -> None:
        """Note the steps from pixel to pixel, and from a window's row to its next one."""
        k = self.k
        with k.scope():
            k.smvaga(k.sshflr(2, tile.pixel_bytes), self.pixel_step)
            if self.layer.apart:
                across = k.smulis(tile.pixel_bytes, k.number(self.layer.columns.size - 1))
                k.smvaga(k.sshfar(2, k.ssub(across, tile.line_bytes)), self.line_step)

    def _zero(self, step: Step, tile: Tile, dx: Stream) -> None:
        """Fill the tile with zeros."""
        k = self.k
        with k.scope():
            zero, pointers = k.vmovi(0), self._pointers("zeros")
            self._point(pointers, dx.current)
            height, width = k.ssub(step.top, tile.bottom), k.ssub(step.left, tile.right)
            rows = k.smulis(k.smulis(height, width), tile.run)
            for name, count, turn in (
                ("zeros", k.sshflr(ZEROS.bit_length() - 1, rows), ZEROS),
                ("last zeros", k.sand(rows, ZEROS - 1), 1),
            ):
                with k.loop(name, count):
                    for _ in range(turn):
                        for pointer in pointers:
                            k.vstw(zero, pointer.post(self.block.row_step))

    def _clip(
        self, extent: Extent, corner: Register, first: Register, end: Register,
        start: Register, count: Register,
    ) -> None:  # fmt: skip
        """Find the part of a window from `corner` on that lies in the tile, one dimension."""
        k = self.k
        with k.scope():
            k.smax(corner, first, start)
            window_end = k.sadd(corner, k.number(extent.size))
            k.ssub(start, k.smin(window_end, end), count)

    def _locate(self, step: Step, tile: Tile, dx: Stream) -> None:
        """Find the first pixel of the window's part: its place in AM, its row number."""
        k, layer = self.k, self.layer
        with k.scope():
            down = k.smulis(k.ssub(step.top, self.upper), tile.line_bytes)
            k.sadd(dx.current, down, self.target)
        with k.scope():
            across = k.smulis(k.ssub(step.left, self.leftmost), tile.pixel_bytes)
            k.sadd(self.target, across, self.target)
        with k.scope():
            pixel = place_of(k, self.upper, layer.columns.input, self.leftmost)
            first = k.smulis(pixel, k.number(layer.channels))
            k.sadd(first, step.channel, self.number)
        if not layer.apart:
            with k.scope():
                skipped = k.ssub(self.wide, k.number(layer.columns.input))
                k.svbcast(k.smulis(skipped, k.number(layer.channels)), self.next_line)

    def _channels(self, tile: Tile) -> None:
        """Work on all channels, so many together that there are four vectors, if there may be.

        Where windows are apart, whole ones are stored without a loop, and many channels overlap.
        """
        k = self.k
        together = MAX_VECTORS // self.layer.split.vectors
        with k.scope():
            turns = k.sshflr(together.bit_length() - 1, tile.run)
            pixels = [self.tiles]  # a row of samples for each channel
            many = self.layer.tiling.channels >= FEWEST_OVERLAPPED * together
            overlap = self.layer.apart and many
            with k.pipelined("channels", turns, pixels) if overlap else k.loop("channels", turns):
                self._together(together, tile)
        if together > 1:
            with k.loop("last channels", k.sand(tile.run, together - 1)):
                self._together(1, tile)

    def _together(self, channels: int, tile: Tile) -> None:
        vectors = [vector for _ in range(channels) for vector in self._channel()]
        if self.layer.apart:
            self._store_pixels(vectors)
        else:
            self._add_to_pixels(vectors, tile)

    def _channel(self) -> list[_Vector]:
        """Load dz and index of one window and channel; go to the next one."""
        k, count = self.k, self.layer.split.vectors
        gradients, indices = k.vectors("dz", count), k.vectors("index", count)
        number, pointers = k.svbcast(self.number), self._pointers("pixels")
        self._point(pointers, self.target)
        for values, part in ((gradients, 0), (indices, self.part)):
            with k.scope():
                address = k.sadd(self.source, k.number(part))
                pointer = k.point_at(k.vector_address("windows"), address, self.pieces)
                k.vldw(pointer + 0, values[0])
                for offset, value in zip(self.offsets, values[1:], strict=True):
                    k.vldw(pointer + offset, value)
        for address, step in (
            (self.source, self.block.row_bytes), (self.target, self.block.row_bytes),
            (self.number, 1),
        ):  # fmt: skip
            k.sadd(address, step, address)
        return [_Vector(*parts, number) for parts in zip(gradients, indices, pointers, strict=True)]

    def _store_pixels(self, vectors: list[_Vector]) -> None:
        """Store every pixel of a whole window: dz where it was the largest, else 0."""
        k, (rows, columns) = self.k, (self.layer.rows.size, self.layer.columns.size)
        values = k.vectors("dx", 2, len(vectors))
        for pixel in range(rows * columns):
            ends_line = pixel % columns == columns - 1
            step = self.line_step if ends_line else self.pixel_step
            for v, vector in enumerate(vectors):
                chosen, value = self.chosen[v % 2], values[pixel % 2, v]
                k.vmovi(0, value)
                k.vseq(vector.index, vector.number, chosen)
                k.vmov(vector.gradient, value, when=when_set(chosen))
                k.vstw(value, vector.pointer.post(step))
            self._count(vectors, self.next_line if ends_line else self.channels)

    def _add_to_pixels(self, vectors: list[_Vector], tile: Tile) -> None:
        """Add dz to the pixels of a window's part where they were the largest."""
        k, size = self.k, self.layer.columns.size
        skip = k.ssub(k.smulis(self.wide, tile.pixel_bytes), tile.line_bytes)
        with k.loop("rows of a window", self.high):
            if self.layer.unbroken:
                for first in range(0, size, TOGETHER):
                    self._add(vectors, min(TOGETHER, size - first), tile)
            else:
                with k.loop("pixels", self.wide):
                    self._add(vectors, 1, tile)
            for vector in vectors:
                k.sadda(skip, vector.pointer, vector.pointer)
            self._count(vectors, self.next_line)

    def _add(self, vectors: list[_Vector], pixels: int, tile: Tile) -> None:
        """Add dz to so many pixels of a line.

        The last vector may overlap the one before it: all are loaded before any is stored.
        """
        k = self.k
        with k.scope():
            values = k.vectors("dx", pixels, len(vectors))
            back = k.smulis(tile.pixel_bytes, pixels - 1)
            for v, vector in enumerate(vectors):
                for pixel in range(pixels - 1):
                    k.vldw(vector.pointer.post(self.pixel_step), values[pixel, v])
                k.vldw(vector.pointer + 0, values[pixels - 1, v])
                if pixels > 1:
                    k.ssuba(back, vector.pointer, vector.pointer)
            for pixel in range(pixels):
                for v, vector in enumerate(vectors):
                    chosen, value = self.chosen[v % 2], values[pixel, v]
                    k.vseq(vector.index, vector.number, chosen)
                    k.vfadds32(value, vector.gradient, value, when=when_set(chosen))
                    k.vstw(value, vector.pointer.post(self.pixel_step))
                self._count(vectors, self.channels)

    def _count(self, vectors: list[_Vector], step: Register) -> None:
        """Go from one pixel's row number to another's."""
        for number in {vector.number: None for vector in vectors}:
            self.k.vadd(number, step, number)

    def _pointers(self, name: str) -> list[Register]:
        return [self.k.vector_address(name) for _ in range(self.layer.split.vectors)]

    def _point(self, pointers: Sequence[Register], address: Register) -> None:
        """Point to all vectors of a row of dx."""
        for pointer, offset in zip(pointers, self.block.offsets, strict=True):
            with self.k.scope():
                self.k.point_at(pointer, self.k.sadd(address, offset), self.tiles)


def place_of(k: Builder, row: Register, width: int, column: Register) -> Register:
    """Return the number of a pixel, or a window, in its plane."""
    place = k.scalar("place")
    with k.scope():
        k.sadd(k.smulis(row, k.number(width)), column, place)
    return place


def run_of(k: Builder, layer: PoolingBackward, step: Step) -> Register:
    """Return how many channels the step's run has."""
    run = k.scalar("run")
    with k.scope():
        left = k.ssub(step.channel, k.number(layer.channels))
        k.smin(left, k.number(layer.tiling.channels), run)
    return run
