"""The device program of a convolution's weight gradient: sums over samples and positions, in AM.

    for every group of sums (outputs x channels x taps) of this core:       clear its sums
        for every block of samples, every chunk of positions:   gradients, pixels: DDR -> AM
            for every tap of the group: clip the chunk to the positions that meet real pixels
                for every tile of 8 outputs x 4 channels: load sums, outer product, store sums
        sum over the lanes                                      words of the group: AM -> DDR

While a chunk is worked on, the next one is under way, be it the next group's. Sums of biases grow
beside those of the first channels and taps.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from isa import Builder
from isa.operands import File, Register
from isa.program import Buffer
from kernels.weight_gradient.blocking import SLACK_ROWS, GradientBlocking
from kernels.weight_gradient.lane_sums import RowSums
from kernels.weight_gradient.outer_product import OUTPUTS
from kernels.weight_gradient.pixel_stream import Area, Layer, PixelStream
from kernels.weight_gradient.results import GradientResults
from kernels.weight_gradient.taps import TapLoops
from kernels.weight_gradient.walk import Deal, GradientWalk

CLEARED = 32
"""Vectors that one turn of a loop clears."""


@frozen
class WeightGradient:
    """A weight gradient to emit: its cut, who works on what, its operands in DDR."""

    blocking: GradientBlocking
    deal: Deal
    x: Buffer
    dz: Buffer
    dweight: tuple[Buffer, ...]
    """Where each core puts its groups' words, in the order of all groups."""
    dbias: tuple[Buffer, ...]

    def emit(self, k: Builder) -> None:
        """Emit the loop over chunks; a core without groups skips it."""
        with k.scope():
            some = k.argument("has groups", *(int(len(own) > 0) for own in self.deal.groups))
            with k.when(some):
                _Chunks(k, self).emit()


