"""Transfers in flight together that touch the same bytes: the races that every run refuses.

A transfer is in flight from its start to its core's wait. One that starts meanwhile, and of which
one writes bytes that the other touches, is in a race with it by the rule of `docs/timing.md`,
whatever the timing: of the same core in any memory, of another core in DDR. Functions in integers
over the chip's flat record, called by `starts` for every start and by `release` for every wait;
compiled, they are the same. `simulator.checking.in_flight` words what they find.

Nearly all starts are far from everything in flight. So a start is held against the extents of its
own core's transfers, and in DDR against one extent around all that is read and one around all that
is written; single extents, and then rows, are looked at only where these meet.
"""

from __future__ import annotations

from simulator.chip_record import (
    CHANNEL,
    CORE_READS,
    CORE_SIZE,
    CORE_WRITES,
    CORES,
    DDR_NUMBER,
    ENTRIES,
    ENTRY_SIZE,
    FIRST_CORE,
    FROM,
    FROM_END,
    FROM_FIRST,
    FROM_MEMORY,
    NEVER,
    READING,
    ROW_WORDS,
    ROWS,
    STRIDE,
    TO,
    TO_END,
    TO_FIRST,
    TO_MEMORY,
    WRITING,
    Record,
    core_address,
    inner_address,
)  # fmt: skip
from simulator.compiled.primitives import lowest_bit
from simulator.requests import end_byte, first_byte


def take_off(record: Record, core: int, entry: int) -> int:
    """Note the transfer of a legal entry as in flight; return 1 if it is in a race, else 0.

    A transfer in a race is not in flight: the run is over.
    """
    if is_near(record, core, entry) != 0 and clashes(record, core, entry) != 0:
        return 1
    at = core_address(record, core)
    channel = record[entry + CHANNEL]
    inner = inner_address(record, core) + 2 * channel
    record[inner] = NEVER
    record[inner + 1] = 0
    if record[entry + FROM_MEMORY] == DDR_NUMBER:
        record[at + CORE_READS] += 1 << channel
        note(record, READING, entry + FROM_FIRST)
    else:
        record[inner] = record[entry + FROM_FIRST]
        record[inner + 1] = record[entry + FROM_END]
    if record[entry + TO_MEMORY] == DDR_NUMBER:
        record[at + CORE_WRITES] += 1 << channel
        note(record, WRITING, entry + TO_FIRST)
    else:
        record[inner] = record[entry + TO_FIRST]
        record[inner + 1] = record[entry + TO_END]
    return 0


def note(record: Record, known: int, extent: int) -> None:
    """Count a transfer that reads, or writes, DDR, and add its extent to theirs."""
    record[known] += 1
    record[known + 1] = min(record[known + 1], record[extent])
    record[known + 2] = max(record[known + 2], record[extent + 1])


def land(record: Record, core: int, channel: int) -> None:
    """Note that a core has waited for a channel."""
    at = core_address(record, core)
    one = 1 << channel
    if record[at + CORE_READS] & one != 0:
        record[at + CORE_READS] -= one
        forget(record, READING)
    if record[at + CORE_WRITES] & one != 0:
        record[at + CORE_WRITES] -= one
        forget(record, WRITING)


def forget(record: Record, known: int) -> None:
    """Count a transfer less that reads, or writes, DDR.

    The extent of all stays, and so may be too large, until none is left.
    """
    record[known] -= 1
    if record[known] == 0:
        record[known + 1] = NEVER
        record[known + 2] = 0


# Far or near ------------------------------------------------------------------------------------


def is_near(record: Record, core: int, entry: int) -> int:
    """Return 0 if a transfer can clash with none in flight: extents alone say so."""
    first = record[entry + FROM_FIRST]
    end = record[entry + FROM_END]
    if record[entry + FROM_MEMORY] == DDR_NUMBER:
        near = near_in_ddr(record, WRITING, CORE_WRITES, TO_FIRST, first, end)
    else:
        near = near_in_core(record, core, first, end)
    first = record[entry + TO_FIRST]
    end = record[entry + TO_END]
    if record[entry + TO_MEMORY] == DDR_NUMBER:
        near |= near_in_ddr(record, WRITING, CORE_WRITES, TO_FIRST, first, end)
        near |= near_in_ddr(record, READING, CORE_READS, FROM_FIRST, first, end)
    else:
        near |= near_in_core(record, core, first, end)
    return near


def near_in_core(record: Record, core: int, first: int, end: int) -> int:
    """Return 1 if bytes of a core's memory meet an extent of its transfers in flight, else 0."""
    at = core_address(record, core)
    busy = record[at + CORE_READS] | record[at + CORE_WRITES]
    return near_one(record, busy, inner_address(record, core), 2, first, end)


def near_in_ddr(
    record: Record, known: int, channels: int, extent: int, first: int, end: int
) -> int:
    """Return 1 if bytes of DDR meet an extent that transfers in flight read, or write, else 0.

    `known` is what is known of all of them, `channels` a core's mask, `extent` that of an entry.
    """
    if first >= record[known + 2] or record[known + 1] >= end:
        return 0
    near = 0
    at = record[FIRST_CORE]
    for _ in range(record[CORES]):
        near |= near_one(
            record, record[at + channels], at + ENTRIES + extent, ENTRY_SIZE, first, end
        )
        at += record[CORE_SIZE]
    return near


