"""Where a product's images and outputs lie in DDR: as columns of samples, or as rows of a matrix.

Columns of samples are the way from layer to layer, see `samples.columns`: the rows of a block of
samples are contiguous. In a matrix that lies row by row a block is a piece of every row: so the
gradient of fully connected weights, whose lanes hold input features, comes and goes.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from isa import Builder
from isa.descriptor import Plane
from isa.language.transfers import Descriptor
from isa.operands import Register
from isa.program import Buffer
from kernels.samples.blocks import DeviceBlock
from kernels.streaming.streams import LATER


class Images(Protocol):
    """What a product must know of its images in DDR."""

    @property
    def plane(self) -> Plane:
        """The DDR side of a transfer: what device code does not fill in."""

    def begin(self, k: Builder, block: DeviceBlock, image_rows: int, base: Register) -> Register:
        """Compute where the block's first image row lies; return the bytes from row to row."""

    def prepare(self, k: Builder, descriptor: Descriptor, block: DeviceBlock) -> None:
        """Store what is the same for all transfers of a block of samples."""

    def fill(
        self, k: Builder, descriptor: Descriptor, block: DeviceBlock, rows: Register, run: Register
    ) -> None:
        """Store the extents of the DDR side for `rows` window rows of `run` image rows each."""


@frozen
class ColumnImages:
    """Blocks of (image rows, samples); a window row is contiguous."""

    buffer: Buffer
    window_row: int
    """Image rows from one window row to the next."""

    @property
    def plane(self) -> Plane:
        return LATER

    def begin(self, k: Builder, block: DeviceBlock, image_rows: int, base: Register) -> Register:
        with k.scope():
            block.find(k, k.number(4 * image_rows), (self.buffer, base))
        return block.row_bytes

    def prepare(self, k: Builder, descriptor: Descriptor, block: DeviceBlock) -> None:
        with k.scope():
            stride = k.smulis(block.row_bytes, k.number(self.window_row))
            k.set_field(descriptor, "source_stride", stride)

    def fill(
        self, k: Builder, descriptor: Descriptor, block: DeviceBlock, rows: Register, run: Register
    ) -> None:
        with k.scope():
            k.set_field(descriptor, "source_rows", rows)
            k.set_field(descriptor, "source_row_words", k.smulis(run, block.samples))


@frozen
class RowImages:
    """A matrix of `columns` columns, of which a block takes a piece of every row."""

    buffer: Buffer
    columns: int

    @property
    def plane(self) -> Plane:
        return Plane(0, 1, 1, 4 * self.columns)

    def begin(self, k: Builder, block: DeviceBlock, image_rows: int, base: Register) -> Register:
        with k.scope():
            k.sadd(k.number(self.buffer.address), k.sshfll(2, block.first), base)
        return k.constant(4 * self.columns)

    def prepare(self, k: Builder, descriptor: Descriptor, block: DeviceBlock) -> None:
        """Leave the descriptor: all is in the plane or differs between transfers."""

    def fill(
        self, k: Builder, descriptor: Descriptor, block: DeviceBlock, rows: Register, run: Register
    ) -> None:
        k.set_field(descriptor, "source_rows", run)
        k.set_field(descriptor, "source_row_words", block.samples)


class Outputs(Protocol):
    """What a product must know of a tensor that lies in DDR as its outputs do."""

    @property
    def buffer(self) -> Buffer:
        """Where it lies."""

    @property
    def plane(self) -> Plane:
        """The DDR side of a transfer: what device code does not fill in."""

    def begin(self, k: Builder, block: DeviceBlock, first: Register, offset: Register) -> None:
        """Compute the byte offset of output `first` at the first position."""

    def advance(self, k: Builder, block: DeviceBlock, offset: Register) -> None:
        """Move the offset to the next position."""

    def fill(
        self, k: Builder, descriptor: Descriptor, side: str, block: DeviceBlock, outputs: Register
    ) -> None:
        """Store the extents of the DDR side for so many outputs."""


@frozen
class ColumnOutputs:
    """Blocks of (positions, outputs, samples)."""

    buffer: Buffer
    positions: int
    outputs: int

    @property
    def plane(self) -> Plane:
        return LATER

    def begin(self, k: Builder, block: DeviceBlock, first: Register, offset: Register) -> None:
        with k.scope():
            block_rows = k.smulis(block.first, k.number(4 * self.positions * self.outputs))
            k.sadd(block_rows, k.smulis(first, block.row_bytes), offset)

    def advance(self, k: Builder, block: DeviceBlock, offset: Register) -> None:
        with k.scope():
            k.sadd(offset, k.smulis(block.row_bytes, k.number(self.outputs)), offset)

    def fill(
        self, k: Builder, descriptor: Descriptor, side: str, block: DeviceBlock, outputs: Register
    ) -> None:
        with k.scope():
            k.set_field(descriptor, f"{side}_row_words", k.smulis(outputs, block.samples))


@frozen
class RowOutputs:
    """A matrix of one row per output; a block is a piece of every row. One position only."""

    buffer: Buffer
    columns: int

    @property
    def plane(self) -> Plane:
        return Plane(0, 1, 1, 4 * self.columns)

    def begin(self, k: Builder, block: DeviceBlock, first: Register, offset: Register) -> None:
        with k.scope():
            word = k.sadd(k.smulis(first, k.number(self.columns)), block.first)
            k.sshfll(2, word, offset)

    def advance(self, k: Builder, block: DeviceBlock, offset: Register) -> None:
        """Stay: there is no other position."""

    def fill(
        self, k: Builder, descriptor: Descriptor, side: str, block: DeviceBlock, outputs: Register
    ) -> None:
        k.set_field(descriptor, f"{side}_rows", outputs)
        k.set_field(descriptor, f"{side}_row_words", block.samples)
