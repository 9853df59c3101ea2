"""Weights and biases as the chip wants them: the host's layout work before a run.

Weights are stored with one row per window pixel and channel, and cut into blocks of outputs: the
two weights of a double-word load are neighbouring outputs, and any run of rows of a block is one
contiguous broadcast. For the gradient of a convolution's input the outputs are its channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.product.blocking import Blocking, Shape

Array = np.ndarray[Any, Any]


def pack_weights(weight: Array, shape: Shape, blocking: Blocking) -> Array:
    """Return weights (O, C, kH, kW) as blocks of (kH * kW * C, block outputs), zeros beyond O.

    Kernel rows and columns come in the order in which windows meet them.
    """
    outputs = weight.shape[0]
    met = weight[:, :, shape.rows.taps][:, :, :, shape.columns.taps]
    rows = met.transpose(2, 3, 1, 0).reshape(-1, outputs)
    padded = np.zeros((rows.shape[0], blocking.padded_outputs), np.float32)
    padded[:, :outputs] = rows
    blocks = padded.reshape(rows.shape[0], blocking.blocks, blocking.block_outputs)
    return np.ascontiguousarray(blocks.transpose(1, 0, 2))


def pack_bias(bias: Array, blocking: Blocking) -> Array:
    """Return the biases with zeros up to whole groups."""
    padded = np.zeros(blocking.padded_biases, np.float32)
    padded[: len(bias)] = bias
    return padded
