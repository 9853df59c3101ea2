"""The report as people read it, in a terminal or a file: tables with every denominator beside it.

Called by the command line. Numbers come from `simulator.reporting.report`; nothing is computed here
but percentages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.reporting.counters import LoopCount
from simulator.reporting.efficiency import share
from simulator.reporting.report import Report

MOST_LOOPS = 20
"""Loops shown: those with the most core-cycles."""


def render(report: Report, console: Console) -> None:
    """Print the report on a console of any width."""
    console.print(Text(_title(report), style="bold"))
    sections: list[RenderableType] = [
        _summary(report),
        _shares(report),
        _slots(report),
        _loops(report),
        _stalls(report),
    ]
    if report.cores > 1:
        sections.append(_cores(report))
    for section in sections:
        console.print()
        console.print(section)
    console.print()
    console.print(_verification(report))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="dim"))


def percent(value: float) -> str:
    """Return a share as people read it, such as `86.62 %`."""
    return f"{100 * value:.2f} %"


def _title(report: Report) -> str:
    params = ", ".join(f"{name}={_parameter(v)}" for name, v in report.params.items())
    return f"{report.kernel}({params})"


def _parameter(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _summary(report: Report) -> Table:
    table = _table("", "")
    mode = ", timing only" if report.timing_only else ""
    rows = [
        ("machine", f"{report.machine}, {_cores_text(report)}"),
        ("time on the chip", f"{report.cycles:,} cycles = {_seconds(report.seconds)}"),
        ("packets issued", f"{report.packets:,}"),
        ("nominal rate", _rate(report)),
        ("DDR traffic", _traffic(report)),
        ("engine", f"{report.engine}{mode}"),
        ("time on the host", _host(report)),
    ]
    return _filled(table, rows)


def _cores_text(report: Report) -> str:
    return "1 core" if report.cores == 1 else f"{report.cores} cores"


def _rate(report: Report) -> str:
    if not report.flops_nominal:
        return "no flops declared"
    peak = f"peak {report.peak_gflops:,.1f}"
    return f"{report.gflops:,.3f} GFlop/s of {peak} ({report.flops_nominal:,} flops)"


def _traffic(report: Report) -> str:
    compulsory = report.compulsory_bytes
    ratio = f"{share(report.ddr_bytes, compulsory):.2f} times the" if compulsory else "no"
    return f"{report.ddr_bytes:,} bytes, {ratio} {compulsory:,} compulsory"


def _host(report: Report) -> str:
    parts = {"place": report.place_seconds, "read back": report.readback_seconds}
    known = [f"{name} {_seconds(value)}" for name, value in parts.items() if value is not None]
    within = f" ({', '.join(known)})" if known else ""
    speed = share(report.cycles, report.host_seconds)
    return f"{_seconds(report.host_seconds)}{within}, {speed:,.0f} cycles a second"


def _shares(report: Report) -> Group:
    table = _table("share of the machine", "> ", "measured against")
    cores = _cores_text(report)
    places = f"cycles x {cores} x {report.macs_per_cycle} MACs"
    ddr = f"time x DDR peak {report.ddr_gbytes_per_second:,.1f} GB/s"
    flops = f"flops / (time x peak {report.peak_gflops:,.1f} GFlop/s)"
    rows = [
        ("efficiency", _percent_or(report, report.efficiency), f"nominal {flops}"),
        ("MAC utilisation", percent(report.mac_utilization), f"needed MACs / ({places})"),
        ("VMAC occupancy", percent(report.vmac_occupancy), "VMAC lanes issued / the same"),
        ("DDR efficiency", percent(report.ddr_efficiency), f"compulsory bytes / ({ddr})"),
        ("DDR occupancy", percent(report.ddr_occupancy), "bytes moved / the same"),
    ]
    lines: list[RenderableType] = [_filled(table, rows)]
    if report.kernel.startswith("maxpool"):
        one_core = f"{percent(report.efficiency * report.cores)} of one core's peak"
        chip = f"{percent(report.efficiency)} of {report.cores} cores' peak, "
        text = f"  pooling compute: {chip if report.cores > 1 else ''}{one_core} (calibration)"
        lines.append(Text(text))
    return Group(*lines)


def _percent_or(report: Report, value: float) -> str:
    return percent(value) if report.flops_nominal else "-"


def _slots(report: Report) -> Table:
    """Issue slots in two columns of pairs, so that twelve fit in six lines."""
    table = _table("issue slot", "> occupancy", "issue slot", "> occupancy")
    cells = [(slot, percent(value)) for slot, value in report.slots.items()]
    half = (len(cells) + 1) // 2
    right = [*cells[half:], *[("", "")] * (2 * half - len(cells))]
    return _filled(table, [(*a, *b) for a, b in zip(cells[:half], right, strict=True)])


def _loops(report: Report) -> Group:
    core_cycles = report.cycles * report.cores
    table = _table("where core-cycles went", "> packets", "> cycles", "> stalls", "> share")
    shown = _largest(report.loops)
    rows = [
        (
            _loop_name(count.loop, {other.loop for other in shown}),
            f"{count.packets:,}",
            f"{count.cycles:,}",
            f"{count.stalls:,}",
            percent(share(count.core_cycles, core_cycles)),
        )
        for count in shown
    ]
    idle = core_cycles - sum(count.core_cycles for count in report.loops)
    rows.append(("after HALT", "", f"{idle:,}", "", percent(share(idle, core_cycles))))
    lines: list[RenderableType] = [_filled(table, rows)]
    hidden = sum(count.core_cycles > 0 for count in report.loops) - len(shown)
    if hidden:
        lines.append(Text(f"  and {hidden} loops with fewer cycles"))
    return Group(*lines)


def _largest(loops: Sequence[LoopCount]) -> list[LoopCount]:
    """Return the loops with the most core-cycles, in the order of the program."""
    busy = [count for count in loops if count.core_cycles]
    kept = {count.loop for count in sorted(busy, key=lambda c: -c.core_cycles)[:MOST_LOOPS]}
    return [count for count in busy if count.loop in kept]


def _loop_name(path: str, shown: set[str]) -> str:
    """Return a loop's own name, indented under the loops around it that are shown."""
    if not path:
        return "outside loops"
    parts = path.split("/")
    around = [depth for depth in range(1, len(parts)) if "/".join(parts[:depth]) in shown]
    own = parts[around[-1] :] if around else parts
    return "  " * len(around) + "/".join(own)


