"""Where a random program keeps things: registers by class, regions of AM, SM and DDR.

A region holds one class of values. Only its pointers reach it, so that stores, loads and transfers
can be kept apart. Called by the generator; the comparison must know where NaNs may be.
"""

from __future__ import annotations

from random import Random

from attrs import define, field, frozen

from isa.machine import Machine
from isa.operands import FILE_LENGTH, File, Register
from simulator.fuzzing.classes import Class

DESCRIPTOR_BYTES = 48
MOST_TRANSFERS = 24
VECTORS = 12
"""Vectors in a region of AM."""

SCALAR_BYTES = 192
"""Bytes in a region of SM."""

DDR_AREA_WORDS = 512


@frozen
class Region:
    """A piece of one memory that holds one class of values."""

    name: str
    space: str
    address: int
    bytes: int
    holds: Class

    @property
    def end(self) -> int:
        return self.address + self.bytes


@define
class Layout:
    """All regions; those of AM and SM are the same on every core, DDR areas are one for each."""

    array: list[Region] = field(factory=list)
    scalar: list[Region] = field(factory=list)
    shared: list[Region] = field(factory=list)
    """Parts of DDR that are only read, by all cores."""
    owned: list[list[Region]] = field(factory=list)
    """Parts of DDR that one core at a time may write: `owned[area][kind]`."""
    descriptors: int = 0
    """Byte address of the first descriptor in SM."""
    ddr_bytes: int = 0

    def regions(self) -> list[Region]:
        """Return every region."""
        owned = [region for area in self.owned for region in area]
        return [*self.array, *self.scalar, *self.shared, *owned]


def make_layout(random: Random, machine: Machine, cores: int) -> Layout:
    """Return regions that fit the machine; the outer ones touch the ends of their memories."""
    layout = Layout()
    size = VECTORS * 4 * machine.vpu.lanes
    classes = [Class.FLOAT, Class.INTEGER, Class.FLOAT, Class.INTEGER, Class.FLOAT]
    places = _spread(random, machine.am.base, machine.am.bytes, [size] * len(classes))
    for number, (place, holds) in enumerate(zip(places, classes, strict=True)):
        layout.array.append(Region(f"am{number}", "AM", place, size, holds))
    classes = [Class.CONTROL, Class.INTEGER, Class.FLOAT]
    sizes = [SCALAR_BYTES] * 3 + [MOST_TRANSFERS * DESCRIPTOR_BYTES]
    *places, layout.descriptors = _spread(random, machine.sm.base, machine.sm.bytes, sizes)
    for number, (place, holds) in enumerate(zip(places, classes, strict=True)):
        layout.scalar.append(Region(f"sm{number}", "SM", place, SCALAR_BYTES, holds))
    _make_ddr(layout, machine, cores)
    return layout


def _make_ddr(layout: Layout, machine: Machine, cores: int) -> None:
    size, place = 4 * DDR_AREA_WORDS, machine.ddr.base
    for number in range(1 + cores):
        area = []
        for holds in (Class.FLOAT, Class.INTEGER):
            area.append(Region(f"ddr{number}{holds.name[0]}", "DDR", place, size, holds))
            place += size
        if number:
            layout.owned.append(area)
        else:
            layout.shared = area
    layout.ddr_bytes = place - machine.ddr.base


def _spread(random: Random, base: int, room: int, sizes: list[int]) -> list[int]:
    """Return places for pieces in their order, the last one ending with the memory."""
    spare = room - sum(sizes)
    assert spare >= 0
    cuts = sorted(random.randint(0, spare // 4) * 4 for _ in sizes[1:-1])
    gaps = [0, *cuts, spare]
    places, before = [], 0
    for gap, size in zip(gaps, sizes, strict=True):
        places.append(base + gap + before)
        before += size
    return places


@define
class Palette:
    """The registers a program uses, by what they may hold."""

    scalars: dict[Class, list[Register]] = field(factory=dict)
    """CONTROL ones are written only from known values; floats may hold NaNs."""
    vectors: dict[Class, list[Register]] = field(factory=dict)
    exchange: Class = Class.FLOAT
    pointers: dict[Register, Region] = field(factory=dict)
    """Address registers that always point into their region."""
    idle_pointers: list[Register] = field(factory=list)
    """Address registers that hold anything and are never followed."""
    offsets: list[Register] = field(factory=list)
    """Offset registers that always hold a small number."""
    idle_offsets: list[Register] = field(factory=list)
    steering: Register = field(factory=lambda: Register(File.SCALAR, 2))
    """The predicate that loops and parts for some cores only are steered with."""
    reserved: list[Register] = field(factory=list)
    """Scalar registers that the generator hands out itself."""


def make_palette(random: Random, machine: Machine, layout: Layout, data_control: bool) -> Palette:
    """Return registers for a program; few, so that they meet often."""
    palette = Palette()
    _choose_scalars(random, palette, data_control)
    _choose_vectors(random, palette)
    palette.exchange = random.choice((Class.FLOAT, Class.INTEGER))
    for half, regions in ((0, layout.array), (8, layout.scalar)):
        numbers = random.sample(range(half, half + 8), 7)
        pointed = [*regions, *random.sample(regions, 6)] if len(regions) >= 6 else regions * 2
        pointed = random.sample(pointed, min(6, len(pointed)))
        for number, region in zip(numbers, pointed, strict=False):
            palette.pointers[Register(File.ADDRESS, number)] = region
        palette.idle_pointers.append(Register(File.ADDRESS, numbers[-1]))
        first, second, third = random.sample(range(half, half + 8), 3)
        palette.offsets += [Register(File.OFFSET, first), Register(File.OFFSET, second)]
        palette.idle_offsets.append(Register(File.OFFSET, third))
    return palette


def _pairs(random: Random, file: File, first: int, count: int) -> list[list[Register]]:
    evens = random.sample(range(first, FILE_LENGTH[file], 2), count)
    return [[Register(file, even), Register(file, even + 1)] for even in evens]


def _choose_scalars(random: Random, palette: Palette, data_control: bool) -> None:
    pairs = _pairs(random, File.SCALAR, 4, 18)
    predicates = [Register(File.SCALAR, 0), Register(File.SCALAR, 1)]
    control = [*predicates, *pairs[0], *pairs[1]]
    integer = [*pairs[2], *pairs[3]]
    if data_control:
        control = integer = [*control, *integer]
    palette.scalars = {
        Class.CONTROL: control, Class.INTEGER: integer, Class.FLOAT: [*pairs[4], *pairs[5]],
    }  # fmt: skip
    palette.reserved = [register for pair in pairs[6:] for register in pair]


def _choose_vectors(random: Random, palette: Palette) -> None:
    pairs = _pairs(random, File.VECTOR, 2, 7)
    integers = [Register(File.VECTOR, 0), Register(File.VECTOR, 1), *pairs[0], *pairs[1]]
    floats = [register for pair in pairs[2:] for register in pair]
    palette.vectors = {Class.INTEGER: integers, Class.FLOAT: floats}
