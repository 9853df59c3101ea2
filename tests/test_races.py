"""The race rule: programs that break it with their repairs, and a slow, plain rule beside it.

Each `@rule(words)` kernel fails, when `broken`, with all the words in the message, else passes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import checked_run
from checked_run import ONES, VECTOR, WORDS, Body, X, filled, refusal, row, run, start
from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.language.transfers import Descriptor
from isa.program import Origin, Program
from simulator.checking.footprint import Footprint
from simulator.checking.races import Races, Started
from simulator.checking.shadow import MemoryShadow
from simulator.dma import CheckedTransfer
from simulator.memory import Memory
from simulator.simulate import simulate

RULES: list[Any] = []
rule = partial(checked_run.rule, RULES)


# One core ---------------------------------------------------------------------------------------


@rule(
    "race: reads AM at 'tile' + 64 bytes (0x40000040) while core 0's transfer on channel 3 ('x' ",
    "'x' to 'tile', started by packet ",
    "checked_run.py:",
    "writes it; wait for channel 3 first",
)
def load_of_a_destination(k: Builder, broken: bool = False) -> None:
    tile, pointer = filled(k, words=32)
    start(k, row(k.input("x")), row(tile, first=16), 3)
    if not broken:
        k.wait(3)
    k.vldw(pointer + 16)
    if broken:
        k.wait(3)


@rule("race: VLDW *AR0, VR60 (", "reads AM at 'tile' + 0 bytes", "wait for channel 3 first")
def load_beside_the_wait(k: Builder, broken: bool = False) -> None:
    tile, pointer = filled(k)
    start(k, row(k.input("x")), row(tile), 3)
    k.flush()
    with k.packet():
        k.dmawait(3)
        if broken:
            k.vldw(pointer + 0, ONES)
    k.vldw(pointer + 0)


@rule("race: reads AM at 'tile' + 28 bytes", "('x' to 'tile', ", "wait for channel 0 first")
def load_beside_columns_that_arrive(k: Builder, broken: bool = False) -> None:
    tile, pointer = filled(k, words=32)
    start(k, row(k.input("x")), Plane(tile.address, 2, 8, 96), 0)  # words 0-7 and 24-31
    k.vldw(pointer + (7 if broken else 8))
    k.wait(0)


@rule(
    "race: VSTW",
    "writes AM at 'tile' + 32 bytes",
    "('tile' to 'z', ",
    "reads it; wait for channel 1",
)
def store_to_a_source(k: Builder, broken: bool = False) -> None:
    tile, pointer = filled(k, words=32)
    start(k, row(tile), row(k.output("z")), 1)
    k.vldw(pointer + 0)  # both only read
    k.vstw(ONES, pointer + (8 if broken else 16))
    k.wait(1)


@rule("race: writes SM at 'row' + 4 bytes", "('x' to 'row', ", "writes it; wait for channel 0")
def scalar_store_to_a_destination(k: Builder, broken: bool = False) -> None:
    words = k.scalar_buffer("row", VECTOR)
    start(k, row(k.input("x"), 2), row(words, 2), 0)
    k.sstw(k.constant(1), k.word(words, 1 if broken else 2))
    k.wait(0)


@rule(
    "race: core 0's transfer on channel 1 ('x' to 'tile', ",
    "writes AM at 'tile' + 60 bytes",
    "while core 0's transfer on channel 0 ('tile' to 'z', ",
    "reads it; wait for channel 0 before this start",
)
def transfer_into_a_source(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    start(k, row(tile), row(k.output("z")), 0)
    start(k, row(k.input("x")), row(tile, first=15 if broken else 16), 1)
    k.wait(0)
    k.wait(1)


@rule("race: ", "writes DDR at 'z' + 4 bytes", "channel 0 ('tile' to 'z', ", "writes it; wait for")
def two_blocks_of_columns(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    z = k.output("z")
    start(k, row(tile), Plane(z.address, 4, 4, 32), 0)  # words 0-3, 8-11, 16-19, 24-27
    start(k, row(tile), Plane(z.address + (4 if broken else 16), 4, 4, 32), 1)
    k.wait(0)
    k.wait(1)


@rule("halts without a wait for core 0's transfer on channel 5 ('x' to 'tile', ")
def transfer_left_alone(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    start(k, row(k.input("x")), row(tile), 5)
    if not broken:
        k.wait(5)


# Several cores ----------------------------------------------------------------------------------


def hand_over(k: Builder, writer: int, waits: bool, barrier: bool) -> None:
    """One core writes scratch, the other copies it to z."""
    tile, _ = filled(k)
    scratch, core = k.ddr_buffer("scratch", VECTOR), k.scoreid()
    writing, reading = (k.when, k.when_zero) if writer else (k.when_zero, k.when)
    with writing(core):
        start(k, row(tile), row(scratch), 0)
        if waits:
            k.wait(0)
    if barrier:
        k.barrier()
    with reading(core):
        back = k.array_buffer("back", VECTOR)
        start(k, row(scratch), row(back), 1)
        k.wait(1)
    if not waits:
        with writing(core):
            k.wait(0)


@rule(
    "race: core 1's transfer on channel 1 ('scratch' to 'back', ",
    "reads DDR at 'scratch' + 0 bytes",
    "core 0's transfer on channel 0 ('tile' to 'scratch', ",
    "writes it, with no order between them",
    "(core 0: channel 0, or core 1: channel 1) wait for its transfer, then all cores pass a",
    cores=2,
)
def read_without_a_barrier(k: Builder, broken: bool = False) -> None:
    hand_over(k, writer=0, waits=True, barrier=not broken)


@rule("race: core 1's transfer on channel 0", "core 0's transfer on channel 1", cores=2)
def read_before_the_writer_even_starts(k: Builder, broken: bool = False) -> None:
    hand_over(k, writer=1, waits=True, barrier=not broken)


@rule("race: core 1's transfer on channel 1", "core 0's transfer on channel 0", cores=2)
def barrier_before_the_wait(k: Builder, broken: bool = False) -> None:
    hand_over(k, writer=0, waits=not broken, barrier=True)


@rule("race: ", "writes DDR at 'z' + 28 bytes", "writes it, with no order", cores=2)
def columns_of_two_cores(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k, words=32)
    z = k.output("z").address
    planes = [Plane(z + 4 * first, 4, 8, 64) for first in (0, 7 if broken else 8)]
    start_each(k, [TransferRequest(row(tile, 32), plane) for plane in planes], 0)
    k.wait(0)


@rule("core 1's transfer on channel 1 ('tile' to 'x', ", "core 0's transfer on channel 0", cores=2)
def source_of_a_broadcast_changes(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    x = k.input("x")
    start(k, row(x), row(tile), 0, cores=0b11)
    k.wait(0)
    if not broken:
        k.barrier()
    with k.when(k.scoreid()):
        start(k, row(tile), row(x), 1)
        k.wait(1)


def test_cores_share_what_they_only_read() -> None:
    def body(k: Builder) -> None:
        tile, _ = filled(k)
        start(k, row(k.input("x")), row(tile), 0)
        k.wait(0)

    run(body, cores=4)


# Double buffering -------------------------------------------------------------------------------


def start_each(k: Builder, requests: list[TransferRequest], channel: int) -> None:
    """Start a transfer that is another one on each core."""
    words = [request.words() for request in requests]
    k.start(Descriptor(k.constants("descriptor", *words)), channel)


@rule("race: ", "writes AM at 'in 0' + 0 bytes", "on channel 0 ('x' to 'in 0', ", cores=1)
@rule("race: ", "writes AM at 'in 0' + 0 bytes", "on channel 0 ('x' to 'in 0', ", cores=2)
def double_buffering(k: Builder, broken: bool = False) -> None:
    """Add 1 to each core's share of x: load the next vector while this one is computed."""
    x, z = k.input("x"), k.output("z")
    count = WORDS // 16 // k.cores
    inside = [k.array_buffer(f"in {n}", VECTOR) for n in range(2)]
    outside = [k.array_buffer(f"out {n}", VECTOR) for n in range(2)]
    loads = [k.point(k.vector_address(b.name), b) for b in inside]
    stores = [k.point(k.vector_address(b.name), b) for b in outside]
    k.vmovi(1.0, ONES)

    def get(n: int) -> None:
        target = inside[0 if broken else n % 2]
        firsts = [16 * (count * core + n) for core in range(k.cores)]
        start_each(k, [TransferRequest(row(x, first=f), row(target)) for f in firsts], n % 2)

    def put(n: int) -> None:
        firsts = [16 * (count * core + n) for core in range(k.cores)]
        requests = [TransferRequest(row(outside[n % 2]), row(z, first=f)) for f in firsts]
        start_each(k, requests, 2 + n % 2)

    get(0)
    for n in range(count):
        if n + 1 < count:
            get(n + 1)
        k.wait(n % 2)
        if n >= 2:
            k.wait(2 + n % 2)
        with k.scope():
            k.vstw(k.vfadds32(k.vldw(loads[n % 2] + 0), ONES), stores[n % 2] + 0)
        put(n)
    k.wait(2)
    k.wait(3)


