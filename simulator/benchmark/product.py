"""The yardstick: numpy's sgemm on the multiply-adds of a layer, padding included.

A convolution is the product of its weights (outputs x window) and a matrix with one column for
each position of each sample. That matrix would take gigabytes, so the product goes over it in
panels of columns, large enough that sgemm loses nothing by it; all panels are the same memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import frozen

from isa.language.kernel import Kernel

PANEL_BYTES = 256 << 20
"""Most bytes that a panel and its result take: far beyond the caches of a host."""

Array = np.ndarray[Any, Any]


@frozen
class Product:
    """The sizes of (rows x depth) @ (depth x columns)."""

    rows: int
    depth: int
    columns: int

    @staticmethod
    def of(kernel: Kernel) -> Product:
        """Return the product that a layer's forward kernel computes; it has a tensor `weight`."""
        rows, *window = kernel.inputs["weight"].shape
        depth = math.prod(window)
        return Product(rows, depth, kernel.work.flops // (2 * rows * depth))

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.depth * self.columns

    @property
    def panel_columns(self) -> int:
        """Columns that go at once."""
        return min(self.columns, max(1, PANEL_BYTES // (4 * (self.rows + self.depth))))


class Operands:
    """The matrices of a product, filled with what the kernels get as well: values in [-1, 1)."""

    def __init__(self, product: Product, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        width = product.panel_columns
        self.product = product
        self.weights = random_values(generator, product.rows, product.depth)
        self.panel = random_values(generator, product.depth, width)
        self.result = np.empty((product.rows, width), np.float32)

    def multiply(self) -> None:
        """Compute the whole product once."""
        width = self.product.panel_columns
        for first in range(0, self.product.columns, width):
            here = min(width, self.product.columns - first)
            np.matmul(self.weights, self.panel[:, :here], out=self.result[:, :here])


def random_values(generator: np.random.Generator, *shape: int) -> Array:
    """Return values in [-1, 1), made without anything larger than themselves."""
    values: Array = generator.random(shape, np.float32)
    values *= 2
    values -= 1
    return values
