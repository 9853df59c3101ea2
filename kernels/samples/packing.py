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


def pack_weights(weight: Array, words: Array, shape: Shape, blocking: Blocking) -> None:
    """Fill blocks of (kH * kW * C, block outputs) from weights (O, C, kH, kW), zeros beyond O.

    Kernel rows and columns come in the order in which windows meet them.
    """
    met = _met(_met(weight, 2, shape.rows.taps), 3, shape.columns.taps)
    _, channels, height, width = met.shape
    size = blocking.block_outputs
    packed = words.view(np.float32).reshape(blocking.blocks, height * width, channels, size)
    for block, first in zip(packed, range(0, blocking.padded_outputs, size), strict=True):
        some = met[first : first + size].reshape(-1, channels, height * width)
        turn(some, block[:, :, : len(some)])
        block[:, :, len(some) :] = 0


def _met(weight: Array, axis: int, taps: list[int]) -> Array:
    """Return the weights of the taps along an axis; where that is all in order, no copy."""
    return weight if taps == list(range(weight.shape[axis])) else weight.take(taps, axis)


def pack_bias(bias: Array, words: Array) -> None:
    """Fill words with the biases, and zeros up to whole groups."""
    words[: len(bias)] = bias.view(np.uint32)
    words[len(bias) :] = 0
