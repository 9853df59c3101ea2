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
        return Chunk(*(k.scalar(f"{name} {part}") for part in ("steps", "first", "last", "weights")))

    def copy_to(self, k: Builder, other: Chunk) -> None:
        """Copy all registers."""
        k.smov(self.steps, other.steps)
        k.smov(self.first, other.first)
        k.smov(self.last, other.last)
        k.smov(self.weights, other.weights)


@frozen
class ChunkCursor:
    """Registers of the walk; `chunk` and the transfer sizes are ready after each step."""

    k: Builder
    shape: Shape
    blocking: Blocking
    block: DeviceBlock
    base: Register
    """Address of the block's first image row."""
    row_bytes: Register
    """Bytes of an image row."""
    rows: Span
    columns: Span
    rows_left: Register
    columns_left: Register
    row: Register
    """First window row of the chunk, counted from the first real one."""
    part: Register
    """First image row of the piece within its window row."""
    run: Register
    """Image rows of one window row."""
    image_window: Register
    weight_window: Register
    more: Register
    """1 until the walk has passed the last chunk."""
    chunk: Chunk
    valid: Register
    """1 if the window has a real pixel, else 0."""
    image: Register
    """Address of the chunk's first image row."""
    chunk_rows: Register
    chunk_run: Register

    @staticmethod
    def take(
        k: Builder, shape: Shape, blocking: Blocking, images: Buffer, block: DeviceBlock
    ) -> ChunkCursor:
        """Take the registers and compute the base of the block's images."""
        base, row_bytes = k.scalar("image base"), k.scalar("image row bytes")
        spans = (Span.take(k, "window row", shape.rows), Span.take(k, "window column", shape.columns))
        names = ("rows left", "columns left", "window row", "piece", "run", "image window",
                 "weight window", "more")  # fmt: skip
        walk = [k.scalar(name) for name in names]
        rest = [k.scalar(name) for name in ("valid", "image chunk", "chunk rows", "chunk run")]
        cursor = ChunkCursor(
            k, shape, blocking, block, base, row_bytes, *spans, *walk, Chunk.take(k, "next"), *rest
        )
        cursor._find_base(images)
        return cursor

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
