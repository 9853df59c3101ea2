"""The scheduler: cycles worked out by hand, and errors at the author's line.

In the hand-worked blocks `t` is the cycle of issue; latencies are those of `ft-m7004` (integer 1,
float add 3, multiply 4, multiply-add 6, broadcast 4, scalar load 6, vector load 8, store 4,
branch 7). Random blocks are in `test_scheduler_property`.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import pytest
from attrs import evolve

import isa.instructions  # noqa: F401  (fills the registry)
from isa.errors import KernelError
from isa.instruction import REGISTRY, Effect
from isa.machine import Machine
from isa.operands import Address, File, Label, Operand, Predicate, Register
from isa.packing.scheduler import schedule
from isa.program import Operation, Origin, Packet

MACHINE = Machine.load("ft-m7004")
R0, R4, R5, R6, R7 = (Register(File.SCALAR, i) for i in (0, 4, 5, 6, 7))
V = [Register(File.VECTOR, i) for i in range(16)]
A = [Register(File.ADDRESS, i) for i in range(16)]
O9 = Register(File.OFFSET, 9)
LANE_MASK = Register(File.LANE_MASK)
TOP = Label("top")


def op(name: str, *operands: Operand, **fields: Any) -> Operation:
    return Operation(REGISTRY[name], operands, **fields)


def packets_of(*operations: Operation, machine: Machine = MACHINE) -> list[Packet]:
    numbered = [evolve(o, origin=Origin("kernel.py", n)) for n, o in enumerate(operations)]
    return schedule(numbered, machine)


def issue(packets: Sequence[Packet]) -> list[int]:
    """Return the cycle of issue of each operation, in program order, and the block's length."""
    at, cycle = {}, 0
    for packet in packets:
        for operation in packet.operations:
            if operation.instruction.effect is not Effect.IDLE:
                at[operation.origin.line] = cycle
        cycle += packet.cycles
    return [at[line] for line in sorted(at)] + [cycle]


def cycles(*operations: Operation) -> list[int]:
    return issue(packets_of(*operations))


def slots(packets: Sequence[Packet]) -> dict[int, str]:
    operations = (o for packet in packets for o in packet.operations)
    return {o.origin.line: o.slot for o in operations if o.instruction.effect is not Effect.IDLE}


def multiply_add(a: int, b: int, acc: int, **fields: Any) -> Operation:
    return op("VFMULAS32", V[a], V[b], V[acc], V[acc], **fields)


def test_an_empty_block_has_no_packets() -> None:
    assert schedule([], MACHINE) == []


def test_a_chain_waits_for_each_latency() -> None:
    # load t=0, result at 6; broadcast at 6, result at 6+4=10; multiply-add at 10, result at
    # 10+6=16, which ends the block
    tail = [op("SVBCAST", R5, V[2]), multiply_add(2, 3, 4)]
    assert cycles(op("SLDW", A[8] + 0, R5), *tail) == [0, 6, 10, 16]
    # SMOVI 0, SADD 1, broadcast 2, multiply-add 6, landed at 12
    assert cycles(op("SMOVI", 3, R4), op("SADD", R4, 1, R5), *tail) == [0, 1, 2, 6, 12]


def test_empty_cycles_become_one_snop() -> None:
    packets = packets_of(op("SLDW", A[8] + 0, R4), op("SVBCAST", R4, V[2]))
    # load 0, cycles 1-5 empty, broadcast 6, cycles 7-9 empty, landed at 10
    assert [[str(o) for o in p.operations] for p in packets] == [
        ["SLDW *AR8, R4"],
        ["SNOP 5"],
        ["SVBCAST.M1 R4, VR2"],
        ["SNOP 3"],
    ]
    assert [p.operations[0].slot for p in packets] == ["SLDST", "SBR", "SMAC1", "SBR"]
    assert [p.operations[0].origin.line for p in packets] == [0, 0, 1, 1]


def test_independent_multiply_adds_share_a_packet_and_a_fifth_waits() -> None:
    # four VMACs: four in cycle 0, the fifth in cycle 1, landed at 1+6=7
    block = [multiply_add(8, 9, acc) for acc in range(5)]
    packets = packets_of(*block)
    assert issue(packets) == [0, 0, 0, 0, 1, 7]
    assert [o.slot for o in packets[0].operations] == ["VMAC1", "VMAC2", "VMAC3", "VMAC4"]
    # within a packet operations stand in slot order
    packets = packets_of(multiply_add(1, 2, 3), op("SLDW", A[8] + 0, R4))
    assert [o.slot for o in packets[0].operations] == ["SLDST", "VMAC1"]


