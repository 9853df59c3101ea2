"""The vocabulary of `isa.values` in LLVM IR: what the compiled engine computes with.

A scalar is an i64, a vector is <lanes x i32>; a word adds instructions where `builder` stands and
returns the new value. The translator replaces `builder` when it goes on in another function. No
floating-point operation carries a fast-math flag, so LLVM neither fuses nor reorders any.
"""

from __future__ import annotations

from typing import Protocol

from isa.values import ScalarWords, Value, VectorWords, Words
from simulator.compiled import ir

BIT = ir.IntType(1)
WORD = ir.IntType(32)
REGISTER = ir.IntType(64)
SINGLE = ir.FloatType()


class ScalarAddress(Protocol):
    """Where a scalar word of memory is; words are numbered from there."""

    def load_word(self, word: int) -> Value:
        """Return a word, an i32."""

    def store_word(self, word: int, value: Value, /) -> None:
        """Store a word, an i32."""


class VectorAddress(Protocol):
    """Where the words of all lanes are; lane i has word number `word + step * i` from there."""

    def load_lanes(self, word: int, step: int) -> Value:
        """Return one word a lane, <lanes x i32>."""

    def store_lanes(self, word: int, step: int, value: Value, /) -> None:
        """Store one word a lane, <lanes x i32>."""


class LlvmWords(Words):
    """Words that are the same instruction on a scalar and on lanes.

    An operand may be a Python int, which is how immediates come.
    """

    def __init__(self, builder: ir.IRBuilder, width: int, lanes: int | None) -> None:
        self.builder = builder
        self._width = width
        self._suffix = "" if lanes is None else f"v{lanes}"
        self._word = WORD if lanes is None else ir.VectorType(WORD, lanes)
        self._single = SINGLE if lanes is None else ir.VectorType(SINGLE, lanes)
        self._integer = REGISTER if lanes is None else self._word
        self._constants: dict[int, Value] = {}

    def constant(self, number: int) -> Value:
        value = self._constants.get(number)
        if value is None:
            value = ir.Constant(self._integer, number & (2**self._width - 1))
            self._constants[number] = value
        return value

    def add(self, a: Value, b: Value) -> Value:
        return self.builder.add(self._operand(a), self._operand(b))

    def subtract(self, a: Value, b: Value) -> Value:
        return self.builder.sub(self._operand(a), self._operand(b))

    def multiply(self, a: Value, b: Value) -> Value:
        return self.builder.mul(self._operand(a), self._operand(b))

    def bit_and(self, a: Value, b: Value) -> Value:
        return self.builder.and_(self._operand(a), self._operand(b))

    def bit_or(self, a: Value, b: Value) -> Value:
        return self.builder.or_(self._operand(a), self._operand(b))

    def bit_xor(self, a: Value, b: Value) -> Value:
        return self.builder.xor(self._operand(a), self._operand(b))

    def bit_not(self, a: Value) -> Value:
        return self.bit_xor(a, self.constant(-1))

    def shift_left(self, a: Value, count: Value) -> Value:
        return self.builder.shl(self._operand(a), self._count(count))

    def shift_right(self, a: Value, count: Value) -> Value:
        return self.builder.lshr(self._operand(a), self._count(count))

    def shift_right_arithmetic(self, a: Value, count: Value) -> Value:
        return self.builder.ashr(self._operand(a), self._count(count))

    def less(self, a: Value, b: Value) -> Value:
        return self._ones(self.builder.icmp_signed("<", self._operand(a), self._operand(b)))

    def less_unsigned(self, a: Value, b: Value) -> Value:
        return self._ones(self.builder.icmp_unsigned("<", self._operand(a), self._operand(b)))

    def equal(self, a: Value, b: Value) -> Value:
        return self._ones(self.builder.icmp_unsigned("==", self._operand(a), self._operand(b)))

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        chosen = self.builder.icmp_unsigned("!=", self._operand(condition), self.constant(0))
        return self.builder.select(chosen, self._operand(a), self._operand(b))

    def low_word(self, a: Value) -> Value:
        return self._widened(self._narrowed(a))

    def fadd(self, a: Value, b: Value) -> Value:
        return self._from_float(self.builder.fadd(self._float(a), self._float(b)))

    def fsub(self, a: Value, b: Value) -> Value:
        return self._from_float(self.builder.fsub(self._float(a), self._float(b)))

    def fmul(self, a: Value, b: Value) -> Value:
        return self._from_float(self.builder.fmul(self._float(a), self._float(b)))

    def fdiv(self, a: Value, b: Value) -> Value:
        return self._from_float(self.builder.fdiv(self._float(a), self._float(b)))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        operands = [self._float(a), self._float(b), self._float(c)]
        name = f"llvm.fma.{self._suffix}f32"
        return self._from_float(self.builder.call_named(name, self._single, operands))

    def fneg(self, a: Value) -> Value:
        return self._from_float(self.builder.fneg(self._float(a)))

    def fgreater(self, a: Value, b: Value) -> Value:
        return self._ones(self.builder.fcmp_ordered(">", self._float(a), self._float(b)))

    def fgreater_equal(self, a: Value, b: Value) -> Value:
        return self._ones(self.builder.fcmp_ordered(">=", self._float(a), self._float(b)))

    def fequal(self, a: Value, b: Value) -> Value:
        return self._ones(self.builder.fcmp_ordered("==", self._float(a), self._float(b)))

    def int_to_float(self, a: Value) -> Value:
        return self._from_float(self.builder.sitofp(self._narrowed(a), self._single))

    def float_to_int(self, a: Value) -> Value:
        name = f"llvm.fptosi.sat.{self._suffix}i32.{self._suffix}f32"
        return self._widened(self.builder.call_named(name, self._word, [self._float(a)]))

    def _operand(self, a: Value) -> Value:
        return self.constant(a) if isinstance(a, int) else a

    def _count(self, count: Value) -> Value:
        """Return a shift count modulo the width; LLVM leaves larger ones undefined."""
        return self.bit_and(count, self.constant(self._width - 1))

    def _ones(self, condition: Value) -> Value:
        return self.builder.zext(condition, self._integer)

    def _narrowed(self, a: Value) -> Value:
        """Return the low 32 bits of a register; lanes have no others."""
        return self.builder.trunc(self._operand(a), self._word)

    def _widened(self, words: Value) -> Value:
        """Return 32 bits sign-extended to the register."""
        return self.builder.sext(words, self._integer)

    def _float(self, a: Value) -> Value:
        # What a float word made is taken as it was before its bitcast: less IR compiles sooner.
        if isinstance(a, ir.Bitcast) and a.source.type == self._single:
            return a.source
        return self.builder.bitcast(self._narrowed(a), self._single)

    def _from_float(self, a: Value) -> Value:
        return self._widened(self.builder.bitcast(a, self._word))


