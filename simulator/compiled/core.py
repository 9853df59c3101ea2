"""A core that runs as machine code: the same values and cycles as the reference engine's.

Compiled stretches run until the core blocks, starts a transfer or reaches its limit; the chip does
the rest as for any core. What they refuse, and what they cannot do, the reference engine takes
over from the last stretch on: so errors are the reference engine's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve
from llvmlite import ir

from isa.descriptor import DESCRIPTOR_WORDS
from isa.errors import SimulationError
from isa.machine import Machine
from isa.operands import FILE_LENGTH, File, Register
from isa.program import Program
from simulator.compiled.cache import cached
from simulator.compiled.fingerprint import fingerprint
from simulator.compiled.flights import (
    Flight,
    in_flight,
    sent,
    surely_in_flight,
    surely_sent,
)
from simulator.compiled.frame import PACKET_MASK, PACKET_SHIFT, UNKNOWN_BIT
from simulator.compiled.functions import write_functions
from simulator.compiled.native import Library, from_object, no_collection, to_object
from simulator.compiled.places import MARGIN_WORDS
from simulator.compiled.plan import Code, Plan
from simulator.compiled.record import Record, aligned
from simulator.compiled.stretches import Entry, stretches
from simulator.logs import Stalls
from simulator.memory import Memory
from simulator.reference.core import Core
from simulator.reference.decode import AnyWrite, ExchangeWrite, Write
from simulator.reference.unknown import UNKNOWN
from simulator.result import BANK_CONFLICT, CoreResult, StallPlace
from simulator.state import Status

SCALAR_FILES = (File.SCALAR, File.ADDRESS, File.OFFSET)

RUN = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)

SLICE = 1 << 26
"""Cycles between two reports of progress, and chances to be interrupted."""

BLOCKING = {
    Code.WAIT: Status.WAITING, Code.BARRIER: Status.AT_BARRIER, Code.HALT: Status.HALTED,
}  # fmt: skip


class Compiled:
    """The machine code of one program, shared by its cores."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.libraries: list[Library] = []
        cut = stretches(program, machine)
        sends, sure = sent(program, machine), surely_sent(program, machine)
        flights = in_flight(program, sends, cut)
        self.entries = list(cut)
        numbers = {entry: number for number, entry in enumerate(self.entries)}
        self.plan = Plan(
            program, machine, cut, numbers, sends, flights,
            surely_in_flight(program, sure, cut, flights),
            Record(machine, numbers, flights, len(program.packets)),
        )  # fmt: skip

    @cached_property
    def address(self) -> int:
        """Where the code is."""
        return self._address(self.plan)

    @cached_property
    def masked_address(self) -> int:
        """Where the code goes on that ended with `Code.MASKS`; compiled when it is needed."""
        return self._address(evolve(self.plan, masked=True))

    @cached_property
    def timing_address(self) -> int:
        """Where the code is that leaves out vectors; compiled when it is needed."""
        return self._address(evolve(self.plan, timing=True))

    def _address(self, plan: Plan) -> int:
        key = fingerprint(plan.program, plan.machine, plan.masked + 2 * plan.timing)
        library = from_object(cached(key, lambda: _object_code(plan)))
        self.libraries.append(library)
        return library.address("run")


def _object_code(plan: Plan) -> bytes:
    """Generate and compile all functions, which takes seconds: see `cache`."""
    with no_collection():
        module = ir.Module()
        write_functions(module, plan)
        return to_object(module)


