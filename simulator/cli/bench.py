"""`ftm7004 bench`: the engine's speed on this host, beside the host's own matrix product.

Checks the request, says beforehand what a long series will take, and shows what
`simulator.benchmark` measured. Figures come from there; only units are chosen here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from simulator.benchmark.cases import Case
from simulator.benchmark.series import estimated_seconds, measure_all, steps
from simulator.cli.options import STDOUT
from simulator.cli.progress import LONG_RUN_SECONDS, long_time
from simulator.cli.run import write_json
from simulator.reporting.output import check_writable

Row = Mapping[str, Any]

FILE_WIDTH = 120
"""Columns of tables that go to a file or pipe."""

MEBIBYTE = 1 << 20


def bench(cases: Sequence[Case], json_path: str | None) -> None:
    """Measure all cases and show or write what was found."""
    if json_path not in (None, STDOUT):
        check_writable(json_path)
    seconds = estimated_seconds(cases)
    if seconds > LONG_RUN_SECONDS:
        click.echo(
            f"note: {len(cases)} measurements, roughly {long_time(seconds)}; --quick, fewer "
            "--layers or a smaller --repeat take less",
            err=True,
        )
    with _progress(cases) as announce:
        document = measure_all(cases, announce)
    if json_path != STDOUT:
        console = Console(file=sys.stdout)
        show(
            document, console if console.is_terminal else Console(file=sys.stdout, width=FILE_WIDTH)
        )
    if json_path is not None:
        write_json(json_path, document)


@contextmanager
def _progress(cases: Sequence[Case]) -> Iterator[Callable[[Case], None]]:
    """Give a function that hears of every step; a bar shows it where stderr is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        work = [case.make_kernel().work.flops for case in cases]
        total = sum(flops * steps(case) for flops, case in zip(work, cases, strict=True))
        task = bar.add_task("measuring", total=total)
        flops_of = dict(zip(cases, work, strict=True))

        def announce(case: Case) -> None:
            bar.update(task, description=_layer(case.to_dict()), advance=flops_of[case])

        yield announce


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a series, then what every figure is measured against."""
    rows: list[Row] = document["rows"]
    for line in _host(document):
        console.print(Text(line))
    for title, table in (
        ("time of a simulate call, beside sgemm", _times(rows)),
        ("rates", _rates(rows)),
        ("the parts of a simulate call", _parts(rows)),
        ("a process's first call", _first_calls(rows)),
    ):
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)
    console.print()
    for name, meaning in document["denominators"].items():
        console.print(Text(f"{name.replace('_', ' ')}: {meaning}", style="dim"))


def _host(document: Mapping[str, Any]) -> list[str]:
    host, blas = document["host"], document["rows"][0]["blas"]
    kernels = f", {blas['kernels']} kernels" if blas["kernels"] else ""
    threads = blas["threads"] or "number not told, see CPUs below"
    lines = [
        f"host   {host['processor']}, {host['cpus']} CPUs, {host['system']}",
        f"sgemm  numpy on {blas['name']} {blas['version']}{kernels}, threads: {threads}",
    ]
    if host["load_before"] is not None:
        load = f"{host['load_before']:.1f} before, {host['load_after']:.1f} after"
        lines.append(f"load   {load}: above the number of CPUs, times are those of a busy host")
    return lines


def _times(rows: Sequence[Row]) -> Table:
    table = _table(
        "layer", "> cores", "> threads", "> simulate", "> min - max", "> sgemm", "> min - max",
        "> of sgemm", "> by CPU",
    )  # fmt: skip
    for row in rows:
        _add(
            table, *_way(row), *_spread(row["simulate"]), *_spread(row["sgemm"]),
            _share(row["ratio_to_sgemm"]), _share(row["cpu_ratio_to_sgemm"]),
        )  # fmt: skip
    return table


def _rates(rows: Sequence[Row]) -> Table:
    table = _table(
        "layer", "> cores", "> threads", "> Mpackets/s", "> Mcycles/s", "> GFlop/s", "> needed",
        "> slowdown", "> CPUs busy", "> sgemm GFlop/s",
    )  # fmt: skip
    for row in rows:
        speeds = (row["packets_per_second"] / 1e6, row["cycles_per_second"] / 1e6,
                  row["gflops_nominal"], row["gflops_needed"], row["slowdown"])  # fmt: skip
        sgemm = row["sgemm_gflops"]
        _add(
            table, *_way(row), *(f"{speed:,.1f}" for speed in speeds),
            f"{row['simulate']['cpus']:.2f}", "-" if sgemm is None else f"{sgemm:,.1f}",
        )  # fmt: skip
    return table


def _parts(rows: Sequence[Row]) -> Table:
    table = _table("layer", "> cores", "> threads", "> place", "> run", "> read back", "> rest")
    for row in rows:
        _add(table, *_way(row), *(f"{1e3 * each:,.1f} ms" for each in row["parts"].values()))
    return table


def _first_calls(rows: Sequence[Row]) -> Table:
    table = _table("layer", "> cores", "> building", "> compiling, cold", "> cached",
                   "> peak memory", "> before", "> tensors", "> memory")  # fmt: skip
    for row in rows:
        memory, compiling = row["memory"], row["compile"]
        seconds = (compiling[f"{name}_seconds"] for name in ("build", "cold", "cached"))
        _add(
            table, _layer(row), str(row["cores"]), *(f"{1e3 * each:,.0f} ms" for each in seconds),
            *(_mebibytes(memory[f"{name}_bytes"]) for name in ("peak", "before", "tensor")),
            "-" if memory["ratio"] is None else f"{memory['ratio']:.1f}",
        )  # fmt: skip
    return table


def _way(row: Row) -> tuple[str, str, str]:
    return _layer(row), str(row["cores"]), str(row["threads"])


def _layer(row: Row) -> str:
    return f"{row['layer']} x {row['batch']}" + (", timing only" if row["timing_only"] else "")


def _spread(times: Mapping[str, float] | None) -> tuple[str, str]:
    """Return the median with its unit, and the ends of the range in the same one."""
    if times is None:
        return "-", ""
    scale, unit = (1e3, "ms") if times["median"] < 1 else (1.0, "s")
    median, least, most = (scale * times[name] for name in ("median", "min", "max"))
    return f"{median:.4g} {unit}", f"{least:.4g} - {most:.4g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / MEBIBYTE:,.0f} MiB"


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        right = head.startswith("> ")
        justify: Any = "right" if right else "left"
        table.add_column(Text(head.removeprefix("> ")), justify=justify, overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))
