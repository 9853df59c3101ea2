"""The commands that show what there is, without running it: kernels, listings, machine records."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isa.language.kernel import KernelDefinition
from isa.language.parameters import Parameter
from isa.listing import listing, packet_rows
from isa.machine import Machine
from isa.program import Program
from simulator.cli.loading import author_errors, layer_names
from simulator.cli.options import Request
from simulator.cli.run import write_json

RUN_ONLY = ("input", "output", "trace", "trace_cycles", "check", "timing_only", "cycle_limit")
"""Options of a request that mean nothing to a listing."""


FILE_WIDTH = 320
"""Columns of a machine record that goes to a file or pipe: one line a field, for grep."""


def show_kernels(kernels: Mapping[str, KernelDefinition]) -> None:
    """Print every kernel with its meaning, tensors and parameters, then the layers."""
    for name, definition in kernels.items():
        click.echo(f"{name}  {definition.meaning}")
        click.echo(f"    {_tensors(definition)}")
        click.echo(f"    {'  '.join(_default(p) for p in definition.parameters.values())}\n")
    console = Console(file=sys.stdout)
    console.print(Text("layers for --layer: " + ", ".join(layer_names())), soft_wrap=False)


def _tensors(definition: KernelDefinition) -> str:
    """Return the inputs and outputs; those that only an option brings stand in brackets."""
    plain = definition()
    sides = []
    for side in ("inputs", "outputs"):
        names = dict.fromkeys(getattr(plain, side))
        options = (definition(**option) for option in _options(definition))
        more = dict.fromkeys(name for kernel in options for name in getattr(kernel, side))
        sides.append(", ".join([*names, *(f"[{name}]" for name in more if name not in names)]))
    return " -> ".join(sides)


def _options(definition: KernelDefinition) -> list[dict[str, Any]]:
    """Return parameters that are off by default, each switched on."""
    switches = [{p.name: True} for p in definition.parameters.values() if p.default is False]
    rates = [{p.name: 0.0} for p in definition.parameters.values() if p.default is None]
    return switches + rates


def _default(parameter: Parameter) -> str:
    """Return a parameter with its default; of choices the default comes first."""
    value = parameter.check(parameter.default)
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    others = [choice for choice in parameter.choices if choice != value]
    return f"{parameter.name}={'|'.join([text, *others])}"


def show_listing(request: Request, slots: tuple[str, ...], packets: tuple[int, int]) -> None:
    """Print the listing of a kernel's program, or write it as JSON."""
    ignored = [name for name in RUN_ONLY if getattr(request, name) not in (None, False)]
    if ignored:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        click.echo(f"note: a listing runs nothing and ignores {options}", err=True)
    machine, kernel = request.load_machine(), request.make_kernel()
    with author_errors(kernel.definition):
        program = kernel.program(machine, request.cores)
    first, last = packets[0], packets[1] - 1
    text = listing(program, machine, columns=slots, first=first, last=last)
    if request.json is not None:
        write_json(request.json, _listing_document(program, machine, first, last))
    else:
        click.echo(text, nl=False)


def _listing_document(program: Program, machine: Machine, first: int, last: int) -> dict[str, Any]:
    rows = packet_rows(program, first, last)
    return {
        "program": program.name,
        "machine": machine.name,
        "cores": program.cores,
        "packets": [
            {
                "packet": row.packet,
                "cycles": program.packets[row.packet].cycles,
                "labels": list(row.labels),
                "loop": row.loop,
                "operations": {o.slot: str(o) for o in program.packets[row.packet].operations},
                "lines": row.lines,
                "source": row.source,
            }
            for row in rows
        ],
    }


def show_machine(machine: Machine, json_path: str | None) -> None:
    """Print a machine record with units, sources and confidence, or write it as JSON."""
    if json_path is not None:
        write_json(json_path, _machine_document(machine))
        return
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=FILE_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for head in ("field", "value", "unit", "confidence", "source"):
        table.add_column(Text(head), overflow="fold", no_wrap=head in ("field", "confidence"))
    for key, value in machine.values().items():
        note = machine.notes[key]
        cells = (key, _shown(value), note.unit, note.confidence, note.source)
        table.add_row(*(Text(cell) for cell in cells))
    console.print(Text(f"machine {machine.name}", style="bold"))
    console.print(table)
    for name, (value, unit) in _peaks(machine).items():
        console.print(Text(f"{name}: {value:,g} {unit}"))


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _peaks(machine: Machine) -> dict[str, tuple[float, str]]:
    """Return what follows from the record: name -> (value, unit)."""
    cores = machine.chip.cores
    rate = machine.ddr.bytes_per_cycle * machine.chip.clock_ghz
    return {
        "multiply-adds of a core": (machine.macs_per_cycle, "a cycle"),
        "peak of a core": (machine.peak_gflops, "GFlop/s"),
        "peak of the chip": (machine.peak_gflops * cores, "GFlop/s"),
        "DDR peak": (rate, "GB/s"),
        "DDR rate that transfers reach": (rate * machine.ddr.efficiency, "GB/s"),
    }


def _machine_document(machine: Machine) -> dict[str, Any]:
    fields = {}
    for key, value in machine.values().items():
        note = machine.notes[key]
        fields[key] = {
            "value": list(value) if isinstance(value, tuple) else value,
            "unit": note.unit,
            "confidence": note.confidence,
            "source": note.source,
        }
    peaks = {name: {"value": v, "unit": unit} for name, (v, unit) in _peaks(machine).items()}
    return {"machine": machine.name, "fields": fields, "peaks": peaks}