class LlvmScalar(LlvmWords, ScalarWords):
    """Scalar words on i64; float words work on the low 32 bits and sign-extend their result."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        super().__init__(builder, width=64, lanes=None)

    def with_high_word(self, a: Value, high: Value) -> Value:
        return self.bit_or(self.shift_left(high, 32), self.bit_and(a, 2**32 - 1))

    def load(self, address: ScalarAddress, word: int = 0, step: int = 1) -> Value:
        return self._widened(address.load_word(word))

    def store(self, address: ScalarAddress, value: Value, word: int = 0, step: int = 1) -> None:
        address.store_word(word, self._narrowed(value))


class LlvmVector(LlvmWords, VectorWords):
    """Vector words on <lanes x i32>; comparisons give 0 or 1 in each lane."""

    def __init__(self, builder: ir.IRBuilder, lanes: int = 16) -> None:
        super().__init__(builder, width=32, lanes=lanes)
        self.lanes = lanes
        self._undefined = ir.Constant(self._word, ir.Undefined)

    def load(self, address: VectorAddress, word: int = 0, step: int = 1) -> Value:
        return address.load_lanes(word, step)

    def store(self, address: VectorAddress, value: Value, word: int = 0, step: int = 1) -> None:
        address.store_lanes(word, step, value)

    def shuffle(self, a: Value, index: Value) -> Value:
        if isinstance(index, ir.Constant):
            return self._reordered(a, [lane % self.lanes for lane in index.lanes])
        # x86 turns this sequence into one vpermps, or vpermilps for 4 lanes.
        within = self.builder.urem(index, self.constant(self.lanes))
        result: Value = self._undefined
        for lane in range(self.lanes):
            source = self.builder.extract_element(within, WORD(lane))
            word = self.builder.extract_element(a, source)
            result = self.builder.insert_element(result, word, WORD(lane))
        return result

    def rotate(self, a: Value, distance: int) -> Value:
        return self._reordered(a, [(i + distance) % self.lanes for i in range(self.lanes)])

    def broadcast(self, scalar: Value) -> Value:
        """Return the low 32 bits of a scalar (an i64) in every lane."""
        word = self.builder.trunc(scalar, WORD)
        first = self.builder.insert_element(self._undefined, word, WORD(0))
        return self._reordered(first, [0] * self.lanes)

    def lane_number(self) -> Value:
        return ir.Constant(self._word, list(range(self.lanes)))

    def _reordered(self, a: Value, sources: list[int]) -> Value:
        mask = ir.Constant(self._word, sources)
        return self.builder.shuffle_vector(a, self._undefined, mask)
