"""Mistakes in kernels: every one is named at the author's line.

Bodies marked with `@refused(...)` are programs with one mistake, in the line marked `# here`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from isa import Builder, KernelError, when_set
from isa.descriptor import Plane, TransferRequest
from isa.language.tensor import Tensor
from isa.operands import Label
from micro_programs import (
    AM,
    AR,
    DDR,
    MACHINE,
    OR,
    SVR,
    VLR,
    VR,
    Body,
    R,
    here,
    program,
    refusal,
    row,
    without_folders,
)

REFUSED: list[Any] = []


def refused(*words: str) -> Callable[[Body], Body]:
    """Add a body to the programs that must be refused with these words."""

    def register(body: Body) -> Body:
        REFUSED.append(pytest.param(body, words, id=body.__name__))
        return body

    return register


OPERANDS: list[tuple[str, tuple[Any, ...], str]] = [
    ("sadd", (VR[1], 1), "SADD: a must be a scalar register or an immediate from -32768 to 32767, "
                         "got VR1"),
    ("sadd", (1, 32768), "SADD: b must be a scalar register or an immediate"),
    ("sadd", (1, True), "got True"),
    ("sadd", (1, 1.5), "got 1.5"),
    ("sadd", (1,), "SADD takes a, b and optionally a destination; got 1"),
    ("sadd", (1, 2, R[3], R[4]), "SADD takes a, b and optionally a destination; got 4"),
    ("sadd", (1, 2, VR[3]), "SADD: destination must be a scalar register R0-R63, got VR3"),
    ("smovi", (2**32,), "SMOVI: value must be a 32-bit immediate, a float or a label"),
    ("vadd", (R[1], VR[2]), "VADD: a must be a vector register or an immediate"),
    ("vfmulas32", (VR[1], R[2], VR[3]), "VFMULAS32: b must be a vector register VR0-VR63, got R2"),
    ("sldw", (AR[0] + 0,), "SLDW: address must be a scalar address such as *AR8++[1], got *AR0 "
                           "(base must be AR8-AR15, is AR0)"),
    ("vldw", (AR[8].post(16),), "got *AR8++[16] (base must be AR0-AR7, is AR8)"),
    ("vldw", (AR[0] + OR[8],), "(offset must be OR0-OR7)"),
    ("sldw", (AR[8] + OR[7],), "(offset must be OR8-OR15)"),
    ("vldw", (AR[0] + 65536,), "(offset 65536 is over 65535)"),
    ("vldw", (AR[0],), "VLDW: address must be a vector address such as *AR0++[16], got AR0"),
    ("vlddw", (AR[0] + 0, VR[5]), "must be the even register of a vector pair, got VR5"),
    ("sstdw", (R[5], AR[8] + 0), "pair must be the even register of a scalar pair, got R5"),
    ("smvaga", (R[5],), "SMVAGA needs its destination: an address or offset register"),
    ("smvcgc_vlr", (R[5], VR[0]), "destination must be the lane mask register VLR"),
    ("vmvcgc", (VR[5], VLR), "destination must be the whole exchange register SVR"),
    ("smvccg", (SVR,), "a must be an exchange entry SVR0-SVR15, got SVR"),
    ("sbr", (7,), "SBR: target must be a label or a scalar register, got 7"),
    ("snop", (0,), "SNOP: cycles must be a count from 1 to 65535, got 0"),
    ("snop", (3,), "SNOP belongs to pinned code; scheduled code waits by itself"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "operands", "words"), OPERANDS)
def test_a_wrong_operand(name: str, operands: tuple[Any, ...], words: str) -> None:
    def body(k: Builder) -> None:
        getattr(k, name)(*operands)  # here

    check_refusal(body, words)


def test_an_unknown_word_brings_its_neighbours() -> None:
    with pytest.raises(AttributeError, match=r"instruction 'vfmula32'; did you mean .*vfmulas32"):
        program(lambda k: k.vfmula32(VR[1], VR[2], VR[3]))


@refused("SADD: when must be a predicate such as when_set(R0) or unless(R0), got R1")
def register_for_predicate(k: Builder) -> None:
    k.sadd(1, R[4], R[5], when=R[1])  # here


@refused("R5 cannot be a predicate; move the condition to one of R0, R1, R2, VR0, VR1")
def predicate_in_another_register(k: Builder) -> None:
    k.sadd(1, R[4], R[5], when=when_set(R[5]))  # here


@refused("slot 'VMAC9' does not exist on ft-m7004; choose one of SLDST, ")
def slot_that_is_not_there(k: Builder) -> None:
    with k.packet():
        k.vmovi(1, VR[4], slot="VMAC9")  # here


@refused("SFADDS32 finds no free slot in this packet: SMAC1, SMAC2 are taken")
def three_for_two_slots(k: Builder) -> None:
    with k.packet():  # here
        for index in (4, 5, 6):
            k.sfadds32(R[4], R[5], R[index])


@refused("a packet inside a packet")
def nested_packets(k: Builder) -> None:
    with k.packet(), k.packet():  # here
        k.smovi(1, R[4])


@refused("label 'top' is placed twice")
def label_placed_twice(k: Builder) -> None:
    top = k.label("top")
    k.smovi(1, R[4])
    k.place(top)  # here


@refused("SBR after: label 'after' is at packet -1, packets go from 0 to 2")
def label_never_placed(k: Builder) -> None:
    k.sbr(k.new_label("after"))  # here


@refused("unknown label 'tap'; did you mean top?")
def unknown_label(k: Builder) -> None:
    k.label("top")
    k.sbr(Label("tap"), when=when_set(R[0]))  # here


@refused("loop 'rows' needs a count of at least 1, got 0")
def loop_of_no_turns(k: Builder) -> None:
    with k.loop("rows", 0):  # here
        k.smovi(1, R[4])


@refused("'rows' needs 8 VR registers and 64 exist; held by acc (60); leave a scope or reuse some")
def too_many_registers(k: Builder) -> None:
    k.vectors("acc", 4, 15)
    k.vectors("rows", 8)  # here


@refused("'third' needs 1 R registers and 2 exist; held by first (1), second (1)")
def too_many_predicates(k: Builder) -> None:
    k.scalar_predicate("first")
    k.scalar_predicate("second")
    k.scalar_predicate("third")  # here


@refused("'last' needs 2 VR registers", "rest (1)", "pair (62)")
def too_many_pairs(k: Builder) -> None:
    k.vectors("rest", 1)
    for _ in range(30):
        k.vector_pair("pair")
    k.vector("pair"), k.vector("pair")
    k.vector_pair("last")  # here


# 'image' takes 700,000 bytes, up to the next multiple of 64: 700,032
@refused("AM buffer 'tile' of 100,000 bytes does not fit: 13,600 bytes too many for 786,432; held "
         "by image (700,000); use smaller tiles")  # fmt: skip
def too_much_array_memory(k: Builder) -> None:
    with k.scope():
        k.array_buffer("gone", 700_000)
    k.array_buffer("image", 700_000)
    k.array_buffer("tile", 100_000)  # here


# constants keep clear of what was ever in use below: 131,072 - 131,008 = 64 bytes for 400
@refused("SM buffer 'table' of 400 bytes does not fit: 384 bytes too many for 131,072")
def too_much_scalar_memory(k: Builder) -> None:
    with k.scope():
        k.scalar_buffer("rows", 131_008)
    k.constants("table", [1] * 100)  # here


@refused("DDR buffer 'huge' of 34,359,738,372 bytes does not fit: 4 bytes too many")
def too_much_ddr(k: Builder) -> None:
    k.ddr_buffer("huge", 2**35 + 4)  # here


@refused("AM buffer 'tile' needs at least 1 byte, not 0")
def buffer_of_nothing(k: Builder) -> None:
    k.array_buffer("tile", 0)  # here


@refused("constants 'table': 3 lists for 2 cores")
def constants_for_other_cores(k: Builder) -> None:
    k.constants("table", [1], [2], [3])  # here


@refused("constants 'table': the lists of the cores have 1, 2 words; give all the same number")
def constants_of_two_lengths(k: Builder) -> None:
    k.constants("table", [1], [2, 3])  # here


@refused("constants 'table': 1.5 is not a whole number of 32 bits")
def constant_with_a_fraction(k: Builder) -> None:
    k.constants("table", [1, 1.5])  # type: ignore[list-item]  # here


@refused("constants 'table': 4294967296 is not a whole number of 32 bits")
def constant_of_33_bits(k: Builder) -> None:
    k.constants("table", [2**32])  # here


@refused("unknown descriptor field 'source_rose'; did you mean source_rows")
def unknown_field(k: Builder) -> None:
    descriptor = k.descriptor("load", TransferRequest(row(DDR, 1), Plane(AM, 1, 1, 4)))
    k.set_field(descriptor, "source_rose", R[4])  # here


@refused("kernel 'micro' declares no input 'y'; it has x")
def unknown_input(k: Builder) -> None:
    k.input("y")  # here


@refused("kernel 'micro' declares no output 'x'; it has none")
def unknown_output(k: Builder) -> None:
    k.output("x")  # here


def check_refusal(body: Body, *words: str) -> None:
    message = refusal(body, cores=2, inputs={"x": Tensor((4,))})
    assert message.startswith(here(body) + ": ")
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(("body", "words"), REFUSED)
def test_a_mistake_is_named_at_its_line(body: Body, words: tuple[str, ...]) -> None:
    check_refusal(body, *words)


def test_an_endless_python_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(k: Builder) -> None:
        while True:
            one_more(k)

    def one_more(k: Builder) -> None:
        with k.packet():  # here
            k.smovi(1, R[4])

    monkeypatch.setattr("isa.language.emitter.MAX_PACKETS", 10)
    with pytest.raises(KernelError) as caught:
        program(body)
    words = "the program passes 10 packets; use a device loop (k.loop) instead of unrolling"
    assert f"{here(one_more)}: {words}" in without_folders(str(caught.value))


@pytest.mark.parametrize("key", [(0, 1, 2), (2, 0), (0, -1), 6, -7])
def test_a_register_outside_its_block(key: Any) -> None:
    block = Builder("k", MACHINE, 1, {}, {}, {}).vectors("acc", 2, 3)
    assert (block[1, 2], block[5], block[-1]) == (VR[7], VR[7], VR[7])
    with pytest.raises(KernelError, match=r"registers 'acc' of shape \(2, 3\) have no \["):
        block[key]
