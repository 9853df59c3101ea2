"""Dependences from turn to turn, bounds and places in a pipeline, worked out by hand.

Latencies of ft-m7004: vector load 8, addition 3, multiply-add 6, pointer update 1, store 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from attrs import evolve

import isa.instructions  # noqa: F401  (fills the registry)
from isa.instruction import REGISTRY
from isa.operands import Address, Operand, Predicate
from isa.packing.slot_choices import SlotChoices
from isa.pipelining.bounds import recurrence_bound, resource_bound
from isa.pipelining.expansion import Lifetime, Shortage, assign, copies
from isa.pipelining.graph import Edge, edges
from isa.pipelining.modulo import Placing
from isa.pipelining.pointers import find_pointers, shifted
from isa.pipelining.webs import NO_WEBS, Web, Webs, find_webs
from isa.program import Operation
from micro_programs import AR, MACHINE, OR, VLR, VR, R


def op(name: str, *operands: Operand, when: Predicate | None = None, buffer: str = "") -> Operation:
    return Operation(REGISTRY[name], operands, when, "", buffer)


def graph(body: Sequence[Operation], webs: Webs = NO_WEBS) -> set[Edge]:
    return set(edges(body, MACHINE, webs, find_pointers(body)))


def between(first: int, second: int, found: set[Edge]) -> set[tuple[int, int]]:
    """Return (cycles, turns) of the edges from one operation to another."""
    return {edge[2:] for edge in found if edge[:2] == (first, second)}


# Registers --------------------------------------------------------------------------------------


def test_a_sum_follows_that_of_the_turn_before() -> None:
    found = graph([op("VFADDS32", VR[1], VR[0], VR[0])])
    assert found == {(0, 0, 3, 1)}


def test_a_value_is_overwritten_when_it_has_been_read() -> None:
    # The load may issue 7 cycles before the last reader of the old value: it lands one cycle later.
    body = [op("VLDW", AR[0].post(16), VR[1]), op("VFADDS32", VR[1], VR[2], VR[2])]
    found = graph(body)
    assert between(0, 1, found) == {(8, 0)}
    assert between(1, 0, found) == {(-7, 1)}
    assert between(0, 0, found) == {(1, 1)}  # the pointer moves; landings stay in order


def test_a_value_with_registers_of_its_own_holds_nobody_up() -> None:
    body = [op("VLDW", AR[0].post(16), VR[1]), op("VFADDS32", VR[1], VR[2], VR[2])]
    webs = find_webs(body, {VR[1]})
    assert webs.webs == (Web((VR[1],)),)
    assert between(1, 0, graph(body, webs)) == set()


def test_one_register_for_two_values_has_two_webs() -> None:
    body = [
        op("VLDW", AR[0] + 0, VR[1]), op("VSTW", VR[1], AR[1] + 0),
        op("VLDW", AR[0] + 16, VR[1]), op("VSTW", VR[1], AR[1] + 16),
    ]  # fmt: skip
    assert find_webs(body, {VR[1]}).at == {(p, VR[1]): p // 2 for p in range(4)}


@pytest.mark.parametrize(
    "body",
    [
        # read before it is written; written only where a predicate says so; seen across lanes
        [op("VADD", VR[1], 1, VR[2]), op("VADD", VR[2], 1, VR[1])],
        [op("VADD", VR[2], 1, VR[1], when=Predicate(R[1])), op("VSTW", VR[1], AR[0] + 0)],
        [op("VMOVI", 1, VR[1]), op("VFSUMS32", VR[1], VR[3])],
        # half of a pair is never written; the lane mask changes
        [op("VMOVI", 1, VR[1]), op("VSTDW", VR[0], AR[0] + 0)],
        [op("VMOVI", 1, VR[1]), op("SMVCGC_VLR", R[1], VLR)],
    ],
)
def test_what_must_stay_in_its_register(body: Sequence[Operation]) -> None:
    assert (0, VR[1]) not in find_webs(body, {VR[0], VR[1]}).at


# Memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "step", "met"),
    [
        # the store lies `offset` words behind the load's place, which moves by `step` a turn
        (0, 16, {(0, 0)}),  # the load comes first: the store may share its packet
        (32, 16, set()),  # a load meets nothing that is stored ahead of it
        (-32, 16, {(0, 2)}),  # two turns later the store comes to where the load was
        (-24, 16, {(0, 1)}),  # overlapping by half a vector after one turn
        (-32, 0, set()),
        (0, 0, {(0, 0)}),
    ],
)
def test_a_store_waits_for_the_load_it_meets(
    offset: int, step: int, met: set[tuple[int, int]]
) -> None:
    body = [
        op("VLDW", AR[0] + 0, VR[1], buffer="x"),
        op("VSTW", VR[2], AR[0] + offset, buffer="x"),
        op("VLDW", AR[0].post(step), VR[3], buffer="y"),
    ]
    assert between(0, 1, graph(body)) == met


def test_a_load_waits_for_the_store_of_turns_before() -> None:
    body = [
        op("VSTW", VR[1], AR[0] + 48),
        op("VLDW", AR[0].post(16), VR[2]),
    ]
    assert between(0, 1, graph(body)) == {(4, 3)}


@pytest.mark.parametrize(
    "load",
    [
        op("VLDW", AR[0].post(OR[0]), VR[2]),
        op("VLDW", AR[0].post(16), VR[2], when=Predicate(R[1])),
        op("VLDW", AR[1].post(16), VR[2]),
    ],
    ids=["by a register", "sometimes", "another pointer"],
)
def test_unknown_ways_meet_in_every_turn(load: Operation) -> None:
    body = [op("VSTW", VR[1], AR[0] + 48), load]
    assert {turns for _, turns in between(1, 0, graph(body))} == {1}


def test_an_access_beside_a_pointer_does_not_wait_for_its_moves() -> None:
    body = [op("VLDW", AR[0].post(16), VR[1]), op("VSTW", VR[2], AR[0] + 32, buffer="z")]
    assert find_pointers(body).free == {1: 64}
    found = graph([evolve(body[0], buffer="x"), body[1]])
    assert between(0, 1, found) == between(1, 0, found) == set()
    assert str(shifted(body[1], -64 * 3)) == "VSTW VR2, *-AR0[16]"


# Bounds -----------------------------------------------------------------------------------------


def test_the_bound_by_slots_is_that_of_the_scarcest() -> None:
    choices = [op("SLT", R[1], R[2], R[3])] * 3 + [op("SADD", R[1], R[2], R[4])] * 4
    bound = resource_bound(choices, SlotChoices(choices, MACHINE))
    assert bound.cycles == 3  # SLT has only SIEU; all 7 have three slots, 7 / 3
    assert bound.cause == "3 operations on SIEU"


def test_the_bound_by_chains_is_the_longest_a_turn() -> None:
    body = [
        op("VFMULAS32", VR[1], VR[2], VR[0], VR[0]), op("VFADDS32", VR[0], VR[3], VR[2]),
    ]  # fmt: skip
    bound = recurrence_bound(body, list(graph(body)))
    assert bound.cycles == Fraction(9)  # 6 to the addition, 3 back to the multiply-add
    assert bound.cause == "VFMULAS32 -6-> VFADDS32 -3-> VFMULAS32 of the next turn"


# Places and registers ---------------------------------------------------------------------------


def test_one_result_a_cycle_and_slot() -> None:
    # On VMAC1 alone an addition lands after 3 cycles, a product after 4. Two cycles have room for
    # both to issue, but they would land together.
    body = [op("VFADDS32", VR[1], VR[2], VR[3]), op("VFMULS32", VR[1], VR[2], VR[4])]
    body = [Operation(o.instruction, o.operands, slot="VMAC1") for o in body]
    placing = Placing(body, MACHINE, list(graph(body)))
    assert placing.place(2) is None
    assert placing.place(3) is not None


def test_values_that_follow_each_other_share_a_register() -> None:
    webs = Webs((Web((VR[1],)), Web((VR[2],))), {})
    lives = [Lifetime(0, 8, 10), Lifetime(1, 11, 15)]  # 3 and 5 of 8 cycles
    assert copies(lives, 8) == 1
    assert assign(webs, lives, 8, 1, {}) == {(0, 0): (VR[1],), (1, 0): (VR[2],)}
    same = Webs((Web((VR[1],)), Web((VR[1],))), {})
    assert assign(same, lives, 8, 1, {}) == {(0, 0): (VR[1],), (1, 0): (VR[1],)}
    assert assign(same, [lives[0], Lifetime(1, 10, 15)], 8, 1, {}) == Shortage(VR[1].file, 1)


def test_a_long_life_takes_turns_in_several_registers() -> None:
    webs = Webs((Web((VR[1],)),), {})
    lives = [Lifetime(0, 8, 16)]  # 9 cycles of 4
    assert copies(lives, 4) == 3
    names = assign(webs, lives, 4, 3, {VR[1].file: [5, 7, 9]})
    assert names == {(0, 0): (VR[1],), (0, 1): (VR[5],), (0, 2): (VR[7],)}


def test_addresses_are_written_as_offsets() -> None:
    assert shifted(op("VLDW", AR[0] - 16, VR[1]), 128).address == Address(AR[0], offset=16)
