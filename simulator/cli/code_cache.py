"""`ftm7004 cache`: where compiled machine code is kept, how much there is, and how to remove it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from isa.errors import Ftm7004Error, UsageError
from simulator.cli.options import STDOUT, debug_option, json_option
from simulator.cli.run import write_json
from simulator.compiled.cache import VARIABLE, CodeCache, Stored, cache_directory
from simulator.reporting.output import check_writable

PURPOSE = f"""\
Here stands the machine code of programs that ran on the compiled engine, so that their next start
needs no compiling. Clearing it loses nothing but that time. {VARIABLE}=DIRECTORY keeps it
elsewhere, {VARIABLE}=off nowhere."""

OFF = f"off: {VARIABLE} is empty or 'off'"
READY, MISSING = "ready", "not there yet: the first compiled run makes it"


@click.group("cache", invoke_without_command=True)
@debug_option
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show or clear the machine code that is kept on disk."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(show, json=None)


@cache.command()
@json_option
@debug_option
def show(json: str | None) -> None:
    """Show where machine code is kept, and how much there is."""
    _check_path(json)
    directory = cache_directory()
    kept = None if directory is None else CodeCache(directory)
    state, files = (OFF, []) if kept is None else _state(kept)
    document = {
        "directory": None if kept is None else str(kept.directory),
        "state": state,
        "entries": sum(item.is_entry for item in files),
        "bytes": _bytes(files),
        "limit_bytes": 0 if kept is None else kept.limit_bytes,
    }
    if json is not None:
        write_json(json, document)
    if json != STDOUT:
        _print(document)


@cache.command()
@json_option
@debug_option
def clear(json: str | None) -> None:
    """Remove all machine code that is kept, and nothing else."""
    _check_path(json)
    directory = cache_directory()
    if directory is None:
        raise UsageError(f"the code cache is {OFF}: there is nothing to clear")
    kept = CodeCache(directory)
    files = _files(kept, "clear") if os.path.lexists(directory) else []
    left = set(kept.clear()) if files else set[Path]()
    removed = [item for item in files if item.path not in left]
    document = {"directory": str(directory), "entries": len(removed), "bytes": _bytes(removed)}
    if json is not None:
        write_json(json, document)
    if json != STDOUT:
        click.echo(f"removed {_amount(len(removed), _bytes(removed))} from '{directory}'")
    if left:
        raise Ftm7004Error(
            f"{len(left)} of {len(files)} entries in '{directory}' could not be removed: the "
            "directory must be writable"
        )


def _check_path(json: str | None) -> None:
    if json not in (None, STDOUT):
        check_writable(json)


def _state(kept: CodeCache) -> tuple[str, list[Stored]]:
    """Return in words whether code can be kept, and what is there."""
    directory = kept.directory
    if not os.path.lexists(directory):
        return MISSING, []
    files = _files(kept, "read")
    if os.access(directory, os.W_OK | os.X_OK):
        return READY, files
    return "not writable: what is there is used, what is missing is compiled at every start", files


def _files(kept: CodeCache, verb: str) -> list[Stored]:
    try:
        return kept.files()
    except OSError as error:
        raise Ftm7004Error(
            f"cannot {verb} the code cache '{kept.directory}': {error.strerror}; nothing is kept "
            f"there, set {VARIABLE} to a directory that can be written"
        ) from error


def _bytes(files: Sequence[Stored]) -> int:
    return sum(item.bytes for item in files)


def _amount(entries: int, size: int) -> str:
    return f"{entries:,} {'entry' if entries == 1 else 'entries'}, {size / (1 << 20):,.1f} MiB"


def _print(document: dict[str, Any]) -> None:
    if document["directory"] is not None:
        click.echo(f"directory  {document['directory']}")
    click.echo(f"state      {document['state']}")
    most = f"{document['limit_bytes'] >> 20:,} MiB"
    click.echo(f"content    {_amount(document['entries'], document['bytes'])} of at most {most}")
    click.echo(f"\n{PURPOSE}")
