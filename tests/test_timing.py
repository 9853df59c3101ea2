"""When a result can be read: latencies, stale reads, stores, and what stalls do to all of it.

`t` is the cycle in which a packet issues; the first one of a program issues at t=0, and a program
whose HALT issues at t has taken t + 1 cycles.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import isa.instructions  # noqa: F401  (fills the registry)
from isa import Builder
from isa.instruction import REGISTRY
from isa.machine import Machine
from isa.operands import AROR, File, Register
from micro_programs import (
    AM,
    AR,
    DDR,
    EASY,
    ENTRY,
    LANES,
    MACHINE,
    OR,
    SM,
    SVR,
    VECTOR,
    VLR,
    VR,
    Bench,
    R,
    machine,
    one,
    row,
    stalls,
)
from simulator.result import DMA_WAIT, StallPlace

# Latencies --------------------------------------------------------------------------------------

LATENCIES: dict[str, tuple[int, str]] = {
    "scalar_integer": (1, "SADD SSUB SMOV SMOVI SMOVIH SAND SOR SXOR SNOT SSHFLL SSHFLR SSHFAR "
                          "SNEG SMIN SMAX SLT SLTU SEQ SCOREID"),
    "scalar_multiply": (3, "SMULIS SMULIU"),
    "scalar_compare_float": (1, "SFCMPGS32 SFCMPGES32 SFCMPES32 SFCMPLS32 SFMAXS32 SFMINS32"),
    "scalar_add_float": (3, "SFADDS32 SFSUBS32"),
    "scalar_multiply_float": (4, "SFMULS32"),
    "scalar_multiply_add_float": (6, "SFMULAS32 SFMULBS32"),
    "scalar_reciprocal": (1, "SFRCPS32"),
    "scalar_convert": (3, "SFINTS32 SFSTRU32"),
    "scalar_load": (6, "SLDW SLDDW"),
    "vector_load": (8, "VLDW VLDDW"),
    "vector_integer": (1, "VADD VSUB VAND VOR VXOR VNOT VSHFLL VSHFLR VSHFAR VSLT VSLTU VSEQ VMIN "
                          "VMAX VSEL VMOV VMOVI VLANE"),
    "vector_multiply": (3, "VMULIS32"),
    "vector_add_float": (3, "VFADDS32 VFSUBS32"),
    "vector_multiply_float": (4, "VFMULS32"),
    "vector_multiply_add_float": (6, "VFMULAS32 VFMULBS32"),
    "vector_compare": (1, "VFCMPGS32 VFCMPGES32 VFCMPES32 VFCMPLS32"),
    "vector_maximum": (1, "VFMAXS32 VFMINS32"),
    "vector_reciprocal": (3, "VFRCPS32"),
    "vector_convert": (3, "VFINTS32 VFSTRU32"),
    "shuffle": (3, "VSHUFW"),
    "reduction": (12, "VFSUMS32 VFRMAXS32"),
    "broadcast": (4, "SVBCAST"),
    "address_move": (2, "SMVAGA"),
    "address_read": (2, "SMVAAG"),
    "address_add_vector": (3, "SADDA SSUBA"),
    "address_add_scalar": (2, "SADDA SSUBA"),
    "vector_to_exchange": (3, "VMVCGC"),
    "exchange_to_vector": (2, "VMVCCG"),
    "scalar_to_exchange": (3, "SMVCGC"),
    "exchange_to_scalar": (2, "SMVCCG"),
    "lane_mask": (4, "SMVCGC_VLR"),
}  # fmt: skip
"""Cycles from issue to use of the sibling chip's code, and the instructions of each class."""

CASES = [
    pytest.param(name, latency, cycles, id=f"{name}-{latency}")
    for latency, (cycles, names) in LATENCIES.items()
    for name in names.split()
]
OLD = 12345


