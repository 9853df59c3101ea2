"""Scalar integers, 64 bits wide: counters, addresses, conditions for predicates.

Immediates are sign-extended; arithmetic wraps.

Called by both engines with the scalar vocabulary.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import RI, Imm32, R
from isa.values import ScalarWords


@instruction(Unit.SMAC, Unit.SIEU, latency="scalar_integer")
def SADD(op: ScalarWords, a: RI, b: RI) -> R:
    """Add: a + b."""
    return op.add(a, b)


@instruction(Unit.SMAC, Unit.SIEU, latency="scalar_integer")
def SSUB(op: ScalarWords, a: RI, b: RI) -> R:
    """Subtract: b - a."""
    return op.subtract(b, a)


@instruction(Unit.SMAC, Unit.SIEU, latency="scalar_integer")
def SMOV(op: ScalarWords, a: R) -> R:
    """Copy all 64 bits of a."""
    return a


@instruction(Unit.SMAC, Unit.SIEU, latency="scalar_integer")
def SMOVI(op: ScalarWords, value: Imm32) -> R:
    """Set to a sign-extended 32-bit immediate."""
    return op.constant(value)


@instruction(Unit.SIEU, latency="scalar_integer")
def SMOVIH(op: ScalarWords, high: Imm32, a: R) -> R:
    """Replace the upper 32 bits of a by an immediate; the lower 32 bits stay.

    Inferred: the width, as FT-M7002's registers have 32 bits, and the source a.
    """
    return op.with_high_word(a, op.constant(high))


@instruction(Unit.SMAC, latency="scalar_multiply")
def SMULIS(op: ScalarWords, a: RI, b: RI) -> R:
    """Multiply signed integers: the low 64 bits of a * b."""
    return op.multiply(a, b)


@instruction(Unit.SMAC, latency="scalar_multiply")
def SMULIU(op: ScalarWords, a: RI, b: RI) -> R:
    """Multiply the low 32 bits of a and b as unsigned integers: all 64 bits of the product."""
    low = op.constant(0xFFFFFFFF)
    return op.multiply(op.bit_and(a, low), op.bit_and(b, low))


@instruction(Unit.SIEU, latency="scalar_integer")
def SAND(op: ScalarWords, a: RI, b: RI) -> R:
    """Bitwise and of a and b."""
    return op.bit_and(a, b)


@instruction(Unit.SIEU, latency="scalar_integer")
def SOR(op: ScalarWords, a: RI, b: RI) -> R:
    """Bitwise or of a and b."""
    return op.bit_or(a, b)


@instruction(Unit.SIEU, latency="scalar_integer")
def SXOR(op: ScalarWords, a: RI, b: RI) -> R:
    """Bitwise exclusive or of a and b."""
    return op.bit_xor(a, b)


@instruction(Unit.SIEU, latency="scalar_integer")
def SNOT(op: ScalarWords, a: R) -> R:
    """Invert every bit of a."""
    return op.bit_not(a)


@instruction(Unit.SIEU, latency="scalar_integer")
def SSHFLL(op: ScalarWords, count: RI, a: RI) -> R:
    """Shift left by count modulo 64, zeros coming in."""
    return op.shift_left(a, count)


@instruction(Unit.SIEU, latency="scalar_integer")
def SSHFLR(op: ScalarWords, count: RI, a: RI) -> R:
    """Shift a right by count modulo 64, zeros coming in."""
    return op.shift_right(a, count)


@instruction(Unit.SIEU, latency="scalar_integer")
def SSHFAR(op: ScalarWords, count: RI, a: RI) -> R:
    """Shift a right by count modulo 64, its sign coming in."""
    return op.shift_right_arithmetic(a, count)


@instruction(Unit.SIEU, latency="scalar_integer")
def SNEG(op: ScalarWords, a: R) -> R:
    """Negate: 0 - a."""
    return op.subtract(op.constant(0), a)


@instruction(Unit.SIEU, latency="scalar_integer")
def SMIN(op: ScalarWords, a: RI, b: RI) -> R:
    """Return the smaller of two signed integers."""
    return op.select(op.less(a, b), a, b)


@instruction(Unit.SIEU, latency="scalar_integer")
def SMAX(op: ScalarWords, a: RI, b: RI) -> R:
    """Return the larger of two signed integers.

    Inferred: name.
    """
    return op.select(op.less(b, a), a, b)


@instruction(Unit.SIEU, latency="scalar_integer")
def SLT(op: ScalarWords, a: RI, b: RI) -> R:
    """Compare signed integers: 1 where a < b, else 0."""
    return op.less(a, b)


@instruction(Unit.SIEU, latency="scalar_integer")
def SLTU(op: ScalarWords, a: RI, b: RI) -> R:
    """Compare unsigned integers: 1 where a < b, else 0."""
    return op.less_unsigned(a, b)


@instruction(Unit.SIEU, latency="scalar_integer")
def SEQ(op: ScalarWords, a: RI, b: RI) -> R:
    """Compare all 64 bits: 1 where a equals b, else 0."""
    return op.equal(a, b)
