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
class Real:
    """Registers of the real part of one dimension of a window, for as long as their scope."""

    skipped: Register
    """Window rows (columns) before the first real pixel."""
    first: Register
    """First real pixel."""
    valid: Register
    """1 if there is a real pixel, else 0."""


@frozen
class Span:
    """Registers that follow one dimension of the window from position to position."""

    extent: Extent
    corner: Register
    """Top or left corner; negative in the padding."""
    count: Register
    """Real pixels, at least 1 after clamping."""

    @staticmethod
    def take(k: Builder, name: str, extent: Extent) -> Span:
        """Take the registers."""
        return Span(extent, k.scalar(f"{name} corner"), k.scalar(f"{name} count"))

    def restart(self, k: Builder) -> None:
        """Go to the first position; `locate` must follow."""
        k.constant(-self.extent.pad, self.corner)

    def advance(self, k: Builder) -> None:
        """Go to the next position; `locate` must follow."""
        k.sadd(self.corner, k.constant(self.extent.stride), self.corner)

    def locate(self, k: Builder) -> Real:
        """Compute the real part of the window from its corner, in registers of this scope."""
        if self.extent.always_inside:
            k.constant(self.extent.size, self.count)
            return Real(k.smovi(0), k.smov(self.corner), k.smovi(1))
        real = Real(k.scalar("skipped"), k.scalar("first pixel"), k.scalar("valid"))
        with k.scope():
            zero = k.constant(0)
            k.smax(k.sneg(self.corner), zero, real.skipped)
            k.sadd(self.corner, real.skipped, real.first)
            beyond = k.ssub(self.corner, k.constant(self.extent.input))
            end = k.smin(beyond, k.constant(self.extent.size))
            k.ssub(real.skipped, end, self.count)
            k.slt(zero, self.count, real.valid)
            k.smax(self.count, k.constant(1), self.count)
            k.smin(real.skipped, k.constant(self.extent.size - 1), real.skipped)
            k.smin(real.first, k.constant(self.extent.input - 1), real.first)
        return real
