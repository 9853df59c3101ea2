"""The weights of a product in DDR, and how a block of them comes to SM.

In SM a weight block is (chunk rows, block outputs): the two weights of a double-word load are
neighbouring outputs of one row. Weights that lie in blocks of outputs come as whole runs of rows;
a matrix whose rows are the product's rows comes as the block's piece of every row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from isa import Builder
from isa.descriptor import Plane
from isa.language.transfers import Descriptor
from isa.program import Buffer
from kernels.product.blocking import Blocking, Shape

if TYPE_CHECKING:
    from kernels.product.chunks import Chunk


class Weights(Protocol):
    """What a product must know of its weights in DDR."""

    @property
    def buffer(self) -> Buffer:
        """Where they lie."""

    @property
    def row_bytes(self) -> int:
        """Bytes from a weight row to the next, for one block."""

    @property
    def output_bytes(self) -> int:
        """Bytes from an output to the next; outputs that begin blocks only."""

    @property
    def plane(self) -> Plane:
        """The DDR side of a transfer: what device code does not fill in."""

    def fill(self, k: Builder, descriptor: Descriptor, chunk: Chunk) -> None:
        """Store the extents of the DDR side for a chunk."""


@frozen
class PackedWeights:
    """Blocks of (weight rows, block outputs), as `samples.packing` makes them."""

    buffer: Buffer
    block: int
    weight_rows: int
    """Rows of each block."""
    window_row: int
    """Rows from one kernel row to the next."""

    @staticmethod
    def of(buffer: Buffer, shape: Shape, blocking: Blocking) -> PackedWeights:
        """Return the weights of a product."""
        window_row = shape.columns.size * shape.channels
        return PackedWeights(buffer, blocking.block_outputs, shape.weight_rows, window_row)

    @property
    def row_bytes(self) -> int:
        return 4 * self.block

    @property
    def output_bytes(self) -> int:
        return 4 * self.weight_rows

    @property
    def plane(self) -> Plane:
        return Plane(0, 1, 1, self.window_row * self.row_bytes)

    def fill(self, k: Builder, descriptor: Descriptor, chunk: Chunk) -> None:
        with k.scope():
            k.set_field(descriptor, "source_rows", chunk.rows)
            words = k.smulis(chunk.run, k.number(self.block))
            k.set_field(descriptor, "source_row_words", words)


@frozen
class RowWeights:
    """A matrix of one row per weight row and one column per output, and a block of words more.

    The last block of outputs reads past the end of its rows; what it makes of that is not stored.
    """

    buffer: Buffer
    block: int
    outputs: int
    """Columns of the matrix."""

    @property
    def row_bytes(self) -> int:
        return 4 * self.outputs

    @property
    def output_bytes(self) -> int:
        return 4

    @property
    def plane(self) -> Plane:
        return Plane(0, 1, self.block, self.row_bytes)

    def fill(self, k: Builder, descriptor: Descriptor, chunk: Chunk) -> None:
        k.set_field(descriptor, "source_rows", chunk.run)
