"""One layer of max pooling backward: its sizes, its tensors in DDR, and how it is cut to fit AM."""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.language.allocation import ALIGNMENT
from isa.program import Buffer
from kernels.pooling.backward_tiles import ROWS_NEEDED, Extent, Layer, Tiling
from kernels.samples.columns import BatchSplit

UNROLLED = 16
"""Most pixels, of a window or of a line of it, that are unrolled; more are a loop."""


@frozen
class PoolingBackward:
    """The sizes and buffers of one pooling layer's backward pass."""

    k: Builder
    split: BatchSplit
    channels: int
    rows: Extent
    columns: Extent
    dz: Buffer
    index: Buffer
    dx: Buffer

    @property
    def apart(self) -> bool:
        """Whether windows that lie apart are unrolled: every pixel is stored once."""
        tiling, area = self.tiling, self.rows.size * self.columns.size
        whole = self.rows.apart(tiling.rows) and self.columns.apart(tiling.columns)
        return whole and area <= UNROLLED

    @property
    def unbroken(self) -> bool:
        """Whether lines of windows are unrolled, as no tile ends within one."""
        return self.tiling.columns == self.columns.input and self.columns.size <= UNROLLED

    @property
    def tiling(self) -> Tiling:
        """How dx is cut; an error if AM does not hold the smallest tile."""
        row, size = 4 * self.split.largest, self.k.machine.am.bytes
        gap = ALIGNMENT if 4 * row % ALIGNMENT else 0
        if size < ROWS_NEEDED * row + gap:
            raise self.k.error(
                f"AM has {size:,} bytes, {ROWS_NEEDED * row + gap:,} are needed: a pixel, a "
                f"gradient and an index for {self.split.largest} samples, twice; use a larger "
                "am.bytes or a smaller batch"
            )
        return Layer(self.rows, self.columns, self.channels, row, (size - gap) // row).tiling()