@pytest.mark.parametrize("cores", [1, 2])
def test_checks_change_neither_values_nor_cycles(cores: int) -> None:
    checked = run(double_buffering, cores)
    plain = simulate(
        checked_run.make(double_buffering)(), {"x": X}, cores=cores, engine="reference"
    )
    assert checked.outputs["z"].tolist() == [n + 1 for n in range(WORDS)]
    assert checked.report.cycles == plain.report.cycles


def test_timing_only_runs_find_races_too() -> None:
    kernel = checked_run.make(double_buffering)
    simulate(kernel(), cores=2, check=True, timing_only=True)
    with pytest.raises(checked_run.SimulationError, match="race: "):
        simulate(kernel(broken=True), cores=2, check=True, timing_only=True)


@pytest.mark.parametrize(("body", "words", "cores"), RULES)
def test_a_broken_rule_is_named(body: Body, words: tuple[str, ...], cores: int) -> None:
    message = refusal(body, cores, broken=True)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(("body", "words", "cores"), RULES)
def test_its_repair_passes(body: Body, words: tuple[str, ...], cores: int) -> None:
    run(body, cores, broken=False)


# The same rule, slow and plain --------------------------------------------------------------------

SIZE = 60  # words of each memory


@st.composite
def planes(draw: Any) -> Plane:
    rows, words = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    stride = draw(st.integers(-12, 12))
    reach = (rows - 1) * stride
    address = draw(st.integers(max(0, -reach), SIZE - words - max(0, reach)))
    return Plane(4 * address, rows, words, 4 * stride)


