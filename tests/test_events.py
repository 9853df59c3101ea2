"""Transfers, broadcasts, barriers and burst counting: hand-worked cycles, and a model by the cycle.

The small chip of these tests moves 10 bytes per cycle from DDR and has no DMA limit in reach
unless a test says so; a transfer begins 10 cycles after its start.
"""

from __future__ import annotations

from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.machine import Machine
from simulator import sharing
from simulator.chip_record import ACTIVE, CLOCK, ID, RATE, STATE
from simulator.events import BAD_MASK, BUSY, DISAGREES, Events, burst_bytes, units_per_cycle
from simulator.sharing import progress

UNIT = 65536
IN_FLIGHT, IDLE, NONE = -1, -2, -1


def small_chip(cores=4, ddr=10.0, dma=1000.0, launch=10) -> Events:
    changes = [f"ddr.bytes_per_cycle={ddr}", "ddr.efficiency=1.0", f"dma.bytes_per_cycle={dma}"]
    changes += [f"dma.launch_cycles={launch}", "barrier.cycles=20"]
    return Events(Machine.load("ft-m7004", changes), cores)


def alone(events, core, channel, time, work_bytes, cap=0):
    return events.start(core, channel, time, 1 << core, work_bytes, cap * UNIT)


def run(events):
    """Advance until nothing is left; return {id: (begin, end)}."""
    while events.advance() != NONE:
        pass
    return {done.id: (done.begin, done.end) for done in events.finished}


def test_one_transfer():
    events = small_chip()
    assert events.completion(2, 5) == IDLE
    transfer = alone(events, 2, 5, 5, 1000)
    assert events.completion(2, 5) == IN_FLIGHT
    assert events.advance() == transfer
    # start 5 + launch 10 + 1000 / 10
    assert [events.completion(2, 5), events.completion(2, 5)] == [115, IDLE]
    assert events.advance() == NONE
    (done,) = events.finished
    assert (done.mask, done.channels, done.bytes) == (0b100, ((2, 5),), 1000)
    assert (done.first_request, done.last_request, done.begin, done.end) == (5, 5, 15, 115)
    assert (events.ddr_bytes, events.clock) == (1000, 115)


def test_default_machine():
    # 42.7 B/cycle * 0.8 * 65536 = 2238709.76 units; 65536 B = 2**32 units = 1918.50 times that
    assert units_per_cycle(42.7 * 0.8) == 2238709
    events = Events(Machine.load(), 1)
    alone(events, 0, 0, 0, 65536)
    assert run(events) == {0: (60, 60 + 1919)}


@pytest.mark.parametrize(
    ("chip", "starts", "ends"),  # a start is core, channel, cycle, bytes[, cap in B/cycle]
    [
        # 100.1 cycles, rounded up
        ({}, [(0, 0, 0, 1001)], [111]),
        # 5 B/cycle each until the second ends at 10 + 100; the first's 500 left at 10
        ({}, [(0, 0, 0, 1000), (1, 0, 0, 500)], [160, 110]),
        # whole units: 655360 // 3 = 218453; 65536000 / 218453 = 300.0005 cycles
        ({}, [(core, 0, 0, 1000) for core in range(3)], [311, 311, 311]),
        # 2 // 3 = 0 units, but each gets 1 unit all the same
        ({"ddr": 2 / UNIT}, [(core, 0, 0, 1) for core in range(3)], [10 + UNIT] * 3),
        # equal shares of 10 units, DDR's 32 // 3 and core 0's 20 // 2: DDR goes first, so core 1
        # has 10 and not the 12 that core 0 would leave; 65536 / 10 = 6553.6
        ({"ddr": 2**-11, "dma": 20 / UNIT}, [(0, 0, 0, 1), (0, 1, 0, 1), (1, 0, 0, 1)], [6564] * 3),
        # max-min, the first capped: 2 + 4 + 4 until 110 (second done; first 200 left, third 400);
        # 2 + 8 until 160 (third done, first 100 left); then 2 alone
        ({}, [(0, 0, 0, 400, 2), (1, 0, 0, 400), (2, 0, 0, 800)], [210, 110, 160]),
        # core 0's DMA: 1.5 + 1.5 until 110, then the second's 150 left at 3; core 1: 3 throughout
        ({"dma": 3.0}, [(0, 0, 0, 150), (0, 1, 0, 300), (1, 0, 0, 600)], [110, 160, 210]),
        # DDR would give 2.5 each; core 0's DMA gives its three 2 each, so core 1 has 10 - 6 = 4
        ({"dma": 6.0}, [*((0, n, 0, 200) for n in range(3)), (1, 0, 0, 400)], [110] * 4),
        # second alone from 10 to 50: 400 B; both at 5 until the first ends at 50 + 60; 300 B at 10
        ({}, [(1, 0, 40, 300), (0, 0, 0, 1000)], [110, 140]),
    ],
)
def test_sharing(chip, starts, ends):
    events = small_chip(**chip)
    for start in starts:
        alone(events, *start)
    assert {n: end for n, (_, end) in run(events).items()} == dict(enumerate(ends))


