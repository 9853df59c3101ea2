"""Host tensors into DDR before a run and out of it afterwards: no simulated time, no copy between.

`simulate` calls it. DDR starts at 0 wherever no input lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa.program import Buffer, Program
from simulator.host_memory import POOL
from simulator.memory import Words

Arrays = Mapping[str, np.ndarray[Any, Any]]


def place(program: Program, base: int, arrays: Arrays) -> Words:
    """Return the words of DDR, which begins at byte `base`, with the input tensors in them."""
    words, clean = POOL.take(-(-program.ddr_bytes // 4))
    inputs = [program.inputs[name] for name in arrays]
    if not clean:
        _clear(words, [_extent(placement.buffer, base) for placement in inputs])
    for placement, array in zip(inputs, arrays.values(), strict=True):
        placement.place(array, words[_extent(placement.buffer, base)])
    return words


def _clear(words: Words, used: list[slice]) -> None:
    """Set to 0 what lies between the used parts."""
    end = 0
    for part in sorted(used, key=lambda part: part.start):
        words[end : part.start] = 0
        end = part.stop
    words[end:] = 0


def read(program: Program, base: int, words: Words) -> dict[str, np.ndarray[Any, Any]]:
    """Return the output tensors from the words of DDR, in memory of their own."""
    outputs = {}
    for name, placement in program.outputs.items():
        size = int(np.prod(placement.shape)) * placement.dtype.itemsize
        fresh, _ = POOL.take(size // 4)
        outputs[name] = fresh.view(placement.dtype).reshape(placement.shape)
        placement.read(words[_extent(placement.buffer, base)], outputs[name])
    return outputs


def _extent(buffer: Buffer, base: int) -> slice:
    first = (buffer.address - base) // 4
    return slice(first, first + buffer.bytes // 4)
