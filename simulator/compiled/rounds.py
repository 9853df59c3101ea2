"""The chip's loop over its cores as machine code: one call of `work` for each thread of the host.

In a *round* every running core runs to its next blocking point; its starts are queued and their
data copied at once. When all cores are blocked, one thread passes the starts on in the order of the
cores, lets go on what can (`simulator.release`), and the next round begins. All of it is functions
in integers, which `simulator.compiled.native_chip` compiles and calls; values of a race-free
program do not depend on time, so it does not matter which thread is ahead.
"""

from __future__ import annotations

from isa.descriptor import DESCRIPTOR_WORDS
from simulator.chip_record import (
    ARRIVED,
    CHANNEL,
    CHANNELS,
    CORE_CAUSE,
    CORE_CHANNEL,
    CORE_CODE,
    CORE_CYCLE,
    CORE_PACKET,
    CORE_QUEUED,
    CORE_SETTLED,
    CORE_SLICE,
    CORE_STALL,
    CORE_STATUS,
    CORE_TRANSFER,
    CORES,
    CULPRIT,
    DDR_NUMBER,
    FINISHED_ROWS,
    FROM_MEMORY,
    HOST_DESCRIPTOR,
    HOST_NUMBERS,
    HOST_RECORD,
    IDLE,
    REFUSAL,
    SM_NUMBER,
    STALL_ROWS,
    STARTED_BY,
    TIME,
    TO_MEMORY,
    WORDS,
    Record,
    channel_address,
    core_address,
    entry_address,
    queue_address,
)
from simulator.compiled.copying import copy, mark_unknown
from simulator.compiled.plan import Code
from simulator.compiled.primitives import (
    call,
    fetch_add,
    flags_at,
    let_others_run,
    now,
    pause,
    record_at,
    see,
    show,
    sleep,
    words_at,
)
from simulator.compiled.record import NUMBERS
from simulator.logs import (
    STALL_CAUSE,
    STALL_CORE,
    STALL_CYCLES,
    STALL_PACKET,
    STALL_SIZE,
    STALL_TRANSFER,
)
from simulator.release import AT_BARRIER, NOTHING_STARTED, RUNNING, WAITING, arrive, unblock
from simulator.requests import LEGAL, prepare
from simulator.starts import launch
from simulator.state import Status

HALTED = int(Status.HALTED)
STUCK = HALTED + 1
"""Status of a core that Python has to look at."""

LIMIT_CODE, START_CODE, WAIT_CODE = int(Code.LIMIT), int(Code.START), int(Code.WAIT)
BARRIER_CODE, HALT_CODE = int(Code.BARRIER), int(Code.HALT)
MASKS_CODE = int(Code.MASKS)
REFUSED = max(Code) + 1
"""Instead of a code: a start that is not legal."""

# Fields of a core's own record
NEXT_CHANNEL, ISSUE = NUMBERS.index("channel"), NUMBERS.index("issue")
STALLED, CORE_LIMIT = NUMBERS.index("stalled"), NUMBERS.index("limit")
ARRAY, SCALAR = NUMBERS.index("array"), NUMBERS.index("scalar")
CONFLICT = NUMBERS.index("conflict")
LAST, SHADOW = NUMBERS.index("last"), NUMBERS.index("shadow")

# What the threads share. Fixed while they run:
RECORD = 0  # address of the chip's flat record
RUN = 1  # address of the program's code
LIMIT = 2  # cycle that no core may reach
THREADS = 3
FINISHED_LOG = 4  # addresses
STALL_LOG = 5
FINISHED_ROOM = 6  # rows
STALL_ROOM = 7
DDR_WORDS = 8  # address
TIMING_ONLY = 9  # 1: transfers move nothing
DEADLINE = 10  # of the slice, in nanoseconds of the host's clock
# What changes, each in a cache line of its own:
LINE = 8
MET = 16  # threads that have no more to do in this round
ROUND = 24
OUTCOME = 32
ABANDONED = 33  # 1: Python gives up
MOMENT = 34  # scratch of the clock, two integers
TAKEN = 40  # a line for each core: above 0, a thread runs it in this round

# Outcome of a round
GO_ON = 0
SLICE_OVER = 1  # a core has run for long, or it is late: let Python look around
FULL = 2  # a log needs room
STOPPED = 3  # Python has to finish the round
BLOCKED = 4  # no core can go on
DONE = 5

ROUNDS_A_LOOK = 16
"""Rounds between two looks at the clock."""

SPINS = 500
"""Looks at what others do, a few tens of microseconds, before a thread offers its processor."""

OFFERS = 50
"""Offers of the processor before a thread sleeps."""

