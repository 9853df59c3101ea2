"""Weights and biases as the chip wants them: the host's layout work before a run.

Weights are stored with one row per window pixel and channel, and cut into blocks of outputs: the
two weights of a double-word load are neighbouring outputs, and any run of rows of a block is one
contiguous broadcast. For the gradient of a convolution's input the outputs are its channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.product.blocking import Blocking, Shape
from kernels.samples.turning import turn

Array = np.ndarray[Any, Any]


def pack_weights(weight: Array, shape: Shape, blocking: Blocking) -> Array:
    """Return weights (O, C, kH, kW) as blocks of (kH * kW * C, block outputs), zeros beyond O.

    Kernel rows and columns come in the order in which windows meet them.
    """
    met = _met(_met(weight, 2, shape.rows.taps), 3, shape.columns.taps)
    outputs, channels, height, width = met.shape
    size = blocking.block_outputs
    packed = np.zeros((blocking.blocks, height * width * channels, size), np.float32)
    for block, first in zip(packed, range(0, outputs, size), strict=False):
        some = met[first : first + size].reshape(-1, channels, height * width)
        turn(some, block.reshape(height * width, channels, size)[:, :, : len(some)])
    return packed


def _met(weight: Array, axis: int, taps: list[int]) -> Array:
    """Return the weights of the taps along an axis; where that is all in order, no copy."""
    return weight if taps == list(range(weight.shape[axis])) else weight.take(taps, axis)


def pack_bias(bias: Array, blocking: Blocking) -> Array:
    """Return the biases with zeros up to whole groups."""
    padded = np.zeros(blocking.padded_biases, np.float32)
    padded[: len(bias)] = bias
    return padded
