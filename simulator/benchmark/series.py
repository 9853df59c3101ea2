"""Measures one case after the other, and joins what is found to a document.

Called by `ftm7004 bench`, which shows it.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from simulator.benchmark.cases import Case, host_cpus
from simulator.benchmark.figures import DENOMINATORS, beyond
from simulator.benchmark.process import in_own_process

SIMULATED_FLOPS, TIMED_FLOPS, SGEMM_FLOPS = 25e9, 60e9, 60e9
"""Nominal flops a second of the engine, with numbers and without, and of sgemm: for estimates."""


def estimated_seconds(cases: Iterable[Case]) -> float:
    """Return about how long measuring takes; hosts differ by several times."""
    total = 0.0
    for case in cases:
        flops = case.make_kernel().work.flops
        if case.timing_only:
            total += flops * (case.repeat + 2) / TIMED_FLOPS
        else:
            total += flops * ((case.repeat + 2) / SIMULATED_FLOPS + (case.repeat + 1) / SGEMM_FLOPS)
    return total


def steps(case: Case) -> int:
    """Return how often a case announces something."""
    return 1 + (case.repeat + 1) * (1 if case.timing_only else 2)


def measure_all(cases: Sequence[Case], announce: Callable[[Case], None]) -> dict[str, Any]:
    """Return the document of a series; `announce` hears of every step, `steps` of each case."""
    load_before = _load()
    rows = [_row(case, announce) for case in cases]
    return {
        "host": {
            "processor": _processor(),
            "cpus": host_cpus(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load_before": load_before,
            "load_after": _load(),
        },
        "rows": rows,
        "denominators": DENOMINATORS,
    }


def _row(case: Case, announce: Callable[[Case], None]) -> dict[str, Any]:
    """Return a case's figures: one process meets an empty code cache, the next one a full one."""

    def step(_: str) -> None:
        announce(case)

    with tempfile.TemporaryDirectory(prefix="ftm7004-bench-") as folder:
        first = in_own_process("first", case, Path(folder), step)
        step("first")
        row = in_own_process("repeated", case, Path(folder), step)
    row["compile"] = {
        "build_seconds": first["build_seconds"],
        "cold_seconds": beyond(first["rest"], row["parts"]),
        "cached_seconds": beyond(row.pop("first_rest"), row["parts"]),
    }
    return {**row, "memory": first["memory"]}


def _load() -> float | None:
    """Return how many processes wanted a processor in the last minute; None if nobody knows."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _processor() -> str:
    """Return the processor's name as the host gives it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