NAP_MICROSECONDS = 50


def work(address: int, thread: int) -> int:
    """Run rounds together with the other threads of a team; return how they ended."""
    team = record_at(address)
    record = record_at(team[RECORD])
    outcome = GO_ON
    while outcome == GO_ON:
        run_cores(team, record, thread)
        this_round = see(team, ROUND)
        if fetch_add(team, MET, 1) == team[THREADS] - 1:
            open_round(team, record[CORES])
            team[OUTCOME] = settle(team, record)
            show(team, ROUND, this_round + 1)
        else:
            await_round(team, this_round)
        outcome = team[OUTCOME] if see(team, ABANDONED) == 0 else STOPPED
    return outcome


def open_round(team: Record, cores: int) -> None:
    """Let threads meet, and take cores, anew."""
    team[MET] = 0
    for core in range(cores):
        team[TAKEN + core * LINE] = 0


def await_round(team: Record, this_round: int) -> None:
    """Wait until the last thread has ended a round; burn no processor for long."""
    looks = 0
    while see(team, ROUND) == this_round and see(team, ABANDONED) == 0:
        looks += 1
        if looks < SPINS:
            pause()
        elif looks < SPINS + OFFERS:
            let_others_run()
        else:
            sleep(NAP_MICROSECONDS)


# What every thread does -------------------------------------------------------------------------


def run_cores(team: Record, record: Record, thread: int) -> None:
    """Run the cores of this round that no other thread runs.

    A thread has its own cores, whose memories so stay in its processor's cache; it goes through
    them first, and then helps with those of the threads behind it.
    """
    for behind in range(team[THREADS]):
        owner = (thread + behind) % team[THREADS]
        for core in range(owner, record[CORES], team[THREADS]):
            running = record[core_address(record, core) + CORE_STATUS] == RUNNING
            if running and fetch_add(team, TAKEN + core * LINE, 1) == 0:
                run_core(team, record, core)


def run_core(team: Record, record: Record, core: int) -> None:
    """Run a core to its next blocking point, to the end of its slice, or until it is stuck."""
    at = core_address(record, core)
    numbers = record_at(record[at + HOST_NUMBERS])
    numbers[CORE_LIMIT] = min(team[LIMIT], record[at + CORE_SLICE] + numbers[STALLED])
    code = START_CODE
    while code == START_CODE:
        code = call(team[RUN], record[at + HOST_RECORD])
        if code == START_CODE:
            code = begin(team, record, core, numbers)
    record[at + CORE_CODE] = code
    record[at + CORE_CYCLE] = numbers[ISSUE] + numbers[STALLED]
    status = status_after(code, numbers[CORE_LIMIT] < team[LIMIT])
    record[at + CORE_STATUS] = status
    if status != RUNNING and status != STUCK:
        record[at + CORE_CHANNEL] = numbers[NEXT_CHANNEL] if code == WAIT_CODE else 0
        record[at + CORE_PACKET] = numbers[LAST]


def status_after(code: int, sliced: int) -> int:
    """Return the status of a core whose code returned."""
    if code == WAIT_CODE:
        return WAITING
    if code == BARRIER_CODE:
        return AT_BARRIER
    if code == HALT_CODE:
        return HALTED
    if code == MASKS_CODE or (code == LIMIT_CODE and sliced != 0):
        return RUNNING
    return STUCK


def begin(team: Record, record: Record, core: int, numbers: Record) -> int:
    """Queue a start and move its data; return START_CODE, or REFUSED and change nothing."""
    at = core_address(record, core)
    queued = record[at + CORE_QUEUED]
    channel = numbers[NEXT_CHANNEL]
    if is_busy(record, core, channel) != 0:
        return REFUSED
    entry = entry_address(record, core, channel)
    # A transfer starts before its packet stalls on banks.
    record[entry + TIME] = numbers[ISSUE] - 1 + numbers[STALLED] - numbers[CONFLICT]
    record[entry + CHANNEL] = channel
    record[entry + STARTED_BY] = numbers[LAST]
    words = words_at(record[at + HOST_DESCRIPTOR])
    for word in range(DESCRIPTOR_WORDS):
        record[entry + WORDS + word] = words[word]
    if prepare(record, core, entry) != LEGAL:
        return REFUSED
    record[queue_address(record, core) + queued] = channel
    record[at + CORE_QUEUED] = queued + 1
    move(team, record, entry, numbers)
    return START_CODE


def is_busy(record: Record, core: int, channel: int) -> int:
    """Return 1 if a core's channel was not waited for, else 0; its queue has room for all."""
    if record[channel_address(record, core, channel)] != IDLE:
        return 1
    queue = queue_address(record, core)
    for number in range(record[core_address(record, core) + CORE_QUEUED]):
        if record[queue + number] == channel:
            return 1
    return 0


