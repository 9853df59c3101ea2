"""The work on one chunk: for every tap the positions that meet real pixels, tile by tile.

A tap's rows and columns of positions are clipped to those that meet the image (algorithm 1's
bounds seen from the tap), so nothing padded is ever multiplied; a tap that meets none is passed
over. The rest is a rectangle of positions, walked by the outer product once for every tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from attrs import frozen

from isa import Builder
from isa.instruction import Unit
from isa.operands import Register
from isa.program import Buffer
from kernels.product.window import Extent
from kernels.streaming.pipeline import Emit
from kernels.weight_gradient.blocking import GradientBlocking, meeting_positions
from kernels.weight_gradient.outer_product import CHANNELS, OUTPUTS, OuterProduct, Walk
from kernels.weight_gradient.walk import Records

Run = Callable[[Sequence[Sequence[Emit]]], None]
"""Emits the steps of a walk behind some packets."""


def _bounds(extent: Extent) -> list[int]:
    """Return, for every tap, its first position and one past its last."""
    return [bound for run in meeting_positions(extent) for bound in (run.start, run.stop)]


@frozen
class _Clipped:
    """Registers of one axis of a tap: where in the chunk its positions and pixels begin."""

    position: Register
    pixel: Register
    count: Register
    """Positions; 0 where the tap meets only padding."""


class TapLoops:
    """The loops over taps and tiles of a chunk; `sums` is the AM buffer of the group's sums."""

    def __init__(
        self, k: Builder, blocking: GradientBlocking, row_bytes: int, sums: Buffer, records: Records
    ) -> None:
        self.k, self.blocking, self.row_bytes = k, blocking, row_bytes
        self.sums, self.records = sums, records
        shape = blocking.shape
        self.bounds = {
            "row": k.constants("rows of taps", _bounds(shape.rows)),
            "column": k.constants("columns of taps", _bounds(shape.columns)),
        }

    def emit(self, gradients: Register, images: Register, buffers: tuple[Buffer, Buffer]) -> None:
        """Add the products of the chunk that begins at these two addresses of AM."""
        k, get, shape = self.k, self.records.get, self.blocking.shape
        with k.scope():
            work = _Tiles(self, gradients, images, buffers)
            tap = get("tap row")
            bound = self._bounds("row", tap)
            with k.loop("tap rows", get("tap rows")):
                rows = self._clip(bound, "row", tap, shape.rows)
                with k.scope():
                    self._tap_columns(work, rows)
                k.sadd(tap, 1, tap)

    def _tap_columns(self, work: _Tiles, rows: _Clipped) -> None:
        k, get = self.k, self.records.get
        tap = get("tap column")
        bound = self._bounds("column", tap)
        with k.loop("tap columns", get("tap columns")):
            columns = self._clip(bound, "column", tap, self.blocking.shape.columns)
            with k.scope():
                work.emit(rows, columns)
            k.sadd(work.sums_of_tap, work.tap_bytes, work.sums_of_tap)
            k.sadd(tap, 1, tap)

    def _bounds(self, axis: str, tap: Register) -> Register:
        """Return a pointer to a tap's bounds."""
        pointer = self.k.scalar_address(f"bounds of {axis}s")
        with self.k.scope():
            return self.k.point(pointer, self.bounds[axis], self.k.sshfll(3, tap))

    def _clip(self, bound: Register, axis: str, tap: Register, extent: Extent) -> _Clipped:
        """Clip the chunk's positions along an axis to those of a tap."""
        k, get = self.k, self.records.get
        names = ("first position", "first pixel", "positions")
        clipped = _Clipped(*(k.scalar(f"{name} of {axis}") for name in names))
        with k.scope():
            begin = get(axis)
            low = k.smax(k.sldw(bound.post(1)), begin)
            high = k.smin(k.sldw(bound.post(1)), k.sadd(begin, get(f"{axis}s")))
            k.smax(k.ssub(low, high), 0, clipped.count)
            k.ssub(begin, low, clipped.position)
            corner = k.sadd(k.smulis(low, k.constant(extent.stride)), tap)
            skipped = k.sadd(get(f"image {axis}"), k.constant(extent.pad))
            k.ssub(skipped, corner, clipped.pixel)
        return clipped


