"""A window of cycles that compiled cores leave to the reference engine, and their states there.

Each core goes through it within its round, whatever cycle the others have come to. Called by the
chip, for a trace of some cycles and for the cores' states in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simulator.compiled.core import CompiledCore
from simulator.reference.core import Core
from simulator.reference.snapshot import export_state
from simulator.state import Status

Progress = Callable[[int, int], None]
Cycles = tuple[int, int]
"""A first cycle, and the one behind the last."""


class Window:
    """The cycles `first` to `end` - 1 of one run; `keep` the states with which cores come there."""

    def __init__(self, cycles: Cycles, keep: bool = False) -> None:
        self.first, self.end = cycles
        self.states: dict[int, Any] = {}
        self._keep = keep

    def native_limit(self, going: Sequence[Core], cycle_limit: int) -> int | None:
        """Return the cycle to which all cores may run as machine code, None for not at all now.

        `going` are those that have not halted.
        """
        cycles = [core.cycle for core in going]
        if max(cycles) < self.first:
            return min(self.first, cycle_limit)
        awaited = self._keep and any(core.number not in self.states for core in going)
        # A blocked core may yet go on within the window.
        return cycle_limit if min(cycles) >= self.end and not awaited else None

    def pass_through(self, core: Core, cycle_limit: int, progress: Progress | None) -> None:
        """Run a core to the end of the window, or to where it blocks before."""
        core.run(min(self.first, cycle_limit), progress)
        if core.status is not Status.RUNNING or core.cycle < self.first:
            return
        if self._keep and core.number not in self.states:
            self.states[core.number] = export_state(core)
        core.interpret(min(self.end, cycle_limit), progress)

    def tell_stall(self, core: CompiledCore) -> None:
        """Tell the tracer of a wait that compiled code has ended in the window or behind it."""
        if core.tracer is None or core.status is not Status.RUNNING or core.cycle <= self.first:
            return
        place, cycles = core.last_stall()
        core.tracer.stall(core.number, core.cycle - cycles, cycles, place)
