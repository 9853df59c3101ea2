"""`k.pipelined`: what the plain loop does, in the cycles that were worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import micro_programs
import pipelined_bodies
from isa import Builder, when_set
from isa.instruction import Unit
from isa.listing import listing
from isa.operands import Register
from isa.pipelined_loop import PipelinedLoop
from isa.program import Program
from micro_programs import AM, MACHINE, SM, here, machine, program, refusal
from pipelined_bodies import BODIES, MOST

Golden = Callable[[str, str], None]
WORDS = 16384


def written(
    body: Any, steps: int, *, pipelined: bool, on_device: bool, record: Any = MACHINE
) -> tuple[Program, list[Register]]:
    """Return a program with a body in a loop, and the registers that must come out the same."""
    kept: list[Register] = []

    def write(k: Builder) -> None:
        k.begin()
        count = k.constant(steps) if on_device else steps
        if pipelined or count != 0:
            kept.extend(body(k, k.pipelined if pipelined else k.loop, count))
        else:  # k.loop takes no 0
            kept.extend(body(k, k.loop, k.constant(0)))

    return program(write, record), kept


def state(of: Program, kept: list[Register], record: Any = MACHINE) -> tuple[Any, ...]:
    bench = micro_programs.Bench(of, record)
    data = np.random.default_rng(3)
    bench.place(AM, data.standard_normal(WORDS).astype(np.float32).view(np.uint32))
    bench.place(SM, data.standard_normal(1024).astype(np.float32).view(np.uint32))
    bench.run(100_000)
    return [bench[register] for register in kept], bench.words(AM, WORDS), bench.words(SM, 1024)


def result(of: Program) -> PipelinedLoop:
    (found,) = of.pipelined.values()
    return found


@pytest.mark.parametrize("on_device", [True, False], ids=["register", "number"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_registers_and_memories_are_those_of_the_plain_loop(body: Any, on_device: bool) -> None:
    stages = result(written(body, 33, pipelined=True, on_device=on_device)[0]).stages
    for steps in sorted({0, 1, 2, 3, stages - 1, stages, stages + 1, 2 * stages + 1, 33, MOST}):
        plain, kept = written(body, steps, pipelined=False, on_device=on_device)
        fast, same = written(body, steps, pipelined=True, on_device=on_device)
        assert state(fast, same) == state(plain, kept), steps


EXPECTED: dict[str, tuple[Fraction | int, Fraction | int, Fraction | int]] = {
    # cycles a step, bound by slots, bound by chains
    "copy": (1, 1, 1),
    "axpy": (Fraction(3, 2), Fraction(3, 2), 1),
    "dot": (6, 1, 6),  # 2 loads on 2 slots; a multiply-add takes 6
    "dot_of_six": (6, 6, 6),
    "accumulate": (9, Fraction(1, 2), 9),
    "product": (8, 8, 6),
    "smooth": (Fraction(15, 2), 2, Fraction(15, 2)),
    "scattered": (15, 1, 15),  # nobody knows that rows differ: load 8, addition 3, store 4
}


@pytest.mark.parametrize("on_device", [True, False], ids=["register", "number"])
@pytest.mark.parametrize("name", EXPECTED)
def test_the_interval_is_the_one_worked_out_by_hand(name: str, on_device: bool) -> None:
    body = getattr(pipelined_bodies, name)
    found = result(written(body, 33, pipelined=True, on_device=on_device)[0])
    bounds = found.interval, found.resource_bound, found.recurrence_bound
    assert bounds == EXPECTED[name]
    assert found.reason == ""
    assert found.turn_cycles >= MACHINE.latency["branch"]


@pytest.mark.parametrize("name", ["axpy", "product", "counted"])
def test_machine_code_does_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = getattr(pipelined_bodies, name)
    plain, kept = written(body, 33, pipelined=False, on_device=True)
    expected = state(plain, kept)
    monkeypatch.setattr(micro_programs, "COMPILED", True)
    fast, its = written(body, 33, pipelined=True, on_device=True)
    assert state(fast, its) == expected


def test_every_packet_of_the_product_multiplies_on_all_vmacs() -> None:
    of, _ = written(pipelined_bodies.product, 33, pipelined=True, on_device=True)
    packets = [packet for packet in of.packets if packet.origin.loop == "product"]
    assert len(packets) == 8
    for packet in packets:
        slots = {o.slot for o in packet.operations if o.instruction.name == "VFMULAS32"}
        assert slots == set(MACHINE.slots_of(Unit.VMAC))


def test_the_listing_of_a_pipelined_product(golden: Golden) -> None:
    of, _ = written(pipelined_bodies.product, 33, pipelined=True, on_device=True)
    first = of.labels["product"]
    text = listing(of, MACHINE, first=first, last=first + 7)
    lines = text.splitlines()
    width = next(line.index("source") for line in lines if line.startswith("packet"))
    golden("pipelined_product", "\n".join(_cut(line, width) for line in lines))


def _cut(line: str, width: int) -> str:
    """Leave out source lines: they change with every edit of the file."""
    return line if line.startswith(";") else line[:width].rstrip()


def test_a_pipelined_loop_in_a_loop_on_another_machine() -> None:
    record = machine(
        "latency.vector_load=13", "latency.branch=3", "latency.scalar_integer=2",
        "latency.address_update=2", "latency.store=9", "vpu.lanes=8",
    )  # fmt: skip

    def nested(k: Builder, loop: Any, steps: Any) -> list[Register]:
        total, half = k.vmovi(1.0), k.vmovi(0.5)
        x = k.array_buffer("x", 4 * 16 * MOST)
        row = k.vector_address("row")
        with k.loop("outer", 3):
            k.point(row, x)
            with loop("inner", steps):
                value = k.vldw(row + 0)
                k.vfmulas32(half, value, total)
                k.vstw(k.vfadds32(value, half), row.post(8))
        return [total, row]

    for on_device in (True, False):
        for steps in (1, 5, 12, 21):
            plain, kept = written(
                nested, steps, pipelined=False, on_device=on_device, record=record
            )
            fast, _ = written(nested, steps, pipelined=True, on_device=on_device, record=record)
            assert state(fast, kept, record) == state(plain, kept, record)


def test_slots_chosen_by_the_author_are_kept() -> None:
    def body(k: Builder, loop: Any, steps: Any) -> list[Register]:
        total = k.vmovi(0.0)
        x = pipelined_bodies.pointer(k, "x", 16 * MOST)
        with loop("pinned slots", steps):
            k.vfadds32(k.vldw(x.post(16), slot="VLDST2"), total, total, slot="VMAC3")
        return [total, x]

    of, _ = written(body, 20, pipelined=True, on_device=False)
    found = {
        (o.instruction.name, o.slot) for p in of.packets for o in p.operations if o.address
        or o.instruction.name == "VFADDS32"
    }  # fmt: skip
    assert {("VLDW", "VLDST2"), ("VFADDS32", "VMAC3")} == found
    assert result(of).interval == 3


def test_registers_that_are_missing_are_the_reason_for_a_longer_interval() -> None:
    # 60 vectors are taken, and a vector loaded every cycle stays for 19 until it is added.
    def body(k: Builder, loop: Any, steps: Any) -> list[Register]:
        k.vectors("taken", 58)
        x, z = (pipelined_bodies.pointer(k, name, 16 * MOST) for name in "xz")
        with loop("long lives", steps):
            value = k.vldw(x.post(16))
            far = k.vfmuls32(k.vfmuls32(value, value), k.vfmuls32(value, value))
            k.vstw(k.vfadds32(k.vfmuls32(far, far), value), z.post(16))
        return [x, z]

    found = result(written(body, 33, pipelined=True, on_device=False)[0])
    assert found.interval > found.bound
    assert "VR registers are missing" in found.reason


def test_steps_that_never_meet_need_no_order() -> None:
    def promised(k: Builder, loop: Any, steps: Any) -> list[Register]:
        def apart(name: str, count: Any) -> Any:
            (rows,) = (b for b in k.am_pool.buffers if b.name == "rows")
            return k.pipelined(name, count, apart=[rows])

        return pipelined_bodies.scattered(k, apart, steps)

    fast, its = written(promised, 33, pipelined=True, on_device=True)
    plain, kept = written(pipelined_bodies.scattered, 33, pipelined=False, on_device=True)
    assert result(fast).recurrence_bound == 1
    # The pointer of a store is made while `row` has its value, 12 cycles before; there are eight.
    assert 1 < result(fast).interval <= 3
    assert "AR registers are missing" in result(fast).reason
    assert state(fast, its) == state(plain, kept)


def test_an_empty_body_is_no_loop() -> None:
    def body(k: Builder, loop: Any, steps: Any) -> list[Register]:
        with loop("nothing", steps):
            pass
        return []

    assert not written(body, 3, pipelined=True, on_device=True)[0].pipelined


# Refusals ---------------------------------------------------------------------------------------


def inner_loop(k: Builder) -> None:
    with k.pipelined("outer", 3), k.loop("inner", 3):  # here
        pass


def inner_pipelined(k: Builder) -> None:
    with k.pipelined("outer", 3), k.pipelined("inner", 3):  # here
        pass


def condition(k: Builder) -> None:
    with k.pipelined("outer", 3) as left, k.when(left):  # here
        pass


def packet(k: Builder) -> None:
    with k.pipelined("outer", 3), k.packet():  # here
        k.vmovi(1.0)


def wait(k: Builder) -> None:
    with k.pipelined("outer", 3):
        k.wait(0)  # here


def halt(k: Builder) -> None:
    with k.pipelined("outer", 3):
        k.halt()  # here


def label(k: Builder) -> None:
    with k.pipelined("outer", 3):
        k.label("place")  # here


def barrier(k: Builder) -> None:
    with k.pipelined("outer", 3):
        k.barrier()  # here


def idle(k: Builder) -> None:
    with k.pipelined("outer", 3):
        k.idle(3)  # here


@pytest.mark.parametrize(
    "body",
    [inner_loop, inner_pipelined, condition, packet, wait, halt, label, barrier, idle],
    ids=lambda body: body.__name__,
)
def test_what_cannot_overlap_is_refused_at_its_line(body: Any) -> None:
    message = refusal(body)
    assert message.startswith(f"{here(body)}: ")
    assert "cannot be inside pipelined loop 'outer'" in message
    assert "\n" not in message


def loop_predicate(k: Builder) -> None:
    with k.pipelined("outer", 3):
        k.vmovi(1.0, when=when_set(pipelined_bodies.LOOP_PREDICATE))  # here


def test_the_loops_own_predicate_is_refused_in_the_body() -> None:
    assert refusal(loop_predicate).startswith(f"{here(loop_predicate)}: [R0] VMOVI")


@pytest.mark.parametrize("steps", [-1, True, 1.5, "three"])
def test_wrong_steps_are_refused(steps: Any) -> None:
    def body(k: Builder) -> None:
        with k.pipelined("outer", steps):
            pass

    assert "steps must be a whole number of at least 0 or a scalar register" in refusal(body)


def test_an_error_in_the_body_leaves_the_builder_usable() -> None:
    def body(k: Builder) -> None:
        with pytest.raises(ZeroDivisionError), k.pipelined("outer", 3):
            raise ZeroDivisionError
        with k.loop("after", 2):
            k.vmovi(1.0)

    assert not program(body).pipelined