def _stalls(report: Report) -> Table:
    table = _table("stalled by", "> core-cycles", "> share")
    core_cycles = report.cycles * report.cores
    rows = [
        (cause, f"{cycles:,}", percent(share(cycles, core_cycles)))
        for cause, cycles in report.stalls.items()
    ]
    return _filled(table, rows)


def _cores(report: Report) -> Table:
    causes = list(report.stalls)
    table = _table("core", "> cycles", "> packets", *(f"> {cause}" for cause in causes), "> VMAC")
    rows = [
        (
            str(number),
            f"{core['cycles']:,}",
            f"{core['packets']:,}",
            *(f"{core['stalls'][cause]:,}" for cause in causes),
            percent(core["vmac_occupancy"]),
        )
        for number, core in enumerate(report.per_core)
    ]
    return _filled(table, rows)


def _verification(report: Report) -> Text:
    if report.verified is None:
        return Text(report.verification, style="yellow")
    error = f", largest error {report.max_error:.3g}"
    if report.verified:
        return Text(f"verified: {report.verification}{error}", style="green")
    return Text(f"WRONG RESULT: {report.verification}{error}", style="bold red")


def _table(*heads: str) -> Table:
    """Return a table without lines; a head that starts with `> ` makes a column of numbers."""
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(heads), header_style="bold"
    )
    for head in heads:
        right = head.startswith("> ")
        table.add_column(
            Text(head.removeprefix("> ")),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table


def _filled(table: Table, rows: Iterable[tuple[str, ...]]) -> Table:
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _seconds(seconds: float) -> str:
    """Return a time with a unit that suits its size."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3f} {unit}"
    return f"{seconds * 1e9:.0f} ns"
