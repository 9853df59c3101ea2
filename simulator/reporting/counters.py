"""Where the core-cycles of a run went: issue slots, loops, stalls, cores.

Called by the report; everything is added up from how often each packet issued and where each core
stood still.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from attrs import frozen

from isa.machine import Machine
from isa.program import Numbers, Program
from simulator.logs import stalls_by_cause, stalls_by_packet
from simulator.reporting.efficiency import share
from simulator.result import CAUSES, ChipResult, CoreResult


@frozen
class LoopCount:
    """Core-cycles of one device loop, without those of the loops inside it."""

    loop: str
    """Path such as `rows/columns`; empty for what is in no loop."""
    packets: int
    """Packets issued, all cores."""
    cycles: int
    """Cycles of these packets, a SNOP's idle ones included."""
    stalls: int
    """Stalled cycles booked to these packets."""

    @property
    def core_cycles(self) -> int:
        return self.cycles + self.stalls


def issued_packets(result: ChipResult) -> int:
    """Return the packets issued, all cores."""
    return sum(sum(core.executed) for core in result.cores)


def stall_cycles(cores: Iterable[CoreResult]) -> dict[str, int]:
    """Return the stalled core-cycles of every cause, also of those that did not happen."""
    totals = dict.fromkeys(CAUSES, 0)
    for core in cores:
        for cause, cycles in stalls_by_cause(core.stalls).items():
            totals[cause] += cycles
    return totals


def slot_occupancy(program: Program, machine: Machine, result: ChipResult) -> dict[str, float]:
    """Return, for each issue slot, the share of core-cycles in which it issued an operation."""
    times, core_cycles = _times(result), result.cycles * len(result.cores)
    issued = {slot: int(times[packets].sum()) for slot, packets in program.issues.items()}
    return {slot: share(issued.get(slot, 0), core_cycles) for slot in machine.issue.slots}


def loop_counts(program: Program, result: ChipResult) -> tuple[LoopCount, ...]:
    """Return the loops of the program in the order in which they first appear."""
    (paths, loop_of), times = program.loops, _times(result)
    packets, cycles, stalls = np.zeros((3, len(paths)), np.int64)
    np.add.at(packets, loop_of, times)
    np.add.at(cycles, loop_of, times * np.array(program.packet_cycles))
    for core in result.cores:
        for packet, stalled in stalls_by_packet(core.stalls).items():
            stalls[loop_of[packet]] += stalled
    columns = zip(paths, packets.tolist(), cycles.tolist(), stalls.tolist(), strict=True)
    return tuple(LoopCount(*column) for column in columns)


def core_counts(machine: Machine, result: ChipResult) -> tuple[dict[str, Any], ...]:
    """Return each core's cycles, packets, stalls and VMAC occupancy (of the whole run's cycles)."""
    return tuple(
        {
            "cycles": core.halted,
            "packets": sum(core.executed),
            "stalls": stall_cycles([core]),
            "vmac_occupancy": share(core.vmac_lanes, result.cycles * machine.macs_per_cycle),
        }
        for core in result.cores
    )


def _times(result: ChipResult) -> Numbers:
    """Return how often each packet issued, all cores together."""
    times: Numbers = np.array([core.executed for core in result.cores], np.int64).sum(axis=0)
    return times
