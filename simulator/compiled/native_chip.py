"""A run of all cores as machine code: the chip's compiled loop, its threads and its slices.

Called by the chip when its cores are compiled. Python comes back several times a second, to look
for an interrupt and to report progress, when a log is full, and when a core needs it.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from typing import Any

import numpy as np

from isa.errors import UsageError
from simulator.chip_record import (
    CHANNELS,
    CORE_CHANNEL,
    CORE_CODE,
    CORE_CYCLE,
    CORE_PACKET,
    CORE_QUEUED,
    CORE_SETTLED,
    CORE_SLICE,
    CORE_STATUS,
    CORES,
    FINISHED_ROWS,
    HOST_DESCRIPTOR,
    HOST_NUMBERS,
    HOST_RECORD,
    STALL_ROWS,
    core_address,
)
from simulator.compiled import ir, rounds
from simulator.compiled.cache import cached
from simulator.compiled.core import CompiledCore
from simulator.compiled.fingerprint import code_key
from simulator.compiled.integer_code import IntegerCode
from simulator.compiled.native import Library, from_object, to_object
from simulator.compiled.pace import Pace
from simulator.compiled.plan import Code
from simulator.compiled.primitives import can_wait, now
from simulator.compiled.record import NUMBERS, aligned
from simulator.events import Events
from simulator.logs import STALL_CORE, STALL_SIZE, Log
from simulator.memory import Memory

Progress = Callable[[int, int], None]

VARIABLE = "FTM7004_THREADS"
"""Environment variable that says how many threads of the host run the cores."""

LONGEST_NANOSECONDS = 200_000_000
"""Of a slice, where the host is slower than expected."""


class NativeChip:
    """The cores of one run and what their threads share, from a round's beginning on."""

    def __init__(
        self,
        events: Events,
        cores: Sequence[CompiledCore],
        ddr: Memory,
        limit: int,
        timing_only: bool = False,
    ) -> None:
        self.events, self.ddr = events, ddr
        self.cores = sorted(cores, key=lambda core: core.number)
        self._pace = Pace(host_threads(len(cores)))
        self.stalls = Log(STALL_SIZE)
        self._record = _integers(len(events.record))
        self._record[:] = events.record
        self._record[STALL_ROWS] = 0
        self._team = _integers(rounds.TAKEN + rounds.LINE * len(cores))
        self._team[rounds.RECORD] = self._record.ctypes.data
        self._team[rounds.RUN] = self.cores[0].address
        self._team[rounds.LIMIT] = limit
        self._team[rounds.DDR_WORDS] = ddr.words.ctypes.data
        self._team[rounds.TIMING_ONLY] = timing_only
        for core in self.cores:
            at = core_address(self._record, core.number)
            self._record[at + HOST_RECORD] = core.record.ctypes.data
            self._record[at + HOST_NUMBERS] = core.numbers[NUMBERS[0]].ctypes.data
            self._record[at + HOST_DESCRIPTOR] = core.descriptor.ctypes.data
            self._record[at + CORE_STATUS] = int(core.status)
            self._record[at + CORE_CHANNEL] = core.channel
            self._record[at + CORE_PACKET] = core.blocked_packet
            self._record[at + CORE_CYCLE] = core.cycle
            self._record[at + CORE_QUEUED] = self._record[at + CORE_SETTLED] = 0

    def run(self, progress: Progress | None) -> int:
        """Run to the end, or to where Python has to go on; return the last round's outcome.

        The cores and the record of the events then are as compiled code left them.
        """
        outcome = rounds.SLICE_OVER
        while outcome in (rounds.SLICE_OVER, rounds.FULL):
            self._make_room()
            self._slice()
            began, before = time.perf_counter(), self._issued()
            outcome = self._work(self._pace.threads)
            if outcome == rounds.SLICE_OVER:
                self._pace.note(self._issued() - before, time.perf_counter() - began)
                self._report(progress)
                self._allow_masked()
        self.events.record = self._record.tolist()
        rows = self.stalls.rows(self.events.record[STALL_ROWS])
        for core in self.cores:
            at = core_address(self.events.record, core.number)
            core.take_position(*self.events.record[at : at + CORE_CYCLE])
            core.logged.append(rows[rows[:, STALL_CORE] == core.number])
        return outcome

    def _allow_masked(self) -> None:
        """Compile the second set of functions for cores that ask for it."""
        for core in self.cores:
            if self._record[core_address(self._record, core.number) + CORE_CODE] == Code.MASKS:
                core.allow_masked()

    def _make_room(self) -> None:
        cores, channels = int(self._record[CORES]), int(self._record[CHANNELS])
        self.events.log.make_room(int(self._record[FINISHED_ROWS]), cores * channels)
        self.stalls.make_room(int(self._record[STALL_ROWS]), cores)
        for log, address, room in (
            (self.events.log, rounds.FINISHED_LOG, rounds.FINISHED_ROOM),
            (self.stalls, rounds.STALL_LOG, rounds.STALL_ROOM),
        ):
            self._team[address] = log.flat.ctypes.data
            self._team[room] = len(log.flat) // log.size

    def _slice(self) -> None:
        """Let every core run for another budget of packets, if that does not take too long."""
        for core in self.cores:
            at = core_address(self._record, core.number)
            self._record[at + CORE_SLICE] = core.numbers["issue"][0] + self._pace.budget
        self._team[rounds.DEADLINE] = now(self._team, rounds.MOMENT) + LONGEST_NANOSECONDS

    def _issued(self) -> int:
        return sum(int(core.numbers["issue"][0]) for core in self.cores)

    def _report(self, progress: Progress | None) -> None:
        if progress is not None:
            for core in self.cores:
                progress(core.number, int(core.numbers["issue"][0] + core.numbers["stalled"][0]))

    def _work(self, threads: int) -> int:
        """Run rounds on so many threads, this one being one of them; return how they ended."""
        team, outcome = self._team, rounds.GO_ON
        team[rounds.THREADS], team[rounds.ABANDONED] = threads, 0
        rounds.open_round(team, len(self.cores))
        run = work()
        others = [Thread(target=self._take_part, args=(run, n)) for n in range(1, threads)]
        try:
            for other in others:
                other.start()
            outcome = self._take_part(run, 0)
        finally:
            # After an interrupt, the others must not wait for this one.
            team[rounds.ABANDONED] = 1
            for other in others:
                if other.ident is not None:
                    other.join()
        return outcome

    def _take_part(self, run: Any, thread: int) -> int:
        """Be one of the threads; as this object's method it keeps alive what they work on."""
        return int(run(self._team.ctypes.data, thread))


def _integers(count: int) -> Any:
    return aligned(8 * count).view(np.int64)


def host_threads(cores: int) -> int:
    """Return how many threads run so many cores: FTM7004_THREADS, or what the host has."""
    asked = os.environ.get(VARIABLE)
    if asked is not None and not (asked.isdecimal() and int(asked) > 0):
        raise UsageError(f"{VARIABLE} must be a number of threads of at least 1, got '{asked}'")
    return min(cores, int(asked) if asked is not None else _processors())


def _processors() -> int:
    if not can_wait():
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def work() -> Any:
    """Return the chip's compiled loop, the same one for all threads."""
    with _lock:  # a second library would be dropped, and its code with it, while a thread is in it
        if not _libraries:
            _libraries.append(from_object(cached(code_key(["chip"]), _code)))
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    return function(_libraries[0].address("work"))


_libraries: list[Library] = []
_lock = Lock()


def _code() -> bytes:
    module = ir.Module()
    IntegerCode(module).add(rounds.work, exported=True)
    return to_object(module)