def test_a_start_far_ahead_stays_pending():
    events = small_chip()
    far = alone(events, 0, 0, 1000, 100)
    near = alone(events, 1, 0, 0, 100)
    assert [events.advance(), events.clock] == [near, 20]
    between = alone(events, 1, 1, 500, 100)
    assert run(events) == {near: (10, 20), between: (510, 520), far: (1010, 1020)}


def test_a_start_in_the_cycle_of_an_end_takes_its_place():
    events = small_chip(launch=0)
    alone(events, 0, 0, 0, 500)
    alone(events, 1, 0, 0, 1000)
    assert events.advance() == 0  # 5 B/cycle each: at 100; 500 B left of the other
    alone(events, 0, 1, 100, 250)
    # again 5 each until 150; the last 250 B at 10
    assert run(events) == {0: (0, 100), 2: (100, 150), 1: (0, 175)}


def test_all_channels_of_all_cores_again_and_again():
    events = small_chip()
    size = len(events.record)
    channels = [(core, channel) for core in range(4) for channel in range(16)]
    for turn in range(3):
        for channel in reversed(channels):
            alone(events, *channel, events.clock, 10)
        run(events)
        # 655360 // 64 = 10240 units each: 10 B = 655360 units in 64 cycles, after launch 10
        assert {events.completion(*channel) for channel in channels} == {74 * (turn + 1)}
    # those that end in one cycle come by core and channel
    assert [done.channels[0] for done in events.finished] == channels * 3
    assert [done.id for done in events.finished[64:]] == [*range(127, 63, -1), *range(191, 127, -1)]
    assert (len(events.record), events.ddr_bytes) == (size, 3 * 640)


def test_a_broadcast_waits_for_its_last_member():
    events = small_chip(cores=2)
    assert events.start(0, 0, 70, 0b11, 1000) == 0
    assert events.advance() == NONE
    assert [events.missing_members(0, channel) for channel in (0, 1)] == [0b10, 0]
    assert events.start(1, 4, 50, 0b11, 1000) == 0
    assert events.missing_members(0, 0) == 0
    assert events.advance() == 0
    # last start 70 + launch 10 + 1000 / 10, read once
    assert (events.completion(0, 0), events.completion(1, 4)) == (180, 180)
    assert events.ddr_bytes == 1000
    (done,) = events.finished
    assert (done.first_request, done.last_request, done.begin) == (50, 70, 80)
    assert (done.mask, done.channels) == (0b11, ((0, 0), (1, 4)))
    assert [events.start(core, 0, 180, 0b11, 100) for core in (0, 1)] == [1, 1]
    alone(events, 0, 1, 180, 100)
    assert [events.advance(), events.advance()] == [1, 2]  # in one cycle: its lowest core counts


def test_a_broadcast_uses_the_dma_of_every_member():
    events = small_chip(cores=3, dma=4.0)
    for core in (0, 1):
        broadcast = events.start(core, 0, 0, 0b011, 400)
    beside = alone(events, 1, 1, 0, 200)
    other = alone(events, 2, 0, 0, 400)
    # core 1: 2 + 2 until beside ends at 110, the broadcast's last 200 B at 4; core 2: 4 throughout
    assert run(events) == {beside: (10, 110), other: (10, 110), broadcast: (10, 160)}


def test_broadcasts_with_one_mask_match_in_order():
    events = small_chip(cores=3)
    sizes = [100, 200, 300]
    first = [events.start(0, n, 10 * n, 0b111, size) for n, size in enumerate(sizes)]
    # core 2 runs before core 1 and is further ahead; each k-th start joins the k-th broadcast
    third = [events.start(2, 7 - n, 0, 0b111, size) for n, size in enumerate(sizes)]
    second = [events.start(1, n, 0, 0b111, size) for n, size in enumerate(sizes[:2])]
    assert [first, third, second] == [[0, 1, 2], [0, 1, 2], [0, 1]]
    # begin 10 and 20: 100 B alone end at 20 and 200 B at 40; the third still lacks core 1
    assert run(events) == {0: (10, 20), 1: (20, 40)}
    assert events.missing_members(2, 5) == 0b010


def test_broadcasts_with_different_masks_do_not_mix():
    events = small_chip(cores=3)
    assert events.start(0, 0, 0, 0b011, 100) == 0
    assert events.start(0, 1, 0, 0b101, 100) == 1
    assert events.start(2, 0, 0, 0b101, 100) == 1
    assert events.start(0, 2, 0, 0b111, 100) == 2
    assert events.start(1, 0, 5, 0b111, 100) == 2
    assert events.start(1, 1, 20, 0b011, 100) == 0
    assert events.start(2, 1, 40, 0b111, 100) == 2
    assert run(events) == {1: (10, 20), 0: (30, 40), 2: (50, 60)}