THREE_MOVES = [op("VMOV", V[4 + i], V[5 + i], slot="VIEU") for i in range(3)]


def test_a_multiply_add_and_a_float_add_do_not_leave_one_unit_together() -> None:
    # The multiply-add of t=0 leaves VMAC1 at 6. Three moves keep the add (3) from issuing before
    # t=3, where it would leave at 6 too: on VMAC1 it waits for t=4, free to choose it takes VMAC2.
    first, add = multiply_add(1, 2, 3, slot="VMAC1"), op("VFADDS32", V[7], V[1], V[8])
    block = [first, *THREE_MOVES, evolve(add, slot="VMAC1")]
    assert cycles(*block) == [0, 0, 1, 2, 4, 7]
    packets = packets_of(first, *THREE_MOVES, add)
    assert issue(packets) == [0, 0, 1, 2, 3, 6]
    assert slots(packets)[4] == "VMAC2"


def test_without_the_rule_two_results_may_leave_one_unit_together() -> None:
    machine = Machine.load("ft-m7004", ["issue.one_result_per_unit=false"])
    add = op("VFADDS32", V[7], V[1], V[8], slot="VMAC1")
    block = [multiply_add(1, 2, 3, slot="VMAC1"), *THREE_MOVES, add]
    packets = packets_of(*block, machine=machine)
    assert issue(packets) == [0, 0, 1, 2, 3, 6]


def test_a_scalar_unit_has_one_write_port_too() -> None:
    # SFMULS32 on SMAC1 at 0 leaves at 4; an SFADDS32 (3) on SMAC1 at 1 would leave at 4: t=2
    block = [
        op("SFMULS32", R4, R5, R6, slot="SMAC1"),
        op("SMOVI", 1, R7, slot="SIEU"),
        op("SFADDS32", R7, R4, R5, slot="SMAC1"),
    ]
    assert cycles(*block) == [0, 0, 2, 5]


def test_a_later_fast_write_lands_behind_an_earlier_slow_one() -> None:
    # multiply-add lands at 6; the move (latency 1) of the same register must land at 7: t=6
    assert cycles(multiply_add(1, 2, 3), op("VMOV", V[4], V[3])) == [0, 6, 7]


def test_a_later_slow_write_may_start_with_or_before_an_earlier_fast_one() -> None:
    # VMOV lands one cycle after issue, the load eight after: nothing to wait for
    assert cycles(op("VMOV", V[4], V[3]), op("VLDW", A[0] + 0, V[3])) == [0, 0, 8]
    # the move waits for a multiply-add (t=6, lands at 7); the load must land at 8: t=0
    block = [multiply_add(1, 2, 4), op("VMOV", V[4], V[3]), op("VLDW", A[0] + 0, V[3])]
    assert cycles(*block) == [0, 6, 0, 8]


def test_a_write_may_share_the_packet_of_the_read_before_it() -> None:
    # SADD reads R4 in cycle 0; SMOVI writes R4 in the same cycle, reads of a packet come first
    assert cycles(op("SADD", R4, 1, R5), op("SMOVI", 7, R4)) == [0, 0, 1]
    # the reader waits for its load (6), so the writer of R4 waits with it
    block = [op("SLDW", A[8] + 0, R6), op("SFADDS32", R6, R4, R5), op("SMOVI", 7, R4)]
    assert cycles(*block) == [0, 6, 6, 9]


def test_a_reader_waits_for_a_predicated_write_and_the_write_below_it() -> None:
    # multiply-add lands at 6; the predicated move merges with it and must land at 7: t=6;
    # the store reads at 7 and has landed at 11
    block = [
        multiply_add(1, 2, 3),
        op("VMOV", V[4], V[3], predicate=Predicate(R0)),
        op("VSTW", V[3], A[0] + 0),
    ]
    assert cycles(*block) == [0, 6, 7, 11]


def test_a_predicate_is_read_like_a_source() -> None:
    # SLT writes R0 at 1, so the predicated move issues at 1
    block = [op("SLT", R4, R5, R0), op("SMOV", R4, R6, predicate=Predicate(R0, negated=True))]
    assert cycles(*block) == [0, 1, 2]


