"""Runs a measurement in a process of its own.

Host libraries choose their threads when they are loaded, so the environment that holds them to one
must be there before numpy is: a new interpreter is sure on every installation, where setting the
number afterwards needs a package and a library that it knows. A process of its own also has fresh
memory and its own code cache, so that peaks and first calls mean something.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isa.errors import Ftm7004Error, SimulationError, UsageError
from simulator.benchmark.cases import Case

ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
    ),
    "1",
)  # fmt: skip
"""What the libraries that numpy may be built on ask for."""

CODE_CACHE, HOST_THREADS = "FTM7004_CACHE", "FTM7004_THREADS"
"""What says to the compiled engine where it keeps code, and how many threads run the cores."""

PACKAGE_FOLDER = Path(__file__).parent.parent.parent


def in_own_process(
    what: str, case: Case, cache: Path, announce: Callable[[str], None]
) -> dict[str, Any]:
    """Return what a measurement, `first` or `repeated`, finds; code is cached in a directory."""
    command = [sys.executable, "-m", "simulator.benchmark", what, json.dumps(case.to_dict())]
    with subprocess.Popen(
        command, env=_environment(case, cache), stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            for text in child.stdout:
                line = json.loads(text)
                if "error" in line:
                    raise _error(case, line)
                if "result" in line:
                    result: dict[str, Any] = line["result"]
                    return result
                announce(line["step"])
        except BaseException:
            child.kill()  # an interrupt of this process alone must not leave it behind
            raise
    raise SimulationError(
        f"measuring {case.layer} ended with status {child.returncode} before it had a result"
    )


def _environment(case: Case, cache: Path) -> dict[str, str]:
    """Return our own environment with the project in reach, and the settings of a case."""
    paths = [str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **ONE_THREAD,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        CODE_CACHE: str(cache),
        HOST_THREADS: str(case.threads),
    }


def _error(case: Case, line: Mapping[str, Any]) -> Ftm7004Error:
    kind = UsageError if line["status"] == UsageError.status else SimulationError
    return kind(f"measuring {case.layer}, batch {case.batch}: {line['error']}")
