"""What the rows of a network add up to, and the paper's figure beside each mean.

Sums are sums; every share of the whole is computed anew from them with its own denominator, so a
long layer weighs more than a short one. The paper's means do not: they are over layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from isa.machine import Machine
from simulator.network.bounds import COMPUTE, DDR, LATENCY
from simulator.network.published import DEVICES, IMAGE_FLOPS, MEANS, NETWORK, Mean
from simulator.network.row import Row
from simulator.reporting.counters import LoopCount
from simulator.reporting.efficiency import share
from simulator.reporting.report import LAID_OUT, Report


@frozen
class Compared:
    """A mean of ours beside the published one."""

    mean: Mean
    layers: int
    """Layers it was taken over."""
    ours: float

    @property
    def complete(self) -> bool:
        """Whether all layers of the network that the paper counts were run."""
        return self.layers == self.mean.layers

    @property
    def difference(self) -> float | None:
        """Ours less the published one; None where these are not the same layers."""
        if self.mean.published is None or not self.complete:
            return None
        return self.ours - self.mean.published

    def to_dict(self) -> dict[str, Any]:
        return {
            "what": self.mean.what,
            "kernel": self.mean.kernel,
            "share": self.mean.share,
            "layers": self.layers,
            "layers_of_network": self.mean.layers,
            "ours": self.ours,
            "published": self.mean.published,
            "difference": self.difference,
            "calibration": self.mean.calibration,
        }


def means(phase: str, rows: Sequence[Row]) -> list[Compared]:
    """Return the phase's means over the rows there are; a mean over none is left out."""
    found = []
    for mean in MEANS[phase]:
        values = [row.value(mean.share) for row in rows if row.kind == mean.kernel]
        if values:
            found.append(Compared(mean, len(values), sum(values) / len(values)))
    return found


def whole(name: str, params: Mapping[str, Any], rows: Sequence[Row], machine: Machine) -> Report:
    """Return the report of all rows together; its loops are the rows.

    Raise ValueError without rows.
    """
    if not rows:
        raise ValueError("a network without a row has no report")
    reports = [row.report for row in rows]
    first, cycles, seconds = reports[0], _sum(reports, "cycles"), _sum(reports, "seconds")
    flops, macs = _sum(reports, "flops_nominal"), _sum(reports, "multiply_adds")
    places = cycles * first.cores * machine.macs_per_cycle
    ddr_peak = cycles * machine.ddr.bytes_per_cycle
    verdicts = [report.verified for report in reports]
    errors = [report.max_error for report in reports if report.max_error is not None]
    gflops = share(flops, seconds * 1e9)
    return Report(
        kernel=name, params=params, machine=first.machine, cores=first.cores, engine=first.engine,
        cycles=cycles, seconds=seconds, flops_nominal=flops, gflops=gflops,
        peak_gflops=first.peak_gflops, efficiency=gflops / first.peak_gflops,
        mac_utilization=share(macs, places),
        vmac_occupancy=_weighted(reports, "vmac_occupancy"),
        ddr_bytes=_sum(reports, "ddr_bytes"),
        ddr_efficiency=share(_sum(reports, "compulsory_bytes"), ddr_peak),
        ddr_occupancy=share(_sum(reports, "ddr_bytes"), ddr_peak),
        stalls=_stalls([report.stalls for report in reports]),
        packets=_sum(reports, "packets"), host_seconds=_sum(reports, "host_seconds"),
        verified=False if False in verdicts else None if None in verdicts else True,
        max_error=max(errors, default=None), per_core=_cores(reports),
        verification=_verification(reports),
        slots={slot: _mean([(r.slots[slot], r.cycles) for r in reports]) for slot in first.slots},
        loops=tuple(_loop(row) for row in rows), multiply_adds=macs,
        macs_per_cycle=first.macs_per_cycle,
        compulsory_bytes=_sum(reports, "compulsory_bytes"),
        ddr_gbytes_per_second=first.ddr_gbytes_per_second,
        place_seconds=_sum(reports, "place_seconds"), run_seconds=_sum(reports, "run_seconds"),
        readback_seconds=_sum(reports, "readback_seconds"), timing_only=first.timing_only,
        notes=_notes(reports),
    )  # fmt: skip


