"""What happens between the cores of the chip: starts of transfers, broadcasts, waits, barriers.

The functions are the cores' side of the event code, in integers over the flat record of
`simulator.sharing`, written once for both engines. `Events` is the chip's door to all of it: the
chip runs every core to its next blocking point and only then moves DDR time on with `advance`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from isa.machine import Machine
from simulator.sharing import (
    ARRIVED,
    BARRIER_CYCLES,
    BEGIN,
    CAP,
    CHANNELS,
    CLOCK,
    CORES,
    DDR_BYTES,
    END_SLOT,
    FIRST_CHANNEL,
    FIRST_REQUEST,
    FIRST_SLOT,
    FREE,
    GATHERING,
    ID,
    IDLE,
    IN_FLIGHT,
    LAST_ENDED,
    LAST_REQUEST,
    LATEST_ARRIVAL,
    LAUNCH_CYCLES,
    MASK,
    MEMBER_CHANNELS,
    MISSING,
    NEVER,
    NEXT_ID,
    NONE,
    OWNER,
    PENDING,
    REMAINING,
    SLOT_SIZE,
    STATE,
    UNITS_PER_BYTE,
    USERS,
    WORK_BYTES,
    Record,
    advance,
    new_record,
)

# Why a start was refused
BUSY = -3  # the channel's last transfer was not waited for
BAD_MASK = -4  # the core is not in the mask, or the mask names a core outside the run
DISAGREES = -5  # the members of a broadcast give different work or caps
EARLY = -6  # it would begin before the DDR's clock: the chip advanced too far


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
    slot = awaiting(record, core, mask)
    if slot == NONE:
        slot = new_transfer(record, mask, work_bytes, cap_units)
    elif record[slot + WORK_BYTES] != work_bytes or record[slot + CAP] != cap_units:
        return DISAGREES
    join(record, slot, core, port, time)
    return record[slot + ID]


def channel_address(record: Record, core: int, channel: int) -> int:
    """Return the address of a core's channel."""
    return record[FIRST_CHANNEL] + core * record[CHANNELS] + channel


def awaiting(record: Record, core: int, mask: int) -> int:
    """Return the slot of the oldest broadcast with this mask that the core has not joined."""
    best = NONE
    for slot in range(record[FIRST_SLOT], record[END_SLOT], record[SLOT_SIZE]):
        same = record[slot + STATE] == GATHERING and record[slot + MASK] == mask
        awaits = (record[slot + MISSING] >> core) & 1 == 1
        older = best == NONE or record[slot + ID] < record[best + ID]
        if same and awaits and older:
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


def completion(record: Record, core: int, channel: int) -> int:
    """Return the cycle a channel's transfer completed at and free the channel, or a reason.

    IN_FLIGHT: not known yet. IDLE: nothing was started on the channel since the last wait.
    """
    port = channel_address(record, core, channel)
    time = record[port]
    if time >= 0:
        record[port] = IDLE
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


