"""The vocabulary of `isa.values` in numpy: what the reference engine computes with.

A scalar is a Python int from -2^63 to 2^63 - 1. A vector is a uint32 array whose last axis is the
lanes; words that treat every lane alike take any leading shape, so that the multiply-adds of one
packet can be computed side by side. No word silences numpy's warnings itself, because that costs
more than the arithmetic: the engine enters `quiet_floats` once around a run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isa.values import ScalarWords, VectorWords

Lanes = NDArray[np.uint32]
Doubles = NDArray[np.float64]

WORD = 2**32 - 1
REGISTER = 2**64 - 1

# Arrays of one element, not Python numbers: numpy converts those anew in every call.
_SIGN_BIT = np.array([2**31], np.uint32)
_COUNT_BITS = np.array([31], np.uint32)
_UP = np.array([1 + 2.0**-52])
_DOWN = np.array([1 - 2.0**-53])


class ScalarAddress(Protocol):
    """Where a scalar word of memory is; words are numbered from there."""

    def load_word(self, word: int) -> int:
        """Return a word of 32 bits, unsigned."""

    def store_word(self, word: int, value: int, /) -> None:
        """Store a word of 32 bits, unsigned."""


class VectorAddress(Protocol):
    """Where the words of all lanes are; lane i has word number `word + step * i` from there."""

    def load_lanes(self, word: int, step: int) -> Lanes:
        """Return one word a lane (uint32)."""

    def store_lanes(self, word: int, step: int, value: Lanes, /) -> None:
        """Store one word a lane (uint32)."""


def quiet_floats() -> AbstractContextManager[Any]:
    """Return a context in which overflow and NaN are results, not warnings (this thread only)."""
    return np.errstate(all="ignore")


def signed_word(value: int) -> int:
    """Return the low 32 bits as a signed int."""
    return ((value & WORD) ^ 2**31) - 2**31


def signed_register(value: int) -> int:
    """Return the low 64 bits as a signed int."""
    return ((value & REGISTER) ^ 2**63) - 2**63


class NumpyVector(VectorWords):
    """Vector words on uint32 arrays of shape (..., lanes); operands are never changed."""

    def __init__(self, lanes: int = 16) -> None:
        self.lanes = lanes
        self._numbers = _read_only(np.arange(lanes, dtype=np.uint32))
        self._constants: dict[int, Lanes] = {}

    def constant(self, number: int) -> Lanes:
        """Return the integer in every lane, shape (lanes,), read-only."""
        lanes = self._constants.get(number)
        if lanes is None:
            lanes = _read_only(np.full(self.lanes, number & WORD, np.uint32))
            self._constants[number] = lanes
        return lanes

    def add(self, a: Lanes, b: Lanes) -> Lanes:
        return a + b

    def subtract(self, a: Lanes, b: Lanes) -> Lanes:
        return a - b

    def multiply(self, a: Lanes, b: Lanes) -> Lanes:
        return a * b

    def bit_and(self, a: Lanes, b: Lanes) -> Lanes:
        return a & b

    def bit_or(self, a: Lanes, b: Lanes) -> Lanes:
        return a | b

    def bit_xor(self, a: Lanes, b: Lanes) -> Lanes:
        return a ^ b

    def bit_not(self, a: Lanes) -> Lanes:
        return ~a

    def shift_left(self, a: Lanes, count: Lanes) -> Lanes:
        return a << (count & _COUNT_BITS)

    def shift_right(self, a: Lanes, count: Lanes) -> Lanes:
        return a >> (count & _COUNT_BITS)

    def shift_right_arithmetic(self, a: Lanes, count: Lanes) -> Lanes:
        return (a.view(np.int32) >> (count & _COUNT_BITS).view(np.int32)).view(np.uint32)

    def less(self, a: Lanes, b: Lanes) -> Lanes:
        return _ones(a.view(np.int32) < b.view(np.int32))

    def less_unsigned(self, a: Lanes, b: Lanes) -> Lanes:
        return _ones(a < b)

    def equal(self, a: Lanes, b: Lanes) -> Lanes:
        return _ones(a == b)

    def select(self, condition: Lanes, a: Lanes, b: Lanes) -> Lanes:
        return np.where(condition, a, b)

    def low_word(self, a: Lanes) -> Lanes:
        return a

    def fadd(self, a: Lanes, b: Lanes) -> Lanes:
        return (a.view(np.float32) + b.view(np.float32)).view(np.uint32)

    def fsub(self, a: Lanes, b: Lanes) -> Lanes:
        return (a.view(np.float32) - b.view(np.float32)).view(np.uint32)

    def fmul(self, a: Lanes, b: Lanes) -> Lanes:
        return (a.view(np.float32) * b.view(np.float32)).view(np.uint32)

    def fdiv(self, a: Lanes, b: Lanes) -> Lanes:
        return (a.view(np.float32) / b.view(np.float32)).view(np.uint32)

    def fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        product = _doubles(a) * _doubles(b)
        addend = _doubles(c)
        total: Doubles = product + addend
        # The product is exact; the exact sum lies between total's two neighbours in float64.
        # Where both neighbours round to the same float32, so does the exact sum. That covers
        # subnormal results too; scaling, unlike stepping, keeps zero, infinity and NaN.
        above, below = _singles(total * _UP), _singles(total * _DOWN)
        if above.tobytes() == below.tobytes():
            return above
        return _singles(_round_to_odd(product, addend, total))

    def fneg(self, a: Lanes) -> Lanes:
        return a ^ _SIGN_BIT

    def fgreater(self, a: Lanes, b: Lanes) -> Lanes:
        return _ones(a.view(np.float32) > b.view(np.float32))

    def fgreater_equal(self, a: Lanes, b: Lanes) -> Lanes:
        return _ones(a.view(np.float32) >= b.view(np.float32))

    def fequal(self, a: Lanes, b: Lanes) -> Lanes:
        return _ones(a.view(np.float32) == b.view(np.float32))

    def int_to_float(self, a: Lanes) -> Lanes:
        return a.view(np.int32).astype(np.float32).view(np.uint32)

    def float_to_int(self, a: Lanes) -> Lanes:
        # Both limits are exact in float64, the upper one is not in float32.
        numbers = _doubles(a)
        numbers = np.where(np.isnan(numbers), 0.0, numbers).clip(-(2.0**31), 2.0**31 - 1)
        return numbers.astype(np.int32).view(np.uint32)

    def load(self, address: VectorAddress, word: int = 0, step: int = 1) -> Lanes:
        return address.load_lanes(word, step)

    def store(self, address: VectorAddress, value: Lanes, word: int = 0, step: int = 1) -> None:
        address.store_lanes(word, step, value)

    def shuffle(self, a: Lanes, index: Lanes) -> Lanes:
        """Return a's lanes in the order of `index`; both have the same leading shape."""
        return np.take_along_axis(a, index % self.lanes, axis=-1)

    def rotate(self, a: Lanes, distance: int) -> Lanes:
        first = distance % self.lanes
        return np.concatenate((a[..., first:], a[..., :first]), axis=-1)

    def broadcast(self, scalar: int) -> Lanes:
        """Return the low 32 bits in every lane, shape (lanes,)."""
        return np.full(self.lanes, scalar & WORD, np.uint32)

    def lane_number(self) -> Lanes:
        """Return i in lane i, shape (lanes,), read-only."""
        return self._numbers


