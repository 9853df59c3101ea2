"""A kernel author's own `place=` and `read=`, which return arrays, as steps that fill given ones.

The builder makes the placements of tensors with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from isa.errors import KernelError
from isa.language.tensor import Tensor

Array = np.ndarray[Any, Any]
Fill = Callable[[Array, Array], None]


def filling(name: str, place: Callable[[Array], Array]) -> Fill:
    """Return the step that fills a buffer's words with what `place` returns."""

    def fill(array: Array, words: Array) -> None:
        placed = np.ascontiguousarray(place(array))
        if placed.nbytes != words.nbytes:
            raise KernelError(
                f"tensor '{name}': its layout gives {placed.nbytes:,} bytes for a buffer of "
                f"{words.nbytes:,}; make the size given to k.input fit what place returns"
            )
        words[:] = placed.reshape(-1).view(np.uint32)

    return fill


def restoring(name: str, read: Callable[[Array], Array], tensor: Tensor) -> Fill:
    """Return the step that fills a host tensor with what `read` returns."""

    def restore(words: Array, array: Array) -> None:
        found = read(words)
        got = (getattr(found, "shape", None), getattr(found, "dtype", None))
        if got != (tensor.shape, tensor.dtype):
            raise KernelError(
                f"tensor '{name}': read must return {tensor.dtype} of shape {tensor.shape}, it "
                f"returned {type(found).__name__} of shape {got[0]}"
            )
        array[...] = found

    return restore
