"""What `ftm7004 vgg16` tells of a run: the document that `--json` writes and the tables show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from simulator.network import memory
from simulator.network.plan import INFERENCE, TRAINING, Plan
from simulator.network.run import NetworkRun
from simulator.network.summary import device_rows, means, network_bound, network_compared
from simulator.reporting.report import Report

DEVICE_NOTE = (
    "printed: the paper exchanges the times of GTX 1080 and FT-M7004 and writes 0.0900 for 0.0090; "
    "its figures agree only to rounding, as 16 images/s would be 96.7 % of the peak"
)
CALIBRATION_NOTE = (
    "calibration: these published figures chose the DDR rate of the machine record, so they are no "
    "evidence; the paper's pooling compute is on the basis of one core's peak"
)
RANDOM_NOTE = (
    "weights are random with He initialisation and biases small, so classes mean nothing; a layer "
    "whose predecessor was not chosen gets random activations"
)
TRAINING_NOTE = (
    "all kernels: forward, gradients and updates; ReLU's gradient is part of dx but behind fully "
    "connected layers, where relu_backward is a kernel of its own"
)
REUSE_NOTE = "of equal kernels one was run: without numbers the others take the same cycles"


@frozen
class About:
    """What a request says about its run beyond the plan."""

    network: str
    complete: bool
    """All layers were chosen."""
    source: str
    """What the images are."""
    seed: int
    replan: Callable[[int], Plan]
    """Plans the same for another batch."""


def network_document(plan: Plan, run: NetworkRun, network: Report, about: About) -> dict[str, Any]:
    """Return the document of a finished run; `network` is the report of all rows together."""
    rows, rate = run.rows, plan.batch / network.seconds
    forward = about.complete and plan.phase == INFERENCE
    return {
        "title": _title(plan, network, about),
        "phase": plan.phase,
        "batch": plan.batch,
        "cores": network.cores,
        "machine": network.machine,
        "seed": about.seed,
        "input": None if network.timing_only else about.source,
        "layers": [row.to_dict() for row in rows],
        "network": {
            "name": about.network, "kind": plan.phase, **network.to_dict(), **network_bound(rows),
            "images_per_second": rate,
        },
        "means": [compared.to_dict() for compared in means(plan.phase, rows)],
        "whole_network": network_compared(plan.phase, about.complete, network),
        "devices": device_rows(plan.batch, network) if forward else [],
        "softmax": run.softmax,
        "resumed": run.resumed,
        "results": _results(plan, run, network, about),
        "notes": _notes(plan, network, about, forward),
    }  # fmt: skip


def _title(plan: Plan, network: Report, about: About) -> str:
    cores = "1 core" if network.cores == 1 else f"{network.cores} cores"
    mode = "timing only" if network.timing_only else about.source
    chip = f"{cores} of {network.machine}"
    return f"{about.network.upper()}, {plan.phase}, batch {plan.batch:,}, {chip}, {mode}"


def _results(plan: Plan, run: NetworkRun, network: Report, about: About) -> list[str]:
    rate = plan.batch / network.seconds
    through = "" if about.complete else " through these layers"
    lines = [
        f"{rate:,.2f} images/s{through}: {plan.batch:,} in {network.seconds:,.4f} s on the chip; "
        f"{network.host_seconds:,.1f} s on the host"
    ]
    if run.softmax is not None:
        lines.append(_softmax_text(run.softmax))
    lines.append(
        network.verification if network.verified is None else
        f"{'verified' if network.verified else 'WRONG'}: {network.verification}"
    )  # fmt: skip
    return lines


def _softmax_text(softmax: Mapping[str, Any]) -> str:
    first = f"class {softmax['classes'][0]} for the first image, {softmax['chances'][0]:.3f}"
    text = f"softmax on the host: {first}"
    return text + (f"; loss {softmax['loss']:.4f}" if "loss" in softmax else "")


def _notes(plan: Plan, network: Report, about: About, forward: bool) -> list[str]:
    pooling = any(step.kernel.name.startswith("maxpool") for step in plan.steps)
    training = plan.phase == TRAINING
    told = {
        CALIBRATION_NOTE: pooling,
        DEVICE_NOTE: forward,
        TRAINING_NOTE: training,
        REUSE_NOTE: network.timing_only and len({s.kernel for s in plan.steps}) < len(plan.steps),
        RANDOM_NOTE: not network.timing_only,
    }
    room = [_room(about)] if training else []
    return [*(note for note, holds in told.items() if holds), *room, *network.notes]


def _room(about: About) -> str:
    """Say which batch can train with numbers on this host."""
    there = memory.usable_bytes()
    if not there:
        return "training with numbers keeps activations until their gradient: this takes memory"
    fits, spilled = (memory.largest_batch(about.replan, s, there) for s in (False, True))
    more = f", up to {spilled:,} with --state DIR, which keeps them on disk"
    return (
        "training with numbers keeps activations until their gradient has come: on this host up to "
        f"batch {fits:,}{more if spilled > fits else ''}"
    )
