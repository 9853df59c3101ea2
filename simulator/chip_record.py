"""The flat record of all that happens between cores: what lies where in it.

One sequence of integers holds all that the event code knows, so that its functions run as they are
over a Python list or an int64 array, and are compiled from the same source. Every value fits in 64
bits. Used by `sharing`, `starts`, `clashes`, `release`, `requests` and, compiled,
`compiled.rounds`.

    header | resources: DDR, then the DMA of each core | channels, core by core | the transfer that
    each channel was last given | cores | transfer slots

A *slot*, a *resource*, a *core* and an *entry* are named by the address of their first integer.
"""

from __future__ import annotations

from collections.abc import Sequence

from isa.descriptor import DESCRIPTOR_WORDS
from isa.machine import Machine

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
TRANSPOSE_RATE = 6  # units per cycle, each transfer
BURST_BYTES = 7
FIRST_CHANNEL = 8  # address of core 0's channel 0
FIRST_CORE = 9  # address
FIRST_SLOT = 10  # address
SLOT_SIZE = 11
CORE_SIZE = 12
MEMORIES = 13  # first byte and end of AM, SM and DDR, in this order
# Header. What changes:
END_SLOT = 19  # address behind the last slot in use
CLOCK = 20  # the cycle the DDR has reached
NEXT_ID = 21
STALE = 22  # 1: a transfer began or ended since the rates were computed
DDR_BYTES = 23  # moved by all transfers that have ended
LAST_ENDED = 24  # slot of the transfer that ended last; readable until the next start
LAST_JOINED = 25  # slot of the transfer that was started or joined last
ARRIVED = 26  # cores waiting at the barrier, bit mask
LATEST_ARRIVAL = 27
CULPRIT = 28  # number of the core that did what was refused last
FINISHED_ROWS = 29  # rows of the log of transfers that have ended
STALL_ROWS = 30  # rows of the log of stalls
REFUSAL = 31  # why its start was refused
READING = 32  # how many transfers in flight read DDR; then first byte and end of DDR that none of
WRITING = 35  # them goes beyond. The same for those that write DDR
DDR = 40  # address of the first resource, behind the header

# A resource. A slot opens with these fields too: a transfer's own cap is a resource of its own.
LEFT = 0  # units per cycle not given away yet
USERS = 1  # transfers that still share it
SERVED = 2  # cores whose transfers use it, bit mask (0 for a transfer's own cap)
RESOURCE_SIZE = 3

# A slot, behind the three fields of its cap
STATE = 3
CAP = 4  # units per cycle, 0 for none
REMAINING = 5  # units
RATE = 6  # units per cycle
MISSING = 7  # cores that have not issued their start yet, bit mask
OWNER = 8  # address of its lowest member's channel: settles the order within a cycle
SOURCE_PLANE = 9  # the same for all members
# What is kept of a transfer that has ended: all from here on
ID = 13
MASK = 14  # the cores that take part, bit mask
WORK_BYTES = 15
FIRST_REQUEST = 16
LAST_REQUEST = 17
BEGIN = 18  # cycle
END = 19  # cycle, as foreseen under the present rates
MODE = 20  # TRANSPOSE and BROADCAST of the descriptor
SOURCE = 21  # address
DESTINATION = 22  # address, of the lowest member
PACKET = 23  # that started it, on the lowest member
MEMBER_CHANNELS = 24  # address of each core's channel, one integer per core

# STATE
FREE = 0
GATHERING = 1  # members of a broadcast are still missing
PENDING = 2  # requested, begins at BEGIN
ACTIVE = 3

# A channel holds the cycle its transfer completed at, or one of these
IN_FLIGHT = -1
IDLE = -2

NONE = -1  # no such slot, transfer or time

# A core. Status numbers are those of `simulator.state.Status`.
CORE_STATUS = 0
CORE_CHANNEL = 1  # that it waits for
CORE_PACKET = 2  # that blocked it
CORE_CYCLE = 3  # at which it blocked, or at which it goes on
CORE_CAUSE = 4  # why it stood still before it went on: number of the cause in `result.CAUSES`
CORE_TRANSFER = 5  # that it stood still for; NONE at a barrier
CORE_STALL = 6  # cycles it stood still
# The compiled engine's own:
CORE_SETTLED = 7  # starts in the queue that have been passed on to the DDR
CORE_CODE = 8  # why its code returned
CORE_SLICE = 9  # issue time at which it returns to Python
HOST_RECORD = 10  # address on the host of its record
HOST_NUMBERS = 11  # and of the first of the record's numbers
HOST_DESCRIPTOR = 12  # and of the descriptor that it starts
CORE_QUEUED = 13  # starts in the queue
# Of its transfers in flight, those started and not waited for:
CORE_READS = 14  # channels whose transfer reads DDR, bit mask
CORE_WRITES = 15  # channels whose transfer writes DDR, bit mask; every transfer does one or both
ENTRIES = 16  # one a channel; then the queue: channels, in the order of their starts; then for each
# channel first byte and end of its transfer's side in AM or SM

