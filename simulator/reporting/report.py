"""The report of a run: what `Run.report` holds and what `--json` writes.

`simulate` makes it from the kernel, the machine, the program and the chip's counters; the command
line adds the verdict of the verification. `simulator.reporting.rendering` shows it to people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from attrs import frozen

from isa.language.kernel import Kernel, Verdict
from isa.language.tensor import Tensor
from isa.machine import Machine
from isa.program import Program, TensorPlacement
from simulator.reporting.counters import (
    LoopCount,
    core_counts,
    issued_packets,
    loop_counts,
    slot_occupancy,
    stall_cycles,
)
from simulator.reporting.efficiency import measure
from simulator.result import ChipResult

UNVERIFIED = "not verified"
LAID_OUT = "as the kernel wants it in DDR, not timed"


@frozen
class Report:
    """One run in numbers; the fields are the keys of the JSON report, in its order.

    Shares are 1.0 for the whole. `stalls` counts core-cycles by cause, `packets` those issued by
    all cores; `seconds` pass on the chip, `host_seconds` on the host. `verified` is None, and
    `max_error` with it, until `with_verdict` says more.
    """

    kernel: str
    params: Mapping[str, Any]
    machine: str
    cores: int
    engine: str
    cycles: int
    seconds: float
    flops_nominal: int
    gflops: float
    peak_gflops: float
    efficiency: float
    mac_utilization: float
    vmac_occupancy: float
    ddr_bytes: int
    ddr_efficiency: float
    ddr_occupancy: float
    stalls: Mapping[str, int]
    packets: int
    host_seconds: float
    verified: bool | None
    max_error: float | None
    per_core: tuple[Mapping[str, Any], ...]
    verification: str
    slots: Mapping[str, float]
    """Share of core-cycles in which each issue slot issued an operation."""
    loops: tuple[LoopCount, ...]
    multiply_adds: int
    """Multiply-adds the mathematics needs."""
    macs_per_cycle: int
    """Of one core."""
    compulsory_bytes: int
    ddr_gbytes_per_second: float
    """Peak of the chip's DDR."""
    place_seconds: float | None
    """Host seconds of placing the inputs in DDR, part of `host_seconds`; None if not measured."""
    run_seconds: float | None
    """Host seconds in which the packets ran, likewise."""
    readback_seconds: float | None
    """Host seconds of reading the outputs back, likewise."""
    timing_only: bool
    notes: tuple[str, ...]

    def with_verdict(self, verdict: Verdict | None) -> Report:
        """Return the report with the result of its verification; None: nothing to compare with."""
        if verdict is None:
            return attrs.evolve(self, verification=f"{UNVERIFIED}: the kernel has no reference")
        return attrs.evolve(
            self,
            verified=bool(verdict.passed),
            max_error=float(verdict.max_error),
            verification=verdict.compared,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report for `json.dumps`: plain numbers, lists for pairs, no NaN (null)."""
        plain: dict[str, Any] = _plain(attrs.asdict(self))
        return plain

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Report:
        """Return the report that `to_dict` wrote; KeyError or TypeError if it is none."""
        values = {name: document[name] for name in attrs.fields_dict(Report)}
        for name in ("per_core", "notes"):
            values[name] = tuple(values[name])
        values["loops"] = tuple(LoopCount(**loop) for loop in values["loops"])
        return Report(**values)


def make_report(
    kernel: Kernel,
    machine: Machine,
    program: Program,
    result: ChipResult,
    engine: str,
    host_seconds: float,
    *,
    place_seconds: float | None = None,
    run_seconds: float | None = None,
    readback_seconds: float | None = None,
    timing_only: bool = False,
) -> Report:
    """Return the report of a run, not yet verified."""
    reached = measure(kernel, machine, result)
    unverified = f"{UNVERIFIED}: timing only" if timing_only else UNVERIFIED
    return Report(
        kernel=kernel.name,
        params=dict(kernel.params),
        machine=machine.name,
        cores=len(result.cores),
        engine=engine,
        cycles=result.cycles,
        seconds=reached.seconds,
        flops_nominal=kernel.work.flops,
        gflops=reached.gflops,
        peak_gflops=reached.peak_gflops,
        efficiency=reached.efficiency,
        mac_utilization=reached.mac_utilization,
        vmac_occupancy=reached.vmac_occupancy,
        ddr_bytes=result.ddr_bytes,
        ddr_efficiency=reached.ddr_efficiency,
        ddr_occupancy=reached.ddr_occupancy,
        stalls=stall_cycles(result.cores),
        packets=issued_packets(result),
        host_seconds=host_seconds,
        verified=None,
        max_error=None,
        per_core=core_counts(machine, result),
        verification=unverified,
        slots=slot_occupancy(program, machine, result),
        loops=loop_counts(program, result),
        multiply_adds=kernel.work.multiply_adds,
        macs_per_cycle=machine.macs_per_cycle,
        compulsory_bytes=kernel.compulsory_bytes,
        ddr_gbytes_per_second=machine.ddr.bytes_per_cycle * machine.chip.clock_ghz,
        place_seconds=place_seconds,
        run_seconds=run_seconds,
        readback_seconds=readback_seconds,
        timing_only=timing_only,
        notes=(
            *_placement_notes(program),
            *_lane_notes(program, timing_only),
            *_machine_notes(machine),
        ),
    )


def _placement_notes(program: Program) -> list[str]:
    """Say which tensors the host rearranges, untimed, for the chip."""
    moved = [n for n, placed in program.inputs.items() if not _as_on_host(placed.place, placed)]
    moved += [n for n, placed in program.outputs.items() if not _as_on_host(placed.read, placed)]
    if not moved:
        return []
    names = ", ".join(dict.fromkeys(moved))
    return [f"the host lays out {names} {LAID_OUT}"]


def _as_on_host(step: Any, placement: TensorPlacement) -> bool:
    """Tell whether a placement step is the tensor's own plain order."""
    plain = Tensor(placement.shape, placement.dtype.name)
    return getattr(step, "__self__", None) == plain


def _lane_notes(program: Program, timing_only: bool) -> list[str]:
    """Say where a timing-only run cannot know how many lanes were enabled."""
    if not (timing_only and program.multiplies_under_lane_predicates):
        return []
    return [
        "VMAC occupancy is an upper bound: a timing-only run takes every lane predicate as enabled"
    ]


def _machine_notes(machine: Machine) -> list[str]:
    confidences = [note.confidence for note in machine.notes.values()]
    inferred = confidences.count("inferred")
    notes = []
    if inferred:
        notes.append(
            f"timing rests on a machine record with {inferred} of {len(confidences)} fields "
            "inferred, not published: ftm7004 machine lists them with their sources"
        )
    changed = [key for key, note in machine.notes.items() if note.confidence == "user"]
    if changed:
        values = machine.values()
        texts = ", ".join(f"{key}={values[key]}" for key in changed)
        notes.append(f"changed by the user: {texts}")
    return notes


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; numbers that JSON has no word for become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
