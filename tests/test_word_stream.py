"""The word by word program as a part of others: phases, offsets, many sources, sums of copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from isa import Builder, Count, KernelError, SimulationError, Tensor, kernel
from isa.operands import Register
from isa.program import Buffer
from kernel_run import Array, assert_near, machine, run
from kernels.streaming.word_stream import Elementwise, add_in_order, part


def double(k: Builder, values: list[Register]) -> None:
    k.vfadds32(values[0], values[0], values[0])


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Two phases -----------------------------------------------------------------------------------


@kernel(
    inputs=lambda p: {"x": Tensor((2 * p.half,))},
    outputs=lambda p: {"z": Tensor((p.half,))},
)
def folded(k: Builder, half: Count = 500, barrier: bool = True) -> None:
    """Double all of x, then add its second half to its first: words that other cores doubled."""
    doubled = k.ddr_buffer("doubled", 8 * half)
    Elementwise(k, 2 * half, [k.input("x")], doubled, double, name="doubling").emit()
    if barrier:
        k.barrier()
    halves = [part(doubled, first, 4 * half) for first in (0, 4 * half)]
    Elementwise(k, half, halves, k.output("z"), add_in_order, name="folding").emit()


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize("half", [1, 15, 17, 33, 500])
def test_a_second_phase_reads_what_other_cores_wrote(half: int, cores: int, engine: str) -> None:
    x = numbers(2 * half, seed=half)
    z = run(folded(half=half), {"x": x}, engine, cores).outputs["z"]
    assert_near(z, 2 * x[:half] + 2 * x[half:])


def test_without_a_barrier_between_the_phases_there_is_a_race() -> None:
    with pytest.raises(SimulationError, match=r"race: .*'doubled'"):
        run(folded(half=500, barrier=False), {"x": numbers(1000)}, "reference", cores=3)


def test_a_phase_gives_back_what_it_took() -> None:
    # AM of 512 bytes holds one phase, not two at once; 20 phases pass any number of registers.
    @kernel(inputs=lambda p: {"x": Tensor((90,))}, outputs=lambda p: {"x": Tensor((90,))})
    def often(k: Builder) -> None:
        for _ in range(20):
            Elementwise(k, 90, [k.input("x")], k.output("x"), double).emit()

    x = numbers(90)
    z = run(often(), {"x": x}, "reference", 2, machine("am.bytes=512")).outputs["x"]
    assert_near(z, x.astype(np.float64) * 2.0**20)


# Sums of copies -------------------------------------------------------------------------------


def total(copies: int, words: int, in_place: bool = False) -> Any:
    """Return a kernel that adds up copies which lie one after another in one buffer."""
    outputs = {"z": Tensor((words,))} if not in_place else {"x": Tensor((copies, words))}

    @kernel(inputs=lambda p: {"x": Tensor((copies, words))}, outputs=lambda p: outputs)
    def adds(k: Builder) -> None:
        x = k.input("x")
        sources = [part(x, 4 * words * copy, 4 * words) for copy in range(copies)]
        target = sources[0] if in_place else k.output("z")
        Elementwise(k, words, sources, target, add_in_order).emit()

    return adds()


def sum_in_order(x: Array) -> Array:
    result = x[0].copy()
    for copy in x[1:]:
        result += copy
    return result


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize("words", [1, 15, 17, 33, 1000])
@pytest.mark.parametrize("copies", [3, 4])
def test_copies_are_added_in_order(copies: int, words: int, cores: int, engine: str) -> None:
    x = numbers(copies, words, seed=words)
    z = run(total(copies, words), {"x": x}, engine, cores).outputs["z"]
    assert z.tobytes() == sum_in_order(x).tobytes()


def test_the_order_decides_what_is_lost(engine: str) -> None:
    # 1e8 is a multiple of 8 in float32's steps there: a 1 added to it is lost.
    x = np.array([[1e8, 1e8], [1, -1e8], [-1e8, 1], [0.5, 0.5]], np.float32)
    assert run(total(4, 2), {"x": x}, engine).outputs["z"].tolist() == [0.5, 1.5]


@pytest.mark.parametrize("copies", [1, 2, 5, 6, 7])
def test_any_number_of_sources(copies: int, engine: str) -> None:
    x = numbers(copies, 1003)
    z = run(total(copies, 1003), {"x": x}, engine, 2).outputs["z"]
    assert z.tobytes() == sum_in_order(x).tobytes()


def test_the_first_copy_may_take_the_sum(engine: str) -> None:
    x = numbers(3, 333)
    z = run(total(3, 333, in_place=True), {"x": x}, engine, 4).outputs["x"]
    assert z[0].tobytes() == sum_in_order(x).tobytes()
    assert z[1:].tobytes() == x[1:].tobytes()


@pytest.mark.parametrize("am_bytes", [512, 1024, 2048])
@pytest.mark.parametrize("cores", [1, 3])
def test_copies_stream_through_a_small_array_memory(am_bytes: int, cores: int, engine: str) -> None:
    # 512 bytes are two halves of one vector of each of four copies.
    x, record = numbers(4, 300), machine(f"am.bytes={am_bytes}")
    z = run(total(4, 300), {"x": x}, engine, cores, record).outputs["z"]
    assert z.tobytes() == sum_in_order(x).tobytes()


def test_the_program_does_not_grow_with_the_words() -> None:
    short, long = (total(4, words).program(machine()) for words in (1_000, 10_000_000))
    assert len(short.packets) == len(long.packets) < 400


# What combine may do, and what is refused -----------------------------------------------------


def test_combine_may_take_registers_of_its_own(engine: str) -> None:
    """Every vector gets its own scope: 16 turns of 8 registers fit."""

    @kernel(
        inputs=lambda p: {"x": Tensor((400,)), "y": Tensor((400,))},
        outputs=lambda p: {"z": Tensor((400,))},
    )
    def norm(k: Builder) -> None:
        def combine(k: Builder, values: list[Register]) -> None:
            squares = k.vectors("square", 8)
            k.vfmuls32(values[0], values[0], squares[0])
            k.vfmuls32(values[1], values[1], squares[1])
            k.vfadds32(squares[0], squares[1], values[0])

        Elementwise(k, 400, [k.input("x"), k.input("y")], k.output("z"), combine).emit()

    x, y = numbers(400, seed=1), numbers(400, seed=2)
    z = run(norm(), {"x": x, "y": y}, engine, 3).outputs["z"]
    assert z.tobytes() == (x * x + y * y).tobytes()


def refused(k: Builder, words: int, sources: Sequence[Buffer], target: Buffer) -> None:
    Elementwise(k, words, sources, target, add_in_order, name="sums").emit()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda k, x, z: refused(k, 101, [x], z), "'sums' needs 404 bytes of DDR, 'x' has 400 of"),
        (lambda k, x, z: refused(k, 100, [x], part(z, 4, 396)), "'z' has 396 of DDR"),
        (
            lambda k, x, z: refused(k, 100, [k.array_buffer("near", 400)], z),
            "'near' has 400 of AM",
        ),
        (lambda k, x, z: refused(k, 100, [x] * 8, z), "DMA channels 16 and 17"),
        (lambda k, x, z: part(x, 4, 400), "'x' has 400 bytes, 400 from byte 4 on do not lie"),
        (lambda k, x, z: part(x, -4, 8), "8 from byte -4 on do not lie inside"),
    ],
)
def test_mistakes_are_named_when_the_program_is_built(body: Any, message: str) -> None:
    @kernel(inputs=lambda p: {"x": Tensor((100,))}, outputs=lambda p: {"z": Tensor((100,))})
    def wrong(k: Builder) -> None:
        body(k, k.input("x"), k.output("z"))

    with pytest.raises(KernelError, match=message):
        wrong().program(machine())