def test_a_vector_instruction_waits_for_the_lane_mask() -> None:
    # lane_mask 4: the masked vector move issues at 4, the scalar move at once
    block = [op("SMVCGC_VLR", R4, LANE_MASK), op("VMOV", V[4], V[3]), op("SMOV", R4, R5)]
    assert cycles(*block) == [0, 4, 0, 5]
    # a later change of the mask may issue at 5: it lands at 9, after the VMOV of 8 saw the old one
    chain = [op("VLDW", A[0] + 0, V[4]), op("VMOV", V[4], V[3]), op("SMVCGC_VLR", R4, LANE_MASK)]
    assert cycles(*chain) == [0, 8, 5, 9]


def test_post_increments_of_one_register_follow_each_other_by_a_cycle() -> None:
    # address_update is 1: loads at 0, 1, 2; the last lands at 10
    block = [op("VLDW", A[0].post(16), V[i]) for i in range(3)]
    assert cycles(*block) == [0, 1, 2, 10]
    # two address registers: two loads a cycle
    block = [op("VLDW", A[i % 2].pre(16), V[i]) for i in range(4)]
    assert cycles(*block) == [0, 0, 1, 1, 9]


def test_address_arithmetic_takes_its_own_latency() -> None:
    # SADDA to a vector AR takes 3, to a scalar AR 2
    vector = [op("SADDA", 64, A[0], A[0]), op("VLDW", A[0].post(16), V[1])]
    assert cycles(*vector) == [0, 3, 11]
    scalar = [op("SADDA", 64, A[8], A[8]), op("SLDW", A[8] + 0, R4)]
    assert cycles(*scalar) == [0, 2, 8]


# Memory -----------------------------------------------------------------------------------------


def store(address: Address, buffer: str = "") -> Operation:
    return op("SSTW", R4, address, buffer=buffer)


def load(address: Address, to: Register = R5, buffer: str = "") -> Operation:
    return op("SLDW", address, to, buffer=buffer)


# the one SLDST slot takes one access a cycle, so two accesses in any order issue at 0 and 1
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (store(A[8] + 0), load(A[9] + 0), [0, 4, 10]),  # unknown: the store latency
        (store(A[8] + 0), load(A[8] + 0), [0, 4, 10]),  # the same word
        (store(A[8] + 1), load(A[8] + 0), [1, 0, 6]),  # words apart: the longer way goes first
        (store(A[8] + 0, "x"), load(A[9] + 0, buffer="y"), [1, 0, 6]),  # buffers apart
        (store(A[8] + 0, "x"), load(A[9] + 0, buffer="x"), [0, 4, 10]),
        (store(A[8] + 0, "x"), load(A[9] + 0), [0, 4, 10]),  # an unnamed buffer may be any
        (store(A[8] + 0, "x"), load(A[8] + 0, buffer="y"), [1, 0, 6]),
        (store(A[8].post(1)), load(A[8] + 0), [0, 1, 7]),  # word 0, then word 1
        (store(A[8].post(1)), load(A[8] - 1), [0, 4, 10]),  # word 0 twice
        (store(A[8].pre(1)), load(A[8] + 0), [0, 4, 10]),  # word 1 twice
        (store(A[8].pre(1)), load(A[8] - 1), [0, 1, 7]),  # word 1, then word 0
        (store(A[8] + 0), load(A[8] + O9), [0, 4, 10]),  # an offset in a register may be any
        (store(A[8] + O9), load(A[8] + 0), [0, 4, 10]),
        (load(A[8] + 0, R4), store(A[9] + 0), [0, 6, 10]),  # stores what was loaded
        (load(A[8] + 0, R5), store(A[9] + 0), [0, 1, 6]),  # one slot
        (store(A[8] + 0), store(A[9] + 0), [0, 1, 5]),
        (op("SLDDW", A[8] + 0, R6), store(A[8] + 1), [0, 1, 6]),
        (store(A[8] + 1), op("SLDDW", A[8] + 0, R6), [0, 4, 10]),  # words 0 and 1 hold word 1
        (store(A[8] + 2), op("SLDDW", A[8] + 0, R6), [1, 0, 6]),
        (op("SSTDW", R6, A[8].post(1)), load(A[8] - 2), [0, 4, 10]),  # words 0-1, then word 0
        (op("SSTDW", R6, A[8].post(1)), load(A[8] + 0), [0, 1, 7]),  # words 0-1, then word 2
        (op("VSTW", V[1], A[0] + 0), op("VLDW", A[0] + 15, V[2]), [0, 4, 12]),  # 16 lanes
        (op("VSTW", V[1], A[0] + 0), op("VLDW", A[0] + 16, V[2]), [0, 0, 8]),
        (op("VSTW", V[1], A[0] + 31), op("VLDDW", A[0] + 0, V[2]), [0, 4, 12]),  # 32 words
        (op("VSTW", V[1], A[0] + 32), op("VLDDW", A[0] + 0, V[2]), [0, 0, 8]),
        (op("VSTW", V[1], A[0] + 0), load(A[8] + 0), [0, 0, 6]),  # two memories
    ],
    ids=lambda value: str(value),
)
def test_memory_order(first: Operation, second: Operation, expected: list[int]) -> None:
    assert cycles(first, second) == expected