def move(team: Record, record: Record, entry: int, numbers: Record) -> None:
    """Move a transfer's data; where numbers are left out, note what nobody knows any more."""
    if team[TIMING_ONLY] == 0:
        source = words_at(words_address(team, numbers, record[entry + FROM_MEMORY]))
        target = words_at(words_address(team, numbers, record[entry + TO_MEMORY]))
        copy(record, entry, source, target)
    elif record[entry + TO_MEMORY] == SM_NUMBER and numbers[SHADOW] != 0:
        mark_unknown(record, entry, flags_at(numbers[SHADOW]))


def words_address(team: Record, numbers: Record, memory: int) -> int:
    """Return the address on the host of the words of a memory, as a core sees it."""
    if memory == DDR_NUMBER:
        return team[DDR_WORDS]
    return numbers[SCALAR] if memory == SM_NUMBER else numbers[ARRAY]


# What one thread does between rounds ------------------------------------------------------------


def settle(team: Record, record: Record) -> int:
    """Pass on what the cores did, and let go on what can; return the outcome of the round."""
    for core in range(record[CORES]):
        if record[core_address(record, core) + CORE_STATUS] == RUNNING:
            return SLICE_OVER
    if pass_on(record) == STOPPED:
        return STOPPED
    if lacks_room(team, record) != 0:
        return FULL
    released = unblock(record, record_at(team[FINISHED_LOG]))
    if released == NOTHING_STARTED:
        return BLOCKED
    if released == 0:
        return DONE if all_halted(record) != 0 else BLOCKED
    for core in range(record[CORES]):
        if (released >> core) & 1 == 1:
            resume(record, core, record_at(team[STALL_LOG]))
    return SLICE_OVER if is_late(team) != 0 else GO_ON


def is_late(team: Record) -> int:
    """Return 1 if the slice has taken too long; the clock is not read in every round."""
    if team[ROUND] % ROUNDS_A_LOOK != 0:
        return 0
    return 1 if now(team, MOMENT) > team[DEADLINE] else 0


def pass_on(record: Record) -> int:
    """Pass on the cores' starts and arrivals in the order of the cores; return how that ended.

    STOPPED: `CULPRIT` is stuck, or its start is refused for the reason in `REFUSAL`.
    """
    for core in range(record[CORES]):
        at = core_address(record, core)
        while record[at + CORE_SETTLED] < record[at + CORE_QUEUED]:
            channel = record[queue_address(record, core) + record[at + CORE_SETTLED]]
            identity = launch(record, core, entry_address(record, core, channel))
            record[at + CORE_SETTLED] += 1
            if identity < 0:
                record[CULPRIT] = core
                record[REFUSAL] = identity
                return STOPPED
        record[at + CORE_SETTLED] = 0
        record[at + CORE_QUEUED] = 0
        if record[at + CORE_STATUS] == STUCK:
            record[CULPRIT] = core
            record[REFUSAL] = LEGAL
            return STOPPED
        if record[at + CORE_STATUS] == AT_BARRIER and (record[ARRIVED] >> core) & 1 == 0:
            arrive(record, core, record[at + CORE_CYCLE] - 1)
    return GO_ON


def lacks_room(team: Record, record: Record) -> int:
    """Return 1 if what the next release may note does not fit a log, else 0."""
    finished = record[FINISHED_ROWS] + record[CORES] * record[CHANNELS] > team[FINISHED_ROOM]
    stalls = record[STALL_ROWS] + record[CORES] > team[STALL_ROOM]
    return 1 if finished or stalls else 0


def all_halted(record: Record) -> int:
    """Return 1 if every core has halted, else 0."""
    for core in range(record[CORES]):
        if record[core_address(record, core) + CORE_STATUS] != HALTED:
            return 0
    return 1


def resume(record: Record, core: int, log: Record) -> None:
    """Book the cycles that a core stood still."""
    at = core_address(record, core)
    if record[at + CORE_STALL] == 0:
        return
    numbers = record_at(record[at + HOST_NUMBERS])
    numbers[STALLED] += record[at + CORE_STALL]
    row = record[STALL_ROWS] * STALL_SIZE
    log[row + STALL_CORE] = core
    log[row + STALL_PACKET] = record[at + CORE_PACKET]
    log[row + STALL_CAUSE] = record[at + CORE_CAUSE]
    log[row + STALL_TRANSFER] = record[at + CORE_TRANSFER]
    log[row + STALL_CYCLES] = record[at + CORE_STALL]
    record[STALL_ROWS] += 1
