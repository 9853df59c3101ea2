"""What holds a run: the multiply-adds it needs, the bytes it must move, or its first transfer.

Lower bounds on its cycles from the shapes and the machine record alone; no kernel can be faster.
"""

from __future__ import annotations

from attrs import frozen

from isa.machine import Machine
from simulator.reporting.report import Report

COMPUTE, DDR, LATENCY = "compute", "DDR", "latency"


@frozen
class Bounds:
    """The cycles that each limit takes at least."""

    compute: float
    """Multiply-adds needed / those of all cores in a cycle."""
    ddr: float
    """Compulsory bytes / the rate that transfers reach."""
    latency: float
    """Launching the first load and the last store, and loading, adding and storing one vector."""

    @property
    def cycles(self) -> float:
        """The largest of them."""
        return max(self.compute, self.ddr, self.latency)

    @property
    def held_by(self) -> str:
        """Which of them that is."""
        return max(self.named, key=lambda name: self.named[name])

    @property
    def named(self) -> dict[str, float]:
        """All of them by name."""
        return {COMPUTE: self.compute, DDR: self.ddr, LATENCY: self.latency}


def bounds(report: Report, machine: Machine) -> Bounds:
    """Return the bounds of one run."""
    latency = machine.latency
    chain = latency["vector_load"] + latency["vector_multiply_add_float"] + latency["store"]
    return Bounds(
        compute=report.multiply_adds / (report.cores * machine.macs_per_cycle),
        ddr=report.compulsory_bytes / (machine.ddr.bytes_per_cycle * machine.ddr.efficiency),
        latency=2 * machine.dma.launch_cycles + chain,
    )
