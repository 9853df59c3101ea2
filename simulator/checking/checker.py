"""The watcher of checked runs: reads of nothing, stores too close, wrong buffers, races.

A core tells it of every instruction, landing, load and store, the chip of transfers, waits and
barriers. Each broken rule is a SimulationError with one message; the core adds the place where it
runs. It never changes what the program computes or how long it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from isa.errors import SimulationError
from isa.machine import Machine
from isa.operands import Register
from isa.program import Buffer, Operation, Program
from simulator.checking.footprint import Where, span
from simulator.checking.places import cycles, origin_of_start, place, subject
from simulator.checking.races import SHARED_MEMORY, Races, Side, Started
from simulator.checking.shadow import MemoryShadow, RegisterShadow, register_mask
from simulator.dma import CheckedTransfer
from simulator.memory import Memory

if TYPE_CHECKING:
    from simulator.reference.core import Core
    from simulator.reference.decode import Step, Write


class Checker:
    """Everything checked runs remember of one run of a program; `ddr` is the chip's DDR."""

    def __init__(self, program: Program, machine: Machine, ddr: Memory) -> None:
        self._program = program
        self._store_latency = machine.latency["store"]
        # a timing-only run holds no tensors, so nothing is known of AM and DDR
        holds_tensors = 4 * len(ddr.words) >= program.ddr_bytes
        array_words = machine.am.bytes // 4 if holds_tensors else 0
        shared = MemoryShadow(len(ddr.words), self._store_latency)
        self._memories = [
            {
                "AM": MemoryShadow(array_words, self._store_latency),
                "SM": MemoryShadow(machine.sm.bytes // 4, self._store_latency),
                SHARED_MEMORY: shared,
            }
            for _ in range(program.cores)
        ]
        self._registers = [RegisterShadow() for _ in range(program.cores)]
        self._reads: dict[Step, int] = {}
        self._writes: dict[Write, int] = {}
        self._buffers = {(b.space, b.name): b for b in program.buffers}
        self._races = Races(program)
        self._even_words: dict[int, tuple[int, Step, int]] = {}
        self._unfilled_reads: list[str] = []
        self._fill_constants(machine.sm.base)

    def _fill_constants(self, base: int) -> None:
        for memories, pieces in zip(self._memories, self._program.scalar_data, strict=False):
            for address, words in pieces:
                first = (address - base) >> 2
                memories["SM"].fill(slice(first, first + len(words)))

    def placed(self, index: int, words: int) -> None:
        """Note that the host put an input of so many words at a word index of DDR."""
        self._memories[0][SHARED_MEMORY].fill(slice(index, index + words))

    # Registers ----------------------------------------------------------------------------------

    def issue(self, core: Core, step: Step) -> None:
        """Check the registers that a step reads: of one predicated off, only the predicate."""
        reads = self._reads.get(step)
        if reads is None:
            reads = register_mask(r for o in step.operations for r in o.reads)
            self._reads[step] = reads
        missing = reads & ~self._registers[core.number].written
        if missing:
            self._refuse_read(core, step, missing)

    def landed(self, core: Core, write: Write) -> None:
        """Note a result in its registers, all lanes or some."""
        mask = self._writes.get(write)
        if mask is None:
            mask = self._writes[write] = register_mask(write.targets)
        self._registers[core.number].written |= mask

    def _refuse_read(self, core: Core, step: Step, missing: int) -> None:
        for operation, register in _registers_read(core, step):
            if missing & register_mask([register]):
                what = subject(self._program, core.packet, operation)
                raise SimulationError(
                    f"{what}reads {register}, in which no result has landed yet"
                    f"{self._in_flight(core, register)}"
                )

    def _in_flight(self, core: Core, register: Register) -> str:
        """Say how to read a register whose first result is on its way, or how to set it."""
        for later in range(1, len(core.ring)):
            for write, _, _ in core.ring[(core.issue + later) % len(core.ring)]:
                if register in write.targets:
                    packet = self._program.packets[write.packet]
                    return (
                        f"; that of packet {write.packet} ({packet.origin}) lands {cycles(later)} "
                        "later"
                    )
        return "; write it first"

    # Loads and stores ---------------------------------------------------------------------------

    def load(self, core: Core, step: Step, memory: Memory, first: int, end: int) -> None:
        """Check a load of the words from `first` to `end`."""
        self._load(core, step, memory, slice(first, end))

    def load_lanes(self, core: Core, step: Step, memory: Memory, where: Where) -> None:
        """Check a load of one word for each enabled lane."""
        if isinstance(where, slice) or len(where):
            self._load(core, step, memory, where)

    def _load(self, core: Core, step: Step, memory: Memory, where: Where) -> None:
        self._stay_inside(core, step, memory, where)
        clash = self._races.access(core.number, memory.name, where, writes=False)
        if clash:
            raise SimulationError(f"race: {self._subject(core, step)}{clash}")
        shadow = self._memories[core.number][memory.name]
        age = shadow.store_age(core.issue, where)
        if age >= 0:
            raise SimulationError(
                f"{self._subject(core, step)}reads {memory.name} {self._too_early(age)}"
            )
        word = shadow.first_unfilled(where)
        if word >= 0:
            spot = self._spot(step, memory, word)
            raise SimulationError(
                f"{self._subject(core, step)}reads {memory.name} at {spot}, where nothing was "
                "stored, placed or transferred yet"
            )

    def store(self, core: Core, step: Step, memory: Memory, where: Where) -> None:
        """Check a store, and note it."""
        if not isinstance(where, slice) and not len(where):
            return
        self._stay_inside(core, step, memory, where)
        clash = self._races.access(core.number, memory.name, where, writes=True)
        if clash:
            raise SimulationError(f"race: {self._subject(core, step)}{clash}")
        shadow = self._memories[core.number][memory.name]
        shadow.stored(core.issue, where)
        shadow.fill(where)

    def _too_early(self, age: int) -> str:
        return (
            f"that was stored {cycles(age)} before; a store takes {cycles(self._store_latency)}: "
            f"issue this {cycles(self._store_latency - age)} later"
        )

    def _stay_inside(self, core: Core, step: Step, memory: Memory, where: Where) -> None:
        """Refuse an access outside the buffer that the author named for it."""
        buffer = self._tagged(step, memory)
        if buffer is None:
            return
        low, high = self._whole_access(core, step, where)
        first, end = memory.base + 4 * low, memory.base + 4 * high
        if first >= buffer.address and end <= buffer.end:
            return
        outside = max(buffer.address - first, end - buffer.end)
        raise SimulationError(
            f"{self._subject(core, step)}makes an access outside buffer '{buffer.name}' by "
            f"{outside} bytes: it reaches from {first:#x} to {end - 1:#x}, the buffer from "
            f"{buffer.address:#x} to {buffer.end - 1:#x}"
        )

    def _whole_access(self, core: Core, step: Step, where: Where) -> tuple[int, int]:
        """Return the first word and one past the last; double words arrive even word first."""
        low, high = span(where)
        kind = step.operation.address_kind
        if kind is None or kind.unit_bytes == 4:
            return low, high
        if self._even_words.get(core.number) == (core.issue, step, low - 1):
            return low - 1, high
        self._even_words[core.number] = (core.issue, step, low)
        return low, high + 1

    def _tagged(self, step: Step, memory: Memory) -> Buffer | None:
        name = step.operation.buffer
        return self._buffers.get((memory.name, name)) if name else None

    def _spot(self, step: Step, memory: Memory, word: int) -> str:
        return place(self._program, memory.base + 4 * word, self._tagged(step, memory))

    def _subject(self, core: Core, step: Step) -> str:
        return subject(self._program, core.packet, step.operation)

    # Transfers ----------------------------------------------------------------------------------

    def started(self, core: Core, channel: int, transfer: CheckedTransfer) -> None:
        """Check a transfer, or a core's own part of a broadcast, as it starts."""
        origin = origin_of_start(self._program, core.packet)
        new = Started.of(core.number, channel, core.packet, origin, transfer)
        clash = self._races.start(new)
        if clash:
            raise SimulationError(f"race: {clash}")
        for side in new.sides:
            self._refuse_recent_store(core, new, side)
        self._check_source(core, new)
        destination = self._memories[core.number][new.destination.memory]
        destination.fill_plane(new.destination.footprint)

    def _refuse_recent_store(self, core: Core, new: Started, side: Side) -> None:
        shadow = self._memories[core.number][side.memory]
        age = shadow.store_age_in(core.issue, side.footprint)
        if age >= 0:
            verb = "writes" if side.writes else "reads"
            raise SimulationError(
                f"{new.title(self._program)} {verb} {side.memory} {self._too_early(age)}"
            )

    def _check_source(self, core: Core, new: Started) -> None:
        """Refuse to read what nothing ever wrote.

        In DDR another core may be about to write it without an order between the two: then the
        race is the better message, so this one waits until the next barrier or the end.
        """
        side = new.source
        word = self._memories[core.number][side.memory].first_unfilled_in(side.footprint)
        if word < 0:
            return
        message = (
            f"{new.title(self._program)} reads {side.memory} at "
            f"{place(self._program, side.base + 4 * word)}, where nothing was stored, placed or "
            "transferred yet"
        )
        if self._program.cores == 1 or side.memory != SHARED_MEMORY:
            raise SimulationError(message)
        self._unfilled_reads.append(f"{core.where()}: {message}")

    def waited(self, core: Core) -> None:
        """Note that a core waited for its channel."""
        self._races.wait(core.number, core.channel)

    def barrier(self) -> None:
        """Note that all cores passed a barrier."""
        self._refuse_unfilled_reads()
        self._races.barrier()

    def finish(self, cores: Sequence[Core]) -> None:
        """Check, when every core has halted, that no transfer was left alone."""
        self._refuse_unfilled_reads()
        for core in cores:
            for left in self._races.open[core.number].values():
                raise SimulationError(
                    f"{left.origin}: core {core.number}, cycle {core.cycle}: halts without a wait "
                    f"for {left.title(self._program)}; wait for channel {left.channel} first"
                )

    def _refuse_unfilled_reads(self) -> None:
        if self._unfilled_reads:
            raise SimulationError(self._unfilled_reads[0])


def _registers_read(core: Core, step: Step) -> Iterator[tuple[Operation, Register]]:
    """Yield what a step reads: where a scalar predicate says no, nothing but the predicate."""
    predicate = step.operation.predicate
    if predicate is not None and step.scalar_predicate >= 0:
        yield step.operation, predicate.register
        if (core.scalars[step.scalar_predicate] != 0) == step.negated:
            return
    for operation in step.operations:
        for register in operation.reads:
            yield operation, register
