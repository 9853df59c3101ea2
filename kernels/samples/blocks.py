"""The samples of a core on the device: a table of its blocks in SM, and the loop over them.

Every kernel with samples in the lanes runs its body once a block; the body finds the block's
first sample, row length and lane mask in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen

from isa import Builder
from isa.operands import File, Register
from isa.program import Buffer
from kernels.samples.columns import BatchSplit, Block

FIELDS = 7
"""Words of a block in the table: first sample, samples, four vector offsets in bytes, lane mask."""


LANES = Register(File.LANE_MASK)
"""The mask of enabled lanes, VLR."""


def table_bytes(split: BatchSplit) -> int:
    """Return the bytes of SM that the table of a core's blocks takes."""
    return 4 * FIELDS * split.count


@frozen
class DeviceBlock:
    """Registers of the block being worked on."""

    first: Register
    """First sample of the block, in the whole batch."""
    samples: Register
    """Samples of the block: the words of a row."""
    offsets: tuple[Register, ...]
    """Byte offset of each vector within a row."""
    row_bytes: Register
    """Bytes of a row."""
    row_step: Register
    """OR register with the words of a row, for `*AR++[OR]` of vector accesses."""

    def find(
        self, k: Builder, sample_bytes: int | Register, *places: tuple[Buffer, Register]
    ) -> None:
        """Compute the address of the block in tensors with so many bytes for each sample."""
        with k.scope():
            offset = k.smulis(self.first, sample_bytes)
            for tensor, place in places:
                k.sadd(k.number(tensor.address), offset, place)


def rows_of_half(k: Builder, split: BatchSplit) -> int:
    """Return how many rows of samples fit half of AM; KernelError if none does."""
    row_bytes = 4 * split.largest
    rows = k.machine.am.bytes // 2 // row_bytes
    if rows < 1:
        raise k.error(
            f"AM has {k.machine.am.bytes:,} bytes, {2 * row_bytes:,} are needed: a row of "
            f"{split.largest} samples, twice; use a larger am.bytes or a smaller batch"
        )
    return rows


@contextmanager
def each_block(k: Builder, split: BatchSplit) -> Iterator[DeviceBlock]:
    """Run the body for every block of this core, with its lanes enabled; idle cores skip it.

    All lanes are enabled again afterwards.
    """
    table = k.constants("blocks", *_table(split, k.cores))
    with _busy_cores(k, split), k.scope():
        pointer = k.scalar_address("block table")
        k.point(pointer, table)
        names = ("first sample", "samples", *(f"vector {v}" for v in range(split.vectors)))
        values = [k.scalar(name) for name in names]
        row_bytes, row_step = k.scalar("row bytes"), k.vector_offset("row step")
        with k.loop("blocks", split.count):
            for position, value in enumerate(values):
                k.sldw(pointer + position, value)
            with k.scope():
                k.smvcgc_vlr(k.sldw(pointer + (FIELDS - 1)), LANES)
            k.sadda(4 * FIELDS, pointer, pointer)
            k.smvaga(values[1], row_step)
            k.sshfll(2, values[1], row_bytes)
            yield DeviceBlock(values[0], values[1], tuple(values[2:]), row_bytes, row_step)
        k.smvcgc_vlr(k.constant((1 << k.machine.vpu.lanes) - 1), LANES)


@contextmanager
def _busy_cores(k: Builder, split: BatchSplit) -> Iterator[None]:
    """Run the body on cores that have samples."""
    with k.scope():
        if split.active == k.cores:
            yield
            return
        with k.when(k.slt(k.scoreid(), k.number(split.active))):
            yield


def _table(split: BatchSplit, cores: int) -> list[list[int]]:
    """Return the block table of each core; an idle core's is never read."""
    idle = (Block(0, 1, 1),) * split.count
    return [
        [word for block in row for word in _words(block)]
        for row in (*split.blocks, *(idle,) * (cores - split.active))
    ]


def _words(block: Block) -> list[int]:
    offsets = [4 * offset for offset in block.offsets]
    padding = [0] * (FIELDS - 3 - len(offsets))
    return [block.first, block.samples, *offsets, *padding, (1 << block.width) - 1]
