"""The host's turning of tensors into the chip's order and back, at about the speed of its memory.

Called when tensors are placed in DDR and read back. numpy copies a turned array element by element
along one side of it; where that side strides over far more than a cache holds, or by a power of
two, each element costs a cache line. So tensors are turned in pieces that a cache holds, by way of
a small array whose rows do not lie a power of two apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PIECE_BYTES = 256 << 10
"""Of a piece: what the second cache of a host holds."""

ODD_WORDS = 16
"""Between the rows of the small array: a cache line that breaks the power of two."""


def turn(images: Array, rows: Array) -> None:
    """Fill rows (pixels, channels, samples) from images (samples, channels, pixels)."""
    samples, channels, pixels = images.shape
    step = _step(4 * samples * pixels, channels)
    piece = np.empty((samples, step * pixels + ODD_WORDS), images.dtype)
    for first in range(0, channels, step):
        some = images[:, first : first + step]
        words = some.shape[1] * pixels
        piece[:, :words] = some.reshape(samples, words)
        shape, (row, word) = (pixels, some.shape[1], samples), piece.strides
        strides = (word, pixels * word, row)
        rows[:, first : first + step] = np.lib.stride_tricks.as_strided(piece, shape, strides)


def turn_back(rows: Array, images: Array) -> None:
    """Fill images (samples, channels, pixels) from rows (pixels, channels, samples)."""
    pixels, channels, samples = rows.shape
    step = _step(4 * samples * pixels, channels)
    for first in range(0, channels, step):
        piece = np.ascontiguousarray(rows[:, first : first + step].transpose(1, 0, 2))
        turned = piece.reshape(-1, samples).T
        images[:, first : first + step] = turned.reshape(samples, -1, pixels)


def _step(each_bytes: int, most: int) -> int:
    """Return how many of so many bytes make a piece."""
    return max(1, min(most, PIECE_BYTES // each_bytes))
