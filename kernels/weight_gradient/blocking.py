"""How the gradient of weights is cut to fit AM: the cut with the fewest cycles by a simple model.

A *group* is a block of outputs by a block of channels by a block of taps (positions of the kernel):
one vector sum for each stays in AM over all samples and positions. A *chunk* is a rectangle of
output positions of one block of samples: their gradients, and the pixels that the group's taps
meet there, come to AM together, double-buffered.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from typing import Any

from attrs import evolve, field, frozen

from isa.errors import KernelError
from isa.language.allocation import ALIGNMENT
from isa.machine import Machine
from kernels.product.window import Extent
from kernels.samples.columns import BatchSplit
from kernels.weight_gradient.outer_product import CHANNELS, OUTPUTS, Rhythm

MOST_OUTPUTS, MOST_CHANNELS = 8 * OUTPUTS, 16 * CHANNELS
"""Of a group; more would only make chunks smaller."""

STORE_CHANNELS = 2
"""DMA channels for results: weights' and biases'."""

SLACK_ROWS = max(OUTPUTS, CHANNELS)
"""Rows behind a chunk that are cleared where outputs or channels do not fill the last tile."""

TILE_CYCLES, TAP_CYCLES, CHUNK_CYCLES, SUM_CYCLES = 54, 65, 400, 2
"""What the model adds to the products: for each tile of a tap in a chunk, for each tap in a chunk,
for a chunk, for a sum of a group."""


@frozen
class GradientShape:
    """A layer: outputs and channels, and its window along both axes."""

    outputs: int
    channels: int
    rows: Extent
    columns: Extent

    @staticmethod
    def of(p: Any) -> GradientShape:
        """Return the shape that a convolution's parameters describe."""
        extents = zip((p.height, p.width), p.size, p.stride, p.pad, strict=True)
        return GradientShape(p.filters, p.channels, *(Extent(*extent) for extent in extents))


