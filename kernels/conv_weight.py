"""Convolution backward, weights: the gradients of weights and biases, two ways to share the work.

With `strategy="tasks"` the cores share out the gradients: every core sums its own over all
samples. With `strategy="batch"` they share out the samples: every core sums all gradients over its
own samples, and then the cores add up their copies. "auto" takes what a model of cycles prefers:
tasks, unless there are too few for the cores, or they get so small that the DDR becomes the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from isa import Builder, Count, Padding, Pair, Tensor, kernel
from isa.program import Buffer
from kernels import reference
from kernels.conv import check_window, convolution_work, output_shape
from kernels.judging.gradients import verify_weight_gradient
from kernels.samples.columns import BatchSplit
from kernels.streaming.word_stream import Elementwise, add_in_order, part
from kernels.weight_gradient.blocking import GradientBlocking, GradientShape, Model
from kernels.weight_gradient.program import WeightGradient
from kernels.weight_gradient.results import read_weights
from kernels.weight_gradient.walk import Deal

Array = np.ndarray[Any, Any]


def _weight_shape(p: Any) -> tuple[int, int, int, int]:
    return (p.filters, p.channels, *p.size)


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    dweight, dbias = reference.conv2d_backward_weight(
        inputs["x"], inputs["dz"], _weight_shape(p), p.stride, p.pad
    )
    return {"dweight": dweight, "dbias": dbias}


@kernel(
    inputs=lambda p: {
        "x": Tensor((p.batch, p.channels, p.height, p.width)),
        "dz": Tensor(output_shape(p)),
    },
    outputs=lambda p: {"dweight": Tensor(_weight_shape(p)), "dbias": Tensor((p.filters,))},
    work=convolution_work,
    reference=_reference,
    verify=verify_weight_gradient,
    check=check_window,
)
def conv2d_backward_weight(
    k: Builder,
    batch: Count = 64,
    channels: Count = 32,
    height: Count = 14,
    width: Count = 14,
    filters: Count = 64,
    size: Pair = (3, 3),
    stride: Pair = (1, 1),
    pad: Padding = (1, 1),
    strategy: Literal["auto", "tasks", "batch"] = "auto",
) -> None:
    """Gradients of a convolution's weights (OIHW) and biases from its input x and its dz."""
    split = BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
    tasks, blocking = _plan(k, split, strategy)
    dweight, dbias = _results(k, blocking)
    whole = [dweight] * k.cores, [dbias] * k.cores
    copies = whole if tasks or split.active == 1 else _copies(k, dweight, dbias, split.active)
    deal = (Deal.of_groups if tasks else Deal.of_samples)(split, blocking.groups, k.cores)
    x = k.input("x", fill=split.place_images)
    dz = k.input("dz", fill=split.place_images)
    with k.phase("tasks" if tasks else "batch"):
        WeightGradient(blocking, deal, x, dz, *map(tuple, copies)).emit(k)
    if copies is whole:
        return
    k.barrier()
    with k.phase("reduction"):
        for name, total, parts in (("weights", dweight, copies[0]), ("biases", dbias, copies[1])):
            Elementwise(k, total.bytes // 4, parts, total, add_in_order, name=name).emit()


def _plan(k: Builder, split: BatchSplit, strategy: str) -> tuple[bool, GradientBlocking]:
    """Return whether the cores share out tasks, and the cut; "auto" takes the faster by the model.

    A core alone has nothing to share out: then both are the same.
    """
    shape, cores, machine = GradientShape.of(k.p), k.cores, k.machine
    ways = [True, False] if strategy == "auto" and cores > 1 else [strategy != "batch"]
    plans = [
        (tasks, GradientBlocking.choose(shape, split, tasks, cores, machine)) for tasks in ways
    ]
    return min(plans, key=lambda plan: Model(machine, split, plan[0], cores).cycles(plan[1]))


def _results(k: Builder, blocking: GradientBlocking) -> tuple[Buffer, Buffer]:
    """Return the buffers of dweight, group by group, and of dbias, up to whole groups."""
    dweight = k.output(
        "dweight",
        4 * blocking.weights * blocking.groups,
        restore=lambda words, array: read_weights(words, array, blocking),
    )
    dbias = k.output("dbias", 4 * blocking.counts[0] * blocking.outputs)
    return dweight, dbias


def _copies(
    k: Builder, dweight: Buffer, dbias: Buffer, cores: int
) -> tuple[list[Buffer], list[Buffer]]:
    """Return a buffer of each tensor for every core with samples, evenly spaced."""
    weights = k.ddr_buffer("copies of dweight", cores * dweight.bytes)
    biases = k.ddr_buffer("copies of dbias", cores * dbias.bytes)
    return (
        [part(weights, core * dweight.bytes, dweight.bytes) for core in range(cores)],
        [part(biases, core * dbias.bytes, dbias.bytes) for core in range(cores)],
    )
