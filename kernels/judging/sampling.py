"""Samples of results too large to compare as a whole: which elements `judging` looks at.

A sample is random and always the same. Of each dimension it has the first and the last, where
borders and incomplete blocks show, unless one is all that it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import isqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape4 = tuple[int, int, int, int]

ALL = 1_000_000_000
"""Multiply-adds up to which every output is compared, a matter of seconds; else a sample."""

PIXELS = 50_000_000
"""Pixels of a pooling's image up to which every one is compared."""

SEED = 7004
POSITIONS, IMAGES, FILTERS = 64, 8, 16
"""A sample: so many output positions, and at each of them so many images by so many filters."""


def positions(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], Array, Array]]:
    """Yield positions (i, j) in images of a shape, each with numbers of images and channels."""
    generator = np.random.default_rng(SEED)
    for position in choose(generator, shape[2] * shape[3], POSITIONS):
        images = choose(generator, shape[0], IMAGES)
        yield divmod(int(position), shape[3]), images, choose(generator, shape[1], FILTERS)


def points(shape: tuple[int, ...]) -> Array:
    """Return the places (n, o, i, j) of `positions`, position by position, image by image."""
    return np.array(
        [
            (n, o, *position)
            for position, images, channels in positions(shape)
            for n, o in product(images, channels)
        ]
    )


def pairs(rows: int, columns: int, cost: int) -> tuple[Array, Array]:
    """Return rows and columns of a matrix whose elements take `cost` multiply-adds each."""
    most = max(1, min(ALL // cost, POSITIONS * IMAGES * FILTERS))
    height = min(rows, max(isqrt(most), most // columns))
    generator = np.random.default_rng(SEED)
    return choose(generator, rows, height), choose(generator, columns, most // height)


def choose(generator: np.random.Generator, total: int, most: int) -> Array:
    """Return up to `most` different numbers below `total`, in order; the ends are among them."""
    if total <= most:
        return np.arange(total)
    if most == 1:
        return generator.integers(total, size=1)
    inner = 1 + generator.choice(total - 2, most - 2, replace=False)
    return np.sort(np.array([0, *inner, total - 1]))
