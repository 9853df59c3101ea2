"""Transfers in flight together that touch the same bytes: every run refuses them, in one text.

Programs by hand run on both engines, with numbers and without, and as checked runs, which have
their own way to find a race. Random planes are held against sets of their words.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import checked_run
import test_races as races
from checked_run import VECTOR, WORDS, Body, X, filled, refusal, row, start
from isa import Builder, SimulationError
from isa.descriptor import Plane, TransferRequest
from isa.language.parameters import AtLeast
from isa.machine import Machine
from simulator import chip_record
from simulator.chip_record import entry_address, new_record
from simulator.clashes import land, planes_meet, take_off
from simulator.compiled import native_chip
from simulator.requests import LEGAL, prepare
from simulator.simulate import simulate
from test_integer_code import native
from test_races import start_each, words_of

PLAIN = [
    (engine, timing_only) for engine in ("reference", "compiled") for timing_only in (False, True)
]
"""The ways to run a program without --check."""

Core = Annotated[int, AtLeast(0)]

CLASHES: list[Any] = []
clash = partial(checked_run.rule, CLASHES)


def plain_run(body: Body, cores: int, engine: str, timing_only: bool, **parameters: Any) -> None:
    kernel = checked_run.make(body)(**parameters)
    simulate(kernel, {"x": X}, cores=cores, engine=engine, timing_only=timing_only)


def plain_refusals(body: Body, cores: int, **parameters: Any) -> set[str]:
    """Return what runs without --check say, each in its way."""
    messages = set()
    for engine, timing_only in PLAIN:
        with pytest.raises(SimulationError) as caught:
            plain_run(body, cores, engine, timing_only, **parameters)
        messages.add(str(caught.value))
    return messages


# One core ---------------------------------------------------------------------------------------


@clash("channel 1 ('x' to 'tile', ", "writes AM at 'tile' + 60 bytes", "wait for channel 0 before")
def one_destination_twice(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    start(k, row(k.input("x")), row(tile), 0)
    start(k, row(k.input("x"), first=16), row(tile, first=15 if broken else 16), 1)
    k.wait(0)
    k.wait(1)


@clash("writes SM at 'row' + 12 bytes", "while core 0's transfer on channel 9 ('row' to 'z', ")
def scalar_memory_that_is_sent(k: Builder, broken: bool = False) -> None:
    words = k.scalar_buffer("row", VECTOR)
    start(k, row(k.input("x"), 8), row(words, 8), 9)
    k.wait(9)
    start(k, row(words, 4), row(k.output("z"), 4), 9)
    start(k, row(k.input("x"), 4), row(words, 4, first=3 if broken else 4), 1)
    k.wait(9)
    k.wait(1)


@clash("channel 1 ('z' to 'back', ", "reads DDR at 'z' + 64 bytes", "writes it; wait for channel 0")
def what_was_just_sent(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    z = k.output("z")
    start(k, row(tile), row(z, first=16), 0)
    if not broken:
        k.wait(0)
    start(k, row(z, first=16), row(k.array_buffer("back", VECTOR)), 1)
    k.wait(1)
    if broken:
        k.wait(0)


@clash("writes AM at 'tile' + 24 bytes", "wait for channel 0 before this start")
def rows_upward_and_downward(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k, words=32)
    x = k.input("x")
    start(k, row(x, 8), Plane(tile.address + 72, 4, 2, -24), 0)  # words 0-1, 6-7, 12-13, 18-19
    first = tile.address + (20 if broken else 8)  # of 2 words, then 6 and 12 words behind
    start(k, row(x, 6, first=32), Plane(first, 3, 2, 24), 1)
    k.wait(0)
    k.wait(1)


@clash("writes DDR at 'z' + 12 bytes", "reads it; wait for channel 0")
def a_row_that_is_read_again_and_again(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    z = k.output("z")
    start(k, row(tile), row(z), 0)
    k.wait(0)
    again = k.array_buffer("again", VECTOR)
    start(k, Plane(z.address, 4, 4, 0), row(again), 0)
    start(k, row(tile), row(z, first=3 if broken else 4), 1)
    k.wait(0)
    k.wait(1)


@clash("writes AM at 'turned' + 16 bytes", "writes it; wait for channel 0")
def columns_that_become_rows(k: Builder, broken: bool = False) -> None:
    turned, x = k.array_buffer("turned", 2 * VECTOR), k.input("x")
    target = Plane(turned.address, 4, 2, 16)  # words 0-1, 4-5, 8-9, 12-13
    request = TransferRequest(Plane(x.address, 2, 4, 32), target, transpose=True)
    k.start(k.descriptor("turn", request), 0)
    between = Plane(turned.address + 8, 4, 3 if broken else 2, 16)
    start(k, row(x, between.words), between, 1)
    k.wait(0)
    k.wait(1)


@clash("channel 1 ('z' to 'z', ", "writes DDR at 'z' + 124 bytes", "('tile' to 'z', ")
def from_ddr_to_ddr(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    z = k.output("z")
    start(k, row(tile), row(z), 0)
    k.wait(0)
    start(k, row(tile), row(z, first=16), 0)
    start(k, row(z), row(z, first=31 if broken else 32), 1)
    k.wait(0)
    k.wait(1)


# Several cores ----------------------------------------------------------------------------------


@clash("core 1's transfer on channel 0", "writes DDR at 'z' + 64 bytes", "writes it, with", cores=2)
def rows_of_two_cores(k: Builder, broken: bool = False) -> None:
    """Core 0 sends every fourth row of 4 words, core 1 every other of the rest, downward."""
    tile, _ = filled(k, words=32)
    z = k.output("z").address
    planes = (Plane(z, 4, 4, 64), Plane(z + (212 if broken else 208), 7, 4, -32))
    requests = [TransferRequest(row(tile, plane.words), plane) for plane in planes]
    start_each(k, requests, 0)
    k.wait(0)


@clash(
    "core 1's transfer on channel 1 ('tile' to 'x', ",
    "writes DDR at 'x' + 0 bytes",
    "core 0's transfer on channel 0 ('x' to ",
    cores=2,
)
def the_source_of_a_broadcast(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    x, copy, core = k.input("x"), k.array_buffer("copy", VECTOR), k.scoreid()
    start(k, row(x), row(copy), 0, cores=0b11)
    with k.when_zero(core):  # core 0 is busy with something longer
        start(k, row(x, WORDS), row(k.array_buffer("all", 4 * WORDS), WORDS), 2)
        k.wait(2)
        if not broken:
            k.wait(0)
    if not broken:
        k.barrier()
    with k.when(core):
        k.wait(0)
        start(k, row(tile), row(x), 1)
        k.wait(1)
    if broken:
        with k.when_zero(core):
            k.wait(0)


@clash("core 0's transfer on channel 1 ('tile' to 'z', ", "reads AM at 'tile' + 0 bytes", cores=3)
def where_a_broadcast_goes(k: Builder, broken: bool = False) -> None:
    tile, _ = filled(k)
    z = k.output("z")
    start(k, row(k.input("x")), row(tile), 0, cores=0b111)
    if not broken:
        k.wait(0)
    start_each(k, [TransferRequest(row(tile), row(z, first=16 * n)) for n in range(3)], 1)
    k.wait(1)
    if broken:
        k.wait(0)


# Found the same way by both rules
CLASHES += [
    pytest.param(body, (), cores, id=f"{body.__name__}-{cores}")
    for body, cores in (
        (races.transfer_into_a_source, 1),
        (races.two_blocks_of_columns, 1),
        (races.columns_of_two_cores, 2),
        (races.barrier_before_the_wait, 2),
        (races.double_buffering, 1),
        (races.double_buffering, 2),
    )
]


@pytest.mark.parametrize(("body", "words", "cores"), CLASHES)
def test_every_run_refuses_it_in_the_words_of_a_checked_run(
    body: Body, words: tuple[str, ...], cores: int
) -> None:
    message = refusal(body, cores, broken=True)
    assert [word for word in words if word not in message] == [], message
    assert plain_refusals(body, cores, broken=True) == {message}


@pytest.mark.parametrize(("body", "words", "cores"), CLASHES)
def test_no_run_refuses_its_repair(body: Body, words: tuple[str, ...], cores: int) -> None:
    checked_run.run(body, cores, broken=False)
    for engine, timing_only in PLAIN:
        plain_run(body, cores, engine, timing_only, broken=False)


def late_and_early(k: Builder, first: Core = 0, second: Core = 0) -> None:
    """On core `first` a transfer clashes early, on core `second` late, on the others never."""
    tile, _ = filled(k)
    x, core = k.input("x"), k.scoreid()
    for guilty, turns in ((second, 30), (first, 1)):
        with k.when(k.seq(core, guilty)):
            with k.loop(f"turns of {guilty}", turns):
                pass
            start(k, row(x), row(tile), 0)
            start(k, row(x, first=guilty), row(tile), 1)
            k.wait(0)
            k.wait(1)
    k.barrier()


@pytest.mark.parametrize("threads", ["1", "2", "4"])
@pytest.mark.parametrize(("first", "second"), [(0, 3), (3, 0), (2, 1)])
def test_of_several_clashes_both_engines_name_the_same(
    first: int, second: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native_chip.VARIABLE, threads)
    (message,) = plain_refusals(late_and_early, 4, first=first, second=second)
    assert f": core {min(first, second)}, cycle " in message
    assert message == refusal(late_and_early, 4, first=first, second=second)


@pytest.mark.parametrize(
    ("body", "cores"),
    [
        (races.load_of_a_destination, 1),
        (races.store_to_a_source, 1),
        (races.source_of_a_broadcast_changes, 2),
        (races.transfer_left_alone, 1),
    ],
)
def test_the_rest_of_the_rule_is_for_checked_runs(body: Body, cores: int) -> None:
    refusal(body, cores, broken=True)
    for engine, timing_only in PLAIN:
        plain_run(body, cores, engine, timing_only, broken=True)


# Random planes ----------------------------------------------------------------------------------

CORES, SIZE = 3, 60  # words of each memory
MACHINE = Machine.load("ft-m7004")
BASES = (MACHINE.am.base, MACHINE.sm.base, MACHINE.ddr.base)
EXTENTS = [(base, base + 4 * SIZE) for base in BASES]


@st.composite
def shaped(draw: Any, rows: int, words: int) -> Plane:
    """Return a plane of some shape in one of the memories, its rows apart, for a destination."""
    most = (SIZE - words) // max(1, rows - 1) if rows > 1 else 12
    stride = draw(st.integers(words, min(most, words + 12))) * draw(st.sampled_from([1, -1]))
    reach = (rows - 1) * stride
    address = draw(st.integers(max(0, -reach), SIZE - words - max(0, reach)))
    return Plane(4 * address, rows, words, 4 * stride)


@given(races.planes(), races.planes())
@settings(max_examples=500)
def test_planes_meet_where_their_words_do(one: Plane, two: Plane) -> None:
    record = [p for plane in (one, two) for p in (plane.address, plane.rows, plane.row_words,
                                                  plane.stride)]  # fmt: skip
    expected = bool(words_of(one) & words_of(two))
    assert planes_meet(record, 0, 4) == planes_meet(record, 4, 0) == expected


@st.composite
def transfers(draw: Any) -> tuple[int, int, tuple[int, Plane], tuple[int, Plane]]:
    """Return a core, a channel and both sides: a memory and a plane with addresses from 0."""
    core, channel = draw(st.integers(0, CORES - 1)), draw(st.integers(0, 3))
    memories = draw(st.sampled_from([(2, 0), (2, 1), (0, 2), (1, 2), (2, 2)]))
    rows, words = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    source = draw(shaped(rows, words))
    if draw(st.booleans()) and rows > 1:
        source = Plane(source.address, rows, words, 0)
    return core, channel, (memories[0], source), (memories[1], draw(shaped(rows, words)))


waits = st.tuples(st.integers(0, CORES - 1), st.integers(0, 3))
happenings = st.lists(st.one_of(transfers(), transfers(), waits), min_size=10, max_size=40)


def shift(memory: int, plane: Plane) -> Plane:
    return Plane(BASES[memory] + plane.address, plane.rows, plane.row_words, plane.stride)


def touched(core: int, memory: int, plane: Plane) -> set[tuple[int, int, int]]:
    """Return the words of a side; those of DDR are everybody's."""
    return {(memory, core if memory != 2 else -1, word) for word in words_of(plane)}


