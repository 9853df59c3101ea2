"""The builder: device control flow, registers and buffers, DMA, origins.

`t` is the cycle in which a packet issues; a program whose HALT issues at t has taken t + 1 cycles.
"""

from __future__ import annotations

import pytest

from isa import Builder
from isa.descriptor import TransferRequest
from isa.language.tensor import Tensor
from micro_programs import (
    AM,
    DDR,
    EASY,
    MACHINE,
    VR,
    Bench,
    Body,
    R,
    here,
    one,
    program,
    row,
    without_folders,
)


def complete(body: Body) -> Body:
    """Return a body that first does what every kernel begins with."""

    def both(k: Builder) -> None:
        k.begin()
        body(k)

    return both


def run(body: Body, **registers: int) -> Bench:
    bench = Bench(complete(body), EASY)
    for name, value in registers.items():
        bench[R[int(name[1:])]] = value
    bench.run()
    return bench


# Device control flow ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_loop_of_a_known_count(count: int) -> None:
    def body(k: Builder) -> None:
        with k.loop("rows", count) as left:
            k.sadd(R[10], left, R[10])

    bench = Bench(body)
    # SMOVI t=0; a turn: SSUB, SLT and SBR in turn, 7 cycles to its target; HALT
    assert bench.run().cycles == 1 + 9 * count + 1
    assert bench[R[10]] == sum(range(1, count + 1))  # counts down to 1


@pytest.mark.parametrize(("count", "turns"), [(3, 3), (1, 1), (0, 0), (-2, 0), (2**40, None)])
def test_a_loop_of_a_count_in_a_register(count: int, turns: int | None) -> None:
    def body(k: Builder) -> None:
        with k.loop("rows", R[20]):
            k.sadd(1, R[10], R[10])
        k.smovi(5, R[11])

    bench = Bench(body)
    bench[R[20]] = count
    if turns is None:
        assert "still running" in bench.failure()
    else:
        bench.run()
        assert (bench[R[10]], bench[R[11]], bench[R[20]]) == (turns, 5, count)


def test_loops_in_loops_and_conditions() -> None:
    # 3 * (2 inner turns, and 1 more where the outer counter is not zero modulo 2: at 3 and 1)
    def body(k: Builder) -> None:
        with k.loop("rows", 3) as rows:
            with k.loop("columns", 2):
                k.sadd(1, R[10], R[10])
            with k.when(k.sand(rows, 1)):
                k.sadd(1, R[11], R[11])
                with k.loop("more", R[20]):
                    k.sadd(1, R[12], R[12])
            with k.when_zero(k.sand(rows, 1)):
                k.sadd(1, R[13], R[13])

    bench = run(body, R20=4)
    assert [bench[R[index]] for index in (10, 11, 12, 13)] == [6, 2, 8, 1]


@pytest.mark.parametrize("value", [0, 1, -1, 2**35])
def test_conditions(value: int) -> None:
    def body(k: Builder) -> None:
        with k.when(R[20]):
            k.smovi(1, R[10])
        with k.when_zero(R[20]):
            k.smovi(1, R[11])

    bench = run(body, R20=value)
    assert (bench[R[10]], bench[R[11]]) == (int(value != 0), int(value == 0))


def test_a_loop_until_zero() -> None:
    # 40 -> 20 -> 10 -> 5 -> 2 -> 1 -> 0
    def body(k: Builder) -> None:
        with k.until_zero("halve", R[20]):
            k.sadd(1, R[10], R[10])
            k.sshflr(1, R[20], R[20])

    assert run(body, R20=40)[R[10]] == 6
    assert run(body, R20=0)[R[10]] == 1


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 0x8_0000_0040, -(2**40) + 3, 2**63 - 1],
)
def test_constants_of_any_width(value: int) -> None:
    def body(k: Builder) -> None:
        k.constant(value, R[10])

    assert run(body)[R[10]] == value


def test_pinned_and_scheduled_code_mix() -> None:
    # scheduled code waits for the pinned product, the pinned packet for the scheduled sum
    def body(k: Builder) -> None:
        one(k, "smulis", R[4], R[5], R[6])
        k.smulis(R[6], R[6], R[7])
        with k.packet():
            k.sadd(R[7], 1, R[8])

    # t=0, SNOP 2, product t=3, lands t=6, packet t=6, HALT t=7
    bench = Bench(body)
    bench[R[4]], bench[R[5]] = 2, 3
    assert bench.run().cycles == 8
    assert bench[R[8]] == 37


