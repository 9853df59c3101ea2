"""The closed vocabulary in which the semantics of every instruction is written.

An instruction entry calls these words on values it never looks into. Each engine brings its own
values: numpy here (`simulator.reference.numpy_values`), machine code in a compiled engine. Scalar
words work on 64-bit registers, vector words on lanes of 32 bits. float32 is IEEE-754 binary32,
round to nearest even, subnormals kept; any NaN equals any NaN (payloads are not defined).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

Value = Any
"""A value of an engine: a register's content on its way through an instruction."""


class Words(ABC):
    """What scalar and vector values have in common; integers wrap at the width."""

    @abstractmethod
    def constant(self, number: int) -> Value:
        """Return the integer, in every lane of a vector."""

    @abstractmethod
    def add(self, a: Value, b: Value) -> Value:
        """Return a + b."""

    @abstractmethod
    def subtract(self, a: Value, b: Value) -> Value:
        """Return a - b."""

    @abstractmethod
    def multiply(self, a: Value, b: Value) -> Value:
        """Return the low half of a * b."""

    @abstractmethod
    def bit_and(self, a: Value, b: Value) -> Value:
        """Return a & b."""

    @abstractmethod
    def bit_or(self, a: Value, b: Value) -> Value:
        """Return a | b."""

    @abstractmethod
    def bit_xor(self, a: Value, b: Value) -> Value:
        """Return a ^ b."""

    @abstractmethod
    def bit_not(self, a: Value) -> Value:
        """Return ~a."""

    @abstractmethod
    def shift_left(self, a: Value, count: Value) -> Value:
        """Return a shifted left; the count is taken modulo the width."""

    @abstractmethod
    def shift_right(self, a: Value, count: Value) -> Value:
        """Return a shifted right, zeros coming in; the count is taken modulo the width."""

    @abstractmethod
    def shift_right_arithmetic(self, a: Value, count: Value) -> Value:
        """Return a shifted right, its sign coming in; the count is taken modulo the width."""

    @abstractmethod
    def less(self, a: Value, b: Value) -> Value:
        """Return 1 where a < b as signed integers, else 0."""

    @abstractmethod
    def less_unsigned(self, a: Value, b: Value) -> Value:
        """Return 1 where a < b as unsigned integers, else 0."""

    @abstractmethod
    def equal(self, a: Value, b: Value) -> Value:
        """Return 1 where a and b have the same bits, else 0."""

    @abstractmethod
    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """Return a where the condition is not zero, else b."""

    @abstractmethod
    def low_word(self, a: Value) -> Value:
        """Return the low 32 bits, sign-extended to the register."""

    # float32: the operand is the low 32 bits, a scalar result is sign-extended like low_word.

    @abstractmethod
    def fadd(self, a: Value, b: Value) -> Value:
        """Return a + b in float32."""

    @abstractmethod
    def fsub(self, a: Value, b: Value) -> Value:
        """Return a - b in float32."""

    @abstractmethod
    def fmul(self, a: Value, b: Value) -> Value:
        """Return a * b in float32."""

    @abstractmethod
    def fdiv(self, a: Value, b: Value) -> Value:
        """Return a / b in float32."""

    @abstractmethod
    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """Return a * b + c in float32 with a single rounding."""

    @abstractmethod
    def fneg(self, a: Value) -> Value:
        """Return a with its sign bit flipped."""

    @abstractmethod
    def fgreater(self, a: Value, b: Value) -> Value:
        """Return 1 where a > b in float32, else 0 (also on NaN)."""

    @abstractmethod
    def fgreater_equal(self, a: Value, b: Value) -> Value:
        """Return 1 where a >= b in float32, else 0 (also on NaN)."""

    @abstractmethod
    def fequal(self, a: Value, b: Value) -> Value:
        """Return 1 where a == b in float32, else 0 (also on NaN)."""

    @abstractmethod
    def int_to_float(self, a: Value) -> Value:
        """Return the signed 32-bit integer as float32, to nearest even."""

    @abstractmethod
    def float_to_int(self, a: Value) -> Value:
        """Return float32 as a signed 32-bit integer: toward zero, saturating, NaN gives 0."""

    @abstractmethod
    def load(self, address: Value, word: int = 0, step: int = 1) -> Value:
        """Return 32-bit words from memory, counted from the address.

        A scalar gets word number `word`, sign-extended; lane i gets number `word + step * i`.
        """

    @abstractmethod
    def store(self, address: Value, value: Value, word: int = 0, step: int = 1) -> None:
        """Store 32-bit words to memory, placed as `load` finds them."""


class ScalarWords(Words):
    """Words of the scalar unit alone."""

    @abstractmethod
    def with_high_word(self, a: Value, high: Value) -> Value:
        """Return a with its upper 32 bits replaced by the low 32 bits of `high`."""


class VectorWords(Words):
    """Words that know lanes; `lanes` is their number."""

    lanes: int

    @abstractmethod
    def shuffle(self, a: Value, index: Value) -> Value:
        """Return, in lane i, lane index[i] (modulo lanes) of a."""

    @abstractmethod
    def rotate(self, a: Value, distance: int) -> Value:
        """Return, in lane i, lane i + distance (modulo lanes) of a."""

    @abstractmethod
    def broadcast(self, scalar: Value) -> Value:
        """Return the low 32 bits of a scalar in every lane."""

    @abstractmethod
    def lane_number(self) -> Value:
        """Return i in lane i."""


class ControlWords(ABC):
    """Words that steer a core; they return nothing that depends on time."""

    @abstractmethod
    def core_id(self) -> Value:
        """Return the number of this core."""

    @abstractmethod
    def branch(self, target: Value) -> None:
        """Go on at packet number `target` after the delay slots."""

    @abstractmethod
    def dma_start(self, address: Value, channel: Value) -> None:
        """Start the transfer of the descriptor at a byte address of SM on a channel."""

    @abstractmethod
    def dma_wait(self, channel: Value) -> None:
        """Wait until the transfer of a channel is complete."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every core of the run has come here."""

    @abstractmethod
    def halt(self) -> None:
        """End the program of this core."""

    @abstractmethod
    def idle(self, cycles: Value) -> None:
        """Leave cycles empty."""
