"""The device program of everything done word by word: several long vectors become one.

The words are split over the cores in whole vectors. Every core streams its part through AM in
pieces: a half of the buffer holds a piece of every source, and the results overwrite the first
one's. While one half is worked on, DMA empties and fills the other.

The kernels of `elementwise` are nothing else; others end with a phase of it, to update weights or
to add up what the cores have computed each for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product

from attrs import evolve, field, frozen

from isa import Builder, KernelError
from isa.operands import File, Register
from isa.program import Buffer
from kernels.streaming.streams import BOTH_LATER, Stream

Combine = Callable[[Builder, list[Register]], None]
"""Emits the work on one vector: gets a register for each source, leaves the result in the first."""

LONGEST_PIECE = 8192
"""Words of a piece; more would only leave more of the first load and the last store unhidden."""

MOST_VECTORS = 16
"""Vectors of one turn of the main loop: enough to hide the load latency."""

VALUE_REGISTERS = 48
"""Registers for their values; the others are for constants of the caller and `combine`."""


@frozen
class Elementwise:
    """`target[i] = combine(source[i] for every source)` for `words` words, emitted by `emit`.

    The target may be one of the sources: a core reads every word before it writes it. Channels:
    two for every source, from 0 on, and two for the target.
    """

    k: Builder
    words: int
    sources: Sequence[Buffer]
    """In DDR, at least `words` words each; `part` gives one that starts inside a buffer."""
    target: Buffer
    combine: Combine
    name: str = field(default="words", kw_only=True)
    """Names the loops, buffers and transfers of this phase in listings and reports."""

    def emit(self) -> None:
        """Emit the program of all cores; a core without words skips it.

        When it ends, all that this core stores is in DDR. Registers and buffers are given back.
        Raise KernelError for a source or target that is too small, and if AM is.
        """
        self._check()
        k, lanes = self.k, self.k.machine.vpu.lanes
        vectors = -(-self.words // lanes)
        starts = [vectors * core // k.cores for core in range(k.cores + 1)]
        ends = [min(lanes * start, self.words) for start in starts]
        counts = [end - start for start, end in pairwise(ends)]
        with k.scope():
            left = k.argument(f"{self.name} left", *counts)
            with k.when(left):
                first = k.argument(f"first vector of {self.name}", *starts[:-1])
                offset = k.smulis(first, 4 * lanes)
                _Pieces(self, self._piece(max(counts)), left, offset).emit()

    def _check(self) -> None:
        for buffer in (*self.sources, self.target):
            if buffer.space != "DDR" or buffer.bytes < 4 * self.words:
                raise self.k.error(
                    f"'{self.name}' needs {4 * self.words:,} bytes of DDR, "
                    f"'{buffer.name}' has {buffer.bytes:,} of {buffer.space}"
                )

    def _piece(self, words: int) -> int:
        """Return the words of a piece, whole vectors, if a core has at most so many words."""
        am, lanes, sources = self.k.machine.am.bytes, self.k.machine.vpu.lanes, len(self.sources)
        fit = am // (8 * sources) // lanes * lanes
        if fit < 1:
            each = "a vector" if sources == 1 else f"a vector of each of {sources} sources"
            raise self.k.error(
                f"AM has {am} bytes, {8 * lanes * sources} are needed: {each}, twice; use a "
                "larger am.bytes"
            )
        return min(fit, LONGEST_PIECE, -(-words // lanes) * lanes)


def part(buffer: Buffer, first: int, size: int) -> Buffer:
    """Return the `size` bytes from byte `first` of a buffer on, as a buffer of the same name.

    Raise KernelError if they reach beyond the buffer.
    """
    if first < 0 or size < 0 or first + size > buffer.bytes:
        raise KernelError(
            f"'{buffer.name}' has {buffer.bytes:,} bytes, {size:,} from byte {first:,} on do not "
            "lie inside"
        )
    return evolve(buffer, address=buffer.address + first, bytes=size)


def add_in_order(k: Builder, values: list[Register]) -> None:
    """Add up the sources, the first one first: a `Combine`."""
    for value in values[1:]:
        k.vfadds32(values[0], value, values[0])


class _Pieces:
    """The halves, streams and registers of one core's walk over its pieces."""

    def __init__(self, whole: Elementwise, piece: int, left: Register, offset: Register) -> None:
        self.whole, self.k, self.piece, self.left, self.offset = whole, whole.k, piece, left, offset
        k, name, sources = whole.k, whole.name, whole.sources
        self.buffer = k.array_buffer(f"pieces of {name}", 8 * piece * len(sources))
        first = Stream.make(k, f"load of {name}", self.buffer, 0, BOTH_LATER)
        further = range(1, len(sources))
        self.loads = [
            first, *(first.sharing(k, f"load {n} of {name}", 2 * n, BOTH_LATER) for n in further)
        ]  # fmt: skip
        store = first.sharing(k, f"store of {name}", 2 * len(sources), BOTH_LATER)
        self.halves, self.stores = first, store.drain()

    def emit(self) -> None:
        """Emit the loop over pieces, one ahead of the work."""
        k, left = self.k, self.left
        count, here = k.scalar("words in work"), k.scalar("byte in work")
        self.stores.reset()
        self._fetch(other=False)
        with k.until_zero(f"pieces of {self.whole.name}", left):
            k.smin(left, k.constant(self.piece), count)
            k.ssub(count, left, left)
            k.smov(self.offset, here)
            k.sadd(here, k.sshfll(2, count), self.offset)
            with k.when(left):
                self.stores.claim(other=True)
                self._fetch(other=True)
            for load in self.loads:
                load.wait()
            self._work(count)
            self._store(count, here)
            self.halves.turn()
        self.stores.finish()

    def _fetch(self, *, other: bool) -> None:
        """Start the transfers of the next piece of every source."""
        k = self.k
        with k.scope():
            words = k.smin(self.left, k.constant(self.piece))
            half = self.halves.other() if other else self.halves.current
            for number, (load, source) in enumerate(
                zip(self.loads, self.whole.sources, strict=True)
            ):
                with k.scope():
                    address = k.sadd(k.constant(source.address), self.offset)
                    k.set_address(load.descriptor, "source", address)
                    k.set_field(load.descriptor, "source_row_words", words)
                    k.set_field(load.descriptor, "destination_row_words", words)
                    k.set_field(load.descriptor, "destination_low", self._place(half, number))
                load.start(other=other)

    def _store(self, words: Register, offset: Register) -> None:
        """Start the transfer of the finished piece, `offset` bytes into the target."""
        k, descriptor = self.k, self.stores.stream.descriptor
        with k.scope():
            k.set_field(descriptor, "source_row_words", words)
            k.set_field(descriptor, "destination_row_words", words)
            self.stores.send(k.sadd(k.constant(self.whole.target.address), offset))

    def _place(self, half: Register, number: int) -> Register:
        """Return the address of a source's piece in a half."""
        if number == 0:
            return half
        place: Register = self.k.sadd(half, self.k.constant(4 * self.piece * number))
        return place

    def _work(self, words: Register) -> None:
        """Combine the pieces: groups of vectors, the rest one by one, a masked tail."""
        k, lanes = self.k, self.k.machine.vpu.lanes
        group = _vectors_of_a_turn(len(self.loads))
        with k.scope():
            pointers = [k.vector_address(f"source {number}") for number in range(len(self.loads))]
            for number, pointer in enumerate(pointers):
                with k.scope():
                    k.point_at(pointer, self._place(self.halves.current, number), self.buffer)
            vectors = k.sshfar(lanes.bit_length() - 1, words)
            with k.loop("groups", k.sshfar(group.bit_length() - 1, vectors)):
                self._combine(pointers, group)
            with k.loop("vectors", k.sand(vectors, group - 1)):
                self._combine(pointers, 1)
            tail = k.sand(words, lanes - 1)
            with k.when(tail):
                mask = Register(File.LANE_MASK)
                k.smvcgc_vlr(k.ssub(1, k.sshfll(tail, k.constant(1))), mask)
                self._combine(pointers, 1)
                k.smvcgc_vlr(k.constant((1 << lanes) - 1), mask)

    def _combine(self, pointers: Sequence[Register], count: int) -> None:
        """Combine `count` vectors and move on; the access that moves a pointer is its last."""
        k, lanes = self.k, self.k.machine.vpu.lanes
        step = count * lanes
        with k.scope():
            values = k.vectors("value", count, len(pointers))
            backwards = range(count)[::-1]
            for vector, (number, pointer) in product(backwards, enumerate(pointers)):
                moves = vector == 0 and number > 0
                place = pointer.post(step) if moves else pointer + vector * lanes
                k.vldw(place, values[vector, number])
            for vector in backwards:
                with k.scope():
                    self.whole.combine(k, [values[vector, n] for n in range(len(pointers))])
            for vector in backwards:
                place = pointers[0] + vector * lanes if vector else pointers[0].post(step)
                k.vstw(values[vector, 0], place)


def _vectors_of_a_turn(sources: int) -> int:
    """Return how many vectors of each source a turn of the main loop combines: a power of two."""
    fit = max(1, VALUE_REGISTERS // sources)
    return min(MOST_VECTORS, 1 << fit.bit_length() - 1)
