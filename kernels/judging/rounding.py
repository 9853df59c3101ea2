"""How far right float32 sums may be from the truth: a limit for each output, for `judging`.

Here are the sums whose order is known; those over samples are in `rounding_over_samples`.

An output is a chain of fused multiply-adds: the bias, then the products in the order of the image
rows (window row, window column, channel). Each rounds once, by at most 2**-24 of the sum s_k that
it leaves, so K of them end at most 2**-24 * (|s_1| + ... + |s_K|) from the truth, but for what is
of second order. Where products have random signs that is about sqrt(K) * 2**-24 of the sum of
their magnitudes; where all are alike, as on constant images, K / 2 * 2**-24 of it, and results
really come near that. No multiple of the magnitude alone would serve both.

All limits are those of the finite terms. Where an infinity or NaN is among the terms, the truth is
one too and the comparison wants it exactly, unless the finite terms may leave float32's range.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import numpy as np
from attrs import define, field

from kernels import reference

Array = np.ndarray[Any, Any]

ROUNDING = 2.0**-24
"""Largest relative error of a rounding to float32."""
SUBNORMAL_ROUNDING = 2.0**-150
"""Largest absolute error of one that ends below the normal numbers."""
LARGEST = float(np.finfo(np.float32).max)


def finite(tensor: Array) -> Array:
    """Return a tensor in float64, with 0 for each NaN or infinity: it adds no finite term."""
    return np.where(np.isfinite(tensor), tensor, 0.0).astype(np.float64)


def unless_overflowing(limits: Array, highest: Array) -> Array:
    """Return the limits of float32 sums; infinite where one may pass float32's range on its way.

    `highest` bounds all that the finite terms of a sum may add up to. Beyond float32's largest
    number that is an infinity, and NaN with another one, so such a sum may end anywhere.
    """
    return np.where(highest > LARGEST, np.inf, limits)


@np.errstate(all="ignore")
def convolution_limits(p: Any, inputs: Mapping[str, Array]) -> Array:
    """Return the limit of every output of a convolution, (N, O, nH, nW)."""
    kernel = finite(inputs["weight"]).transpose(2, 3, 0, 1)
    plane, terms = (p.height, p.width), p.channels * p.size[0] * p.size[1]
    extents = zip(plane, p.size, p.stride, p.pad, strict=True)
    rows, columns = (reference.output_extent(*extent) for extent in extents)
    limits = np.empty((p.batch, p.filters, rows, columns))
    for image, its_limits in zip(inputs["x"], limits, strict=True):
        pixels = finite(image).transpose(1, 2, 0)
        chains = _Chains.start(inputs["bias"], rows, columns)
        for tap in reference.taps(plane, p.size, p.stride, p.pad):
            met, factors = pixels[tap.inputs[1:]], kernel[tap.offset].T
            for run in _runs(p.channels, terms):
                chains.add(tap.outputs[1:], met[..., run], factors[run])
        its_limits[:] = _limits(chains.passed, chains.highest, terms).transpose(2, 0, 1)
    return limits


@np.errstate(all="ignore")
def convolution_limits_at(p: Any, inputs: Mapping[str, Array], points: Array) -> Array:
    """Return the limits of the outputs at `points`, rows of (n, o, i, j)."""
    limits = []
    for o, pixels, kernel in reference.windows(
        inputs["x"], inputs["weight"], p.stride, p.pad, points
    ):
        products = (finite(pixels) * finite(kernel)).transpose(1, 2, 0).ravel()
        sums = np.abs(finite(inputs["bias"][o]) + np.cumsum(products))
        limits.append(_limits(sums.sum(), sums.max(initial=0.0), products.size))
    return np.array(limits)


@np.errstate(all="ignore")
def data_gradient_limits(p: Any, inputs: Mapping[str, Array]) -> Array:
    """Return the limit of every dx of a convolution, (N, C, H, W); 0 where a ReLU clips it.

    A chain takes the rows of dz in order, and so the kernel from its last position to its first.
    """
    kernel = finite(inputs["weight"]).transpose(2, 3, 0, 1)
    plane, terms = (p.height, p.width), p.filters * p.size[0] * p.size[1]
    taps = list(reference.taps(plane, p.size, p.stride, p.pad))[::-1]
    limits = np.empty((p.batch, p.channels, *plane))
    for image, its_limits in zip(inputs["dz"], limits, strict=True):
        gradient = finite(image).transpose(1, 2, 0)
        chains = _Chains(np.zeros((*plane, p.channels)))
        for tap in taps:
            met, factors = gradient[tap.outputs[1:]], kernel[tap.offset]
            for run in _runs(p.filters, terms):
                chains.add(tap.inputs[1:], met[..., run], factors[run])
        its_limits[:] = _limits(chains.passed, chains.highest, terms).transpose(2, 0, 1)
    return np.where(inputs["x"] <= 0, 0.0, limits) if p.relu else limits


@np.errstate(all="ignore")
def layer_limits(x: Array, weight: Array, bias: Array) -> Array:
    """Return the limit of every output of a fully connected layer, (N, M)."""
    chains, terms = _Chains.start(bias, len(x)), x.shape[1]
    for run in _runs(terms, terms):
        chains.add(..., finite(x[:, run]), finite(weight[:, run]).T)
    return _limits(chains.passed, chains.highest, terms)


@define
class _Chains:
    """Sums of many outputs on their way from bias to end, and all that they passed."""

    sums: Array
    """So far, in float64; outputs in the last dimension."""
    passed: Array = field(init=False)
    """Upper bounds of |s_1| + ... + |s_k|."""
    highest: Array = field(init=False)
    """Upper bounds of the largest of them."""

    def __attrs_post_init__(self) -> None:
        self.passed, self.highest = np.zeros(self.sums.shape), np.abs(self.sums)

    @staticmethod
    def start(bias: Array, *shape: int) -> _Chains:
        """Return chains (*shape, outputs) that have their bias."""
        return _Chains(np.tile(finite(bias), (*shape, 1)))

    def add(self, place: Any, pixels: Array, factors: Array) -> None:
        """Add a run of terms at a place: pixels (..., terms) by factors (terms, outputs).

        No sum within the run is larger than the one before it and the magnitudes of the run.
        """
        reach = np.abs(self.sums[place]) + np.abs(pixels) @ np.abs(factors)
        self.sums[place] += pixels @ factors
        self.passed[place] += len(factors) * reach
        self.highest[place] = np.maximum(self.highest[place], reach)


def _limits(passed: Array, highest: Array, terms: int) -> Array:
    """Return the limits of sums of so many terms; the factor is for errors of second order.

    A sum that is 0 all the way has none to spare.
    """
    subnormal = SUBNORMAL_ROUNDING * terms * (passed != 0)
    limits = ROUNDING * (1 + ROUNDING) ** terms * passed + subnormal
    return unless_overflowing(limits, highest)


def _runs(total: int, terms: int) -> list[slice]:
    """Cut `total` terms into runs whose magnitudes are small beside a sum of all `terms`."""
    length = max(8, isqrt(terms) // 2)
    return [slice(first, min(first + length, total)) for first in range(0, total, length)]