def test_a_channel_must_be_waited_for():
    events = small_chip()
    alone(events, 0, 0, 0, 100)
    assert alone(events, 0, 0, 1, 100) == BUSY
    events.advance()
    assert alone(events, 0, 0, 20, 100) == BUSY  # completed, not waited for
    events.completion(0, 0)
    assert alone(events, 0, 0, 20, 100) == 1


def test_masks_and_members_must_fit():
    events = small_chip(cores=2)
    assert [events.start(0, 0, 0, mask, 100) for mask in (0, 0b10, 0b101)] == [BAD_MASK] * 3
    assert events.start(0, 0, 0, 0b11, 100) == 0
    assert events.start(1, 0, 0, 0b11, 101) == DISAGREES
    assert events.start(1, 0, 0, 0b11, 100, 5) == DISAGREES
    assert events.start(1, 0, 0, 0b11, 100) == 0


def test_a_start_behind_the_clock_is_an_internal_error():
    events = small_chip()
    alone(events, 0, 0, 0, 1000)
    events.advance()  # clock 110, launch 10
    assert alone(events, 1, 0, 100, 100) == 1
    with pytest.raises(RuntimeError, match=r"core 1 .* cycle 99, .* cycle 110"):
        alone(events, 1, 1, 99, 100)


def test_barriers():
    events = small_chip(cores=2)
    # the last arrival + 1 + 20; the second barrier knows nothing of the first
    for first, last, release in [((1, 250), (0, 100), 271), ((0, 70), (1, 80), 101)]:
        events.arrive(*first)
        assert events.barrier_release() == NONE
        events.arrive(*last)
        assert [events.barrier_release(), events.barrier_release()] == [release, NONE]


# Against a model that goes cycle by cycle

