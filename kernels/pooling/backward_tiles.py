"""How a gradient image is cut for max pooling backward, so that AM holds what is worked on.

A *tile* is a rectangle of pixels of dx by a run of channels; it is written once. A *piece* is a
rectangle of windows that reach into the tile: their dz and index. Both are double-buffered. A
transfer has two dimensions, so a tile and a piece have all channels, or whole rows, or are one row
high. `kernels.pooling.backward_walk` visits the tiles,
`kernels.pooling.backward_rows` works on them.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from isa.descriptor import LARGEST_STRIDE

ROWS_NEEDED = 6
"""Rows of samples of the smallest tile: a pixel, a gradient and its index, twice."""

ENOUGH = 32_768
"""Bytes of a tile that hide its control and its launches; a larger one delays the first store."""

LEAST = 16
"""Channels of a row that hide the control of its windows."""


@frozen
class Extent:
    """One dimension: pixels of the image, of a window, between windows; windows."""

    input: int
    size: int
    stride: int
    outputs: int

    def reaching(self, pixels: int) -> int:
        """Return how many windows may reach into so many pixels from a multiple of the stride."""
        return min(self.outputs, (pixels - 1) // self.stride + -(-self.size // self.stride))

    def apart(self, pixels: int) -> bool:
        """Tell whether every window lies within one tile of so many pixels, and on no other."""
        return self.size <= self.stride and (pixels % self.stride == 0 or pixels == self.input)

    @property
    def overlap(self) -> bool:
        """Whether some pixel is in several windows."""
        return self.size > self.stride and self.outputs > 1

    @property
    def covered(self) -> bool:
        """Whether windows that lie apart leave no pixel out."""
        return self.size == self.stride and self.outputs * self.stride == self.input


@frozen
class Tiling:
    """The largest tile (rows, columns, channels) and piece (window rows and columns)."""

    rows: int
    columns: int
    channels: int
    window_rows: int
    window_columns: int
    whole_channels: bool
    """A row of a transfer is a row of pixels with all channels, not one pixel's run of them."""

    @property
    def tile(self) -> int:
        """Matrix rows of a tile."""
        return self.rows * self.columns * self.channels

    @property
    def piece(self) -> int:
        """Matrix rows of a piece's gradients, and of its indices."""
        return self.window_rows * self.window_columns * self.channels

    @property
    def needed(self) -> int:
        """Matrix rows of both, twice."""
        return 2 * self.tile + 4 * self.piece


@frozen
class Layer:
    """What has to be cut: both dimensions, channels, bytes of a row of samples, rows AM holds."""

    rows: Extent
    columns: Extent
    channels: int
    row_bytes: int
    room: int

    def tiling(self) -> Tiling:
        """Return whole pixels if AM holds them, else whole rows, else parts of one row.

        Where windows overlap along a row, whole rows come first: they break no window's line, and
        no gradient is fetched for two tiles of a row. `room` is at least `ROWS_NEEDED`.
        """
        band = self._of(self.rows.stride, self.columns.input, 1)
        bands = band.needed <= self.room and self._steps
        line = self.columns.input * self.channels * self.row_bytes
        cell = self._of(self.rows.stride, self.columns.stride, self.channels)
        cells = cell.needed <= self.room and line <= LARGEST_STRIDE
        if cells and not (bands and self.columns.overlap):
            return self._grown(evolve(cell, whole_channels=True))
        if bands:
            enough = max(LEAST, ENOUGH // (band.tile * self.row_bytes))
            channels = min(self.channels, self.room // band.needed, enough)
            return evolve(band, channels=channels)
        return self._part_of_a_row()

    @property
    def _steps(self) -> bool:
        """Whether a descriptor can hold the stride from pixel to pixel."""
        return self.channels * self.row_bytes <= LARGEST_STRIDE

    def _of(self, rows: int, columns: int, channels: int) -> Tiling:
        """Return a tile of so many pixels and channels with all windows that reach into it."""
        high, wide = min(rows, self.rows.input), min(columns, self.columns.input)
        return Tiling(
            high, wide, channels, self.rows.reaching(high), self.columns.reaching(wide), False
        )

    def _grown(self, cell: Tiling) -> Tiling:
        """Return the tile of more cells of a row, then of more rows, until they are enough."""

        def row(cells: int) -> Tiling:
            grown = self._of(cell.rows, cells * self.columns.stride, self.channels)
            return evolve(grown, whole_channels=True)

        def band(cells: int) -> Tiling:
            grown = self._of(cells * self.rows.stride, self.columns.input, self.channels)
            return evolve(grown, whole_channels=True)

        widest = self._most(row, -(-self.columns.input // self.columns.stride))
        if widest.columns < self.columns.input:
            return widest
        return self._most(band, -(-self.rows.input // self.rows.stride))

    def _most(self, of: Callable[[int], Tiling], limit: int) -> Tiling:
        """Return the tile of most cells that fits and is not larger than enough; one always is."""
        low, high = 1, limit
        while low < high:
            middle = (low + high + 1) // 2
            tiling = of(middle)
            good = tiling.needed <= self.room and tiling.tile * self.row_bytes <= ENOUGH
            low, high = (middle, high) if good else (low, middle - 1)
        return of(low)

    def _part_of_a_row(self) -> Tiling:
        channels = min(self.channels, self.room // ROWS_NEEDED)
        pixels = self.room // (ROWS_NEEDED * channels) if self._steps else 1
        columns, windows = min(self.columns.input, pixels), min(self.columns.outputs, pixels)
        return Tiling(1, columns, channels, 1, windows, False)
