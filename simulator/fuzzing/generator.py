"""From a seed and a number to a random program: legal, free of races, and it ends.

Called by `campaign` for each program and by tests. A program that cannot be made legal is given up
and drawn anew, still from the same seed and number.
"""

from __future__ import annotations

from random import Random

import numpy as np

from isa.descriptor import TransferRequest
from isa.operands import FILE_LENGTH, File, Register
from isa.packing.legality import findings
from isa.packing.scheduler import schedule
from isa.program import Buffer, Operation, Origin, Packet, Program
from simulator.fuzzing.case import Case, machine_with
from simulator.fuzzing.classes import Class
from simulator.fuzzing.control import Control
from simulator.fuzzing.layout import (
    DESCRIPTOR_BYTES,
    Layout,
    Palette,
    Region,
    make_layout,
    make_palette,
)
from simulator.fuzzing.machines import random_overrides
from simulator.fuzzing.meetings import StuckError, remove_meetings
from simulator.fuzzing.transfers import Transfers
from simulator.fuzzing.values import words
from simulator.fuzzing.writer import Draft, DraftPacket, Settings, Writer, first_values

ATTEMPTS, PATIENCE = 30, 20
"""How often a program is drawn anew, and after how often on the machine as it is."""

DEFAULT_SIZE = 90
"""Packets of an average program, without those that fill its registers."""

SOURCE = "random"
"""What stands for the author's file; the line is the number of the packet."""


def generate(seed: int, index: int, size: int = DEFAULT_SIZE) -> Case:
    """Return program number `index` of a seed; `size` is how many packets are aimed at."""
    random = Random(f"{seed}/{index}")
    overrides = random_overrides(random)
    for attempt in range(ATTEMPTS):
        if attempt == PATIENCE:
            overrides = ()
        case = _attempt(random, seed, index, size, overrides)
        if case is not None:
            return case
    raise RuntimeError(f"program {index} of seed {seed}: no legal program in {ATTEMPTS} attempts")


def _attempt(
    random: Random, seed: int, index: int, size: int, overrides: tuple[str, ...]
) -> Case | None:
    machine = machine_with(overrides)
    settings = Settings(
        cores=random.choice((1, 1, 2, 2, 3, machine.chip.cores)),
        strict=random.random() < 0.8,
        data_control=random.random() < 0.4,
        computed=random.random() < 0.4,
        density=random.choice((0.15, 0.4, 0.7, 0.95)),
        size=random.randint(size // 3, size * 5 // 3),
    )
    layout = make_layout(random, machine, settings.cores)
    palette = make_palette(random, machine, layout, settings.data_control)
    writer = Writer(random, machine, layout, palette, settings)
    transfers = Transfers(writer)
    _write(writer, transfers)
    try:
        remove_meetings(writer)
    except StuckError:
        return None
    program = finished(writer, transfers.requests, f"random-{seed}-{index}")
    if findings(program, machine):
        return None
    return Case(
        seed, index, overrides, program, _ddr(random, layout),
        _float_registers(palette), _float_regions(layout), checked=settings.strict,
    )  # fmt: skip


def _write(writer: Writer, transfers: Transfers) -> None:
    """Append the whole program: first values, memories filled, constructs, halt, subroutines."""
    for packet in schedule(first_values(writer), writer.machine):
        drafts = [Draft(operation, True) for operation in packet.operations]
        writer.packets.append(DraftPacket(drafts, packet.cycles))
    writer.memory = False
    for region in writer.layout.array:
        transfers.fill(region)
    writer.memory = True
    control = Control(writer, transfers)
    control.body(writer.settings.size)
    writer.packet(writer.make("HALT"))
    control.write_subroutines()


def finished(writer: Writer, requests: list[list[TransferRequest]], name: str) -> Program:
    """Return the drafts as a program."""
    packets = []
    for number, draft in enumerate(writer.packets):
        origin = Origin(SOURCE, number + 1)
        operations = tuple(_placed(draft.operation, origin) for draft in draft.drafts)
        packets.append(Packet(operations, origin, pinned=True))
    layout = writer.layout
    return Program(
        name, tuple(packets), dict(writer.labels), writer.settings.cores,
        scalar_data=_scalar_data(writer, requests),
        buffers=tuple(Buffer(r.name, r.space, r.address, r.bytes) for r in layout.regions()),
        ddr_bytes=layout.ddr_bytes,
    )  # fmt: skip


def _placed(operation: Operation, origin: Origin) -> Operation:
    return Operation(
        operation.instruction, operation.operands, operation.predicate, operation.slot,
        operation.buffer, origin,
    )  # fmt: skip


def _scalar_data(
    writer: Writer, requests: list[list[TransferRequest]]
) -> tuple[tuple[tuple[int, np.ndarray], ...], ...]:
    """Return what SM holds at first: values of every region, and the descriptors of each core."""
    layout, cores = writer.layout, []
    for core in range(writer.settings.cores):
        pieces = [(r.address, _content(writer.random, r)) for r in layout.scalar]
        for number, request in enumerate(requests):
            address = layout.descriptors + DESCRIPTOR_BYTES * number
            pieces.append((address, np.array(request[core].words(), np.uint32)))
        cores.append(tuple(pieces))
    return tuple(cores)


def _content(random: Random, region: Region) -> np.ndarray:
    return words(random, region.bytes // 4, region.holds is Class.FLOAT)


def _ddr(random: Random, layout: Layout) -> np.ndarray:
    regions = [*layout.shared, *(region for area in layout.owned for region in area)]
    return np.concatenate([_content(random, region) for region in regions])


def _float_registers(palette: Palette) -> frozenset[Register]:
    found = {*palette.scalars[Class.FLOAT], *palette.vectors[Class.FLOAT]}
    if palette.exchange is Class.FLOAT:
        found |= {Register(File.EXCHANGE, n) for n in range(FILE_LENGTH[File.EXCHANGE])}
    return frozenset(found)


def _float_regions(layout: Layout) -> tuple[Region, ...]:
    return tuple(region for region in layout.regions() if region.holds is Class.FLOAT)
