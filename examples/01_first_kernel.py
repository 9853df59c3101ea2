"""A first kernel of your own: z = a * x + y, with its loop written in two ways.

DMA brings x and y from DDR into AM, a loop on the device works on vectors of 16 floats, DMA takes
z back. *Scheduled* code is written in plain order and the scheduler packs it; it never overlaps one
turn of a loop with the next. *Pinned* code (`-p pinned=true`) chooses every packet by hand, here so
that a turn multiplies what the turn before has loaded. Run it either way:

    python examples/01_first_kernel.py
    ftm7004 run examples/01_first_kernel.py --check
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Tensor, Work, kernel, when_set
from isa.operands import Register
from simulator import simulate

TOGETHER = 4
"""Vectors of one turn of the loop."""


def reference(p: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Compute z in float64, for the verification of `ftm7004 run`."""
    return {"z": p.a * inputs["x"].astype(np.float64) + inputs["y"]}


@kernel(
    inputs=lambda p: {"x": Tensor((p.words,)), "y": Tensor((p.words,))},
    outputs=lambda p: {"z": Tensor((p.words,))},
    work=lambda p: Work(flops=2 * p.words, multiply_adds=p.words),
    reference=reference,
    check=lambda p: f"words must be a multiple of 64, got {p.words}" if p.words % 64 else None,
)
def axpy(k: Builder, words: Count = 4096, a: float = 2.5, pinned: bool = False) -> None:
    """Multiply and add: z = a * x + y."""
    x, y, z = (k.array_buffer(f"{name} in AM", 4 * words) for name in "xyz")
    k.copy(k.input("x"), x, channel=0)
    k.copy(k.input("y"), y, channel=1)
    k.wait(0)
    k.wait(1)
    factor = k.vmovi(a)
    pointers = [k.point(k.vector_address(buffer.name), buffer) for buffer in (x, y, z)]
    turns = words // (TOGETHER * k.machine.vpu.lanes)
    (pinned_loop if pinned else scheduled_loop)(k, turns, factor, *pointers)
    k.copy(z, k.output("z"), channel=0)
    k.wait(0)


def scheduled_loop(
    k: Builder, turns: int, factor: Register, x: Register, y: Register, z: Register
) -> None:
    """Say what a turn does; the scheduler finds the slots and waits for every result."""
    step = k.machine.vpu.lanes
    with k.loop("scheduled", turns):
        sums = []
        for _ in range(TOGETHER):  # a Python loop unrolls
            value, addend = k.vldw(x.post(step)), k.vldw(y.post(step))
            sums.append(k.vfmulas32(factor, value, addend))
        for total in sums:
            k.vstw(total, z.post(step))


def pinned_loop(
    k: Builder, turns: int, factor: Register, x: Register, y: Register, z: Register
) -> None:
    """Say which packet does what, at the latencies of ft-m7004: load 8, multiply-add 6, branch 7.

    A turn of 10 packets multiplies in packets 0-3 and stores in packets 6-9. Its packets 0-3 load
    for the next turn; that lands in cycles 8-11, after the stores of 6-9 have read the old sums.
    """
    step = k.machine.vpu.lanes
    values, sums = k.vectors("value", TOGETHER), k.vectors("sum", TOGETHER)
    more = k.scalar_predicate("further turns")
    k.constant(turns - 1, more)
    for v in range(TOGETHER):
        k.vldw(x.post(step), values[v])
        k.vldw(y.post(step), sums[v])
    top = k.label("pinned")
    with k.named_loop("pinned"):
        for cycle in range(10):
            with k.packet():
                if cycle < TOGETHER:
                    k.vfmulas32(factor, values[cycle], sums[cycle], sums[cycle])
                    k.vldw(x.post(step), values[cycle], when=when_set(more))
                    k.vldw(y.post(step), sums[cycle], when=when_set(more))
                if cycle == 3:  # both read the count as it is; the branch is taken at cycle 10
                    k.sbr(top, when=when_set(more))
                    k.ssub(1, more, more)
                if cycle >= 6:
                    k.vstw(sums[cycle - 6], z.post(step))


def main() -> None:
    """Run both loops on the same data, check them, and compare their cycles."""
    inputs = axpy().make_inputs(seed=1)
    expected = 2.5 * inputs["x"].astype(np.float64) + inputs["y"]
    for pinned in (False, True):
        run = simulate(axpy(pinned=pinned), inputs, check=True)
        np.testing.assert_allclose(run.outputs["z"], expected, rtol=1e-6, atol=1e-7)
        loop = max(run.report.loops, key=lambda count: count.cycles)
        print(f"{loop.loop:<9}  {loop.cycles:,} cycles in the loop, {run.report.cycles:,} in all")


if __name__ == "__main__":
    main()
