"""The trace of a run: a JSON file that Perfetto (ui.perfetto.dev) and chrome://tracing open.

A process is a core, a row is an issue slot, the stalls, or a DMA channel with its buffers' names.
`Trace` listens to the run as its `Tracer`, keeps (cycle, packet) pairs compactly, and writes the
file at the end. One cycle is shown as one nanosecond.
"""

from __future__ import annotations

import json
import os
from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from isa.machine import Machine
from isa.program import Program
from simulator.reporting.output import check_writable, write_whole
from simulator.reporting.trace_events import EventTexts
from simulator.result import ChipResult, StallPlace, TransferResult

MOST_OPERATIONS = 2_000_000
"""Operations kept unless the caller says otherwise; about 500 MB of JSON."""

Window = tuple[int, int]
Pairs = np.ndarray[Any, np.dtype[np.int64]]


class Trace:
    """Records a run and writes it to `path`.

    `window` (A, B) keeps what overlaps the cycles A to B - 1. Beyond `most_operations` only the
    earliest operations of the window are kept; `note` then says so, and the file has
    `"truncated": true`. Raise UsageError if the path cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        window: Window | None = None,
        most_operations: int | None = None,
    ) -> None:
        check_writable(path)
        self.path = path
        self.window = window
        self.most_operations = MOST_OPERATIONS if most_operations is None else most_operations
        self.note = ""
        """What a reader of the file must know; empty if it is complete."""
        self._packets: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
        self._before: dict[int, tuple[int, int]] = {}
        self._stalls: list[tuple[int, int, int, StallPlace]] = []

    def packet(self, core: int, cycle: int, packet: int) -> None:
        """Core issues a packet at a cycle."""
        start, end = self.window or (0, cycle + 1)
        if cycle < start:
            self._before[core] = (cycle, packet)
        elif cycle < end:
            kept = self._packets[core]
            # One more than the limit shows, when the file is written, that something was dropped.
            if len(kept) <= 2 * self.most_operations:
                kept.extend((cycle, packet))

    def stall(self, core: int, cycle: int, cycles: int, place: StallPlace) -> None:
        """Core stands still for `cycles` cycles from `cycle` on."""
        if len(self._stalls) <= self.most_operations and self._overlaps(cycle, cycle + cycles):
            self._stalls.append((core, cycle, cycles, place))

    def save(self, program: Program, result: ChipResult, machine: Machine) -> None:
        """Write the file, whole or not at all."""
        issued, truncated = self._issued(program)
        truncated = truncated or len(self._stalls) > self.most_operations
        if truncated:
            self.note = (
                f"the trace '{os.fspath(self.path)}' keeps the first {self.most_operations:,} "
                "operations and stalls only; choose other cycles with --trace-cycles A:B"
            )
        transfers = [t for t in result.transfers if self._overlaps(t.begin, t.end)]
        rows = EventTexts(program, machine, result.transfers)
        about = {
            "program": program.name,
            "machine": machine.name,
            "cores": len(result.cores),
            "cycles": result.cycles,
            "time": "1 cycle is shown as 1 ns",
            "window": self.window,
            "truncated": truncated,
        }

        def write(stream: BinaryIO) -> None:
            stream.write(b'{"displayTimeUnit": "ns", "otherData": ')
            stream.write(json.dumps(about).encode())
            stream.write(b', "traceEvents": [\n')
            separator = ""
            for event in self._events(rows, issued, transfers, len(result.cores)):
                stream.write(f"{separator}{event}".encode())
                separator = ",\n"
            stream.write(b"\n]}\n")

        write_whole(self.path, write)

    def _overlaps(self, begin: int, end: int) -> bool:
        return self.window is None or (begin < self.window[1] and end > self.window[0])

    def _issued(self, program: Program) -> tuple[dict[int, Pairs], bool]:
        """Return the (cycle, packet) pairs of each core, and whether the limit cut some off."""
        pairs = {
            core: np.array(kept, np.int64).reshape(-1, 2) for core, kept in self._packets.items()
        }
        for core, (cycle, packet) in self._before.items():
            if self._overlaps(cycle, cycle + program.packets[packet].cycles):
                late = pairs.get(core, np.empty((0, 2), np.int64))
                pairs[core] = np.vstack([np.array([[cycle, packet]], np.int64), late])
        limit = _limit(list(pairs.values()), program, self.most_operations)
        kept = {core: some[some[:, 0] < limit] for core, some in pairs.items()}
        return kept, any(len(kept[core]) < len(pairs[core]) for core in pairs)

    def _events(
        self,
        rows: EventTexts,
        issued: dict[int, Pairs],
        transfers: list[TransferResult],
        cores: int,
    ) -> Iterator[str]:
        channels = {member for transfer in transfers for member in transfer.channels}
        yield from rows.names(range(cores), sorted(channels))
        for core, pairs in sorted(issued.items()):
            yield from rows.operations(core, map(tuple, pairs.tolist()))
        for core, cycle, cycles, place in self._stalls:
            yield rows.stall(core, cycle, cycles, place)
        for transfer in transfers:
            yield from rows.transfer(transfer)


def _limit(parts: list[Pairs], program: Program, most: int) -> int:
    """Return the cycle before which at most `most` operations issue, all cores together."""
    pairs = np.vstack([np.empty((0, 2), np.int64), *parts])
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    operations = np.array([max(len(p.operations), 1) for p in program.packets], np.int64)
    total = np.cumsum(operations[pairs[:, 1]])
    beyond = np.flatnonzero(total > most)
    return int(pairs[beyond[0], 0]) if beyond.size else int(pairs[-1, 0]) + 1 if len(pairs) else 0
