"""The chip: cores, one DDR, DMA transfers and barriers, in one consistent time.

Each core runs ahead to its next blocking point, its DMA starts queued with their cycles; DDR time
advances only when every core is blocked. So cores need no stepping in time order, and the order
in which they run does not matter. All timing of transfers and barriers is in `events`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from isa.descriptor import TransferRequest, decode
from isa.errors import SimulationError
from isa.machine import Machine
from isa.program import Program
from simulator.checking.checker import Checker
from simulator.compiled.core import Compiled, CompiledCore
from simulator.dma import CheckedTransfer, checked_transfer
from simulator.events import BAD_MASK, BUSY, DISAGREES, Events, Finished, units_per_cycle
from simulator.memory import Memory
from simulator.reference.core import Core
from simulator.reference.numpy_values import quiet_floats
from simulator.result import BARRIER, DMA_WAIT, ChipResult, Tracer, TransferResult
from simulator.sharing import IDLE, IN_FLIGHT, NONE
from simulator.state import Status

Progress = Callable[[int, int], None]


class Chip:
    """All cores of one run of a program."""

    def __init__(
        self,
        program: Program,
        machine: Machine,
        *,
        check: bool = False,
        timing_only: bool = False,
        tracer: Tracer | None = None,
        compiled: Compiled | None = None,
    ) -> None:
        self.program, self.machine, self.timing_only = program, machine, timing_only
        self.events = Events(machine, program.cores)
        size = 0 if timing_only else program.ddr_bytes
        self.ddr = Memory.make("DDR", machine.ddr.base, size)
        self.checker = Checker(program, machine, self.ddr) if check else None
        self.cores: list[Core] = [
            CompiledCore(number, program, machine, self.start, compiled)
            if compiled is not None
            else Core(number, program, machine, self.start, tracer, self.checker, timing_only)
            for number in range(program.cores)
        ]
        self._started: dict[int, tuple[TransferRequest, int, int]] = {}
        self._awaited: dict[tuple[int, int], int] = {}

    # Running ------------------------------------------------------------------------------------

    def run(self, cycle_limit: int, progress: Progress | None = None) -> ChipResult:
        """Run to the end and return what happened.

        Raise SimulationError for a bad address, a deadlock, a cycle past the limit, and in checked
        runs for every broken rule.
        """
        with quiet_floats():
            while any(core.status is not Status.HALTED for core in self.cores):
                for core in self.cores:
                    self._run_core(core, cycle_limit, progress)
                self._unblock()
        if self.checker is not None:
            self.checker.finish(self.cores)
        while self.events.advance() != NONE:
            pass
        return self._result()

    def _run_core(self, core: Core, cycle_limit: int, progress: Progress | None) -> None:
        if core.status is not Status.RUNNING:
            return
        core.run(cycle_limit, progress)
        if core.status is Status.RUNNING:
            raise SimulationError(
                f"{core.where()}: still running at the limit of {cycle_limit:,} cycles; raise it "
                "with --cycle-limit if the kernel is meant to run longer"
            )
        if core.status is Status.AT_BARRIER:
            self.events.arrive(core.number, core.cycle - 1)

    def _unblock(self) -> None:
        """Let at least one core go on, or say why none ever will."""
        while not self._release_waiting() and not self._release_barrier():
            if all(core.status is Status.HALTED for core in self.cores):
                return
            if self.events.advance() == NONE:
                raise SimulationError(self._deadlock())

    def _release_waiting(self) -> bool:
        released = False
        for core in self.cores:
            if core.status is not Status.WAITING:
                continue
            key = (core.number, core.channel)
            end = self.events.completion(*key)
            if end == IN_FLIGHT:
                continue
            if end == IDLE:
                raise SimulationError(
                    f"{core.where()}: waits for channel {core.channel}, on which nothing was "
                    "started since its last wait"
                )
            if self.checker is not None:
                self.checker.waited(core)
            core.resume(end, DMA_WAIT, self._awaited.pop(key))
            released = True
        return released

    def _release_barrier(self) -> bool:
        release = self.events.barrier_release()
        if release == NONE:
            return False
        if self.checker is not None:
            self.checker.barrier()
        for core in self.cores:
            core.resume(release, BARRIER)
        return True

    # Transfers ----------------------------------------------------------------------------------

    def start(self, core: Core, channel: int, words: Sequence[int]) -> None:
        """Start a core's transfer: check the descriptor, queue its time, move its data."""
        request = decode(words)
        memories = self._memories(core)
        transfer = checked_transfer(request, memories, self.machine, core.number, len(self.cores))
        traffic = transfer.ddr_bytes(self.machine.ddr.burst_bytes)
        identity = self._queue(core, channel, transfer, traffic)
        self._awaited[core.number, channel] = identity
        started = (request, core.number, core.packet)
        first, lowest, _ = self._started.setdefault(identity, started)
        self._refuse_other_broadcast(first, request)
        if core.number < lowest:
            self._started[identity] = started
        if self.checker is not None:
            self.checker.started(core, channel, identity, transfer)
        if self.timing_only:
            self._forget(core, request)
        else:
            transfer.copy()

    def _memories(self, core: Core) -> tuple[Memory, ...]:
        if not self.timing_only:
            return (core.array_memory, core.scalar_memory, self.ddr)
        return tuple(_extent(name, space.base, size) for name, space, size in (
            ("AM", self.machine.am, self.machine.am.bytes),
            ("SM", self.machine.sm, self.machine.sm.bytes),
            ("DDR", self.machine.ddr, self.program.ddr_bytes),
        ))  # fmt: skip

    def _queue(self, core: Core, channel: int, transfer: CheckedTransfer, traffic: int) -> int:
        request = transfer.request
        cap = self.machine.dma.transpose_bytes_per_cycle if request.transpose else 0
        identity = self.events.start(
            core.number, channel, core.cycle, request.cores or 1 << core.number, traffic,
            units_per_cycle(cap) if cap else 0,
        )  # fmt: skip
        if identity == BUSY:
            raise SimulationError(
                f"starts a transfer on channel {channel}, whose last transfer was not waited for"
            )
        if identity == BAD_MASK:
            raise SimulationError(f"broadcast mask {request.cores:#b} does not fit this run")
        if identity == DISAGREES:
            raise SimulationError("the cores of a broadcast give different sizes")
        return identity

    def _refuse_other_broadcast(self, first: TransferRequest, request: TransferRequest) -> None:
        same = (first.source, first.transpose, first.cores)
        if request.cores and (request.source, request.transpose, request.cores) != same:
            raise SimulationError(
                "the cores of a broadcast must read the same source: "
                f"{first.source} on one core, {request.source} on another"
            )

    def _forget(self, core: Core, request: TransferRequest) -> None:
        """Note, in a timing-only run, that words of SM now hold tensor data nobody knows."""
        plane, memory = request.destination, core.scalar_memory
        if memory.holds(plane.first, plane.end):
            rows = np.arange(plane.rows)[:, None] * plane.stride + plane.address - memory.base
            words = rows // 4 + np.arange(plane.row_words)
            core.unknown_words.update(words.reshape(-1).tolist())

    # Results ------------------------------------------------------------------------------------

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
        transfers = tuple(self._transfer(finished) for finished in self.events.finished)
        ends = [core.cycle for core in self.cores] + [transfer.end for transfer in transfers]
        return ChipResult(
            cycles=max(ends),
            cores=tuple(core.result() for core in self.cores),
            transfers=transfers,
            ddr_bytes=self.events.ddr_bytes,
        )

    def _transfer(self, finished: Finished) -> TransferResult:
        request, _, packet = self._started[finished.id]
        modes = ["broadcast"] * bool(request.cores) + ["transpose"] * request.transpose
        return TransferResult(
            id=finished.id,
            mask=finished.mask,
            channels=finished.channels,
            source=self._name(request.source.address, packet),
            destination=self._name(request.destination.address, packet),
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