def network_bound(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the rows' bounds together: what holds most of the cycles that nothing could save."""
    total = sum(row.bounds.cycles for row in rows)
    held = dict.fromkeys((COMPUTE, DDR, LATENCY), 0.0)
    for row in rows:
        held[row.bounds.held_by] += row.bounds.cycles
    return {
        "bound": max(held, key=lambda name: held[name]),
        "bound_share": share(total, sum(row.report.cycles for row in rows)),
        "bound_cycles": held,
    }


def device_rows(batch: int, network: Report) -> list[dict[str, Any]]:
    """Return one image on each device, the paper's as printed and as meant, then ours."""
    found = [
        {
            "device": device.name,
            "peak_tflops": device.peak_tflops,
            "printed_seconds": device.printed_seconds,
            "seconds": device.seconds,
            "images_per_second": device.images_per_second,
            "efficiency": device.images_per_second * IMAGE_FLOPS / (device.peak_tflops * 1e12),
        }
        for device in DEVICES
    ]
    ours = {
        "device": f"{network.machine} simulated, {network.cores} cores, batch {batch}",
        "peak_tflops": network.peak_gflops / 1000,
        "printed_seconds": None,
        "seconds": network.seconds / batch,
        "images_per_second": share(batch, network.seconds),
        "efficiency": network.efficiency,
    }
    return [*found, ours]


def network_compared(phase: str, complete: bool, network: Report) -> dict[str, Any]:
    """Return the whole network's efficiency beside the published one."""
    published = NETWORK[phase]
    return {
        "what": "whole network",
        "ours": network.efficiency,
        "published": published,
        "difference": network.efficiency - published if complete else None,
    }


def _sum(reports: Sequence[Report], name: str) -> Any:
    return sum(getattr(report, name) or 0 for report in reports)


def _mean(values: Sequence[tuple[float, int]]) -> float:
    return share(sum(value * weight for value, weight in values), sum(w for _, w in values))


def _weighted(reports: Sequence[Report], name: str) -> float:
    """Return the mean of a share over the cycles, not the kernels."""
    return _mean([(getattr(report, name), report.cycles) for report in reports])


def _stalls(each: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {cause: sum(stalls[cause] for stalls in each) for cause in each[0]}


def _cores(reports: Sequence[Report]) -> tuple[dict[str, Any], ...]:
    cycles = _sum(reports, "cycles")
    cores = []
    for number in range(reports[0].cores):
        own = [report.per_core[number] for report in reports]
        used = sum(core["vmac_occupancy"] * r.cycles for core, r in zip(own, reports, strict=True))
        cores.append(
            {
                "cycles": sum(core["cycles"] for core in own),
                "packets": sum(core["packets"] for core in own),
                "stalls": _stalls([core["stalls"] for core in own]),
                "vmac_occupancy": share(used, cycles),
            }
        )
    return tuple(cores)


def _notes(reports: Sequence[Report]) -> tuple[str, ...]:
    """Return every note once; those on the tensors that the host lays out are one."""
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    laid_out = [note for note in notes if note.endswith(LAID_OUT)]
    kept = [note for note in notes if note not in laid_out]
    return (*([f"the host lays out tensors {LAID_OUT}"] if laid_out else []), *kept)


def _loop(row: Row) -> LoopCount:
    """Return a row as a loop of the network: its cycles of work and of standing still."""
    report = row.report
    stalls = sum(report.stalls.values())
    work = sum(loop.cycles for loop in report.loops)
    return LoopCount(f"{row.name}/{row.kind}", report.packets, work, stalls)


def _verification(reports: Sequence[Report]) -> str:
    wrong = [report for report in reports if report.verified is False]
    judged = sum(report.verified is not None for report in reports)
    if wrong:
        return f"{len(wrong)} of {judged} kernels gave a wrong result"
    if not judged:
        return reports[0].verification
    return (
        f"{judged} of {len(reports)} kernels against the numpy float64 reference, each on the "
        "inputs it really had"
    )
