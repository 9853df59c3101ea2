"""What lets blocked cores go on: ends of transfers, barriers, and DDR time until one of them.

Functions in integers over the chip's flat record, which the chip calls when every core is blocked;
compiled, they are the same.
"""

from __future__ import annotations

from simulator.chip_record import (
    ARRIVED,
    BARRIER_CYCLES,
    CLOCK,
    CORE_CAUSE,
    CORE_CHANNEL,
    CORE_CYCLE,
    CORE_STALL,
    CORE_STATUS,
    CORE_TRANSFER,
    CORES,
    CULPRIT,
    END,
    END_SLOT,
    FINISHED_ROWS,
    FIRST_SLOT,
    GATHERING,
    ID,
    IDLE,
    LAST_ENDED,
    LATEST_ARRIVAL,
    LAUNCH_CYCLES,
    MASK,
    MEMBER_CHANNELS,
    MISSING,
    NEVER,
    NONE,
    SLOT_SIZE,
    STATE,
    Record,
    channel_address,
    core_address,
    given_address,
)  # fmt: skip
from simulator.clashes import land
from simulator.result import BARRIER, CAUSES, DMA_WAIT
from simulator.sharing import advance
from simulator.state import Status

RUNNING, WAITING, AT_BARRIER = int(Status.RUNNING), int(Status.WAITING), int(Status.AT_BARRIER)
WAIT_NUMBER, BARRIER_NUMBER = CAUSES.index(DMA_WAIT), CAUSES.index(BARRIER)

NOTHING_STARTED = -1
"""A core waits for a channel on which nothing was started; `CULPRIT` says which."""


def unblock(record: Record, finished: Record) -> int:
    """Let at least one blocked core go on, as early as possible; return which, as a bit mask.

    Return 0 if none ever will, or NOTHING_STARTED. Transfers that end are noted in `finished`.
    """
    released = release(record)
    while released == 0:
        if advance(record, NEVER) == NONE:
            return 0
        note_finished(record, finished)
        released = release(record)
    if released == NOTHING_STARTED:
        return released
    # What those cores start cannot begin before `horizon`, so DDR time is known until then. Cores
    # whose transfers end together so run together.
    while advance(record, horizon(record)) != NONE:
        note_finished(record, finished)
        released |= release_waiting(record)
    return released


def release(record: Record) -> int:
    """Let the cores go on that can; return them as a bit mask, or NOTHING_STARTED."""
    released = release_waiting(record)
    if released == 0:
        released = release_barrier(record)
    return released


def release_waiting(record: Record) -> int:
    """Let the cores go on whose transfers have ended; return as `release`."""
    released = 0
    for core in range(record[CORES]):
        at = core_address(record, core)
        if record[at + CORE_STATUS] == WAITING:
            channel = record[at + CORE_CHANNEL]
            end = completion(record, core, channel)
            if end == IDLE:
                record[CULPRIT] = core
                return NOTHING_STARTED
            if end >= 0:
                record[at + CORE_CAUSE] = WAIT_NUMBER
                record[at + CORE_TRANSFER] = record[given_address(record, core, channel)]
                go_on(record, at, end)
                released |= 1 << core
    return released


def release_barrier(record: Record) -> int:
    """Let all cores go on if all have come to the barrier; return as `release`."""
    time = barrier_release(record)
    if time == NONE:
        return 0
    for core in range(record[CORES]):
        at = core_address(record, core)
        record[at + CORE_CAUSE] = BARRIER_NUMBER
        record[at + CORE_TRANSFER] = NONE
        go_on(record, at, time)
    return (1 << record[CORES]) - 1


def go_on(record: Record, at: int, time: int) -> None:
    """Let a core go on at a cycle, or at once if that is past."""
    record[at + CORE_STALL] = max(0, time - record[at + CORE_CYCLE])
    record[at + CORE_CYCLE] = max(time, record[at + CORE_CYCLE])
    record[at + CORE_STATUS] = RUNNING


def horizon(record: Record) -> int:
    """Return the first cycle in which a transfer may begin that no running core has started yet."""
    first = NEVER
    for core in range(record[CORES]):
        at = core_address(record, core)
        if record[at + CORE_STATUS] == RUNNING:
            first = min(first, record[at + CORE_CYCLE])
    return first + record[LAUNCH_CYCLES]


def completion(record: Record, core: int, channel: int) -> int:
    """Return the cycle a channel's transfer completed at and free the channel, or a reason.

    IN_FLIGHT: not known yet. IDLE: nothing was started on the channel since the last wait.
    """
    port = channel_address(record, core, channel)
    time = record[port]
    if time >= 0:
        record[port] = IDLE
        land(record, core, channel)
    return time


def arrive(record: Record, core: int, time: int) -> None:
    """Note that a core reached the barrier."""
    record[ARRIVED] |= 1 << core
    record[LATEST_ARRIVAL] = max(record[LATEST_ARRIVAL], time)


def barrier_release(record: Record) -> int:
    """Return the cycle at which the cores go on and open the next barrier, or NONE."""
    if record[ARRIVED] != (1 << record[CORES]) - 1:
        return NONE
    time = record[LATEST_ARRIVAL] + 1 + record[BARRIER_CYCLES]
    record[ARRIVED] = 0
    record[LATEST_ARRIVAL] = 0
    return time


def missing_members(record: Record, core: int, channel: int) -> int:
    """Return the cores, as a bit mask, that a channel's broadcast still waits for; 0 for none."""
    port = channel_address(record, core, channel)
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        joined = (record[slot + MASK] - record[slot + MISSING]) >> core
        gathering = record[slot + STATE] == GATHERING and joined & 1 == 1
        if gathering and record[slot + MEMBER_CHANNELS + core] == port:
            return record[slot + MISSING]
    return 0


# The log of transfers that have ended. A row is the slot from ID on, its END being the real one.


def finished_row_size(record: Record) -> int:
    """Return the integers of a row."""
    return record[SLOT_SIZE] - ID


def note_finished(record: Record, log: Record) -> None:
    """Append the transfer that ended last; the log must have room."""
    slot = record[LAST_ENDED]
    record[slot + END] = record[CLOCK]
    size = finished_row_size(record)
    first = record[FINISHED_ROWS] * size
    for field in range(size):
        log[first + field] = record[slot + ID + field]
    record[FINISHED_ROWS] += 1
