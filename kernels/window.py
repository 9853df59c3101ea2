"""Where a convolution or pooling window lies: algorithm 1's bounds, as device code.

For output position (i, j) the window's top left corner is `top = i*stride - pad`, `left` likewise.
Only its rows and columns on real pixels count: the first is skipped by `up = max(-top, 0)`, the
last ends at `min(size, extent - top)`. A window without a real pixel is clamped to one pixel, so
that transfers stay legal, and its `valid` is 0.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.operands import Register
from kernels.reference import output_extent


@frozen
class Extent:
    """One dimension of a window operator: input extent, window size, stride, padding."""

    input: int
    size: int
    stride: int
    pad: int

    @property
    def outputs(self) -> int:
        return output_extent(self.input, self.size, self.stride, self.pad)

    @property
    def always_inside(self) -> bool:
        """Tell whether every window lies on real pixels."""
        return self.pad == 0

    @property
    def largest(self) -> int:
        """Real pixels of the largest window."""
        return min(self.size, self.input)


@frozen
class Span:
    """Registers of one dimension of the current window."""

    extent: Extent
    corner: Register
    """Top or left corner; negative in the padding."""
    skipped: Register
    """Window rows (columns) before the first real pixel."""
    first: Register
    """First real pixel."""
    count: Register
    """Real pixels, at least 1 after clamping."""
    valid: Register
    """1 if there is a real pixel, else 0."""

    @staticmethod
    def take(k: Builder, name: str, extent: Extent) -> Span:
        """Take the registers."""
        parts = ("corner", "skipped", "first", "count", "valid")
        return Span(extent, *(k.scalar(f"{name} {part}") for part in parts))

    def restart(self, k: Builder) -> None:
        """Go to the first position."""
        k.smovi(-self.extent.pad, self.corner)
        self.locate(k)

    def advance(self, k: Builder) -> None:
        """Go to the next position."""
        k.sadd(self.corner, self.extent.stride, self.corner)
        self.locate(k)

    def locate(self, k: Builder) -> None:
        """Compute the real part of the window from its corner."""
        if self.extent.always_inside:
            k.smovi(0, self.skipped)
            k.smov(self.corner, self.first)
            k.smovi(self.extent.size, self.count)
            k.smovi(1, self.valid)
            return
        with k.scope():
            zero, one = k.constant(0), k.constant(1)
            k.smax(k.sneg(self.corner), zero, self.skipped)
            k.sadd(self.corner, self.skipped, self.first)
            beyond = k.ssub(k.constant(self.extent.input), self.corner)
            end = k.smin(k.constant(self.extent.size), beyond)
            k.ssub(end, self.skipped, self.count)
            k.slt(zero, self.count, self.valid)
            k.smax(self.count, one, self.count)
            k.smin(self.skipped, k.constant(self.extent.size - 1), self.skipped)
            k.smin(self.first, k.constant(self.extent.input - 1), self.first)
            k.smax(self.first, zero, self.first)
