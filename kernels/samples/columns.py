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

    def place(self, rows: Array) -> Array:
        """Return a (rows, batch) float32 matrix as the words of all blocks in sample order."""
        parts = [rows[:, b.first : b.first + b.samples].reshape(-1) for b in self._all()]
        return np.concatenate(parts)

    def read(self, words: Array) -> Array:
        """Return the (rows, batch) matrix of uint32 words that `place` laid out."""
        count = len(words) // self.batch
        result = np.empty((count, self.batch), np.uint32)
        for b in self._all():
            part = words[b.first * count : (b.first + b.samples) * count]
            result[:, b.first : b.first + b.samples] = part.reshape(count, b.samples)
        return result

    def place_images(self, images: Array) -> Array:
        """Return images (N, C, H, W) as words: rows (h, w, c) of each block, channels fastest."""
        batch, channels, height, width = images.shape
        words = np.empty(images.size, images.dtype)
        planes = images.reshape(batch, channels, height * width)
        for block, part in self._parts(words):
            some = planes[block.first : block.first + block.samples]
            turn(some, part.reshape(height * width, channels, block.samples))
        return words

    def read_images(self, words: Array, shape: tuple[int, ...]) -> Array:
        """Return the images of a shape (N, C, H, W) that `place_images` laid out, as words."""
        batch, channels, height, width = shape
        planes = np.empty((batch, channels, height * width), words.dtype)
        for block, part in self._parts(words):
            some = planes[block.first : block.first + block.samples]
            turn_back(part.reshape(height * width, channels, block.samples), some)
        return planes.reshape(shape)

    def _parts(self, words: Array) -> Iterator[tuple[Block, Array]]:
        """Yield every block with its words."""
        each = len(words) // self.batch
        for block in self._all():
            yield block, words[block.first * each : (block.first + block.samples) * each]

    def _all(self) -> list[Block]:
        return [block for row in self.blocks for block in row]


def _vectors(samples: int, lanes: int) -> int:
    """Return how many vectors hold a block: 1, 2 or 4, which the inner products know."""
    return next(v for v in (1, 2, MAX_VECTORS) if v * lanes >= samples)


def _even(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]
