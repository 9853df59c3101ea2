"""Does a run fit: the chip's DDR with all that a step finds there, and the memory of the host.

Called before anything is run. On the chip a step finds its own tensors, the parameters of all
layers, and what later steps will read; on the host its tensors lie twice, as arrays and in DDR.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from isa.errors import UsageError
from isa.machine import Machine
from simulator.host_memory import host_bytes
from simulator.network.plan import Plan, Step

PARAMETERS = ("weight", "bias")
GIGA = 1e9

USABLE_SHARE = 0.85
"""Of the host's memory: judging a result, code and other programs take some, too."""


@frozen
class Need:
    """Bytes of the step that needs most."""

    step: Step
    bytes: int


def chip_need(plan: Plan) -> Need:
    """Return the most of DDR that a step needs, with what lies there for other ones."""
    sizes = _sizes(plan)
    parameters = {name for name in sizes if name.rpartition(".")[2] in PARAMETERS}

    def need(number: int, step: Step) -> int:
        others = (plan.alive_before(number) | parameters) - step.names
        return step.kernel.compulsory_bytes + sum(sizes.get(name, 0) for name in others)

    return _largest(plan, need)


def host_need(plan: Plan, stored: bool) -> Need:
    """Return the most of the host's memory that a step needs; with a store others lie on disk."""
    sizes = _sizes(plan)

    def need(number: int, step: Step) -> int:
        kernel = step.kernel
        tensors = [*kernel.inputs.values(), *kernel.outputs.values()]
        arrays = sum(tensor.words * tensor.dtype.itemsize for tensor in tensors)
        others = set() if stored else plan.alive_before(number) - step.names
        return arrays + kernel.compulsory_bytes + sum(sizes.get(name, 0) for name in others)

    return _largest(plan, need)


def check_chip(plan: Plan, machine: Machine, cores: int) -> None:
    """Refuse a batch that DDR has no room for; nothing is run for that."""
    need = chip_need(plan)
    if need.bytes <= machine.ddr.bytes:
        need.step.kernel.program(machine, cores)  # whose own buffers may be too much still
        return
    raise UsageError(
        f"batch {plan.batch:,} does not fit the chip: {_place(need)} needs "
        f"{_gigabytes(need.bytes)} of DDR, {machine.name} has {_gigabytes(machine.ddr.bytes)}; "
        "use a smaller --batch"
    )


def check_host(plan: Plan, stored: bool, replan: Callable[[int], Plan]) -> None:
    """Refuse a batch whose numbers the host has no room for; `replan` plans another batch."""
    need, there = host_need(plan, stored), usable_bytes()
    if not there or need.bytes <= there:
        return
    most = largest_batch(replan, stored, there)
    advice = f"the largest --batch that fits is {most:,}, and --timing-only takes no tensors"
    if not stored:
        advice += "; --state DIR keeps on disk what a kernel does not read"
    raise UsageError(
        f"batch {plan.batch:,} does not fit this host: {_place(need)} needs "
        f"{_gigabytes(need.bytes)} and {_gigabytes(there)} are there; {advice}"
    )


def largest_batch(make: Callable[[int], Plan], stored: bool, there: int) -> int:
    """Return the largest batch whose numbers fit so much memory, 0 if none; `make` plans one."""
    fits, beyond = 0, 1
    while host_need(make(beyond), stored).bytes <= there:
        fits, beyond = beyond, 2 * beyond
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if host_need(make(middle), stored).bytes <= there:
            fits = middle
        else:
            beyond = middle
    return fits


def usable_bytes() -> int:
    """Return what a run may take of the host's memory; 0 where the host does not tell."""
    return int(USABLE_SHARE * host_bytes())


def _largest(plan: Plan, need: Callable[[int, Step], int]) -> Need:
    needs = [Need(step, need(number, step)) for number, step in enumerate(plan.steps)]
    return max(needs, key=lambda found: found.bytes)


def _sizes(plan: Plan) -> dict[str, int]:
    """Return the bytes of the tensors by name; an index is kept in 32 bits, as on the chip."""
    sizes: dict[str, int] = {}
    for step in plan.steps:
        for tensor, names in step.reads.items():
            if len(names) == 1:
                sizes[names[0]] = 4 * step.kernel.inputs[tensor].words
        for tensor, name in step.writes.items():
            sizes[name] = 4 * step.kernel.outputs[tensor].words
    return sizes


def _place(need: Need) -> str:
    return f"{need.step.layer}'s {need.step.kernel.name}"


def _gigabytes(size: int) -> str:
    return f"{size / GIGA:,.1f} GB"
