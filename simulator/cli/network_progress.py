"""What a user sees while a network runs: an estimate before, a bar meanwhile, both on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from isa.machine import Machine
from simulator.cli.progress import LONG_RUN_SECONDS, QUIET_SECONDS, least_packets, long_time
from simulator.network.plan import Plan, Step
from simulator.network.row import Row

FLOPS_PER_SECOND, BYTES_PER_SECOND, STEP_SECONDS = 80e9, 0.5e9, 0.6
"""Measured on a host with two processors: nominal flops with numbers, tensors laid out and judged;
and what every step takes besides, which is all there is to one without numbers."""

LEAST_SAMPLES = 32
"""Of each core: fewer take the same packets, as they do not fill the lanes or the VMACs."""


def estimated_seconds(plan: Plan, cores: int, first: int, timing_only: bool) -> float:
    """Return about how long the steps from `first` on take; hosts differ by several times."""
    kernels = [step.kernel for step in plan.steps[first:]]
    seconds = STEP_SECONDS * len(kernels)
    if timing_only:
        return seconds
    idle = max(1.0, LEAST_SAMPLES * cores / plan.batch)
    flops = idle * sum(kernel.work.flops for kernel in kernels)
    moved = sum(kernel.compulsory_bytes for kernel in kernels)
    return seconds + flops / FLOPS_PER_SECOND + moved / BYTES_PER_SECOND


def announce_network(plan: Plan, cores: int, first: int, timing_only: bool) -> None:
    """Say on stderr how long a run of more than a minute will about take."""
    seconds = estimated_seconds(plan, cores, first, timing_only)
    if seconds > LONG_RUN_SECONDS:
        less = "a smaller --batch or fewer --layers take less"
        if not timing_only:
            less += ", --timing-only takes a fraction"
        kernels = len(plan.steps) - first
        click.echo(f"note: {kernels} kernels, roughly {long_time(seconds)}; {less}", err=True)


@contextmanager
def network_bar(plan: Plan, machine: Machine, cores: int) -> Iterator[NetworkBar]:
    """Give what hears of every step; it shows a bar where stderr is a terminal."""
    bar = NetworkBar(Console(stderr=True), plan, machine, cores)
    try:
        yield bar
    finally:
        bar.stop()


class NetworkBar:
    """The bar: it fills with the cycles that the kernels need at least."""

    def __init__(self, console: Console, plan: Plan, machine: Machine, cores: int) -> None:
        steps = plan.steps
        self._cycles = [max(1, least_packets(s.kernel, machine) // cores) for s in steps]
        self._due = time.monotonic() + QUIET_SECONDS
        self._visible = console.is_terminal
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TimeElapsedColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("", total=sum(self._cycles))

    def begins(self, number: int, step: Step) -> Callable[[int, int], None] | None:
        """Show the step; return what hears of its cycles."""
        if not self._visible:
            return None
        before, own = sum(self._cycles[:number]), self._cycles[number]
        text = f"{number + 1}/{len(self._cycles)} {step.layer} {step.kernel.name}"
        self._show(text, before)
        return lambda core, cycle: self._show(text, before + min(own, cycle))

    def ends(self, number: int, row: Row) -> None:
        """Fill the bar up to the step."""
        if self._visible:
            self._show(f"{row.name} {row.kind}", sum(self._cycles[: number + 1]))

    def stop(self) -> None:
        """Take the bar away."""
        if self._visible:  # else the end of a bar is an empty line
            self._progress.stop()

    def _show(self, text: str, completed: int) -> None:
        if time.monotonic() >= self._due:
            self._progress.start()
        self._progress.update(self._task, description=text, completed=completed)
