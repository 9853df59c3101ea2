"""What one DMA transfer moves: its legality, its DDR traffic, its copy.

Called by the chip when a core issues DMASTART. The timing of transfers is in `events`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from isa.descriptor import Plane, TransferRequest
from isa.errors import SimulationError
from isa.machine import Machine
from simulator.events import burst_bytes
from simulator.memory import Memory


@frozen
class CheckedTransfer:
    """A legal request of one core with the memories of its two sides."""

    request: TransferRequest
    source: Memory
    destination: Memory

    def ddr_bytes(self, burst: int) -> int:
        """Traffic on the DDR in whole bursts; DDR to DDR counts both directions."""
        total = 0
        for memory, plane in (
            (self.source, self.request.source),
            (self.destination, self.request.destination),
        ):
            if memory.name == "DDR":
                total += burst_bytes(
                    plane.address, plane.rows, plane.row_bytes, plane.stride, burst
                )
        return total

    def copy(self) -> None:
        """Move the data at once; a race-free program cannot tell when."""
        source = self.source.plane(self.request.source)
        target = self.destination.plane(self.request.destination)
        if self.request.transpose:
            target[...] = source.T
        else:
            target[...] = np.ascontiguousarray(source).reshape(target.shape)


def checked_transfer(
    request: TransferRequest, memories: Sequence[Memory], machine: Machine, core: int, cores: int
) -> CheckedTransfer:
    """Return the transfer with its memories, or raise SimulationError saying what is wrong."""
    problem = _shape_problem(request) or _mask_problem(request.cores, core, cores)
    if problem:
        raise SimulationError(f"DMA descriptor: {problem}")
    source = _memory_of("source", request.source, memories)
    destination = _memory_of("destination", request.destination, memories)
    problem = _pair_problem(request, source, destination)
    if problem:
        raise SimulationError(f"DMA descriptor: {problem}")
    return CheckedTransfer(request, source, destination)


def _shape_problem(request: TransferRequest) -> str:
    """Return what is wrong with counts, strides and addresses, or an empty string."""
    for side, plane in (("source", request.source), ("destination", request.destination)):
        if plane.rows < 1 or plane.row_words < 1:
            return f"{side} moves {plane.rows} rows of {plane.row_words} words; give at least 1"
        if plane.address % 4 or plane.stride % 4:
            return (
                f"{side} address {plane.address:#x} and stride {plane.stride} must be "
                "multiples of 4"
            )
    s, d = request.source, request.destination
    if request.transpose and (s.rows, s.row_words) != (d.row_words, d.rows):
        return (
            f"a transpose of {s.rows} x {s.row_words} words needs a destination of "
            f"{s.row_words} x {s.rows}, not {d.rows} x {d.row_words}"
        )
    if s.words != d.words:
        return f"the source has {s.words} words and the destination {d.words}"
    if d.rows > 1 and abs(d.stride) < d.row_bytes:
        return f"destination rows overlap: {d.row_bytes} bytes a row at a stride of {d.stride}"
    return ""


def _mask_problem(mask: int, core: int, cores: int) -> str:
    if mask == 0:
        return ""
    if mask >> cores:
        return f"broadcast mask {mask:#b} names cores beyond the {cores} of this run"
    if not mask >> core & 1:
        return f"core {core} starts a broadcast to mask {mask:#b}, which leaves it out"
    return ""


def _memory_of(side: str, plane: Plane, memories: Sequence[Memory]) -> Memory:
    for memory in memories:
        if memory.holds(plane.first, plane.end):
            return memory
    ranges = ", ".join(f"{m.name} {m.base:#x} to {m.end - 1:#x}" for m in memories)
    raise SimulationError(
        f"DMA descriptor: {side} reaches from {plane.first:#x} to {plane.end - 1:#x}, which is "
        f"not inside one memory of this program ({ranges})"
    )


def _pair_problem(request: TransferRequest, source: Memory, destination: Memory) -> str:
    if source.name != "DDR" and destination.name != "DDR":
        return f"both sides are core memory ({source.name} to {destination.name}); one must be DDR"
    if request.cores and (source.name != "DDR" or destination.name == "DDR"):
        return "a broadcast goes from DDR to core memory"
    s, d = request.source, request.destination
    if source is destination and s.first < d.end and d.first < s.end:
        return f"source and destination overlap in {source.name} from {max(s.first, d.first):#x}"
    return ""