def sources(name: str, destination: Register) -> Iterator[Any]:
    """Yield operands of the right kinds; a MAC adds to its destination."""
    entry = REGISTRY[name]
    for position, (_, kind) in enumerate(entry.sources):
        scalar_side = destination.file in (File.ADDRESS, File.OFFSET) and destination.index >= 8
        operands = {
            "R": R[10 + position], "RI": R[10 + position], "RPair": R[10],
            "VR": VR[10 + position], "VRI": VR[10 + position], "Imm32": 7,
            "AR": AR[10] if scalar_side else AR[2], "SVR": SVR, "SVRi": ENTRY[2],
            "ScalarWord": AR[8] + 0, "ScalarDoubleWord": AR[8] + 0,
            "VectorWord": AR[0] + 0, "VectorDoubleWord": AR[0] + 0,
        }  # fmt: skip
        last = position == len(entry.sources) - 1
        yield destination if entry.in_place and last else operands[kind.__name__]


def destinations(name: str, latency: str) -> list[Register]:
    """Return where the results go: two registers of a pair."""
    kind = REGISTRY[name].results[0]
    if kind is AROR or kind.__name__ == "AR":
        return [AR[11] if latency == "address_add_scalar" else AR[3]]
    return {
        "R": [R[40]], "RPair": [R[40], R[41]], "VR": [VR[40]], "VRPair": [VR[40], VR[41]],
        "SVR": [ENTRY[5]], "SVRi": [ENTRY[5]], "VLR": [VLR],
    }[kind.__name__]  # fmt: skip


def copy(k: Builder, register: Register, number: int) -> Register:
    """Read a register in the packet under construction; return where the copy will be."""
    if register.file is File.LANE_MASK:
        k.vmovi(1, VR[50 + number], slot="VMAC4")
        return VR[50 + number]
    if register.file is File.VECTOR:
        k.vmov(register, VR[50 + number], slot="VMAC4")
        return VR[50 + number]
    words = {File.SCALAR: "smov", File.ADDRESS: "smvaag", File.EXCHANGE: "smvccg"}
    slot = "SIEU" if register.file is File.EXCHANGE else "SMAC2"
    getattr(k, words[register.file])(register, R[50 + number], slot=slot)
    return R[50 + number]


def stale_and_fresh(name: str, latency: str, cycles: int, record: Machine) -> Bench:
    """Return a bench that copies the result of t=0 at t=cycles-1 and at t=cycles."""
    targets = destinations(name, latency)
    named = SVR if name == "VMVCGC" else targets[0]

    def body(k: Builder) -> None:
        with k.packet():
            k.emit(REGISTRY[name], *sources(name, targets[0]), named)
            if cycles == 1:
                copy(k, targets[-1], 0)
        k.idle(cycles - 2)
        for number in range(1 if cycles == 1 else 0, 2):
            with k.packet():
                copy(k, targets[-1], number)
        k.idle(20)

    bench = Bench(body, record)
    for index in range(10, 14):
        bench[R[index]] = 0x40200000 + index * 0x10000  # all numbers, also as float32: 2.5 on
        bench[VR[index]] = [0x40200000 + index * 0x10000 + lane for lane in LANES]
    for target in targets:
        if target is not VLR:
            bench[target] = OLD
    return bench


def check_latency(name: str, latency: str, cycles: int, record: Machine = MACHINE) -> None:
    bench = stale_and_fresh(name, latency, cycles, record)
    target = destinations(name, latency)[-1]
    before = bench[target]
    result = bench.run()
    # producer t=0, copies until t=cycles, 20 idle cycles, HALT
    assert result.cycles == cycles + 1 + 20 + 1
    if target is VLR:  # R10's low bits are 0: all lanes off, and the second copy not written
        assert (bench[VR[50]], bench[VR[51]], bench[VLR]) == ([1] * 16, [0] * 16, 0)
        return
    copies = (VR if target.file is File.VECTOR else R)[50:52]
    assert bench[copies[0]] == before
    assert bench[copies[1]] == bench[target]
    assert bench[target] != before


@pytest.mark.parametrize(("name", "latency", "cycles"), CASES)
def test_a_result_is_old_one_cycle_before_its_latency_and_new_at_it(
    name: str, latency: str, cycles: int
) -> None:
    check_latency(name, latency, cycles)


@pytest.mark.parametrize("latency", LATENCIES)
def test_another_latency_is_another_cycle(latency: str) -> None:
    cycles, names = LATENCIES[latency]
    record = machine(f"latency.{latency}={cycles + 3}")
    check_latency(names.split()[0], latency, cycles + 3, record)