@frozen
class GradientBlocking:
    """The sizes of one cut; the last blocks and chunks along each axis may be smaller."""

    shape: GradientShape
    vectors: int
    """Whole vectors that a row takes in AM."""
    tails: bool
    """Tell whether some row's last vector has lanes without a sample."""
    outputs: int
    channels: int
    tap_rows: int
    tap_columns: int
    rows: int
    columns: int
    whole: bool = field()
    """Tell whether chunks span the image's width: then rows of pixels follow on each other."""

    @whole.default
    def _spans_the_width(self) -> bool:
        return self.columns == self.shape.columns.outputs

    @property
    def image_rows(self) -> int:
        """Most rows of pixels in a chunk."""
        return _reach(self.shape.rows, self.rows, self.tap_rows)

    @property
    def image_columns(self) -> int:
        if self.whole:
            return self.shape.columns.input
        return _reach(self.shape.columns, self.columns, self.tap_columns)

    @property
    def pieces(self) -> tuple[int, int]:
        """Transfers of a chunk, for gradients and for pixels: one, or one for each row."""
        return (1, 1) if self.whole else (self.rows, self.image_rows)

    @property
    def first_channels(self) -> tuple[int, int, int]:
        """The first DMA channel for gradients, for pixels, for results."""
        positions, pixels = self.pieces
        return 0, 2 * positions, 2 * (positions + pixels)

    @property
    def slack(self) -> int:
        """Rows behind a chunk that are read, or cleared, without belonging to it."""
        filled = self.shape.outputs % OUTPUTS == 0 and self.shape.channels % CHANNELS == 0
        return 0 if filled and not self.tails else SLACK_ROWS

    @property
    def buffer_rows(self) -> tuple[int, int]:
        """Rows of the matrices in half a buffer, for gradients and for pixels."""
        outputs = min(self.outputs, self.shape.outputs)
        channels = min(self.channels, self.shape.channels)
        return (
            self.rows * self.columns * outputs + self.slack,
            self.image_rows * self.image_columns * channels + self.slack,
        )

    @property
    def weights(self) -> int:
        """Sums of a group, those beyond the last output or channel included."""
        return self.tap_rows * self.tap_columns * self.outputs * self.channels

    @property
    def sums(self) -> int:
        """Vectors of sums: of the weights and, behind them, of the biases."""
        return self.weights + self.outputs

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Blocks of outputs, of channels, of tap rows, of tap columns."""
        shape = self.shape
        return (
            -(-shape.outputs // self.outputs),
            -(-shape.channels // self.channels),
            -(-shape.rows.size // self.tap_rows),
            -(-shape.columns.size // self.tap_columns),
        )

    @property
    def groups(self) -> int:
        outputs, channels, rows, columns = self.counts
        return outputs * channels * rows * columns

    def array_bytes(self, lanes: int) -> int:
        """Return the bytes of AM that all buffers take."""
        row_bytes = 4 * lanes * self.vectors
        sizes = [2 * rows * row_bytes for rows in self.buffer_rows]
        sizes += [4 * lanes * self.sums, 4 * self.sums]
        return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)

    def fits(self, machine: Machine) -> bool:
        """Tell whether the buffers fit AM, and the transfers the DMA channels."""
        channels = self.first_channels[2] + STORE_CHANNELS
        fitting = self.array_bytes(machine.vpu.lanes) <= machine.am.bytes
        return fitting and channels <= machine.dma.channels

    @staticmethod
    def choose(
        shape: GradientShape, split: BatchSplit, dealt: bool, cores: int, machine: Machine
    ) -> GradientBlocking:
        """Return the cut with the fewest cycles; `dealt` groups are shared out among the cores.

        Raise KernelError if AM or the DMA channels do not suffice for the smallest cut.
        """
        lanes = machine.vpu.lanes
        vectors = -(-split.largest // lanes)
        tails = any(b.samples < vectors * lanes for row in split.blocks for b in row)
        smallest = GradientBlocking(shape, vectors, tails, OUTPUTS, CHANNELS, 1, 1, 1, 1)
        model = Model(machine, split, dealt, cores)
        best = min(_cuts(smallest, machine), key=model.cycles, default=None)
        if best is None:
            raise KernelError(_shortage(smallest, machine))
        return best


def _shortage(smallest: GradientBlocking, machine: Machine) -> str:
    needed = smallest.array_bytes(machine.vpu.lanes)
    if needed > machine.am.bytes:
        return (
            f"AM has {machine.am.bytes:,} bytes, {needed:,} are needed: gradients and pixels of "
            f"one position for {OUTPUTS} outputs, {CHANNELS} channels and {smallest.vectors} "
            "vectors of samples, twice, and their sums; use a larger am.bytes or a smaller batch"
        )
    return (
        f"dma.channels={machine.dma.channels} are too few, {4 + STORE_CHANNELS} are needed: two "
        "halves of gradients and of pixels, and results; use a machine with more"
    )


def _reach(extent: Extent, outputs: int, taps: int) -> int:
    """Return the most pixels that so many outputs and taps meet along one axis."""
    return min(extent.input, (outputs - 1) * extent.stride + taps)


def meeting_positions(extent: Extent) -> list[range]:
    """Return, for every tap along one axis, the positions at which it meets a real pixel."""
    first = (max(0, -((tap - extent.pad) // extent.stride)) for tap in range(extent.size))
    last = ((extent.input - 1 + extent.pad - tap) // extent.stride for tap in range(extent.size))
    return [range(a, max(a, min(extent.outputs, b + 1))) for a, b in zip(first, last, strict=True)]


def _mean_steps(extent: Extent) -> float:
    """Return the positions along an axis at which a tap meets a real pixel, the mean of all."""
    return sum(map(len, meeting_positions(extent))) / extent.size


def _parts(total: int) -> list[int]:
    """Return the sizes of the largest part when `total` is cut into 1, 2, ... even parts."""
    return sorted({-(-total // parts) for parts in range(1, total + 1)}, reverse=True)


def _widths(outputs: int) -> list[tuple[int, bool]]:
    """Return the columns of a chunk, and whether it spans the image; a single one need not.

    For the only window may leave out most of a wide image.
    """
    widths = [(columns, columns == outputs) for columns in _parts(outputs)]
    return [*widths, (1, False)] if outputs == 1 else widths


def _tiles(total: int, tile: int, most: int) -> list[int]:
    return [tile * n for n in _parts(-(-total // tile)) if tile * n <= most]


def _cuts(smallest: GradientBlocking, machine: Machine) -> Iterator[GradientBlocking]:
    """Yield the cuts that fit: of each kind those with the most rows of positions."""
    shape = smallest.shape
    tall, wide = shape.rows.size, shape.columns.size
    for outputs, channels, (tap_rows, tap_columns), (columns, whole) in product(
        _tiles(shape.outputs, OUTPUTS, MOST_OUTPUTS),
        _tiles(shape.channels, CHANNELS, MOST_CHANNELS),
        dict.fromkeys([(tall, wide), (1, wide), (1, 1)]),
        _widths(shape.columns.outputs),
    ):
        cut = evolve(
            smallest, outputs=outputs, channels=channels, tap_rows=tap_rows,
            tap_columns=tap_columns, columns=columns, whole=whole,
        )  # fmt: skip
        if cut.fits(machine):
            taller = (evolve(cut, rows=rows) for rows in _parts(shape.rows.outputs))
            yield from islice((one for one in taller if one.fits(machine)), 3)


@frozen
class Model:
    """Cycles of a cut on one core; transfers are hidden behind the work on the chunk before.

    `dealt` groups are shared out among the cores; otherwise the samples are, and the copies of all
    cores are added up at the end.
    """

    machine: Machine
    split: BatchSplit
    dealt: bool
    cores: int

    def cycles(self, cut: GradientBlocking) -> float:
        """Return an estimate, good enough to compare cuts."""
        rows, columns = cut.shape.rows, cut.shape.columns
        chunks = -(-rows.outputs // cut.rows) * -(-columns.outputs // cut.columns)
        taps, tiles = cut.tap_rows * cut.tap_columns, cut.weights // (OUTPUTS * CHANNELS)
        steps = _mean_steps(rows) * _mean_steps(columns)
        products = steps * Rhythm.make(cut.vectors, self.machine).interval / chunks
        work = tiles * (products + TILE_CYCLES) + taps * TAP_CYCLES + CHUNK_CYCLES
        load = self.machine.dma.launch_cycles + self._bytes(cut) / self._rate
        blocks = self.split.count * (self.split.active if self.dealt else 1)
        group = blocks * chunks * max(work, load) + SUM_CYCLES * cut.sums
        mine = -(-cut.groups // self.cores) if self.dealt else cut.groups
        return load + mine * group + self._reduction(cut)

    def _reduction(self, cut: GradientBlocking) -> float:
        """Return the cycles in which copies are written, read and added up."""
        copies = self.split.active
        if self.dealt or copies == 1:
            return 0
        words = (2 * copies + 1) * cut.groups * cut.weights
        return 4 * words / (self._rate * self.cores) + 2 * self.machine.dma.launch_cycles

    def _bytes(self, cut: GradientBlocking) -> int:
        """Return the bytes of a whole chunk."""
        positions = cut.rows * cut.columns * min(cut.outputs, cut.shape.outputs)
        pixels = cut.image_rows * cut.image_columns * min(cut.channels, cut.shape.channels)
        return 4 * self.split.largest * (positions + pixels)

    @property
    def _rate(self) -> float:
        """Bytes a cycle that a core gets of the DDR when all of them load."""
        ddr = self.machine.ddr.bytes_per_cycle * self.machine.ddr.efficiency
        return min(ddr / self.cores, self.machine.dma.bytes_per_cycle)
