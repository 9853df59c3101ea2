"""How a matrix product over windows is cut to fit AM and SM: one choice for every operator.

The sum over K = window rows x window columns x channels is cut into chunks, the outputs into
blocks of weights (a chunk of a block lies in SM) and groups of blocks (the outputs of a group lie
in AM while their sums grow). Images, weights and outputs are double-buffered.
"""

from __future__ import annotations

from attrs import frozen

from isa.descriptor import LARGEST_STRIDE
from isa.errors import KernelError
from isa.language.allocation import ALIGNMENT
from isa.machine import Machine
from kernels.product.inner_product import Rhythm, Tile
from kernels.product.window import Dimension
from kernels.samples.blocks import table_bytes
from kernels.samples.columns import BatchSplit

RESERVED_SCALAR_BYTES = 8192
"""SM kept for descriptors, block tables and constants; long tables take more."""

WEIGHT_WORDS = 16
"""A weight buffer is a multiple of so many words."""


TILE_CYCLES, BLOCK_CYCLES = 80, 100
"""About what a tile takes besides its steps, and a weight block besides its tiles."""


@frozen
class Shape:
    """A convolution as a matrix product: outputs by (rows x columns x channels)."""

    outputs: int
    channels: int
    rows: Dimension
    columns: Dimension

    @property
    def run(self) -> int:
        """Image rows of the longest window row: columns and channels are contiguous."""
        return self.columns.largest * self.channels

    @property
    def window_row(self) -> int:
        """Image rows from one window row to the next."""
        return self.columns.input * self.channels

    @property
    def positions(self) -> int:
        return self.rows.outputs * self.columns.outputs

    @property
    def weight_rows(self) -> int:
        """Rows of the whole weight matrix, one per window pixel and channel."""
        return self.rows.size * self.columns.size * self.channels


@frozen
class Blocking:
    """The sizes of one cut."""

    tile: Tile
    window_rows: int
    """Window rows in a chunk; 1 where a row is cut into pieces."""
    piece: int
    """Most image rows of one window row in a chunk."""
    tiles: int
    """Tiles in a weight block."""
    blocks: int
    """Weight blocks in all; the last ones may hold padding."""
    group: int
    """Weight blocks whose outputs are summed together in AM."""

    @property
    def chunk(self) -> int:
        """Image rows of the largest chunk."""
        return self.window_rows * self.piece

    @property
    def block_outputs(self) -> int:
        """Outputs of a weight block: the words of its rows in SM."""
        return self.tiles * self.tile.outputs

    @property
    def group_outputs(self) -> int:
        return self.group * self.block_outputs

    @property
    def padded_outputs(self) -> int:
        return self.blocks * self.block_outputs

    @property
    def groups(self) -> int:
        """Groups of weight blocks; the last one may be smaller."""
        return -(-self.blocks // self.group)

    @property
    def padded_biases(self) -> int:
        """Biases up to whole groups."""
        return self.groups * self.group_outputs

    @staticmethod
    def choose(shape: Shape, split: BatchSplit, machine: Machine, companions: int = 0) -> Blocking:
        """Fit the largest chunk first, then the best weight block, then the fewest groups.

        `companions` tensors stand in AM beside the sums, in as much room. Raise KernelError if AM
        or SM cannot hold the smallest of each.
        """
        tile = Tile.for_vectors(split.vectors)
        row_bytes, tensors = 4 * split.largest, 1 + companions
        free_scalar = machine.sm.bytes - _reserved(split)
        _check_room(tile, split, machine, tensors)
        tiles = -(-shape.outputs // tile.outputs)
        in_array = machine.am.bytes // (4 * tensors) // (tile.outputs * row_bytes)
        in_scalar = free_scalar // 4 // (tile.outputs * 4)
        group_tiles = _clamp(min(in_array, in_scalar), tiles)
        group_outputs = group_tiles * tile.outputs
        weight_words = _weight_words(free_scalar, group_outputs)
        image_rows = _image_rows(machine, tensors * group_outputs, row_bytes)
        window_rows, piece = _cut_window(shape, min(image_rows, weight_words // tile.outputs))
        if shape.window_row * row_bytes > LARGEST_STRIDE:
            window_rows = 1  # then no transfer steps from image row to image row
        most = _clamp(weight_words // (window_rows * piece * tile.outputs), group_tiles)
        interval = Rhythm.make(tile, machine).interval
        block_tiles = _block_tiles(tiles, most, window_rows * piece, interval)
        blocks = -(-tiles // block_tiles)
        groups = -(-blocks // _clamp(group_tiles // block_tiles, blocks))
        group = -(-blocks // groups)
        return Blocking(tile, window_rows, piece, block_tiles, blocks, group)


def _reserved(split: BatchSplit) -> int:
    """Return the bytes of SM that are not for weights and biases; images may need two tables."""
    return max(RESERVED_SCALAR_BYTES, 1024 + 2 * table_bytes(split))


def _check_room(tile: Tile, split: BatchSplit, machine: Machine, tensors: int) -> None:
    """Refuse a machine whose memories do not hold one tile, one image row and one weight row."""
    array = _array_bytes(1, tensors * tile.outputs, 4 * split.largest)
    if array > machine.am.bytes:
        raise KernelError(
            f"AM has {machine.am.bytes:,} bytes, {array:,} are needed: one image row and "
            f"{tensors * tile.outputs} rows of sums, of {split.largest} words each, twice; use a "
            "larger am.bytes"
        )
    weights = 4 * tile.outputs + 8 * WEIGHT_WORDS
    scalar = _reserved(split) + weights
    if scalar > machine.sm.bytes:
        raise KernelError(
            f"SM has {machine.sm.bytes:,} bytes, {scalar:,} are needed: {_reserved(split):,} for "
            f"descriptors and block tables, {weights} for weights and biases of one tile; use a "
            "larger sm.bytes"
        )


def _array_bytes(image_rows: int, outputs: int, row_bytes: int) -> int:
    """Return the bytes of AM of two chunks and, behind them, of two groups of rows."""
    images = -(-2 * image_rows * row_bytes // ALIGNMENT) * ALIGNMENT
    return images + 2 * outputs * row_bytes


def _image_rows(machine: Machine, outputs: int, row_bytes: int) -> int:
    """Return the image rows of the largest chunk that leaves room for the sums."""
    images = (machine.am.bytes - 2 * outputs * row_bytes) // ALIGNMENT * ALIGNMENT
    return images // (2 * row_bytes)


def _weight_words(free: int, group_outputs: int) -> int:
    """Return the words of one of the two weight buffers, beside the biases of a group."""
    return (free - 4 * group_outputs) // 8 // WEIGHT_WORDS * WEIGHT_WORDS


def _block_tiles(tiles: int, most: int, rows: int, interval: int) -> int:
    """Return the tiles of a weight block that cost least: the last block may hold padding.

    A step of a tile takes `interval` cycles, and there is one for each row.
    """
    tile_cycles = interval * rows + TILE_CYCLES

    def cycles(count: int) -> tuple[int, int]:
        blocks = -(-tiles // count)
        return blocks * (count * tile_cycles + BLOCK_CYCLES), blocks

    return min(range(1, most + 1), key=cycles)


def _cut_window(shape: Shape, limit: int) -> tuple[int, int]:
    """Return window rows and image rows a chunk takes: whole window rows, or pieces of one."""
    if shape.run <= limit:
        return min(shape.rows.largest, limit // shape.run), shape.run
    pieces = -(-shape.run // limit)
    return 1, -(-shape.run // pieces)


def _clamp(value: int, most: int) -> int:
    return max(1, min(value, most))