class NumpyScalar(ScalarWords):
    """Scalar words on Python ints from -2^63 to 2^63 - 1."""

    def __init__(self) -> None:
        self._lane = NumpyVector(1)

    def constant(self, number: int) -> int:
        return signed_register(number)

    def add(self, a: int, b: int) -> int:
        return signed_register(a + b)

    def subtract(self, a: int, b: int) -> int:
        return signed_register(a - b)

    def multiply(self, a: int, b: int) -> int:
        return signed_register(a * b)

    def bit_and(self, a: int, b: int) -> int:
        return a & b

    def bit_or(self, a: int, b: int) -> int:
        return a | b

    def bit_xor(self, a: int, b: int) -> int:
        return a ^ b

    def bit_not(self, a: int) -> int:
        return ~a

    def shift_left(self, a: int, count: int) -> int:
        return signed_register(a << (count & 63))

    def shift_right(self, a: int, count: int) -> int:
        return signed_register((a & REGISTER) >> (count & 63))

    def shift_right_arithmetic(self, a: int, count: int) -> int:
        return a >> (count & 63)

    def less(self, a: int, b: int) -> int:
        return int(a < b)

    def less_unsigned(self, a: int, b: int) -> int:
        return int(a & REGISTER < b & REGISTER)

    def equal(self, a: int, b: int) -> int:
        return int(a == b)

    def select(self, condition: int, a: int, b: int) -> int:
        return a if condition else b

    def low_word(self, a: int) -> int:
        return signed_word(a)

    def with_high_word(self, a: int, high: int) -> int:
        return signed_word(high) << 32 | a & WORD

    def fadd(self, a: int, b: int) -> int:
        return _in_one_lane(self._lane.fadd, a, b)

    def fsub(self, a: int, b: int) -> int:
        return _in_one_lane(self._lane.fsub, a, b)

    def fmul(self, a: int, b: int) -> int:
        return _in_one_lane(self._lane.fmul, a, b)

    def fdiv(self, a: int, b: int) -> int:
        return _in_one_lane(self._lane.fdiv, a, b)

    def fma(self, a: int, b: int, c: int) -> int:
        return _in_one_lane(self._lane.fma, a, b, c)

    def fneg(self, a: int) -> int:
        return signed_word(a ^ 2**31)

    def fgreater(self, a: int, b: int) -> int:
        return _in_one_lane(self._lane.fgreater, a, b)

    def fgreater_equal(self, a: int, b: int) -> int:
        return _in_one_lane(self._lane.fgreater_equal, a, b)

    def fequal(self, a: int, b: int) -> int:
        return _in_one_lane(self._lane.fequal, a, b)

    def int_to_float(self, a: int) -> int:
        return _in_one_lane(self._lane.int_to_float, a)

    def float_to_int(self, a: int) -> int:
        return _in_one_lane(self._lane.float_to_int, a)

    def load(self, address: ScalarAddress, word: int = 0, step: int = 1) -> int:
        return signed_word(address.load_word(word))

    def store(self, address: ScalarAddress, value: int, word: int = 0, step: int = 1) -> None:
        address.store_word(word, value & WORD)


