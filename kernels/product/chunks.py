"""Walking over the chunks of a windows product: device code that runs one chunk ahead.

The cursor steps through output positions and, within a window, through its chunks: groups of whole
window rows, or pieces of one row. It says where the chunk lies in the image and in the weights.
"""

from __future__ import annotations

from attrs import astuple, fields, frozen

from isa import Builder
from isa.operands import Register
from kernels.product.blocking import Blocking, Shape
from kernels.product.placement import Images
from kernels.product.weights import Weights
from kernels.samples.blocks import DeviceBlock


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
    """Byte offset of its first weight row."""
    rows: Register
    """Window rows."""
    run: Register
    """Image rows of each window row."""

    @staticmethod
    def take(k: Builder, name: str) -> Chunk:
        return Chunk(*(k.scalar(f"{name} {part.name}") for part in fields(Chunk)))

    def copy_to(self, k: Builder, other: Chunk) -> None:
        """Copy all registers."""
        mine, theirs = (astuple(chunk, recurse=False) for chunk in (self, other))
        for register, target in zip(mine, theirs, strict=True):
            k.smov(register, target)


class ChunkCursor:
    """Registers of the walk; `chunk` and the transfer sizes are ready after each step.

    `image` is the address of the chunk's first image row; `more` is 1 until the walk has passed
    the last chunk.
    """

    def __init__(
        self,
        k: Builder,
        shape: Shape,
        blocking: Blocking,
        images: Images,
        weights: Weights,
        block: DeviceBlock,
    ) -> None:
        self.k, self.shape, self.blocking, self.block = k, shape, blocking, block
        self.images, self.weights = images, weights
        self.rows = shape.rows.span(k, "window row")
        self.columns = shape.columns.span(k, "window column")
        self.chunk = Chunk.take(k, "next")
        self.base = k.scalar("image base")
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
        image_rows = shape.rows.input * shape.columns.input * shape.channels
        self.row_step = images.begin(k, block, image_rows, self.base)

    def restart(self) -> None:
        """Go to the first chunk of the first position."""
        k = self.k
        k.constant(self.shape.rows.outputs, self.rows_left)
        k.constant(self.shape.columns.outputs, self.columns_left)
        self.rows.restart()
        self.columns.restart()
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
            k.sadd(self.row, k.number(self.blocking.window_rows), self.row)
            return
        k.sadd(self.part, k.number(self.blocking.piece), self.part)
        with k.when_zero(k.slt(self.part, self.run)):
            k.smovi(0, self.part)
            k.sadd(self.row, 1, self.row)

    def _next_position(self) -> None:
        k = self.k
        self.columns.advance()
        k.ssub(1, self.columns_left, self.columns_left)
        with k.when_zero(self.columns_left):
            k.constant(self.shape.columns.outputs, self.columns_left)
            self.columns.restart()
            self.rows.advance()
            k.ssub(1, self.rows_left, self.rows_left)
            k.slt(0, self.rows_left, self.more)

    def _locate_window(self) -> None:
        """Find the window's first image row and weight row, and go to its first chunk."""
        k, shape = self.k, self.shape
        k.smovi(0, self.row)
        k.smovi(0, self.part)
        with k.scope():
            rows, columns = self.rows.locate(), self.columns.locate()
            k.sand(rows.valid, columns.valid, self.valid)
            channels = k.number(shape.channels)
            k.smulis(self.columns.count, channels, self.run)
            with k.scope():
                pixel = k.smulis(rows.first, k.number(shape.columns.input))
                image_row = k.smulis(k.sadd(pixel, columns.first), channels)
                k.sadd(self.base, k.smulis(image_row, self.row_step), self.image_window)
            tap = k.smulis(rows.tap, k.number(shape.columns.size))
            weight_row = k.smulis(k.sadd(tap, columns.tap), channels)
            k.smulis(weight_row, k.number(self.weights.row_bytes), self.weight_window)

    def _locate_chunk(self) -> None:
        """Find the size and place of the chunk at (`row`, `part`) of the window."""
        k, chunk = self.k, self.chunk
        with k.scope():
            rows_left = k.ssub(self.row, self.rows.count)
            run_left = k.ssub(self.part, self.run)
            k.smin(rows_left, k.number(self.blocking.window_rows), chunk.rows)
            k.smin(run_left, k.number(self.blocking.piece), chunk.run)
            k.smulis(k.smulis(chunk.rows, chunk.run), self.valid, chunk.steps)
            k.seq(k.sadd(self.row, self.part), 0, chunk.first)
            last_row = k.seq(chunk.rows, rows_left)
            k.sand(last_row, k.seq(chunk.run, run_left), chunk.last)
        with k.scope():
            row_step = k.smulis(self.row, k.number(self.shape.window_row))
            offset = k.smulis(k.sadd(row_step, self.part), self.row_step)
            k.sadd(self.image_window, offset, self.image)
        with k.scope():
            row_step = k.smulis(self.row, k.number(self._weight_rows_per_window_row))
            weight_row = k.sadd(row_step, self.part)
            offset = k.smulis(weight_row, k.number(self.weights.row_bytes))
            k.sadd(self.weight_window, offset, chunk.weights)

    @property
    def _has_pieces(self) -> bool:
        return self.blocking.piece < self.shape.run

    @property
    def _weight_rows_per_window_row(self) -> int:
        return self.shape.columns.size * self.shape.channels