def test_a_changed_address_register_is_not_compared_with_what_it_was() -> None:
    # AR8 changed by a register between: the load of word 1 may be the stored word 0
    block = [store(A[8] + 0), op("SMVAGA", R6, A[8]), load(A[8] + 1)]
    assert cycles(*block) == [0, 0, 4, 10]
    # a step by a register, and a step that may not happen, are as unknown
    assert cycles(store(A[8].post(O9)), load(A[8] + 1)) == [0, 4, 10]
    skipped = evolve(store(A[8].post(1)), predicate=Predicate(R0))
    assert cycles(skipped, load(A[8] + 0)) == [0, 4, 10]


def test_a_store_leaves_earlier_accesses_to_other_words_in_view() -> None:
    # words 0 and 1 stored at 0 and 1 (one slot); the load of word 0 waits for the first store only
    assert cycles(store(A[8] + 0), store(A[8] + 1), load(A[8] + 0)) == [0, 1, 4, 10]
    # a store over both words of a double word stands for what it covers
    double = op("SSTDW", R6, A[8] + 0)
    assert cycles(store(A[8] + 0), double, load(A[8] + 0)) == [0, 1, 5, 11]


def test_a_copy_through_pointers_overlaps_where_buffers_are_named() -> None:
    # Four copies. Named: loads at 0-3, each store 8 after its load, the last at 11, landed at 15.
    names = {"VLDW": "from", "VSTW": "to"}
    block = [
        o
        for i in range(4)
        for o in (op("VLDW", A[0].post(16), V[i]), op("VSTW", V[i], A[1].post(16)))
    ]
    named = [evolve(o, buffer=names[o.instruction.name]) for o in block]
    assert cycles(*named) == [0, 8, 1, 9, 2, 10, 3, 11, 15]
    # Unnamed, each load waits 4 for the store before it: loads at 0, 12, 24, 36.
    assert cycles(*block) == [0, 8, 12, 20, 24, 32, 36, 44, 48]


def test_a_dma_start_waits_for_the_stored_descriptor() -> None:
    # store t=0, start t=4; the load behind it t=5, lands at 11
    block = [store(A[8] + 0), op("DMASTART", R6, 0), load(A[9] + 0)]
    assert cycles(*block) == [0, 4, 5, 11]
    # also a vector store: the transfer may read AM
    assert cycles(op("VSTW", V[1], A[0] + 0), op("DMASTART", R6, 0)) == [0, 4, 5]
    # a load sampled its word at issue: the transfer may overwrite it from the next cycle on
    assert cycles(load(A[8] + 0), op("DMASTART", R6, 0)) == [0, 1, 6]


def test_synchronisation_stays_in_order() -> None:
    block = [
        op("DMAWAIT", 0),
        load(A[8] + 0),  # reads what the transfer brought
        store(A[9] + 0, "x"),
        op("BARRIER"),
        op("DMASTART", R6, 1),
        op("SMOVI", 5, R7),  # registers only: any time
    ]
    # wait 0, load 1, store 2 (one slot), barrier 3, start 4 after the barrier but 4 after the
    # store: 6
    assert cycles(*block) == [0, 1, 2, 3, 6, 0, 7]


# Branch and halt --------------------------------------------------------------------------------


def test_a_branch_alone_is_followed_by_its_delay_slots() -> None:
    packets = packets_of(op("SBR", TOP))
    assert [str(p.operations[0]) for p in packets] == ["SBR top", "SNOP 6"]


