"""The DMA descriptor: twelve 32-bit words in SM that say what a transfer moves.

The builder writes them, DMASTART reads them when it issues. Both sides of a transfer are
two-dimensional: `rows` of `row_words` consecutive 32-bit words, `stride` bytes from row to row.
FT-M7002's registers hold the same fields in eight words with 16-bit counts, which is too small
for the layers of VGG16.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from isa.errors import SimulationError

DESCRIPTOR_WORDS = 12

LARGEST_STRIDE = 2**31 - 1
"""Bytes from row to row that a descriptor can hold."""

TRANSPOSE = 1
BROADCAST = 2
CORE_SHIFT = 8
"""The control word: bit 0 transposes, bit 1 broadcasts to the cores of the mask from bit 8 on."""

FIELDS = (
    "control",
    "reserved",
    "source_low",
    "source_high",
    "source_rows",
    "source_row_words",
    "source_stride",
    "destination_rows",
    "destination_row_words",
    "destination_stride",
    "destination_low",
    "destination_high",
)
"""Field names in word order; strides are signed bytes, counts are unsigned words."""


@frozen
class Plane:
    """One side of a transfer: byte address, rows, words a row, bytes from row to row."""

    address: int
    rows: int
    row_words: int
    stride: int

    @property
    def row_bytes(self) -> int:
        return 4 * self.row_words

    @property
    def words(self) -> int:
        return self.rows * self.row_words

    @property
    def first(self) -> int:
        """Lowest byte address."""
        return self.address + min(0, (self.rows - 1) * self.stride)

    @property
    def end(self) -> int:
        """One past the highest byte address."""
        return self.address + max(0, (self.rows - 1) * self.stride) + self.row_bytes


@frozen
class TransferRequest:
    """A decoded descriptor; `cores` is the mask of a broadcast, 0 for point-to-point."""

    source: Plane
    destination: Plane
    transpose: bool = False
    cores: int = 0

    def words(self) -> list[int]:
        """Return the descriptor's words, each from 0 to 2**32 - 1."""
        control = TRANSPOSE * self.transpose + BROADCAST * bool(self.cores)
        values = (
            control | self.cores << CORE_SHIFT,
            0,
            self.source.address,
            self.source.address >> 32,
            self.source.rows,
            self.source.row_words,
            self.source.stride,
            self.destination.rows,
            self.destination.row_words,
            self.destination.stride,
            self.destination.address,
            self.destination.address >> 32,
        )
        return [value & 0xFFFFFFFF for value in values]


def decode(words: Sequence[int]) -> TransferRequest:
    """Return the request that twelve unsigned descriptor words describe.

    Raise SimulationError for a broadcast whose mask names no core.
    """
    word = dict(zip(FIELDS, words, strict=True))
    if word["control"] & BROADCAST and not word["control"] >> CORE_SHIFT:
        raise SimulationError("DMA descriptor: a broadcast needs at least one core in its mask")
    return TransferRequest(
        source=_plane(word, "source"),
        destination=_plane(word, "destination"),
        transpose=bool(word["control"] & TRANSPOSE),
        cores=word["control"] >> CORE_SHIFT if word["control"] & BROADCAST else 0,
    )


def _plane(word: dict[str, int], side: str) -> Plane:
    stride = word[f"{side}_stride"]
    return Plane(
        address=word[f"{side}_low"] | word[f"{side}_high"] << 32,
        rows=word[f"{side}_rows"],
        row_words=word[f"{side}_row_words"],
        stride=stride - (1 << 32) if stride >> 31 else stride,
    )
