"""Samples in the lanes: how a batch is split over cores, blocks and vectors, and lies in DDR.

On the chip a tensor is a matrix with one column per sample; a row is the same pixel and channel of
all samples. The batch is split over the cores and, within a core, into blocks of at most
`MAX_VECTORS` vectors. A block is stored as a contiguous (rows, samples) matrix, so that any run of
rows is one contiguous transfer. Within a block every vector enables the same number of lanes:
33 samples are four vectors of 9 lanes, the last one overlapping, so one lane mask serves all and
no lane ever holds anything but a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import frozen

from kernels.samples.turning import turn, turn_back

Array = np.ndarray[Any, Any]

MAX_VECTORS = 4


@frozen
class Block:
    """Samples `first` to `first + samples - 1`, as vectors of `width` lanes."""

    first: int
    samples: int
    vectors: int

    @property
    def width(self) -> int:
        return -(-self.samples // self.vectors)

    @property
    def offsets(self) -> list[int]:
        """Sample at which each vector begins, within the block."""
        return [min(v * self.width, self.samples - self.width) for v in range(self.vectors)]


@frozen
class BatchSplit:
    """The blocks of every core that has samples; all of them have the same number of blocks."""

    batch: int
    blocks: tuple[tuple[Block, ...], ...]

    @staticmethod
    def make(batch: int, cores: int, lanes: int) -> BatchSplit:
        """Split evenly: the cores first, then the blocks of a core; sizes differ by at most 1."""
        active = min(batch, cores)
        largest = -(-batch // active)
        count = -(-largest // (MAX_VECTORS * lanes))
        vectors = _vectors(-(-largest // count), lanes)
        first, blocks = 0, []
        for samples in _even(batch, active):
            row = []
            for part in _even(samples, count):
                row.append(Block(first, part, vectors))
                first += part
            blocks.append(tuple(row))
        return BatchSplit(batch, tuple(blocks))

    @property
    def active(self) -> int:
        """Cores that have samples."""
        return len(self.blocks)

    @property
    def count(self) -> int:
        """Blocks of each active core."""
        return len(self.blocks[0])

    @property
    def vectors(self) -> int:
        """Vectors of each block: 1, 2 or 4."""
        return self.blocks[0][0].vectors

    @property
    def largest(self) -> int:
        """Samples of the largest block."""
        return max(block.samples for row in self.blocks for block in row)

    def place_samples(self, samples: Array, words: Array) -> None:
        """Fill words from samples (N, K): a row of each block for every k."""
        self.place_images(samples[:, None, None], words)

    def read_samples(self, words: Array, samples: Array) -> None:
        """Fill the samples (N, K) that `place_samples` laid out."""
        self.read_images(words, samples[:, None, None])

    def place_images(self, images: Array, words: Array) -> None:
        """Fill words from images (N, C, H, W): rows (h, w, c) of each block, channels fastest."""
        for some, rows in self._turned(images, words):
            turn(some, rows)

    def read_images(self, words: Array, images: Array) -> None:
        """Fill the images (N, C, H, W) that `place_images` laid out."""
        for some, rows in self._turned(images, words):
            turn_back(rows, some)

    def _turned(self, images: Array, words: Array) -> Iterator[tuple[Array, Array]]:
        """Yield the (samples, channels, pixels) and (pixels, channels, samples) of each block."""
        batch, channels, height, width = images.shape
        planes = images.reshape(batch, channels, height * width)
        dtype = np.dtype(np.int32) if images.dtype == np.int64 else images.dtype
        for block, part in self.parts(words):
            some = planes[block.first : block.first + block.samples]
            yield some, part.view(dtype).reshape(height * width, channels, block.samples)

    def parts(self, words: Array) -> Iterator[tuple[Block, Array]]:
        """Yield every block with its words."""
        each = len(words) // self.batch
        for block in (block for row in self.blocks for block in row):
            yield block, words[block.first * each : (block.first + block.samples) * each]


def _vectors(samples: int, lanes: int) -> int:
    """Return how many vectors hold a block: 1, 2 or 4, which the inner products know."""
    return next(v for v in (1, 2, MAX_VECTORS) if v * lanes >= samples)


def _even(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]
