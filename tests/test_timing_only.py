"""Timing-only runs: the cycles of the full run, and what they must refuse.

On the machine of these tests (`EASY`) DDR gives 16 bytes a cycle and a transfer begins 10 cycles
after its start: 640 bytes started at t=0 end at t=50.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isa import Builder, unless, when_set
from kernels import maxpool2d_forward
from micro_programs import (
    AM,
    AR,
    DDR,
    EASY,
    EASY_SETTINGS,
    ENTRY,
    OR,
    SM,
    SVR,
    VLR,
    VR,
    Bench,
    Body,
    R,
    machine,
    one,
    row,
    stagger,
    stalls,
)
from simulator import simulate
from simulator.result import BANK_CONFLICT, DMA_WAIT, ChipResult

DATA = 64 * 1024
"""Bytes of DDR in the programs of these tests."""


# The same cycles --------------------------------------------------------------------------------


def vectors(k: Builder) -> None:
    """Go three times through loads, multiply-adds, masks and exchange while a transfer runs."""
    k.ddr_buffer("data", DATA)
    one(k, "dmastart", R[32], 0)
    one(k, "smovi", 3, R[20])
    top = k.label("top")
    with k.packet():
        k.vldw(AR[0].post(16), VR[4])
        k.vlddw(AR[1].post(32), VR[6])
        for index in range(3):
            k.vfmulas32(VR[4], VR[5], VR[10 + index])
        k.smvcgc_vlr(R[21], VLR)
    with k.packet():
        k.vfmulas32(VR[4], VR[5], VR[14])
        k.vfmulas32(VR[4], VR[5], VR[15])
        k.ssub(1, R[20], R[20])
    with k.packet():
        k.vmvcgc(VR[4], SVR)
        k.svbcast(R[21], VR[8])
        k.vstdw(VR[6], AR[2] + 0)
        k.smov(R[20], R[0])
    one(k, "sbr", top, when=when_set(R[0]))
    k.idle(6)
    one(k, "dmawait", 0)
    one(k, "halt")


def of_vectors(timing_only: bool) -> ChipResult:
    bench = Bench(vectors, machine(*EASY_SETTINGS, "am.bank_model=true"), timing_only=timing_only)
    bench[R[21]] = 0x000F
    bench.transfer(0, row(DDR, 160), row(SM, 160))
    return bench.run()


def test_a_timing_only_run_takes_the_same_cycles() -> None:
    full, timing = of_vectors(timing_only=False), of_vectors(timing_only=True)
    assert timing == full
    # AR1 goes twice as fast as AR0: banks 0 and 0 1 in the first round, 1 and 2 3, 2 and 4 5.
    # t=0, t=1, first round with its conflict to t=12, two of ten to t=32, wait t=33; the transfer
    # ends at t=50: HALT. Lanes: 5 * 16, then 5 * 4 twice, as the mask lands in the first round.
    assert (full.cycles, full.cores[0].vmac_lanes) == (51, 80 + 20 + 20)
    assert stalls(full) == {(2, BANK_CONFLICT): 1, (7, DMA_WAIT): 50 - 34}


def meet_and_spread(k: Builder) -> None:
    """Come to a barrier and then to a broadcast, each core in its own time."""
    k.ddr_buffer("data", DATA)
    stagger(k)
    one(k, "barrier")
    one(k, "dmastart", R[32], 6, when=unless(R[1]))
    k.idle(50)
    one(k, "dmastart", R[32], 6, when=when_set(R[1]))
    one(k, "dmawait", 6)
    one(k, "halt")


def test_timing_only_runs_of_several_cores() -> None:
    def result(timing_only: bool) -> ChipResult:
        bench = Bench(meet_and_spread, EASY, cores=3, timing_only=timing_only)
        bench.stagger(4, 0, 2)
        bench.write(R[1], 1, core=2)
        bench.transfer(0, row(DDR, 16, 10), row(AM, 10, 16), transpose=True, cores=0b111)
        return bench.run()

    assert result(timing_only=True) == result(timing_only=False)


# What depends on tensor data --------------------------------------------------------------------


def loaded(use: Callable[[Builder], None]) -> Body:
    """Return a program that gets tensor data into R1, R9 and R10 and then uses it."""

    def body(k: Builder) -> None:
        k.ddr_buffer("data", DATA)
        one(k, "dmastart", R[32], 0)
        one(k, "dmawait", 0)
        one(k, "sldw", AR[8] + 4, R[1])
        one(k, "slddw", AR[8] + 4, R[10])
        k.idle(5)
        with k.packet():
            k.smvaga(R[1], AR[9])
            k.smvaga(R[1], OR[9])
            k.sadd(R[1], 1, R[9])
        k.idle(1)
        use(k)
        k.idle(6)
        one(k, "halt")

    return body


def through_lanes(k: Builder) -> None:
    one(k, "svbcast", R[1], VR[4])
    k.idle(3)
    one(k, "vmvcgc", VR[4], SVR)
    k.idle(2)
    one(k, "smvccg", ENTRY[3], R[2])
    k.idle(1)
    one(k, "smovi", 1, R[4], when=when_set(R[2]))


def moved_by_data(k: Builder) -> None:
    one(k, "sldw", AR[8].post(OR[9]), R[4])  # the access itself is known
    one(k, "sldw", AR[8] + 0, R[4])


def through_memory(k: Builder) -> None:
    one(k, "sstw", R[1], AR[8] + 200)
    k.idle(3)
    one(k, "sldw", AR[8] + 200, R[2])
    k.idle(5)
    one(k, "smovi", 1, R[4], when=when_set(R[2]))


REFUSED: dict[str, tuple[str, Callable[[Builder], None]]] = {
    "predicate": ("a predicate", lambda k: one(k, "smovi", 1, R[4], when=when_set(R[1]))),
    "memory": ("a predicate", through_memory),
    "exchange": ("a predicate", through_lanes),
    "address": ("an address", lambda k: one(k, "sldw", AR[9] + 0, R[4])),
    "address and offset": ("an address", lambda k: one(k, "sldw", AR[9] + 1, R[4])),
    "offset register": ("an address", lambda k: one(k, "sldw", AR[8] + OR[9], R[4])),
    "address update": ("an address", moved_by_data),
    "branch": ("the operands of SBR R9", lambda k: one(k, "sbr", R[9])),
    "descriptor": ("a DMA descriptor", lambda k: one(k, "dmastart", R[33], 1)),
    "descriptor address": ("the operands of DMASTART R1, 1", lambda k: one(k, "dmastart", R[1], 1)),
    "channel": ("the operands of DMAWAIT R9", lambda k: one(k, "dmawait", R[9])),
    "lane mask": ("the lane mask", lambda k: one(k, "smvcgc_vlr", R[9], VLR)),
}  # fmt: skip


@pytest.mark.parametrize("use", REFUSED)
def test_control_by_tensor_data_is_refused(use: str) -> None:
    what, emit = REFUSED[use]
    bench = Bench(loaded(emit), EASY, timing_only=True)
    bench.transfer(0, row(DDR, 64), row(SM, 64))
    bench.write(R[33], SM, core=0)
    message = bench.failure()
    assert "core 0, cycle " in message
    expected = f"a timing-only run cannot know {what}: it depends on tensor data; run with numbers"
    assert expected in message


def test_data_that_only_passes_through_is_fine() -> None:
    def use(k: Builder) -> None:
        one(k, "sfadds32", R[1], R[10], R[11])
        one(k, "sstw", R[1], AR[8] + 100)
        one(k, "sstdw", R[10], AR[8] + 102)
        one(k, "sstw", R[20], AR[8] + 4)  # a number again
        k.idle(3)
        one(k, "sldw", AR[8] + 4, R[2])
        k.idle(5)
        one(k, "smovi", 7, R[4], when=when_set(R[2]))

    bench = Bench(loaded(use), EASY, timing_only=True)
    bench[R[20]] = 1
    bench.transfer(0, row(DDR, 64), row(SM, 64))
    bench.run()
    assert bench[R[4]] == 7


def test_a_kernel_that_only_moves_much_is_not_taken_for_endless():
    """VGG16's first pooling at batch 256: nothing to multiply, 3.3 GB in, twice 0.8 GB out."""
    pooling = maxpool2d_forward(batch=256, channels=64, height=224, width=224)
    moved = 256 * 64 * (224 * 224 + 2 * 112 * 112) * 4
    report = simulate(pooling, timing_only=True, cores=4).report
    assert report.cycles > moved / (42.7 * 0.8) > 50_000_000
