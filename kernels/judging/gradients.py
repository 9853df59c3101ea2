"""Were the gradients right: the `verify` functions of the backward kernels.

Each element has a limit of its own, from `rounding` where the order of its sum is known, from
`rounding_over_samples` where it depends on cores and lanes. Of a large result a sample is compared:
of dx random places, of the gradients of weights random filters and channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from attrs import frozen

from isa import Verdict
from isa.language.comparison import Comparison, compare_floats, verdict
from kernels import reference
from kernels.judging import sampling
from kernels.judging.rounding import data_gradient_limits, layer_limits
from kernels.judging.rounding_over_samples import (
    layer_gradient_limits,
    update_limits,
    weight_gradient_limits,
)

Array = np.ndarray[Any, Any]

FEWEST_TERMS = 64
"""A sum of fewer terms than these takes as long to judge."""


def verify_data_gradient(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare dx of a convolution: all of it, or a sample of places where it took more work."""
    dz, weight, dx = inputs["dz"], inputs["weight"], outputs["dx"]
    work = reference.conv2d_needed_macs(
        p.batch, p.channels, p.height, p.width, p.filters, p.size, p.stride, p.pad
    )
    if work <= sampling.ALL:
        shape, x = (p.batch, p.channels, p.height, p.width), inputs["x"] if p.relu else None
        truth = reference.conv2d_backward_data(dz, weight, shape, p.stride, p.pad, x)
        return verdict([compare_floats("dx", dx, truth, data_gradient_limits(p, inputs))])
    truths, limits = [], []
    for place, images, channels in sampling.positions(dx.shape):
        met = *_met_by(p, dz[images], weight[:, channels], place), np.zeros(len(channels))
        truths.append(reference.fc_forward(*met).ravel())
        limits.append(layer_limits(*met).ravel())
    points = sampling.points(dx.shape)
    truth, limit = np.concatenate(truths), np.concatenate(limits)
    if p.relu:
        x = inputs["x"][tuple(points.T)]
        truth, limit = reference.relu_backward(x, truth), np.where(x <= 0, 0.0, limit)
    sampled = compare_floats("dx", dx[tuple(points.T)], truth, limit, points)
    return verdict([sampled], sample_of=dx.size)


def _met_by(p: Any, dz: Array, weight: Array, place: tuple[int, int]) -> tuple[Array, Array]:
    """Return the dz (N, terms) and weights (C, terms) behind one place of dx, in their order."""
    (i, m), (j, k) = (
        _windows_over(*dimension)
        for dimension in zip(place, p.size, p.stride, p.pad, dz.shape[2:], strict=True)
    )
    gradient = dz[:, :, i[:, None], j].transpose(0, 2, 3, 1)
    factors = weight[:, :, m[:, None], k].transpose(1, 2, 3, 0)
    terms = i.size * j.size * dz.shape[1]
    return gradient.reshape(len(dz), terms), factors.reshape(weight.shape[1], terms)


def _windows_over(
    pixel: int, size: int, stride: int, pad: int, outputs: int
) -> tuple[Array, Array]:
    """Return, along one dimension, the outputs whose windows see a pixel, and where they do."""
    every = np.arange(outputs)
    offsets = pixel + pad - every * stride
    see = (offsets >= 0) & (offsets < size)
    return every[see], offsets[see]


