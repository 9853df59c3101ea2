"""What is measured: one layer, run in one way; and the sets that `ftm7004 bench` runs.

A case goes to a process of its own as JSON, so it holds names and numbers only.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import attrs
from attrs import frozen

from isa.errors import UsageError
from isa.language.kernel import Kernel

LAYERS = ("vgg16/fc8", "vgg16/conv5_3", "vgg16/conv3_2", "vgg16/conv2_1")
QUICK_LAYERS = ("vgg16/fc8", "vgg16/conv5_3")
BATCH, QUICK_BATCH = 64, 16
SCALED = "vgg16/conv5_3"
"""The layer whose time is followed over batches, cores and threads."""
PRODUCTS = ("conv2d_forward", "fc_forward")
ALL_CORES, MOST_THREADS = 4, 2


@frozen
class Case:
    """A layer at a batch size on so many simulated cores and at most so many host threads."""

    layer: str
    batch: int = BATCH
    cores: int = 1
    threads: int = 1
    timing_only: bool = False
    repeat: int = 5

    def make_kernel(self) -> Kernel:
        """Return the layer's kernel; UsageError if there is no such layer."""
        kernel, shape = _layer(self.layer)
        kernels = importlib.import_module("kernels").LIBRARY
        made: Kernel = kernels[kernel](batch=self.batch, **shape)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the case for JSON; `Case(**...)` restores it."""
        return attrs.asdict(self)


def usual_cases(layers: Sequence[str], batch: int, repeat: int, *, scaling: bool) -> list[Case]:
    """Return every layer on one core, on all cores, and on all cores without numbers.

    With `scaling`, also one layer at smaller batches, and on fewer cores or threads.
    """
    if not layers:
        raise UsageError("name at least one layer, such as vgg16/fc8")
    for layer in layers:
        _check(layer)
    many = min(MOST_THREADS, host_cpus())
    ways: list[dict[str, Any]] = [
        {},
        {"cores": ALL_CORES, "threads": many},
        {"cores": ALL_CORES, "timing_only": True},
    ]
    every = {"batch": batch, "repeat": repeat}
    cases = [Case(layer, **{**every, **way}) for way in ways for layer in layers]
    if scaling:
        scaled = SCALED if SCALED in layers else layers[0]
        changes: list[dict[str, Any]] = [
            {"batch": max(1, batch // 4)},
            {"batch": max(1, batch // 2)},
            {"cores": 2},
            {"cores": 2, "threads": many},
            {"cores": ALL_CORES},
        ]
        cases += [Case(scaled, **{**every, **change}) for change in changes]
    return list(dict.fromkeys(cases))


def _check(layer: str) -> None:
    """Refuse a layer that is no matrix product."""
    kernel, _ = _layer(layer)
    if kernel not in PRODUCTS:
        kinds = " and ".join(PRODUCTS)
        raise UsageError(f"layer '{layer}' is no matrix product: bench takes {kinds} layers")


def _layer(name: str) -> tuple[str, dict[str, int]]:
    """Return the kernel and the shape of a layer; the simulator imports no kernel itself."""
    found = importlib.import_module("kernels.layers").layer(name)
    return found.kernel, dict(found.params)


def host_cpus() -> int:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
