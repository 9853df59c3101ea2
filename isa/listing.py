"""The listing: a program as people read it, one row a packet and one column an issue slot.

Called by `ftm7004 listing` and by golden tests; the text depends on nothing but the program, the
machine's slots and the author's source file, whose lines stand beside their packets.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from isa.errors import UsageError, unknown
from isa.instruction import Effect
from isa.machine import Machine
from isa.program import Origin, Packet, Program

EMPTY = "."
GAP = "  "


@frozen
class Row:
    """One packet, ready to print: `cells` holds the text of each slot that issues."""

    packet: int
    labels: tuple[str, ...]
    loop: str
    cells: dict[str, str]
    snop: str
    """Text of a SNOP that has the packet to itself; empty for any other packet."""
    lines: str
    """The author's place, such as `conv.py:12,14`."""
    source: str
    """Text of the first of these lines."""


def listing(
    program: Program,
    machine: Machine,
    *,
    columns: Iterable[str] = (),
    first: int = 0,
    last: int | None = None,
) -> str:
    """Return the listing of packets `first` to `last` (both included; all by default).

    `columns` names the slots to show, by default every slot that the program uses. Raise
    UsageError for an unknown slot or a first packet that does not exist.
    """
    slots = _columns(program, machine, tuple(columns))
    rows = packet_rows(program, first, last)
    widths = {slot: _width(slot, [row.cells.get(slot, EMPTY) for row in rows]) for slot in slots}
    number_width = _width("packet", [str(row.packet) for row in rows])
    loop_width = _width("loop", [row.loop for row in rows])
    head = [f"{'packet':>{number_width}}", f"{'loop':{loop_width}}"]
    head += [f"{slot:{widths[slot]}}" for slot in slots]
    lines = [_title(program, machine), "", GAP.join([*head, "source"])]
    for row in rows:
        for label in row.labels:
            lines += [f"{label}:", *_pipeline_lines(program, label)]
        start = [f"{row.packet:>{number_width}}", f"{row.loop or EMPTY:{loop_width}}"]
        lines.append(GAP.join([*start, *_cells(row, widths), f"{row.lines}  {row.source}"]))
    lines += [f"{label}:" for label in _end_labels(program, last)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def packet_rows(program: Program, first: int = 0, last: int | None = None) -> list[Row]:
    """Return the rows of packets `first` to `last`, both included."""
    count = len(program.packets)
    if not 0 <= first < max(count, 1):
        raise UsageError(f"packet {first} does not exist: '{program.name}' has {count} packets")
    labels = _labels_by_packet(program)
    end = count if last is None else min(last + 1, count)
    return [
        _row(number, program.packets[number], labels.get(number, ()))
        for number in range(first, end)
    ]


def used_slots(program: Program, machine: Machine) -> tuple[str, ...]:
    """Return the machine's slots that the program uses anywhere, in the machine's order."""
    used = {o.slot for packet in program.packets for o in packet.operations if not _snop(packet)}
    return tuple(slot for slot in machine.issue.slots if slot in used)


def source_text(origin: Origin) -> str:
    """Return the text of an author's line, without indentation; empty where there is no file."""
    return linecache.getline(origin.file, origin.line).strip()


def short_place(origin: Origin) -> str:
    """Return `file:line` with the file's bare name, the same on every host."""
    return f"{Path(origin.file).name}:{origin.line}"


def _pipeline_lines(program: Program, label: str) -> list[str]:
    """Return how the software-pipelined loop of a label came out; no lines for any other label."""
    found = program.pipelined.get(label)
    return [f"; {line}" for line in found.lines()] if found else []


def _columns(program: Program, machine: Machine, wanted: tuple[str, ...]) -> tuple[str, ...]:
    for slot in wanted:
        if slot not in machine.issue.slots:
            raise UsageError(unknown("issue slot", slot, machine.issue.slots))
    return tuple(s for s in machine.issue.slots if s in wanted) or used_slots(program, machine)


def _title(program: Program, machine: Machine) -> str:
    cores = "1 core" if program.cores == 1 else f"{program.cores} cores"
    packets = "1 packet" if len(program.packets) == 1 else f"{len(program.packets):,} packets"
    return f"; {program.name} for {cores} of {machine.name}: {packets}"


def _row(number: int, packet: Packet, labels: tuple[str, ...]) -> Row:
    snop = _snop(packet)
    places = _places(packet)
    return Row(
        packet=number,
        labels=labels,
        loop=places[0].loop,
        cells={} if snop else {o.slot: str(o) for o in packet.operations},
        snop=snop,
        lines=_place_text(places),
        source=source_text(places[0]),
    )


def _places(packet: Packet) -> list[Origin]:
    """Return the packet's own place, then those of operations from other lines."""
    places = {(o.file, o.line): o for o in [packet.origin, *(p.origin for p in packet.operations)]}
    known = [origin for origin in places.values() if origin.line > 0]
    return known or [packet.origin]


def _place_text(places: list[Origin]) -> str:
    """Return `conv.py:12,14`; the file is repeated only where it changes."""
    text, file = "", None
    for origin in places:
        name = Path(origin.file).name
        joint = "," if file is not None else ""
        text += f"{joint}{origin.line}" if name == file else f"{joint}{name}:{origin.line}"
        file = name
    return text


def _cells(row: Row, widths: dict[str, int]) -> Iterator[str]:
    if not row.snop:
        for slot, width in widths.items():
            yield f"{row.cells.get(slot, EMPTY):{width}}"
        return
    across = sum(widths.values()) + len(GAP) * (len(widths) - 1)
    yield f" {row.snop} ".center(across, "-")


def _snop(packet: Packet) -> str:
    """Return the text of a packet that is a SNOP and nothing else, or an empty string."""
    effects = [operation.instruction.effect for operation in packet.operations]
    return str(packet.operations[0]) if effects == [Effect.IDLE] else ""


def _labels_by_packet(program: Program) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for name, packet in sorted(program.labels.items()):
        found[packet] = (*found.get(packet, ()), name)
    return found


def _end_labels(program: Program, last: int | None) -> tuple[str, ...]:
    """Return the labels behind the last packet, if the listing reaches it."""
    count = len(program.packets)
    reached = last is None or last >= count - 1
    return _labels_by_packet(program).get(count, ()) if reached else ()


def _width(head: str, cells: list[str]) -> int:
    return max(len(text) for text in [head, *cells])
