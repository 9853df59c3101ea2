"""`ftm7004 run`: check the request, run the kernel, verify, report, write what was asked for."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console

from isa.language.kernel import Kernel
from isa.machine import Machine
from simulator.cli.loading import author_errors
from simulator.cli.options import STDOUT, Request
from simulator.cli.progress import announce, announce_trace, least_packets, progress_bar
from simulator.cli.tensor_files import read_npz, write_npz
from simulator.reporting.output import write_whole
from simulator.reporting.rendering import render
from simulator.reporting.report import Report
from simulator.reporting.trace import Trace
from simulator.reporting.verification import judge
from simulator.simulate import Run, can_compile, simulate

WRONG = 1
"""Exit status of a run whose result is wrong."""


def execute(request: Request) -> int:
    """Run a kernel as asked; return the exit status. Raise Ftm7004Error for what goes wrong."""
    machine = request.load_machine()
    kernel = request.make_kernel()
    request.check_together()
    with author_errors(kernel.definition):
        kernel.program(machine, request.cores)
        inputs = _inputs(request, kernel)
        run = _simulated(request, kernel, machine, inputs)
        report = run.report
        try:
            if not request.timing_only:
                report = report.with_verdict(judge(kernel, inputs, run.outputs))
        finally:  # a reference that fails must not lose a run that is done
            _write_results(request, run, report)
    if report.verified is False:
        click.echo(f"error: wrong result: {report.verification}", err=True)
        return WRONG
    return 0


def write_json(path: str, document: Any) -> None:
    """Write a JSON document to a file, or to stdout for `-`."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if path == STDOUT:
        click.echo(text, nl=False)
    else:
        write_whole(path, text)


def _inputs(request: Request, kernel: Kernel) -> dict[str, Any]:
    if request.timing_only:
        return {}
    if request.input is not None:
        return read_npz(request.input, kernel)
    return kernel.make_inputs(request.seed)


def _simulated(request: Request, kernel: Kernel, machine: Machine, inputs: dict[str, Any]) -> Run:
    trace = Trace(request.trace, request.trace_cycles) if request.trace is not None else None
    announce(kernel, machine, request.engine, _engine_of(request, kernel, machine, trace))
    if trace is not None and request.trace_cycles is None:
        announce_trace(kernel, machine, trace.most_operations)
    with progress_bar(least_packets(kernel, machine) // request.cores) as progress:
        run = simulate(
            kernel,
            inputs,
            machine=machine,
            cores=request.cores,
            engine=request.engine,
            check=request.check,
            trace=trace,
            timing_only=request.timing_only,
            cycle_limit=request.cycle_limit,
            progress=progress,
        )
    if trace is not None and trace.note:
        click.echo(f"note: {trace.note}", err=True)
    return run


def _engine_of(request: Request, kernel: Kernel, machine: Machine, trace: Trace | None) -> str:
    """Return the engine that will run: the reference engine where the compiled one cannot."""
    program = kernel.program(machine, request.cores)
    able = can_compile(program, machine, request.check, request.timing_only, trace)
    return request.engine if able else "reference"


def _write_results(request: Request, run: Run, report: Report) -> None:
    """Show the report first, so that it is not lost where a file cannot be written after all."""
    if request.json != STDOUT:
        render(report, Console(file=sys.stdout))
    if request.output is not None:
        write_npz(request.output, run.outputs)
    if request.json is not None:
        write_json(request.json, report.to_dict())
