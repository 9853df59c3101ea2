"""ReLU forward: every element for itself, so the words of all samples are one long vector.

The words are split over the cores in whole vectors and stream through AM in double-buffered
pieces, which the ReLU overwrites in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Tensor, Work, kernel
from isa.descriptor import Plane, TransferRequest
from isa.operands import File, Register
from isa.program import Buffer
from kernels import reference
from kernels.streams import Stream

Array = np.ndarray[Any, Any]

LOAD_CHANNEL, STORE_CHANNEL = 0, 2

UNROLLED = 12
"""Vectors of one turn of the main loop: enough to hide the load latency."""


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"z": reference.relu_forward(inputs["x"])}


@kernel(
    inputs=lambda p: {"x": Tensor((p.batch, p.features))},
    outputs=lambda p: {"z": Tensor((p.batch, p.features))},
    work=lambda p: Work(flops=p.batch * p.features),
    reference=_reference,
)
def relu_forward(k: Builder, batch: Count = 64, features: Count = 256) -> None:
    """ReLU: z = 0 where x < 0, else x (NaN stays NaN)."""
    _Elementwise(k, batch * features, k.input("x"), k.output("z")).emit()


class _Elementwise:
    """The split of the words over the cores, and the loop over pieces."""

    def __init__(self, k: Builder, words: int, source: Buffer, target: Buffer) -> None:
        self.k, self.source, self.target = k, source, target
        lanes = k.machine.vpu.lanes
        vectors = -(-words // lanes)
        self.starts = [lanes * (vectors * core // k.cores) for core in range(k.cores + 1)]
        self.starts[-1] = words
        largest = max(end - start for start, end in zip(self.starts, self.starts[1:], strict=False))
        fit = k.machine.am.bytes // 8 // lanes * lanes
        if fit < 1:
            raise k.error(
                f"AM has {k.machine.am.bytes} bytes, {8 * lanes} are needed: a vector, twice; use "
                "a larger am.bytes"
            )
        self.piece = min(fit, -(-largest // lanes) * lanes)
        buffer = k.array_buffer("pieces", 8 * self.piece)
        plain = TransferRequest(Plane(0, 1, 1, 0), Plane(0, 1, 1, 0))
        self.loads = Stream.make(k, "load", buffer, LOAD_CHANNEL, plain)
        self.stores = self.loads.sharing(k, "store", STORE_CHANNEL, plain)

    def emit(self) -> None:
        """Emit the program; a core without words halts at once."""
        k = self.k
        counts = [end - start for start, end in zip(self.starts, self.starts[1:], strict=False)]
        left = k.argument("words left", *counts)
        vector_bytes = 4 * k.machine.vpu.lanes
        first = k.argument("first vector", *(4 * s // vector_bytes for s in self.starts[:-1]))
        offset = k.smulis(first, vector_bytes)
        with k.when_zero(left):
            k.halt()
        self.loads.reset()
        busy, other_busy = k.smovi(0), k.smovi(0)
        count, here = k.scalar("words in work"), k.scalar("byte in work")
        self._fetch(left, offset, other=False)
        with k.until_zero("pieces", left):
            k.smin(left, k.constant(self.piece), count)
            k.ssub(count, left, left)
            k.smov(offset, here)
            k.sadd(offset, k.sshfll(2, count), offset)
            with k.when(left):
                with k.when(other_busy):
                    self.stores.wait(other=True)
                k.smovi(0, other_busy)
                self._fetch(left, offset, other=True)
            self.loads.wait()
            self._clip(count)
            self._store(count, here)
            k.smov(other_busy, busy)
            k.smovi(1, other_busy)
            self.loads.turn()
        for half, flag in ((False, busy), (True, other_busy)):
            with k.when(flag):
                self.stores.wait(other=half)

    def _fetch(self, left: Register, offset: Register, *, other: bool) -> None:
        """Start the transfer of the next piece, `offset` bytes into the source."""
        k, descriptor = self.k, self.loads.descriptor
        with k.scope():
            words = k.smin(left, k.constant(self.piece))
            k.set_address(descriptor, "source", k.sadd(k.constant(self.source.address), offset))
            k.set_field(descriptor, "source_row_words", words)
            k.set_field(descriptor, "destination_row_words", words)
            half = self.loads.other() if other else self.loads.current
            k.set_field(descriptor, "destination_low", half)
        self.loads.start(other=other)

    def _store(self, words: Register, offset: Register) -> None:
        """Start the transfer of the finished piece, `offset` bytes into the target."""
        k, descriptor = self.k, self.stores.descriptor
        with k.scope():
            target = k.sadd(k.constant(self.target.address), offset)
            k.set_address(descriptor, "destination", target)
            k.set_field(descriptor, "source_low", self.stores.current)
            k.set_field(descriptor, "source_row_words", words)
            k.set_field(descriptor, "destination_row_words", words)
        self.stores.start(other=False)

    def _clip(self, words: Register) -> None:
        """Apply the ReLU to the piece: vectors by the dozen, the rest one by one, a masked tail."""
        k, lanes = self.k, self.k.machine.vpu.lanes
        with k.scope():
            read, write = k.vector_address("read"), k.vector_address("write")
            k.point_at(read, self.loads.current, self.loads.buffer)
            k.point_at(write, self.loads.current, self.loads.buffer)
            zero = k.vmovi(0)
            group = k.constant(UNROLLED * lanes)
            rest = k.smov(words)
            many = k.scalar("more groups")
            k.slt(rest, group, many)
            with k.when_zero(many), k.until_zero("groups", many):
                self._clip_vectors(read, write, zero, UNROLLED)
                k.ssub(group, rest, rest)
                k.sxor(1, k.slt(rest, group), many)
            with k.loop("vectors", k.sshfar(lanes.bit_length() - 1, rest)):
                self._clip_vectors(read, write, zero, 1)
            tail = k.sand(rest, lanes - 1)
            with k.when(tail):
                mask = Register(File.LANE_MASK)
                k.smvcgc_vlr(k.ssub(1, k.sshfll(tail, k.constant(1))), mask)
                self._clip_vectors(read, write, zero, 1)
                k.smvcgc_vlr(k.constant((1 << lanes) - 1), mask)

    def _clip_vectors(self, read: Register, write: Register, zero: Register, count: int) -> None:
        k, step = self.k, self.k.machine.vpu.lanes
        with k.scope():
            values = k.vectors("value", count)
            for value in values:
                k.vldw(read.post(step), value)
            for value in values:
                k.vfmaxs32(zero, value, value)
            for value in values:
                k.vstw(value, write.post(step))
