"""Sums over lanes and over rows: order, places, and one sum a packet."""

from __future__ import annotations

import numpy as np
import pytest

from isa import Builder, Tensor, kernel
from isa.language.kernel import Kernel
from isa.machine import Machine
from kernel_run import Array, machine, run
from kernels.weight_gradient.lane_sums import RowSums, sum_lanes
from simulator.simulate import Run
from test_inner_product import COMPILED_MACHINES, MACHINES


def lane_kernel(count: int, lanes: int) -> Kernel:
    """Return a kernel that sums `count` vectors, each over its lanes."""

    def lanes_summed(k: Builder) -> None:
        """Sum over the lanes."""
        vectors = k.array_buffer("vectors", 4 * lanes * count)
        words = k.array_buffer("words", 4 * count + 64)
        k.copy(k.input("x"), vectors, 0)
        k.copy(k.input("before"), words, 1)
        k.wait(0)
        k.wait(1)
        source = k.point(k.vector_address("source"), vectors)
        sum_lanes(k, source, k.point(k.vector_address("target"), words), count)
        k.copy(words, k.output("z"), 0)
        k.wait(0)

    definition = kernel(
        inputs=lambda p: {"x": Tensor((count, lanes)), "before": Tensor((count + 16,))},
        outputs=lambda p: {"z": Tensor((count + 16,))},
    )
    return definition(lanes_summed)()


def in_halves(x: Array) -> Array:
    """Return the sums of rows as a tree: the two halves are added until one element is left."""
    while x.shape[1] > 1:
        half = x.shape[1] // 2
        x = x[:, :half] + x[:, half:]
    return x[:, 0]


def run_lanes(count: int, engine: str, record: Machine) -> tuple[Run, Array]:
    layer = lane_kernel(count, record.vpu.lanes)
    inputs = layer.make_inputs(count)
    return run(layer, inputs, engine, 1, record), inputs


def cycles(result: Run, name: str) -> int:
    """Return the cycles of a pipeline, filling and draining included."""
    return sum(count.cycles for count in result.report.loops if count.loop.startswith(name))


@pytest.mark.parametrize("count", [32, 40, 200])
def test_a_sum_takes_one_packet(count: int, engine: str) -> None:
    # The last vector is loaded in packet count - 1, added up when it has landed 8 cycles later,
    # and stored when the sum has landed, 12 more: count + 20 packets.
    result, inputs = run_lanes(count, engine, machine())
    assert cycles(result, "lane sums") == count + 20
    z = result.outputs["z"]
    assert (z[:count] == in_halves(inputs["x"])).all()
    assert (z[count:] == inputs["before"][count:]).all(), "a store reached behind the last word"


@pytest.mark.parametrize("count", [8, 16, 24])
def test_few_sums_come_one_after_the_other(count: int, engine: str) -> None:
    result, inputs = run_lanes(count, engine, machine())
    assert (result.outputs["z"][:count] == in_halves(inputs["x"])).all()


def row_kernel(positions: int, rows: int, vectors: int, lanes: int) -> Kernel:
    """Return a kernel that adds the first 8 of `rows` rows of every position."""
    shape = (positions, rows, vectors * lanes)

    def rows_added(k: Builder) -> None:
        """Add up rows."""
        matrix = k.array_buffer("rows", 4 * int(np.prod(shape)))
        results = k.array_buffer("results", 4 * 8 * lanes)
        k.copy(k.input("x"), matrix, 0)
        k.wait(0)
        sums, pointer = k.vectors("sum", 8), k.point(k.vector_address("rows"), matrix)
        for total in sums:
            k.vmovi(0, total)
        step = k.constant(4 * rows * vectors * lanes)
        adder = RowSums(k, vectors, sums, pointer, step)
        adder.add(k.constant(positions), k.scalar_predicate("left"))
        place = k.point(k.vector_address("results"), results)
        for number, total in enumerate(sums):
            k.vstw(total, place + lanes * number)
        k.copy(results, k.output("z"), 0)
        k.wait(0)

    definition = kernel(
        inputs=lambda p: {"x": Tensor(shape)}, outputs=lambda p: {"z": Tensor((8, lanes))}
    )
    return definition(rows_added)()


def check_rows(positions: int, rows: int, vectors: int, engine: str, record: Machine) -> Run:
    lanes = record.vpu.lanes
    layer = row_kernel(positions, rows, vectors, lanes)
    x = np.random.default_rng(positions).integers(-99, 100, layer.inputs["x"].shape)
    result = run(layer, {"x": x.astype(np.float32)}, engine, 1, record)
    expected = x[:, :8].reshape(positions, 8, vectors, lanes).sum(axis=(0, 2))
    assert (result.outputs["z"] == expected).all()
    return result


@pytest.mark.parametrize(
    ("positions", "rows", "vectors", "interval", "last"),
    [
        # Eight rows of 2 to 4 vectors, two loads and two additions a packet.
        (5, 8, 4, 16, 15),
        (3, 11, 3, 12, 11),
        (9, 8, 2, 8, 7),
        # One vector would take 4 packets, but no loop turns in less than 8: in every second one.
        (9, 17, 1, 8, 6),
    ],
)
def test_two_rows_are_added_in_a_packet(
    positions: int, rows: int, vectors: int, interval: int, last: int, engine: str
) -> None:
    # The last addition is 8 cycles behind the last load, which is in packet `last` of a position.
    result = check_rows(positions, rows, vectors, engine, machine())
    taken = (positions - 1) * interval + last + 8 + 1
    assert cycles(result, "row sums") == taken


@pytest.mark.on_engines("machine_name", MACHINES, compiled=COMPILED_MACHINES)
def test_sums_are_right_on_another_machine(machine_name: str, engine: str) -> None:
    record = machine(*MACHINES[machine_name])
    for count in (24, 64):
        result, inputs = run_lanes(count, engine, record)
        assert (result.outputs["z"][:count] == in_halves(inputs["x"])).all()
    for positions, vectors in ((1, 4), (7, 1), (6, 3)):
        check_rows(positions, 9, vectors, engine, record)
