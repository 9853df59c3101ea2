"""Were the sums right: the `verify` functions of convolutions and fully connected layers.

A float32 sum of thousands of products deviates from the truth by what its roundings add up to, so
each output has a limit of its own (`rounding`): never too strict for a right result, yet strict
enough to see one missing product. Large results are judged by a random sample, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from isa import Verdict
from isa.language.comparison import compare_floats, verdict
from kernels import reference
from kernels.rounding import convolution_limits, convolution_limits_at, layer_limits

Array = np.ndarray[Any, Any]

ALL = 1_000_000_000
"""Multiply-adds up to which every output is compared, a matter of seconds; else a sample."""

SEED = 7004
POSITIONS, IMAGES, FILTERS = 64, 8, 16
"""A sample: so many output positions, and at each of them so many images by so many filters."""


def verify_convolution(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare z of a convolution forward: all of it, or a sample where it took more work."""
    tensors, z = (inputs["x"], inputs["weight"], inputs["bias"]), outputs["z"]
    work = reference.conv2d_needed_macs(
        p.batch, p.channels, p.height, p.width, p.filters, p.size, p.stride, p.pad
    )
    if work <= ALL:
        truth = reference.conv2d_forward(*tensors, p.stride, p.pad, p.relu)
        return verdict([compare_floats("z", z, truth, convolution_limits(p, inputs))])
    points = sample_images(z.shape)
    truth = reference.conv2d_forward_points(*tensors, p.stride, p.pad, p.relu, points)
    limits = convolution_limits_at(p, inputs, points)
    sampled = compare_floats("z", z[tuple(points.T)], truth, limits, points)
    return verdict([sampled], sample_of=z.size)


def verify_fully_connected(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare z of a fully connected layer forward: all of it, or a sample of a large one."""
    x, weight, bias, z = inputs["x"], inputs["weight"], inputs["bias"], outputs["z"]
    if p.batch * p.in_features * p.out_features <= ALL:
        truth = reference.fc_forward(x, weight, bias, p.relu)
        return verdict([compare_floats("z", z, truth, layer_limits(x, weight, bias))])
    generator = np.random.default_rng(SEED)
    rows = _choose(generator, len(x), IMAGES)
    columns = _choose(generator, len(weight), POSITIONS * FILTERS)
    chosen = x[rows], weight[columns], bias[columns]
    sampled = compare_floats(
        "z",
        z[np.ix_(rows, columns)].ravel(),
        reference.fc_forward(*chosen, p.relu).ravel(),
        layer_limits(*chosen).ravel(),
        np.array(list(product(rows, columns))),
    )
    return verdict([sampled], sample_of=z.size)


def sample_images(shape: tuple[int, ...]) -> Array:
    """Return random places (n, o, i, j) in images of a shape, always the same ones."""
    generator = np.random.default_rng(SEED)
    points: list[tuple[int, ...]] = []
    for position in _choose(generator, shape[2] * shape[3], POSITIONS):
        images = _choose(generator, shape[0], IMAGES)
        filters = _choose(generator, shape[1], FILTERS)
        points += [(n, o, *divmod(position, shape[3])) for n, o in product(images, filters)]
    return np.array(points)


def _choose(generator: np.random.Generator, total: int, most: int) -> Array:
    """Return up to `most` different numbers below `total`, in order."""
    return np.sort(generator.choice(total, min(total, most), replace=False))
