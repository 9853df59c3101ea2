"""A core stopped at any cycle and continued in another object ends in the same state."""

from __future__ import annotations

import numpy as np
import pytest

from isa import Builder, Machine, Tensor, kernel, when_set
from isa.operands import File, Register
from micro_programs import ENTRY, SVR, VLR, VR, Bench, machine, one
from simulator.chip import Chip
from simulator.reference.core import Core
from simulator.reference.numpy_values import quiet_floats
from simulator.reference.snapshot import export_state, import_state
from simulator.state import Status


@kernel(inputs=lambda p: {}, outputs=lambda p: {"z": Tensor((1,))})
def mixed(k: Builder) -> None:
    """Keep results of every latency in flight over a loop's branch."""
    am = k.array_buffer("values", 4096)
    pointer = k.point(k.vector_address("at"), am)
    x, y, total = k.vmovi(1.5), k.vmovi(2.25), k.vmovi(0.0)
    left = k.scalar_predicate("left")
    k.smovi(5, left)
    k.vstw(x, pointer + 0)
    k.flush()
    k.idle(4)
    top = k.label("top")
    with k.packet():
        k.vfmulas32(x, y, total, total)
        k.ssub(1, left, left)
        k.vldw(pointer.post(1), x)
    with k.packet():
        k.sbr(top, when=when_set(left))
        k.vmvcgc(total, Register(File.EXCHANGE, -1))
    with k.packet():
        k.svbcast(left, y)
    k.idle(5)


def fresh() -> Core:
    machine = Machine.load()
    return Chip(mixed().program(machine), machine).cores[0]


def run_to_end(core: Core) -> Core:
    with quiet_floats():
        core.run(10_000)
    assert core.status is Status.HALTED
    return core


END = run_to_end(fresh())


@pytest.mark.parametrize("stop", range(1, END.cycle))
def test_a_state_moves_to_another_core_at_any_cycle(stop: int) -> None:
    first, second = fresh(), fresh()
    with quiet_floats():
        first.run(stop)
    assert first.cycle == stop
    second.array_memory.words[:] = first.array_memory.words
    second.scalar_memory.words[:] = first.scalar_memory.words
    import_state(second, export_state(first))
    run_to_end(second)
    np.testing.assert_array_equal(second.vectors, END.vectors)
    np.testing.assert_array_equal(second.exchange, END.exchange)
    assert (second.scalars, second.addresses, second.cycle) == (
        END.scalars, END.addresses, END.cycle,
    )  # fmt: skip
    assert export_state(second).tobytes() == export_state(END).tobytes()


def test_results_in_flight_are_part_of_the_record() -> None:
    core = fresh()
    counts = []
    with quiet_floats():
        for cycle in range(1, END.cycle):
            core.run(cycle)
            counts.append(int(export_state(core)["flying_count"]))
    assert max(counts) > 16  # the exchange register's entries and a multiply-add at once


@pytest.mark.parametrize("timing_only", [False, True])
@pytest.mark.parametrize("lanes", [8, 16])
def test_masked_lanes_in_flight_stay_masked(lanes: int, timing_only: bool) -> None:
    # lane numbers on their way to SVR at t=1, lanes 4-7 enabled; stopped at t=2
    def body(k: Builder) -> None:
        one(k, "vlane", VR[4])
        with k.packet():
            k.vmvcgc(VR[4], SVR)
            k.vfmulas32(VR[4], VR[4], VR[5])
            k.vfmulas32(VR[4], VR[4], VR[6])
        k.idle(5)

    record = machine(f"vpu.lanes={lanes}")
    benches = [Bench(body, record, timing_only=timing_only) for _ in range(2)]
    benches[0][VR[4]] = range(lanes)
    benches[0][VLR] = 0x00F0
    for bench in benches:
        for entry in range(16):
            bench[ENTRY[entry]] = 100 + entry
    first, second = (bench.chip.cores[0] for bench in benches)
    first.run(2)
    import_state(second, export_state(first))
    run_to_end(second)
    # t=0, t=1, SNOP 5, HALT t=7
    assert second.cycle == 8
    moved = [] if timing_only else [4, 5, 6, 7]
    expected = [entry if entry in moved else 100 + entry for entry in range(16)]
    assert [benches[1][ENTRY[entry]] for entry in range(16)] == expected
