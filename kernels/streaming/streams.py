"""Double buffers on the device: one half is worked on while DMA fills or empties the other.

A stream owns two halves of a buffer, two channels and one descriptor. One register holds the
address of the half in use; everything else follows from it.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.language.transfers import Descriptor
from isa.operands import Register
from isa.program import Buffer

LATER = Plane(0, 1, 1, 0)
"""A side of a transfer whose fields device code fills in."""

BOTH_LATER = TransferRequest(LATER, LATER)
"""A transfer of which device code fills in both sides."""

CALLERS_LINES = True
"""Transfers have the line of whoever starts them, so that listings and traces tell them apart."""


@frozen
class Stream:
    """Two halves of one buffer, filled or emptied by DMA in turn."""

    k: Builder
    buffer: Buffer
    half: int
    """Bytes of a half."""
    channel: int
    """The first of two channels."""
    descriptor: Descriptor
    current: Register
    """Address of the half in use."""

    @staticmethod
    def make(
        k: Builder, name: str, buffer: Buffer, channel: int, request: TransferRequest
    ) -> Stream:
        """Take the register and place the descriptor; `request` fixes what never changes.

        Raise KernelError if the machine has too few DMA channels.
        """
        _check_channels(k, name, channel)
        half, descriptor = buffer.bytes // 2, k.descriptor(name, request)
        return Stream(k, buffer, half, channel, descriptor, k.scalar(f"{name} half"))

    def sharing(self, k: Builder, name: str, channel: int, request: TransferRequest) -> Stream:
        """Return another stream over the same halves, which turn together.

        Raise KernelError if the machine has too few DMA channels.
        """
        _check_channels(k, name, channel)
        return Stream(k, self.buffer, self.half, channel, k.descriptor(name, request), self.current)

    def reset(self) -> None:
        """Start with the first half."""
        self.k.constant(self.buffer.address, self.current)

    def other(self) -> Register:
        """Return the address of the other half in a register of this scope."""
        both = self.k.constant(2 * self.buffer.address + self.half)
        other: Register = self.k.ssub(self.current, both)
        return other

    def turn(self) -> None:
        """Exchange the halves."""
        with self.k.scope():
            self.k.smov(self.other(), self.current)

    def start(self, *, other: bool) -> None:
        """Start the transfer of a half; the descriptor must be complete."""
        with self.k.scope():
            self.k.start(self.descriptor, self._channel(other))

    def start_into(self, *, other: bool) -> None:
        """Start the transfer that fills a half; all but the half must be in the descriptor."""
        with self.k.scope():
            half = self.other() if other else self.current
            self.k.set_field(self.descriptor, "destination_low", half)
        self.start(other=other)

    def start_from(self, target: Register) -> None:
        """Start the transfer of the half in use to the DDR address in a register."""
        self.k.set_address(self.descriptor, "destination", target)
        self.k.set_field(self.descriptor, "source_low", self.current)
        self.start(other=False)

    def wait(self, *, other: bool = False) -> None:
        """Wait for the transfer of a half."""
        with self.k.scope():
            self.k.wait(self._channel(other))

    def is_second(self, *, other: bool) -> Register:
        """Return 1 if a half is the second one, in a register of this scope."""
        edge = self.k.constant(self.buffer.address + self.half)
        compare = self.k.slt if other else self.k.seq
        second: Register = compare(self.current, edge)
        return second

    def drain(self) -> Drain:
        """Return this stream as one that stores; takes registers of the scope."""
        return Drain(self, self.k.scalar("half busy"), self.k.scalar("other half busy"))

    def _channel(self, other: bool) -> Register:
        channel: Register = self.k.sadd(self.is_second(other=other), self.channel)
        return channel


@frozen
class Drain:
    """A stream that stores: it knows which of its halves are still on their way to DDR."""

    stream: Stream
    busy: Register
    """1 while the half in use is being stored."""
    other_busy: Register

    def reset(self) -> None:
        """Start with the first half; nothing is on its way."""
        self.stream.reset()
        self.forget()

    def forget(self) -> None:
        """Take both halves for stored, where the halves are another stream's to reset."""
        self.stream.k.smovi(0, self.busy)
        self.stream.k.smovi(0, self.other_busy)

    def claim(self, *, other: bool = False) -> None:
        """Wait until the half in use, or the other one, may be written again."""
        with self.stream.k.when(self.other_busy if other else self.busy):
            self.stream.wait(other=other)

    def send(self, target: Register) -> None:
        """Start storing the half in use to a DDR address; `Stream.turn` must follow."""
        self.stream.start_from(target)
        self.stream.k.smov(self.other_busy, self.busy)
        self.stream.k.smovi(1, self.other_busy)

    def finish(self) -> None:
        """Wait for both halves."""
        for half, flag in ((False, self.busy), (True, self.other_busy)):
            with self.stream.k.when(flag):
                self.stream.wait(other=half)


def _check_channels(k: Builder, name: str, channel: int) -> None:
    if channel + 2 > k.machine.dma.channels:
        raise k.error(
            f"'{name}' uses DMA channels {channel} and {channel + 1}, and the machine has "
            f"dma.channels={k.machine.dma.channels}; use a machine with more"
        )
