"""Rules of issue: delay slots, predicates and lane masks, collisions of results.

`t` is the cycle in which a packet issues; the first one of a program issues at t=0, and a program
whose HALT issues at t has taken t + 1 cycles.
"""

from __future__ import annotations

import pytest
from attrs import evolve

from isa import Builder, unless, when_set
from isa.operands import Register
from micro_programs import (
    AM,
    AR,
    LANES,
    VLR,
    VR,
    Bench,
    R,
    machine,
    one,
    program,
    refusal,
)

# Branches ---------------------------------------------------------------------------------------


def count_up(k: Builder, packets: int) -> None:
    """Add 1 to R10 in every packet."""
    for _ in range(packets):
        one(k, "sadd", 1, R[10], R[10])


def jump(k: Builder, taken: bool = True) -> None:
    """Branch at t=0 over the seventh of the packets behind it."""
    after = k.new_label("after")
    one(k, "sbr", after, **({} if taken else {"when": when_set(R[0])}))
    count_up(k, 7)
    k.place(after)
    one(k, "smovi", 5, R[11])
    one(k, "halt")


def test_six_packets_after_a_taken_branch_execute() -> None:
    # SBR t=0, delay slots t=1 to t=6, target t=7, HALT t=8
    bench = Bench(jump)
    assert bench.run().cycles == 9
    assert (bench[R[10]], bench[R[11]]) == (6, 5)


def test_a_branch_that_is_predicated_off_costs_its_packet_only() -> None:
    # SBR t=0, seven packets, t=8, HALT t=9
    bench = Bench(lambda k: jump(k, taken=False))
    assert bench.run().cycles == 10
    assert bench[R[10]] == 7


def test_another_branch_latency() -> None:
    # three delay slots: t=1 to t=3, target t=4, HALT t=5
    bench = Bench(jump, machine("latency.branch=4"))
    assert bench.run().cycles == 6
    assert bench[R[10]] == 3


def test_a_branch_to_a_register() -> None:
    # label to R9 t=0, SBR t=1, delay slots t=2 to t=7, target t=8, HALT t=9
    def body(k: Builder) -> None:
        after = k.new_label("after")
        one(k, "smovi", after, R[9])
        one(k, "sbr", R[9])
        count_up(k, 8)
        k.place(after)
        one(k, "smovi", 5, R[11])
        one(k, "halt")

    bench = Bench(body)
    assert bench.run().cycles == 10
    assert (bench[R[9]], bench[R[10]], bench[R[11]]) == (10, 6, 5)


def test_calls_return_behind_themselves() -> None:
    # a call: SMOVI and SBR t=0, SNOP 6; the routine: SADD and SBR t=7, SNOP 6; 14 cycles each
    def body(k: Builder) -> None:
        routine, link = k.new_label("routine"), k.scalar("link")
        k.call(routine, link)
        k.call(routine, link)
        k.halt()
        k.place(routine)
        k.sadd(1, R[10], R[10])
        k.ret(link)

    bench = Bench(body)
    assert bench.run().cycles == 14 + 14 + 1
    assert bench[R[10]] == 2


def loop_into_delay_slots(k: Builder) -> None:
    """Branch at packet 0 to packet 3, inside its own delay slots; packets 3 to 8 then go on."""
    inside = k.new_label("inside")
    one(k, "sbr", inside)
    count_up(k, 2)
    k.place(inside)
    count_up(k, 6)
    one(k, "halt")


def test_a_label_inside_delay_slots() -> None:
    # SBR t=0, packets 1 to 6 t=1 to t=6, packets 3 to 8 t=7 to t=12, HALT t=13
    bench = Bench(loop_into_delay_slots)
    result = bench.run()
    assert result.cycles == 14
    assert result.cores[0].executed == (1, 1, 1, 2, 2, 2, 2, 1, 1, 1)
    assert bench[R[10]] == 12


