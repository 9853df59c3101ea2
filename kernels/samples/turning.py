"""The host's turning of tensors into the chip's order and back, as fast as numpy can.

Called when tensors are placed in DDR and read back. numpy copies a turned array element by element
along one side of it; where that side strides over far more than a cache holds, or by a power of
two, each element costs a cache line. So tensors are turned in pieces that a cache holds, by way of
a small array whose rows do not lie a power of two apart. A piece has long runs of pixels: the
memory is fast only at runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

Array = np.ndarray[Any, Any]

PIECE_WORDS = 128 << 10
"""Of a piece: what the second cache of a host holds."""

LONG_RUN = 1024
"""Pixels of a channel in a piece, where a channel has as many."""

FEW_CHANNELS = 8
"""Of a piece; small batches have longer runs instead of more."""

ODD_WORDS = 16
"""Between the rows of the small array: a cache line that breaks the power of two."""


def turn(images: Array, rows: Array) -> None:
    """Fill rows (pixels, channels, samples) from images (samples, channels, pixels)."""
    samples = len(images)
    words = min(_words(samples), images[0].size)
    small = np.empty((samples, words + ODD_WORDS), rows.dtype)
    row, word = small.strides
    for pixels, channels in _pieces(images.shape, words):
        some = images[:, channels, pixels]
        _, deep, long = some.shape
        as_strided(small, some.shape, (row, long * word, word))[:] = some
        turned = as_strided(small, (long, deep, samples), (word, long * word, row))
        rows[pixels, channels] = turned


def turn_back(rows: Array, images: Array) -> None:
    """Fill images (samples, channels, pixels) from rows (pixels, channels, samples)."""
    samples = len(images)
    words = min(_words(samples), images[0].size)
    small = np.empty((words, samples + min(ODD_WORDS, samples // 4)), rows.dtype)
    row, word = small.strides
    for pixels, channels in _pieces(images.shape, words):
        some = rows[pixels, channels]
        piece = as_strided(small, some.shape, (some.shape[1] * row, row, word))
        piece[:] = some
        images[:, channels, pixels] = piece.transpose(2, 1, 0)


def _words(samples: int) -> int:
    """Return how many words of each sample make a piece."""
    return max(1, PIECE_WORDS // samples)


def _pieces(shape: tuple[int, ...], words: int) -> Iterator[tuple[slice, slice]]:
    """Yield the pixels and channels of pieces with so many words of each sample at most."""
    _, channels, pixels = shape
    run = min(pixels, words, max(LONG_RUN, words // FEW_CHANNELS))
    deep = words // run
    for first in range(0, pixels, run):
        for channel in range(0, channels, deep):
            yield slice(first, first + run), slice(channel, channel + deep)
