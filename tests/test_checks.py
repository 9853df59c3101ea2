"""Checked runs: reads of what nothing wrote, stores too close to their use, wrong buffers.

Each `@rule(words)` kernel fails, when `broken`, with all the words in the message, else passes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from checked_run import ONES, VECTOR, Body, filled, make, refusal, row, rule, run, start
from isa import Builder, Machine, SimulationError, unless, when_set
from isa.descriptor import FIELDS, TransferRequest
from isa.operands import File, Register
from simulator.chip import Chip
from simulator.reference.decode import Write

SVR = Register(File.EXCHANGE, -1)
VLR = Register(File.LANE_MASK)
RULES: list[Any] = []
rule = partial(rule, RULES)


def vector(index: int) -> Register:
    return Register(File.VECTOR, index)


def scalar(index: int) -> Register:
    return Register(File.SCALAR, index)


# Registers --------------------------------------------------------------------------------------


@rule("VADD", "reads VR2, in which no result has landed yet; write it first")
def vector_register(k: Builder, broken: bool = False) -> None:
    if not broken:
        k.vmovi(1, vector(2))
    k.vadd(vector(2), 1)


@rule("SADD", "reads R9,")
def scalar_register(k: Builder, broken: bool = False) -> None:
    if not broken:
        k.smovi(1, scalar(9))
    k.sadd(scalar(9), 1)


@rule("VLDW", "reads AR3,")
def address_register(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k)
    k.vldw((Register(File.ADDRESS, 3) if broken else pointer) + 0)


@rule("VLDW", "reads OR5,")
def offset_register(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k)
    if not broken:
        k.smvaga(k.constant(0), Register(File.OFFSET, 5))
    k.vldw(pointer + Register(File.OFFSET, 5))


@rule("VMVCCG", "reads SVR1,")
def exchange_register(k: Builder, broken: bool = False) -> None:
    for entry in range(1 if broken else 16):
        k.smvcgc(k.constant(entry), Register(File.EXCHANGE, entry))
    k.vmvccg(SVR)


@rule("VFMULAS32.M2", "reads VR5,")
def accumulator_of_two_macs_in_a_packet(k: Builder, broken: bool = False) -> None:
    for index in (3, 4) if broken else (3, 4, 5):
        k.vmovi(1.0, vector(index))
    k.flush()
    with k.packet():
        k.vfmulas32(vector(3), vector(3), vector(4))
        k.vfmulas32(vector(3), vector(3), vector(5))


@rule("SADD", "reads R5,", "that of packet", "lands 2 cycles later")
def result_in_flight(k: Builder, broken: bool = False) -> None:
    k.smovi(6, scalar(4))
    k.flush()
    with k.packet():
        k.smulis(scalar(4), scalar(4), scalar(5))  # 3 cycles: 2 to go in the next packet
    k.idle(0 if broken else 2)
    with k.packet():
        k.sadd(scalar(5), 1, scalar(4))


@rule("SMOVI", "reads R2,")
def scalar_predicate(k: Builder, broken: bool = False) -> None:
    if not broken:
        k.smovi(0, scalar(2))
    k.smovi(1, when=unless(scalar(2)))


@rule("VMOVI", "reads VR1,")
def lane_predicate(k: Builder, broken: bool = False) -> None:
    if not broken:
        k.vmovi(0, vector(1))
    k.vmovi(1, when=unless(vector(1)))


@rule("core 1,", "SADD", "reads R9,", cores=2)
def register_of_another_core(k: Builder, broken: bool = False) -> None:
    if not broken:
        k.smovi(1, scalar(9))
    with k.when_zero(k.scoreid()):
        k.smovi(1, scalar(9))
    k.sadd(scalar(9), 1)


def test_some_lanes_count_as_written_and_the_lane_mask_starts_full() -> None:
    def body(k: Builder) -> None:
        k.vmovi(0, vector(0))
        k.vmovi(1, vector(8), when=when_set(vector(0)))
        k.vadd(vector(8), 1)

    run(body)


def predicated_step(body: Body) -> tuple[Chip, Any]:
    machine = Machine.load()
    chip = Chip(make(body)().program(machine), machine, check=True)
    (step,) = [s for steps in chip.cores[0].steps for s in steps if s.scalar_predicate >= 0]
    return chip, step


def test_a_step_that_is_predicated_off_reads_its_predicate_only() -> None:
    def body(k: Builder) -> None:
        k.sadd(scalar(9), 1, when=when_set(scalar(1)))

    chip, step = predicated_step(body)
    assert chip.checker is not None
    with pytest.raises(SimulationError, match="reads R1,"):
        chip.checker.issue(chip.cores[0], step)
    chip.checker.landed(chip.cores[0], Write((scalar(1),), 0))
    chip.checker.issue(chip.cores[0], step)
    chip.cores[0].scalars[1] = 1
    with pytest.raises(SimulationError, match="reads R9,"):
        chip.checker.issue(chip.cores[0], step)


# Memory that nothing was written to -------------------------------------------------------------


@rule("VLDW", "reads AM at 'tile' + 64 bytes (0x40000040)", "nothing was stored, placed or")
def array_memory(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k, words=16)
    k.vldw(pointer + (16 if broken else 0))


@rule("VLDW", "reads AM at 'tile' + 64 bytes")
def part_of_a_vector(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k, words=16)
    k.vldw(pointer + (1 if broken else 0))


@rule("VLDW", "reads AM at 'half' + 32 bytes")
def lanes_that_were_masked(k: Builder, broken: bool = False) -> None:
    half = k.array_buffer("half", VECTOR)
    pointer, ones = k.point(k.vector_address("half"), half), k.vmovi(1)
    k.smvcgc_vlr(k.constant(0xFF), VLR)
    k.vstw(ones, pointer + 0)
    if broken:
        k.smvcgc_vlr(k.constant(0x1FF), VLR)
    k.vldw(pointer + 0)


@rule("VLDDW", "reads AM at 'tile' + 64 bytes")
def every_other_word(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k, words=16 if broken else 32)
    k.vlddw(pointer + 0)


@rule("SLDW", "reads SM at 'scratch' + 4 bytes")
def scalar_memory(k: Builder, broken: bool = False) -> None:
    scratch = k.scalar_buffer("scratch", 8)
    k.sstw(k.constant(1), k.word(scratch, 0))
    k.sldw(k.word(scratch, 1 if broken else 0))
    k.sldw(k.word(k.constants("table", [1, 2]), 1))


@rule("core 0's transfer on channel 2 ('tile' to 'z', ", "reads AM at 'tile' + 64 bytes")
def source_in_array_memory(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k, words=16 if broken else 32)
    start(k, row(tile, 32), row(k.output("z"), 32), 2)
    k.wait(2)


@rule("core 0's transfer on channel 1 ('scratch' to 'tile', ", "reads DDR at 'scratch' + 0 bytes")
def source_in_ddr(k: Builder, broken: bool = False) -> None:
    _copy_scratch(k, written=not broken)
    if broken:
        k.flush()
        k.vadd(vector(30), 1)  # wrong too, but later


@rule("core 0, cycle", "DMASTART", "reads DDR at 'scratch' + 0 bytes", cores=2)
def source_in_ddr_that_no_core_writes(k: Builder, broken: bool = False) -> None:
    with k.when_zero(k.scoreid()):
        _copy_scratch(k, written=not broken)


@rule("core 1, cycle", "DMASTART", "reads DDR at 'scratch' + 0 bytes", cores=2)
def source_in_ddr_before_a_barrier(k: Builder, broken: bool = False) -> None:
    with k.when(k.scoreid()):
        _copy_scratch(k, written=not broken)
    k.barrier()
    if broken:
        k.flush()
        k.vadd(vector(30), 1)


def _copy_scratch(k: Builder, written: bool) -> None:
    tile, _ = filled(k)
    scratch = k.ddr_buffer("scratch", VECTOR)
    if written:
        start(k, row(tile), row(scratch), 0)
        k.wait(0)
    start(k, row(scratch), row(tile), 1)
    k.wait(1)


# Stores that have not taken effect --------------------------------------------------------------


@rule("VLDW", "reads AM that was stored 1 cycle before", "takes 4 cycles", "this 3 cycles later")
def load_after_store(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k)
    with k.packet():
        k.vstw(ONES, pointer + 0)
    k.idle(0 if broken else 3)
    with k.packet():
        k.vldw(pointer + 0, vector(9))


@rule("VLDW", "reads AM that was stored 3 cycles before", "this 1 cycle later")
def load_that_overlaps_a_store(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k, words=32)
    with k.packet():
        k.vstw(ONES, pointer + 0)
    k.idle(2)
    with k.packet():
        k.vldw(pointer + (15 if broken else 16), vector(9))


@rule("VLDW", "reads AM that was stored 3 cycles before")
def load_after_two_stores(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k, words=32)
    for position in (0, 16):
        with k.packet():
            k.vstw(ONES, pointer + position)
    k.idle(2)
    with k.packet():
        k.vldw(pointer + (16 if broken else 0), vector(9))


@rule("VLDDW", "reads AM that was stored 2 cycles before")
def load_between_the_words_of_a_store(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k, words=32)
    k.smvcgc_vlr(k.constant(0b1001), VLR)
    k.flush()
    k.idle(4)
    with k.packet():
        k.vstw(ONES, pointer + (3 if broken else 2))  # words 3 and 6, or 2 and 5
    k.idle(1)
    with k.packet():
        k.vlddw(pointer + 0, vector(10))  # words 0, 1 and 6, 7


@rule("SLDW", "reads SM that was stored 1 cycle before")
def scalar_load_after_store(k: Builder, broken: bool = False) -> None:
    table = k.constants("table", [1, 2])
    value = k.constant(7)
    k.flush()
    with k.packet():
        k.sstw(value, k.word(table, 0))
    with k.packet():
        k.sldw(k.word(table, 0 if broken else 1), scalar(9))


@rule("DMASTART", "reads SM that was stored 2 cycles before")
def descriptor_after_store(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    descriptor = k.descriptor("get", TransferRequest(row(k.input("x")), row(tile)))
    address, zero = k.constant(descriptor.buffer.address), k.constant(0)
    k.flush()
    k.idle(1)
    with k.packet():
        k.sstw(zero, k.word(descriptor.buffer, FIELDS.index("reserved")))
    k.idle(1 if broken else 3)
    with k.packet():
        k.dmastart(address, 0)
    k.wait(0)


@rule("'tile' to 'z'", "reads AM that was stored 1 cycle before")
def source_after_store(k: Builder, broken: bool = False) -> None:
    _transfer_after_store(k, broken, out=True)


@rule("'x' to 'tile'", "writes AM that was stored 1 cycle before")
def destination_after_store(k: Builder, broken: bool = False) -> None:
    _transfer_after_store(k, broken, out=False)


def _transfer_after_store(k: Builder, broken: bool, out: bool) -> None:
    tile, pointer = filled(k, words=32)
    ddr = k.output("z") if out else k.input("x")
    request = TransferRequest(row(tile), row(ddr)) if out else TransferRequest(row(ddr), row(tile))
    address = k.constant(k.descriptor("move", request).buffer.address)
    k.flush()
    with k.packet():
        k.vstw(ONES, pointer + (0 if broken else 16))
    with k.packet():
        k.dmastart(address, 0)
    k.wait(0)


# Buffers that the author named ------------------------------------------------------------------


@rule("VLDW", "access outside buffer 'small' by 32 bytes", "reaches from 0x40000020 to 0x4000005f")
def load_past_the_end(k: Builder, broken: bool = False) -> None:
    small = k.array_buffer("small", VECTOR)
    filled(k)
    pointer = k.point(k.vector_address("p"), small)
    k.vstw(ONES, pointer + 0)
    k.vldw(pointer + (8 if broken else 0))


@rule("VSTW", "access outside buffer 'tile' by 4 bytes")
def store_before_the_start(k: Builder, broken: bool = False) -> None:
    k.array_buffer("first", VECTOR)
    _, pointer = filled(k)
    k.vstw(ONES, pointer - (1 if broken else 0))


@rule("SLDW", "access outside buffer 'one' by 4 bytes")
def scalar_load_of_the_neighbour(k: Builder, broken: bool = False) -> None:
    one, two = k.constants("one", [1]), k.constants("two", [2])
    k.sldw(k.word(two, 0), buffer="two")
    k.sldw(k.word(one, 1 if broken else 0), buffer="one")


# The rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "words", "cores"), RULES)
def test_a_broken_rule_is_named(body: Body, words: tuple[str, ...], cores: int) -> None:
    message = refusal(body, cores, broken=True)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(("body", "words", "cores"), RULES)
def test_its_repair_passes(body: Body, words: tuple[str, ...], cores: int) -> None:
    run(body, cores, broken=False)
