"""`ftm7004 fuzz`: random programs on both engines, told as they go, summed up at the end.

Exit status 1 if the engines differ on a program or a worker crashed.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console

from isa.instruction import REGISTRY
from simulator.cli.options import STDOUT, debug_option, json_option
from simulator.cli.run import write_json
from simulator.fuzzing.campaign import Campaign, Request, Summary
from simulator.reporting.output import check_writable

DEFAULT_PROGRAMS = 100


@click.command("fuzz")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Run for so long."
)
@click.option(
    "--programs",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Run so many programs; {DEFAULT_PROGRAMS} unless --minutes is given.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed and number give the same program.",
)
@click.option(
    "--first",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="Number of the first program.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that run programs at once.",
)
@click.option(
    "--reports",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=".",
    metavar="DIRECTORY",
    help="Where programs that differ are written.",
)
@json_option
@debug_option
def fuzz(
    minutes: float | None, programs: int | None, seed: int, first: int, jobs: int, reports: Path,
    json: str | None,
) -> int:  # fmt: skip
    """Run random programs on both engines and compare everything."""
    if json not in (None, STDOUT):
        check_writable(json)
    count = DEFAULT_PROGRAMS if programs is None and minutes is None else programs
    seconds = None if minutes is None else 60 * minutes
    request = Request(seed=seed, first=first, programs=count, seconds=seconds, jobs=jobs)
    campaign = Campaign(request, _Watching(reports))
    interrupted = False
    try:
        campaign.run()
    except KeyboardInterrupt:
        interrupted = True
    return _tell(campaign.summary, interrupted, json, reports)


def _tell(summary: Summary, interrupted: bool, json: str | None, reports: Path) -> int:
    """Print what was found and the summary; return the exit status."""
    if json is not None:
        write_json(json, {**summary.to_dict(), "interrupted": interrupted})
    if json != STDOUT:
        for finding in summary.findings:
            click.echo(f"{finding.text}\nwritten to {reports / finding.file_name}\n")
        click.echo("\n".join(["interrupted"] * interrupted + _lines(summary)))
    return int(bool(summary.findings))


def _lines(summary: Summary) -> list[str]:
    """Return the final summary, a fact a line."""
    covered = len(REGISTRY) - len(summary.missing)
    never = f"; never executed: {', '.join(summary.missing)}" if summary.missing else ""
    ended = sum(summary.faults.values())
    lines = [
        f"programs      {summary.programs:,}, {summary.packets:,} packets executed",
        f"instructions  {covered} of {len(REGISTRY)}{never}",
        f"compared      {summary.native:,} as machine code, {summary.timing:,} without numbers, "
        f"{ended:,} ended in an error on purpose",
    ]
    if summary.complaints:
        lines.append(
            f"dropped       {len(summary.complaints):,} that a checked run refuses, such as"
        )
        lines.append(f"              {summary.complaints[0].splitlines()[0]}")
    lines.append(f"differences   {len(summary.findings):,}")
    return lines


class _Watching:
    """Writes reports as soon as there are any, and shows the summary so far on a terminal."""

    def __init__(self, reports: Path) -> None:
        self._reports, self._written = reports, 0
        self._terminal = Console(stderr=True).is_terminal
        self._shown = time.monotonic()

    def __call__(self, summary: Summary) -> None:
        for finding in summary.findings[self._written :]:
            path = finding.write(self._reports)
            click.echo(f"a difference: {finding.command}, see {path}", err=True)
        self._written = len(summary.findings)
        if self._terminal and time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            text = f"{summary.programs:,} programs, {summary.packets:,} packets"
            click.echo(f"\r{text}, {self._written} differences ", nl=False, err=True)
