"""Limits of right float32 sums over samples and positions: gradients of weights, for `judging`.

The order of such a sum depends on cores and lanes, and a multiple of the terms' magnitudes, which
bounds every order, would excuse whole rows of pixels missing from a large layer. Yet every sane
order adds up runs of consecutive terms. The *reach* of a sequence of terms is the largest
magnitude of any such run in it; where signs are random it grows with the root of their number.

* Chains through consecutive samples, forwards, backwards or in a tree, in one piece or one for
  each core, are at most the reach of all terms, and round once for each.
* A lane adds up the samples that fall to it, each position by position. Whichever they are, and
  however they take turns, a lane is at most the sum of its samples' reaches, and so is what is
  added up over lanes and cores.

A right result is of one kind or the other, and may deviate by the larger of the two bounds. The
second counts terms as for 16 lanes; on a machine with fewer, the first is the larger by far unless
samples cancel each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Any

import numpy as np
from attrs import define, field

from kernels import reference
from kernels.judging.rounding import (
    LARGEST,
    ROUNDING,
    SUBNORMAL_ROUNDING,
    finite,
    unless_overflowing,
)

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]

LANE_BLOCK, LANE_SHARE = 64, 4
"""Of a block of so many samples, so many at most fall to one of 16 lanes."""
FINAL_SUMS = 20
"""Additions that a term still sees after those of its lane: over 16 lanes, then 4 cores."""
PORTION = 1 << 20
"""Partial sums that are kept at a time."""


@np.errstate(all="ignore")
def weight_gradient_limits(
    x: Array, dz: Array, size: Pair, stride: Pair, pad: Pair
) -> tuple[Array, Array]:
    """Return the limits of dweight (O, C, kH, kW) and dbias (O,) of a convolution."""
    limits = np.zeros((dz.shape[1], x.shape[1], *size))
    for tap in reference.taps((x.shape[2], x.shape[3]), size, stride, pad):
        met = _by_sample(dz[tap.outputs]), _by_sample(x[tap.inputs])
        limits[(..., *tap.offset)] = _sum_limits(*met)
    return limits, _bias_limits(_by_sample(dz))


@np.errstate(all="ignore")
def layer_gradient_limits(x: Array, dz: Array) -> tuple[Array, Array]:
    """Return the limits of dweight (M, K) and dbias (M,) of a layer with x (N, K), dz (N, M)."""
    return _sum_limits(dz[:, None], x[:, None]), _bias_limits(dz[:, None])


@np.errstate(all="ignore")
def update_limits(updated: Array, gradient: Array, lr: float, error: Array | float = 0.0) -> Array:
    """Return the limits of weight - lr * gradient, whose truth is `updated`.

    One fused multiply-add with lr rounded to float32; the gradient may have an error already.
    What may end on either side of float32's largest number has no limit.
    """
    rate, size = float(np.float32(lr)), np.abs(finite(updated))
    before = abs(rate) * error + abs(rate - lr) * np.abs(finite(gradient))
    limits = before + ROUNDING * (size + before) + SUBNORMAL_ROUNDING
    unlimited = np.isinf(error) | (np.abs(size - LARGEST) < before + ROUNDING * LARGEST)
    return np.where(unlimited, np.inf, limits)


def _by_sample(images: Array) -> Array:
    """Return images (N, channels, rows, columns) as (N, positions, channels)."""
    return images.reshape(*images.shape[:2], -1).transpose(0, 2, 1)


def _bias_limits(dz: Array) -> Array:
    return _sum_limits(dz, np.ones((*dz.shape[:2], 1)))[:, 0]


def _sum_limits(left: Array, right: Array) -> Array:
    """Return the limits (O, C) of sums of products of (N, positions, O) and (N, positions, C)."""
    samples, positions, rows = left.shape
    sums = _Reaches((rows, right.shape[2]))
    for portion in zip(*(_portions(part, sums.all.shape) for part in (left, right)), strict=True):
        sums.add(*portion)
    terms = samples * positions
    lane = LANE_SHARE * -(-samples // LANE_BLOCK) * positions + FINAL_SUMS
    errors = np.maximum(terms * sums.all, lane * sums.samples)
    subnormal = SUBNORMAL_ROUNDING * terms * (sums.samples != 0)
    limits = ROUNDING * (1 + ROUNDING) ** terms * errors + subnormal
    return unless_overflowing(limits, sums.samples)


def _portions(terms: Array, sums: Pair) -> Iterator[Array]:
    """Yield finite (samples, runs, terms, channels) in float64, a number of samples at a time.

    Runs are short beside a sample, so that their magnitudes are small beside its reach; samples
    with few positions share one.
    """
    samples, positions, channels = terms.shape
    length = max(8, isqrt(positions) // 4)
    together = max(1, length // positions)
    runs = -(-positions * together // length)
    groups = -(-samples // together)
    step = max(1, PORTION // (runs * sums[0] * sums[1]))
    for first in range(0, groups, step):
        part = finite(terms[first * together : (first + step) * together])
        count = -(-len(part) // together)
        filled = np.zeros((count * together, positions, channels))
        filled[: len(part)] = part
        padded = np.zeros((count, runs * length, channels))
        padded[:, : together * positions] = filled.reshape(count, -1, channels)
        yield padded.reshape(count, runs, length, channels)


@define
class _Reaches:
    """Upper bounds of reaches, for a matrix of sums."""

    shape: Pair
    total: Array = field(init=False)
    """All terms so far."""
    low: Array = field(init=False)
    high: Array = field(init=False)
    """Smallest and largest total after a run."""
    widest: Array = field(init=False)
    """Largest magnitude of a run."""
    magnitude: Array = field(init=False)
    samples: Array = field(init=False)
    """Sum of the reaches of the samples."""

    def __attrs_post_init__(self) -> None:
        self.total, self.low, self.high = (np.zeros(self.shape) for _ in range(3))
        self.widest, self.magnitude, self.samples = (np.zeros(self.shape) for _ in range(3))

    @property
    def all(self) -> Array:
        """The reach of all terms.

        A sum of consecutive terms is a difference of totals and parts of two runs.
        """
        reach: Array = np.minimum(self.high - self.low + 2 * self.widest, self.magnitude)
        return reach

    def add(self, left: Array, right: Array) -> None:
        """Add samples, (samples, runs, terms, O) and (samples, runs, terms, C)."""
        turned = left.swapaxes(-1, -2)
        sums, magnitudes = turned @ right, np.abs(turned) @ np.abs(right)
        within = sums.cumsum(axis=1)
        span = np.maximum(within.max(axis=1), 0) - np.minimum(within.min(axis=1), 0)
        whole = magnitudes.sum(axis=1)
        reach = np.minimum(span + 2 * magnitudes.max(axis=1), whole)
        ends = self.total + sums.reshape(-1, *self.shape).cumsum(axis=0)
        self.total = ends[-1]
        self.low = np.minimum(self.low, ends.min(axis=0))
        self.high = np.maximum(self.high, ends.max(axis=0))
        self.widest = np.maximum(self.widest, magnitudes.max(axis=(0, 1)))
        self.magnitude = self.magnitude + whole.sum(axis=0)
        self.samples = self.samples + reach.sum(axis=0)
