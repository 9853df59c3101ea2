"""Checked runs: for each rule a program that breaks it, what the message says, and its repair.

A `@rule(words)` function is a kernel; with `broken` it must fail with all the words, else pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isa import Builder, Machine, SimulationError, Tensor, kernel, unless, when_set
from isa.descriptor import Plane, TransferRequest
from isa.operands import File, Register
from isa.program import Buffer
from isa.transfers import Descriptor
from simulator.chip import Chip
from simulator.decode import Write
from simulator.simulate import Run, simulate

Body = Callable[..., None]
WORDS = 128
VECTOR = 64  # bytes of a vector of 16 lanes
SVR = Register(File.EXCHANGE, -1)
VLR = Register(File.LANE_MASK)
X = np.arange(WORDS, dtype=np.float32)
RULES: list[Any] = []


def rule(*words: str, cores: int = 1) -> Callable[[Body], Body]:
    def register(body: Body) -> Body:
        RULES.append(pytest.param(body, words, cores, id=body.__name__))
        return body

    return register


def make(body: Body) -> Any:
    tensor = Tensor((WORDS,))
    return kernel(inputs=lambda p: {"x": tensor}, outputs=lambda p: {"z": tensor})(body)


def run(body: Body, cores: int = 1, **parameters: Any) -> Run:
    return simulate(make(body)(**parameters), {"x": X}, cores=cores, check=True)


@pytest.mark.parametrize(("body", "words", "cores"), RULES)
def test_a_broken_rule_is_named(body: Body, words: tuple[str, ...], cores: int) -> None:
    with pytest.raises(SimulationError) as caught:
        run(body, cores, broken=True)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert message.startswith(f"{__file__}:")
    assert "\n" not in message


@pytest.mark.parametrize(("body", "words", "cores"), RULES)
def test_its_repair_passes(body: Body, words: tuple[str, ...], cores: int) -> None:
    run(body, cores, broken=False)


def vector(index: int) -> Register:
    return Register(File.VECTOR, index)


def scalar(index: int) -> Register:
    return Register(File.SCALAR, index)


def row(buffer: Buffer, words: int = 16, first: int = 0) -> Plane:
    return Plane(buffer.address + 4 * first, 1, words, 4 * words)


def start(k: Builder, source: Plane, target: Plane, channel: int, cores: int = 0) -> None:
    request = TransferRequest(source, target, cores=cores)
    k.start(k.descriptor("move", request), channel)


def filled(k: Builder, words: int = 16, name: str = "tile") -> tuple[Buffer, Register]:
    """Take an AM buffer, store ones to its first words, return it with a pointer to it."""
    tile = k.array_buffer(name, 2 * VECTOR)
    pointer = k.point(k.vector_address(name), tile)
    ones = k.vmovi(1.0)
    for position in range(0, words, 16):
        k.vstw(ones, pointer + position)
    k.flush()
    k.idle(3)
    return tile, pointer


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
        k.smvcgc_vlr(k.constant(0xFFFF), VLR)
    k.vldw(pointer + 0)


@rule("VLDDW", "reads AM at 'pairs' + 4 bytes")
def every_other_word(k: Builder, broken: bool = False) -> None:
    pairs = k.array_buffer("pairs", 2 * VECTOR)
    pointer, ones = k.point(k.vector_address("pairs"), pairs), k.vmovi(1)
    for word in (0,) if broken else range(32):
        k.smvcgc_vlr(k.constant(1), VLR)
        k.vstw(ones, pointer + word)
    k.smvcgc_vlr(k.constant(1 if broken else 0xFFFF), VLR)
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
    tile, _ = filled(k)
    scratch = k.ddr_buffer("scratch", VECTOR)
    if not broken:
        start(k, row(tile), row(scratch), 0)
        k.wait(0)
    start(k, row(scratch), row(tile), 1)
    k.wait(1)


@rule("core 1, cycle", "DMASTART", "reads DDR at 'scratch' + 0 bytes", cores=2)
def source_in_ddr_that_no_core_writes(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    with k.when(k.scoreid()):
        source = k.ddr_buffer("scratch", VECTOR) if broken else k.input("x")
        start(k, row(source), row(tile), 1)
        k.wait(1)
    k.barrier()


# Stores that have not taken effect --------------------------------------------------------------


@rule("VLDW", "reads AM that was stored 1 cycle before", "takes 4 cycles", "this 3 cycles later")
def load_after_store(k: Builder, broken: bool = False) -> None:
    _, pointer = filled(k)
    with k.packet():
        k.vstw(k.machine and vector(8), pointer + 0)
    k.idle(0 if broken else 3)
    with k.packet():
        k.vldw(pointer + 8, vector(9))
