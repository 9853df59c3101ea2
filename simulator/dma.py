"""What one DMA transfer moves, and the words for what is wrong with a descriptor.

Called by the chip when a core issues DMASTART. Legality and traffic are found in `requests`, the
timing of transfers in `sharing`. Compiled code copies with `compiled.copying`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from isa.descriptor import Plane, TransferRequest
from isa.errors import SimulationError
from simulator.chip_record import PLANE_SIZE
from simulator.memory import Memory
from simulator.requests import (
    BOTH_IN_CORE,
    EMPTY,
    LEGAL,
    MASK_TOO_LONG,
    NOT_A_MEMBER,
    NOT_ALIGNED,
    NOT_INTO_CORE,
    OTHER_SHAPE,
    OTHER_SIZE,
    OUTSIDE,
    ROWS_OVERLAP,
    SIDES_OVERLAP,
)


@frozen
class CheckedTransfer:
    """A legal request of one core with the memories of its two sides."""

    request: TransferRequest
    source: Memory
    destination: Memory

    def copy(self) -> None:
        """Move the data at once; a race-free program cannot tell when."""
        source = self.source.plane(self.request.source)
        target = self.destination.plane(self.request.destination)
        if self.request.transpose:
            target[...] = source.T
        else:
            target[...] = np.ascontiguousarray(source).reshape(target.shape)


def checked_transfer(
    request: TransferRequest, wrong: int, memories: Sequence[Memory], core: int, cores: int
) -> CheckedTransfer:
    """Return the transfer with its memories, or raise SimulationError if something is `wrong`.

    `wrong` is what `requests.prepare` says; `memories` are AM, SM and DDR.
    """
    if wrong != LEGAL:
        raise SimulationError(f"DMA descriptor: {_problem(request, wrong, memories, core, cores)}")
    source, destination = (
        next(memory for memory in memories if memory.holds(plane.first, plane.end))
        for plane in (request.source, request.destination)
    )
    return CheckedTransfer(request, source, destination)


def _problem(
    request: TransferRequest, wrong: int, memories: Sequence[Memory], core: int, cores: int
) -> str:
    """Say what is wrong with a descriptor."""
    s, d, mask = request.source, request.destination, request.cores
    if wrong in (EMPTY, NOT_ALIGNED, OUTSIDE):
        return _plane_problem("source", s, wrong, memories)
    if wrong in (EMPTY + 1, NOT_ALIGNED + 1, OUTSIDE + 1):
        return _plane_problem("destination", d, wrong - 1, memories)
    if wrong in (BOTH_IN_CORE, SIDES_OVERLAP):
        names = [next(m.name for m in memories if m.holds(p.first, p.end)) for p in (s, d)]
        if wrong == BOTH_IN_CORE:
            return f"both sides are core memory ({' to '.join(names)}); one must be DDR"
        return f"source and destination overlap in {names[0]} from {max(s.first, d.first):#x}"
    return {
        OTHER_SHAPE: (
            f"a transpose of {s.rows} x {s.row_words} words needs a destination of "
            f"{s.row_words} x {s.rows}, not {d.rows} x {d.row_words}"
        ),
        OTHER_SIZE: f"the source has {s.words} words and the destination {d.words}",
        ROWS_OVERLAP: (
            f"destination rows overlap: {d.row_bytes} bytes a row at a stride of {d.stride}"
        ),
        MASK_TOO_LONG: f"broadcast mask {mask:#b} names cores beyond the {cores} of this run",
        NOT_A_MEMBER: f"core {core} starts a broadcast to mask {mask:#b}, which leaves it out",
        NOT_INTO_CORE: "a broadcast goes from DDR to core memory",
    }[wrong]


def _plane_problem(side: str, plane: Plane, wrong: int, memories: Sequence[Memory]) -> str:
    if wrong == EMPTY:
        return f"{side} moves {plane.rows} rows of {plane.row_words} words; give at least 1"
    if wrong == NOT_ALIGNED:
        return f"{side} address {plane.address:#x} and stride {plane.stride} must be multiples of 4"
    ranges = ", ".join(f"{m.name} {m.base:#x} to {m.end - 1:#x}" for m in memories)
    return (
        f"{side} reaches from {plane.first:#x} to {plane.end - 1:#x}, which is not inside one "
        f"memory of this program ({ranges})"
    )


def plane_at(record: Sequence[int], address: int) -> Plane:
    """Return the plane that begins at an address of the chip's flat record."""
    return Plane(*(int(record[address + field]) for field in range(PLANE_SIZE)))