def verify_weight_gradient(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare dweight and dbias of a convolution: all, or those of a sample of filters and
    channels where they took more work.
    """
    dz, x = inputs["dz"], inputs["x"]
    terms = max(FEWEST_TERMS, p.batch * dz.shape[2] * dz.shape[3])
    picked = _Picked.make(p.filters, p.channels, p.size[0] * p.size[1] * terms)
    gradient, pixels = dz[:, picked.rows], x[:, picked.columns]
    shape = (len(picked.rows), len(picked.columns), *p.size)
    truth = reference.conv2d_backward_weight(pixels, gradient, shape, p.stride, p.pad)
    limits = weight_gradient_limits(pixels, gradient, p.size, p.stride, p.pad)
    comparisons = [
        picked.compare_weights("dweight", outputs["dweight"], truth[0], limits[0]),
        picked.compare_biases("dbias", outputs["dbias"], truth[1], limits[1]),
    ]
    return _verdict(outputs, comparisons)


def verify_layer_gradients(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare all outputs of a fully connected layer backward, or a sample of large ones.

    With a learning rate the updated weight and bias are among them.
    """
    x, weight, dz = inputs["x"], inputs["weight"], inputs["dz"]
    terms = max(FEWEST_TERMS, p.batch)
    picked = _Picked.make(p.out_features, p.in_features, terms)
    rows, columns = picked.rows, picked.columns
    old, bias = weight[np.ix_(rows, columns)], None if p.lr is None else inputs["bias"][rows]
    pixels, gradient = x[:, columns], dz[:, rows]
    truth = reference.fc_backward(pixels, old, gradient, p.lr, bias)
    limits, bias_limits = layer_gradient_limits(pixels, gradient)
    comparisons = [
        _compare_data(p, x, weight, dz, outputs["dx"]),
        picked.compare_weights("dweight", outputs["dweight"], truth["dweight"], limits),
        picked.compare_biases("dbias", outputs["dbias"], truth["dbias"], bias_limits),
    ]
    if p.lr is not None:
        limits = update_limits(truth["weight"], truth["dweight"], p.lr, limits)
        bias_limits = update_limits(truth["bias"], truth["dbias"], p.lr, bias_limits)
        comparisons += [
            picked.compare_weights("weight", outputs["weight"], truth["weight"], limits),
            picked.compare_biases("bias", outputs["bias"], truth["bias"], bias_limits),
        ]
    return _verdict(outputs, comparisons)


def _compare_data(p: Any, x: Array, weight: Array, dz: Array, dx: Array) -> Comparison:
    """Compare dx of a layer, a chain over its outputs: all, or as many elements as time allows."""
    picked = _Picked.make(p.batch, p.in_features, max(FEWEST_TERMS, p.out_features))
    gradient, factors = dz[picked.rows], weight[:, picked.columns].T
    zeros = np.zeros(len(picked.columns))
    truth = reference.fc_forward(gradient, factors, zeros)
    return picked.compare_weights("dx", dx, truth, layer_limits(gradient, factors, zeros))


def verify_update(p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Verdict:
    """Compare all of an updated weight, which is rounded once."""
    weight, gradient = inputs["weight"], inputs["dweight"]
    truth = reference.sgd_update(weight, gradient, p.lr)
    limits = update_limits(truth, gradient, p.lr)
    return verdict([compare_floats("weight", outputs["weight"], truth, limits)])


def _verdict(outputs: Mapping[str, Array], comparisons: list[Comparison]) -> Verdict:
    """Return the verdict on all outputs, or on the sample of their values that was compared."""
    values = sum(tensor.size for tensor in outputs.values())
    whole = sum(comparison.actual.size for comparison in comparisons) == values
    return verdict(comparisons, sample_of=0 if whole else values)


@frozen
class _Picked:
    """Rows and columns of a matrix that are compared, such as filters and channels."""

    rows: Array
    columns: Array
    everything: bool

    @staticmethod
    def make(rows: int, columns: int, cost: int) -> _Picked:
        """Pick as many elements as may take `cost` multiply-adds each."""
        if rows * columns * cost <= sampling.ALL:
            return _Picked(np.arange(rows), np.arange(columns), True)
        return _Picked(*sampling.pairs(rows, columns, cost), False)

    def compare_weights(self, name: str, actual: Array, truth: Array, limits: Array) -> Comparison:
        """Compare a tensor that has rows and columns in its first two dimensions."""
        picked = self.rows, self.columns, *(np.arange(extent) for extent in actual.shape[2:])
        return self._compare(name, actual, truth, limits, picked)

    def compare_biases(self, name: str, actual: Array, truth: Array, limits: Array) -> Comparison:
        """Compare a tensor with one value for each row."""
        return self._compare(name, actual, truth, limits, (self.rows,))

    def _compare(
        self, name: str, actual: Array, truth: Array, limits: Array, picked: tuple[Array, ...]
    ) -> Comparison:
        if self.everything:
            return compare_floats(name, actual, truth, limits)
        places = np.array(list(product(*picked)))
        values = actual[tuple(places.T)]
        return compare_floats(name, values, truth.ravel(), limits.ravel(), places)
