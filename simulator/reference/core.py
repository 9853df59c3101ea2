"""The reference engine: one core, packet by packet, simple enough to trust by reading.

A packet issued at issue time t reads its registers at t; a result of latency L lands before the
packet of t + L reads. Issue time counts packets and idle cycles only: when something stalls the
core, the whole pipeline waits, results in flight included, so cycle = issue + stalled.
The chip runs a core until it blocks (wait, barrier, halt) and tells it when to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from isa.errors import SimulationError
from isa.instruction import Effect
from isa.machine import Machine
from isa.operands import FILE_LENGTH, File, Register
from isa.program import Program
from simulator.banks import bank_conflict_cycles
from simulator.memory import Memory
from simulator.reference.accesses import ScalarReference, VectorReference
from simulator.reference.decode import Step, Write, decode_packet, update_amount
from simulator.reference.unknown import UNKNOWN, known
from simulator.reference.words import CoreScalarWords, CoreVectorWords
from simulator.result import BANK_CONFLICT, CoreResult, StallPlace, Tracer
from simulator.state import Status

PROGRESS_PACKETS = 4096
"""How often a running core reports its progress."""

NO_BRANCH = -1


class Watcher(Protocol):
    """What checked runs look at; see `simulator.checking.checker`."""

    def issue(self, core: Core, step: Step) -> None: ...
    def landed(self, core: Core, write: Write) -> None: ...
    def load(self, core: Core, step: Step, memory: Memory, first: int, end: int) -> None: ...
    def load_lanes(self, core: Core, step: Step, memory: Memory, where: Any) -> None: ...
    def store(self, core: Core, step: Step, memory: Memory, where: Any) -> None: ...


class Core:
    """Registers, pipeline and program position of one core, and how a packet executes."""

    def __init__(
        self,
        number: int,
        program: Program,
        machine: Machine,
        start: Callable[[Core, int, Sequence[int]], None],
        tracer: Tracer | None = None,
        checker: Watcher | None = None,
        timing_only: bool = False,
    ) -> None:
        self.number, self.program, self.machine = number, program, machine
        self.start, self.tracer, self.checker = start, tracer, checker
        self.lanes, self.timing_only = machine.vpu.lanes, timing_only
        self._reset_registers()
        self._reset_position()
        self.array_memory = Memory.make(
            "AM", machine.am.base, 0 if timing_only else machine.am.bytes
        )
        self.scalar_memory = Memory.make("SM", machine.sm.base, machine.sm.bytes)
        self.unknown_words: set[int] = set()
        self.vector_words = CoreVectorWords(self.lanes)
        self.scalar_words = CoreScalarWords(self)
        self.durations = program.packet_cycles
        self.executed = [0] * len(program.packets)
        self.stalls: dict[StallPlace, int] = {}
        self.vmac_lanes = 0
        for address, words in program.scalar_data[number] if program.scalar_data else ():
            index = self.scalar_memory.index(address, len(words))
            self.scalar_memory.words[index : index + len(words)] = words

    @cached_property
    def steps(self) -> list[tuple[Step, ...]]:
        """What each packet does; compiled code does without."""
        packets = enumerate(self.program.packets)
        return [decode_packet(packet, self.machine, self.program, at) for at, packet in packets]

    def _reset_registers(self) -> None:
        self.scalars: list[Any] = [0] * FILE_LENGTH[File.SCALAR]
        self.addresses: list[Any] = [0] * FILE_LENGTH[File.ADDRESS]
        self.offsets: list[Any] = [0] * FILE_LENGTH[File.OFFSET]
        self.vectors = np.zeros((FILE_LENGTH[File.VECTOR], self.lanes), np.uint32)
        self.exchange = np.zeros(FILE_LENGTH[File.EXCHANGE], np.uint32)
        self.lane_mask = (1 << self.lanes) - 1
        self.enabled: Any = None
        self._files = {
            File.SCALAR: self.scalars,
            File.ADDRESS: self.addresses,
            File.OFFSET: self.offsets,
        }

    def _reset_position(self) -> None:
        self.packet = self.issue = self.stalled = self.idle = 0
        self.branch_at, self.branch_to = NO_BRANCH, 0
        self.status, self.channel, self.blocked_packet = Status.RUNNING, 0, 0
        self.countdown = PROGRESS_PACKETS
        self.ring: list[list[tuple[Write, Any, Any]]] = [
            [] for _ in range(max(self.machine.latency.values()) + 1)
        ]
        self.stores: list[tuple[Step, Memory, Any, Any]] = []
        self.starting: tuple[int, Sequence[int]] | None = None
        self.accesses: list[tuple[int, int]] = []

    @property
    def cycle(self) -> int:
        """The cycle at which the next packet issues."""
        return self.issue + self.stalled

    # Running ------------------------------------------------------------------------------------

    def run(self, until: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Run until the core blocks or halts, or its cycle reaches `until`."""
        self.interpret(until, progress)

    def interpret(self, until: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Run as `run` does, packet by packet."""
        try:
            while self.status is Status.RUNNING and self.cycle < until:
                self._land()
                if self.idle:
                    self._stay_idle()
                else:
                    self._issue()
                self.countdown -= 1
                if self.countdown == 0:
                    self.countdown = PROGRESS_PACKETS
                    if progress is not None:
                        progress(self.number, self.cycle)
        except SimulationError as error:
            raise SimulationError(f"{self.where()}: {error}") from None

    def where(self) -> str:
        """Return core, cycle, packet and source line of the packet being executed."""
        at = min(self.packet, len(self.program.packets) - 1)
        if self.status is not Status.RUNNING:
            at = self.blocked_packet
        elif self.idle:
            at = self.packet - 1  # its SNOP is not over
        elif self.branch_at == self.issue:
            at = self.branch_to
        packet = self.program.packets[at]
        text = " | ".join(str(o) for o in packet.operations[:3])
        more = " | ..." if len(packet.operations) > 3 else ""
        return f"{packet.origin}: core {self.number}, cycle {self.cycle}, packet {at}: {text}{more}"

    def _land(self) -> None:
        """Put the results that are due now into their registers."""
        due = self.ring[self.issue % len(self.ring)]
        if not due:
            return
        if len(due) > 1:
            self._refuse_collisions(due)
        for write, value, lanes in due:
            if not (self.timing_only and write.has_lanes):
                write.land(self, value, lanes)
            if self.checker is not None:
                self.checker.landed(self, write)
        due.clear()

    def _stay_idle(self) -> None:
        if self.branch_at == self.issue:
            raise SimulationError("a SNOP lies across the branch point; shorten it")
        self.idle -= 1
        self.issue += 1

    def _issue(self) -> None:
        """Execute one packet."""
        if self.branch_at == self.issue:
            self.packet, self.branch_at = self.branch_to, NO_BRANCH
        at = self.packet
        if at >= len(self.steps):
            raise SimulationError("the program runs past its last packet; end it with HALT")
        if self.tracer is not None:
            self.tracer.packet(self.number, self.cycle, at)
        self.executed[at] += 1
        self.idle = self.durations[at] - 1
        for step in self.steps[at]:
            self._execute(step)
        if self.stores:
            self._commit_stores()
        if self.starting is not None:
            (channel, words), self.starting = self.starting, None
            self.start(self, channel, words)
        self.packet = at + 1
        self.issue += 1
        if self.accesses:
            self._stall_on_banks(at)

    def _execute(self, step: Step) -> None:
        """Execute a step: gather, compute, and leave the results to land."""
        if self.checker is not None:
            self.checker.issue(self, step)
        if step.scalar_predicate >= 0:
            condition = known(self.scalars[step.scalar_predicate], "a predicate")
            if (condition != 0) == step.negated:
                return
        lanes = self._enabled_lanes(step) if step.mask else None
        if step.vmacs:
            width = self.lanes if lanes is None else int(lanes.sum())
            self.vmac_lanes += step.vmacs * width
        values = [get(self) for get in step.get]
        if step.address_position is not None:
            values[step.address_position] = self._reference(
                step, values[step.address_position], lanes
            )
        result = self._compute(step, values)
        if step.write is not None:
            self._send(step.write, step.latency, result, lanes)
        if step.base_update is not None:
            base = self.addresses[step.base_update.targets[0].index]
            moved = base + update_amount(self, step.operation)
            self._send(step.base_update, self.machine.latency["address_update"], moved, None)

    def _compute(self, step: Step, values: list[Any]) -> Any:
        """Call the semantics; a timing-only run leaves out vectors and what depends on data."""
        words: Any = self.vector_words if step.vector else self.scalar_words
        if self.timing_only and (step.vector or any(_is_unknown(v) for v in values)):
            return self._compute_unknown(step, words, values)
        result = step.semantics(words, *values)
        if isinstance(result, np.ndarray) and result.base is not None:
            return result.copy()  # a view of a register may change before it lands
        return result

    def _compute_unknown(self, step: Step, words: Any, values: list[Any]) -> Any:
        if step.effect is Effect.STORE and not step.vector:
            return step.semantics(words, *values)
        if step.effect not in (Effect.NONE, Effect.LOAD, Effect.STORE):
            known(UNKNOWN, f"the operands of {step.operation}")
        pair = step.write is not None and len(step.write.targets) == 2
        return (UNKNOWN, UNKNOWN) if pair else UNKNOWN

    def _reference(self, step: Step, address: Any, lanes: Any) -> Any:
        known(address, "an address")
        if not step.vector:
            return ScalarReference(self, step, address)
        if self.machine.am.bank_model:
            kind = step.operation.address_kind
            assert kind is not None
            self.accesses.append((address, kind.unit_bytes * self.lanes))
        return VectorReference(self, step, address, lanes)

    def _enabled_lanes(self, step: Step) -> Any:
        """Return the lanes that VLR and the lane predicate enable: None for all of them."""
        if step.lane_predicate < 0 or self.timing_only:
            return self.enabled
        lanes = (self.vectors[step.lane_predicate] == 0) == step.negated
        return lanes if self.enabled is None else lanes & self.enabled

    def _send(self, write: Write, latency: int, value: Any, lanes: Any) -> None:
        self.ring[(self.issue + latency) % len(self.ring)].append((write, value, lanes))

    def _commit_stores(self) -> None:
        stores, self.stores = self.stores, []
        if len(stores) > 1:
            _refuse_overlapping(stores)
        for step, memory, where, value in stores:
            if self.checker is not None:
                self.checker.store(self, step, memory, where)
            if self.timing_only and memory is self.scalar_memory:
                self._note_unknown(where.start, value)
            if value is not UNKNOWN and len(memory.words):
                memory.words[where] = value

    def _note_unknown(self, index: int, value: Any) -> None:
        if value is UNKNOWN:
            self.unknown_words.add(index)
        else:
            self.unknown_words.discard(index)

    def forget(self, words: Iterable[int]) -> None:
        """Note, in a run without numbers, that nobody knows some words of SM any more."""
        self.unknown_words.update(words)

    def _stall_on_banks(self, at: int) -> None:
        cycles = bank_conflict_cycles(self.accesses, self.machine.am)
        self.accesses.clear()
        if cycles:
            self._book(cycles, StallPlace(at, BANK_CONFLICT))

    def _book(self, cycles: int, place: StallPlace) -> None:
        if self.tracer is not None:
            self.tracer.stall(self.number, self.cycle, cycles, place)
        self.stalls[place] = self.stalls.get(place, 0) + cycles
        self.stalled += cycles

    # Blocking and going on ----------------------------------------------------------------------

    def branch(self, target: int) -> None:
        """Take a branch: the packet of `latency.branch` cycles from now is the target."""
        if self.branch_at != NO_BRANCH:
            raise SimulationError("a branch is taken while another taken one is pending")
        if not 0 <= target < len(self.steps):
            raise SimulationError(f"branch to packet {target}, outside 0 to {len(self.steps) - 1}")
        self.branch_at = self.issue + self.machine.latency["branch"]
        self.branch_to = target

    def block(self, status: Status, channel: int = 0) -> None:
        """Stop after this packet: wait for a channel, wait at a barrier, or halt."""
        if self.status is not Status.RUNNING:
            raise SimulationError("a packet blocks its core twice")
        self.status, self.channel, self.blocked_packet = status, channel, self.packet

    def resume(self, cycle: int, cause: str, transfer: int = -1) -> None:
        """Go on at `cycle`, or at once if that is past; book the wait."""
        if cycle > self.cycle:
            self._book(cycle - self.cycle, StallPlace(self.blocked_packet, cause, transfer))
        self.status = Status.RUNNING

    def result(self) -> CoreResult:
        """Return the counters of a halted core."""
        return CoreResult(self.cycle, tuple(self.executed), dict(self.stalls), self.vmac_lanes)

    # Registers ----------------------------------------------------------------------------------

    def scalar_file(self, file: File) -> list[Any]:
        """Return the registers of R, AR or OR as a list of ints."""
        return self._files[file]

    def exchange_entry(self, index: int) -> Any:
        """Return an exchange entry as a scalar, sign-extended; unknown when nothing computes it."""
        if self.timing_only:
            return UNKNOWN
        return self.scalar_words.low_word(int(self.exchange[index]))

    def put(self, target: Register, value: Any, lanes: Any) -> None:
        """Store a value that lands in one register of any file."""
        if target.file is File.VECTOR:
            if lanes is None:
                self.vectors[target.index] = value
            else:
                self.vectors[target.index][lanes] = value[lanes]
        elif target.file is File.EXCHANGE:
            self.exchange[target.index] = value & 0xFFFFFFFF
        elif target.file is File.LANE_MASK:
            self.set_lane_mask(known(value, "the lane mask"))
        else:
            self._files[target.file][target.index] = value

    def set_lane_mask(self, value: int) -> None:
        """Set VLR; `enabled` is None when every lane is."""
        full = (1 << self.lanes) - 1
        self.lane_mask = value & full
        bits = np.array([self.lane_mask >> lane & 1 for lane in range(self.lanes)], bool)
        self.enabled = None if self.lane_mask == full else bits

    def _refuse_collisions(self, due: list[tuple[Write, Any, Any]]) -> None:
        """Refuse two results in one register, or from one unit, in the same cycle."""
        seen: dict[Any, list[tuple[Write, Any]]] = {}
        rule = self.machine.issue.one_result_per_unit
        for write, _, lanes in due:
            # lane predicates are unknown where no lanes are computed
            targets = () if self.timing_only and write.has_lanes else write.targets
            for key in (*targets, *(write.ports if rule else ())):
                earlier = seen.setdefault(key, [])
                for other in earlier:
                    if _lanes_meet(key, other, (write, lanes)):
                        raise SimulationError(self._collision(key, other[0], write))
                earlier.append((write, lanes))

    def _collision(self, key: Any, first: Write, second: Write) -> str:
        places = [self.program.packets[w.packet].origin for w in (first, second)]
        what = f"in {key}" if isinstance(key, Register) else f"from unit {key}"
        return (
            f"two results land {what} in the same cycle: of packet {first.packet} ({places[0]}) "
            f"and packet {second.packet} ({places[1]})"
        )


def _is_unknown(value: Any) -> bool:
    return value is UNKNOWN or (isinstance(value, tuple) and UNKNOWN in value)


def _lanes_meet(key: Any, first: tuple[Write, Any], second: tuple[Write, Any]) -> bool:
    """Tell whether two landings exclude each other: the same lane, or the same unit's port."""
    if not isinstance(key, Register):
        return first[0].packet != second[0].packet
    if first[1] is None or second[1] is None:
        return True
    return bool((first[1] & second[1]).any())


def _refuse_overlapping(stores: list[tuple[Step, Memory, Any, Any]]) -> None:
    """Refuse two stores of one packet that touch the same word."""
    touched: dict[int, set[int]] = {}
    for _, memory, where, _ in stores:
        words = (
            range(where.start, where.stop, where.step or 1) if isinstance(where, slice) else where
        )
        already = touched.setdefault(id(memory), set())
        if not already.isdisjoint(words):
            raise SimulationError("two stores of one packet overlap")
        already.update(int(word) for word in words)