@pytest.fixture(scope="module")
def compiled() -> list[Any]:
    return native(take_off, land)


@settings(max_examples=200)
@given(happenings)
def test_flights_clash_where_their_words_do(compiled: list[Any], events: list[Any]) -> None:
    record = new_record(MACHINE, CORES, EXTENTS)
    flights: dict[tuple[int, int], tuple[set[Any], set[Any]]] = {}
    for core, channel, *sides in events:
        array = np.array(record, np.int64)
        if not sides:
            if flights.pop((core, channel), None) is not None:
                land(record, core, channel)
                compiled[1](array, core, channel)
                assert array.tolist() == record
            continue
        entry = entry_address(record, core, channel)
        request = TransferRequest(*(shift(*side) for side in sides))
        if (core, channel) in flights:
            continue
        record[entry + chip_record.CHANNEL] = channel
        words = entry + chip_record.WORDS
        record[words : words + 12] = request.words()
        if prepare(record, core, entry) != LEGAL:
            continue  # both sides overlap
        read, written = (touched(core, *side) for side in sides)
        expected = any(written & (r | w) or read & w for r, w in flights.values())
        array = np.array(record, np.int64)
        assert compiled[0](array, core, entry) == take_off(record, core, entry) == expected
        assert array.tolist() == record
        if not expected:
            flights[core, channel] = read, written
