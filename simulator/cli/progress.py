"""What a user sees while a run takes its time: an estimate before, a bar meanwhile.

All of it goes to stderr; the bar only to a terminal, and only once a run has taken two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from isa.language.kernel import Kernel
from isa.machine import Machine

PACKETS_PER_SECOND = {"reference": 30_000, "compiled": 80_000_000}
"""Measured speed of each engine, all simulated cores together: convolutions at their best."""

LONG_RUN_SECONDS = 60
QUIET_SECONDS = 2


def least_packets(kernel: Kernel, machine: Machine) -> int:
    """Return the packets, all cores together, that the kernel's mathematics needs at least."""
    operations = kernel.work.multiply_adds or kernel.work.flops
    return -(-operations // machine.macs_per_cycle)


def announce(kernel: Kernel, machine: Machine, asked: str, engine: str) -> None:
    """Say on stderr how long a run of more than a minute will about take.

    `engine` runs, `asked` was asked for.
    """
    packets = least_packets(kernel, machine)
    seconds = packets / PACKETS_PER_SECOND[engine]
    if seconds > LONG_RUN_SECONDS:
        why = "" if engine == asked else ", which --check and --trace need"
        click.echo(
            f"note: at least {packets:,} packets, so {long_time(seconds)} or more on the {engine} "
            f"engine{why}, and several times that where samples do not fill the lanes; smaller -p "
            "values take less",
            err=True,
        )


def announce_trace(kernel: Kernel, machine: Machine, most_operations: int) -> None:
    """Say on stderr, before the run, that a trace of it will not hold everything."""
    if least_packets(kernel, machine) > most_operations:
        click.echo(
            f"note: the trace will keep the first {most_operations:,} operations; choose other "
            "cycles with --trace-cycles A:B",
            err=True,
        )


def long_time(seconds: float) -> str:
    """Return minutes or hours as people say them."""
    return f"{seconds / 60:,.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.1f} hours"


@contextmanager
def progress_bar(expected_cycles: int) -> Iterator[Callable[[int, int], None] | None]:
    """Give `progress(core, cycle)`, or None where stderr is no terminal.

    The bar fills towards the expected cycles and only pulses beyond, or if they are 0.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    bar = _Bar(console, expected_cycles)
    try:
        yield bar
    finally:
        bar.stop()


class _Bar:
    """The bar itself; it appears with the first report after two quiet seconds."""

    def __init__(self, console: Console, expected_cycles: int) -> None:
        self._expected = expected_cycles
        self._cycles: dict[int, int] = {}
        self._due = time.monotonic() + QUIET_SECONDS
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("simulating", total=None)

    def __call__(self, core: int, cycle: int) -> None:
        self._cycles[core] = cycle
        if time.monotonic() < self._due:
            return
        self._progress.start()
        done = sum(self._cycles.values()) // len(self._cycles)
        total = self._expected if done <= self._expected else None
        text = f"core {core}, cycle {cycle:,}"
        self._progress.update(self._task, description=text, completed=done, total=total)

    def stop(self) -> None:
        self._progress.stop()
