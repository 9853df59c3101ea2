"""Several cores: barriers, broadcasts, deadlocks, endless programs, timing-only runs.

On the machine of these tests (`EASY`) DDR gives 16 bytes a cycle, a transfer begins 10 cycles
after its start, a barrier lets its cores go 1 + 20 cycles after the last has come. `stagger` makes
core n come to packet 11 at t = 7 + 10 * steps[n].
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from isa import Builder, unless, when_set
from micro_programs import (
    AM,
    DDR,
    EASY,
    EASY_SETTINGS,
    SM,
    Bench,
    R,
    machine,
    one,
    row,
    stagger,
    stalls,
)
from simulator.result import BARRIER, DMA_WAIT, ChipResult

DATA = 64 * 1024
"""Bytes of DDR in the programs of these tests."""


# Barriers ---------------------------------------------------------------------------------------


def meet(k: Builder) -> None:
    """Come to a barrier, packet 11, each core in its own time; HALT behind it."""
    stagger(k)
    one(k, "barrier")
    one(k, "halt")


@pytest.mark.parametrize(
    ("steps", "release"),
    [
        ((0,), 28),  # barrier t=7, 7 + 1 + 20
        ((5,), 78),
        ((0, 3), 58),  # t=7 and t=37
        ((3, 0), 58),
        ((2, 2), 48),
        ((1, 0, 4, 2), 68),  # the last at t=47
    ],
)
@pytest.mark.parametrize("cost", [20, 0, 5])
def test_a_barrier(steps: tuple[int, ...], release: int, cost: int) -> None:
    release += cost - 20
    bench = Bench(meet, machine(f"barrier.cycles={cost}"), cores=len(steps))
    bench.stagger(*steps)
    result = bench.run()
    assert [core.halted for core in result.cores] == [release + 1] * len(steps)
    for core, count in enumerate(steps):
        stall = release - (7 + 10 * count + 1)
        assert stalls(result, core) == ({(11, BARRIER): stall} if stall else {})


def test_barriers_in_turn() -> None:
    # t=7 and t=37: on at t=58; core 1 is 30 cycles behind no longer: both at t=58, on at t=79
    def body(k: Builder) -> None:
        stagger(k)
        one(k, "barrier")
        one(k, "barrier")
        one(k, "halt")

    bench = Bench(body, cores=2)
    bench.stagger(0, 3)
    result = bench.run()
    assert result.cycles == 80
    assert stalls(result, 0) == {(11, BARRIER): 50, (12, BARRIER): 20}
    assert stalls(result, 1) == {(11, BARRIER): 20, (12, BARRIER): 20}


def test_what_one_core_writes_another_reads_after_a_barrier() -> None:
    # core 0 (R1 set) stores its AM to DDR, waits, barrier; core 1 loads it from there
    def body(k: Builder) -> None:
        k.ddr_buffer("data", DATA)
        one(k, "dmastart", R[32], 0, when=when_set(R[1]))
        one(k, "dmawait", 0, when=when_set(R[1]))
        one(k, "barrier")
        one(k, "dmastart", R[33], 0, when=unless(R[1]))
        one(k, "dmawait", 0, when=unless(R[1]))
        one(k, "halt")

    bench = Bench(body, EASY, cores=2)
    bench.write(R[1], 1, core=0)
    bench.place(AM, range(100, 116), core=0)
    bench.transfer(0, row(AM, 16), row(DDR, 16))
    bench.transfer(1, row(DDR, 16), row(SM, 16))
    result = bench.run()
    assert bench.words(SM, 16, core=1) == list(range(100, 116))
    # out: start t=0, ends 10 + 4 = 14; barrier t=14, on at t=35; in: start t=36 on core 1 (t=35 is
    # its packet 3): packets 3 and 4 issue at t=35 and t=36 on both
    assert [(t.begin, t.end) for t in result.transfers] == [(10, 14), (45, 49)]
    assert [core.halted for core in result.cores] == [38, 50]


# Broadcasts -------------------------------------------------------------------------------------


def spread(k: Builder) -> None:
    """Start a transfer in packet 11, wait, halt."""
    k.ddr_buffer("data", DATA)
    stagger(k)
    one(k, "dmastart", R[32], 6)
    one(k, "dmawait", 6)
    one(k, "halt")


@pytest.mark.parametrize(("steps", "last"), [((0, 2), 27), ((2, 0), 27), ((1, 3, 0, 3), 37)])
def test_a_broadcast(steps: tuple[int, ...], last: int) -> None:
    # the last start + 10, and 640 / 16 = 40 cycles, once for all
    cores, end = len(steps), last + 50
    bench = Bench(spread, EASY, cores)
    bench.stagger(*steps)
    bench.place(DDR, range(160))
    for core in range(cores):  # each to a place of its own
        bench.transfer_of(core, 0, row(DDR, 160), row(AM + 64 * core, 160), cores=2**cores - 1)
    result = bench.run()
    assert [core.halted for core in result.cores] == [end + 1] * cores
    assert result.ddr_bytes == 640
    for core, count in enumerate(steps):
        assert stalls(result, core) == {(12, DMA_WAIT): end - (7 + 10 * count + 2)}
        assert bench.words(AM + 64 * core, 160, core) == list(range(160))
    (transfer,) = result.transfers
    assert (transfer.first_request, transfer.last_request) == (7 + 10 * min(steps), last)
    assert (transfer.begin, transfer.end, transfer.mask) == (last + 10, end, 2**cores - 1)
    assert (transfer.mode, transfer.channels) == (
        "broadcast",
        tuple((core, 6) for core in range(cores)),
    )


def test_a_broadcast_to_some_cores_beside_a_transfer() -> None:
    # cores 0 and 2 start together at t=7, core 1 for itself: 8 bytes a cycle for each transfer
    bench = Bench(spread, EASY, cores=3)
    bench.stagger(0, 0, 0)
    for core in (0, 2):
        bench.transfer_of(core, 0, row(DDR, 80), row(AM, 80), cores=0b101)
    bench.transfer_of(1, 0, row(DDR, 160), row(AM, 160))
    result = bench.run()
    # the broadcast's 320 B until t=57; then core 1's last 320 B at 16 until t=77
    assert [core.halted for core in result.cores] == [58, 78, 58]
    assert result.ddr_bytes == 320 + 640


def test_a_broadcast_can_transpose() -> None:
    bench = Bench(spread, EASY, cores=2)
    bench.stagger(0, 0)
    bench.place(DDR, range(6))
    fields: dict[str, Any] = {"transpose": True, "cores": 0b11}
    bench.transfer(0, row(DDR, 3, 2), row(AM, 2, 3), **fields)
    assert bench.run().transfers[0].mode == "broadcast transpose"
    assert [bench.words(AM, 6, core) for core in (0, 1)] == [[0, 3, 1, 4, 2, 5]] * 2


def test_a_transfer_is_named_after_its_lowest_core_whichever_comes_first() -> None:
    def body(k: Builder) -> None:
        k.ddr_buffer("left", DATA)
        for number in (0, 1):
            k.array_buffer(f"tile {number}", 1024)
        one(k, "dmastart", R[32], 6, when=when_set(R[1]))
        one(k, "dmastart", R[32], 6, when=unless(R[1]))
        one(k, "dmawait", 6)
        one(k, "halt")

    for order in ((0, 1), (1, 0)):
        bench = Bench(body, EASY, cores=2)
        bench.write(R[1], 1, core=1)
        for core in (0, 1):
            target = row(AM + 1024 * core, 160)
            bench.transfer_of(core, 0, row(DDR, 160), target, cores=0b11)
        bench.chip.cores = [bench.chip.cores[core] for core in order]
        (transfer,) = bench.run().transfers
        assert (transfer.source, transfer.destination, transfer.packet) == ("left", "tile 0", 1)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (row(DDR, 159), "the cores of a broadcast give different sizes"),
        (row(DDR + 640, 160), "the cores of a broadcast must read the same source"),
    ],
)
def test_the_cores_of_a_broadcast_must_agree(other: Any, problem: str) -> None:
    bench = Bench(spread, machine(*EASY_SETTINGS, "ddr.burst_bytes=4"), cores=2)
    bench.stagger(0, 1)
    bench.transfer_of(0, 0, row(DDR, 160), row(AM, 160), cores=0b11)
    bench.transfer_of(1, 0, other, row(AM, other.row_words), cores=0b11)
    message = bench.failure()
    assert "core 1, cycle 17, packet 11: DMASTART R32, 6: " in message
    assert problem in message


# Deadlocks and endless programs -----------------------------------------------------------------


def test_a_barrier_that_one_core_never_reaches() -> None:
    def body(k: Builder) -> None:
        one(k, "halt", when=when_set(R[1]))
        one(k, "barrier")
        one(k, "halt")

    bench = Bench(body, cores=3)
    bench.write(R[1], 1, core=1)
    lines = bench.failure().splitlines()
    assert lines[0] == "deadlock: no core can go on"
    assert lines[1].endswith(
        "core 0, cycle 2, packet 1: BARRIER: at a barrier that cores [1] have not reached"
    )
    assert lines[2] == "  core 1 has halted"
    assert "core 2, cycle 2, packet 1: BARRIER: at a barrier that cores [1]" in lines[3]


def test_a_broadcast_that_one_core_never_joins() -> None:
    def body(k: Builder) -> None:
        k.ddr_buffer("data", DATA)
        one(k, "barrier", when=when_set(R[1]))
        one(k, "dmastart", R[32], 6)
        one(k, "dmawait", 6)
        one(k, "halt")

    bench = Bench(body, EASY, cores=3)
    bench.write(R[1], 1, core=1)
    bench.transfer(0, row(DDR, 160), row(AM, 160), cores=0b111)
    lines = bench.failure().splitlines()
    wait = "packet 2: DMAWAIT 6: waits on channel 6 for a broadcast that cores [1] have not started"
    assert lines[1].endswith(f"core 0, cycle 3, {wait}")
    assert lines[2].endswith(
        "core 1, cycle 1, packet 0: [R1] BARRIER: at a barrier that cores [0, 2] have not reached"
    )
    assert lines[3].endswith(f"core 2, cycle 3, {wait}")


def endless(k: Builder) -> None:
    top = k.label("top")
    with k.packet():
        k.sbr(top)
    k.idle(6)


def test_an_endless_loop_ends_at_the_cycle_limit() -> None:
    message = Bench(endless).failure(limit=1000)
    line = endless.__code__.co_firstlineno + 2
    # 1000 = 142 * 7 + 6: in the last of the six idle cycles
    assert message.startswith(f"test_chip.py:{line + 2}: core 0, cycle 1000, packet 1: SNOP 6: ")
    assert "still running at the limit of 1,000 cycles" in message
    message = Bench(endless).failure(limit=994)
    assert message.startswith(f"test_chip.py:{line}: core 0, cycle 994, packet 0: SBR top: ")


def test_the_limit_itself_is_not_too_long() -> None:
    # HALT issues at t=9: ten cycles
    def body(k: Builder) -> None:
        k.idle(9)
        one(k, "halt")

    assert Bench(body).run(limit=10).cycles == 10
    assert "still running at the limit of 9 cycles" in Bench(body).failure(limit=9)


# The order of cores -----------------------------------------------------------------------------


def exchange(k: Builder) -> None:
    """Meet, share, broadcast and stay busy, each core in its own time."""
    k.ddr_buffer("data", DATA)
    stagger(k)
    one(k, "dmastart", R[32], 0)
    one(k, "dmastart", R[33], 1)
    one(k, "dmawait", 1)
    one(k, "barrier")
    one(k, "sbr", R[62])  # another stagger, behind the barrier
    k.idle(6)
    for _ in range(3):
        k.idle(13)
    one(k, "dmastart", R[33], 2)
    one(k, "dmawait", 0)
    one(k, "dmastart", R[34], 0)
    one(k, "dmawait", 2)
    one(k, "dmawait", 0)
    one(k, "barrier")
    one(k, "halt")


def outcome(order: tuple[int, ...], steps: tuple[int, ...]) -> dict[str, Any]:
    bench = Bench(exchange, EASY, cores=len(order))
    bench.stagger(*steps)
    for core, count in enumerate(steps):
        bench.write(R[62], 20 - count % 4, core)
        own = DDR + 8192 * (1 + core)  # behind what all read
        bench.transfer_of(core, 0, row(own, 100 + 60 * core), row(AM, 100 + 60 * core))
        bench.transfer_of(core, 1, row(DDR, 300), row(AM + 4096, 300), cores=2 ** len(order) - 1)
        bench.transfer_of(core, 2, row(AM + 16384, 50 * count + 1), row(own, 50 * count + 1))
    bench.chip.cores = [bench.chip.cores[core] for core in order]
    return without_ids(bench.run(), order)


def without_ids(result: ChipResult, order: tuple[int, ...]) -> dict[str, Any]:
    cores = {core: (result.cores[n].halted, stalls(result, n)) for n, core in enumerate(order)}
    transfers = [(t.mask, t.channels, t.begin, t.end, t.packet) for t in result.transfers]
    return {"cycles": result.cycles, "cores": cores, "transfers": transfers}


@pytest.mark.parametrize("steps", [(0, 1, 2), (5, 0, 9), (3, 3, 3)])
def test_the_order_in_which_cores_run_does_not_matter(steps: tuple[int, ...]) -> None:
    expected = outcome((0, 1, 2), steps)
    for order in permutations(range(3)):
        assert outcome(order, steps) == expected
