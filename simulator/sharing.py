"""DDR time: how the active DMA transfers share the chip, and when they end.

One flat sequence of integers holds everything the event code knows, so that the functions over it
run as they are over a Python list or an int64 array, and can be compiled from the same source.
Called by `simulator.events`. Every value fits in 64 bits; no result depends on how a division
rounds negative numbers.

    header | resources: DDR, then the DMA of each core | channels, core by core | transfer slots

A *slot* and a *resource* are named by the address of their first integer.
"""

from __future__ import annotations

Record = list[int]

UNITS_PER_BYTE = 65536  # work and rates are counted in units of 2**-16 byte
NEVER = 1 << 62

# Header. Fixed by `new_record`:
CORES = 0
CHANNELS = 1  # per core
LAUNCH_CYCLES = 2
BARRIER_CYCLES = 3
DDR_RATE = 4  # units per cycle, the whole chip
DMA_RATE = 5  # units per cycle, each core
FIRST_CHANNEL = 6  # address of core 0's channel 0
FIRST_SLOT = 7  # address
SLOT_SIZE = 8
# Header. What changes:
END_SLOT = 9  # address behind the last slot in use
CLOCK = 10  # the cycle the DDR has reached
NEXT_ID = 11
STALE = 12  # 1: a transfer began or ended since the rates were computed
DDR_BYTES = 13  # moved by all transfers that have ended
LAST_ENDED = 14  # slot of the transfer that ended last; readable until the next start
ARRIVED = 15  # cores waiting at the barrier, bit mask
LATEST_ARRIVAL = 16
DDR = 17  # address of the first resource, behind the header

# A resource. A slot opens with these fields too: a transfer's own cap is a resource of its own.
LEFT = 0  # units per cycle not given away yet
USERS = 1  # transfers that still share it
SERVED = 2  # cores whose transfers use it, bit mask (0 for a transfer's own cap)
RESOURCE_SIZE = 3

# A slot, behind the three fields of its cap
STATE = 3
ID = 4
MASK = 5  # the cores that take part, bit mask
WORK_BYTES = 6
CAP = 7  # units per cycle, 0 for none
REMAINING = 8  # units
RATE = 9  # units per cycle
MISSING = 10  # cores that have not issued their start yet, bit mask
OWNER = 11  # address of its lowest member's channel: settles the order within a cycle
FIRST_REQUEST = 12
LAST_REQUEST = 13
BEGIN = 14  # cycle
END = 15  # cycle, as foreseen under the present rates
MEMBER_CHANNELS = 16  # address of each core's channel, one integer per core

# STATE
FREE = 0
GATHERING = 1  # members of a broadcast are still missing
PENDING = 2  # requested, begins at BEGIN
ACTIVE = 3

# A channel holds the cycle its transfer completed at, or one of these
IN_FLIGHT = -1
IDLE = -2

NONE = -1  # no such slot, transfer or time


def new_record(
    cores: int,
    channels: int,
    ddr_rate: int,
    dma_rate: int,
    launch_cycles: int,
    barrier_cycles: int,
) -> Record:
    """Return the record of a chip at rest; rates in units of 2**-16 byte per cycle."""
    first_channel = DDR + RESOURCE_SIZE * (1 + cores)
    first_slot = first_channel + cores * channels
    slot_size = MEMBER_CHANNELS + cores
    fixed = [cores, channels, launch_cycles, barrier_cycles, ddr_rate, dma_rate]
    header = [*fixed, first_channel, first_slot, slot_size, first_slot]
    header += [0] * (DDR - len(header))
    resources = [0, 0, (1 << cores) - 1]
    for core in range(cores):
        resources += [0, 0, 1 << core]
    # A transfer in flight keeps at least one channel busy: as many slots as channels suffice.
    return header + resources + [IDLE] * (cores * channels) + [0] * (cores * channels * slot_size)


def advance(record: Record) -> int:
    """End the next transfer, moving the clock to the cycle of its end, and return its id.

    Return NONE when nothing can end: all is done, or broadcasts wait for members.
    """
    slot = ended(record)
    while slot == NONE:
        begin_due(record)
        if record[STALE] == 1:
            share(record)
        time = next_event(record)
        if time == NEVER:
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
