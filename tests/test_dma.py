"""DMA on the chip: what transfers move, what they cost, what is wrong with a descriptor.

On the machine of these tests (`EASY`) DDR gives 16 bytes a cycle and a transfer begins 10 cycles
after its start: 640 bytes started at t=0 end at t=50.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isa import Builder
from isa.descriptor import Plane
from micro_programs import (
    AM,
    AM_END,
    AR,
    DDR,
    EASY,
    EASY_SETTINGS,
    SM,
    VR,
    Bench,
    R,
    machine,
    one,
    row,
    stagger,
    stalls,
)
from simulator.result import DMA_WAIT, StallPlace

DATA = 64 * 1024
"""Bytes of DDR in the programs of these tests."""


def move(k: Builder, channel: int = 0, work: int = 0) -> None:
    """Start the transfer of R32 at t=0, be busy for `work` packets, wait, halt."""
    k.ddr_buffer("data", DATA)
    one(k, "dmastart", R[32], channel)
    for _ in range(work):
        one(k, "sadd", 1, R[4], R[4])
    one(k, "dmawait", channel)
    one(k, "halt")


def moved(source: Plane, target: Plane, record: Any = EASY, cores: int = 1, **fields: Any) -> Bench:
    """Return a bench after the run of one transfer; DDR, AM and SM hold numbers by address."""
    bench = Bench(move, record, cores)
    for core in range(cores):
        bench.place(AM, range(1 << 20, (1 << 20) + 4096), core)
        bench.place(SM, range(1 << 21, (1 << 21) + 512), core)
    bench.place(DDR, range(DATA // 4))
    bench.transfer(0, source, target, **fields)
    bench.run()
    return bench


# What is moved ----------------------------------------------------------------------------------


def test_a_row_from_ddr_to_array_memory() -> None:
    bench = moved(row(DDR + 400, 5), Plane(AM + 8, 1, 5, 0))  # one row needs no stride
    expected = [2**20, 2**20 + 1, 100, 101, 102, 103, 104, 2**20 + 7]
    assert bench.words(AM, 8) == expected


def test_rows_may_be_regrouped() -> None:
    # 3 rows of 4 words, 40 bytes apart, become 6 rows of 2 words, 12 bytes apart
    bench = moved(row(DDR, 4, 3, 40), row(AM, 2, 6, 12))
    words = [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    found = bench.words(AM, 18)
    assert [found[3 * n : 3 * n + 2] for n in range(6)] == np.reshape(words, (6, 2)).tolist()
    assert found[2::3] == [2**20 + n for n in range(2, 18, 3)]


def test_rows_may_go_backwards_and_repeat() -> None:
    bench = moved(row(DDR + 400, 2, 3, -40), row(SM + 800, 2, 3, -8))
    assert bench.words(SM + 784, 6) == [80, 81, 90, 91, 100, 101]
    plane = Plane(DDR + 400, 3, 2, 0)
    assert moved(plane, row(SM, 6)).words(SM, 6) == [100, 101] * 3


def test_core_memory_to_ddr_and_ddr_to_ddr() -> None:
    assert moved(row(AM, 4), row(DDR, 4)).words(DDR, 5) == [2**20 + n for n in range(4)] + [4]
    assert moved(row(SM, 2), row(DDR, 2)).words(DDR, 3) == [2**21, 2**21 + 1, 2]
    assert moved(row(DDR + 40, 2), row(DDR, 2)).words(DDR, 3) == [10, 11, 2]


def test_a_transpose() -> None:
    # 3 rows of 4 words become 4 rows of 3 words, 20 bytes apart
    bench = moved(row(DDR, 4, 3, 40), row(AM, 3, 4, 20), transpose=True)
    found = bench.words(AM, 20)
    rows = [found[5 * n : 5 * n + 3] for n in range(4)]
    assert rows == [[0, 10, 20], [1, 11, 21], [2, 12, 22], [3, 13, 23]]
    assert found[3:5] == [2**20 + 3, 2**20 + 4]


def test_a_transfer_moves_what_was_stored_before_its_start() -> None:
    def body(k: Builder) -> None:
        k.ddr_buffer("data", DATA)
        one(k, "vstw", VR[4], AR[0] + 0)
        k.idle(3)
        move(k)

    bench = Bench(body, EASY)
    bench[VR[4]] = 7
    bench.transfer(0, row(AM, 16), row(DDR, 16))
    bench.run()
    assert bench.words(DDR, 17) == [7] * 16 + [0]


# What it costs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "traffic"),
    [
        (row(DDR, 160), row(AM, 160), 640),
        (row(DDR, 1), row(AM, 1), 32),  # a word costs a burst of 32 bytes
        (row(DDR + 28, 2), row(AM, 2), 64),  # two words in two bursts
        (row(DDR + 4, 8), row(AM, 8), 64),  # 32 bytes from byte 4 to 36
        (row(DDR, 8, 10, 64), row(AM, 80), 320),  # every other burst
        (row(DDR, 80), row(AM, 8, 10, 64), 320),  # gaps in core memory cost nothing
        (row(DDR, 2, 10, 64), row(AM, 20), 320),  # 8 bytes of each burst used
        (row(DDR, 1, 64, 4), row(AM, 64), 256),  # rows that touch each other are one run
        (row(AM, 160), row(DDR, 160), 640),
        (row(DDR, 80), row(DDR + 4096, 80), 640),  # there and back
    ],
)
def test_traffic_counts_whole_bursts_of_ddr(source: Plane, target: Plane, traffic: int) -> None:
    bench = Bench(move, EASY)
    bench.transfer(0, source, target)
    result = bench.run()
    assert result.ddr_bytes == result.transfers[0].ddr_bytes == traffic
    # begins at t=10; HALT issues as it ends
    assert result.cycles == 10 + traffic // 16 + 1


@pytest.mark.parametrize(
    ("overrides", "end"),
    [
        ([], 50),
        (["dma.launch_cycles=0"], 40),
        (["ddr.efficiency=0.5"], 10 + 80),
        (["ddr.burst_bytes=256"], 10 + 768 // 16),  # 640 bytes are 3 bursts
        (["dma.bytes_per_cycle=4"], 10 + 160),  # the core's DMA is slower than DDR
        (["ddr.bytes_per_cycle=7"], 10 + 92),  # 640 / 7 = 91.4
    ],
)
def test_the_machine_decides_how_long(overrides: list[str], end: int) -> None:
    bench = Bench(move, machine(*EASY_SETTINGS, *overrides))
    bench.transfer(0, row(DDR, 160), row(AM, 160))
    result = bench.run()
    (transfer,) = result.transfers
    assert (transfer.end, result.cycles) == (end, end + 1)


@pytest.mark.parametrize(("rate", "cycles"), [(64.0, 40), (4.0, 160), (2.5, 256)])
def test_a_transpose_has_a_rate_of_its_own(rate: float, cycles: int) -> None:
    # 640 bytes; DDR itself needs 40 cycles
    record = machine(*EASY_SETTINGS, f"dma.transpose_bytes_per_cycle={rate}")
    bench = Bench(move, record)
    bench.transfer(0, row(DDR, 16, 10), row(AM, 10, 16), transpose=True)
    result = bench.run()
    assert (result.cycles, result.transfers[0].mode) == (10 + cycles + 1, "transpose")


@pytest.mark.parametrize(
    ("work", "stall", "cycles"),
    [
        (0, 48, 51),  # wait t=1, goes on at t=50
        (30, 18, 51),  # wait t=31: the work is for free
        (48, 0, 51),  # wait t=49, next t=50: no stall at all
        (47, 1, 51),
        (60, 0, 63),  # start, 60, wait, HALT: the transfer is for free
    ],
)
def test_transfers_hide_behind_work(work: int, stall: int, cycles: int) -> None:
    bench = Bench(lambda k: move(k, work=work), EASY)
    bench.transfer(0, row(DDR, 160), row(AM, 160))
    result = bench.run()
    place = StallPlace(1 + work, DMA_WAIT, 0)
    assert result.cores[0].stalls == ({place: stall} if stall else {})
    assert (result.cycles, result.cores[0].halted) == (cycles, cycles)


def test_a_run_ends_with_its_last_transfer() -> None:
    # HALT t=1: the core is done after 2 cycles, the transfer after 50
    def body(k: Builder) -> None:
        k.ddr_buffer("data", DATA)
        one(k, "dmastart", R[32], 0)
        one(k, "halt")

    bench = Bench(body, EASY)
    bench.transfer(0, row(DDR, 160), row(AM, 160))
    result = bench.run()
    assert (result.cycles, result.cores[0].halted) == (50, 2)


def test_two_transfers_of_a_core_share() -> None:
    # starts t=0 (640 B) and t=20 (320 B): the first alone from t=10 to t=30, 320 B done; then 8
    # bytes a cycle each: both have 320 B left and end at t=70
    def body(k: Builder) -> None:
        k.ddr_buffer("data", DATA)
        one(k, "dmastart", R[32], 4)
        k.idle(19)
        one(k, "dmastart", R[33], 5)
        one(k, "dmawait", 5)
        one(k, "dmawait", 4)
        one(k, "halt")

    bench = Bench(body, EASY)
    bench.transfer(0, row(DDR, 160), row(AM, 160))
    bench.transfer(1, row(AM + 4096, 80), row(DDR + 4096, 80))
    result = bench.run()
    assert [(t.begin, t.end) for t in result.transfers] == [(10, 70), (30, 70)]
    # wait t=21 goes on at t=70; the other wait costs its packet; HALT t=71
    assert (stalls(result), result.cycles) == ({(3, DMA_WAIT): 48}, 72)


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        ((160, 160), (90, 90)),  # 8 bytes a cycle each
        ((80, 240), (50, 90)),  # 320 B at 8 until t=50; then 640 B left at 16
    ],
)
def test_two_cores_share_ddr(words: tuple[int, int], ends: tuple[int, int]) -> None:
    bench = Bench(move, EASY, cores=2)
    for core in range(2):
        bench.transfer_of(core, 0, row(DDR + 4096 * core, words[core]), row(AM, words[core]))
    result = bench.run()
    assert tuple(core.halted for core in result.cores) == (ends[0] + 1, ends[1] + 1)
    assert result.ddr_bytes == 4 * sum(words)


def test_a_late_core_shares_from_its_own_begin() -> None:
    # core 0: start t=7, begins t=17; core 1 30 cycles later. Alone until t=47: 480 of 640 B; then
    # 8 each: core 0 ends at t=67, core 1 has 480 of 640 B left: t=97
    def body(k: Builder) -> None:
        stagger(k)
        move(k)

    bench = Bench(body, EASY, cores=2)
    bench.stagger(0, 3)
    bench.transfer(0, row(DDR, 160), row(AM, 160))
    result = bench.run()
    assert [(t.mask, t.begin, t.end) for t in result.transfers] == [(1, 17, 67), (2, 47, 97)]


# What is wrong ----------------------------------------------------------------------------------

ONE = row(AM, 1)
PROBLEMS: list[tuple[Plane, Plane, dict[str, Any], str]] = [
    (row(DDR, 1, 0), ONE, {}, "source moves 0 rows of 1 words; give at least 1"),
    (Plane(DDR, 1, 0, 4), ONE, {}, "source moves 1 rows of 0 words; give at least 1"),
    (row(DDR, 1), row(AM, 1, 0), {}, "destination moves 0 rows of 1 words"),
    (row(DDR + 2, 1), ONE, {}, "source address 0x800000002 and stride 4 must be multiples of 4"),
    (row(DDR, 1, 2, 6), row(AM, 2), {}, "source address 0x800000000 and stride 6 must be"),
    (row(DDR, 1), row(AM + 1, 1), {}, "destination address 0x40000001 and stride 4 must be"),
    (row(DDR, 6), row(AM, 5), {}, "the source has 6 words and the destination 5"),
    (row(DDR, 3, 2), row(AM, 3, 2), {"transpose": True},
     "a transpose of 2 x 3 words needs a destination of 3 x 2, not 2 x 3"),
    (row(DDR, 4), row(AM, 2, 2, 4), {}, "destination rows overlap: 8 bytes a row at a stride of 4"),
    (row(DDR, 4), Plane(AM, 2, 2, 0), {}, "overlap: 8 bytes a row at a stride of 0"),
    (row(DDR, 4), row(AM + 64, 2, 2, -4), {}, "overlap: 8 bytes a row at a stride of -4"),
    (row(DDR, 1), ONE, {"cores": 0b110}, "broadcast mask 0b110 names cores beyond the 2 of"),
    (row(DDR, 1), ONE, {"cores": 0b10}, "core 0 starts a broadcast to mask 0b10, which leaves it"),
    (row(AM, 1), row(SM, 1), {}, "both sides are core memory (AM to SM); one must be DDR"),
    (row(AM, 1), row(DDR, 1), {"cores": 0b11}, "a broadcast goes from DDR to core memory"),
    (row(DDR, 1), row(DDR + 64, 1), {"cores": 0b11}, "a broadcast goes from DDR to core memory"),
    (row(DDR, 8), row(DDR + 16, 8), {}, "source and destination overlap in DDR from 0x800000010"),
    (row(DDR - 4, 2), row(AM, 2), {}, "source reaches from 0x7fffffffc to 0x800000003, which is"),
    (row(DDR + DATA - 4, 2), row(AM, 2), {},
     "source reaches from 0x80000fffc to 0x800010003, which is not inside one memory of this "
     "program (AM 0x40000000 to 0x400bffff, SM 0x40100000 to 0x4011ffff, DDR 0x800000000 to "
     "0x80000ffff)"),
    (row(DDR, 2), row(AM_END - 4, 2), {}, "destination reaches from 0x400bfffc to 0x400c0003"),
    (row(DDR, 1, 2, -4), row(AM, 2), {}, "source reaches from 0x7fffffffc to 0x800000003"),
    (row(DDR, 4), row(AM_END - 64, 2, 2, 64), {}, "destination reaches from 0x400bffc0 to"),
]  # fmt: skip


@pytest.mark.parametrize("timing_only", [False, True])
@pytest.mark.parametrize(
    ("source", "target", "fields", "problem"), PROBLEMS, ids=[p[3][:50] for p in PROBLEMS]
)
def test_a_wrong_descriptor(
    source: Plane, target: Plane, fields: dict[str, Any], problem: str, timing_only: bool
) -> None:
    bench = Bench(move, EASY, cores=2, timing_only=timing_only)
    bench.transfer(0, source, target, **fields)
    message = bench.failure()
    assert "core 0, cycle 0, packet 0: DMASTART R32, 0: DMA descriptor: " in message
    assert problem in message


def faulty(k: Builder, *names: str, channel: int = 0) -> None:
    k.ddr_buffer("data", DATA)
    for name in names:
        operands: list[Any] = [R[32], channel] if name == "dmastart" else [channel]
        one(k, name, *operands)


@pytest.mark.parametrize(
    ("names", "channel", "place", "problem"),
    [
        (["dmawait"], 0, "cycle 1, packet 0: DMAWAIT 0", "channel 0, on which nothing was started"),
        (["dmastart", "dmawait", "dmawait"], 5, "packet 2: DMAWAIT 5", "since its last wait"),
        (["dmastart", "dmastart"], 3, "cycle 1, packet 1: DMASTART R32, 3",
         "starts a transfer on channel 3, whose last transfer was not waited for"),
        (["dmastart"], 16, "cycle 0, packet 0: DMASTART", "DMA channel 16 is outside 0 to 15"),
        (["dmawait"], -1, "cycle 0, packet 0: DMAWAIT", "DMA channel -1 is outside 0 to 15"),
    ],
)  # fmt: skip
def test_a_wrong_use_of_a_channel(names: list[str], channel: int, place: str, problem: str) -> None:
    bench = Bench(lambda k: faulty(k, *names, channel=channel), EASY)
    bench.transfer(0, row(DDR, 160), row(AM, 160))
    message = bench.failure()
    assert place in message
    assert problem in message


def test_a_machine_with_fewer_channels() -> None:
    record = machine("dma.channels=2")
    message = Bench(lambda k: faulty(k, "dmawait", channel=2), record).failure()
    assert "DMA channel 2 is outside 0 to 1" in message


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (SM + 0x20000 - 44, "48 bytes at 0x4011ffd4 are outside SM (0x40100000 to 0x4011ffff)"),
        (AM, "48 bytes at 0x40000000 are outside SM"),
        (SM + 2, "address 0x40100002 is not a multiple of 4"),
    ],
)
def test_a_descriptor_outside_scalar_memory(address: int, problem: str) -> None:
    bench = Bench(lambda k: faulty(k, "dmastart"), EASY)
    bench[R[32]] = address
    assert problem in bench.failure()