def _read_only(lanes: Lanes) -> Lanes:
    lanes.setflags(write=False)
    return lanes


def _ones(condition: NDArray[np.bool_]) -> Lanes:
    return condition.astype(np.uint32)


def _doubles(lanes: Lanes) -> Doubles:
    return lanes.view(np.float32).astype(np.float64)


def _singles(numbers: Doubles) -> Lanes:
    return numbers.astype(np.float32).view(np.uint32)


def _round_to_odd(product: Doubles, addend: Doubles, total: Doubles) -> Doubles:
    """Return product + addend in float64, an inexact sum rounded to its odd neighbour.

    `total` is the same sum to nearest. The odd neighbour is never halfway between two float32
    numbers, normal or subnormal, so that rounding once more gives what one rounding would.
    """
    # The error of the sum (TwoSum); NaN where the total is infinite or NaN, which then stays.
    share = total - product
    error = (product - (total - share)) + (addend - share)
    outward = (error > 0) == (total > 0)
    inexact = (error > 0) | (error < 0)
    bits = total.view(np.int64)
    step = np.where(outward, 1, -1) * (inexact & (bits & 1 == 0))
    odd: NDArray[np.int64] = bits + step
    return odd.view(np.float64)


def _in_one_lane(word: Callable[..., Lanes], *operands: int) -> int:
    """Return what a vector word makes of the low 32 bits of scalars."""
    result = word(*(np.array([operand & WORD], np.uint32) for operand in operands))
    return signed_word(int(result[0]))
