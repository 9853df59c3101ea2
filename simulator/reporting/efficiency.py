"""How well a run used the machine: every share with the denominator it is measured against.

The formulas of the report, from the kernel's shapes, the run's counters and the peaks of the
machine record; nothing here knows a rate of its own.
"""

from __future__ import annotations

from attrs import frozen

from isa.language.kernel import Kernel
from isa.machine import Machine
from simulator.result import ChipResult


@frozen
class Efficiency:
    """Shares of the machine's peaks (1.0 is the whole), and the peaks themselves.

    A run without a cycle has every share 0.
    """

    seconds: float
    """On the chip."""
    gflops: float
    """Nominal GFlop/s."""
    peak_gflops: float
    """Of the cores of the run."""
    efficiency: float
    """Nominal flops / (seconds * cores * peak); nominal counts padding and may pass 1."""
    mac_utilization: float
    """Multiply-adds needed / multiply-adds the cores could issue; never passes 1."""
    vmac_occupancy: float
    """VMAC lanes issued and enabled / the same."""
    ddr_efficiency: float
    """Compulsory bytes / bytes the DDR's peak rate moves in the time of the run."""
    ddr_occupancy: float
    """Bytes really moved / the same."""


def measure(kernel: Kernel, machine: Machine, result: ChipResult) -> Efficiency:
    """Return the shares of a run; the peaks count the cores that took part."""
    cores = len(result.cores)
    seconds = result.cycles / (machine.chip.clock_ghz * 1e9)
    peak_gflops = cores * machine.peak_gflops
    mac_places = result.cycles * cores * machine.macs_per_cycle
    ddr_peak_bytes = result.cycles * machine.ddr.bytes_per_cycle
    work = kernel.work
    gflops = share(work.flops, seconds * 1e9)
    return Efficiency(
        seconds=seconds,
        gflops=gflops,
        peak_gflops=peak_gflops,
        efficiency=gflops / peak_gflops,
        mac_utilization=share(work.multiply_adds, mac_places),
        vmac_occupancy=share(sum(core.vmac_lanes for core in result.cores), mac_places),
        ddr_efficiency=share(kernel.compulsory_bytes, ddr_peak_bytes),
        ddr_occupancy=share(result.ddr_bytes, ddr_peak_bytes),
    )


def share(part: float, whole: float) -> float:
    """Return part / whole, 0 where there is no whole."""
    return part / whole if whole else 0.0
