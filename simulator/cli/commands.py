"""The command line `ftm7004`: its commands, and how errors end them.

Exit status: 0 done, 1 the run or its verification failed, 2 bad usage, 130 interrupted. Errors are
one message on stderr; `--debug` adds the traceback.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

import click

from isa.errors import Ftm7004Error
from isa.machine import Machine
from simulator.benchmark.cases import BATCH, LAYERS, QUICK_BATCH, QUICK_LAYERS, usual_cases
from simulator.cli.bench import bench
from simulator.cli.code_cache import cache
from simulator.cli.fuzz import fuzz
from simulator.cli.loading import library
from simulator.cli.options import (
    DEBUG,
    STDOUT,
    UNBOUNDED,
    Request,
    debug_option,
    json_option,
    kernel_options,
    machine_options,
    range_option,
)
from simulator.cli.run import execute
from simulator.cli.tables import show_kernels, show_listing, show_machine
from simulator.cli.vgg16 import vgg16
from simulator.reporting.output import check_writable

FAILED, INTERRUPTED = 1, 130


class Commands(click.Group):
    """The commands; errors of ours become a message and a returned exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and return the exit status."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Ftm7004Error as error:
            return _report(ctx, f"error: {error}", error.status)
        except MemoryError as error:
            return _report(ctx, f"error: this host has too little memory: {error}", FAILED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when the reader of stdout has gone
            return _report(ctx, f"error: {error.strerror or error}", FAILED)
        except Exception as error:
            text = f"internal error: {type(error).__name__}: {error}"
            hint = "this is a bug of the simulator; --debug shows the traceback"
            return _report(ctx, f"{text}\n{hint}", FAILED)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on `arguments` (default: the process's) and exit with its status."""
    try:
        status = ftm7004.main(arguments, "ftm7004", standalone_mode=False)
    except click.Abort:
        click.echo("interrupted", err=True)
        status = INTERRUPTED
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}{_where_to_look(error)}", err=True)
        status = error.exit_code
    sys.exit(status or 0)


def _report(ctx: click.Context, message: str, status: int) -> int:
    if ctx.meta.get(DEBUG):
        click.echo(traceback.format_exc(), err=True)
    click.echo(message, err=True)
    return status


def _where_to_look(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"\n{context.command_path} --help shows what can be given" if context else ""


def _version() -> str:
    try:
        return metadata.version("ftm7004")
    except metadata.PackageNotFoundError:
        return "(not installed)"


@click.group(
    cls=Commands, invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
@click.version_option(_version(), prog_name="ftm7004")
@debug_option
@click.pass_context
def ftm7004(ctx: click.Context) -> None:
    """Run programs on a simulated FT-M7004 deep-learning accelerator."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


ftm7004.add_command(cache)
ftm7004.add_command(fuzz)
ftm7004.add_command(vgg16)


@ftm7004.command()
@debug_option
def kernels() -> None:
    """List the kernels of the library, with parameters and their defaults."""
    show_kernels(library())


@ftm7004.command()
@kernel_options
def run(request: Request) -> int:
    """Run a kernel, verify its result, and report where the cycles went."""
    return execute(request)


@ftm7004.command("listing")
@kernel_options
@click.option("--columns", metavar="SLOT,SLOT", default="", help="Show only these issue slots.")
@range_option("--packets", "Show only packets A to B - 1.")
def show_program(request: Request, columns: str, packets: tuple[int, int] | None) -> None:
    """Show the packets of a kernel: a row a packet, a column an issue slot."""
    slots = tuple(slot.strip().upper() for slot in columns.split(",") if slot.strip())
    show_listing(request, slots, packets or (0, UNBOUNDED))


@ftm7004.command("machine")
@machine_options
@json_option
@debug_option
def show_record(machine: str, settings: tuple[str, ...], json: str | None) -> None:
    """Show a machine record: every field with unit, confidence and source."""
    if json not in (None, STDOUT):
        check_writable(json)
    show_machine(Machine.load(machine, settings), json)


@ftm7004.command("bench")
@click.option("--layers", metavar="NAME,NAME", help=f"Layers to run; {','.join(LAYERS)} without.")
@click.option("--batch", type=click.IntRange(min=1), help=f"Samples; {BATCH} unless given.")
@click.option(
    "--quick",
    is_flag=True,
    help=f"Less work: {','.join(QUICK_LAYERS)}, batch {QUICK_BATCH}, nothing on scaling.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Times everything is measured; medians are shown.",
)
@json_option
@debug_option
def measure_speed(
    layers: str | None,
    batch: int | None,
    quick: bool,
    repeat: int,
    json: str | None,
) -> None:
    """Measure the compiled engine on this host, beside numpy's sgemm on one thread."""
    names: tuple[str, ...]
    names, size = (QUICK_LAYERS, QUICK_BATCH) if quick else (LAYERS, BATCH)
    if layers is not None:
        names = tuple(name.strip() for name in layers.split(",") if name.strip())
    bench(usual_cases(names, batch or size, repeat, scaling=not quick), json)
