"""Corner values: what random registers, immediates and memories hold more often than chance.

Called by the generator of programs and by tests of single instructions.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

FLOAT_BITS = (
    0x00000000, 0x80000000,  # zeros
    0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF,  # subnormals, smallest and largest
    0x00800000, 0x80800000,  # smallest normal numbers
    0x7F7FFFFF, 0xFF7FFFFF,  # largest numbers
    0x7F800000, 0xFF800000,  # infinities
    0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x3F800001, 0x40490FDB,  # around one
    0x4EFFFFFF, 0x4F000000, 0xCF000000, 0xCF000001, 0x4B800000,  # around 2^31, 2^24
    0x5F000000, 0x1F800000, 0x20000000,  # whose squares overflow or vanish
)  # fmt: skip
"""Bits of float32 numbers that are not NaN."""

NAN_BITS = (0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF)
"""Bits of NaNs, quiet and signalling."""

WORD_BITS = (
    0, 1, 2, 3, 4, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFF,
    0x10000, 0x55555555, 0xAAAAAAAA, 63, 64, 65, 0xFFFFFFE0, 0x00FFFFFF, 0x01000001,
)  # fmt: skip
"""Words of integers: extremes, and shift counts at and beyond the width."""

REGISTER_BITS = (
    0, 1, 2**63 - 1, -(2**63), -1, -2, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32 - 1, 2**32,
    -(2**32), 31, 32, 63, 64, 65, -63, -64, 2**53 + 1, 0x7FFFFFFF00000000, 0x1234_5678_9ABC_DEF0,
)  # fmt: skip
"""Signed 64-bit integers."""

SHORT_IMMEDIATES = (0, 1, -1, 2, 31, 32, 33, 63, 64, 65, 100, 32767, -32768, -31, -64)
"""Immediates that fit 16 bits."""


def random_float(random: Random, *, nan: bool = False) -> int:
    """Return the bits of a float32: a corner, an ordinary number, or any bits but a NaN's."""
    drawn = random.random()
    if nan and drawn < 0.05:
        return random.choice(NAN_BITS)
    if drawn < 0.35:
        return random.choice(FLOAT_BITS)
    if drawn < 0.8:
        return int(np.float32(random.uniform(-4, 4)).view(np.uint32))
    bits = random.getrandbits(32)
    return bits & 0xBFFFFFFF if bits >> 23 & 0xFF == 0xFF else bits


def random_word(random: Random) -> int:
    """Return the bits of an integer word: a corner, a small one, or any."""
    drawn = random.random()
    if drawn < 0.3:
        return random.choice(WORD_BITS)
    if drawn < 0.6:
        return random.randint(-40, 40) & 0xFFFFFFFF
    return random.getrandbits(32)


def words(random: Random, count: int, floats: bool) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Return so many random words, floats with corners and NaNs among them, or integers."""
    size = min(count, 97)
    pool = [random_float(random, nan=True) if floats else random_word(random) for _ in range(size)]
    rest = [random.choice(pool) for _ in range(count - size)]
    return np.array(pool + rest, np.uint32)
