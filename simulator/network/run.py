"""Runs the steps of a plan on the chip, one after the other, and judges each on its own inputs.

Called by `ftm7004 vgg16`. Between two steps everything that the rest of the run needs is in
`Tensors` and, with a store, on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
from attrs import frozen

from isa.language.kernel import Kernel
from isa.machine import Machine
from simulator.network.plan import Plan, Step
from simulator.network.row import Row
from simulator.network.store import Store
from simulator.network.tensors import Tensors, chances, loss
from simulator.reporting.report import Report
from simulator.reporting.verification import judge
from simulator.simulate import DEFAULT_ENGINE, simulate

Array = np.ndarray[Any, Any]

SOFTMAX = "softmax"
"""Key of a stored row under which the host's own result stands."""


class Watch(Protocol):
    """Whoever follows a run."""

    def begins(self, number: int, step: Step) -> Callable[[int, int], None] | None:
        """A step begins; return what hears of its cycles, if anything."""

    def ends(self, number: int, row: Row) -> None:
        """A step has ended."""


@frozen
class Chip:
    """What the steps run on."""

    machine: Machine
    cores: int
    timing_only: bool = False
    engine: str = DEFAULT_ENGINE


@frozen
class NetworkRun:
    """A finished run: a row for each step, and what the host made of the network's output."""

    rows: tuple[Row, ...]
    softmax: Mapping[str, Any] | None
    """`loss`, and each image's likeliest class; None without numbers or without the last layer."""
    resumed: int
    """Steps that were done before, and only read from the store."""


def run_network(
    plan: Plan, chip: Chip, tensors: Tensors, store: Store | None, watch: Watch
) -> NetworkRun:
    """Run all steps, or those that the store has not; raise what `simulate` raises."""
    rows, softmax = _resumed(plan, chip.machine, store)
    resumed = len(rows)
    timed: dict[Kernel, Report] = {}
    for number in range(resumed, len(plan.steps)):
        step = plan.steps[number]
        progress = watch.begins(number, step)
        known = timed.get(step.kernel)
        report, outputs = (
            _simulated(step, chip, tensors, progress) if known is None else (_again(known), {})
        )
        if chip.timing_only:
            timed[step.kernel] = report
        row = Row.of(step.layer, report, chip.machine)
        made = _softmax(plan, step, outputs, tensors)
        softmax = made or softmax
        fresh = tensors.made(number, outputs)
        del outputs
        if store is not None:
            stored = {"name": step.layer, "report": report.to_dict(), SOFTMAX: made}
            store.commit(stored, fresh, plan.alive_before(number + 1))
            if number + 1 < len(plan.steps):
                tensors.only_for(number + 1)
        rows.append(row)
        watch.ends(number, row)
    return NetworkRun(tuple(rows), softmax, resumed)


def _simulated(
    step: Step, chip: Chip, tensors: Tensors, progress: Callable[[int, int], None] | None
) -> tuple[Report, Mapping[str, Array]]:
    """Run one step and judge it."""
    options: dict[str, Any] = {
        "machine": chip.machine, "cores": chip.cores, "engine": chip.engine, "progress": progress,
    }  # fmt: skip
    if chip.timing_only:
        return simulate(step.kernel, timing_only=True, **options).report, {}
    inputs = tensors.inputs(step)
    run = simulate(step.kernel, inputs, **options)
    return run.report.with_verdict(judge(step.kernel, inputs, run.outputs)), run.outputs


def _again(report: Report) -> Report:
    """Return the report of an equal kernel, which did not have to run for the same cycles."""
    return attrs.evolve(
        report, host_seconds=0.0, place_seconds=0.0, run_seconds=0.0, readback_seconds=0.0
    )


def _softmax(
    plan: Plan, step: Step, outputs: Mapping[str, Array], tensors: Tensors
) -> dict[str, Any] | None:
    """Return what the host makes of the network's output, if the step has just made it."""
    if not outputs or step.writes.get("z") != plan.logits:
        return None
    predicted = chances(outputs["z"])
    classes = predicted.argmax(axis=1)
    found: dict[str, Any] = {
        "classes": classes.tolist(),
        "chances": predicted[np.arange(len(classes)), classes].tolist(),
    }
    if any(plan.slopes in step.names for step in plan.steps):
        found["loss"] = loss(outputs["z"], tensors.labels())[0]
    return found


def _resumed(
    plan: Plan, machine: Machine, store: Store | None
) -> tuple[list[Row], Mapping[str, Any] | None]:
    """Return the rows of a store and its softmax; UsageError if they are none of the plan."""
    if store is None:
        return [], None
    try:
        rows = [_restored(row, machine) for row in store.rows]
        softmax = _softmax_of(store.rows)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise store.damaged() from error
    steps = [(step.layer, step.kernel.name) for step in plan.steps]
    if [(row.name, row.kind) for row in rows] != steps[: len(rows)]:
        raise store.damaged()
    return rows, softmax


def _restored(stored: Mapping[str, Any], machine: Machine) -> Row:
    return Row.of(stored["name"], Report.from_dict(stored["report"]), machine)


def _softmax_of(stored: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    found = [row[SOFTMAX] for row in stored if row.get(SOFTMAX)]
    return found[-1] if found else None
