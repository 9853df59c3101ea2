"""The machine is data: one frozen record, read from TOML, that holds every size, rate and latency.

`Machine.load("ft-m7004")` gives the default; a file may state only what differs from another
machine (`extends = "ft-m7004"`). Builder, scheduler, engines and reports read their numbers here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import attrs
from attrs import frozen

from isa.instruction import Unit


@frozen
class Chip:
    """Cores and clock."""

    cores: int
    clock_ghz: float


@frozen
class Issue:
    """Issue slots in listing order, and the rules of issue."""

    slots: tuple[str, ...]
    one_result_per_unit: bool
    mac_in_place: bool
    scalar_predicates: int
    lane_predicates: int


@frozen
class VectorUnit:
    """The vector unit: processing elements, 32 bits each."""

    lanes: int


@frozen
class ArrayMemory:
    """AM, reached by vector loads and stores and by DMA."""

    base: int
    bytes: int
    bank_model: bool
    banks: int
    bank_row_bytes: int


@frozen
class ScalarMemory:
    """SM, reached by scalar loads and stores and by DMA."""

    base: int
    bytes: int


@frozen
class Ddr:
    """The chip's one DDR, reached by DMA only."""

    base: int
    bytes: int
    bytes_per_cycle: float
    efficiency: float
    burst_bytes: int


@frozen
class Dma:
    """The DMA engine of each core."""

    channels: int
    launch_cycles: int
    bytes_per_cycle: float
    transpose_bytes_per_cycle: float


@frozen
class Barrier:
    """Barriers between all cores of a run."""

    cycles: int


@frozen
class Note:
    """Unit, source and confidence of one field."""

    unit: str
    source: str
    confidence: str


SECTIONS: dict[str, type] = {
    "chip": Chip,
    "issue": Issue,
    "vpu": VectorUnit,
    "am": ArrayMemory,
    "sm": ScalarMemory,
    "ddr": Ddr,
    "dma": Dma,
    "barrier": Barrier,
}


@frozen
class Machine:
    """A machine record; `notes` says of each `section.field` where its value comes from."""

    name: str
    chip: Chip
    issue: Issue
    vpu: VectorUnit
    am: ArrayMemory
    sm: ScalarMemory
    ddr: Ddr
    dma: Dma
    barrier: Barrier
    latency: Mapping[str, int]
    notes: Mapping[str, Note] = attrs.field(repr=False, eq=False)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, tuple(self.values().items())))

    @staticmethod
    def load(name: str = "ft-m7004", overrides: Iterable[str] = ()) -> Machine:
        """Return the machine of a built-in name or a TOML file, with `section.field=value` changes.

        Raise UsageError, naming the key, for an unknown key, a wrong type or a value out of range.
        """
        from isa.machine_file import load  # it needs this class

        return load(name, overrides)

    def slots_of(self, unit: Unit) -> tuple[str, ...]:
        """Return the issue slots that belong to a unit."""
        return tuple(s for s in self.issue.slots if s.rstrip("0123456789") == unit.name)

    @cached_property
    def macs_per_cycle(self) -> int:
        """Multiply-adds one core can issue in a cycle."""
        return self.vpu.lanes * len(self.slots_of(Unit.VMAC))

    @property
    def peak_gflops(self) -> float:
        """Peak of one core, two flops a multiply-add."""
        return 2 * self.macs_per_cycle * self.chip.clock_ghz

    def values(self) -> dict[str, Any]:
        """Return every field as `section.field` -> value, in the order of the record."""
        flat: dict[str, Any] = {}
        for section in SECTIONS:
            for name, value in attrs.asdict(getattr(self, section)).items():
                flat[f"{section}.{name}"] = value
        flat.update({f"latency.{name}": value for name, value in self.latency.items()})
        return flat