def words_of(plane: Plane) -> set[int]:
    return {
        (plane.address + r * plane.stride) // 4 + w
        for r in range(plane.rows)
        for w in range(plane.row_words)
    }


@given(planes(), planes(), st.sets(st.integers(0, SIZE - 1)))
def test_footprints_meet_where_their_words_do(one: Plane, two: Plane, some: set[int]) -> None:
    first, second = Footprint.of(one, 0), Footprint.of(two, 0)
    assert first.words.tolist() == sorted(words_of(one))
    both = words_of(one) & words_of(two)
    assert first.meets(second) == bool(both)
    if both:
        assert first.first_shared(second) == second.first_shared(first) == min(both)
    shared = first.shared(np.array(sorted(some), int))
    assert set(shared.tolist()) == words_of(one) & some


@given(st.lists(planes(), max_size=4), planes())
def test_the_first_unfilled_word_is_found(filled_planes: list[Plane], read: Plane) -> None:
    shadow = MemoryShadow(SIZE, 4)
    for plane in filled_planes:
        shadow.fill_plane(Footprint.of(plane, 0))
    empty = words_of(read).difference(*map(words_of, filled_planes))
    assert shadow.first_unfilled_in(Footprint.of(read, 0)) == min(empty, default=-1)


ddr, array = (Memory(name, 0, np.zeros(SIZE, np.uint32)) for name in ("DDR", "AM"))
starts = st.tuples(st.integers(0, 2), st.integers(0, 1), planes(), planes(), st.booleans())
waits = st.tuples(st.integers(0, 2), st.integers(0, 1))
events = st.lists(st.one_of(starts, starts, waits, st.just((-1, 0))), min_size=20, max_size=60)


def test_thousands_of_transfers_between_barriers_stay_known() -> None:
    races = Races(Program("many", (), {}, cores=2))

    def begins(core: int, channel: int, first: int) -> str:
        plane = Plane(4 * first, 1, 1, 4)
        return races.start(Started.of(core, channel, 0, Origin(), checked(plane, plane, True)))

    for first in range(50):
        assert begins(0, 0, first) == ""
        races.wait(0, 0)
    assert [begins(1, n, n) != "" for n in range(60)] == [True] * 50 + [False] * 10


@settings(max_examples=200)
@given(events)
def test_races_agree_with_a_plain_rule(happenings: list[Any]) -> None:
    races, epoch = Races(Program("plain", (), {}, cores=3)), 0
    known: list[dict[str, Any]] = []
    for core, channel, *planes in happenings:
        same = (core, channel, None)
        running = [t for t in known if (t["core"], t["channel"], t["waited"]) == same]
        if core < 0:
            races.barrier()
            epoch += 1
        elif not planes:
            races.wait(core, channel)
            for transfer in running:
                transfer["waited"] = epoch
        elif not running:
            new = {"core": core, "channel": channel, "waited": None, "sides": sides(*planes)}
            found = races.start(Started.of(core, channel, 0, Origin(), checked(*planes)))
            assert bool(found) == any(unordered(old, new, epoch) for old in known), found
            known.append(new)


def checked(source: Plane, target: Plane, out: bool) -> CheckedTransfer:
    memories = (array, ddr) if out else (ddr, array)
    return CheckedTransfer(TransferRequest(source, target), *memories)


def sides(source: Plane, target: Plane, out: bool) -> list[tuple[str, set[int], bool]]:
    names = ("AM", "DDR") if out else ("DDR", "AM")
    return [(names[0], words_of(source), False), (names[1], words_of(target), True)]


def unordered(old: dict[str, Any], new: dict[str, Any], epoch: int) -> bool:
    """Tell whether two transfers clash and no wait, or wait and barrier, lies between them."""
    own = old["core"] == new["core"]
    if old["waited"] is not None and (own or old["waited"] < epoch):
        return False
    return any(
        memory == other and (own or memory == "DDR") and words & others and (writes or written)
        for memory, words, writes in new["sides"]
        for other, others, written in old["sides"]
    )
