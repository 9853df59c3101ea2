"""Starts of transfers: what a core's start does to the chip's flat record.

Functions in integers, which the chip calls for every start in the order of the cores; compiled,
they are the same.
"""

from __future__ import annotations

from isa.descriptor import BROADCAST, TRANSPOSE
from simulator.chip_record import (
    ADDRESS,
    BEGIN,
    CAP,
    CHANNEL,
    CLOCK,
    CORES,
    DESTINATION,
    END_SLOT,
    FIRST_REQUEST,
    FIRST_SLOT,
    FREE,
    FROM,
    GATHERING,
    GROUP,
    ID,
    IDLE,
    IN_FLIGHT,
    LAST_JOINED,
    LAST_REQUEST,
    LAUNCH_CYCLES,
    MASK,
    MEMBER_CHANNELS,
    MISSING,
    MODE,
    NEVER,
    NEXT_ID,
    NONE,
    OWNER,
    PACKET,
    PENDING,
    PLANE_SIZE,
    REMAINING,
    SLOT_SIZE,
    SOURCE,
    SOURCE_PLANE,
    STARTED_BY,
    STATE,
    TIME,
    TO,
    TRAFFIC,
    TRANSPOSE_RATE,
    TRANSPOSED,
    UNITS_PER_BYTE,
    USERS,
    WORK_BYTES,
    Record,
    channel_address,
    given_address,
)  # fmt: skip
from simulator.clashes import take_off

# Why a start was refused
BUSY = -3  # the channel's last transfer was not waited for
BAD_MASK = -4  # the core is not in the mask, or the mask names a core outside the run
DISAGREES = -5  # the members of a broadcast give different work or caps
EARLY = -6  # it would begin before the DDR's clock: the chip advanced too far
OTHER_SOURCE = -7  # the members of a broadcast read different planes
CLASH = -8  # it touches bytes of a transfer in flight, at least one of the two writing them


def launch(record: Record, core: int, entry: int) -> int:
    """Request the transfer of a legal entry; return its id, or why it is refused.

    That is as for `start`, or OTHER_SOURCE or CLASH, where something has changed: the run is over
    then.
    """
    mask = record[entry + GROUP] if record[entry + GROUP] != 0 else 1 << core
    channel = record[entry + CHANNEL]
    cap = record[TRANSPOSE_RATE] if record[entry + TRANSPOSED] != 0 else 0
    identity = start(
        record, core, channel, record[entry + TIME], mask, record[entry + TRAFFIC], cap
    )
    if identity < 0:
        return identity
    slot = record[LAST_JOINED]
    if record[slot + MISSING] + (1 << core) == mask:
        record[slot + MODE] = mode(record, entry)
        record[slot + SOURCE] = record[entry + FROM + ADDRESS]
        for field in range(PLANE_SIZE):
            record[slot + SOURCE_PLANE + field] = record[entry + FROM + field]
    elif other_source(record, slot, entry) == 1:
        return OTHER_SOURCE
    if record[slot + OWNER] == channel_address(record, core, channel):
        record[slot + DESTINATION] = record[entry + TO + ADDRESS]
        record[slot + PACKET] = record[entry + STARTED_BY]
    record[given_address(record, core, channel)] = identity
    return identity if take_off(record, core, entry) == 0 else CLASH


def mode(record: Record, entry: int) -> int:
    """Return whether an entry transposes and broadcasts, as in the descriptor."""
    broadcast = BROADCAST if record[entry + GROUP] != 0 else 0
    return broadcast + record[entry + TRANSPOSED] * TRANSPOSE


def other_source(record: Record, slot: int, entry: int) -> int:
    """Return 1 if an entry reads something else than the members of a transfer before it."""
    if record[slot + MODE] != mode(record, entry):
        return 1
    for field in range(PLANE_SIZE):
        if record[slot + SOURCE_PLANE + field] != record[entry + FROM + field]:
            return 1
    return 0


def start(
    record: Record, core: int, channel: int, time: int, mask: int, work_bytes: int, cap_units: int
) -> int:
    """Request a transfer, or join the broadcast that waits for this core.

    Return the transfer's id, or BUSY, BAD_MASK, DISAGREES or EARLY and change nothing.
    """
    port = channel_address(record, core, channel)
    if record[port] != IDLE:
        return BUSY
    if (mask >> core) & 1 == 0 or (mask >> record[CORES]) != 0:
        return BAD_MASK
    if time + record[LAUNCH_CYCLES] < record[CLOCK]:
        return EARLY
    # Nobody else joins a transfer of one core, so none waits for it.
    slot = NONE if mask == 1 << core else awaiting(record, core, mask)
    if slot == NONE:
        slot = new_transfer(record, mask, work_bytes, cap_units)
    elif record[slot + WORK_BYTES] != work_bytes or record[slot + CAP] != cap_units:
        return DISAGREES
    join(record, slot, core, port, time)
    record[LAST_JOINED] = slot
    return record[slot + ID]


def awaiting(record: Record, core: int, mask: int) -> int:
    """Return the slot of the oldest broadcast with this mask that the core has not joined."""
    best = NONE
    bit = 1 << core
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        if (
            record[slot + STATE] == GATHERING
            and record[slot + MASK] == mask
            and record[slot + MISSING] & bit != 0
            and (best == NONE or record[slot + ID] < record[best + ID])
        ):
            best = slot
    return best


def new_transfer(record: Record, mask: int, work_bytes: int, cap_units: int) -> int:
    """Take a free slot for a transfer that nobody has joined yet, and return it."""
    slot = record[FIRST_SLOT]
    while slot < record[END_SLOT] and record[slot + STATE] != FREE:
        slot += record[SLOT_SIZE]
    if slot == record[END_SLOT]:
        record[END_SLOT] += record[SLOT_SIZE]
    record[slot + STATE] = GATHERING
    record[slot + ID] = record[NEXT_ID]
    record[NEXT_ID] += 1
    record[slot + MASK] = mask
    record[slot + MISSING] = mask
    record[slot + WORK_BYTES] = work_bytes
    record[slot + REMAINING] = work_bytes * UNITS_PER_BYTE
    record[slot + CAP] = cap_units
    record[slot + USERS] = 0
    record[slot + OWNER] = NEVER
    record[slot + FIRST_REQUEST] = NEVER
    record[slot + LAST_REQUEST] = 0
    return slot


def join(record: Record, slot: int, core: int, port: int, time: int) -> None:
    """Note a member's start; the last one fixes the cycle in which the transfer begins."""
    record[port] = IN_FLIGHT
    record[slot + MEMBER_CHANNELS + core] = port
    record[slot + OWNER] = min(record[slot + OWNER], port)
    record[slot + FIRST_REQUEST] = min(record[slot + FIRST_REQUEST], time)
    record[slot + LAST_REQUEST] = max(record[slot + LAST_REQUEST], time)
    record[slot + MISSING] -= 1 << core
    if record[slot + MISSING] == 0:
        record[slot + STATE] = PENDING
        record[slot + BEGIN] = record[slot + LAST_REQUEST] + record[LAUNCH_CYCLES]
