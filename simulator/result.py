"""What a run of the chip leaves behind: cycles, counters, stalls and transfers.

Filled by the chip, read by the report, the trace and `explain`-like tools. All times are cycles of
the chip's clock from the start of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

DMA_WAIT = "dma_wait"
BARRIER = "barrier"
BANK_CONFLICT = "bank_conflict"

CAUSES = (DMA_WAIT, BARRIER, BANK_CONFLICT)
"""Why a core stands still; every stalled cycle is booked to one of these."""


@frozen
class StallPlace:
    """Where a stall is booked: packet number, cause, and the transfer waited for (-1: none)."""

    packet: int
    cause: str
    transfer: int = -1


@frozen
class CoreResult:
    """One core: when it halted, how often each packet issued, where it stalled."""

    halted: int
    executed: tuple[int, ...]
    """Times each packet of the program issued."""
    stalls: Mapping[StallPlace, int]
    vmac_lanes: int
    """Lanes enabled, summed over everything issued on VMAC slots."""


@frozen
class TransferResult:
    """One DMA transfer, named by the buffers it joins."""

    id: int
    mask: int
    """Cores that take part, bit mask."""
    channels: tuple[tuple[int, int], ...]
    """(core, channel) of each member."""
    source: str
    destination: str
    """Buffer names; of the lowest core's own part for a broadcast."""
    mode: str
    """copy, transpose, broadcast or broadcast transpose."""
    ddr_bytes: int
    """Traffic in whole bursts."""
    first_request: int
    last_request: int
    begin: int
    end: int
    packet: int
    """The packet that started it (on its lowest core)."""


@frozen
class ChipResult:
    """A whole run."""

    cycles: int
    cores: tuple[CoreResult, ...]
    transfers: Sequence[TransferResult]
    """In the order of their ends."""
    ddr_bytes: int


class Tracer(Protocol):
    """What a traced run tells as it goes; a window is the tracer's business."""

    def packet(self, core: int, cycle: int, packet: int) -> None:
        """Core issues a packet at a cycle."""

    def stall(self, core: int, cycle: int, cycles: int, place: StallPlace) -> None:
        """Core stands still for `cycles` cycles from `cycle` on."""