transfers = st.tuples(
    st.integers(1, 7),  # mask over three cores
    st.integers(0, 60),  # start
    st.integers(1, 300),  # bytes
    st.sampled_from([0, 0, UNIT // 3, 2 * UNIT, 5 * UNIT + 1]),
)
rates = st.sampled_from([1.0, 2.7, 6.01, 10.0])


def start_all(events, requests):
    for transfer, (mask, time, work_bytes, cap) in enumerate(requests):
        for core in (core for core in range(3) if mask >> core & 1):
            assert events.start(core, transfer, time, mask, work_bytes, cap) == transfer


def pools_of(active, requests, ddr, dma):
    """Return what is shared, as (units per cycle, the transfers that share it)."""
    masks = {n: requests[n][0] for n in active}
    pools = [(ddr, set(active))]
    pools += [(dma, {n for n in active if masks[n] >> core & 1}) for core in range(3)]
    return pools + [(requests[n][3], {n}) for n in active if requests[n][3]]


def filled(active, requests, ddr, dma):
    """Return max-min rates by progressive filling."""
    pools = pools_of(active, requests, ddr, dma)
    result = {}
    while len(result) < len(active):
        shares = [(left // len(users), n) for n, (left, users) in enumerate(pools) if users]
        rate, tightest = min(shares)
        frozen = set(pools[tightest][1])
        result |= dict.fromkeys(frozen, rate)
        pools = [(left - rate * len(users & frozen), users - frozen) for left, users in pools]
    return result


def ends_by_cycle(requests, ddr, dma, launch):
    left = {n: work_bytes * UNIT for n, (_, _, work_bytes, _) in enumerate(requests)}
    ends, clock = {}, 0
    while left:
        active = [n for n in left if requests[n][1] + launch <= clock]
        clock += 1
        for n, rate in filled(active, requests, ddr, dma).items():
            left[n] -= rate
            if left[n] <= 0:
                ends[n] = clock
                del left[n]
    return ends


@settings(max_examples=40)
@given(st.lists(transfers, min_size=1, max_size=7), rates, rates, st.integers(0, 9), st.booleans())
def test_ends_equal_those_of_a_model_by_the_cycle(requests, ddr, dma, launch, as_array):
    events = small_chip(3, ddr, dma, launch)
    if as_array:
        events.record = np.array(events.record, dtype=np.int64)
    start_all(events, requests)
    expected = ends_by_cycle(requests, int(ddr * UNIT), int(dma * UNIT), launch)
    assert {n: end for n, (_, end) in run(events).items()} == expected
    order = [(done.end, done.channels[0]) for done in events.finished]
    assert order == sorted(order)


@settings(max_examples=60)
@given(st.lists(transfers, min_size=1, max_size=9), rates, rates)
def test_rates_are_feasible_and_max_min_and_move_the_work(requests, ddr, dma):
    events = small_chip(3, ddr, dma)
    start_all(events, requests)
    moved, last = Counter(), {}

    def checked_progress(record, time):
        slots = range(record[sharing.FIRST_SLOT], len(record), record[sharing.SLOT_SIZE])
        now = {record[n + ID]: record[n + RATE] for n in slots if record[n + STATE] == ACTIVE}
        check_max_min(now, pools_of(now, requests, int(ddr * UNIT), int(dma * UNIT)))
        moved.update({n: rate * (time - record[CLOCK]) for n, rate in now.items()})
        last.update(now)
        progress(record, time)

    with mock.patch.object(sharing, "progress", checked_progress):
        run(events)
    for n, (_, _, work_bytes, _) in enumerate(requests):  # the last cycle may move less
        assert work_bytes * UNIT <= moved[n] < work_bytes * UNIT + last[n]


def check_max_min(now, pools):
    """Each transfer is among the fastest of a pool that has less than one unit left for each."""
    held = set()
    for capacity, users in pools:
        spare = capacity - sum(now[n] for n in users)
        assert spare >= 0
        fastest = {n for n in users if now[n] == max(now[m] for m in users)}
        if spare < len(fastest):
            held |= fastest
    assert held == set(now)


steps = st.tuples(
    st.sampled_from(["own", "own", "all", "barrier"]),
    st.tuples(*[st.integers(0, 30)] * 3),  # cycles each core spends before the step
    st.tuples(*[st.integers(1, 200)] * 3),  # bytes each core moves; all move core 0's
)


def core_program(events, core, program, released):
    """Run one core's steps with two transfers in flight; yield whenever it is blocked."""
    time, barriers = 0, 0
    for number, (kind, pauses, sizes) in enumerate(program):
        time += pauses[core]
        if kind == "barrier":
            events.arrive(core, time)
            while len(released) == barriers:
                yield
            time = released[barriers]
            barriers += 1
        else:
            while (end := events.completion(core, number % 2)) == IN_FLIGHT:
                yield
            time = max(time, end)
            mask, size = (0b111, sizes[0]) if kind == "all" else (1 << core, sizes[core])
            assert events.start(core, number % 2, time, mask, size) >= 0


def run_cores(program, order):
    """Run all cores to their blocking points in the given order, again and again."""
    events = small_chip(cores=3, dma=6.0, launch=3)
    released = []
    live = [core_program(events, core, program, released) for core in order]
    while live:
        live = [core for core in live if next(core, "halted") != "halted"]
        if (release := events.barrier_release()) != NONE:
            released.append(release)
        elif live:
            assert events.advance() != NONE
    run(events)
    return released, [done[1:] for done in events.finished]


@settings(max_examples=40)
@given(st.lists(steps, min_size=1, max_size=10))
def test_the_order_in_which_cores_run_does_not_matter(program):
    expected = run_cores(program, (0, 1, 2))
    assert sum(kind != "barrier" for kind, _, _ in program) <= len(expected[1])
    assert run_cores(program, (2, 1, 0)) == run_cores(program, (1, 2, 0)) == expected


@pytest.mark.parametrize(
    ("address", "rows", "row_bytes", "stride", "expected"),
    [
        (0, 1, 4, 0, 32),  # one word still costs a burst
        (28, 1, 8, 8, 64),  # across a boundary
        (0, 8, 16, 16, 128),  # adjacent rows: one run of 128 bytes
        (4, 8, 16, 16, 160),  # ... from byte 4 to 132: five bursts
        (0, 2, 16, 20, 96),  # bytes 0-15, one burst; 20-35, two: the first burst counts twice
        (0, 5, 32, 48, 224),  # phases 0, 16, 0, 16, 0: 1 + 2 + 1 + 2 + 1
        (64, 3, 32, 0, 96),  # the same row three times
        (64, 3, 40, -64, 192),  # downwards: 64, 0, -64, two bursts each
        (12, 1 << 31, 4, 4096, 1 << 36),  # not a loop over rows: 2**31 bursts of 32
    ],
)
def test_burst_bytes(address, rows, row_bytes, stride, expected):
    assert burst_bytes(address, rows, row_bytes, stride, 32) == expected


words = st.integers(1, 60).map(lambda n: 4 * n)


@given(words, st.integers(1, 40), words, words | words.map(int.__neg__), words)
def test_burst_bytes_against_a_loop_over_all_bytes(address, rows, row_bytes, stride, burst):
    spans = [(address + row * stride, row_bytes) for row in range(rows)]
    if stride == row_bytes:
        spans = [(address, rows * row_bytes)]
    touched = [len({byte // burst for byte in range(a, a + n)}) for a, n in spans]
    assert burst_bytes(address, rows, row_bytes, stride, burst) == sum(touched) * burst
