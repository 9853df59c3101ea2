"""The optional bank model of AM: conflict cycles by hand, and where they are booked.

By default 32 banks of 64-byte rows, interleaved: byte b of AM lies in bank (b // 64) mod 32, so
that 2,048 bytes further comes the same bank again. Each bank serves one access a cycle.
"""

from __future__ import annotations

import pytest

from isa import Builder, unless, when_set
from micro_programs import (
    AM,
    AR,
    DDR,
    EASY,
    EASY_SETTINGS,
    VLR,
    VR,
    Bench,
    R,
    machine,
    one,
    row,
    stalls,
)
from simulator.result import BANK_CONFLICT, DMA_WAIT, StallPlace

BANKS = "am.bank_model=true"


def two_accesses(k: Builder, first: str, second: str) -> None:
    """Access AM through AR0 and AR1 at t=0, HALT at t=1."""
    with k.packet():
        for number, name in enumerate((first, second)):
            address = AR[number] + 0
            value = VR[4 + 2 * number]
            operands = (value, address) if name.startswith("vst") else (address, value)
            getattr(k, name)(*operands)
    one(k, "halt")


@pytest.mark.parametrize(
    ("first", "at", "second", "also_at", "conflicts"),
    [
        ("vldw", 0, "vldw", 64, 0),  # banks 0 and 1
        ("vldw", 0, "vldw", 2048, 1),  # bank 0 twice
        ("vldw", 0, "vldw", 0, 1),  # the same row is still two accesses
        ("vldw", 0, "vldw", 1984, 0),  # banks 0 and 31
        ("vldw", 0, "vldw", 2048 + 32, 1),  # banks 0, and 0 and 1
        ("vldw", 32, "vldw", 128, 0),  # banks 0 and 1, and 2
        ("vldw", 32, "vldw", 96, 1),  # banks 0 and 1, and 1 and 2
        ("vldw", 2048 - 32, "vldw", 64, 0),  # banks 31 and 0, and 1
        ("vldw", 2048 - 32, "vldw", 0, 1),  # banks 31 and 0, and 0
        ("vlddw", 0, "vlddw", 128, 0),  # banks 0 and 1, and 2 and 3
        ("vlddw", 0, "vlddw", 2048 + 64, 1),  # banks 0 and 1, and 1 and 2
        ("vlddw", 32, "vldw", 128, 1),  # banks 0, 1 and 2, and 2
        ("vldw", 0, "vstw", 2048, 1),  # a store needs its bank too
        ("vstdw", 0, "vstdw", 4096, 1),
    ],
)
def test_conflicts_of_two_accesses(
    first: str, at: int, second: str, also_at: int, conflicts: int
) -> None:
    for overrides, expected in (([BANKS], conflicts), ([], 0)):
        bench = Bench(lambda k: two_accesses(k, first, second), machine(*overrides))
        bench[AR[0]], bench[AR[1]] = AM + at, AM + also_at
        result = bench.run()
        assert result.cycles == 2 + expected
        assert stalls(result) == ({(0, BANK_CONFLICT): expected} if expected else {})


@pytest.mark.parametrize(
    ("banks", "row_bytes", "first", "second", "conflicts"),
    [
        (1, 64, "vldw", "vldw", 1),  # one bank: two accesses
        (1, 64, "vlddw", "vlddw", 3),  # one bank: two rows each
        (2, 64, "vlddw", "vlddw", 1),  # each has one row in each bank
        (4, 32, "vldw", "vlddw", 1),  # rows 0 and 1; 0 to 3
        (4, 16, "vlddw", "vldw", 2),  # rows 0 to 7, twice in each bank; 0 to 3, once in each
        (32, 4, "vldw", "vldw", 1),  # banks of a word: 0 to 15, twice
        (32, 256, "vldw", "vldw", 1),
    ],
)
def test_other_banks(banks: int, row_bytes: int, first: str, second: str, conflicts: int) -> None:
    record = machine(BANKS, f"am.banks={banks}", f"am.bank_row_bytes={row_bytes}")
    assert Bench(lambda k: two_accesses(k, first, second), record).run().cycles == 2 + conflicts


def test_a_single_access_can_conflict_with_itself() -> None:
    # 128 bytes in two banks of 32-byte rows: two rows in each
    def body(k: Builder) -> None:
        one(k, "vlddw", AR[0] + 0, VR[4])
        one(k, "halt")

    assert Bench(body, machine(BANKS, "am.banks=2", "am.bank_row_bytes=32")).run().cycles == 3