def two_branches(k: Builder, distance: int, predicated: bool) -> None:
    first, second = k.new_label("first"), k.new_label("second")
    one(k, "sbr", first)
    count_up(k, distance - 1)
    one(k, "sbr", second, **({"when": when_set(R[1])} if predicated else {}))
    count_up(k, 12)
    k.place(first)
    one(k, "halt")
    k.place(second)
    one(k, "halt")


@pytest.mark.parametrize("distance", [1, 6])
def test_a_taken_branch_while_another_is_pending(distance: int) -> None:
    message = refusal(lambda k: two_branches(k, distance, predicated=False))
    assert f"SBR second: branches {distance} cycles after 'SBR first' of packet 0" in message
    bench = Bench(lambda k: two_branches(k, distance, predicated=True))
    bench[R[1]] = 1
    message = bench.failure()
    assert f"core 0, cycle {distance}, packet {distance}: [R1] SBR second: " in message
    assert "a branch is taken while another taken one is pending" in message


def test_a_branch_not_taken_while_another_is_pending() -> None:
    # t=0 branch, t=7 HALT
    assert Bench(lambda k: two_branches(k, 3, predicated=True)).run().cycles == 8


def test_a_branch_in_the_target_packet_of_a_branch() -> None:
    # t=0 to t=7, from there to t=14: HALT
    def body(k: Builder) -> None:
        here, there = k.new_label("here"), k.new_label("there")
        one(k, "sbr", here)
        k.idle(6)
        k.place(here)
        one(k, "sbr", there)
        k.idle(6)
        k.place(there)
        one(k, "halt")

    assert Bench(body).run().cycles == 15


def idle_behind_a_branch(k: Builder, cycles: int) -> None:
    after = k.new_label("after")
    one(k, "sbr", after)
    one(k, "smovi", 1, R[4])
    k.idle(cycles)
    count_up(k, 6)
    k.place(after)
    one(k, "halt")


def test_a_snop_may_end_at_the_branch_point() -> None:
    # SBR t=0, t=1, SNOP t=2 to t=6, HALT t=7
    assert Bench(lambda k: idle_behind_a_branch(k, 5)).run().cycles == 8


def test_a_snop_across_the_branch_point_is_refused() -> None:
    message = refusal(lambda k: idle_behind_a_branch(k, 6))
    assert "packet 2: SNOP 6: idles across the branch point of 'SBR after' of packet 0" in message
    assert "6 cycles, 5 delay slots are left" in message


def test_a_snop_across_the_branch_point_is_found_at_run_time() -> None:
    # built for a branch of 7 cycles, run where it takes 5: the SNOP of t=2 to t=6 is in its way
    made = program(lambda k: idle_behind_a_branch(k, 5))
    message = Bench(made, machine("latency.branch=5")).failure()
    assert "core 0, cycle 5, packet 2: SNOP 5: a SNOP lies across the branch point" in message


@pytest.mark.parametrize("target", [-1, 4, 9])
def test_a_branch_out_of_the_program(target: int) -> None:
    def body(k: Builder) -> None:
        one(k, "smovi", target, R[9])
        one(k, "sbr", R[9])
        k.idle(6)
        one(k, "halt")

    message = Bench(body).failure()
    assert f"packet 1: SBR R9: branch to packet {target}, outside 0 to 3" in message


def test_running_past_the_last_packet() -> None:
    # a builder always ends a program with HALT: take it away
    made = program(lambda k: count_up(k, 3))
    bench = Bench(evolve(made, packets=made.packets[:3]))
    message = bench.failure()
    assert "core 0, cycle 3, packet 2: SADD" in message
    assert "the program runs past its last packet; end it with HALT" in message


# Predicates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "executes"), [(0, False), (1, True), (-1, True), (2**40, True)])
def test_scalar_predicates(value: int, executes: bool) -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.smovi(1, R[10], when=when_set(R[2]))
            k.smovi(2, R[11], when=unless(R[2]))
            k.vmovi(3, VR[10], when=when_set(R[2]))

    bench = Bench(body)
    bench[R[2]] = value
    bench.run()
    assert (bench[R[10]], bench[R[11]]) == ((1, 0) if executes else (0, 2))
    assert bench[VR[10]] == [3 * executes] * 16


