"""The chip's door to its event code: transfers, broadcasts, waits, barriers and DDR time.

The chip runs every core to its next blocking point and only then moves DDR time on. All is written
in integers over one flat record (`chip_record`), once for both engines: `starts`, `requests`,
`release` and `sharing`. `Events` owns the record and the log of what has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from isa.machine import Machine
from simulator.chip_record import (
    BEGIN,
    CHANNELS,
    CLOCK,
    CORES,
    DDR_BYTES,
    END,
    FINISHED_ROWS,
    FIRST_CHANNEL,
    FIRST_REQUEST,
    ID,
    LAST_REQUEST,
    MASK,
    MEMBER_CHANNELS,
    MEMORY_COUNT,
    NEVER,
    NONE,
    STARTED_BY,
    TIME,
    WORDS,
    WORK_BYTES,
    channel_address,
    entry_address,
    new_record,
    units_per_cycle,
)
from simulator.chip_record import CHANNEL as ENTRY_CHANNEL
from simulator.logs import Log, Rows
from simulator.release import (
    arrive,
    barrier_release,
    completion,
    finished_row_size,
    missing_members,
    note_finished,
    unblock,
)
from simulator.requests import burst_bytes
from simulator.sharing import advance
from simulator.starts import BAD_MASK, BUSY, DISAGREES, EARLY, OTHER_SOURCE, start

__all__ = [
    "BAD_MASK",
    "BUSY",
    "DISAGREES",
    "EARLY",
    "OTHER_SOURCE",
    "Events",
    "Finished",
    "burst_bytes",
    "channel_address",
    "units_per_cycle",
]


class Finished(NamedTuple):
    """A transfer that has ended: times in cycles, `bytes` of DDR traffic in whole bursts.

    `mask` has a bit for each core that takes part; `channels` gives each one's (core, channel).
    """

    id: int
    mask: int
    channels: tuple[tuple[int, int], ...]
    bytes: int
    first_request: int
    last_request: int
    begin: int
    end: int


class Events:
    """The transfers and barriers of one run: owns the record and the log of what has ended.

    Ids count up in the order of the starts and only name transfers: no time depends on them.
    """

    def __init__(
        self,
        machine: Machine,
        cores: int,
        extents: Sequence[tuple[int, int]] = ((0, 0),) * MEMORY_COUNT,
    ) -> None:
        self.record: Any = new_record(machine, cores, extents)
        self.log = Log(finished_row_size(self.record))
        self.ports = cores * machine.dma.channels

    @property
    def clock(self) -> int:
        """The cycle that DDR time has reached."""
        return int(self.record[CLOCK])

    @property
    def ddr_bytes(self) -> int:
        """Bytes moved by all transfers that have ended; a broadcast counts once."""
        return int(self.record[DDR_BYTES])

    @property
    def finished(self) -> list[Finished]:
        """The transfers that have ended, in the order of their ends."""
        return [self.finished_of(row) for row in self.rows().tolist()]

    def rows(self) -> Rows:
        """Return the log's rows: slots from `ID` on."""
        return self.log.rows(self.record[FINISHED_ROWS])

    def start(
        self, core: int, channel: int, time: int, mask: int, work_bytes: int, cap_units: int = 0
    ) -> int:
        """Start a transfer at cycle `time`, or join its broadcast; return the transfer's id.

        `mask`: the cores that take part. `work_bytes`: DDR traffic, 0 < work_bytes < 2**46.
        `cap_units`: the transfer's own limit in units per cycle, 0 for none. A program's mistake
        returns BUSY, BAD_MASK or DISAGREES instead. RuntimeError: the DDR is already past it.
        """
        result = start(self.record, core, channel, time, mask, work_bytes, cap_units)
        self.refuse_early(result, core, time)
        return result

    def refuse_early(self, result: int, core: int, time: int) -> None:
        """Raise RuntimeError if a start was EARLY."""
        if result == EARLY:
            raise RuntimeError(
                f"core {core} starts a transfer at cycle {time}, but the DDR is already at cycle "
                f"{self.clock}: advance() was called while the core could still run"
            )

    def entry(self, core: int, channel: int, time: int, packet: int, words: Sequence[int]) -> int:
        """Fill the entry of a core's channel with a start, and return it."""
        entry = entry_address(self.record, core, channel)
        self.record[entry + TIME] = time
        self.record[entry + ENTRY_CHANNEL] = channel
        self.record[entry + STARTED_BY] = packet
        self.record[entry + WORDS : entry + WORDS + len(words)] = words
        return entry

    def completion(self, core: int, channel: int) -> int:
        """Wait for a channel: return the cycle its transfer completed at and free the channel.

        IN_FLIGHT (-1): not known yet. IDLE (-2): nothing was started since the last wait.
        """
        return completion(self.record, core, channel)

    def missing_members(self, core: int, channel: int) -> int:
        """Return the bit mask of the cores that the channel's broadcast still waits for."""
        return missing_members(self.record, core, channel)

    def advance(self) -> int:
        """Move DDR time to the next end of a transfer; return its id, or NONE (-1) if none can end.

        Call it only when every core waits or has halted.
        """
        transfer = advance(self.record, NEVER)
        if transfer != NONE:
            self._make_room(1)
            note_finished(self.record, self.log.flat)
        return transfer

    def unblock(self) -> int:
        """Let blocked cores go on; return them as `release.unblock` does."""
        self._make_room(self.ports)
        return unblock(self.record, self.log.flat)

    def _make_room(self, wanted: int) -> None:
        self.log.make_room(self.record[FINISHED_ROWS], wanted)

    def finished_of(self, row: Sequence[int]) -> Finished:
        """Return a row of the log by name."""
        mask, record = row[MASK - ID], self.record
        ports = [
            row[MEMBER_CHANNELS - ID + core] - record[FIRST_CHANNEL]
            for core in range(record[CORES])
            if mask >> core & 1
        ]
        return Finished(
            id=row[0],
            mask=mask,
            channels=tuple(divmod(int(port), int(record[CHANNELS])) for port in ports),
            bytes=row[WORK_BYTES - ID],
            first_request=row[FIRST_REQUEST - ID],
            last_request=row[LAST_REQUEST - ID],
            begin=row[BEGIN - ID],
            end=row[END - ID],
        )

    def arrive(self, core: int, time: int) -> None:
        """Note that a core reached the barrier at cycle `time`."""
        arrive(self.record, core, time)

    def barrier_release(self) -> int:
        """Return the cycle at which all cores go on, or NONE (-1) while one is still missing."""
        return barrier_release(self.record)
