"""The options that every command on a kernel takes, and what they stand for.

`kernel_options` decorates a click command; the command gets one `Request`. Nothing here runs a
kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click
from attrs import frozen

from isa.errors import UsageError, unknown
from isa.language.kernel import Kernel, KernelDefinition
from isa.machine import Machine
from simulator.cli.loading import author_errors, find_kernel, layer_parameters, library
from simulator.reporting.output import check_writable
from simulator.simulate import DEFAULT_ENGINE, ENGINES

STDOUT = "-"
LAYER_BATCH = 16
"""Batch of `--layer` without `-p batch=`: one image a lane of FT-M7004."""

UNBOUNDED = 2**62
"""End of a range without one."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DEBUG = "simulator.debug"
"""Key in click's shared `Context.meta`: show tracebacks."""


@frozen
class Request:
    """What a command line asks for; the fields are the options."""

    kernel: str | None
    parameters: tuple[str, ...]
    layer: str | None
    cores: int
    machine: str
    settings: tuple[str, ...]
    engine: str
    input: str | None
    output: str | None
    json: str | None
    trace: str | None
    trace_cycles: tuple[int, int] | None
    check: bool
    timing_only: bool
    cycle_limit: int | None
    seed: int

    def load_machine(self) -> Machine:
        """Return the machine with the changes of `--set`."""
        return Machine.load(self.machine, self.settings)

    def make_kernel(self) -> Kernel:
        """Return the kernel with the parameters of `--layer` and, on top, of `-p`."""
        forward, shape = layer_parameters(self.layer) if self.layer else (None, {})
        name = self.kernel or forward
        if name is None:
            raise UsageError("name a KERNEL, a FILE.py or a --layer; ftm7004 kernels lists them")
        definition = find_kernel(name)
        if forward is not None:
            shape = _fitted(definition, str(self.layer), forward, shape)
        with author_errors(definition):
            return definition(**{**shape, **_given(definition, self.parameters)})

    def check_together(self) -> None:
        """Refuse options that contradict each other, and files that cannot be written."""
        if self.trace_cycles is not None and self.trace is None:
            raise UsageError("--trace-cycles needs --trace FILE")
        for option, value in (("--input", self.input), ("--output", self.output)):
            if self.timing_only and value is not None:
                raise UsageError(f"--timing-only computes no tensors: leave out {option}")
        self._refuse_shared_files()
        for path in (self.output, self.trace, None if self.json == STDOUT else self.json):
            if path is not None:
                check_writable(path)

    def _refuse_shared_files(self) -> None:
        """Refuse a result file that another option reads or writes."""
        kernel_file = (self.kernel or "").rpartition(":")[0] or self.kernel
        read = {"KERNEL": kernel_file, "--machine": self.machine, "--input": self.input}
        written = {"--output": self.output, "--trace": self.trace, "--json": self.json}
        seen: dict[Path, str] = {}
        for option, text in {**read, **written}.items():
            path = Path(text or STDOUT).resolve()
            if text in (None, STDOUT) or (option in read and not path.is_file()):
                continue  # a name of ours, such as a library kernel's, is no file
            if path in seen and not path.is_char_device():
                raise UsageError(f"{seen[path]} and {option} name the same file '{text}'")
            seen[path] = option


def _fitted(
    definition: KernelDefinition, layer: str, forward: str, shape: dict[str, int]
) -> dict[str, int]:
    """Return a layer's parameters for a kernel, with a batch; refuse a kernel of another kind."""
    family, wanted = definition.name.partition("_")[0], forward.partition("_")[0]
    ours = library().get(definition.name) is definition
    foreign = [name for name in shape if name not in definition.parameters]
    if foreign or (ours and family != wanted):
        raise UsageError(
            f"layer '{layer}' is for {forward} and its like, not for '{definition.name}'"
        )
    batch = {"batch": LAYER_BATCH} if "batch" in definition.parameters else {}
    return {**batch, **shape}


def _given(definition: KernelDefinition, texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of `-p name=value` options; of a repeated name the last one holds."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"-p needs name=value, such as batch=16; got '{text}'")
        if name not in definition.parameters:
            problem = unknown("parameter", name, definition.parameters)
            raise UsageError(f"kernel '{definition.name}': {problem}")
        values[name] = definition.parameters[name].parse(value)
    return values


def range_option(name: str, help_text: str) -> Decorator:
    """Return an option for two whole numbers `A:B`, either of which may be left out."""

    def parse(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
        if value is None:
            return None
        first, colon, last = value.partition(":")
        try:
            ends = int(first or 0), int(last or UNBOUNDED)
        except ValueError:
            colon, ends = "", (0, 0)
        if not colon or not 0 <= ends[0] <= ends[1]:
            raise click.BadParameter(f"'{value}' is no range A:B of whole numbers with A <= B")
        return ends

    return click.option(name, callback=parse, metavar="A:B", help=help_text)


def debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--debug`, which every command takes."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[DEBUG] = value or ctx.meta.get(DEBUG, False)

    return click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=remember,
        help="Show the Python traceback of an error.",
    )(command)  # fmt: skip


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--machine` and `--set`."""
    command = click.option(
        "--set", "settings", metavar="KEY=VALUE", multiple=True,
        help="Change a machine field, such as ddr.bytes_per_cycle=25.6; repeatable.",
    )(command)  # fmt: skip
    return click.option(
        "--machine", default="ft-m7004", show_default=True, metavar="NAME|FILE.toml",
        help="Machine record.",
    )(command)  # fmt: skip


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option(
        "--json", metavar="FILE|-", help="Write JSON; with - stdout holds nothing else."
    )(command)


_WHOLE = click.IntRange(min=1)
_OPTIONS: list[Decorator] = [
    click.argument("kernel", metavar="[KERNEL|FILE.py[:NAME]]", required=False),
    click.option("-p", "parameters", metavar="NAME=VALUE", multiple=True,
                 help="Kernel parameter; repeatable. A pair is written 3x5."),
    click.option("--layer", metavar="NETWORK/LAYER",
                 help="Parameters of a layer such as vgg16/conv3_1; -p overrides them. "
                 f"Batch {LAYER_BATCH} unless given."),
    click.option("--cores", type=_WHOLE, default=1, show_default=True, help="Cores of the run."),
    machine_options,
    click.option("--engine", type=click.Choice(ENGINES), default=DEFAULT_ENGINE, show_default=True,
                 help="What executes the packets; checks are the reference engine's."),
    click.option("--input", metavar="IN.npz", help="Input tensors; random ones without."),
    click.option("--output", metavar="OUT.npz", help="Write the output tensors."),
    json_option,
    click.option("--trace", metavar="FILE", help="Write a trace for ui.perfetto.dev."),
    range_option("--trace-cycles", "Trace only cycles A to B - 1; any engine runs the others."),
    click.option("--check", is_flag=True,
                 help="Look for races, uninitialised reads and broken store latencies."),
    click.option("--timing-only", is_flag=True, help="Count cycles, compute no tensors."),
    click.option("--cycle-limit", type=_WHOLE, metavar="N", help="End a runaway program."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Seed of random inputs."),
    debug_option,
]  # fmt: skip


def kernel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command every option of `run`, as one `Request`, its first argument."""
    names = [field.name for field in attrs.fields(Request)]

    @functools.wraps(command)
    def with_request(**given: Any) -> Any:
        request = Request(**{name: given.pop(name) for name in names})
        return command(request, **given)

    decorated: Callable[..., Any] = with_request
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
