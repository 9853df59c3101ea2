"""What is done with finished sums while they are still in registers: nothing, or a ReLU.

A recipe becomes device code once for each loop over blocks of samples. Those that need another
tensor beside the sums are in `companions`: the mask of a ReLU's gradient and the update of weights.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from isa import Builder
from isa.language.allocation import RegisterBlock
from isa.operands import Register
from kernels.product.blocking import Blocking
from kernels.samples.blocks import DeviceBlock

Pointers = tuple[Register, ...]
"""Vector address registers, one for each vector of a row."""


class Finish:
    """Device code around the last chunk of a position; this one does nothing."""

    has_tile = False
    """Whether `tile` does anything."""

    def begin_group(self, outputs: Register) -> None:
        """Begin a group of so many outputs."""

    def begin_position(self, offset: Register) -> None:
        """Begin a position whose outputs lie at a byte offset in their tensor."""

    def tile(
        self, output: Register, sums: RegisterBlock, loads: Pointers, stores: Pointers
    ) -> None:
        """Finish the sums of a tile that begins at `output` in the group.

        The pointers are free for use: for what is loaded, and for what is stored.
        """

    def end_position(self, offset: Register) -> None:
        """End a position, after its last tile."""

    def end(self) -> None:
        """Wait for all transfers."""


class Recipe(Protocol):
    """What a kernel wants done; it becomes a `Finish`.

    What it keeps in AM beside the sums, `Blocking.choose` must have left room for.
    """

    def take(self, k: Builder, blocking: Blocking, block: DeviceBlock, row_bytes: int) -> Finish:
        """Take registers and buffers; `row_bytes` are those of the longest row."""


@frozen
class Plain:
    """Finished sums are outputs."""

    def take(self, k: Builder, blocking: Blocking, block: DeviceBlock, row_bytes: int) -> Finish:
        return Finish()


PLAIN = Plain()


@frozen
class Clip:
    """ReLU: 0 if 0 > sum, else the sum, so that NaN stays NaN."""

    def take(self, k: Builder, blocking: Blocking, block: DeviceBlock, row_bytes: int) -> Finish:
        return _Clip(k)


class _Clip(Finish):
    has_tile = True

    def __init__(self, k: Builder) -> None:
        self.k = k

    def tile(
        self, output: Register, sums: RegisterBlock, loads: Pointers, stores: Pointers
    ) -> None:
        zero = self.k.vmovi(0)
        for register in sums:
            self.k.vfmaxs32(zero, register, register)