def test_every_latency_is_here() -> None:
    with_results = {name for name, entry in REGISTRY.items() if entry.results}
    assert {case.values[0] for case in CASES} == with_results
    # these three are timed below and with the branches
    assert set(LATENCIES) | {"store", "branch", "address_update"} == set(MACHINE.latency)


@pytest.mark.parametrize("fresh", [False, True])
def test_an_offset_register_can_be_used_after_two_cycles(fresh: bool) -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.smvaga(R[4], OR[9], slot="SMAC1")
            k.smvaga(R[4], OR[1], slot="SMAC2")
        k.idle(int(fresh))
        with k.packet():
            k.sldw(AR[8] + OR[9], R[5])
            k.vldw(AR[0] + OR[1], VR[5])
        k.idle(8)

    bench = Bench(body)
    bench[R[4]], bench[OR[9]], bench[OR[1]] = 3, 1, 1
    bench.place(SM, range(8))
    bench.place(AM, range(32))
    bench.run()
    first = 3 if fresh else 1
    assert (bench[R[5]], bench[VR[5]]) == (first, list(range(first, first + 16)))


@pytest.mark.parametrize("cycles", [1, 3])
def test_an_address_update_lands_after_its_own_latency(cycles: int) -> None:
    # post-increments at t=0 move AR8 to word 1; read at t=cycles-1 and at t=cycles
    def body(k: Builder) -> None:
        with k.packet():
            k.sldw(AR[8].post(1), R[4])
            if cycles == 1:
                k.smvaag(AR[8], R[5])
        k.idle(cycles - 2)
        for target in (R[6],) if cycles == 1 else (R[5], R[6]):
            one(k, "smvaag", AR[8], target)

    bench = Bench(body, machine(f"latency.address_update={cycles}"))
    bench.run()
    assert (bench[R[5]], bench[R[6]], bench[AR[8]]) == (SM, SM + 4, SM + 4)


def test_scheduled_code_waits_for_a_pinned_address_update() -> None:
    def body(k: Builder) -> None:
        one(k, "sstw", R[4], AR[8].post(1))
        k.smvaag(AR[8], R[5])

    bench = Bench(body, machine("latency.address_update=9"))
    bench.run()
    assert bench[R[5]] == SM + 4


# Reads, writes and chains -----------------------------------------------------------------------


def test_reads_of_a_packet_come_before_its_writes() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.smov(R[4], R[5])
            k.smov(R[5], R[4])
            k.vmov(VR[4], VR[5])
            k.vmov(VR[5], VR[4])

    bench = Bench(body)
    for file in (R, VR):
        bench[file[4]], bench[file[5]] = 1, 2
    assert bench.run().cycles == 2
    assert (bench[R[4]], bench[R[5]]) == (2, 1)
    assert (bench[VR[4]], bench[VR[5]]) == ([2] * 16, [1] * 16)


def test_all_twelve_slots_issue_in_one_cycle() -> None:
    def body(k: Builder) -> None:
        after = k.new_label("after")
        with k.packet():
            k.sldw(AR[8] + 0, R[10])
            k.sfadds32(R[4], R[4], R[11], slot="SMAC1")
            k.svbcast(R[4], VR[10], slot="SMAC2")
            k.sand(R[4], 1, R[12])
            k.sbr(after)
            k.vldw(AR[0] + 0, VR[11])
            k.vstw(VR[4], AR[0] + 64)
            for index in range(4):
                k.vfmulas32(VR[4], VR[5], VR[12 + index])
            k.vadd(VR[4], 1, VR[16], slot="VIEU")
        k.idle(6)
        k.place(after)
        one(k, "halt")

    bench = Bench(body)
    result = bench.run()
    # the packet t=0, six idle cycles, HALT t=7; 4 multiply-adds of 16 lanes
    assert (result.cycles, result.cores[0].vmac_lanes) == (8, 64)
    assert result.cores[0].executed == (1, 1, 1)
    assert len(bench.program.packets[0].operations) == 12


