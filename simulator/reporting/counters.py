"""Where the core-cycles of a run went: issue slots, loops, stalls, cores.

Called by the report; everything is added up from how often each packet issued and where each core
stood still.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from isa.instruction import Effect
from isa.machine import Machine
from isa.program import Packet, Program
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
    issued: Counter[str] = Counter()
    for packet, times in zip(program.packets, _times(result), strict=True):
        for operation in packet.operations:
            if operation.instruction.effect is not Effect.IDLE:
                issued[operation.slot] += times
    core_cycles = result.cycles * len(result.cores)
    return {slot: share(issued[slot], core_cycles) for slot in machine.issue.slots}


def loop_counts(program: Program, result: ChipResult) -> tuple[LoopCount, ...]:
    """Return the loops of the program in the order in which they first appear."""
    packets: Counter[str] = Counter()
    cycles: Counter[str] = Counter()
    stalls: Counter[str] = Counter()
    for packet, times in zip(program.packets, _times(result), strict=True):
        packets[loop_of(packet)] += times
        cycles[loop_of(packet)] += times * packet.cycles
    for core in result.cores:
        for number, stalled in stalls_by_packet(core.stalls).items():
            stalls[loop_of(program.packets[number])] += stalled
    return tuple(LoopCount(loop, packets[loop], cycles[loop], stalls[loop]) for loop in packets)


def loop_of(packet: Packet) -> str:
    """Return the loop path of a packet: of its deepest operation, where they differ."""
    paths = [packet.origin.loop, *(operation.origin.loop for operation in packet.operations)]
    return max(paths, key=lambda path: path.count("/") + bool(path))


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


def _times(result: ChipResult) -> list[int]:
    """Return how often each packet issued, all cores together."""
    return [sum(times) for times in zip(*(core.executed for core in result.cores), strict=True)]
