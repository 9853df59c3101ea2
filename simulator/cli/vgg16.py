"""`ftm7004 vgg16`: the whole network on the chip, beside the tables of the FT-M7004 paper.

Checks the request before anything runs, then runs, shows and writes what `simulator.network` found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from attrs import frozen

from isa.errors import KernelError, UsageError
from isa.machine import Machine
from simulator.cli.loading import library, network_layers
from simulator.cli.network_document import About, network_document
from simulator.cli.network_images import read_images
from simulator.cli.network_progress import announce_network, network_bar
from simulator.cli.network_tables import show_network
from simulator.cli.options import STDOUT, debug_option, json_option, machine_options
from simulator.cli.run import WRONG, write_json
from simulator.network import memory
from simulator.network.chart import check_chart, draw
from simulator.network.plan import INFERENCE, PHASES, Plan, make_plan, short_name
from simulator.network.run import Chip, NetworkRun, run_network
from simulator.network.store import Store
from simulator.network.summary import whole
from simulator.network.tensors import Tensors
from simulator.reporting.output import check_writable

Array = np.ndarray[Any, Any]

NETWORK = "vgg16"
BATCH, CORES = 256, 4
_WHOLE = click.IntRange(min=1)


@frozen
class NetworkRequest:
    """What a command line asks for; the fields are the options."""

    phase: str
    batch: int | None
    cores: int
    layers: str | None
    machine: str
    settings: tuple[str, ...]
    timing_only: bool
    json: str | None
    plot: str | None
    seed: int
    state: str | None
    input: str | None

    def chosen(self) -> tuple[str, ...]:
        """Return the layers to run, in the network's order; refuse names it does not have."""
        known = [short_name(layer) for layer in network_layers(NETWORK)]
        if self.layers is None:
            return tuple(known)
        names = [name.strip().removeprefix(f"{NETWORK}/") for name in self.layers.split(",")]
        wrong = [name for name in names if name and name not in known]
        if wrong:
            listed = ", ".join(known)
            raise UsageError(f"unknown layer '{wrong[0]}'; {NETWORK} has {listed}")
        if not any(names):
            raise UsageError("--layers needs at least one name, such as conv5_3,fc8")
        return tuple(name for name in known if name in names)

    def plan(self, batch: int) -> Plan:
        """Return the steps of a batch of so many images."""
        return make_plan(self.phase, batch, network_layers(NETWORK), self.chosen(), library())

    def check_together(self, chosen: Sequence[str]) -> None:
        """Refuse options that contradict each other, and files that cannot be written."""
        first = short_name(network_layers(NETWORK)[0])
        if self.timing_only and self.input is not None:
            raise UsageError("--timing-only computes no tensors: leave out --input")
        if self.input is not None and first not in chosen:
            raise UsageError(f"--input goes into {first}, which --layers leaves out")
        if self.plot is not None:
            check_chart(self.plot)
        if self.json not in (None, STDOUT):
            check_writable(str(self.json))
        self._refuse_shared_files()

    def _refuse_shared_files(self) -> None:
        """Refuse a result file that another option reads or writes."""
        files = {"--input": self.input, "--json": self.json, "--plot": self.plot}
        seen: dict[Path, str] = {}
        for option, text in files.items():
            path = Path(text or STDOUT).resolve()
            if text in (None, STDOUT) or path.is_char_device():
                continue
            if path in seen:
                raise UsageError(f"{seen[path]} and {option} name the same file '{text}'")
            seen[path] = option