class CompiledCore(Core):
    """A core whose packets run as machine code; its record is the truth while they do."""

    def __init__(
        self,
        number: int,
        program: Program,
        machine: Machine,
        start: Callable[[Any, int, Any], None],
        compiled: Compiled,
        timing_only: bool = False,
    ) -> None:
        super().__init__(number, program, machine, start, timing_only=timing_only)
        self.compiled, self.layout = compiled, compiled.plan.record
        self.record = self.layout.make()
        self.numbers = {
            name: self.record[offset : offset + 8].view(np.int64)
            for name, offset in self.layout.numbers.items()
        }
        scalar_words = self.scalar_memory.words
        self.array_memory = _with_margins(self.array_memory)
        self.scalar_memory = _with_margins(self.scalar_memory)
        self.scalar_memory.words[:] = scalar_words
        self.address = compiled.timing_address if timing_only else compiled.address
        self._run = RUN(self.address)
        self.shadow = aligned(len(scalar_words) if timing_only else 0)
        """Of every word of SM, whether nobody knows it in a run without numbers."""
        self.numbers["shadow"][0] = self.shadow.ctypes.data if timing_only else 0
        self.numbers["core"][0] = number
        self.numbers["array"][0] = self.array_memory.words.ctypes.data
        self.numbers["scalar"][0] = self.scalar_memory.words.ctypes.data
        first = self.layout.descriptor
        self.descriptor = self.record[first : first + 4 * DESCRIPTOR_WORDS].view(np.uint32)
        self.logged: Stalls | None = None
        """The stalls of a run that compiled code brought to its end."""
        self.interpreting = self.begun = self.faulty = False

    def _lane_mask(self) -> Any:
        offset = self.layout.register(Register(File.LANE_MASK))
        return self.record[offset : offset + 8].view(np.int64)

    def run(self, until: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Run to the next blocking point or to cycle `until`."""
        if self.interpreting:
            self._run_interpreted(until, progress)
            return
        self.give_registers()
        while self.status is Status.RUNNING and not self.interpreting:
            limit = min(until, self.cycle + SLICE)
            self.numbers["stalled"][0], self.numbers["limit"][0] = self.stalled, limit
            code = Code(self._run(self.record.ctypes.data))
            self.issue, self.stalled = (int(self.numbers[n][0]) for n in ("issue", "stalled"))
            if code is Code.START:
                self.start_transfer()
            elif code in BLOCKING:
                self.status, self.channel = BLOCKING[code], int(self.numbers["channel"][0])
                self.blocked_packet = int(self.numbers["last"][0])
                if code is Code.HALT:
                    self._take_registers()
            elif code is Code.MASKS:
                self.allow_masked()
            elif code is Code.LIMIT and limit < until:
                if progress is not None:
                    progress(self.number, self.cycle)
            else:
                self.faulty = code is Code.FAULT
                self._interpret()
                self._run_interpreted(until, progress)

    def allow_masked(self) -> None:
        """Give the code a second set of functions, for results sent under another VLR."""
        self.numbers["masked"][0] = self.compiled.masked_address

    def _run_interpreted(self, until: int, progress: Callable[[int, int], None] | None) -> None:
        """Let the reference engine run on, which says what is wrong after a fault.

        Stores of the faulty stretch are made twice then, so a run that still comes to its end may
        have gone another way.
        """
        super().run(until, progress)
        if self.faulty and self.status is Status.HALTED:
            raise SimulationError(
                f"{self.where()}: the compiled engine met an error on the way here; run with "
                "engine 'reference' to see it"
            )

    def go_on(self, code: int, until: int, progress: Callable[[int, int], None] | None) -> None:
        """Do what the chip's compiled loop could not: a start, or all from the last stretch on."""
        if code in (Code.LIMIT, Code.FAULT, Code.END, Code.ELSEWHERE):
            self.faulty = code == Code.FAULT
            self._interpret()
        else:
            self.start_transfer()
        self.run(until, progress)

    def start_transfer(self) -> None:
        """Start the transfer that compiled code has left in the record."""
        after, self.packet = self.issue, int(self.numbers["last"][0])
        # A transfer starts before its packet stalls on banks.
        self.issue -= 1 + int(self.numbers["conflict"][0])
        try:
            self.start(self, int(self.numbers["channel"][0]), self.descriptor.tolist())
        except SimulationError as error:
            raise SimulationError(f"{self.where()}: {error}") from None
        self.issue = after

    def _interpret(self) -> None:
        """Hand the record to the reference engine, at the entry of the last stretch."""
        self.interpreting = True
        number = int(self.numbers["next"][0])
        packets = len(self.program.packets)
        entry = self.compiled.entries[number] if number >= 0 else Entry(packets)
        self.packet = entry.packet
        self._take_registers()
        if number < 0:
            return
        for branch in entry.pending:
            place = self.layout.pending[entry, branch]
            taken, target = self._numbers(place, 2)
            if taken:
                self.branch_at, self.branch_to = self.issue + branch.remaining, target
        for flight in self.compiled.plan.flights[entry]:
            self._put_in_flight(entry, flight)
        if self.timing_only:
            self.unknown_words = set(np.flatnonzero(self.shadow).tolist())

    def take_position(self, status: int, channel: int, packet: int) -> None:
        """Take over where compiled code has come to."""
        self.issue, self.stalled = (int(self.numbers[name][0]) for name in ("issue", "stalled"))
        self.channel, self.blocked_packet = channel, packet
        self.status = Status(status) if status in BLOCKING.values() else Status.RUNNING
        if self.status is Status.HALTED:
            self._take_registers()

    def stand_at(self, packet: int, cycle: int) -> None:
        """Go back to a packet that the core is past, for the message of an error there."""
        self.status, self.packet, self.issue = Status.RUNNING, packet, cycle - self.stalled

    def give_registers(self) -> None:
        """Write the registers to the record, before its code runs for the first time."""
        if self.begun:
            return
        self.begun = True
        for file in SCALAR_FILES:
            first, count = self.layout.files[file], FILE_LENGTH[file]
            self.record[first : first + 8 * count].view(np.int64)[:] = self.scalar_file(file)
        self._words(self.layout.vectors, self.vectors.size)[:] = self.vectors.reshape(-1)
        self._words(self.layout.exchange, len(self.exchange))[:] = self.exchange
        self._lane_mask()[0] = self.lane_mask

    def _take_registers(self) -> None:
        """Read the registers from the record."""
        for file in SCALAR_FILES:
            self.scalar_file(file)[:] = self._numbers(self.layout.files[file], FILE_LENGTH[file])
        if self.timing_only:
            self._take_unknown()
        self.vectors.reshape(-1)[:] = self._words(self.layout.vectors, self.vectors.size)
        self.exchange[:] = self._words(self.layout.exchange, len(self.exchange))
        self.set_lane_mask(int(self._lane_mask()[0]))

    def _take_unknown(self) -> None:
        for file in SCALAR_FILES:
            for index in range(FILE_LENGTH[file]):
                if self.record[self.layout.unknown_flag(Register(file, index))]:
                    self.scalar_file(file)[index] = UNKNOWN

    def _put_in_flight(self, entry: Entry, flight: Flight) -> None:
        place, lanes = self.layout.flights[entry, flight], flight.result.has_lanes
        size = 4 * self.lanes if lanes else 8
        state = self._numbers(place + size, 1)[0]
        if state >= 0:
            return
        value: Any = self._words(place, self.lanes).copy() if lanes else self._numbers(place, 1)[0]
        if self.timing_only and (flight.result.unseen or state >> UNKNOWN_BIT & 1):
            value = UNKNOWN
        if self.timing_only:
            state |= (1 << self.lanes) - 1
        enabled = np.array([state >> lane & 1 for lane in range(self.lanes)], bool)
        ports = (flight.result.port,) if flight.result.port else ()
        packet = state >> PACKET_SHIFT & PACKET_MASK
        write: Write = AnyWrite((flight.result.target,), packet, ports)
        if flight.result.whole_exchange:
            entries = tuple(Register(File.EXCHANGE, index) for index in range(self.lanes))
            write = ExchangeWrite(entries, packet, ports)
        self._send(write, flight.remaining, value, None if not lanes or enabled.all() else enabled)

    def _numbers(self, offset: int, count: int) -> list[int]:
        raw = self.record[offset : offset + 8 * count]
        return [int(number) for number in raw.view(np.int64)]

    def _words(self, offset: int, count: int) -> Any:
        return self.record[offset : offset + 4 * count].view(np.uint32)

    def _all_stalls(self) -> Mapping[StallPlace, int]:
        """Return the stalls by place, those of the bank model's compiled packets among them."""
        waits = self.stalls if self.logged is None else self.logged
        if not self.machine.am.bank_model:
            return dict(waits) if self.logged is None else waits
        total = dict(waits)
        for packet, cycles in enumerate(self._numbers(self.layout.bank_stalls, len(self.executed))):
            if cycles:
                place = StallPlace(packet, BANK_CONFLICT)
                total[place] = total.get(place, 0) + cycles
        return total

    def result(self) -> CoreResult:
        """Return the counters of a halted core."""
        executed = list(self.executed)
        counts = self._numbers(self.layout.counts, len(self.compiled.entries))
        for entry, count in zip(self.compiled.entries, counts, strict=True):
            for issue in self.compiled.plan.stretches[entry].issues:
                executed[issue.packet] += count
        stalls = self._all_stalls()
        lanes = self.vmac_lanes + int(self.numbers["vmac_lanes"][0])
        return CoreResult(self.cycle, tuple(executed), stalls, lanes)


def _with_margins(memory: Memory) -> Memory:
    """Return an empty memory like another, with room on both sides for lanes that touch nothing."""
    room = aligned(4 * (len(memory.words) + 2 * MARGIN_WORDS)).view(np.uint32)
    words = room[MARGIN_WORDS : MARGIN_WORDS + len(memory.words)]
    return Memory(memory.name, memory.base, words)
