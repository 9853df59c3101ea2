"""Where max pooling backward is: the device's walk over tiles of dx and pieces of their windows.

    for every run of channels, every row of tiles, every tile:
        for every piece of the windows that reach into the tile

`kernels.pooling.backward_rows` is one step behind: it works on a piece while the next one comes.
A tile that no window reaches has one piece without windows.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.operands import Register
from kernels.pooling.backward_tiles import Extent, Tiling


@frozen
class Step:
    """Registers of one piece of a tile."""

    channel: Register
    """First channel of the run."""
    top: Register
    """First row of the tile."""
    left: Register
    row: Register
    """First row of windows of the piece."""
    column: Register
    rows: Register
    """Rows of windows; 0 for none."""
    columns: Register
    first: Register
    """1 for the first piece of a tile."""
    last: Register

    @staticmethod
    def make(k: Builder, name: str) -> Step:
        """Take the registers."""
        parts = ("channel", "top", "left", "window row", "window column", "window rows",
                 "window columns", "first", "last")  # fmt: skip
        return Step(*(k.scalar(f"{name} {part}") for part in parts))

    def registers(self) -> tuple[Register, ...]:
        """Return all of them, in the same order for every step."""
        return (self.channel, self.top, self.left, self.row, self.column, self.rows, self.columns,
                self.first, self.last)  # fmt: skip


class Walk:
    """The step that comes next, and whether there is one."""

    def __init__(
        self, k: Builder, rows: Extent, columns: Extent, channels: int, tiling: Tiling
    ) -> None:
        self.k, self.channels, self.tiling = k, channels, tiling
        self.step, self.more = Step.make(k, "next"), k.scalar("more pieces")
        step = self.step
        ends = (k.scalar("end of window rows"), k.scalar("end of window columns"))
        self.rows = _Axis(
            k, rows, tiling.rows, tiling.window_rows, step.top, step.row, step.rows, ends[0]
        )
        self.columns = _Axis(
            k, columns, tiling.columns, tiling.window_columns,
            step.left, step.column, step.columns, ends[1],
        )  # fmt: skip

    def restart(self) -> None:
        """Go to the first piece of the first tile."""
        for register in (self.step.channel, self.rows.pixel, self.columns.pixel):
            self.k.smovi(0, register)
        for flag in (self.step.first, self.more):
            self.k.smovi(1, flag)
        self.rows.enter_tile()
        self.columns.enter_tile()
        self._locate()

    def advance(self) -> None:
        """Go to the next piece; past the last one, `more` becomes 0."""
        k = self.k
        k.smovi(0, self.step.first)
        with k.scope():
            self.columns.pass_piece()
            with k.when_zero(self.columns.unfinished()):
                self.columns.enter_tile()
                self.rows.pass_piece()
                with k.when_zero(self.rows.unfinished()):
                    self._next_tile()
        self._locate()

    def _next_tile(self) -> None:
        k, step = self.k, self.step
        k.smovi(1, step.first)
        with k.when(self.columns.pass_tile()), k.when(self.rows.pass_tile()):
            k.sadd(step.channel, k.number(self.tiling.channels), step.channel)
            k.slt(step.channel, k.number(self.channels), self.more)
        self.rows.enter_tile()
        self.columns.enter_tile()

    def _locate(self) -> None:
        k = self.k
        self.rows.locate_piece()
        self.columns.locate_piece()
        with k.scope():
            both = k.sand(self.rows.is_last(), self.columns.is_last())
            k.smov(both, self.step.last)


@frozen
class _Axis:
    """One dimension of the walk: registers of tile and piece, and the windows that are left."""

    k: Builder
    extent: Extent
    tile: int
    piece: int
    pixel: Register
    """First pixel of the tile."""
    window: Register
    """First window of the piece."""
    count: Register
    """Windows of the piece, 0 if none reaches the tile."""
    end: Register
    """Behind the last window that reaches into the tile."""

    def enter_tile(self) -> None:
        """Find the windows that reach into the tile: go to the first one, note the end."""
        k, extent = self.k, self.extent
        with k.scope():
            reach = k.ssub(k.number(extent.size - extent.stride), self.pixel)
            self._quotient(k.smax(reach, k.number(0)), self.window)
            last = k.ssub(1, k.smin(self._tile_end(), k.number(extent.input)))
            self._quotient(last, self.end)
            k.smin(k.sadd(self.end, 1), k.number(extent.outputs), self.end)

    def locate_piece(self) -> None:
        """Find how many windows the piece has."""
        k = self.k
        with k.scope():
            left = k.smin(k.ssub(self.window, self.end), k.number(self.piece))
            k.smax(left, k.number(0), self.count)

    def pass_piece(self) -> None:
        self.k.sadd(self.window, self.count, self.window)

    def unfinished(self) -> Register:
        """Return 1 while windows of the tile are left."""
        left: Register = self.k.slt(self.window, self.end)
        return left

    def is_last(self) -> Register:
        """Return 1 if no piece of the tile follows this one."""
        k = self.k
        more: Register = k.sxor(1, k.slt(k.sadd(self.window, self.count), self.end))
        return more

    def pass_tile(self) -> Register:
        """Go to the next tile; return 1 if that was the last, and go to the first one instead."""
        k = self.k
        past = k.scalar("past the last tile")
        with k.scope():
            k.smov(self._tile_end(), self.pixel)
            inside = k.slt(self.pixel, k.number(self.extent.input))
            k.smulis(self.pixel, inside, self.pixel)
            k.sxor(1, inside, past)
        return past

    def _tile_end(self) -> Register:
        end: Register = self.k.sadd(self.pixel, self.k.number(self.tile))
        return end

    def _quotient(self, pixels: Register, result: Register) -> None:
        """Divide a number from 0 to input + stride by the stride: multiply by its reciprocal.

        The reciprocal is too large by less than 1 / (stride * 2**bits), and the number times that
        stays below 1 / stride, so that no quotient is rounded up.
        """
        k, extent = self.k, self.extent
        bits = ((extent.input + extent.stride) * extent.stride).bit_length()
        reciprocal = k.number(2**bits // extent.stride + 1)
        k.sshflr(bits, k.smulis(pixels, reciprocal), result)