def test_an_access_counts_whole_whatever_its_lanes() -> None:
    bench = Bench(lambda k: two_accesses(k, "vldw", "vldw"), machine(BANKS))
    bench[VLR], bench[AR[1]] = 1, AM + 2048 + 32
    assert bench.run().cycles == 3


def test_an_access_that_is_predicated_off_does_not_count() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vldw(AR[0] + 0, VR[4])
            k.vldw(AR[0] + 0, VR[5], when=when_set(R[0]))
        with k.packet():
            k.vldw(AR[0] + 0, VR[6])
            k.vldw(AR[0] + 0, VR[7], when=unless(R[0]))
        one(k, "halt")

    assert stalls(Bench(body, machine(BANKS)).run()) == {(1, BANK_CONFLICT): 1}


def conflicts_around(k: Builder) -> None:
    """Issue ten packets with a conflict, a product in flight across the first."""
    one(k, "smulis", R[4], R[5], R[6], slot="SMAC1")
    with k.packet():
        k.vldw(AR[0].post(16), VR[4])
        k.vldw(AR[1].post(16), VR[5])
    for number in range(2):
        one(k, "smov", R[6], R[10 + number], slot="SMAC2")
    for _ in range(9):
        with k.packet():
            k.vldw(AR[0].post(16), VR[4])
            k.vldw(AR[1].post(16), VR[5])
    one(k, "halt")


@pytest.mark.parametrize("timing_only", [False, True])
def test_a_conflict_stalls_results_in_flight_too(timing_only: bool) -> None:
    bench = Bench(conflicts_around, machine(BANKS), timing_only=timing_only)
    bench[R[4]], bench[R[5]], bench[R[6]] = 6, 7, 1
    bench[AR[1]] = AM + 4096
    result = bench.run()
    # the product of packet 0 is old in packet 2 and new in packet 3, though cycles are t=3 and 4
    assert (bench[R[10]], bench[R[11]]) == (1, 42)
    # 14 packets and ten conflicts of a cycle
    assert result.cycles == 14 + 10
    places = [StallPlace(packet, BANK_CONFLICT) for packet in (1, *range(4, 13))]
    assert result.cores[0].stalls == dict.fromkeys(places, 1)


def test_dma_has_a_port_of_its_own() -> None:
    # start t=0, 640 B to AM from t=10 to t=50; loads of the same rows meanwhile
    def body(k: Builder) -> None:
        k.ddr_buffer("data", 640)
        one(k, "dmastart", R[32], 0)
        for _ in range(30):
            one(k, "vldw", AR[0] + 0, VR[4])
        one(k, "dmawait", 0)
        one(k, "halt")

    for record in (EASY, machine(BANKS, *EASY_SETTINGS)):
        bench = Bench(body, record)
        bench.transfer(0, row(DDR, 160), row(AM, 160))
        result = bench.run()
        assert result.cycles == 51
        assert stalls(result) == {(31, DMA_WAIT): 50 - 32}


def test_a_conflict_beside_a_start_does_not_delay_the_start() -> None:
    # start t=0 beside a conflict: it begins at t=10 all the same and ends at t=50; the wait
    # issues at t=2 and the next packet would at t=3
    def body(k: Builder) -> None:
        k.ddr_buffer("data", 640)
        with k.packet():
            k.dmastart(R[32], 0)
            k.vldw(AR[0] + 0, VR[4])
            k.vldw(AR[0] + 0, VR[5])
        one(k, "dmawait", 0)
        one(k, "halt")

    bench = Bench(body, machine(BANKS, *EASY_SETTINGS))
    bench.transfer(0, row(DDR, 160), row(AM + 2048, 160))
    result = bench.run()
    assert stalls(result) == {(0, BANK_CONFLICT): 1, (1, DMA_WAIT): 47}
    assert result.cycles == 51


def test_a_conflict_beside_a_barrier_delays_the_arrival() -> None:
    # barrier of one core at t=0, its packet lasts until t=2: 20 cycles later is t=22
    def body(k: Builder) -> None:
        with k.packet():
            k.barrier()
            k.vldw(AR[0] + 0, VR[4])
            k.vldw(AR[0] + 0, VR[5])
        one(k, "halt")

    assert Bench(body, machine(BANKS)).run().cycles == 23
