"""Where a window lies: the bounds of algorithms 1 and 2, as device code, one dimension at a time.

A forward window at output position i covers the pixels from `i * stride - pad` on; only those on
the image count. For the gradient of pixel h the window lies on the outputs' gradients: with
`h + pad = newest * stride + phase` the kernel rows phase, phase + stride, ... meet the outputs
newest, newest - 1, ... So its weights are every stride-th kernel row, and no zero is put between
gradients. A window that meets nothing real is clamped to one pixel, so that transfers stay legal,
and its `valid` is 0.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from isa import Builder
from isa.operands import Register
from kernels.reference import output_extent


@frozen
class Real:
    """Registers of the real part of one dimension of a window, for as long as their scope."""

    tap: Register
    """Row (column) of the weights for the first real pixel, in the order of `taps`."""
    first: Register
    """First real pixel."""
    valid: Register
    """1 if there is a real pixel, else 0."""


class Span(Protocol):
    """Registers that follow one dimension of the window from position to position."""

    count: Register
    """Real pixels, at least 1 after clamping."""

    def restart(self) -> None:
        """Go to the first position; `locate` must follow."""

    def advance(self) -> None:
        """Go to the next position; `locate` must follow."""

    def locate(self) -> Real:
        """Compute the real part of the window, in registers of this scope."""


class Dimension(Protocol):
    """One dimension of a product over windows."""

    @property
    def input(self) -> int:
        """Pixels that windows lie on."""

    @property
    def outputs(self) -> int:
        """Positions of the window."""

    @property
    def size(self) -> int:
        """Rows (columns) of the kernel."""

    @property
    def largest(self) -> int:
        """Real pixels of the largest window."""

    @property
    def taps(self) -> list[int]:
        """Kernel rows (columns) in the order in which windows meet them."""

    def span(self, k: Builder, name: str) -> Span:
        """Take the registers that follow the window."""


@frozen
class Extent:
    """One dimension of a forward window: input extent, window size, stride, padding."""

    input: int
    size: int
    stride: int
    pad: int

    @property
    def outputs(self) -> int:
        return output_extent(self.input, self.size, self.stride, self.pad)

    @property
    def largest(self) -> int:
        return min(self.size, self.input)

    @property
    def taps(self) -> list[int]:
        return list(range(self.size))

    def span(self, k: Builder, name: str) -> Span:
        return ForwardSpan(k, name, self)


@frozen
class GradientExtent:
    """The same dimension for the gradient of the input: windows lie on the outputs' gradients."""

    forward: Extent

    @property
    def input(self) -> int:
        return self.forward.outputs

    @property
    def outputs(self) -> int:
        return self.forward.input

    @property
    def size(self) -> int:
        return self.forward.size

    @property
    def largest(self) -> int:
        return min(-(-self.size // self.forward.stride), self.input)

    @property
    def taps(self) -> list[int]:
        """Phase by phase, each from its last kernel row: against rising outputs."""
        stride, size = self.forward.stride, self.size
        phases = (range(phase, size, stride) for phase in range(min(stride, size)))
        return [tap for phase in phases for tap in reversed(phase)]

    def span(self, k: Builder, name: str) -> Span:
        return GradientSpan(k, name, self.forward)


class ForwardSpan:
    """The window of algorithm 1, by the place of its first pixel, negative in the padding."""

    def __init__(self, k: Builder, name: str, extent: Extent) -> None:
        self.k, self.extent = k, extent
        self.corner, self.count = k.scalar(f"{name} corner"), k.scalar(f"{name} count")

    def restart(self) -> None:
        self.k.constant(-self.extent.pad, self.corner)

    def advance(self) -> None:
        self.k.sadd(self.corner, self.k.number(self.extent.stride), self.corner)

    def locate(self) -> Real:
        k, extent = self.k, self.extent
        if extent.pad == 0:
            k.constant(extent.size, self.count)
            return Real(k.smovi(0), k.smov(self.corner), k.smovi(1))
        real = _real(k)
        with k.scope():
            _clip(k, self.corner, k.number(extent.size), extent.input, self.count, real)
            k.smin(real.tap, k.number(extent.size - 1), real.tap)
        return real


class GradientSpan:
    """The window of algorithm 2, by the newest output that meets the pixel, and the phase."""

    def __init__(self, k: Builder, name: str, forward: Extent) -> None:
        self.k, self.forward = k, forward
        names = (f"{name} newest output", f"{name} phase", f"{name} count")
        self.newest, self.phase, self.count = (k.scalar(part) for part in names)

    def restart(self) -> None:
        newest, phase = divmod(self.forward.pad, self.forward.stride)
        self.k.constant(newest, self.newest)
        self.k.constant(phase, self.phase)

    def advance(self) -> None:
        k = self.k
        k.sadd(self.phase, 1, self.phase)
        with k.scope():
            wrapped = k.seq(self.phase, k.number(self.forward.stride))
            k.sadd(self.newest, wrapped, self.newest)
            k.smulis(self.phase, k.sxor(wrapped, 1), self.phase)

    def locate(self) -> Real:
        """Of `size` kernel rows every phase has `whole`, and the first `rest` phases one more."""
        k, forward = self.k, self.forward
        whole, rest = divmod(forward.size, forward.stride)
        real = _real(k)
        with k.scope():
            few, size, corner = k.number(rest), k.scalar("window size"), k.scalar("window corner")
            k.sadd(k.slt(self.phase, few, size), k.number(whole), size)
            k.sadd(k.ssub(size, self.newest, corner), 1, corner)
            _clip(k, corner, size, forward.outputs, self.count, real)
            k.sadd(real.tap, k.smulis(self.phase, k.number(whole)), real.tap)
            k.sadd(real.tap, k.smin(self.phase, few), real.tap)
            k.smin(real.tap, k.number(forward.size - 1), real.tap)
        return real


def _real(k: Builder) -> Real:
    return Real(k.scalar("first tap"), k.scalar("first pixel"), k.scalar("valid"))


def _clip(
    k: Builder, corner: Register, size: int | Register, extent: int, count: Register, real: Real
) -> None:
    """Clip the window of `size` pixels from `corner` on to pixels 0 to `extent` - 1."""
    k.smax(k.sneg(corner, real.tap), 0, real.tap)
    k.sadd(corner, real.tap, real.first)
    k.smin(k.ssub(corner, k.number(extent), count), size, count)
    k.ssub(real.tap, count, count)
    k.slt(0, count, real.valid)
    k.smax(count, 1, count)
    k.smin(real.first, k.number(extent - 1), real.first)
