"""`simulate`: run a kernel on the simulated chip, from host tensors to host tensors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from isa.errors import UsageError, unknown
from isa.language.kernel import Kernel, KernelDefinition
from isa.machine import Machine
from isa.program import Program
from simulator.checking.checker import Checker
from simulator.chip import Chip, Progress
from simulator.compiled.programs import compiled_program
from simulator.placing import place, read
from simulator.reporting.report import Report, make_report
from simulator.reporting.trace import Trace
from simulator.result import ChipResult

ENGINES = ("reference", "compiled")
DEFAULT_ENGINE = "compiled"

DEFAULT_CYCLE_LIMIT = 50_000_000
"""Cycles after which a run is taken for endless: about half an hour of the reference engine,
a second or a few of the compiled one."""

LIMIT_FACTOR = 100
"""A kernel with much to multiply or to move may take so many times the cycles that needs at least.
"""


@frozen
class Run:
    """What a run returns: output tensors by name, the report, and the detail behind it."""

    outputs: dict[str, np.ndarray[Any, Any]]
    report: Report
    program: Program
    result: ChipResult


def simulate(
    kernel: Kernel,
    inputs: Mapping[str, Any] | None = None,
    *,
    machine: str | Machine = "ft-m7004",
    cores: int = 1,
    engine: str = DEFAULT_ENGINE,
    check: bool = False,
    trace: str | Path | Trace | None = None,
    timing_only: bool = False,
    cycle_limit: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run a kernel on `cores` cores and return its outputs and report.

    `inputs` maps names to arrays of the kernel's shapes and dtypes (PyTorch's layouts); a
    timing-only run needs none and returns no outputs. `check` looks for uninitialised reads,
    races and broken store latencies, on the reference engine, which also runs what a trace shows.
    `progress(core, cycle)` is called now and then. Raise UsageError for a bad request and
    SimulationError for a program that goes wrong.
    """
    _check_request(kernel, inputs)
    _check_engine(engine)
    record = Machine.load(machine) if isinstance(machine, str) else machine
    if timing_only:
        kernel.check_timing_only()
    arrays = {} if timing_only else kernel.check_inputs(inputs or {})
    began = time.perf_counter()
    program = kernel.program(record, cores)
    tracer = Trace(trace) if isinstance(trace, str | Path) else trace
    native = engine == "compiled" and can_compile(program, record, check, timing_only, tracer)
    least = least_cycles(kernel, record) if kernel.work.flops else 0
    compiled = compiled_program(program, record, least) if native else None
    placing = time.perf_counter()
    ddr = None if timing_only else place(program, record.ddr.base, arrays)
    placed = time.perf_counter()
    chip = Chip(
        program, record, check=check, timing_only=timing_only, tracer=tracer, compiled=compiled,
        ddr=ddr,
    )  # fmt: skip
    if chip.checker is not None and not timing_only:
        _note_inputs(chip.checker, program, record)
    running = time.perf_counter()
    window = None if tracer is None else tracer.window
    try:
        result = chip.run(_limit(cycle_limit, kernel, record), progress, window)
    finally:
        chip.release()
    reading = time.perf_counter()
    outputs = {} if ddr is None else read(program, record.ddr.base, ddr)
    ended = time.perf_counter()
    report = make_report(
        kernel, record, program, result, ENGINES[native], ended - began,
        place_seconds=placed - placing, run_seconds=reading - running,
        readback_seconds=ended - reading, timing_only=timing_only,
    )  # fmt: skip
    if tracer is not None:
        tracer.save(program, result, record)
    return Run(outputs, report, program, result)


def _check_request(kernel: Any, inputs: Any) -> None:
    if isinstance(kernel, KernelDefinition):
        raise UsageError(f"kernel '{kernel.name}' needs its parameters: simulate({kernel.name}())")
    if not isinstance(kernel, Kernel):
        raise UsageError(f"simulate takes a kernel, got {type(kernel).__name__}")
    if inputs is not None and not isinstance(inputs, Mapping):
        raise UsageError(
            f"inputs must be a dict of arrays by tensor name, got {type(inputs).__name__}"
        )


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise UsageError(unknown("engine", engine, ENGINES))


def can_compile(
    program: Program, machine: Machine, check: bool, timing_only: bool, tracer: Trace | None
) -> bool:
    """Tell whether the compiled engine does all that is asked for; else the reference engine runs.

    Checks are the reference engine's, and so are traces: of a traced window it runs only that.
    """
    return not check and (tracer is None or tracer.window is not None)


def _note_inputs(checker: Checker, program: Program, machine: Machine) -> None:
    """Tell the checker which words of DDR the host has filled."""
    for placement in program.inputs.values():
        first = placement.buffer.address - machine.ddr.base
        checker.placed(first // 4, placement.buffer.bytes // 4)


def least_cycles(kernel: Kernel, machine: Machine) -> float:
    """Return the cycles a core alone needs at least to multiply, or the DDR to move the tensors."""
    multiplying = kernel.work.multiply_adds / machine.macs_per_cycle
    moving = kernel.compulsory_bytes / (machine.ddr.bytes_per_cycle * machine.ddr.efficiency)
    return max(multiplying, moving)


def _limit(cycle_limit: int | None, kernel: Kernel, machine: Machine) -> int:
    if cycle_limit is None:
        return max(DEFAULT_CYCLE_LIMIT, int(LIMIT_FACTOR * least_cycles(kernel, machine)))
    if cycle_limit < 1:
        raise UsageError(f"the cycle limit must be at least 1, got {cycle_limit}")
    return cycle_limit
