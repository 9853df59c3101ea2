"""Where time goes: a convolution on one core, on four, and on four with a faster DDR.

Every core has the same work, 64 samples. While a core multiplies one chunk of its images, DMA
brings the next one (double buffering); the weights come once for all cores (broadcast). One core
hides most of its transfers behind work. Four cores share one DDR and have to wait.

    python examples/04_where_time_goes.py

The trace it writes opens in https://ui.perfetto.dev: a process is a core, with a row for each issue
slot, one for stalls, and one for each DMA channel.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from isa import Machine
from kernels import conv2d_forward
from simulator import simulate
from simulator.reporting.trace import Trace
from simulator.result import DMA_WAIT, TransferResult
from simulator.simulate import Run

SHOWN = 10_000
"""Cycles whose transfers are printed, from the start of the run."""
TRACED = (7_000, 10_000)
"""Cycles of the trace: one chunk that is hidden, one that is waited for."""


def measure(name: str, cores: int, machine: Machine, trace: Trace | None = None) -> Run:
    """Run the convolution with 64 samples a core and print a line."""
    kernel = conv2d_forward(batch=64 * cores, channels=8, height=3, width=3, filters=32)
    run = simulate(kernel, kernel.make_inputs(), machine=machine, cores=cores, trace=trace)
    report, flying, waiting = run.report, in_flight(run), stalled(run)
    print(
        f"{name:<20}{report.cycles:>7,} cycles{report.mac_utilization:>9.1%} MAC use"
        f"{report.ddr_bytes:>11,} bytes{1 - waiting / flying:>8.1%} of transfer time hidden"
    )
    return run


def transfers_of(run: Run, core: int) -> list[TransferResult]:
    """Return the transfers a core took part in."""
    return [transfer for transfer in run.result.transfers if transfer.mask >> core & 1]


def in_flight(run: Run) -> int:
    """Return the cycles in which core 0 had a transfer under way, its launch included."""
    cycles: set[int] = set()
    for transfer in transfers_of(run, 0):
        cycles.update(range(transfer.first_request, transfer.end))
    return len(cycles)


def stalled(run: Run) -> int:
    """Return the cycles in which core 0 stood still and waited for one."""
    stalls = run.result.cores[0].stalls
    return sum(cycles for place, cycles in stalls.items() if place.cause == DMA_WAIT)


def show_transfers(run: Run) -> None:
    """Print the first transfers of core 0, and how long it waited for each."""
    waited = Counter[int]()
    for place, cycles in run.result.cores[0].stalls.items():
        waited[place.transfer] += cycles
    print(f"\ncore 0 of 4, transfers of the first {SHOWN:,} cycles")
    for transfer in sorted(transfers_of(run, 0), key=lambda transfer: transfer.first_request):
        if transfer.first_request < SHOWN:
            print(
                f"  {transfer.source + ' -> ' + transfer.destination:<25}"
                f"start {transfer.first_request:>6,}  data {transfer.begin:>6,} to "
                f"{transfer.end:>6,}  waited for {waited[transfer.id]:>5,} cycles"
            )


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("output"), show_default=True
)
def main(output: Path) -> None:
    """Compare the three runs and write a trace of the second."""
    output.mkdir(parents=True, exist_ok=True)
    trace = Trace(output / "four_cores.json", TRACED)
    machine = Machine.load("ft-m7004")
    faster = Machine.load("ft-m7004", ["ddr.bytes_per_cycle=85.4"])
    measure("1 core", 1, machine)
    run = measure("4 cores", 4, machine, trace)
    measure("4 cores, DDR x 2", 4, faster)
    show_transfers(run)
    print(f"\nwrote {trace.path}")


if __name__ == "__main__":
    main()
