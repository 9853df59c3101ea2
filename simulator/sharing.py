"""DDR time: how the active DMA transfers share the chip, and when they end.

Functions in integers over the chip's flat record, which `simulator.release` calls; compiled, they
are the same. No result depends on how a division rounds negative numbers.
"""

from __future__ import annotations

from simulator.chip_record import (
    ACTIVE,
    BEGIN,
    CAP,
    CLOCK,
    CORES,
    DDR,
    DDR_BYTES,
    DDR_RATE,
    DMA_RATE,
    END,
    END_SLOT,
    FIRST_SLOT,
    FREE,
    ID,
    LAST_ENDED,
    LEFT,
    MASK,
    MEMBER_CHANNELS,
    NEVER,
    NONE,
    OWNER,
    PENDING,
    RATE,
    REMAINING,
    RESOURCE_SIZE,
    SERVED,
    SLOT_SIZE,
    STALE,
    STATE,
    USERS,
    WORK_BYTES,
    Record,
)


def advance(record: Record, horizon: int) -> int:
    """End the next transfer, moving the clock to the cycle of its end, and return its id.

    Return NONE when nothing can end up to cycle `horizon`: all that could is done, or broadcasts
    wait for members.
    """
    slot = ended(record)
    while slot == NONE:
        begin_due(record)
        if record[STALE] == 1:
            share(record)
        time = next_event(record)
        if time == NEVER or time > horizon:
            return NONE
        progress(record, time)
        slot = ended(record)
    finish(record, slot)
    return record[slot + ID]


def ended(record: Record) -> int:
    """Return the slot of the first transfer, by core and channel, that ends now, or NONE."""
    best = NONE
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        done = record[slot + STATE] == ACTIVE and record[slot + REMAINING] <= 0
        if done and (best == NONE or record[slot + OWNER] < record[best + OWNER]):
            best = slot
    return best


def begin_due(record: Record) -> None:
    """Make the pending transfers active that begin now."""
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        if record[slot + STATE] == PENDING and record[slot + BEGIN] <= record[CLOCK]:
            record[slot + STATE] = ACTIVE
            record[STALE] = 1


def next_event(record: Record) -> int:
    """Return the cycle of the next begin or end, or NEVER."""
    time = NEVER
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        if record[slot + STATE] == ACTIVE:
            time = min(time, record[slot + END])
        elif record[slot + STATE] == PENDING:
            time = min(time, record[slot + BEGIN])
    return time


def progress(record: Record, time: int) -> None:
    """Move the clock to `time`, every active transfer working at its rate until then."""
    cycles = time - record[CLOCK]
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        if record[slot + STATE] == ACTIVE:
            record[slot + REMAINING] -= record[slot + RATE] * cycles
    record[CLOCK] = time


def finish(record: Record, slot: int) -> None:
    """Tell the members' channels that a transfer completed now, and free its slot."""
    for core in range(record[CORES]):
        if (record[slot + MASK] >> core) & 1 == 1:
            record[record[slot + MEMBER_CHANNELS + core]] = record[CLOCK]
    record[DDR_BYTES] += record[slot + WORK_BYTES]
    record[LAST_ENDED] = slot
    record[STALE] = 1
    record[slot + STATE] = FREE
    last = record[END_SLOT] - record[SLOT_SIZE]
    while last >= record[FIRST_SLOT] and record[last + STATE] == FREE:
        record[END_SLOT] = last
        last -= record[SLOT_SIZE]


def share(record: Record) -> None:
    """Give every active transfer its max-min fair rate, and foresee its end.

    Progressive filling: the resource with the smallest share per user (DDR before cores before
    caps when equal) fixes its users' rates, which are then taken from everything they use.
    """
    open_shares(record)
    while record[DDR + USERS] > 0:
        freeze_users(record, tightest(record))
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        if record[slot + STATE] == ACTIVE:
            rate = record[slot + RATE]
            record[slot + END] = record[CLOCK] + (record[slot + REMAINING] + rate - 1) // rate
    record[STALE] = 0


def open_shares(record: Record) -> None:
    """Make every resource whole, count its users, and take all active transfers' rates away."""
    record[DDR + LEFT] = record[DDR_RATE]
    record[DDR + USERS] = 0
    for core in range(record[CORES]):
        record[core_dma(core) + LEFT] = record[DMA_RATE]
        record[core_dma(core) + USERS] = 0
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        if record[slot + STATE] == ACTIVE:
            record[slot + RATE] = 0
            record[slot + LEFT] = record[slot + CAP]
            if record[slot + CAP] > 0:
                record[slot + USERS] = 1
            record[DDR + USERS] += 1
            for core in range(record[CORES]):
                record[core_dma(core) + USERS] += (record[slot + MASK] >> core) & 1


def core_dma(core: int) -> int:
    """Return the address of the resource that is a core's DMA."""
    return DDR + RESOURCE_SIZE * (1 + core)


def tightest(record: Record) -> int:
    """Return the address of the resource with the smallest share; DDR must have users."""
    best = DDR
    for core in range(record[CORES]):
        best = tighter(record, best, core_dma(core))
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        best = tighter(record, best, slot)
    return best


def tighter(record: Record, best: int, resource: int) -> int:
    """Return `resource` if it has users and a smaller share than `best`, else `best`."""
    if record[resource + USERS] > 0 and share_of(record, resource) < share_of(record, best):
        return resource
    return best


def share_of(record: Record, resource: int) -> int:
    """Return what each user of a resource may have.

    At least 1, even if that is more than there is, so that every transfer ends.
    """
    rate = record[resource + LEFT] // record[resource + USERS]
    if rate < 1:
        return 1
    return rate


def freeze_users(record: Record, resource: int) -> None:
    """Fix the rate of the transfers that still share a resource at its share."""
    rate = share_of(record, resource)
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        unfrozen = record[slot + STATE] == ACTIVE and record[slot + RATE] == 0
        used = slot == resource or (record[slot + MASK] & record[resource + SERVED]) != 0
        if unfrozen and used:
            freeze(record, slot, rate)


def freeze(record: Record, slot: int, rate: int) -> None:
    """Fix the rate of one transfer and take it from every resource the transfer uses."""
    record[slot + RATE] = rate
    record[slot + USERS] = 0
    take(record, DDR, rate)
    for core in range(record[CORES]):
        if (record[slot + MASK] >> core) & 1 == 1:
            take(record, core_dma(core), rate)


def take(record: Record, resource: int, rate: int) -> None:
    """Take one user and its rate from a resource."""
    record[resource + USERS] -= 1
    record[resource + LEFT] -= rate
