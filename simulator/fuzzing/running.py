"""Runs a random program on one engine and takes down everything that can be seen of the run.

The chip is built as `simulate` builds it. Called by `comparing`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from attrs import field, frozen

from isa.errors import SimulationError
from isa.operands import File
from simulator.chip import Chip
from simulator.compiled.cache import VARIABLE
from simulator.compiled.programs import compiled_program
from simulator.fuzzing.case import Case
from simulator.reference.core import Core
from simulator.result import ChipResult
from simulator.simulate import can_compile

Words = np.ndarray[Any, np.dtype[Any]]


@frozen
class Outcome:
    """How a run ended: an error or a result, with all registers and memories."""

    error: str = ""
    result: ChipResult | None = None
    registers: dict[tuple[int, File], Words] = field(factory=dict)
    """By core and file; the lane mask as an array of one."""
    memories: dict[tuple[int, str], Words] = field(factory=dict)
    """AM and SM by core; DDR as core 0's."""


def keep_no_code() -> None:
    """Keep machine code of random programs, which run once, out of the user's cache."""
    os.environ[VARIABLE] = "off"


def is_native(case: Case, timing_only: bool = False) -> bool:
    """Tell whether the compiled engine runs this as machine code itself."""
    return can_compile(case.program, case.machine, False, timing_only, None)


def run_reference(case: Case, *, check: bool = False, timing_only: bool = False) -> Outcome:
    """Return what the reference engine makes of a program."""
    chip = Chip(case.program, case.machine, check=check, timing_only=timing_only)
    return _run(case, chip, timing_only)


def run_compiled(case: Case, *, timing_only: bool = False) -> Outcome:
    """Return what machine code makes of a program."""
    # Half of them as quick code, for one cycle, and not an unknown number.
    code = compiled_program(case.program, case.machine, cycles=len(case.program.packets) % 2)
    chip = Chip(case.program, case.machine, timing_only=timing_only, compiled=code)
    return _run(case, chip, timing_only)


def _run(case: Case, chip: Chip, timing_only: bool) -> Outcome:
    if not timing_only:
        chip.ddr.words[: len(case.ddr)] = case.ddr
        if chip.checker is not None:
            chip.checker.placed(0, len(case.ddr))
    try:
        result = chip.run(case.cycle_limit)
    except SimulationError as error:
        return Outcome(error=str(error))
    registers: dict[tuple[int, File], Words] = {}
    memories: dict[tuple[int, str], Words] = {} if timing_only else {(0, "DDR"): chip.ddr.words}
    for core in () if timing_only else chip.cores:
        registers |= {(core.number, file): words for file, words in _registers(core).items()}
        memories[core.number, "AM"] = core.array_memory.words
        memories[core.number, "SM"] = core.scalar_memory.words
    return Outcome("", result, registers, memories)


def _registers(core: Core) -> dict[File, Words]:
    files: dict[File, Words] = {
        file: np.array(core.scalar_file(file), np.int64)
        for file in (File.SCALAR, File.ADDRESS, File.OFFSET)
    }
    files[File.VECTOR] = core.vectors.copy()
    files[File.EXCHANGE] = core.exchange.copy()
    files[File.LANE_MASK] = np.array([core.lane_mask])
    return files
