"""Legality rules: bad programs as data, each with words its message must hold; good ones pass.

Cycles in the comments count from the first packet; latencies are those of `ft-m7004`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from attrs import evolve

import isa.instructions  # noqa: F401  (fills the registry)
from isa.errors import KernelError
from isa.instruction import REGISTRY
from isa.machine import Machine
from isa.operands import Address, File, Label, Predicate, Register
from isa.packing.legality import REPORTED, check, findings
from isa.program import Buffer, Operation, Origin, Packet, Program

MACHINE = Machine.load("ft-m7004")
R = [Register(File.SCALAR, i) for i in range(8)]
V = [Register(File.VECTOR, i) for i in range(16)]
A = [Register(File.ADDRESS, i) for i in range(16)]
TOP = Label("top")
IF, UNLESS = Predicate(R[0]), Predicate(R[0], negated=True)
IF_LANE, UNLESS_LANE = Predicate(V[0]), Predicate(V[0], negated=True)


def op(name: str, *operands: Any, slot: str = "", when: Predicate | None = None) -> Operation:
    """Return an operation in the given slot, by default the first of its first unit."""
    entry = REGISTRY[name]
    return Operation(entry, operands, when, slot or MACHINE.slots_of(entry.units[0])[0])


HALT, SNOP_6, SBR = op("HALT"), op("SNOP", 6), op("SBR", TOP)
ADD = op("VFADDS32", V[1], V[2], V[3])
MOVE_IF = op("SMOV", R[4], R[3], when=IF)
MOVE_UNLESS = op("SMOV", R[5], R[3], slot="SIEU", when=UNLESS)


def program(*packets: Operation | Sequence[Operation], **fields: Any) -> Program:
    """Return a program whose packet n comes from line n, with a label `top` at packet 0."""
    made = []
    for line, given in enumerate(packets):
        origin = Origin("kernel.py", line)
        operations = [given] if isinstance(given, Operation) else given
        made.append(Packet(tuple(evolve(o, origin=origin) for o in operations), origin))
    return Program("sample", tuple(made), fields.pop("labels", {"top": 0}), 1, **fields)


def multiply_add(acc: int, slot: str = "VMAC1", when: Predicate | None = None) -> Operation:
    return op("VFMULAS32", V[1], V[2], V[acc], V[acc], slot=slot, when=when)


def store(address: Address, slot: str = "VLDST1", when: Predicate | None = None) -> Operation:
    return op("VSTW", V[1], address, slot=slot, when=when)


def load(address: Address, slot: str = "VLDST1") -> Operation:
    return op("VLDW", address, V[6 if slot == "VLDST1" else 7], slot=slot)


AM, SM, DDR = MACHINE.am.base, MACHINE.sm.base, MACHINE.ddr.base
WORDS = np.zeros(4, np.uint32)

BAD = {
    "slot that does not exist": (
        program(op("VMOV", V[1], V[2], slot="VMAC5"), HALT),
        "kernel.py:0: packet 0: VMOV.M5 VR1, VR2: slot 'VMAC5' does not exist on ft-m7004",
    ),
    "no slot": (program(evolve(ADD, slot=""), HALT), "VFADDS32 VR1, VR2, VR3: slot '' does not"),
    "slot of another unit": (
        program(op("VMOV", V[1], V[2], slot="SLDST"), HALT),
        "cannot issue in slot SLDST; choose one of VMAC1, VMAC2, VMAC3, VMAC4, VIEU",
    ),
    "two in a slot": (
        program([ADD, multiply_add(4)], HALT),
        "slot VMAC1 holds 2 operations of this packet, 1 fits; move",
    ),
    "too few operands": (program(op("SMOV", R[1]), HALT), "SMOV R1: takes 2 operands, has 1"),
    "wrong kind": (
        program(op("SMOV", V[1], R[2]), HALT),
        "SMOV VR1, R2: operand 'a': must be a scalar register R0-R63, is VR1",
    ),
    "wrong destination": (
        program(op("SVBCAST", R[1], R[2]), HALT),
        "operand 'destination': must be a vector register",
    ),
    "register beyond the file": (
        program(op("SMOV", Register(File.SCALAR, 64), R[2]), HALT),
        "operand 'a': R64 does not exist; the last one is R63",
    ),
    "address register beyond the file": (
        program(op("SLDW", Address(Register(File.ADDRESS, 16)), R[2]), HALT),
        "AR16 does not exist; the last one is AR15",
    ),
    "odd pair": (program(op("VLDDW", A[0] + 0, V[3]), HALT), "even register of a vector pair"),
    "immediate out of range": (
        program(op("SADD", R[1], 32768, R[2]), HALT),
        "immediate from -32768 to 32767, is 32768",
    ),
    "scalar address register for a vector load": (
        program(op("VLDW", A[8] + 0, V[3]), HALT),
        "operand 'address': *AR8: base must be AR0-AR7, is AR8",
    ),
    "offset out of range": (program(load(A[0] + 65536), HALT), "offset 65536 is over 65535"),
    "negative raw offset": (program(load(Address(A[0], offset=-1)), HALT), "offset -1 is below 0"),
    "SNOP of no cycle": (program(op("SNOP", 0), HALT), "a count from 1 to 65535, is 0"),
    "scalar predicate": (
        program(op("SMOV", R[1], R[2], when=Predicate(R[3])), HALT),
        "[R3] SMOV.M1 R1, R2: R3 cannot be a predicate; move the condition to one of R0, R1, R2",
    ),
    "lane predicate": (
        program(op("VMOV", V[1], V[2], when=Predicate(V[2])), HALT),
        "VR2 cannot be a predicate; move the condition to one of R0, R1, R2, VR0, VR1",
    ),
    "address register as predicate": (
        program(op("SMOV", R[1], R[2], when=Predicate(A[0])), HALT),
        "AR0 cannot be a predicate",
    ),
    "lane predicate on a scalar instruction": (
        program(op("SMOV", R[1], R[2], when=IF_LANE), HALT),
        "lane predicate [VR0] on an instruction that neither writes nor stores vector lanes",
    ),
    "predicated SNOP": (program(op("SNOP", 2, when=IF), HALT), "a SNOP cannot be predicated"),
    "multiply-add not in place": (
        program(op("VFMULAS32", V[1], V[2], V[3], V[4]), HALT),
        "adds in place on ft-m7004, but its last source is VR3 and its destination VR4",
    ),
    "SNOP with company": (program([op("SNOP", 2), ADD], HALT), "SNOP 2: shares its packet with 1"),
    "two branches in a packet": (
        program([op("SBR", TOP, when=IF), op("SBR", TOP, when=UNLESS, slot="SIEU")], SNOP_6, HALT),
        "is one of 2 branches in a packet, 1 is allowed",
    ),
    "stores of a packet overlap": (
        # words 0-15 and 8-23
        program([store(A[0] + 0), store(A[0] + 8, "VLDST2")], HALT),
        "stores to 32 bytes that 'VSTW VR1, *AR0' of the same packet",
    ),
    "stores of a packet overlap through an update": (
        # words 8-23 and 0-15: the second accesses AR0 as it is
        program([store(A[0] + 8), store(A[0].post(8), "VLDST2")], HALT),
        "stores to 32 bytes",
    ),
    "two results in a register at once, one packet": (
        program([op("VMOV", V[1], V[3]), op("VMOV", V[2], V[3], slot="VIEU")], HALT),
        "VR3 gets 2 results in one cycle, 1 can land: the other is of packet 0, 'VMOV.M1 VR1, VR3'",
    ),
    "two results at once under unrelated predicates": (
        program(
            [MOVE_IF, evolve(MOVE_UNLESS, predicate=Predicate(R[1], negated=True))],
            HALT,
        ),
        "R3 gets 2 results in one cycle",
    ),
    "two results in a register at once, two packets": (
        # multiply-add 0+6, add 3+3, on different units
        program(
            multiply_add(3), op("SNOP", 2), op("VFADDS32", V[1], V[2], V[3], slot="VMAC2"), HALT
        ),
        "kernel.py:2: packet 2: VFADDS32.M2 VR1, VR2, VR3: VR3 gets 2 results in one cycle",
    ),
    "half of a pair": (
        # load 0+8 to VR5:VR4, multiply-add 2+6 to VR5
        program(op("VLDDW", A[0] + 0, V[4]), op("SNOP", 1), multiply_add(5), HALT),
        "VR5 gets 2 results in one cycle",
    ),
    "two updates of an address register": (
        program([load(A[0].post(16)), load(A[0].post(16), "VLDST2")], HALT),
        "AR0 gets 2 results in one cycle",
    ),
    "an update and a result in an address register": (
        # SADDA 0+3, update 2+1
        program(op("SADDA", 64, A[0], A[0]), op("SNOP", 1), load(A[0].post(16)), HALT),
        "AR0 gets 2 results in one cycle",
    ),
    # lane predicates choose lanes; the address register moves whatever they say
    "updates under opposite lane predicates": (
        program(
            [
                op("VLDW", A[0].post(1), V[4], when=IF_LANE),
                op("VLDW", A[0].post(1), V[5], slot="VLDST2", when=UNLESS_LANE),
            ],
            HALT,
        ),
        "AR0 gets 2 results in one cycle",
    ),
    "write port": (
        # multiply-add 0+6, add 3+3, different registers, one unit
        program(multiply_add(4), op("SNOP", 2), ADD, HALT),
        "VMAC1 gives 2 results in one cycle, it has 1 write port: the other is of packet 0",
    ),
    "write port within delay slots": (
        program(SBR, multiply_add(4), op("SNOP", 2), ADD, op("SNOP", 2), HALT),
        "kernel.py:3: packet 3: VFADDS32.M1 VR1, VR2, VR3: VMAC1 gives 2 results",
    ),
    "unknown label": (
        program(op("SBR", Label("tpo")), SNOP_6, HALT),
        "SBR tpo: unknown label 'tpo'; did you mean top?",
    ),
    "label nowhere": (
        program(SBR, SNOP_6, HALT, labels={"top": -1}),
        "label 'top' is at packet -1, packets go from 0 to 2",
    ),
    "branch in delay slots": (
        program(SBR, op("SNOP", 5), SBR, SNOP_6, HALT),
        "packet 2: SBR top: branches 6 cycles after 'SBR top' of packet 0, which is pending for 7",
    ),
    "SNOP across the branch point": (
        program(op("SBR", TOP, when=IF), ADD, op("SNOP", 6), HALT),
        "idles across the branch point of '[R0] SBR top' of packet 0: it has 6 cycles, 5 delay "
        "slots are left; split it after 5",
    ),
    "no HALT": (
        program(SBR, SNOP_6),
        "program 'sample': has no HALT, at least 1 is needed",
    ),
    "past the end": (
        program(HALT, ADD),
        "kernel.py:1: packet 1: execution can run past this last packet; end with HALT",
    ),
    "past the end after a predicated HALT": (
        program(op("HALT", when=IF)),
        "execution can run past this last packet",
    ),
    "past the end in delay slots": (
        program(HALT, SBR, op("SNOP", 5)),
        "packet 2: execution can run past this last packet; end with HALT, or with an "
        "unpredicated SBR and its 6 delay slots",
    ),
    "past the end behind delay slots": (program(HALT, SBR, SNOP_6, ADD), "packet 3: execution"),
    "nothing at all": (program(), "has no HALT"),
    "cores": (evolve(program(HALT), cores=5), "is for 5 cores, ft-m7004 has 4"),
    "AM buffer": (
        program(HALT, buffers=(Buffer("tile", "AM", AM + 786_432 - 60, 64),)),
        "AM buffer 'tile' (0x400bffc4, 64 bytes) passes AM by 4 bytes, AM holds 786,432",
    ),
    "SM buffer": (
        program(HALT, buffers=(Buffer("table", "SM", SM - 8, 64),)),
        "SM buffer 'table' (0x400ffff8, 64 bytes) passes SM by 8 bytes",
    ),
    "constants": (
        program(HALT, scalar_data=(((SM + 131_072 - 8, WORDS),),)),
        "constant data of core 0 (0x4011fff8, 16 bytes) passes SM by 8 bytes",
    ),
    "DDR buffers overlap": (
        program(HALT, buffers=(Buffer("x", "DDR", DDR, 128), Buffer("z", "DDR", DDR + 96, 64))),
        "DDR buffers 'x' and 'z' share 32 bytes, 0 may be shared",
    ),
    "DDR": (
        program(HALT, ddr_bytes=34_359_738_368 + 64),
        "needs 34,359,738,432 bytes of DDR, 64 more than the 34,359,738,368 of ft-m7004",
    ),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_program_is_refused(bad: Program, message: str) -> None:
    with pytest.raises(KernelError) as refusal:
        check(bad, MACHINE)
    assert message in str(refusal.value)


GOOD = {
    "branch with delay slots": program(op("SMOVI", 3, R[1]), SBR, SNOP_6, HALT),
    "delay slots end the program": program(HALT, op("SBR", R[1]), ADD, op("SNOP", 5)),
    "complementary predicates": program(
        [MOVE_IF, MOVE_UNLESS],
        [
            op("VMOV", V[4], V[3], when=IF_LANE),
            op("VMOV", V[5], V[3], slot="VIEU", when=UNLESS_LANE),
        ],
        HALT,
    ),
    "complementary stores": program(
        [store(A[0] + 0, when=IF_LANE), store(A[0] + 0, "VLDST2", UNLESS_LANE)], HALT
    ),
    "stores side by side": program([store(A[0] + 0), store(A[0] + 16, "VLDST2")], HALT),
    "stores through two registers": program([store(A[0] + 0), store(A[1] + 0, "VLDST2")], HALT),
    "predicated results of two packets are left to the run": program(
        multiply_add(3, when=IF), op("SNOP", 2), ADD, HALT
    ),
    "two results of a unit one cycle apart": program(multiply_add(4), op("SNOP", 3), ADD, HALT),
    "a label begins a new stretch": program(
        multiply_add(3), op("SNOP", 2), ADD, HALT, labels={"top": 2}
    ),
    # the add stands behind the branch point: it issues only where something else branches to
    "a branch ends a stretch": program(
        SBR, op("SNOP", 3), multiply_add(3), op("SNOP", 2), ADD, HALT
    ),
    "a load pair has two ports": program(op("VLDDW", A[0] + 0, V[4]), HALT),
    "updates of two registers": program([load(A[0].post(1)), load(A[1].post(1), "VLDST2")], HALT),
    "a SNOP up to the branch point": program(SBR, op("SNOP", 5), ADD, HALT),
    "a branch behind delay slots": program(SBR, SNOP_6, SBR, SNOP_6, HALT),
    "a predicated branch may be followed": program(
        op("SBR", TOP, when=IF), op("SBR", TOP, when=UNLESS), op("SNOP", 5), op("SNOP", 1), HALT
    ),
    "HALT within delay slots": program(SBR, HALT, op("SNOP", 9), HALT),
    "AM reused by scopes": program(
        HALT, buffers=(Buffer("a", "AM", AM, 64), Buffer("b", "AM", AM, 128))
    ),
    "one DDR buffer read and written": program(HALT, buffers=(Buffer("w", "DDR", DDR, 64),) * 2),
    "whole memories": program(
        HALT,
        buffers=(Buffer("a", "AM", AM, 786_432), Buffer("s", "SM", SM, 131_072)),
        scalar_data=(((SM + 131_072 - 16, WORDS),),),
        ddr_bytes=34_359_738_368,
    ),
}


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD.keys())
def test_a_good_program_has_no_findings(good: Program) -> None:
    assert findings(good, MACHINE) == []
    check(good, MACHINE)


def test_rules_that_a_machine_switches_off_are_not_checked() -> None:
    machine = Machine.load(
        "ft-m7004", ["issue.one_result_per_unit=false", "issue.mac_in_place=false"]
    )
    port, _ = BAD["write port"]
    not_in_place, _ = BAD["multiply-add not in place"]
    assert findings(port, machine) == findings(not_in_place, machine) == []


def test_a_pinned_schedule_is_judged_by_the_machines_latencies() -> None:
    # with a multiply-add of 5 the results of cycles 0 and 3 leave at 5 and 6
    machine = Machine.load("ft-m7004", ["latency.vector_multiply_add_float=5"])
    assert findings(BAD["write port"][0], machine) == []


def test_a_latency_class_that_the_machine_lacks_is_named() -> None:
    machine = evolve(MACHINE, latency={k: v for k, v in MACHINE.latency.items() if k != "shuffle"})
    bad = program(op("VSHUFW", V[1], V[2], V[3]), HALT)
    assert "has no latency.shuffle; add it" in findings(bad, machine)[0].message


def test_findings_say_where_and_which_rule() -> None:
    bad = program(HALT, op("SMOV", V[1], R[2]), HALT)
    (finding,) = findings(bad, MACHINE)
    assert (finding.packet, finding.rule) == (1, "operands")
    assert finding.operation == bad.packets[1].operations[0]


def test_all_findings_come_at_once_in_packet_order() -> None:
    wrong_slot = op("VMOV", V[1], V[2], slot="VMAC5")
    packets = (multiply_add(4), op("SNOP", 2), [ADD, op("SMOV", V[1], R[2])], wrong_slot)
    bad = evolve(program(*packets), cores=9)
    found = findings(bad, MACHINE)
    assert [(f.packet, f.rule) for f in found] == [
        (-1, "cores"),
        (-1, "HALT"),
        (2, "operands"),
        (2, "write ports"),
        (3, "slot"),
        (3, "end"),
    ]
    with pytest.raises(KernelError) as refusal:
        check(bad, MACHINE)
    assert str(refusal.value).splitlines() == [finding.message for finding in found]


def test_a_long_list_is_cut() -> None:
    bad = program(*[op("VMOV", V[1], V[2], slot="VMAC5")] * 50, HALT)
    with pytest.raises(KernelError) as refusal:
        check(bad, MACHINE)
    lines = str(refusal.value).splitlines()
    assert len(lines) == REPORTED + 1
    assert lines[-1] == "... and 30 more"
