"""Loop bodies whose best schedules are known, for the tests of software pipelining.

Each writes what comes before a loop, the loop with `loop(name, steps)`, which is `k.loop` or
`k.pipelined`, and returns the registers that must be the same after both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isa import Builder, when_set
from isa.language.storage import LOOP_PREDICATE as LOOP_PREDICATE
from isa.operands import Register

Loop = Callable[[str, int | Register], Any]
MOST = 40
"""Steps for which the buffers have room."""


def pointer(k: Builder, name: str, words: int) -> Register:
    return k.point(k.vector_address(name), k.array_buffer(name, 4 * words))


def copy(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """One load and one store: both VLDSTs are busy at one step a cycle."""
    source, target = (pointer(k, name, 16 * MOST) for name in ("source", "target"))
    with loop("copy", steps):
        k.vstw(k.vldw(source.post(16)), target.post(16))
    return [source, target]


def axpy(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """Two loads and a store on two VLDSTs: 1.5 cycles."""
    factor = k.vmovi(2.5)
    x, y, z = (pointer(k, name, 16 * MOST) for name in "xyz")
    with loop("axpy", steps):
        value, addend = k.vldw(x.post(16)), k.vldw(y.post(16))
        k.vstw(k.vfmulas32(factor, value, addend), z.post(16))
    return [factor, x, y, z]


def dot(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """A multiply-add waits for the one before: 6 cycles."""
    total = k.vmovi(0.0)
    x, y = (pointer(k, name, 16 * MOST) for name in "xy")
    with loop("dot", steps):
        k.vfmulas32(k.vldw(x.post(16)), k.vldw(y.post(16)), total)
    return [total, x, y]


def dot_of_six(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """Six sums, so that the chain of each is hidden: 12 loads on two VLDSTs, 6 cycles."""
    totals = k.vectors("totals", 6)
    for total in totals:
        k.vmovi(0.0, total)
    x, y = (pointer(k, name, 6 * 16 * MOST) for name in "xy")
    with loop("dot of six", steps):
        for total in totals:
            k.vfmulas32(k.vldw(x.post(16)), k.vldw(y.post(16)), total)
    return [*totals, x, y]


def accumulate(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """A float sum that feeds a multiply-add and itself: 6 + 3 cycles around."""
    half, total = k.vmovi(0.5), k.vmovi(1.0)
    with loop("accumulate", steps):
        k.vfmulas32(half, half, total)
        k.vfadds32(total, half, total)
    return [half, total]


def product(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """The step of a matrix product, 8 outputs by 4 vectors: 32 multiply-adds on four VMACs."""
    sums = k.vectors("sums", 8, 4)
    for total in sums:
        k.vmovi(0.0, total)
    row = k.array_buffer("rows", 256 * MOST)
    image = [k.point(k.vector_address(f"x{v}"), row, 64 * v) for v in range(4)]
    weights = k.point(k.scalar_address("weights"), k.scalar_buffer("weights", 32 * MOST))
    with loop("product", steps):
        x = [k.vldw(address.post(64)) for address in image]
        for output in range(0, 8, 2):
            pair = k.scalars("pair", 2)
            k.slddw(weights.post(1), pair[0])
            for half in (0, 1):
                weight = k.svbcast(pair[half])
                for v in range(4):
                    k.vfmulas32(weight, x[v], sums[output + half, v])
    return [*sums, *image, weights]


def smooth(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """Each word row is the sum of itself and the one stored two steps before: through memory.

    Load 8, addition 3, and 4 until a store may be loaded: 15 cycles for two steps.
    """
    row = pointer(k, "rows", 16 * (MOST + 2))
    with loop("smooth", steps):
        k.vstw(k.vfadds32(k.vldw(row + 0), k.vldw(row + 32)), row + 32)
        k.vldw(row.post(16))
    return [row]


def counted(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """Use the steps left, a predicate of the body's own, and a register given back twice."""
    total = k.constant(0)
    words = k.point(k.scalar_address("words"), k.scalar_buffer("words", 8 * MOST))
    with loop("counted", steps) as left:
        k.sadd(total, left, total)
        with k.scope():
            square = k.smulis(left, left)
            k.sstw(square, words.post(1))
        with k.scope():
            odd = k.scalar_predicate("odd")
            k.sand(1, left, odd)
            k.ssub(1, total, total, when=when_set(odd))
    return [total, words]


def scattered(k: Builder, loop: Loop, steps: int | Register) -> list[Register]:
    """Rows of one buffer are doubled where they lie, each through pointers made for the step."""
    rows = k.array_buffer("rows", 64 * MOST)
    row = k.constant(rows.address)
    with loop("scattered", steps):
        here, there = k.vector_address("here"), k.vector_address("there")
        value = k.vldw(k.point_at(here, row, rows) + 0)
        k.vstw(k.vfadds32(value, value), k.point_at(there, row, rows) + 0)
        k.sadd(64, row, row)
    return [row]


BODIES = [copy, axpy, dot, dot_of_six, accumulate, product, smooth, counted, scattered]
