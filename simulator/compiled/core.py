"""A core that runs as machine code: the same values and cycles as the reference engine's.

Compiled stretches run until the core blocks, starts a transfer or reaches its limit; the chip does
the rest as for any core. What they refuse, and what they cannot do, the reference engine takes
over from the last stretch on (`handover`): so errors are the reference engine's own. Where nothing
is wrong, compiled code goes on at the next stretch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve

from isa.descriptor import DESCRIPTOR_WORDS
from isa.errors import SimulationError
from isa.machine import Machine
from isa.program import Program
from simulator.compiled import ir
from simulator.compiled.cache import cached
from simulator.compiled.fingerprint import fingerprint
from simulator.compiled.flights import (
    in_flight,
    sent,
    surely_in_flight,
    surely_sent,
)
from simulator.compiled.functions import write_functions
from simulator.compiled.handover import enter, leave, take_registers
from simulator.compiled.native import (
    FEWEST_QUICK_LANES,
    Library,
    from_object,
    no_collection,
    to_object,
)
from simulator.compiled.places import MARGIN_WORDS
from simulator.compiled.plan import Code, Plan
from simulator.compiled.record import Record, aligned
from simulator.compiled.stretches import Entry, stretches
from simulator.logs import Rows, Stalls, stall_rows
from simulator.memory import Memory
from simulator.reference.core import Core
from simulator.result import BANK_CONFLICT, CoreResult, StallPlace, Tracer
from simulator.state import Status

RUN = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)

SLICE = 1 << 26
"""Cycles between two reports of progress, and chances to be interrupted."""

BLOCKING = {
    Code.WAIT: Status.WAITING, Code.BARRIER: Status.AT_BARRIER, Code.HALT: Status.HALTED,
}  # fmt: skip


class Compiled:
    """The machine code of one program, shared by its cores; `quick`: for a run that does little."""

    def __init__(self, program: Program, machine: Machine, *, quick: bool = False) -> None:
        self.libraries: list[Library] = []
        self.quick = quick and machine.vpu.lanes >= FEWEST_QUICK_LANES
        cut = stretches(program, machine)
        sends, sure = sent(program, machine), surely_sent(program, machine)
        flights = in_flight(program, sends, cut)
        self.entries = list(cut)
        numbers = {entry: number for number, entry in enumerate(self.entries)}
        self.beginning_with: dict[int, list[Entry]] = {}
        """Entries by their first packet."""
        for entry in self.entries:
            self.beginning_with.setdefault(entry.packet, []).append(entry)
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
        variant = plan.masked + 2 * plan.timing + 4 * self.quick
        key = fingerprint(plan.program, plan.machine, variant)
        library = from_object(cached(key, lambda: _object_code(plan, quick=self.quick)))
        self.libraries.append(library)
        return library.address("run")


def _object_code(plan: Plan, *, quick: bool = False) -> bytes:
    """Generate and compile all functions, which takes seconds: see `cache`."""
    with no_collection():
        module = ir.Module()
        write_functions(module, plan)
        return to_object(module, quick=quick)


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
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(number, program, machine, start, tracer, timing_only=timing_only)
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
        self.logged: list[Rows] = []
        """The stalls that compiled code has booked."""
        self.in_record = self.faulty = False

    def run(self, until: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Run to the next blocking point or to cycle `until`, compiled where that is possible.

        A core that still runs has left its record.
        """
        while self.status is Status.RUNNING and self.cycle < until:
            if not self.enter():
                self._interpret(until if self.faulty else self.cycle + 1, progress)
                continue
            limit = min(until, self.cycle + SLICE)
            self.numbers["limit"][0] = limit
            code = Code(self._run(self.record.ctypes.data))
            self.issue, self.stalled = (int(self.numbers[n][0]) for n in ("issue", "stalled"))
            if code is Code.START:
                self.start_transfer()
            elif code in BLOCKING:
                self._block(code)
            elif code is Code.MASKS:
                self.allow_masked()
            elif code is Code.LIMIT and limit < until:
                if progress is not None:
                    progress(self.number, self.cycle)
            else:
                self.faulty = code is Code.FAULT
                elsewhere = code is Code.ELSEWHERE
                self.interpret(self.cycle + 1 if elsewhere else until, progress)
        if self.status is Status.RUNNING:
            self.interpret(until)

    def interpret(self, until: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Run as `run` does, but on the reference engine alone."""
        if self.in_record:
            leave(self)
            self.in_record = False
        self._interpret(until, progress)

    def enter(self) -> bool:
        """Let compiled code go on from here; return False where it cannot."""
        self.in_record = self.in_record or (not self.faulty and enter(self))
        if self.in_record:
            self.numbers["stalled"][0] = self.stalled
        return self.in_record

    def allow_masked(self) -> None:
        """Give the code a second set of functions, for results sent under another VLR."""
        self.numbers["masked"][0] = self.compiled.masked_address

    def _interpret(self, until: int, progress: Callable[[int, int], None] | None) -> None:
        """Let the reference engine run on, which says what is wrong after a fault.

        Stores of the faulty stretch are made twice then, so a run that still comes to its end may
        have gone another way.
        """
        super().interpret(until, progress)
        if self.faulty and self.status is Status.HALTED:
            raise SimulationError(
                f"{self.where()}: the compiled engine met an error on the way here; run with "
                "engine 'reference' to see it"
            )

    def _block(self, code: Code) -> None:
        self.status, self.blocked_packet = BLOCKING[code], int(self.numbers["last"][0])
        self.channel = int(self.numbers["channel"][0]) if code is Code.WAIT else 0
        if code is Code.HALT:
            take_registers(self)

    def go_on(self, code: int) -> None:
        """Do what the chip's compiled loop could not: a start, or to tell a fault."""
        if code == Code.FAULT:
            self.faulty = True
            self.interpret(self.cycle)
        elif code not in tuple(Code):
            self.start_transfer()

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

    def forget(self, words: Iterable[int]) -> None:
        """Note that nobody knows some words of SM any more."""
        if self.in_record:
            self.shadow[list(words)] = 1
        else:
            super().forget(words)

    def take_position(self, status: int, channel: int, packet: int) -> None:
        """Take over where compiled code has come to."""
        if not self.in_record:
            return
        self.issue, self.stalled = (int(self.numbers[name][0]) for name in ("issue", "stalled"))
        self.channel, self.blocked_packet = channel, packet
        self.status = Status(status) if status in BLOCKING.values() else Status.RUNNING
        if self.status is Status.HALTED:
            take_registers(self)

    def stand_at(self, packet: int, cycle: int) -> None:
        """Go back to a packet that the core is past, for the message of an error there."""
        self.status, self.packet, self.issue = Status.RUNNING, packet, cycle - self.stalled

    def last_stall(self) -> tuple[StallPlace, int]:
        """Return the last stall that compiled code has booked, and its cycles."""
        ((place, cycles),) = Stalls(self.logged[-1][-1:]).items()
        return place, cycles

    def _all_stalls(self) -> Mapping[StallPlace, int]:
        """Return the stalls by place, those of the bank model's compiled packets among them."""
        waits: Mapping[StallPlace, int] = dict(self.stalls)
        if self.logged:
            waits = Stalls(np.vstack([*self.logged, stall_rows(self.number, self.stalls)]))
        if not self.machine.am.bank_model:
            return waits
        total, first = dict(waits), self.layout.bank_stalls
        booked = self.record[first : first + 8 * len(self.executed)].view(np.int64)
        for packet in np.flatnonzero(booked).tolist():
            place = StallPlace(packet, BANK_CONFLICT)
            total[place] = total.get(place, 0) + int(booked[packet])
        return total

    def result(self) -> CoreResult:
        """Return the counters of a halted core."""
        executed = list(self.executed)
        first, entries = self.layout.counts, self.compiled.entries
        counts = self.record[first : first + 8 * len(entries)].view(np.int64).tolist()
        for entry, count in zip(entries, counts, strict=True):
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
