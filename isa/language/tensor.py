"""Host tensors as a kernel declares them: shape and dtype, PyTorch's conventions."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
from attrs import field, frozen

from isa.errors import UsageError

Array = np.ndarray[Any, Any]


DTYPES = ("float32", "int32", "uint32", "int64")
"""What a tensor may hold."""


def _dtype(name: Any) -> Any:
    """Return the dtype of that name, or the name itself if numpy knows none."""
    try:
        return np.dtype(name)
    except TypeError:
        return name


@frozen
class Tensor:
    """Shape and dtype of a host tensor; on the chip every element is one 32-bit word.

    float32, int32 and uint32 keep their bits; int64 (indices) is narrowed to int32 on the chip.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] = field(default=np.dtype("float32"), converter=_dtype)

    @property
    def problem(self) -> str:
        """What is wrong with the declaration, or an empty string."""
        if str(self.dtype) not in DTYPES:
            return f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype}"
        extents = self.shape if isinstance(self.shape, tuple) else (None,)
        if any(isinstance(e, bool) or not isinstance(e, Integral) for e in extents):
            return f"shape must be a tuple of whole numbers, got {self.shape!r}"
        return ""

    @property
    def words(self) -> int:
        """Elements, and so 32-bit words on the chip."""
        return math.prod(self.shape)

    def check(self, name: str, value: Any) -> Array:
        """Return the value as a C-ordered array, or say what is wrong with its shape or dtype."""
        array = np.asarray(value)
        if array.dtype != self.dtype:
            raise UsageError(f"tensor '{name}' must be {self.dtype}, is {array.dtype}")
        if array.shape != self.shape:
            raise UsageError(f"tensor '{name}' must have shape {self.shape}, has {array.shape}")
        return np.ascontiguousarray(array)

    def to_words(self, array: Array, words: Array) -> None:
        """Fill 32-bit words with the tensor in C order."""
        np.copyto(self._on_chip(words), array, casting="unsafe")

    def from_words(self, words: Array, array: Array) -> None:
        """Fill the tensor from its 32-bit words in C order."""
        array[...] = self._on_chip(words)

    def _on_chip(self, words: Array) -> Array:
        """Return a view of the words as the tensor, its elements as the chip has them."""
        dtype = np.dtype(np.int32) if self.dtype == np.int64 else self.dtype
        return words[: self.words].view(dtype).reshape(self.shape)