class _Tiles:
    """The tiles of a tap: 8 outputs by 4 channels each; their sums follow on each other in AM."""

    def __init__(
        self,
        loops: TapLoops,
        gradients: Register,
        images: Register,
        buffers: tuple[Buffer, Buffer],
    ) -> None:
        self.loops, self.k, self.buffers = loops, loops.k, buffers
        self.gradients, self.images = gradients, images
        k = self.k
        self.gradient_pixel, self.output_tiles = self._extent("outputs", OUTPUTS)
        self.image_pixel, self.channel_tiles = self._extent("channels", CHANNELS)
        self.tile_bytes = 4 * k.machine.vpu.lanes * OUTPUTS * CHANNELS
        self.tap_bytes, self.sums_of_tap = k.scalar("tap's bytes"), k.constant(loops.sums.address)
        with k.scope():
            tiles = k.smulis(self.output_tiles, self.channel_tiles)
            k.smulis(tiles, k.constant(self.tile_bytes), self.tap_bytes)
        self.accumulators = k.vectors("sum", OUTPUTS, CHANNELS)
        names = ("gradients", "images", "sums")
        self.pointers = [k.vector_address(name) for name in names]
        self.product = OuterProduct(
            k, loops.blocking.vectors, self.accumulators, *self.pointers[:2]
        )

    def _extent(self, field: str, tile: int) -> tuple[Register, Register]:
        """Return the bytes of a pixel in AM, and how many tiles (a power of two) hold its rows."""
        k = self.k
        pixel, tiles = k.scalar(f"bytes of {field}"), k.scalar(f"tiles of {field}")
        with k.scope():
            rows = self.loops.records.get(field)
            k.smulis(rows, k.constant(self.loops.row_bytes), pixel)
            k.sshfar(tile.bit_length() - 1, k.sadd(rows, tile - 1), tiles)
        return pixel, tiles

    def emit(self, rows: _Clipped, columns: _Clipped) -> None:
        """Emit the loops over tiles for a rectangle of positions."""
        k = self.k
        steps = k.smulis(rows.count, columns.count)
        walk = Walk(columns.count, self.gradient_pixel, *(k.scalar(n) for n in ("a", "b", "c")))
        gradients, images = k.scalar("gradients of tap"), k.scalar("images of tap")
        self._find(rows, columns, walk, gradients, images)
        outer = self.product.steps(walk)
        enough, few = outer.enough(steps), k.scalar("few steps")
        with k.scope():
            k.ssub(enough, k.slt(0, steps), few)
        with k.when(enough):
            self._loops(walk, gradients, images, partial(outer.pipelined, steps))
        with k.when(few):
            self._loops(walk, gradients, images, partial(outer.one_by_one, steps))

    def _find(
        self,
        rows: _Clipped,
        columns: _Clipped,
        walk: Walk,
        gradients: Register,
        images: Register,
    ) -> None:
        """Compute where the rectangle begins in AM, and how pointers walk over it."""
        k, get, shape = self.k, self.loops.records.get, self.loops.blocking.shape
        with k.scope():
            width = get("columns")
            pixel = k.sadd(k.smulis(rows.position, width), columns.position)
            k.sadd(self.gradients, k.smulis(pixel, self.gradient_pixel), gradients)
            behind = k.sadd(k.ssub(columns.count, width), 1)
            k.smulis(behind, self.gradient_pixel, walk.gradient_jump)
        with k.scope():
            width, stride = get("image columns"), k.constant(shape.columns.stride)
            pixel = k.sadd(k.smulis(rows.pixel, width), columns.pixel)
            k.sadd(self.images, k.smulis(pixel, self.image_pixel), images)
            k.smulis(self.image_pixel, stride, walk.image_step)
            lower = k.smulis(width, k.constant(shape.rows.stride))
            behind = k.ssub(k.smulis(k.ssub(1, columns.count), stride), lower)
            k.smulis(behind, self.image_pixel, walk.image_jump)

    def _loops(self, walk: Walk, gradients: Register, images: Register, run: Run) -> None:
        k, row_bytes = self.k, self.loops.row_bytes
        with k.scope():
            sums, gradient = k.smov(self.sums_of_tap), k.smov(gradients)
            with self._each("output tiles", self.output_tiles):
                image = k.smov(images)
                with self._each("channel tiles", self.channel_tiles):
                    self._tile(walk, (gradient, image, sums), run)
                    k.sadd(image, k.constant(CHANNELS * row_bytes), image)
                    k.sadd(sums, k.constant(self.tile_bytes), sums)
                k.sadd(gradient, k.constant(OUTPUTS * row_bytes), gradient)

    @contextmanager
    def _each(self, name: str, count: Register) -> Iterator[None]:
        """Run the body `count` times, at least once."""
        k = self.k
        with k.scope():
            left = k.smov(count)
            with k.until_zero(name, left):
                yield
                k.ssub(1, left, left)

    def _load(self, number: int) -> None:
        place = self.pointers[2] + self.k.machine.vpu.lanes * number
        self.k.vldw(place, self.accumulators[number])

    def _tile(self, walk: Walk, starts: tuple[Register, ...], run: Run) -> None:
        """Take the tile's sums from AM, add all products of the walk, put them back."""
        k, lanes = self.k, self.k.machine.vpu.lanes
        buffers = (*self.buffers, self.loops.sums)
        for pointer, start, buffer in zip(self.pointers, starts, buffers, strict=True):
            k.point_at(pointer, start, buffer)
        place, together = self.pointers[2], len(k.machine.slots_of(Unit.VLDST))
        loads = [partial(self._load, number) for number in range(len(self.accumulators))]
        self.product.begin(walk)
        run([loads[first : first + together] for first in range(0, len(loads), together)])
        for number, register in enumerate(self.accumulators):
            k.vstw(register, place + lanes * number)