@click.command(NETWORK)
@click.option(
    "--phase", type=click.Choice(PHASES), default=INFERENCE, show_default=True,
    help="Forward only, or a step of training: forward, gradients, updates.",
)  # fmt: skip
@click.option("--batch", type=_WHOLE, metavar="N", help=f"Images; {BATCH}, or those of --input.")
@click.option("--cores", type=_WHOLE, default=CORES, show_default=True, help="Cores of the run.")
@click.option("--layers", metavar="NAME,NAME", help="Run only these, such as conv5_3,fc8.")
@machine_options
@click.option("--timing-only", is_flag=True, help="Count cycles, compute no tensors.")
@json_option
@click.option("--plot", metavar="FILE.svg|png", help="Draw the efficiency of every layer.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True,
    help="Seed of weights, images and labels.",
)  # fmt: skip
@click.option("--state", metavar="DIR", help="Keep what is finished there; go on where it stopped.")
@click.option(
    "--input", metavar="IMAGES.npz|PHOTO",
    help="Images (N, 3, 224, 224) float32, or a photograph; random ones without.",
)  # fmt: skip
@debug_option
def vgg16(**given: Any) -> int:
    """Run VGG16 and set every layer beside the figures of the FT-M7004 paper."""
    return execute(NetworkRequest(**given))


def execute(request: NetworkRequest) -> int:
    """Run the network as asked; return the exit status. Raise Ftm7004Error for what goes wrong."""
    machine = Machine.load(request.machine, request.settings)
    chosen = request.chosen()
    request.check_together(chosen)
    images, source = (None, "random numbers")
    if request.input is not None:
        images, source = read_images(request.input, request.batch)
    batch = len(images) if images is not None else request.batch or BATCH
    plan = request.plan(batch)
    _check_room(request, plan, machine)
    store = _open_store(request, machine, chosen, batch, images)
    run = _run(request, plan, machine, images, store)
    network = whole(NETWORK, {"phase": plan.phase, "batch": batch}, run.rows, machine)
    document = network_document(plan, run, network, _about(request, source))
    if request.json != STDOUT:
        show_network(document, run.rows, network)
    if request.plot is not None:
        draw(request.plot, plan.phase, run.rows, document["title"])
    if request.json is not None:
        write_json(request.json, document)
    if network.verified is False:
        wrong = next(row for row in run.rows if row.report.verified is False)
        where = f"{wrong.name}, {wrong.kind}: {wrong.report.verification}"
        click.echo(f"error: {network.verification}; the first: {where}", err=True)
        return WRONG
    return 0


def _about(request: NetworkRequest, source: str) -> About:
    complete = len(request.chosen()) == len(network_layers(NETWORK))
    return About(NETWORK, complete, source, request.seed, request.plan)


def _check_room(request: NetworkRequest, plan: Plan, machine: Machine) -> None:
    """Refuse too many cores, and batches without room on the chip or the host."""
    try:
        memory.check_chip(plan, machine, request.cores)
    except KernelError as error:
        raise UsageError(f"batch {plan.batch:,} does not fit the chip: {error}") from error
    if not request.timing_only:
        memory.check_host(plan, request.state is not None, request.plan)


def _open_store(
    request: NetworkRequest,
    machine: Machine,
    chosen: Sequence[str],
    batch: int,
    images: Array | None,
) -> Store | None:
    if request.state is None:
        return None
    digest = None if images is None else hashlib.sha256(images.tobytes()).hexdigest()[:16]
    asked = {
        "network": NETWORK, "phase": request.phase, "batch": batch, "cores": request.cores,
        "layers": list(chosen), "timing only": request.timing_only, "seed": request.seed,
        "input": digest or "random", "machine": machine.name, "machine record": machine.values(),
    }  # fmt: skip
    return Store(request.state, asked)


def _run(
    request: NetworkRequest,
    plan: Plan,
    machine: Machine,
    images: Array | None,
    store: Store | None,
) -> NetworkRun:
    done = len(store.rows) if store is not None else 0
    if done:
        click.echo(
            f"note: {done} of {len(plan.steps)} kernels were already done in '{request.state}'",
            err=True,
        )
    announce_network(plan, request.cores, done, request.timing_only)
    tensors = Tensors(plan, request.seed, images, store)
    chip = Chip(machine, request.cores, request.timing_only)
    with network_bar(plan, machine, request.cores) as bar:
        try:
            return run_network(plan, chip, tensors, store, bar)
        except KeyboardInterrupt:
            bar.stop()
            if store is not None:
                finished = f"{len(store.rows)} of {len(plan.steps)} kernels"
                text = f"{finished} are kept in '{request.state}'; the same command goes on"
                click.echo(f"note: {text}", err=True)
            raise
