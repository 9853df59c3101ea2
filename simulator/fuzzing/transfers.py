"""Transfers of random programs: every mode and shape, waited for late, never in a race.

While a transfer may be in flight its regions are closed to loads and stores that would meet it. In
DDR a core writes only the area that is its own between two barriers. Descriptors lie in SM, one for
each place in the program and core. Called by `control`.
"""

from __future__ import annotations

from random import Random

from attrs import define, field, frozen

from isa.descriptor import Plane, TransferRequest
from isa.operands import Operand, Predicate
from simulator.fuzzing.classes import Class
from simulator.fuzzing.layout import DESCRIPTOR_BYTES, MOST_TRANSFERS, Region
from simulator.fuzzing.writer import Writer

WORDS = (1, 2, 6, 7, 12, 16, 24, 30, 36, 48)
"""How much a transfer moves; most numbers divide into rows in many ways."""


@frozen
class InFlight:
    """A transfer that was started and not waited for; `members` is the mask of a broadcast."""

    channel: int
    source: Region
    destination: Region
    members: int = 0


@define
class Transfers:
    """All transfers of a program: their descriptors, and those in flight."""

    writer: Writer
    requests: list[list[TransferRequest]] = field(factory=list)
    """Descriptors by number, one for each core."""
    busy: set[int] = field(factory=set)
    """Channels in use."""
    phase: int = 0
    """Which area is whose: changes at barriers."""

    def start(self, uniform: bool) -> InFlight | None:
        """Append the start of a random transfer, if one can be; `uniform`: all cores come here."""
        writer = self.writer
        free = [c for c in range(writer.machine.dma.channels) if c not in self.busy]
        if not free or len(self.requests) >= MOST_TRANSFERS or writer.spare < 2:
            return None
        members = self._members() if uniform else 0
        source, destination = self._sides(bool(members))
        if source is None or destination is None:
            return None
        transfer = InFlight(writer.random.choice(free), source, destination, members)
        self._describe(transfer)
        self._issue(transfer)
        return transfer

    def fill(self, region: Region) -> None:
        """Append a transfer that fills a region from DDR, and its wait."""
        source = next(s for s in self.writer.layout.shared if s.holds is region.holds)
        transfer = InFlight(0, source, region)
        plane = Plane(source.address, 1, region.bytes // 4, region.bytes)
        target = Plane(region.address, 1, region.bytes // 4, region.bytes)
        self.requests.append([TransferRequest(plane, target)] * self.writer.settings.cores)
        self._issue(transfer)
        self.wait(transfer)

    def wait(self, transfer: InFlight, in_one_packet: bool = False) -> None:
        """Append the wait for a transfer."""
        writer = self.writer
        predicate = self._membership(transfer.members)
        channel = transfer.channel if in_one_packet else self._channel(transfer.channel)
        writer.packet(writer.make("DMAWAIT", channel, predicate=predicate))
        writer.state.reading[transfer.source] -= 1
        writer.state.writing[transfer.destination] -= 1
        self.busy.remove(transfer.channel)

    def turn(self) -> None:
        """Give every area of DDR to another core, behind a barrier, if none is in use."""
        state, owned = self.writer.state, self.writer.layout.owned
        if not any(state.reading[region] or state.writing[region] for region in owned[0]):
            self.phase += 1

    # Choosing -----------------------------------------------------------------------------------

    def _members(self) -> int:
        """Return the mask of a broadcast, 0 for none."""
        cores, random = self.writer.settings.cores, self.writer.random
        if random.random() > 0.4:
            return 0
        return (1 << cores) - 1 if random.random() < 0.5 else random.randrange(1, 1 << cores)

    def _sides(self, broadcast: bool) -> tuple[Region | None, Region | None]:
        """Return where from and where to; areas stand for those of every core."""
        writer, random = self.writer, self.writer.random
        layout, state = writer.layout, writer.state
        inner = [r for r in (*layout.array, *layout.scalar) if r.holds is not Class.CONTROL]
        owned, shared = layout.owned[0], layout.shared
        pairs = [(s, d) for s in shared for d in inner]
        if not broadcast:
            pairs += [(s, d) for s in owned for d in inner]
            pairs += [(s, d) for s in inner for d in owned]
            pairs += [(s, d) for s in shared for d in owned]
        legal = [
            (s, d)
            for s, d in pairs
            if s.holds is d.holds
            and not state.writing[s]
            and not state.writing[d]
            and not state.reading[d]
        ]
        return random.choice(legal) if legal else (None, None)

    def _describe(self, transfer: InFlight) -> None:
        """Draw the descriptor, another one for each core where they may differ."""
        writer = self.writer
        random, cores = writer.random, writer.settings.cores
        words = random.choice([w for w in WORDS if 4 * w <= transfer.destination.bytes])
        transpose = random.random() < 0.3
        shape = _rows(random, words)
        other = shape[::-1] if transpose else _rows(random, words)
        first = _plane(random, transfer.source, shape, False)
        requests = []
        for core in range(cores):
            source = self._own(transfer.source, core)
            plane = first if transfer.members else _plane(random, source, shape, False)
            target = _plane(random, self._own(transfer.destination, core), other, True)
            requests.append(TransferRequest(plane, target, transpose, transfer.members))
        self.requests.append(requests)

    def _own(self, region: Region, core: int) -> Region:
        """Return a core's own region in place of that of area 0."""
        owned = self.writer.layout.owned
        if region not in owned[0]:
            return region
        return owned[(core + self.phase) % len(owned)][owned[0].index(region)]

    # Issuing ------------------------------------------------------------------------------------

    def _issue(self, transfer: InFlight) -> None:
        writer = self.writer
        number = len(self.requests) - 1
        address = writer.take()
        writer.state.writing[transfer.destination] += 1
        writer.state.reading[transfer.source] += 1
        writer.compute("SMOVI", writer.layout.descriptors + DESCRIPTOR_BYTES * number, address)
        while writer.settings.strict and self._too_early(transfer):
            writer.packet()
        predicate = self._membership(transfer.members)
        channel = self._channel(transfer.channel)
        self.busy.add(transfer.channel)
        writer.packet(writer.make("DMASTART", address, channel, predicate=predicate))
        writer.give(address)

    def _too_early(self, transfer: InFlight) -> bool:
        latency, state = self.writer.machine.latency["store"], self.writer.state
        return any(state.age(r) < latency for r in (transfer.source, transfer.destination))

    def _channel(self, channel: int) -> Operand:
        """Return the channel as an immediate, or in a register set here."""
        writer = self.writer
        if writer.random.random() < 0.7:
            return channel
        register = writer.take()
        writer.compute("SMOVI", channel, register)
        writer.give(register)
        return register

    def _membership(self, members: int) -> Predicate | None:
        """Compute whether this core takes part, where not all do."""
        writer = self.writer
        if members in (0, (1 << writer.settings.cores) - 1):
            return None
        core, mask, steering = writer.take(), writer.take(), writer.palette.steering
        writer.packet(writer.make("SMOVI", members, mask))
        writer.compute("SCOREID", core)
        writer.compute("SSHFLR", core, mask, mask)
        writer.compute("SAND", 1, mask, steering)
        writer.give(core)
        writer.give(mask)
        return Predicate(steering)


def _rows(random: Random, words: int) -> tuple[int, int]:
    """Return a number of words as rows and words a row."""
    rows = random.choice([n for n in range(1, words + 1) if words % n == 0])
    return rows, words // rows


def _plane(random: Random, region: Region, shape: tuple[int, int], written: bool) -> Plane:
    """Return a place for rows inside a region, closely packed where nothing else fits."""
    rows, row_words = shape
    row_bytes = 4 * row_words
    for _ in range(8):
        size = random.randint(row_words, 2 * row_words + 3) if written else random.randint(0, 20)
        stride = 4 * size * random.choice((1, 1, -1))
        reach = (rows - 1) * abs(stride) + row_bytes
        if reach <= region.bytes:
            first = region.address + 4 * random.randint(0, (region.bytes - reach) // 4)
            back = (rows - 1) * abs(stride) if stride < 0 else 0
            return Plane(first + back, rows, row_words, stride)
    return Plane(region.address, rows, row_words, row_bytes)
