"""What a trace shows, as texts of the Chrome trace-event format: rows, operations, stalls, DMA.

Called by `simulator.reporting.trace`, which decides what is kept. A row is a thread of the format,
a core its process; the format counts microseconds, of which a cycle takes a thousandth.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from isa.listing import short_place
from isa.machine import Machine
from isa.program import Operation, Packet, Program
from simulator.result import StallPlace, TransferResult

FIRST_CHANNEL_ROW = 100
"""Row number of DMA channel 0, behind every issue slot and the stalls."""


class EventTexts:
    """Turns what happened into event texts; an operation's text is made once per packet."""

    def __init__(
        self, program: Program, machine: Machine, transfers: Iterable[TransferResult]
    ) -> None:
        self._program, self._machine = program, machine
        self._names = {transfer.id: _transfer_name(transfer) for transfer in transfers}
        self._stall_row = len(machine.issue.slots)
        self._texts: dict[int, list[tuple[int, str]]] = {}

    def names(self, cores: Iterable[int], channels: Iterable[tuple[int, int]]) -> Iterator[str]:
        """Name the processes and rows, in the order in which they are to be shown."""
        slots = self._machine.issue.slots
        for core in cores:
            yield _metadata("process_name", core, 0, {"name": f"core {core}"})
            yield _metadata("process_sort_index", core, 0, {"sort_index": core})
            for row, slot in enumerate(slots):
                yield from _row_name(core, row, slot)
            yield from _row_name(core, self._stall_row, "stalls and barriers")
        for core, channel in channels:
            yield from _row_name(core, FIRST_CHANNEL_ROW + channel, f"DMA channel {channel}")

    def operations(self, core: int, pairs: Iterable[tuple[int, int]]) -> Iterator[str]:
        """Return the events of a core's packets, given as (cycle, packet)."""
        for cycle, packet in pairs:
            if packet not in self._texts:
                self._texts[packet] = self._packet_texts(packet)
            start = _microseconds(cycle)
            for row, text in self._texts[packet]:
                yield f'{{"ph":"X","pid":{core},"tid":{row},"ts":{start},{text}}}'

    def stall(self, core: int, cycle: int, cycles: int, place: StallPlace) -> str:
        """Return the event of one stall."""
        packet = self._program.packets[place.packet]
        arguments: dict[str, Any] = {
            "cycles": cycles,
            "packet": place.packet,
            "line": short_place(packet.origin),
            "loop": packet.origin.loop,
        }
        if place.transfer >= 0:
            arguments["transfer"] = place.transfer
            arguments["waits for"] = self._names.get(place.transfer, "")
        return _slice(core, self._stall_row, cycle, cycles, place.cause, "stall", arguments)

    def transfer(self, transfer: TransferResult) -> Iterator[str]:
        """Return the events of a transfer, one for each core that takes part."""
        packet = self._program.packets[transfer.packet]
        arguments = {
            "transfer": transfer.id,
            "mode": transfer.mode,
            "ddr_bytes": transfer.ddr_bytes,
            "cores": [core for core, _ in transfer.channels],
            "requested": [transfer.first_request, transfer.last_request],
            "begin": transfer.begin,
            "end": transfer.end,
            "packet": transfer.packet,
            "line": short_place(packet.origin),
        }
        name = self._names[transfer.id]
        cycles = transfer.end - transfer.begin
        for core, channel in transfer.channels:
            row = FIRST_CHANNEL_ROW + channel
            yield _slice(core, row, transfer.begin, cycles, name, "DMA", arguments)

    def _packet_texts(self, number: int) -> list[tuple[int, str]]:
        """Return the row and the unchanging part of the event of each operation of a packet."""
        packet = self._program.packets[number]
        slots = self._machine.issue.slots
        return [
            (slots.index(o.slot), _operation_text(o, packet, number)) for o in packet.operations
        ]


def _operation_text(operation: Operation, packet: Packet, number: int) -> str:
    arguments = {
        "text": str(operation),
        "packet": number,
        "line": short_place(operation.origin),
        "loop": operation.origin.loop,
        "buffer": operation.buffer,
    }
    known = {key: value for key, value in arguments.items() if value != ""}
    fields = {"name": operation.instruction.mnemonic, "cat": "operation", "args": known}
    return f'"dur":{_microseconds(packet.cycles)},{json.dumps(fields)[1:-1]}'


def _transfer_name(transfer: TransferResult) -> str:
    return f"{transfer.source} -> {transfer.destination}"


def _slice(
    core: int, row: int, cycle: int, cycles: int, name: str, kind: str, arguments: dict[str, Any]
) -> str:
    fields = json.dumps({"name": name, "cat": kind, "args": arguments})[1:-1]
    start, duration = _microseconds(cycle), _microseconds(cycles)
    return f'{{"ph":"X","pid":{core},"tid":{row},"ts":{start},"dur":{duration},{fields}}}'


def _row_name(core: int, row: int, name: str) -> Iterator[str]:
    yield _metadata("thread_name", core, row, {"name": name})
    yield _metadata("thread_sort_index", core, row, {"sort_index": row})


def _metadata(kind: str, core: int, row: int, arguments: dict[str, Any]) -> str:
    return json.dumps({"ph": "M", "name": kind, "pid": core, "tid": row, "args": arguments})


def _microseconds(cycles: int) -> str:
    """Return cycles as the format's microseconds, one cycle shown as one nanosecond."""
    return f"{cycles // 1000}.{cycles % 1000:03}"
