"""What all functions of a program's machine code share, and how a function's end is told.

Made by `core`; the writers of functions read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

from attrs import field, frozen

from isa.instruction import Effect
from isa.machine import Machine
from isa.operands import File
from isa.program import Program
from simulator.compiled.flights import Flight
from simulator.compiled.record import Record
from simulator.compiled.steady_state import SteadyState
from simulator.compiled.stretches import Entry, Stretch


class Code(IntEnum):
    """Why a function returned."""

    ONWARD = 0
    LIMIT = 1
    FAULT = 2
    START = 3
    WAIT = 4
    BARRIER = 5
    HALT = 6
    END = 7
    MASKS = 8
    """Results are in flight that were sent under another VLR: see `Plan.masked`."""
    ELSEWHERE = 9
    """A register leads to a packet that is no label's: the reference engine must go on."""


CODES = {
    Effect.DMA_START: Code.START,
    Effect.DMA_WAIT: Code.WAIT,
    Effect.BARRIER: Code.BARRIER,
    Effect.HALT: Code.HALT,
}


@frozen
class Plan:
    """What all functions of a program share."""

    program: Program
    machine: Machine
    stretches: Mapping[Entry, Stretch]
    numbers: Mapping[Entry, int]
    sends: Sequence[Sequence[Flight]]
    """What each packet sends to registers."""
    flights: Mapping[Entry, frozenset[Flight]]
    sure: Mapping[Entry, frozenset[Flight]]
    """What is in flight at an entry whichever way the program came."""
    record: Record
    masked: bool = False
    """Tell whether every result lands in its own lanes only, whatever VLR was when it was sent.

    Else most stretches take it that nothing has changed VLR since.
    """
    timing: bool = False
    """Tell whether vectors are left out, and what depends on them is unknown."""
    steady: Mapping[Entry, SteadyState] = field(factory=dict)
    """Loops that have a steady state; their functions' numbers follow those of the stretches."""

    def steady_number(self, entry: Entry) -> int:
        """Return the number of the function that runs many turns of a loop."""
        return len(self.stretches) + list(self.steady).index(entry)

    def is_uniform(self, stretch: Stretch) -> bool:
        """Tell whether VLR stays as it is in a stretch, and no lane sees another."""
        packets = [self.program.packets[issue.packet] for issue in stretch.issues]
        crossing = any(o.instruction.cross_lane for packet in packets for o in packet.operations)
        landing = [flight for issue in stretch.issues for flight in self.sends[issue.packet]]
        landing += self.flights[stretch.entry]
        changes = any(f.result.target.file is File.LANE_MASK for f in landing)
        return not (self.masked or changes or (crossing and not self.timing))