@pytest.mark.parametrize("lane_mask", [0xFFFF, 0x00FF, 0x0000])
def test_lanes_merge_by_predicate_and_lane_mask(lane_mask: int) -> None:
    def body(k: Builder) -> None:
        with k.packet():
            k.vmovi(1, VR[10], when=when_set(VR[1]), slot="VMAC1")
            k.vmovi(2, VR[10], when=unless(VR[1]), slot="VMAC2")
            k.vmovi(3, VR[11], when=unless(VR[1]), slot="VMAC3")
            k.vmovi(4, VR[12], slot="VMAC4")
            k.vstw(VR[5], AR[0] + 0, when=when_set(VR[1]))

    bench = Bench(body)
    bench[VLR] = lane_mask
    bench[VR[1]] = [lane % 3 for lane in LANES]  # set: 1 2 4 5 7 8 10 11 13 14
    bench[VR[5]] = 5
    for index in (10, 11, 12):
        bench[VR[index]] = 9
    bench.place(AM, [9] * 16)
    result = bench.run()
    on = [bool(lane_mask >> lane & 1) for lane in LANES]
    odd = [bool(lane % 3) for lane in LANES]
    assert bench[VR[10]] == [(1 if o else 2) if e else 9 for e, o in zip(on, odd, strict=True)]
    assert bench[VR[11]] == [3 if e and not o else 9 for e, o in zip(on, odd, strict=True)]
    assert bench[VR[12]] == [4 if e else 9 for e in on]
    assert bench.words(AM, 16) == [5 if e and o else 9 for e, o in zip(on, odd, strict=True)]
    # lanes that count as executed on VMAC slots; 0xFFFF: 10 + 6 + 6 + 16; 0x00FF: 5 + 3 + 3 + 8
    assert result.cores[0].vmac_lanes == {0xFFFF: 38, 0x00FF: 19, 0: 0}[lane_mask]


def test_the_lane_mask_is_the_one_at_issue() -> None:
    # lanes 0-7 at t=0, mask set at t=1 lands at t=5: the product of t=0 lands at t=6 in lanes 0-7
    def body(k: Builder) -> None:
        with k.packet():
            k.vfmulas32(VR[1], VR[1], VR[2])
            k.vfmulas32(VR[1], VR[2], VR[3])
        one(k, "smvcgc_vlr", R[4], VLR)
        k.idle(8)

    bench = Bench(body)
    bench[VLR], bench[R[4]] = 0x00FF, 0xFF00
    bench[VR[1]], bench[VR[2]], bench[VR[3]] = [2.0] * 16, [3.0] * 16, [5.0] * 16
    bench.run()
    assert bench.floats(VR[2]) == [7.0] * 8 + [3.0] * 8
    assert bench.floats(VR[3]) == [11.0] * 8 + [5.0] * 8


# Collisions -------------------------------------------------------------------------------------


def product_across_a_branch(k: Builder, target: int, wait: int = 1, slot: str = "VMAC1") -> None:
    """Land a multiply-add of t=6 at t=12, and a product of t=7+wait at t=11+wait."""
    after = k.new_label("after")
    one(k, "sbr", after)
    k.idle(5)
    one(k, "vfmulas32", VR[1], VR[2], VR[9], slot="VMAC1")
    k.place(after)
    k.idle(wait)
    one(k, "vfmuls32", VR[1], VR[2], VR[target], slot=slot)
    k.idle(8)


def test_two_results_in_one_register_across_a_branch() -> None:
    message = Bench(lambda k: product_across_a_branch(k, 9, slot="VMAC2")).failure()
    assert "core 0, cycle 12, packet 5: SNOP 8" in message
    assert "two results land in VR9 in the same cycle: of packet 2 (" in message
    assert "and packet 4 (" in message
    Bench(lambda k: product_across_a_branch(k, 9, wait=2, slot="VMAC2")).run()


