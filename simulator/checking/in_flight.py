"""The words for a transfer that clashes with one in flight, which every run refuses.

`simulator.clashes` finds it in integers; the chip asks here for the message, the same as that of a
checked run. It is made from the chip's flat record, where both transfers still are.
"""

from __future__ import annotations

from collections.abc import Iterator

from isa.descriptor import TransferRequest
from isa.program import Program
from simulator.checking.footprint import Footprint
from simulator.checking.places import origin_of_start
from simulator.checking.races import Races, Side, Started
from simulator.chip_record import (
    CHANNELS,
    CORE_READS,
    CORE_WRITES,
    CORES,
    FROM,
    FROM_MEMORY,
    MEMORIES,
    MEMORY_NAMES,
    STARTED_BY,
    TIME,
    TO,
    TO_MEMORY,
    Record,
    core_address,
    entry_address,
)
from simulator.dma import plane_at


def clash_text(program: Program, record: Record, core: int, channel: int) -> str:
    """Return what a core's transfer, just refused as a CLASH, clashes with, and what to do."""
    races = Races(program)
    for other in range(record[CORES]):
        for started in _in_flight(program, record, other):
            races.start(started)
    return f"race: {races.start(_started(program, record, core, channel))}"


def _in_flight(program: Program, record: Record, core: int) -> Iterator[Started]:
    """Yield a core's transfers in flight in the order of their starts."""
    at = core_address(record, core)
    busy = record[at + CORE_READS] | record[at + CORE_WRITES]
    channels = [channel for channel in range(record[CHANNELS]) if busy >> channel & 1]
    channels.sort(key=lambda channel: record[entry_address(record, core, channel) + TIME])
    return (_started(program, record, core, channel) for channel in channels)


def _started(program: Program, record: Record, core: int, channel: int) -> Started:
    """Return the transfer that a core's channel was started with last."""
    entry = entry_address(record, core, channel)
    sides = []
    for at, memory, writes in ((FROM, FROM_MEMORY, False), (TO, TO_MEMORY, True)):
        number = record[entry + memory]
        base = record[MEMORIES + 2 * number]
        footprint = Footprint.of(plane_at(record, entry + at), base)
        sides.append(Side(MEMORY_NAMES[number], base, footprint, writes))
    request = TransferRequest(plane_at(record, entry + FROM), plane_at(record, entry + TO))
    packet = record[entry + STARTED_BY]
    return Started(core, channel, packet, origin_of_start(program, packet), request, *sides)