def test_origins_name_line_and_loops() -> None:
    def body(k: Builder) -> None:
        with k.loop("rows", 2), k.loop("columns", 2):
            k.sadd(1, R[10], R[10])  # here

    operations = (o for packet in program(body).packets for o in packet.operations)
    (origin,) = {o.origin for o in operations if o.instruction.name == "SADD"}
    assert (without_folders(str(origin)), origin.loop) == (here(body), "rows/columns")


# Memory and DMA ---------------------------------------------------------------------------------


def test_constants_are_per_core_and_descriptors_can_be_changed() -> None:
    # each core moves 16 words from its own place in DDR; core 1's place is set on the device
    def body(k: Builder) -> None:
        k.begin()
        data = k.ddr_buffer("data", 4096)
        tile = k.array_buffer("tile", 64)
        request = TransferRequest(row(data.address, 16), row(tile.address, 16))
        descriptor = k.descriptor("load", request)
        table = k.constants("table", [5, -1], [6, 2**32 - 2])
        with k.when(k.scoreid()):
            k.set_address(descriptor, "source", k.constant(data.address + 1024))
        k.start(descriptor, k.argument("channel", 3, 9))
        k.sldw(k.word(table, 1), R[10])
        k.wait(k.argument("channel", 3, 9))

    bench = Bench(body, EASY, cores=2)
    bench.place(DDR, range(1024))
    result = bench.run()
    assert bench.words(AM, 16, core=0) == list(range(16))
    assert bench.words(AM, 16, core=1) == list(range(256, 272))
    assert [bench.read(R[10], core) for core in (0, 1)] == [-1, -2]
    assert {t.channels for t in result.transfers} == {((0, 3),), ((1, 9),)}
    assert {(t.source, t.destination) for t in result.transfers} == {("data", "tile")}


def test_pointers_know_their_buffer() -> None:
    def body(k: Builder) -> None:
        first, second = k.array_buffer("first", 64), k.array_buffer("second", 640)
        pointer = k.point(k.vector_address("p"), second, 64)
        k.vldw(pointer + 0, VR[10])
        k.point(pointer, first)
        k.vldw(pointer + 0, VR[11])
        k.smvaga(R[20], pointer)
        k.vldw(pointer + 0, VR[12])

    bench = Bench(body)
    bench[R[20]] = AM + 192
    bench.place(AM, range(100))
    bench.run()
    assert [bench[VR[index]][0] for index in (10, 11, 12)] == [32, 0, 48]
    packets = bench.program.packets
    loads = [o for p in packets for o in p.operations if o.instruction.name == "VLDW"]
    assert [load.buffer for load in loads] == ["second", "first", ""]


def test_tensors_get_buffers_and_an_output_may_be_an_input() -> None:
    tensor = Tensor((3, 5))
    builder = Builder("k", MACHINE, 1, {"x": tensor, "w": tensor}, {"w": tensor, "z": tensor}, {})
    x, w = builder.input("x"), builder.input("w")
    assert (builder.input("x"), builder.output("w")) == (x, w)
    made = builder.finish()
    # 60 bytes each, a buffer every 64
    assert [b.address - DDR for b in (x, w, made.outputs["z"].buffer)] == [0, 64, 128]
    assert made.ddr_bytes == 128 + 60


def test_registers_are_given_back_and_predicates_come_last() -> None:
    k = Builder("k", MACHINE, 1, {}, {}, {})
    with k.scope():
        assert (k.scalar("a"), k.vector("b")) == (R[3], VR[2])
        assert (k.scalar_pair("c"), k.vector_pair("d")) == (R[4], VR[4])
        acc = k.vectors("acc", 2, 3)
        assert [str(r) for r in acc] == ["VR6", "VR7", "VR8", "VR9", "VR10", "VR11"]
        assert (acc[1, 0], acc[4], list(acc[2:4])) == (VR[9], VR[10], [VR[8], VR[9]])
    assert (k.scalar("a"), k.vector("b")) == (R[3], VR[2])
    assert (k.scalar_predicate("p"), k.lane_predicate("q")) == (R[1], VR[0])
    # 64 less R0, R1 and R3: the last one is R2
    assert k.scalars("rest", 61)[60] == R[2]


def test_delay_slots_of_a_pinned_branch_stay_empty_before_scheduled_code() -> None:
    # SBR at cycle 0 goes to the end at 7; the SMOVI behind it is not in its six delay slots
    def body(k: Builder) -> None:
        end = k.new_label("end")
        value = k.scalar("value")
        k.smovi(1, value)
        with k.packet():
            k.sbr(end)
        k.smovi(2, value)
        k.place(end)
        k.smov(value, k.scalar("copy"))

    bench = Bench(body)
    bench.run()
    assert 2 not in bench.chip.cores[0].scalars
