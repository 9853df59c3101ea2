"""Rectangles of pixels on their way to AM, double-buffered: a run of channels of each pixel.

In DDR a tensor's rows are (h, w, c) by the samples of a block; in AM a rectangle is (h, w, its
channels), and every row begins with a whole vector. Where rectangles span the width, pixels follow
on each other and one transfer moves all; else every row of pixels is a transfer, each on a channel.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.operands import Register
from isa.program import Buffer
from kernels.streaming.streams import LATER, Stream


@frozen
class Layer:
    """A tensor's planes: rows and columns of pixels, channels of each."""

    rows: int
    columns: int
    channels: int

    @property
    def matrix_rows(self) -> int:
        return self.rows * self.columns * self.channels


@frozen
class Area:
    """Registers of a rectangle: first row and column, extents; first channel and how many."""

    row: Register
    column: Register
    rows: Register
    columns: Register
    channel: Register
    channels: Register


class PixelStream:
    """Two halves of a buffer in AM and the transfers that fill them, `pieces` at most for each."""

    def __init__(
        self,
        k: Builder,
        name: str,
        tensor: Buffer,
        layer: Layer,
        half_rows: int,
        row_bytes: int,
        pieces: int,
        channel: int,
    ) -> None:
        self.k, self.name, self.tensor, self.layer = k, name, tensor, layer
        self.row_bytes, self.pieces = row_bytes, pieces
        buffer = k.array_buffer(name, 2 * half_rows * row_bytes)
        request = TransferRequest(LATER, Plane(0, 1, 1, row_bytes))
        self.halves = Stream.make(k, name, buffer, channel, request)

    def fetch(self, area: Area, first: Register, samples: Register, *, other: bool) -> None:
        """Start the transfers of an area of the block that begins with sample `first`."""
        k, layer, halves, descriptor = self.k, self.layer, self.halves, self.halves.descriptor
        with k.scope():
            address, half = k.scalar("source"), k.scalar("destination")
            self._find(area, first, samples, address)
            k.smov(halves.other() if other else halves.current, half)
            with k.scope():
                pixels = area.columns
                if self.pieces == 1:
                    pixels = k.smulis(area.rows, area.columns)
                stride = k.smulis(samples, k.constant(4 * layer.channels))
                k.set_field(descriptor, "source_rows", pixels)
                k.set_field(descriptor, "source_row_words", k.smulis(area.channels, samples))
                k.set_field(descriptor, "source_stride", stride)
                k.set_field(descriptor, "destination_rows", k.smulis(pixels, area.channels))
                k.set_field(descriptor, "destination_row_words", samples)
            channel = self._first_channel(other=other)
            self._start_pieces(area, samples, address, half, channel)

    def wait(self, area_rows: Register) -> None:
        """Wait until the half in use holds its area of so many rows of pixels."""
        k = self.k
        with k.scope():
            channel = self._first_channel(other=False)
            if self.pieces == 1:
                k.wait(channel)
                return
            with k.loop(f"wait for {self.name}", area_rows):
                k.wait(channel)
                k.sadd(channel, 1, channel)

    def _start_pieces(
        self,
        area: Area,
        samples: Register,
        address: Register,
        half: Register,
        channel: Register,
    ) -> None:
        k, layer = self.k, self.layer
        if self.pieces == 1:
            self._start(address, half, channel)
            return
        row = k.smulis(samples, k.constant(4 * layer.columns * layer.channels))
        step = k.smulis(k.smulis(area.columns, area.channels), k.constant(self.row_bytes))
        with k.loop(f"start {self.name}", area.rows):
            self._start(address, half, channel)
            k.sadd(address, row, address)
            k.sadd(half, step, half)
            k.sadd(channel, 1, channel)

    def _start(self, address: Register, half: Register, channel: Register) -> None:
        descriptor = self.halves.descriptor
        self.k.set_address(descriptor, "source", address)
        self.k.set_field(descriptor, "destination_low", half)
        self.k.start(descriptor, channel)

    def _find(self, area: Area, first: Register, samples: Register, address: Register) -> None:
        """Compute the DDR address of an area's first word."""
        k, layer = self.k, self.layer
        with k.scope():
            pixel = k.sadd(k.smulis(area.row, k.constant(layer.columns)), area.column)
            row = k.sadd(k.smulis(pixel, k.constant(layer.channels)), area.channel)
            words = k.sadd(k.smulis(row, samples), k.smulis(first, k.constant(layer.matrix_rows)))
            k.sadd(k.constant(self.tensor.address), k.sshfll(2, words), address)

    def _first_channel(self, *, other: bool) -> Register:
        """Return the first channel of a half; each half has `pieces` of them."""
        k, halves = self.k, self.halves
        number = k.smulis(halves.is_second(other=other), self.pieces)
        channel: Register = k.sadd(number, halves.channel)
        return channel
