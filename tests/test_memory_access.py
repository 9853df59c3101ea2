"""Loads and stores: address forms, pairs of words, order within a packet, masked lanes, bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isa import Builder, unless, when_set
from isa.operands import Address, Register
from micro_programs import (
    AM,
    AM_END,
    AR,
    LANES,
    OR,
    SM,
    VECTOR,
    VLR,
    VR,
    Bench,
    R,
    machine,
    one,
    refusal,
)

# Address forms ----------------------------------------------------------------------------------

FORMS: list[tuple[str, Callable[[Register, Register], Address], int, int]] = [
    # text, operand of a pointer and an offset register that holds 3, units accessed, units moved
    ("*AR", lambda pointer, offset: pointer + 0, 0, 0),
    ("*+AR[5]", lambda pointer, offset: pointer + 5, 5, 0),
    ("*-AR[5]", lambda pointer, offset: pointer - 5, -5, 0),
    ("*+AR[OR]", lambda pointer, offset: pointer + offset, 3, 0),
    ("*-AR[OR]", lambda pointer, offset: pointer - offset, -3, 0),
    ("*AR++[2]", lambda pointer, offset: pointer.post(2), 0, 2),
    ("*AR--[2]", lambda pointer, offset: pointer.post(2, negative=True), 0, -2),
    ("*AR++[-2]", lambda pointer, offset: pointer.post(-2), 0, -2),
    ("*AR++[OR]", lambda pointer, offset: pointer.post(offset), 0, 3),
    ("*AR--[OR]", lambda pointer, offset: pointer.post(offset, negative=True), 0, -3),
    ("*++AR[2]", lambda pointer, offset: pointer.pre(2), 2, 2),
    ("*--AR[2]", lambda pointer, offset: pointer.pre(2, negative=True), -2, -2),
    ("*++AR[OR]", lambda pointer, offset: pointer.pre(offset), 3, 3),
    ("*--AR[OR]", lambda pointer, offset: pointer.pre(offset, negative=True), -3, -3),
]
ACCESSES = {"SLDW": 1, "SLDDW": 2, "VLDW": 1, "VLDDW": 2}
"""Words that one unit of an offset counts."""


@pytest.mark.parametrize("name", ACCESSES)
@pytest.mark.parametrize(("operand", "accessed", "moved"), [f[1:] for f in FORMS],
                         ids=[f[0] for f in FORMS])  # fmt: skip
def test_address_forms(
    name: str, operand: Callable[[Register, Register], Address], accessed: int, moved: int
) -> None:
    vector, unit = name.startswith("V"), ACCESSES[name]
    pointer, offset = (AR[2], OR[4]) if vector else (AR[10], OR[12])
    base, target = (AM, VR[10]) if vector else (SM, R[10])

    def body(k: Builder) -> None:
        one(k, name.lower(), operand(pointer, offset), target)
        k.idle(8)

    bench = Bench(body)
    bench[pointer], bench[offset] = base + 4 * 100, 3
    bench.place(base, range(200))  # word n holds n
    bench.run()
    first = 100 + unit * accessed
    for part in range(unit):
        register = (VR if vector else R)[10 + part]
        words = [first + part + unit * lane for lane in LANES]
        assert bench[register] == (words if vector else words[0])
    assert bench[pointer] == base + 4 * (100 + unit * moved)


def test_stores_place_words_as_loads_find_them() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.sstw(R[4], AR[8].post(1))
            k.vstw(VR[4], AR[0] + 1)
            k.vstdw(VR[4], AR[1].pre(2))
        one(k, "sstdw", R[4], AR[8] + 1)

    bench = Bench(body)
    bench[AR[1]] = AM + 2 * VECTOR
    bench[R[4]], bench[R[5]] = -1, 2**32 + 7
    bench[VR[4]], bench[VR[5]] = range(100, 116), range(200, 216)
    bench.run()
    # AR8 moved by a word: the double word goes to words 1 + 2 and 1 + 3
    assert bench.words(SM, 5) == [2**32 - 1, 0, 0, 2**32 - 1, 7]
    assert bench.words(AM, 18) == [0, *range(100, 116), 0]
    pairs = [word for lane in LANES for word in (100 + lane, 200 + lane)]
    assert bench.words(AM + 2 * VECTOR + 16, 32) == pairs


def test_loads_are_sign_extended() -> None:
    def body(k: Builder) -> None:
        one(k, "slddw", AR[8] + 0, R[4])
        k.idle(6)

    bench = Bench(body)
    bench.place(SM, [0x7FFF_FFFF, 0x8000_0000])
    bench.run()
    assert (bench[R[4]], bench[R[5]]) == (2**31 - 1, -(2**31))


def test_an_update_lands_one_cycle_later() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vldw(AR[0].post(16), VR[4])
            k.vldw(AR[0] + 16, VR[5])  # the old pointer too
        with k.packet():
            k.vldw(AR[0] + 0, VR[6])
            k.vldw(AR[0].pre(16, negative=True), VR[7])
        k.idle(8)

    bench = Bench(body)
    bench.place(AM, range(48))
    bench.run()
    starts = [bench[VR[index]][0] for index in range(4, 8)]
    assert (starts, bench[AR[0]]) == ([0, 16, 16, 0], AM)


def test_two_moves_of_one_pointer_in_a_packet_are_refused() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vldw(AR[0].post(16), VR[4])
            k.vldw(AR[0].post(16), VR[5])

    assert "AR0 gets 2 results in one cycle" in refusal(body)


# Order within a packet --------------------------------------------------------------------------


def test_a_store_takes_effect_after_the_loads_of_its_packet() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vstw(VR[4], AR[0] + 0)
            k.vldw(AR[0] + 0, VR[5])
        with k.packet():
            k.vldw(AR[0] + 0, VR[6])
        k.idle(8)

    bench = Bench(body)
    bench[VR[4]] = 9
    bench.place(AM, [5] * 16)
    bench.run()
    assert (bench[VR[5]], bench[VR[6]]) == ([5] * 16, [9] * 16)


def test_a_load_sees_memory_as_it_was_at_its_issue() -> None:
    # t=0 load, t=1 store to the same word: the load's result lands at t=6 and is the old word
    def body(k: Builder) -> None:
        one(k, "sldw", AR[8] + 0, R[5])
        one(k, "sstw", R[4], AR[8] + 0)
        k.idle(5)

    bench = Bench(body)
    bench[R[4]] = 9
    bench.place(SM, [5])
    bench.run()
    assert (bench[R[5]], bench.words(SM, 1)) == (5, [9])


def test_a_store_stores_what_its_register_held_at_issue() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vstw(VR[4], AR[0] + 0)
            k.vmovi(9, VR[4])

    bench = Bench(body)
    bench[VR[4]] = 5
    bench.run()
    assert bench.words(AM, 16) == [5] * 16


@pytest.mark.parametrize("store", [2, 4, 6])
def test_checked_runs_know_the_latency_of_stores(store: int) -> None:
    def body(k: Builder, distance: int) -> None:
        one(k, "smovi", SM, R[4])
        one(k, "smvaga", R[4], AR[8])
        k.idle(1)
        one(k, "sstw", R[4], AR[8] + 0)
        k.idle(distance - 1)
        one(k, "sldw", AR[8] + 0, R[5])

    record = machine(f"latency.store={store}")
    Bench(lambda k: body(k, store), record, check=True).run()
    message = Bench(lambda k: body(k, store - 1), record, check=True).failure()
    assert f"a store takes {store} cycles" in message


def two_stores(k: Builder, opposite: bool = False, pointer: Register = AR[1]) -> None:
    with k.packet():
        k.vstw(VR[4], AR[0] + 0, **({"when": when_set(VR[1])} if opposite else {}))
        k.vstw(VR[5], pointer + 0, **({"when": unless(VR[1])} if opposite else {}))


@pytest.mark.parametrize(("distance", "overlap"), [(-15, True), (0, True), (15, True), (16, False)])
def test_two_stores_of_a_packet_must_not_overlap(distance: int, overlap: bool) -> None:
    bench = Bench(two_stores)
    bench[AR[0]], bench[AR[1]] = AM + VECTOR, AM + VECTOR + 4 * distance
    if overlap:
        message = bench.failure()
        assert "core 0, cycle 0, packet 0: VSTW" in message
        assert "two stores of one packet overlap" in message
    else:
        bench.run()


def test_overlapping_stores_through_one_pointer_are_refused() -> None:
    message = refusal(lambda k: two_stores(k, pointer=AR[0]))
    assert "stores to 64 bytes that 'VSTW VR4, *AR0' of the same packet stores to" in message


def test_stores_of_different_lanes_do_not_overlap() -> None:
    bench = Bench(lambda k: two_stores(k, opposite=True))
    bench[VR[1]] = [lane % 2 for lane in LANES]
    bench[VR[4]], bench[VR[5]] = 1, 2
    bench.run()
    assert bench.words(AM, 16) == [2, 1] * 8


def test_words_between_those_of_a_double_store_do_not_overlap() -> None:
    # lanes 0 and 3 of the double store: words 0 1 6 7; lane 0 and 3 of the other: words 2 5
    def body(k: Builder) -> None:
        with k.packet():
            k.vstdw(VR[4], AR[0] + 0)
            k.vstw(VR[6], AR[1] + 2)

    bench = Bench(body)
    bench[VLR], bench[VR[4]], bench[VR[5]], bench[VR[6]] = 0b1001, 1, 2, 3
    bench.run()
    assert bench.words(AM, 8) == [1, 2, 3, 0, 0, 3, 1, 2]
    again = Bench(body)
    again[VLR], again[AR[1]] = 0b1001, AM + 4  # words 3 and 6
    assert "two stores of one packet overlap" in again.failure()


# Bounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pointer", "address", "problem"),
    [
        ("sldw", AR[8], SM - 4, "4 bytes at 0x400ffffc are outside SM (0x40100000 to 0x4011ffff)"),
        ("sldw", AR[8], SM + 2, "address 0x40100002 is not a multiple of 4"),
        ("slddw", AR[8], SM + 0x1FFFC, "4 bytes at 0x40120000 are outside SM"),
        ("sldw", AR[8], AM, "4 bytes at 0x40000000 are outside SM"),
        ("vldw", AR[0], AM_END - 60, "64 bytes at 0x400bffc4 are outside AM"),
        ("vldw", AR[0], AM + 1, "address 0x40000001 is not a multiple of 4"),
        ("vldw", AR[0], 0x8_0000_0000, "64 bytes at 0x800000000 are outside AM"),
        ("vlddw", AR[0], AM_END - 124, "outside AM (0x40000000 to 0x400bffff)"),
    ],
)
def test_an_access_outside_its_memory(
    name: str, pointer: Register, address: int, problem: str
) -> None:
    def body(k: Builder) -> None:
        one(k, "smovi", 1, R[4])
        one(k, name, pointer + 0, (VR if name.startswith("v") else R)[10])

    bench = Bench(body)
    bench[pointer] = address
    message = bench.failure()
    assert f"core 0, cycle 1, packet 1: {name.upper()} *{pointer}" in message
    assert problem in message


@pytest.mark.parametrize("effect", ["dmawait", "barrier", "halt"])
def test_a_fault_beside_a_blocking_operation_names_its_packet(effect: str) -> None:
    def body(k: Builder) -> None:
        k.idle(3)
        with k.packet():
            getattr(k, effect)(*([0] if effect == "dmawait" else []))
            k.vldw(AR[0] + 0, VR[4])
        one(k, "halt")

    bench = Bench(body)
    bench[AR[0]] = AM - 4
    assert f"core 0, cycle 3, packet 1: {effect.upper()}" in bench.failure()


def test_an_operation_that_is_predicated_off_faults_nothing_and_moves_nothing() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vldw(AR[0].post(16), VR[10], when=when_set(R[0]))
            k.vstw(VR[10], AR[1].pre(16), when=when_set(R[0]))
            k.sldw(AR[8].post(1), R[10], when=when_set(R[0]))
        with k.packet():
            k.sbr(R[9], when=when_set(R[0]))
        with k.packet():
            k.dmawait(R[9], when=when_set(R[0]))
        k.idle(4)
        one(k, "vfadds32", VR[1], VR[2], VR[3], when=when_set(R[0]))
        k.idle(2)

    bench = Bench(body)
    bench[R[9]] = 99
    wrong = {AR[0]: 12, AR[1]: 16, AR[8]: 20}
    for pointer, address in wrong.items():
        bench[pointer] = address
    assert bench.run().cores[0].vmac_lanes == 0
    assert {pointer: bench[pointer] for pointer in wrong} == wrong


@pytest.mark.parametrize("by", ["lane mask", "predicate"])
def test_a_masked_lane_cannot_fault(by: str) -> None:
    # lanes 0-7 lie inside AM, lanes 8-15 behind it
    def body(k: Builder) -> None:
        when = {"when": when_set(VR[1])} if by == "predicate" else {}
        with k.packet():
            k.vldw(AR[0] + 0, VR[10], **when)
            k.vstw(VR[5], AR[1] + 0, **when)
        k.idle(8)

    for lanes_on in (8, 9):
        bench = Bench(body)
        bench[VLR] = (1 << lanes_on) - 1 if by == "lane mask" else 0xFFFF
        bench[VR[1]] = [int(lane < lanes_on) for lane in LANES]
        bench[VR[5]], bench[VR[10]] = 5, 9
        bench[AR[0]] = bench[AR[1]] = AM_END - 32
        bench.place(AM_END - 32, range(8))
        if lanes_on == 8:
            bench.run()
            assert bench[VR[10]] == [*range(8), *[9] * 8]
            assert bench.words(AM_END - 32, 8) == [5] * 8
        else:
            expected = "36 bytes at 0x400bffe0 are outside AM (0x40000000 to 0x400bffff)"
            assert expected in bench.failure()


def test_no_lane_at_all_cannot_fault() -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vldw(AR[0] + 0, VR[10])
            k.vstdw(VR[4], AR[1] + 0)
        k.idle(8)

    bench = Bench(body)
    bench[VLR], bench[AR[0]], bench[AR[1]] = 0, 1, 2
    bench.run()
