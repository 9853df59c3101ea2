"""Scalar float32: the low 32 bits of a register in IEEE-754 binary32, round to nearest even.

Results are sign-extended to 64 bits, as SLDW leaves a loaded word; comparisons return 1 or 0.

Called by both engines with the scalar vocabulary.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import R
from isa.values import ScalarWords

ONE = 0x3F800000
"""The bits of 1.0."""

RECIPROCAL_BITS = -(2**15)
"""Sign, exponent and the upper 8 of 23 mantissa bits, which a reciprocal approximation keeps."""


@instruction(Unit.SMAC, latency="scalar_add_float")
def SFADDS32(op: ScalarWords, a: R, b: R) -> R:
    """Add: a + b."""
    return op.fadd(a, b)


@instruction(Unit.SMAC, latency="scalar_add_float")
def SFSUBS32(op: ScalarWords, a: R, b: R) -> R:
    """Subtract: a - b."""
    return op.fsub(a, b)


@instruction(Unit.SMAC, latency="scalar_multiply_float")
def SFMULS32(op: ScalarWords, a: R, b: R) -> R:
    """Multiply: a * b."""
    return op.fmul(a, b)


@instruction(Unit.SMAC, latency="scalar_multiply_add_float", in_place=True)
def SFMULAS32(op: ScalarWords, a: R, b: R, acc: R) -> R:
    """Multiply a and b, add acc, with one rounding: a * b + acc."""
    return op.fma(a, b, acc)


@instruction(Unit.SMAC, latency="scalar_multiply_add_float", in_place=True)
def SFMULBS32(op: ScalarWords, a: R, b: R, acc: R) -> R:
    """Multiply a and b, subtract acc, with one rounding: a * b - acc.

    Inferred: name, from VFMULBS32.
    """
    return op.fma(a, b, op.fneg(acc))


@instruction(Unit.SMAC, latency="scalar_compare_float")
def SFCMPGS32(op: ScalarWords, a: R, b: R) -> R:
    """Compare: 1 where a > b, else 0 (also on NaN)."""
    return op.fgreater(a, b)


@instruction(Unit.SMAC, latency="scalar_compare_float")
def SFCMPGES32(op: ScalarWords, a: R, b: R) -> R:
    """Compare: 1 where a >= b, else 0 (also on NaN).

    Inferred: name.
    """
    return op.fgreater_equal(a, b)


@instruction(Unit.SMAC, latency="scalar_compare_float")
def SFCMPES32(op: ScalarWords, a: R, b: R) -> R:
    """Compare: 1 where a equals b, else 0 (also on NaN); -0 equals +0."""
    return op.fequal(a, b)


@instruction(Unit.SMAC, latency="scalar_compare_float")
def SFCMPLS32(op: ScalarWords, a: R, b: R) -> R:
    """Compare: 1 where a < b, else 0 (also on NaN)."""
    return op.fgreater(b, a)


@instruction(Unit.SMAC, latency="scalar_compare_float")
def SFMAXS32(op: ScalarWords, a: R, b: R) -> R:
    """Return a where a > b, else b: b on NaN and between zeros.

    Inferred: name, from VFMAXS32.
    """
    return op.low_word(op.select(op.fgreater(a, b), a, b))


@instruction(Unit.SMAC, latency="scalar_compare_float")
def SFMINS32(op: ScalarWords, a: R, b: R) -> R:
    """Return a where a < b, else b: b on NaN and between zeros.

    Inferred: name.
    """
    return op.low_word(op.select(op.fgreater(b, a), a, b))


@instruction(Unit.SMAC, latency="scalar_reciprocal")
def SFRCPS32(op: ScalarWords, a: R) -> R:
    """Approximate 1 / a: the rounded quotient with its low 15 mantissa bits cleared.

    The relative error of a normal result is below 2**-8; each Newton step doubles the good bits.
    Inferred: the precision.
    """
    return op.bit_and(op.fdiv(op.constant(ONE), a), op.constant(RECIPROCAL_BITS))


@instruction(Unit.SMAC, latency="scalar_convert")
def SFINTS32(op: ScalarWords, a: R) -> R:
    """Convert the low 32 bits of a, a signed integer, to float32."""
    return op.int_to_float(a)


@instruction(Unit.SMAC, latency="scalar_convert")
def SFSTRU32(op: ScalarWords, a: R) -> R:
    """Convert float32 to a signed 32-bit integer: toward zero, saturating, 0 on NaN.

    Inferred: name.
    """
    return op.float_to_int(a)