def near_one(record: Record, busy: int, extents: int, step: int, first: int, end: int) -> int:
    """Return 1 if bytes meet an extent of the channels that are `busy`, else 0.

    Extents of channels are `step` integers apart.
    """
    near = 0
    while busy != 0:
        extent = extents + step * lowest_bit(busy)
        near |= (first < record[extent + 1]) & (record[extent] < end)
        busy &= busy - 1
    return near


# Exactly ----------------------------------------------------------------------------------------


def clashes(record: Record, core: int, entry: int) -> int:
    """Return 1 if a transfer clashes with one in flight, else 0."""
    for other in range(record[CORES]):
        if clashes_with_core(record, other, entry, other == core) != 0:
            return 1
    return 0


def clashes_with_core(record: Record, core: int, entry: int, own: int) -> int:
    """Return 1 if a transfer clashes with one in flight of a core, its own or another."""
    at = core_address(record, core)
    busy = record[at + CORE_READS] | record[at + CORE_WRITES]
    old = at + ENTRIES
    while busy != 0:
        if busy & 1 != 0 and clash(record, entry, old, own) != 0:
            return 1
        busy >>= 1
        old += ENTRY_SIZE
    return 0


def clash(record: Record, new: int, old: int, own: int) -> int:
    """Return 1 if one of two transfers writes bytes that the other touches, else 0.

    Memories do not share addresses, so addresses alone tell them apart; those in a core mean
    something only for transfers of its `own`.
    """
    if own != 0 or record[new + TO_MEMORY] == DDR_NUMBER:
        if planes_meet(record, new + TO, old + TO) != 0:
            return 1
        if planes_meet(record, new + TO, old + FROM) != 0:
            return 1
    if own != 0 or record[new + FROM_MEMORY] == DDR_NUMBER:
        return planes_meet(record, new + FROM, old + TO)
    return 0


# Planes -----------------------------------------------------------------------------------------


def planes_meet(record: Record, one: int, other: int) -> int:
    """Return 1 if two planes have a word in common, else 0."""
    if first_byte(record, one) >= end_byte(record, other):
        return 0
    if first_byte(record, other) >= end_byte(record, one):
        return 0
    turned = runs_of(record, other) < runs_of(record, one)
    few = other if turned else one
    many = one if turned else other
    return runs_meet(
        first_byte(record, few),
        runs_of(record, few),
        run_bytes(record, few),
        abs(record[few + STRIDE]),
        first_byte(record, many),
        runs_of(record, many),
        run_bytes(record, many),
        abs(record[many + STRIDE]),
    )


def runs_of(record: Record, plane: int) -> int:
    """Return the number of runs of bytes of a plane: rows that touch or overlap are one."""
    if abs(record[plane + STRIDE]) <= 4 * record[plane + ROW_WORDS]:
        return 1
    return record[plane + ROWS]


def run_bytes(record: Record, plane: int) -> int:
    """Return the length of each of these runs."""
    if runs_of(record, plane) == 1:
        return end_byte(record, plane) - first_byte(record, plane)
    return 4 * record[plane + ROW_WORDS]


def runs_meet(
    first: int, few: int, length: int, step: int,
    other_first: int, many: int, other_length: int, other_step: int,
) -> int:  # fmt: skip
    """Return 1 if one of a `few` runs of bytes meets one of as many or more others.

    They are `length` bytes long and begin `step` bytes apart, the first one at `first`.
    """
    if few == 1:
        return run_meets(first, length, other_first, many, other_length, other_step)
    if step == other_step:
        distance = first - other_first
        return aligned_runs_meet(distance, few, length, many, other_length, step)
    # Only those that reach past the first byte of the others and begin before their end
    begin = first + step * max(0, (other_first - length - first) // step + 1)
    last = min(first + (few - 1) * step, other_first + (many - 1) * other_step + other_length - 1)
    while begin <= last:
        if run_meets(begin, length, other_first, many, other_length, other_step) != 0:
            return 1
        begin += step
    return 0


def aligned_runs_meet(
    distance: int, runs: int, length: int, other_runs: int, other_length: int, step: int
) -> int:
    """Return the same for runs of one step, the first ones `distance` bytes apart.

    Run i of the one begins `distance` + (i - j) * `step` bytes behind run j of the other. They meet
    if that is above -`length` and below `other_length`; i - j goes from 1 - `other_runs` to
    `runs` - 1.
    """
    lowest = max((-length - distance) // step + 1, 1 - other_runs)
    highest = min((other_length - 1 - distance) // step, runs - 1)
    return 1 if lowest <= highest else 0


def run_meets(begin: int, length: int, first: int, runs: int, run: int, step: int) -> int:
    """Return 1 if `length` bytes meet one of `runs` runs of `run` bytes, else 0."""
    if begin < first:
        return 1 if begin + length > first else 0
    if runs == 1:
        return 1 if begin < first + run else 0
    row = (begin - first) // step
    behind = begin - first - row * step  # the beginning of that run
    if row < runs and behind < run:
        return 1
    return 1 if row + 1 < runs and behind + length > step else 0
