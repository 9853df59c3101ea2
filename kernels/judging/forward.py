"""Were the sums right: the `verify` functions of convolutions and fully connected layers.

A float32 sum of thousands of products deviates from the truth by what its roundings add up to, so
each output has a limit of its own (`rounding`): never too strict for a right result, yet strict
enough to see one missing product. Large results are judged by a random sample, and say so. The
backward kernels have theirs in `judging_gradients`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from isa import Verdict
from isa.language.comparison import compare_floats, verdict
from kernels import reference
from kernels.judging import sampling
from kernels.judging.rounding import convolution_limits, convolution_limits_at, layer_limits

Array = np.ndarray[Any, Any]


def verify_convolution(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare z of a convolution forward: all of it, or a sample where it took more work."""
    tensors, z = (inputs["x"], inputs["weight"], inputs["bias"]), outputs["z"]
    work = reference.conv2d_needed_macs(
        p.batch, p.channels, p.height, p.width, p.filters, p.size, p.stride, p.pad
    )
    if work <= sampling.ALL:
        truth = reference.conv2d_forward(*tensors, p.stride, p.pad, p.relu)
        return verdict([compare_floats("z", z, truth, convolution_limits(p, inputs))])
    points = sampling.points(z.shape)
    truth = reference.conv2d_forward_points(*tensors, p.stride, p.pad, p.relu, points)
    limits = convolution_limits_at(p, inputs, points)
    sampled = compare_floats("z", z[tuple(points.T)], truth, limits, points)
    return verdict([sampled], sample_of=z.size)


def verify_fully_connected(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare z of a fully connected layer forward: all of it, or a sample of a large one."""
    x, weight, bias, z = inputs["x"], inputs["weight"], inputs["bias"], outputs["z"]
    if p.batch * p.in_features * p.out_features <= sampling.ALL:
        truth = reference.fc_forward(x, weight, bias, p.relu)
        return verdict([compare_floats("z", z, truth, layer_limits(x, weight, bias))])
    generator = np.random.default_rng(sampling.SEED)
    rows = sampling.choose(generator, len(x), sampling.IMAGES)
    columns = sampling.choose(generator, len(weight), sampling.POSITIONS * sampling.FILTERS)
    chosen = x[rows], weight[columns], bias[columns]
    sampled = compare_floats(
        "z",
        z[np.ix_(rows, columns)].ravel(),
        reference.fc_forward(*chosen, p.relu).ravel(),
        layer_limits(*chosen).ravel(),
        np.array(list(product(rows, columns))),
    )
    return verdict([sampled], sample_of=z.size)
