"""The chip: cores, one DDR, DMA transfers and barriers, in one consistent time.

Each core runs ahead to its next blocking point, its DMA starts queued with their cycles; DDR time
advances only when every core is blocked. So cores need no stepping in time order, and the order
in which they run does not matter. All timing of transfers and barriers is in `events`.

Cores that run as machine code can leave a window of cycles to the reference engine, which traces
it. Each goes through it within its round; so ids, logs and errors are those of any other run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from isa.descriptor import BROADCAST, TRANSPOSE, TransferRequest, decode
from isa.errors import SimulationError
from isa.machine import Machine
from isa.program import Program
from simulator.checking.checker import Checker
from simulator.checking.in_flight import clash_text
from simulator.chip_record import (
    ARRIVED,
    CHANNEL,
    CORE_CHANNEL,
    CORE_CODE,
    CORE_CYCLE,
    CORE_QUEUED,
    CORE_SETTLED,
    CORE_STALL,
    CORE_STATUS,
    CULPRIT,
    DESTINATION,
    END,
    FROM,
    ID,
    LAST_JOINED,
    MEMORY_NAMES,
    MODE,
    NONE,
    PACKET,
    REFUSAL,
    SOURCE,
    SOURCE_PLANE,
    STARTED_BY,
    TIME,
    core_address,
    entry_address,
    queue_address,
)
from simulator.compiled.core import Compiled, CompiledCore
from simulator.compiled.native_chip import NativeChip
from simulator.compiled.rounds import DONE, STOPPED
from simulator.dma import checked_transfer, plane_at
from simulator.events import BUSY, DISAGREES, Events
from simulator.logs import Transfers
from simulator.memory import Memory, Words
from simulator.reference.core import Core
from simulator.reference.numpy_values import quiet_floats
from simulator.release import NOTHING_STARTED
from simulator.requests import LEGAL, prepare
from simulator.result import CAUSES, ChipResult, Tracer, TransferResult
from simulator.starts import CLASH, launch
from simulator.state import Status
from simulator.window import Cycles, Window

Progress = Callable[[int, int], None]


class Chip:
    """All cores of one run of a program; `ddr` holds its inputs, without it DDR is all 0."""

    def __init__(
        self,
        program: Program,
        machine: Machine,
        *,
        check: bool = False,
        timing_only: bool = False,
        tracer: Tracer | None = None,
        compiled: Compiled | None = None,
        ddr: Words | None = None,
    ) -> None:
        self.program, self.machine, self.timing_only = program, machine, timing_only
        self._extents = [
            (space.base, space.base + (size + 3) // 4 * 4)
            for space, size in (
                (machine.am, machine.am.bytes),
                (machine.sm, machine.sm.bytes),
                (machine.ddr, program.ddr_bytes),
            )
        ]
        self.events = Events(machine, program.cores, self._extents)
        size = 0 if timing_only else program.ddr_bytes
        base = machine.ddr.base
        self.ddr = Memory.make("DDR", base, size) if ddr is None else Memory("DDR", base, ddr)
        self.checker = Checker(program, machine, self.ddr) if check else None
        self._window: Window | None = None
        self.cores: list[Core] = [
            CompiledCore(number, program, machine, self.start, compiled, timing_only, tracer)
            if compiled is not None
            else Core(number, program, machine, self.start, tracer, self.checker, timing_only)
            for number in range(program.cores)
        ]

    # Running ------------------------------------------------------------------------------------

    def run(
        self,
        cycle_limit: int,
        progress: Progress | None = None,
        window: Cycles | None = None,
    ) -> ChipResult:
        """Run to the end and return what happened.

        In the cycles A to B - 1 of a `window` (A, B) compiled cores run on the reference engine.
        Raise SimulationError for a bad address, a deadlock, a cycle past the limit, and in checked
        runs for every broken rule.
        """
        return self._run(cycle_limit, progress, None if window is None else Window(window))

    def states_at(self, cycle: int, cycle_limit: int) -> list[Any]:
        """Run to the end and return each core's state (`state.state_dtype`) as of a cycle.

        That is the state with which it issues its first packet in that cycle or later; None for a
        core that has halted before. It is the same on both engines.
        """
        window = Window((cycle, cycle), keep=True)
        self._run(cycle_limit, None, window)
        return [window.states.get(core.number) for core in self.cores]

    def _run(
        self, cycle_limit: int, progress: Progress | None, window: Window | None
    ) -> ChipResult:
        self._window = window
        with quiet_floats():
            while self._going():
                if not self._run_compiled(cycle_limit, progress):
                    for core in self.cores:
                        self._run_core(core, cycle_limit, progress)
                    self._unblock()
        if self.checker is not None:
            self.checker.finish(self.cores)
        while self.events.advance() != NONE:
            pass
        return self._result()

    def _going(self) -> list[Core]:
        return [core for core in self.cores if core.status is not Status.HALTED]

    def _run_compiled(self, cycle_limit: int, progress: Progress | None) -> bool:
        """Run compiled cores to the end, or to the round in which Python is needed.

        Return False if they cannot run together as machine code now.
        """
        cores = [core for core in self.cores if isinstance(core, CompiledCore)]
        limit: int | None = cycle_limit
        if self._window is not None:
            limit = self._window.native_limit(self._going(), cycle_limit)
        going = [core for core in cores if core.status is not Status.HALTED]
        if not going or limit is None or not all(core.enter() for core in going):
            return False
        native = NativeChip(self.events, cores, self.ddr, limit, self.timing_only)
        outcome = native.run(progress)
        if outcome == STOPPED:
            if self._window is not None:
                for core in native.cores:
                    self._window.tell_stall(core)
            for core in native.cores:
                self._finish_round(core, cycle_limit, progress)
        if outcome != DONE:
            self._unblock()
        return True

    def _finish_round(
        self, core: CompiledCore, cycle_limit: int, progress: Progress | None
    ) -> None:
        """Do what is left of a core's part in the last round: its starts, and where it is stuck."""
        record = self.events.record
        at = core_address(record, core.number)
        first, settled = queue_address(record, core.number), record[at + CORE_SETTLED]
        queue = record[first : first + record[at + CORE_QUEUED]]
        if record[CULPRIT] == core.number and record[REFUSAL] != LEGAL:
            self._refuse_queued(core, queue[settled - 1], record[REFUSAL])
        for channel in queue[settled:]:
            entry = entry_address(record, core.number, channel)
            identity = launch(record, core.number, entry)
            if identity < 0:
                self._refuse_queued(core, channel, identity)
        if core.status is Status.RUNNING:
            core.go_on(record[at + CORE_CODE])
            self._run_core(core, cycle_limit, progress)
        elif not record[ARRIVED] >> core.number & 1:
            self._note_stop(core, cycle_limit)

    def _refuse_queued(self, core: CompiledCore, channel: int, refusal: int) -> NoReturn:
        """Raise the error of a start that the core has left behind."""
        record = self.events.record
        entry = entry_address(record, core.number, channel)
        core.stand_at(record[entry + STARTED_BY], record[entry + TIME])
        raise SimulationError(f"{core.where()}: {self._refused(refusal, core.number, entry)}")

    def _run_core(self, core: Core, cycle_limit: int, progress: Progress | None) -> None:
        if core.status is not Status.RUNNING:
            return
        if self._window is not None:
            self._window.pass_through(core, cycle_limit, progress)
        core.run(cycle_limit, progress)
        self._note_stop(core, cycle_limit)

    def _note_stop(self, core: Core, cycle_limit: int) -> None:
        """Take note of why a core stopped."""
        if core.status is Status.RUNNING:
            raise SimulationError(
                f"{core.where()}: still running at the limit of {cycle_limit:,} cycles; raise it "
                "with --cycle-limit if the kernel is meant to run longer"
            )
        if core.status is Status.AT_BARRIER:
            self.events.arrive(core.number, core.cycle - 1)

    def _unblock(self) -> None:
        """Let at least one core go on, or say why none ever will."""
        for core in self.cores:
            self._tell(core)
        released = self.events.unblock()
        if released == NOTHING_STARTED:
            culprit = self.events.record[CULPRIT]
            core = next(core for core in self.cores if core.number == culprit)
            raise SimulationError(
                f"{core.where()}: waits for channel {core.channel}, on which nothing was "
                "started since its last wait"
            )
        if not released and any(core.status is not Status.HALTED for core in self.cores):
            raise SimulationError(self._deadlock())
        if self.checker is not None:
            self._tell_checker(self.checker, released)
        for core in self.cores:
            if released >> core.number & 1:
                at = core_address(self.events.record, core.number)
                cycle, cause, transfer = self.events.record[at + CORE_CYCLE : at + CORE_STALL]
                core.resume(cycle, CAUSES[cause], transfer)

    def _tell(self, core: Core) -> None:
        """Tell the event code why and since when a core stands still."""
        record = self.events.record
        at = core_address(record, core.number)
        record[at + CORE_STATUS], record[at + CORE_CHANNEL] = int(core.status), core.channel
        record[at + CORE_CYCLE] = core.cycle

    def _tell_checker(self, checker: Checker, released: int) -> None:
        """Tell the checker what the cores that go on have waited for."""
        going = [core for core in self.cores if released >> core.number & 1]
        if any(core.status is Status.AT_BARRIER for core in going):
            checker.barrier()
        for core in going:
            if core.status is Status.WAITING:
                checker.waited(core)

    # Transfers ----------------------------------------------------------------------------------

    def start(self, core: Core, channel: int, words: Sequence[int]) -> None:
        """Start a core's transfer: check the descriptor, queue its time, move its data."""
        entry = self.events.entry(core.number, channel, core.cycle, core.packet, words)
        wrong = prepare(self.events.record, core.number, entry)
        memories = self._memories(core)
        request = decode(words)
        transfer = checked_transfer(request, wrong, memories, core.number, len(self.cores))
        identity = launch(self.events.record, core.number, entry)
        self.events.refuse_early(identity, core.number, core.cycle)
        if self.checker is not None and (identity >= 0 or identity == CLASH):
            self.checker.started(core, channel, transfer)  # knows of more, and names the first
        if identity < 0:
            raise SimulationError(self._refused(identity, core.number, entry))
        if self.timing_only:
            self._forget(core, request)
        else:
            transfer.copy()

    def _memories(self, core: Core) -> tuple[Memory, ...]:
        if not self.timing_only:
            return (core.array_memory, core.scalar_memory, self.ddr)
        extents = zip(MEMORY_NAMES, self._extents, strict=True)
        return tuple(_extent(name, first, end - first) for name, (first, end) in extents)

    def _refused(self, refusal: int, core: int, entry: int) -> str:
        """Say why a start was refused."""
        record = self.events.record
        channel = record[entry + CHANNEL]
        if refusal == CLASH:
            return clash_text(self.program, record, core, channel)
        if refusal == BUSY:
            return f"starts a transfer on channel {channel}, whose last transfer was not waited for"
        if refusal == DISAGREES:
            return "the cores of a broadcast give different sizes"
        first = plane_at(record, record[LAST_JOINED] + SOURCE_PLANE)
        return (
            "the cores of a broadcast must read the same source: "
            f"{first} on one core, {plane_at(record, entry + FROM)} on another"
        )

    def _forget(self, core: Core, request: TransferRequest) -> None:
        """Note, in a timing-only run, that words of SM now hold tensor data nobody knows."""
        plane, memory = request.destination, core.scalar_memory
        if memory.holds(plane.first, plane.end):
            rows = np.arange(plane.rows)[:, None] * plane.stride + plane.address - memory.base
            words = rows // 4 + np.arange(plane.row_words)
            core.forget(words.reshape(-1).tolist())

    # Results ------------------------------------------------------------------------------------

    def release(self) -> None:
        """Let go of all memories, which what the result says of transfers does without."""
        self.ddr = Memory.make(self.ddr.name, self.ddr.base, 0)
        self.cores, self.checker = [], None

    def _deadlock(self) -> str:
        lines = [f"  {self._waits(core)}" for core in self.cores]
        return "deadlock: no core can go on\n" + "\n".join(lines)

    def _waits(self, core: Core) -> str:
        if core.status is Status.HALTED:
            return f"core {core.number} has halted"
        if core.status is Status.AT_BARRIER:
            missing = [c.number for c in self.cores if c.status is not Status.AT_BARRIER]
            return f"{core.where()}: at a barrier that cores {missing} have not reached"
        mask = self.events.missing_members(core.number, core.channel)
        missing = [c.number for c in self.cores if mask >> c.number & 1]
        return (
            f"{core.where()}: waits on channel {core.channel} for a broadcast that cores "
            f"{missing} have not started"
        )

    def _result(self) -> ChipResult:
        ends = [core.cycle for core in self.cores]
        rows = self.events.rows()
        if len(rows):
            ends.append(int(rows[:, END - ID].max()))
        return ChipResult(
            cycles=max(ends),
            cores=tuple(core.result() for core in self.cores),
            transfers=Transfers(rows, self._transfer),
            ddr_bytes=self.events.ddr_bytes,
        )

    def _transfer(self, row: Sequence[int]) -> TransferResult:
        """Return a row of the log of transfers by name."""
        finished = self.events.finished_of(row)
        mode, packet = row[MODE - ID], row[PACKET - ID]
        modes = ["broadcast"] * bool(mode & BROADCAST) + ["transpose"] * bool(mode & TRANSPOSE)
        return TransferResult(
            id=finished.id,
            mask=finished.mask,
            channels=finished.channels,
            source=self._name(row[SOURCE - ID], packet),
            destination=self._name(row[DESTINATION - ID], packet),
            mode=" ".join(modes) or "copy",
            ddr_bytes=finished.bytes,
            first_request=finished.first_request,
            last_request=finished.last_request,
            begin=finished.begin,
            end=finished.end,
            packet=packet,
        )

    def _name(self, address: int, packet: int) -> str:
        buffer = self.program.buffer_at(address, packet)
        return buffer.name if buffer else f"{address:#x}"


def _extent(name: str, base: int, size: int) -> Memory:
    """Return a memory of the right extent that takes no room, for timing-only runs."""
    return Memory(name, base, np.broadcast_to(np.uint32(0), (-(-size // 4),)))
