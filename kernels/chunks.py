"""Walking over the chunks of a windows product: device code that runs one chunk ahead.

The cursor steps through output positions and, within a window, through its chunks: groups of whole
window rows, or pieces of one row. It says where the chunk lies in the image and in the weights.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.operands import Register
from isa.program import Buffer
from kernels.blocking import Blocking, Shape
from kernels.blocks import DeviceBlock
from kernels.window import Span


@frozen
class Chunk:
    """Registers that describe one chunk."""

    steps: Register
    """Image rows to multiply; 0 if the window has no real pixel."""
    first: Register
    """1 for the first chunk of a window."""
    last: Register
    """1 for the last chunk of a window."""
    weights: Register
    """Byte offset of its first row in a weight block."""

    @staticmethod
    def take(k: Builder, name: str) -> Chunk:
        return Chunk(
            *(k.scalar(f"{name} {part}") for part in ("steps", "first", "last", "weights"))
        )

    def copy_to(self, k: Builder, other: Chunk) -> None:
        """Copy all registers."""
        k.smov(self.steps, other.steps)
        k.smov(self.first, other.first)
        k.smov(self.last, other.last)
        k.smov(self.weights, other.weights)


class ChunkCursor:
    """Registers of the walk; `chunk` and the transfer sizes are ready after each step.

    `image` is the address of the chunk's first image row, `chunk_rows` and `chunk_run` its window
    rows and the image rows of each; `more` is 1 until the walk has passed the last chunk.
    """

    def __init__(
        self, k: Builder, shape: Shape, blocking: Blocking, images: Buffer, block: DeviceBlock
    ) -> None:
        self.k, self.shape, self.blocking, self.block = k, shape, blocking, block
        self.rows = Span.take(k, "window row", shape.rows)
        self.columns = Span.take(k, "window column", shape.columns)
        self.chunk = Chunk.take(k, "next")
        self.base = k.scalar("image base")
        self.row_bytes = k.scalar("image row bytes")
        self.rows_left = k.scalar("rows left")
        self.columns_left = k.scalar("columns left")
        self.row = k.scalar("first window row of chunk")
        self.part = k.scalar("first image row of piece")
        self.run = k.scalar("image rows of a window row")
        self.image_window = k.scalar("image window")
        self.weight_window = k.scalar("weight window")
        self.valid = k.scalar("window is real")
        self.more = k.scalar("more chunks")
        self.image = k.scalar("image chunk")
        self.chunk_rows = k.scalar("chunk rows")
        self.chunk_run = k.scalar("chunk run")
        self._find_base(images)

    def _find_base(self, images: Buffer) -> None:
        k, shape = self.k, self.shape
        k.sshfll(2, self.block.samples, self.row_bytes)
        with k.scope():
            image_rows = shape.rows.input * shape.columns.input * shape.channels
            offset = k.smulis(self.block.first, k.constant(4 * image_rows))
            k.sadd(k.constant(images.address), offset, self.base)

    def restart(self) -> None:
        """Go to the first chunk of the first position."""
        k = self.k
        k.constant(self.shape.rows.outputs, self.rows_left)
        k.constant(self.shape.columns.outputs, self.columns_left)
        self.rows.restart(k)
        self.columns.restart(k)
        k.smovi(1, self.more)
        self._locate_window()
        self._locate_chunk()

    def advance(self) -> None:
        """Go to the next chunk; past the last one, `more` becomes 0 and the chunk means nothing."""
        k = self.k
        with k.scope():
            ended = k.smov(self.chunk.last)
            with k.when_zero(ended):
                self._next_in_window()
            with k.when(ended):
                self._next_position()
                self._locate_window()
        self._locate_chunk()

    def _next_in_window(self) -> None:
        k = self.k
        if not self._has_pieces:
            k.sadd(self.row, k.constant(self.blocking.window_rows), self.row)
            return
        k.sadd(self.part, k.constant(self.blocking.piece), self.part)
        with k.when_zero(k.slt(self.part, self.run)):
            k.smovi(0, self.part)
            k.sadd(self.row, 1, self.row)

    def _next_position(self) -> None:
        k = self.k
        self.columns.advance(k)
        k.ssub(1, self.columns_left, self.columns_left)
        with k.when_zero(self.columns_left):
            k.constant(self.shape.columns.outputs, self.columns_left)
            self.columns.restart(k)
            self.rows.advance(k)
            k.ssub(1, self.rows_left, self.rows_left)
            k.slt(0, self.rows_left, self.more)

    def _locate_window(self) -> None:
        """Find the window's first image row and weight row, and go to its first chunk."""
        k, shape = self.k, self.shape
        k.smovi(0, self.row)
        k.smovi(0, self.part)
        with k.scope():
            rows, columns = self.rows.locate(k), self.columns.locate(k)
            k.sand(rows.valid, columns.valid, self.valid)
            channels = k.constant(shape.channels)
            k.smulis(self.columns.count, channels, self.run)
            with k.scope():
                pixel = k.smulis(rows.first, k.constant(shape.columns.input))
                image_row = k.smulis(k.sadd(pixel, columns.first), channels)
                k.sadd(self.base, k.smulis(image_row, self.row_bytes), self.image_window)
            tap = k.smulis(rows.skipped, k.constant(shape.columns.size))
            weight_row = k.smulis(k.sadd(tap, columns.skipped), channels)
            k.smulis(weight_row, k.constant(self._weight_row_bytes), self.weight_window)

    def _locate_chunk(self) -> None:
        """Find the size and place of the chunk at (`row`, `part`) of the window."""
        k, chunk = self.k, self.chunk
        with k.scope():
            rows_left = k.ssub(self.row, self.rows.count)
            run_left = k.ssub(self.part, self.run)
            k.smin(rows_left, k.constant(self.blocking.window_rows), self.chunk_rows)
            k.smin(run_left, k.constant(self.blocking.piece), self.chunk_run)
            k.smulis(k.smulis(self.chunk_rows, self.chunk_run), self.valid, chunk.steps)
            k.seq(k.sadd(self.row, self.part), 0, chunk.first)
            last_row = k.seq(self.chunk_rows, rows_left)
            k.sand(last_row, k.seq(self.chunk_run, run_left), chunk.last)
        with k.scope():
            row_step = k.smulis(self.row, k.constant(self._image_rows_per_window_row))
            offset = k.smulis(k.sadd(row_step, self.part), self.row_bytes)
            k.sadd(self.image_window, offset, self.image)
        with k.scope():
            row_step = k.smulis(self.row, k.constant(self._weight_rows_per_window_row))
            weight_row = k.sadd(row_step, self.part)
            offset = k.smulis(weight_row, k.constant(self._weight_row_bytes))
            k.sadd(self.weight_window, offset, chunk.weights)

    @property
    def _has_pieces(self) -> bool:
        return self.blocking.piece < self.shape.run

    @property
    def _weight_row_bytes(self) -> int:
        return 4 * self.blocking.block_outputs

    @property
    def _image_rows_per_window_row(self) -> int:
        return self.shape.columns.input * self.shape.channels

    @property
    def _weight_rows_per_window_row(self) -> int:
        return self.shape.columns.size * self.shape.channels