class _Chunks:
    """The streams, buffers and registers of one core, and its loop over chunks."""

    def __init__(self, k: Builder, whole: WeightGradient) -> None:
        self.k, self.blocking = k, whole.blocking
        self.lanes, vectors = k.machine.vpu.lanes, self.blocking.vectors
        self.row_bytes = 4 * self.lanes * vectors
        self._take_streams(whole)
        self.sums = k.array_buffer("sums", 4 * self.lanes * self.blocking.sums)
        self.walk = GradientWalk(k, self.blocking, whole.deal)
        self.records = self.walk.records
        self.taps = TapLoops(k, self.blocking, self.row_bytes, self.sums, self.records)
        self.results = GradientResults(
            k, self.blocking, whole.deal, self.sums, whole.dweight, whole.dbias
        )

    def _take_streams(self, whole: WeightGradient) -> None:
        k, shape = self.k, self.blocking.shape
        (positions, pixels), pieces = self.blocking.buffer_rows, self.blocking.pieces
        rows, columns = shape.rows, shape.columns
        self.gradients = PixelStream(
            k, "gradients", whole.dz, Layer(rows.outputs, columns.outputs, shape.outputs),
            positions, self.row_bytes, pieces[0], self.blocking.first_channels[0],
        )  # fmt: skip
        self.images = PixelStream(
            k, "images", whole.x, Layer(rows.input, columns.input, shape.channels),
            pixels, self.row_bytes, pieces[1], self.blocking.first_channels[1],
        )  # fmt: skip

    def emit(self) -> None:
        """Emit the loop over the chunks of all groups, fetching one ahead."""
        k, walk = self.k, self.walk
        self.gradients.halves.reset()
        self.images.halves.reset()
        walk.restart()
        self._fetch(other=False)
        with k.until_zero("chunks", walk.groups_left):
            self.records.turn()
            self._receive()  # only then fetch more: shared, the DDR would be late for both
            walk.advance()
            with k.when(walk.groups_left):
                walk.describe()
                self._fetch(other=True)
            self._work()
            self.gradients.halves.turn()
            self.images.halves.turn()
        self.results.drain()

    def _fetch(self, *, other: bool) -> None:
        """Start the transfers of the walk's chunk."""
        for stream, area in self._streams:
            with self.k.scope():
                first, samples = self.walk.first_sample, self.walk.samples
                stream.fetch(area(following=True), first, samples, other=other)

    def _receive(self) -> None:
        """Wait for the chunk that comes into work."""
        for stream, area in self._streams:
            with self.k.scope():
                stream.wait(area().rows)

    @property
    def _streams(self) -> tuple[tuple[PixelStream, Callable[..., Area]], ...]:
        return (self.gradients, self._positions), (self.images, self._pixels)

    def _positions(self, *, following: bool = False) -> Area:
        names = ("row", "column", "rows", "columns", "output", "outputs")
        return Area(*(self.records.get(name, following=following) for name in names))

    def _pixels(self, *, following: bool = False) -> Area:
        image = ("image row", "image column", "image rows", "image columns")
        names = (*image, "channel", "channels")
        return Area(*(self.records.get(name, following=following) for name in names))

    def _work(self) -> None:
        """Add the chunk in work to the sums of its group, which it may open or close."""
        k, get = self.k, self.records.get
        with k.scope(), k.when(get("opens group")):
            self._clear_sums()
        if self.blocking.slack:
            for stream, area in self._streams:
                with k.scope():
                    self._clear_rest(stream, area())
        with k.scope(), k.when(get("sums biases")):
            self._sum_biases()
        buffers = self.gradients.halves.buffer, self.images.halves.buffer
        self.taps.emit(self.gradients.halves.current, self.images.halves.current, buffers)
        with k.scope(), k.when(get("closes group")):
            self.results.store(self.records)

    def _clear_sums(self) -> None:
        k = self.k
        pointer, zero = k.point(k.vector_address("sums"), self.sums), k.vmovi(0)
        for name, sums, turn in (
            ("clear sums", self.blocking.weights, CLEARED),
            ("clear biases", self.blocking.outputs, OUTPUTS),
        ):
            with k.loop(name, sums // turn):
                self._clear(pointer, zero, range(turn))
                k.sadda(k.constant(4 * self.lanes * turn), pointer, pointer)

    def _clear(self, pointer: Register, zero: Register, vectors: range) -> None:
        for vector in vectors:
            self.k.vstw(zero, pointer + self.lanes * vector)

    def _clear_rest(self, stream: PixelStream, area: Area) -> None:
        """Clear what the transfers of an area leave of its last vectors and tiles."""
        k = self.k
        rows = k.smulis(k.smulis(area.rows, area.columns), area.channels)
        pointer, zero = k.vector_address("behind"), k.vmovi(0)
        behind = k.sadd(stream.halves.current, k.smulis(rows, k.constant(self.row_bytes)))
        k.point_at(pointer, behind, stream.halves.buffer)
        self._clear(pointer, zero, range(self.blocking.slack * self.blocking.vectors))
        if self.blocking.tails:
            self._clear_tails(stream, rows, pointer, zero)

    def _clear_tails(
        self, stream: PixelStream, rows: Register, pointer: Register, zero: Register
    ) -> None:
        """Clear the lanes of every row's last vector that hold no sample."""
        k, vectors, mask = self.k, self.blocking.vectors, Register(File.LANE_MASK)
        last = (vectors - 1) * self.lanes
        k.point_at(
            pointer, k.sadd(stream.halves.current, k.constant(4 * last)), stream.halves.buffer
        )
        filled = k.ssub(k.constant(last), self.records.get("samples"))
        k.smvcgc_vlr(k.sshfll(filled, k.constant(-1)), mask)
        turns = k.sshfar(SLACK_ROWS.bit_length() - 1, k.sadd(rows, SLACK_ROWS - 1))
        with k.loop("clear tails", turns):
            for row in range(SLACK_ROWS):
                k.vstw(zero, pointer + row * vectors * self.lanes)
            k.sadda(k.constant(SLACK_ROWS * self.row_bytes), pointer, pointer)
        k.smvcgc_vlr(k.constant((1 << self.lanes) - 1), mask)

    def _sum_biases(self) -> None:
        """Add every row of gradients to its output's sum."""
        k, get, lane_bytes = self.k, self.records.get, 4 * self.lanes
        outputs = get("outputs")
        step = k.smulis(outputs, k.constant(self.row_bytes))
        positions = k.smulis(get("rows"), get("columns"))
        rows = k.smov(self.gradients.halves.current)
        sums = k.constant(self.sums.address + lane_bytes * self.blocking.weights)
        registers, left = k.vectors("sum", OUTPUTS), k.scalar_predicate("left")
        row, place = k.vector_address("rows"), k.vector_address("sums")
        adder = RowSums(k, self.blocking.vectors, registers, row, step)
        with k.loop("bias tiles", k.sshfar(OUTPUTS.bit_length() - 1, k.sadd(outputs, OUTPUTS - 1))):
            k.point_at(row, rows, self.gradients.halves.buffer)
            k.point_at(place, sums, self.sums)
            for number, register in enumerate(registers):
                k.vldw(place + self.lanes * number, register)
            adder.add(positions, left)
            for number, register in enumerate(registers):
                k.vstw(register, place + self.lanes * number)
            k.sadd(rows, k.constant(OUTPUTS * self.row_bytes), rows)
            k.sadd(sums, k.constant(OUTPUTS * lane_bytes), sums)