@pytest.mark.parametrize(("wait", "expected"), [(3, 7.0), (4, 37.0)])
def test_a_broadcast_feeds_a_multiply_add_after_exactly_four_cycles(
    wait: int, expected: float
) -> None:
    # t=0 broadcast; at t=3 the MAC still sees 0 * 10 + 7, at t=4 it sees 3 * 10 + 7
    def body(k: Builder) -> None:
        one(k, "svbcast", R[4], VR[1])
        k.idle(wait - 1)
        one(k, "vfmulas32", VR[1], VR[2], VR[3])
        k.idle(5)

    bench = Bench(body)
    bench[R[4]] = 0x40400000  # 3.0
    bench[VR[2]], bench[VR[3]] = [10.0] * 16, [7.0] * 16
    bench.run()
    assert bench.floats(VR[3]) == [expected] * 16


def test_a_chain_at_the_least_distances() -> None:
    # load t=0, + 8: multiply t=8, + 4: add t=12, + 3: store t=15, HALT t=16
    def body(k: Builder) -> None:
        one(k, "vldw", AR[0] + 0, VR[1])
        k.idle(7)
        one(k, "vfmuls32", VR[1], VR[1], VR[2])
        k.idle(3)
        one(k, "vfadds32", VR[2], VR[1], VR[3])
        k.idle(2)
        one(k, "vstw", VR[3], AR[0] + 16)
        one(k, "halt")

    bench = Bench(body)
    bench.place(AM, [0x40000000] * 16)  # 2.0
    assert bench.run().cycles == 17
    assert bench.words(AM + VECTOR, 16) == [0x40C00000] * 16  # 2 * 2 + 2 = 6.0


# Time -------------------------------------------------------------------------------------------


def test_idle_cycles_count_one_packet() -> None:
    # t=0, SNOP t=1 to t=100, t=101, HALT t=102
    def body(k: Builder) -> None:
        one(k, "smovi", 1, R[4])
        k.idle(100)
        one(k, "smovi", 2, R[4])
        one(k, "halt")

    result = Bench(body).run()
    assert (result.cycles, result.cores[0].executed) == (103, (1, 1, 1, 1))


def waiting(k: Builder, wait: bool) -> None:
    """Multiply in packet 1, beside a wait, and read the product in each of the next packets."""
    k.ddr_buffer("data", 640)
    if wait:
        one(k, "dmastart", R[32], 0)
    else:
        k.idle(1)
    with k.packet():
        k.smulis(R[4], R[5], R[6])
        k.vldw(AR[0].post(16), VR[1])
        if wait:
            k.dmawait(0)
    for number in range(4):
        one(k, "smov", R[6], R[10 + number], slot="SMAC2")
    k.idle(8)
    one(k, "halt")


def test_a_stall_freezes_results_in_flight() -> None:
    runs = [Bench(partial(waiting, wait=wait), EASY) for wait in (False, True)]
    for bench in runs:
        bench[R[4]], bench[R[5]], bench[R[6]] = 6, 7, 1
        bench.transfer(0, row(DDR, 160), row(SM, 160))
    plain, stalled = (bench.run() for bench in runs)
    # 3 cycles of issue for the product, with and without the stall: old, old, new, new
    for bench in runs:
        assert [bench[R[10 + number]] for number in range(4)] == [1, 1, 42, 42]
        assert bench[AR[0]] == AM + VECTOR
    # t=0 to t=5, eight idle cycles, HALT t=14
    assert plain.cycles == 15
    # start t=0, begins 10, 640 B / 16 = 40 cycles: ends 50; the packet after the wait, t=2, at 50
    assert stalled.cycles == 15 + 48
    assert stalled.cores[0].stalls == {StallPlace(1, DMA_WAIT, 0): 48}


def test_cycles_are_packets_and_stalls() -> None:
    # two waits in turn: start t=0, ends 50; wait t=1; start t=50, begins 60, 100 B = 4 bursts of
    # 32 B = 8 cycles: ends 68; wait t=51; HALT t=68
    def body(k: Builder) -> None:
        k.ddr_buffer("data", 640)
        for number in (0, 1):
            one(k, "dmastart", R[32 + number], 3)
            one(k, "dmawait", 3)
        one(k, "halt")

    bench = Bench(body, EASY)
    bench.transfer(0, row(DDR, 160), row(SM, 160))
    bench.transfer(1, row(DDR, 25), row(SM, 25))
    result = bench.run()
    assert stalls(result) == {(1, DMA_WAIT): 48, (3, DMA_WAIT): 16}
    assert result.cycles == sum(result.cores[0].executed) + 48 + 16 == 69