def test_delay_slots_are_filled_with_the_blocks_own_work() -> None:
    # loads at 0-2, the last lands at 10: the branch issues at 10-7=3, though it comes last
    block = [op("VLDW", A[0].post(16), V[i]) for i in range(3)]
    assert cycles(*block, op("SBR", TOP)) == [0, 1, 2, 3, 10]
    # a store in the delay slots must have landed too: SSUB 0, SLT 1, condition read at 2;
    # load 0, store 8, landed at 12: branch at 5
    block = [
        op("VLDW", A[0] + 0, V[1]),
        op("VSTW", V[1], A[1] + 0),
        op("SSUB", R4, 1, R4),
        op("SLT", 0, R4, R0),
        op("SBR", TOP, predicate=Predicate(R0)),
    ]
    assert cycles(*block) == [0, 8, 0, 1, 5, 12]


def test_the_way_to_the_branch_comes_first() -> None:
    # the load of R0 lands at 6; six delay slots: 13
    assert cycles(load(A[8] + 0, R0), op("SBR", TOP, predicate=Predicate(R0))) == [0, 6, 13]
    # five integer operations on three slots: the one that the branch waits for is in cycle 0
    others = [op("SMOVI", i, Register(File.SCALAR, 10 + i)) for i in range(4)]
    condition = op("SADD", R4, 0, R0)
    block = [*others, condition, op("SBR", TOP, predicate=Predicate(R0))]
    assert cycles(*block)[4:] == [0, 1, 8]


def test_halt_stands_alone_when_everything_has_landed() -> None:
    packets = packets_of(op("VSTW", V[1], A[0] + 0), multiply_add(1, 2, 3), op("HALT"))
    # the multiply-add lands at 6
    assert issue(packets) == [0, 0, 6, 7]
    assert [str(o) for o in packets[-1].operations] == ["HALT"]
    assert cycles(op("HALT")) == [0, 1]


# Slots and errors -------------------------------------------------------------------------------


def test_the_authors_slot_is_kept() -> None:
    packets = packets_of(multiply_add(1, 2, 3, slot="VMAC4"), multiply_add(1, 2, 4, slot="VMAC4"))
    assert issue(packets) == [0, 1, 7]
    assert slots(packets)[0] == "VMAC4"


def test_an_operation_with_a_choice_leaves_the_wanted_unit_free() -> None:
    # Four multiply-adds need all VMACs of cycle 0, so the move goes to VIEU although it comes first
    block = [op("VMOV", V[8], V[9]), *(multiply_add(1, 2, acc) for acc in range(3, 7))]
    packets = packets_of(*block)
    assert issue(packets) == [0, 0, 0, 0, 0, 6]
    assert slots(packets)[0] == "VIEU"


NO_LATENCY = evolve(MACHINE, latency={"store": 4, "branch": 7})
NO_SCALAR_INTEGER = evolve(MACHINE, issue=evolve(MACHINE.issue, slots=("SLDST", "SBR", "VMAC1")))


@pytest.mark.parametrize(
    ("block", "machine", "message"),
    [
        ([op("SBR", TOP), op("SMOVI", 1, R4)], MACHINE, "kernel.py:1: .*comes after 'SBR top'"),
        ([op("HALT"), op("SMOVI", 1, R4)], MACHINE, "kernel.py:1: .*comes after 'HALT'"),
        ([op("SMOVI", 1, R4), op("SNOP", 3)], MACHINE, "kernel.py:1: SNOP 3: .*pinned packet"),
        ([op("SLT", R4, R5, R6)], NO_SCALAR_INTEGER, "kernel.py:0: SLT.* needs a slot of SIEU"),
        ([op("SMOVI", 1, R4, slot="VMAC1")], MACHINE, "kernel.py:0: .*slot 'VMAC1'.*choose one of"),
        ([op("VMOV", V[1], V[2], slot="VMAC9")], MACHINE, "kernel.py:0: .*slot 'VMAC9'"),
        ([op("SVBCAST", R4, V[2])], NO_LATENCY, "kernel.py:0: SVBCAST.* has no latency.broadcast"),
    ],
)
def test_errors_name_the_authors_line(
    block: list[Operation], machine: Machine, message: str
) -> None:
    with pytest.raises(KernelError, match=message):
        packets_of(*block, machine=machine)


def test_long_blocks_take_time_in_proportion() -> None:
    # loads through one pointer, stores through another, registers used again and again
    product = [op("VLDW", A[0].post(16), V[4]), multiply_add(4, 5, 6)]
    body = [load(A[8].post(1)), *product, op("VSTW", V[6], A[1].post(16))]
    start = perf_counter()
    schedule(body * 500, MACHINE)
    short = perf_counter() - start
    schedule(body * 5000, MACHINE)
    assert perf_counter() - start < 50 * short, "ten times the operations, quadratic would be 100"
