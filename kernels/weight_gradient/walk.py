"""The walk of a core over its groups of sums, blocks of samples and chunks: one chunk ahead.

What a chunk is, is written to a record in SM when the walk comes to it, and read from there when
its transfers start and when it is worked on; two records take turns.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.operands import Register
from kernels.product.window import Extent
from kernels.samples.columns import BatchSplit, Block
from kernels.weight_gradient.blocking import GradientBlocking

FIELDS = (
    "output", "outputs", "channel", "channels", "tap row", "tap rows", "tap column", "tap columns",
    "row", "rows", "column", "columns",
    "image row", "image rows", "image column", "image columns",
    "first sample", "samples", "opens group", "closes group", "sums biases",
)  # fmt: skip
"""Of a record: where the chunk begins and how far it reaches, along each axis; three flags."""


@frozen
class Deal:
    """What each core works on: groups of sums, by number, and blocks of samples."""

    groups: tuple[range, ...]
    blocks: tuple[tuple[Block, ...], ...]

    @staticmethod
    def of_groups(split: BatchSplit, groups: int, cores: int) -> Deal:
        """Share out the groups; every core works on all samples."""
        edges = [groups * core // cores for core in range(cores + 1)]
        blocks = tuple(block for row in split.blocks for block in row)
        return Deal(tuple(map(range, edges, edges[1:])), (blocks,) * cores)

    @staticmethod
    def of_samples(split: BatchSplit, groups: int, cores: int) -> Deal:
        """Give each core its own samples, and all groups; a core without samples has none."""
        idle = cores - split.active
        busy = (range(groups),) * split.active
        return Deal((*busy, *(range(0),) * idle), (*split.blocks, *split.blocks[:1] * idle))


class Records:
    """The chunk in work, `this`, and the `following` one."""

    def __init__(self, k: Builder) -> None:
        self.k, self.size = k, 4 * len(FIELDS)
        self.buffer = k.scalar_buffer("chunks", 2 * self.size)
        self.this, self.following = k.scalar_address("chunk"), k.scalar_address("next chunk")
        self.next = k.scalar("next chunk's record")
        k.constant(self.buffer.address, self.next)
        k.point_at(self.following, self.next, self.buffer)

    def get(self, field: str, *, following: bool = False) -> Register:
        """Load a field to a register of this scope."""
        pointer = self.following if following else self.this
        register: Register = self.k.sldw(pointer + FIELDS.index(field), self.k.scalar(field))
        return register

    def put(self, field: str, value: Register) -> None:
        """Store a field of the following chunk."""
        self.k.sstw(value, self.following + FIELDS.index(field))

    def turn(self) -> None:
        """Make the following chunk this one."""
        k = self.k
        with k.scope():
            k.point_at(self.this, self.next, self.buffer)
            k.ssub(self.next, k.constant(2 * self.buffer.address + self.size), self.next)
            k.point_at(self.following, self.next, self.buffer)


@frozen
class _Axis:
    """One axis of a walk: the register that counts along it, its extent, how far a step goes."""

    name: str
    place: Register
    extent: int
    step: int


class GradientWalk:
    """Registers of the walk; `groups_left` is 0 when it has passed the last chunk."""

    def __init__(self, k: Builder, blocking: GradientBlocking, deal: Deal) -> None:
        self.k, self.blocking, self.deal, self.records = k, blocking, deal, Records(k)
        shape = blocking.shape
        self.taps = [
            self._axis("tap column", shape.columns.size, blocking.tap_columns),
            self._axis("tap row", shape.rows.size, blocking.tap_rows),
            self._axis("channel", shape.channels, blocking.channels),
            self._axis("output", shape.outputs, blocking.outputs),
        ]
        self.positions = [
            self._axis("column", shape.columns.outputs, blocking.columns),
            self._axis("row", shape.rows.outputs, blocking.rows),
        ]
        self.groups_left = k.argument("groups left", *map(len, deal.groups))
        names = ("blocks left", "first sample", "samples", "opens group")
        self.blocks_left, self.first_sample, self.samples, self.opens = map(k.scalar, names)
        self.table = k.constants("samples of blocks", *map(_table, deal.blocks))
        self.block = k.scalar_address("block")

    def _axis(self, name: str, extent: int, step: int) -> _Axis:
        return _Axis(name, self.k.scalar(f"walk's {name}"), extent, step)

    def restart(self) -> None:
        """Go to the first chunk of the core's first group, and describe it."""
        k = self.k
        starts = [_first_places(self.taps, groups.start) for groups in self.deal.groups]
        for axis, *places in zip(self.taps, *starts, strict=True):
            with k.scope():
                k.smov(k.argument(f"first {axis.name}", *places), axis.place)
        for axis in self.positions:
            k.smovi(0, axis.place)
        k.smovi(1, self.opens)
        self._first_block()
        self.describe()

    def advance(self) -> None:
        """Go to the next chunk; where there is one, `describe` must follow."""
        k = self.k
        k.smovi(0, self.opens)
        columns, rows = self.positions
        with k.when_zero(self._step(columns)), k.when_zero(self._step(rows)):
            k.ssub(1, self.blocks_left, self.blocks_left)
            with k.scope():
                ended = k.seq(0, self.blocks_left)
                with k.when(ended):
                    self._next_group()
                with k.when_zero(ended):
                    self._load_block()

    def _step(self, axis: _Axis) -> Register:
        """Go on along an axis, or back to its start; return 1 where it has not ended."""
        k = self.k
        inside: Register = k.scalar("inside")
        with k.scope():
            k.sadd(axis.place, k.constant(axis.step), axis.place)
            k.slt(axis.place, k.constant(axis.extent), inside)
        k.smulis(axis.place, inside, axis.place)
        return inside

    def _next_group(self) -> None:
        k = self.k
        k.ssub(1, self.groups_left, self.groups_left)
        k.smovi(1, self.opens)
        self._first_block()
        tap_column, tap_row, channel, output = self.taps
        with (
            k.when_zero(self._step(tap_column)),
            k.when_zero(self._step(tap_row)),
            k.when_zero(self._step(channel)),
        ):
            self._step(output)

    def _first_block(self) -> None:
        self.k.constant(len(self.deal.blocks[0]), self.blocks_left)
        self.k.point(self.block, self.table)
        self._load_block()

    def _load_block(self) -> None:
        self.k.sldw(self.block.post(1), self.first_sample)
        self.k.sldw(self.block.post(1), self.samples)

    def describe(self) -> None:
        """Write the record of the chunk that the walk has come to."""
        k, put, shape = self.k, self.records.put, self.blocking.shape
        for name, value in (
            ("first sample", self.first_sample),
            ("samples", self.samples),
            ("opens group", self.opens),
        ):
            put(name, value)
        tap_column, tap_row, channel, output = self.taps
        with k.scope():
            inner = k.sor(k.sor(tap_column.place, tap_row.place), channel.place)
            put("sums biases", k.seq(0, inner))
        for axis in (output, channel):
            with k.scope():
                self._describe_extent(axis)
        columns, rows = self.positions
        with k.scope():
            last_row = self._describe_axis(rows, tap_row, "image row", shape.rows, False)
            whole = self.blocking.whole
            last_column = self._describe_axis(
                columns, tap_column, "image column", shape.columns, whole
            )
            last = k.sand(last_row, last_column)
            put("closes group", k.sand(last, k.seq(1, self.blocks_left)))

    def _describe_extent(self, axis: _Axis) -> Register:
        """Write where the chunk begins along an axis and how far it reaches; return the latter."""
        k = self.k
        left = k.ssub(axis.place, k.constant(axis.extent))
        reach: Register = k.smin(left, k.constant(axis.step))
        self.records.put(axis.name, axis.place)
        self.records.put(f"{axis.name}s", reach)
        return reach

    def _describe_axis(
        self, positions: _Axis, taps: _Axis, image: str, extent: Extent, whole: bool
    ) -> Register:
        """Write positions, taps and the pixels they meet; return 1 for the axis's last chunk."""
        k = self.k
        last: Register = k.scalar("last")
        with k.scope():
            count, tap_count = self._describe_extent(positions), self._describe_extent(taps)
            k.seq(k.sadd(positions.place, count), k.constant(extent.outputs), last)
            if whole:
                first, pixels = k.smovi(0), k.constant(extent.input)
            else:
                first, pixels = self._meet(positions.place, count, taps.place, tap_count, extent)
            self.records.put(image, first)
            self.records.put(f"{image}s", pixels)
        return last

    def _meet(
        self, position: Register, count: Register, tap: Register, taps: Register, extent: Extent
    ) -> tuple[Register, Register]:
        """Return the first pixel and how many there are; one where all is padding."""
        k, stride = self.k, self.k.constant(extent.stride)
        first = k.scalar("first pixel")
        corner = k.sadd(k.smulis(position, stride), k.ssub(k.constant(extent.pad), tap))
        k.smin(k.smax(corner, 0), k.constant(extent.input - 1), first)
        reach = k.sadd(k.smulis(k.ssub(1, count), stride), taps)
        end = k.smin(k.sadd(corner, reach), k.constant(extent.input))
        pixels: Register = k.smax(k.ssub(first, end), 1)
        return first, pixels


def _table(blocks: tuple[Block, ...]) -> list[int]:
    return [word for block in blocks for word in (block.first, block.samples)]


def _first_places(axes: list[_Axis], group: int) -> list[int]:
    """Return where a group begins along each axis; the first axis is the fastest."""
    places = []
    for axis in axes:
        group, number = divmod(group, -(-axis.extent // axis.step))
        places.append(axis.step * number)
    return places
