"""Columns of samples to rows, on the chip: for products whose lanes hold something else.

Layers hand on matrices with one column per sample. The gradient of fully connected weights sums
over samples, so its operands are needed with one row per sample. Each core turns the blocks of its
own samples: a run of rows comes to AM by a DMA transpose, and goes back to DDR as a piece of every
sample's row. Two halves of AM alternate.
"""

from __future__ import annotations

from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.operands import Register
from isa.program import Buffer
from kernels.samples.blocks import DeviceBlock, each_block, rows_of_half
from kernels.samples.columns import BatchSplit
from kernels.streaming.streams import LATER, Drain, Stream

LOAD_CHANNEL, STORE_CHANNEL, FILL_CHANNEL = 0, 2, 4


def transpose_columns(
    k: Builder, source: Buffer, rows: int, split: BatchSplit, target: Buffer
) -> None:
    """Emit the transposition of `source`, (rows, samples) in column blocks, to (samples, rows).

    Other cores see the result after a barrier.
    """
    with each_block(k, split) as block:
        _Transposition(k, source, rows, split, target, block).emit()


class _Transposition:
    """The registers and streams of one block of samples."""

    def __init__(
        self,
        k: Builder,
        source: Buffer,
        rows: int,
        split: BatchSplit,
        target: Buffer,
        block: DeviceBlock,
    ) -> None:
        self.k, self.source, self.rows, self.target, self.block = k, source, rows, target, block
        self.piece = min(rows, rows_of_half(k, split))
        buffer = k.array_buffer("runs of rows", 8 * self.piece * split.largest)
        turned = TransferRequest(LATER, LATER, transpose=True)
        self.loads = Stream.make(k, f"rows of {source.name}", buffer, LOAD_CHANNEL, turned)
        stored = TransferRequest(LATER, Plane(0, 1, 1, 4 * rows))
        name = f"samples of {source.name}"
        self.stores: Drain = self.loads.sharing(k, name, STORE_CHANNEL, stored).drain()

    def emit(self) -> None:
        """Emit the loop over runs of rows."""
        k = self.k
        left, count, source, target = (
            k.scalar(name) for name in ("rows left", "rows in work", "source", "target")
        )
        k.constant(self.rows, left)
        with k.scope():
            sample = k.number(4 * self.rows)
            self.block.find(k, sample, (self.source, source), (self.target, target))
        self._fix_fields()
        self.loads.reset()
        self.stores.forget()
        with k.until_zero("runs of rows", left):
            k.smin(left, k.number(self.piece), count)
            self.stores.claim()
            self._load(source, count)
            self._store(target, count)
            self.loads.turn()
            with k.scope():
                k.sadd(source, k.smulis(count, self.block.row_bytes), source)
                k.sadd(target, k.sshfll(2, count), target)
            k.ssub(count, left, left)
        self.stores.finish()

    def _fix_fields(self) -> None:
        """Fill in what the block's number of samples decides."""
        k, load, store = self.k, self.loads.descriptor, self.stores.stream.descriptor
        k.set_field(load, "source_row_words", self.block.samples)
        k.set_field(load, "source_stride", self.block.row_bytes)
        k.set_field(load, "destination_rows", self.block.samples)
        k.set_field(store, "destination_rows", self.block.samples)

    def _load(self, source: Register, count: Register) -> None:
        k, descriptor = self.k, self.loads.descriptor
        k.set_address(descriptor, "source", source)
        k.set_field(descriptor, "source_rows", count)
        k.set_field(descriptor, "destination_row_words", count)
        with k.scope():
            k.set_field(descriptor, "destination_stride", k.sshfll(2, count))
        self.loads.start_into(other=False)
        self.loads.wait()

    def _store(self, target: Register, count: Register) -> None:
        k, descriptor = self.k, self.stores.stream.descriptor
        k.set_field(descriptor, "destination_row_words", count)
        with k.scope():
            words = k.smulis(count, self.block.samples)
            k.set_field(descriptor, "source_row_words", words)
        self.stores.send(target)


def fill(k: Builder, target: Buffer, offset: int, words: int, value: float) -> None:
    """Let the first core write a number to `words` words of DDR, in whole vectors.

    `offset` is in bytes. Other cores see them after a barrier.
    """
    lanes = k.machine.vpu.lanes
    if words % lanes:
        raise k.error(f"'{target.name}': fill writes vectors of {lanes} words, not {words} words")
    with k.scope():
        vector = k.array_buffer(f"vector of {value:g}", 4 * lanes)
        request = TransferRequest(
            Plane(vector.address, words // lanes, lanes, 0),
            Plane(target.address + offset, 1, words, 0),
        )
        with k.when_zero(k.scoreid()):
            k.vstw(k.vmovi(value), k.point(k.vector_address("vector"), vector) + 0)
            k.start(k.descriptor(f"fill of {target.name}", request), FILL_CHANNEL)
            k.wait(FILL_CHANNEL)