def burst_bytes(address: int, rows: int, row_bytes: int, stride: int, burst: int) -> int:
    """Return the DDR traffic, in bytes, of `rows` rows `stride` bytes apart, in whole bursts.

    Adjacent rows count as one run. Otherwise a burst that two rows share counts for both. All
    sizes are positive; the stride may also be 0 or negative.
    """
    if stride == row_bytes:
        return bursts(address % burst, rows * row_bytes, burst) * burst
    # A row's bursts depend on where in a burst it starts, and these phases repeat after at most
    # burst / 4 rows, as addresses and strides are words: sum one period, then the rest.
    first = address % burst
    step = stride % burst  # 0 or more, as % rounds down
    period = 0
    in_period = 0
    phase = first
    while period < rows and (period == 0 or phase != first):
        in_period += bursts(phase, row_bytes, burst)
        phase = (phase + step) % burst
        period += 1
    in_rest = 0
    phase = first
    for _ in range(rows % period):
        in_rest += bursts(phase, row_bytes, burst)
        phase = (phase + step) % burst
    return (rows // period * in_period + in_rest) * burst


def bursts(phase: int, run_bytes: int, burst: int) -> int:
    """Return how many bursts a run of bytes touches that starts `phase` bytes into one."""
    return (phase + run_bytes + burst - 1) // burst


def units_per_cycle(bytes_per_cycle: float) -> int:
    """Return a rate in whole units of 2**-16 byte per cycle."""
    return math.floor(bytes_per_cycle * UNITS_PER_BYTE)


class Finished(NamedTuple):
    """A transfer that has ended: times in cycles, `bytes` of DDR traffic in whole bursts.

    `mask` has a bit for each core that takes part; `channels` gives each one's (core, channel).
    """

    id: int
    mask: int
    channels: tuple[tuple[int, int], ...]
    bytes: int
    first_request: int
    last_request: int
    begin: int
    end: int


class Events:
    """The transfers and barriers of one run: owns the record, keeps what has ended in `finished`.

    Ids count up in the order of the starts and only name transfers: no time depends on them.
    """

    def __init__(self, machine: Machine, cores: int) -> None:
        self.record = new_record(
            cores,
            machine.dma.channels,
            units_per_cycle(machine.ddr.bytes_per_cycle * machine.ddr.efficiency),
            units_per_cycle(machine.dma.bytes_per_cycle),
            machine.dma.launch_cycles,
            machine.barrier.cycles,
        )
        self.finished: list[Finished] = []

    @property
    def clock(self) -> int:
        """The cycle that DDR time has reached."""
        return self.record[CLOCK]

    @property
    def ddr_bytes(self) -> int:
        """Bytes moved by all transfers that have ended; a broadcast counts once."""
        return self.record[DDR_BYTES]

    def start(
        self, core: int, channel: int, time: int, mask: int, work_bytes: int, cap_units: int = 0
    ) -> int:
        """Start a transfer at cycle `time`, or join its broadcast; return the transfer's id.

        `mask`: the cores that take part. `work_bytes`: DDR traffic, 0 < work_bytes < 2**46.
        `cap_units`: the transfer's own limit in units per cycle, 0 for none. A program's mistake
        returns BUSY, BAD_MASK or DISAGREES instead. RuntimeError: the DDR is already past it.
        """
        result = start(self.record, core, channel, time, mask, work_bytes, cap_units)
        if result == EARLY:
            raise RuntimeError(
                f"core {core} starts a transfer at cycle {time}, but the DDR is already at cycle "
                f"{self.clock}: advance() was called while the core could still run"
            )
        return result

    def completion(self, core: int, channel: int) -> int:
        """Wait for a channel: return the cycle its transfer completed at and free the channel.

        IN_FLIGHT (-1): not known yet. IDLE (-2): nothing was started since the last wait.
        """
        return completion(self.record, core, channel)

    def missing_members(self, core: int, channel: int) -> int:
        """Return the bit mask of the cores that the channel's broadcast still waits for."""
        return missing_members(self.record, core, channel)

    def advance(self) -> int:
        """Move DDR time to the next end of a transfer; return its id, or NONE (-1) if none can end.

        Call it only when every core waits or has halted.
        """
        transfer = advance(self.record)
        if transfer != NONE:
            self.finished.append(self.last_ended())
        return transfer

    def last_ended(self) -> Finished:
        """Return the transfer that ended last, from its slot."""
        record = self.record
        slot = record[LAST_ENDED]
        ports = [
            record[slot + MEMBER_CHANNELS + core] - record[FIRST_CHANNEL]
            for core in range(record[CORES])
            if record[slot + MASK] >> core & 1
        ]
        return Finished(
            id=record[slot + ID],
            mask=record[slot + MASK],
            channels=tuple(divmod(port, record[CHANNELS]) for port in ports),
            bytes=record[slot + WORK_BYTES],
            first_request=record[slot + FIRST_REQUEST],
            last_request=record[slot + LAST_REQUEST],
            begin=record[slot + BEGIN],
            end=record[CLOCK],
        )

    def arrive(self, core: int, time: int) -> None:
        """Note that a core reached the barrier at cycle `time`."""
        arrive(self.record, core, time)

    def barrier_release(self) -> int:
        """Return the cycle at which all cores go on, or NONE (-1) while one is still missing."""
        return barrier_release(self.record)