# An entry: the last start of a channel, which stands for the transfer until its wait
TIME = 0
CHANNEL = 1
STARTED_BY = 2  # packet
WORDS = 3  # of the descriptor, unsigned
TRANSPOSED = WORDS + DESCRIPTOR_WORDS
GROUP = TRANSPOSED + 1  # the mask of a broadcast, 0 for point-to-point
FROM = GROUP + 1  # a plane
TO = FROM + 4  # a plane
FROM_MEMORY = TO + 4  # number in MEMORIES
TO_MEMORY = FROM_MEMORY + 1
FROM_FIRST = TO_MEMORY + 1  # lowest byte address of the source
FROM_END = FROM_FIRST + 1
TO_FIRST = FROM_END + 1
TO_END = TO_FIRST + 1
TRAFFIC = TO_END + 1  # bytes on the DDR, in whole bursts
ENTRY_SIZE = 32

# A plane, in an entry or a slot
ADDRESS = 0
ROWS = 1
ROW_WORDS = 2
STRIDE = 3  # bytes
PLANE_SIZE = 4

AM_NUMBER = 0
SM_NUMBER = 1
DDR_NUMBER = 2
MEMORY_COUNT = 3
MEMORY_NAMES = ("AM", "SM", "DDR")  # by number


def units_per_cycle(bytes_per_cycle: float) -> int:
    """Return a rate in whole units of 2**-16 byte per cycle."""
    return int(bytes_per_cycle * UNITS_PER_BYTE)


def new_record(
    machine: Machine, cores: int, extents: Sequence[tuple[int, int]] = ((0, 0),) * MEMORY_COUNT
) -> Record:
    """Return the record of a chip at rest; `extents`: first byte and end of AM, SM and DDR."""
    channels = machine.dma.channels
    first_channel = DDR + RESOURCE_SIZE * (1 + cores)
    first_core = first_channel + 2 * cores * channels
    first_core += -first_core % 8  # a cache line, where the record begins with one
    core_size = ENTRIES + channels * (ENTRY_SIZE + 3)
    core_size += -core_size % 8
    record = [0] * (first_core + cores * core_size)
    record[CORES], record[CHANNELS] = cores, channels
    record[LAUNCH_CYCLES] = machine.dma.launch_cycles
    record[BARRIER_CYCLES] = machine.barrier.cycles
    record[DDR_RATE] = units_per_cycle(machine.ddr.bytes_per_cycle * machine.ddr.efficiency)
    record[DMA_RATE] = units_per_cycle(machine.dma.bytes_per_cycle)
    record[TRANSPOSE_RATE] = units_per_cycle(machine.dma.transpose_bytes_per_cycle)
    record[BURST_BYTES] = machine.ddr.burst_bytes
    record[FIRST_CHANNEL], record[FIRST_CORE] = first_channel, first_core
    record[FIRST_SLOT] = record[END_SLOT] = len(record)
    record[SLOT_SIZE], record[CORE_SIZE] = MEMBER_CHANNELS + cores, core_size
    record[MEMORIES : MEMORIES + 2 * MEMORY_COUNT] = [n for extent in extents for n in extent]
    record[READING + 1] = record[WRITING + 1] = NEVER
    record[DDR + SERVED] = (1 << cores) - 1
    for core in range(cores):
        record[DDR + RESOURCE_SIZE * (1 + core) + SERVED] = 1 << core
    record[first_channel : first_channel + cores * channels] = [IDLE] * (cores * channels)
    # A transfer in flight keeps at least one channel busy: as many slots as channels suffice.
    return record + [0] * (cores * channels * record[SLOT_SIZE])


def channel_address(record: Record, core: int, channel: int) -> int:
    """Return the address of a core's channel."""
    return record[FIRST_CHANNEL] + core * record[CHANNELS] + channel


def given_address(record: Record, core: int, channel: int) -> int:
    """Return the address of the id of the transfer that a core's channel was last given."""
    return channel_address(record, core, channel) + record[CORES] * record[CHANNELS]


def core_address(record: Record, core: int) -> int:
    """Return the address of a core."""
    return record[FIRST_CORE] + core * record[CORE_SIZE]


def entry_address(record: Record, core: int, channel: int) -> int:
    """Return the address of the entry of a core's channel."""
    return core_address(record, core) + ENTRIES + channel * ENTRY_SIZE


def queue_address(record: Record, core: int) -> int:
    """Return the address of a core's queue: the channels it has started, in their order."""
    return core_address(record, core) + ENTRIES + record[CHANNELS] * ENTRY_SIZE


def inner_address(record: Record, core: int) -> int:
    """Return the address of the extent in AM or SM of the transfer on a core's channel 0."""
    return queue_address(record, core) + record[CHANNELS]
