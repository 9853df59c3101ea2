"""The tables of a network: its rows, the means beside the paper's, one image on other devices.

Called by `ftm7004 vgg16`; numbers come from `simulator.network`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.network.plan import TRAINING
from simulator.network.published import GPU_TRAINING
from simulator.network.row import Row
from simulator.reporting.efficiency import share
from simulator.reporting.rendering import percent
from simulator.reporting.report import Report

FILE_WIDTH = 150
"""Columns of tables that go to a file or pipe."""


def show_network(document: Mapping[str, Any], rows: Sequence[Row], network: Report) -> None:
    """Print everything about a run; `document` is what `--json` writes."""
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=FILE_WIDTH)
    console.print(Text(document["title"], style="bold"))
    sections: list[RenderableType] = [_layers(document, rows, network), _means(document)]
    if document["devices"]:
        sections.append(_devices(document["devices"]))
    if not network.timing_only:
        sections.append(_verifications(rows))
    for section in sections:
        console.print()
        console.print(section)
    console.print()
    for line in document["results"]:
        console.print(Text(line))
    for note in document["notes"]:
        console.print(Text(f"note: {note}", style="dim"))


def _layers(document: Mapping[str, Any], rows: Sequence[Row], network: Report) -> Table:
    causes = list(network.stalls)
    table = _table(
        "layer", "kernel", "> cycles", "> ms on chip", "> efficiency", "> MAC use", "> DDR eff.",
        *(f"> {cause.removesuffix('_conflict')}" for cause in causes), "bound", "> reached",
    )  # fmt: skip
    for row in rows:
        bound = (row.bounds.held_by, percent(row.bound_share))
        _add(table, row.name, row.kind, *_figures(row.report, causes), *bound)
    table.add_section()
    whole = document["network"]
    bound = (whole["bound"], percent(whole["bound_share"]))
    kernels = "1 kernel" if len(rows) == 1 else f"{len(rows)} kernels"
    _add(table, "all", kernels, *_figures(network, causes), *bound)
    return table


def _figures(report: Report, causes: Iterable[str]) -> list[str]:
    core_cycles = report.cycles * report.cores
    return [
        f"{report.cycles:,}", f"{1000 * report.seconds:,.3f}", percent(report.efficiency),
        percent(report.mac_utilization), percent(report.ddr_efficiency),
        *(percent(share(report.stalls[cause], core_cycles)) for cause in causes),
    ]  # fmt: skip


def _means(document: Mapping[str, Any]) -> Table:
    table = _table("mean over layers", "> layers", "> published", "> ours", "> difference", "")
    for mean in document["means"]:
        layers = f"{mean['layers']} of {mean['layers_of_network']}"
        mark = "calibration" if mean["calibration"] else ""
        _add(table, mean["what"], layers, *_beside(mean), mark)
    compared = document["whole_network"]
    if compared["difference"] is not None:
        _add(table, "whole network, all kernels together", "", *_beside(compared), "")
        if document["phase"] == TRAINING:
            name, published = GPU_TRAINING
            _add(table, f"whole network, {name}", "", percent(published), "-", "-", "")
    return table


def _beside(compared: Mapping[str, Any]) -> tuple[str, str, str]:
    published, difference = compared["published"], compared["difference"]
    return (
        "-" if published is None else percent(published),
        percent(compared["ours"]),
        "-" if difference is None else f"{100 * difference:+.2f}",
    )


def _devices(devices: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "one image, forward", "> peak TFlop/s", "> s, printed", "> s, as meant", "> images/s",
        "> of peak",
    )  # fmt: skip
    for device in devices:
        printed = device["printed_seconds"]
        _add(
            table, device["device"], f"{device['peak_tflops']:g}",
            "-" if printed is None else f"{printed:.4f}", f"{device['seconds']:.4f}",
            f"{device['images_per_second']:.2f}", percent(device["efficiency"]),
        )  # fmt: skip
    return table


def _verifications(rows: Sequence[Row]) -> Table:
    table = _table("layer", "kernel", "verified", "> largest error")
    for row in rows:
        report = row.report
        error = "-" if report.max_error is None else f"{report.max_error:.3g}"
        wrong = "WRONG: " if report.verified is False else ""
        _add(table, row.name, row.kind, wrong + report.verification, error)
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        right = head.startswith("> ")
        justify: Any = "right" if right else "left"
        table.add_column(
            Text(head.removeprefix("> ")), justify=justify, overflow="fold", no_wrap=right
        )
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))