def test_two_results_of_one_unit_across_a_branch() -> None:
    message = Bench(lambda k: product_across_a_branch(k, 10)).failure()
    assert "two results land from unit VMAC1 in the same cycle" in message
    Bench(lambda k: product_across_a_branch(k, 10, slot="VMAC2")).run()
    many_ports = machine("issue.one_result_per_unit=false")
    Bench(lambda k: product_across_a_branch(k, 10), many_ports).run()


def test_collisions_on_a_straight_way_are_refused() -> None:
    def body(k: Builder, target: Register, slot: str) -> None:
        one(k, "smulis", R[4], R[5], R[9], slot="SMAC1")  # lands t=3
        k.idle(1)
        one(k, "smovi", 1, target, slot=slot)  # t=2, lands t=3

    message = refusal(lambda k: body(k, R[9], "SIEU"))
    assert "packet 2: SMOVI 1, R9: R9 gets 2 results in one cycle, 1 can land" in message
    message = refusal(lambda k: body(k, R[8], "SMAC1"))
    assert "packet 2: SMOVI.M1 1, R8: SMAC1 gives 2 results in one cycle, it has 1" in message
    program(lambda k: body(k, R[8], "SIEU"))


@pytest.mark.parametrize(("first", "second", "collide"), [(1, 1, True), (1, 0, False)])
def test_collisions_of_predicated_operations(first: int, second: int, collide: bool) -> None:
    # products of t=0 land at t=3 with the moves of t=2; R1 and R2 say which happen
    def body(k: Builder) -> None:
        one(k, "smulis", R[4], R[5], R[9], when=when_set(R[1]))
        k.idle(1)
        one(k, "smovi", 1, R[9], when=when_set(R[2]), slot="SIEU")
        k.idle(2)

    bench = Bench(body)
    bench[R[1]], bench[R[2]], bench[R[4]], bench[R[5]] = first, second, 6, 7
    if collide:
        assert "two results land in R9 in the same cycle" in bench.failure()
    else:
        bench.run()
        assert bench[R[9]] == 42


def opposite(k: Builder) -> None:
    with k.packet():
        k.smovi(1, R[9], when=when_set(R[1]))
        k.smovi(2, R[9], when=unless(R[1]))
        k.vmovi(1, VR[9], when=when_set(VR[1]))
        k.vmovi(2, VR[9], when=unless(VR[1]))
        k.vldw(AR[0] + 0, VR[8], when=when_set(VR[0]))
        k.vldw(AR[0] + 16, VR[8], when=unless(VR[0]))
    k.idle(8)


@pytest.mark.parametrize("value", [0, 1])
def test_opposite_predicates_may_write_one_register(value: int) -> None:
    bench = Bench(opposite)
    bench[R[1]] = value
    bench[VR[0]] = bench[VR[1]] = [lane % 2 for lane in LANES]
    bench.place(AM, range(32))
    bench.run()
    assert bench[R[9]] == (1 if value else 2)
    assert bench[VR[9]] == [2, 1] * 8
    assert bench[VR[8]] == [lane if lane % 2 else 16 + lane for lane in LANES]


def test_opposite_lane_predicates_in_a_timing_only_run() -> None:
    # t=0, SNOP 8, HALT t=9
    assert Bench(opposite, timing_only=True).run().cycles == 10


@pytest.mark.parametrize("third", ["meets the first", "meets none"])
def test_three_results_by_lanes(third: str) -> None:
    # sums of t=0 land at t=3: lanes 0-7 and, not, lanes 8-15; the move of t=2 meets the former
    def body(k: Builder) -> None:
        with k.packet():
            k.vfadds32(VR[4], VR[5], VR[9], when=when_set(VR[0]))
            k.vfadds32(VR[4], VR[5], VR[9], when=unless(VR[0]))
        k.idle(1)
        one(k, "vmovi", 1, VR[9], when=when_set(VR[1]), slot="VIEU")
        k.idle(2)

    bench = Bench(body)
    bench[VLR] = 0x00FF
    bench[VR[0]] = 1
    bench[VR[1]] = [int(third == "meets the first")] * 16
    if third == "meets the first":
        assert "two results land in VR9 in the same cycle" in bench.failure()
    else:
        bench.run()
