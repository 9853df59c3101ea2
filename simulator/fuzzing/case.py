"""One random program with all that its run depends on; the same seed and index give the same one.

Made by `generator`, run by `running`, cut down by `shrinking`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from attrs import field, frozen

from isa.machine import Machine
from isa.operands import Register
from isa.program import Program
from simulator.fuzzing.layout import Region

DEFAULT_LIMIT = 200_000
"""Cycles after which a program that should end is taken for endless."""


@cache
def machine_with(overrides: tuple[str, ...]) -> Machine:
    """Return the default machine with changes."""
    return Machine.load(overrides=overrides)


@frozen(eq=False)
class Case:
    """A program, its machine, the content of DDR, and where floats may be."""

    seed: int
    index: int
    overrides: tuple[str, ...]
    program: Program
    ddr: np.ndarray[Any, np.dtype[np.uint32]]
    float_registers: frozenset[Register]
    """Registers that may hold a NaN."""
    float_regions: tuple[Region, ...]
    """Parts of memories that may hold NaNs."""
    cycle_limit: int = DEFAULT_LIMIT
    fault: str = ""
    """What was made wrong on purpose; empty for a program that must end."""
    checked: bool = True
    """Whether a checked run must find nothing."""
    machine: Machine = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "machine", machine_with(self.overrides))

    @property
    def command(self) -> str:
        """Return the command that runs this program alone."""
        return f"ftm7004 fuzz --seed {self.seed} --first {self.index} --programs 1"
