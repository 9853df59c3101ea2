"""Vector float32: every lane in IEEE-754 binary32, round to nearest even, subnormals kept.

VMAC computes, VIEU compares (1 or 0 in each lane).

Called by both engines with the vector vocabulary.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import VR
from isa.instructions.scalar_float import ONE, RECIPROCAL_BITS
from isa.values import VectorWords


@instruction(Unit.VMAC, latency="vector_multiply_add_float", in_place=True)
def VFMULAS32(op: VectorWords, a: VR, b: VR, acc: VR) -> VR:
    """Multiply a and b, add acc, with one rounding: a * b + acc."""
    return op.fma(a, b, acc)


@instruction(Unit.VMAC, latency="vector_multiply_add_float", in_place=True)
def VFMULBS32(op: VectorWords, a: VR, b: VR, acc: VR) -> VR:
    """Multiply a and b, subtract acc, with one rounding: a * b - acc."""
    return op.fma(a, b, op.fneg(acc))


@instruction(Unit.VMAC, latency="vector_multiply_float")
def VFMULS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Multiply: a * b."""
    return op.fmul(a, b)


@instruction(Unit.VMAC, latency="vector_add_float")
def VFADDS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Add: a + b."""
    return op.fadd(a, b)


@instruction(Unit.VMAC, latency="vector_add_float")
def VFSUBS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Subtract: a - b."""
    return op.fsub(a, b)


@instruction(Unit.VMAC, latency="vector_maximum")
def VFMAXS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Return a where a > b, else b: b on NaN and between zeros.

    Inferred: unit.
    """
    return op.select(op.fgreater(a, b), a, b)


@instruction(Unit.VMAC, latency="vector_maximum")
def VFMINS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Return a where a < b, else b: b on NaN and between zeros.

    Inferred: name and unit.
    """
    return op.select(op.fgreater(b, a), a, b)


@instruction(Unit.VMAC, latency="vector_reciprocal")
def VFRCPS32(op: VectorWords, a: VR) -> VR:
    """Approximate 1 / a: the rounded quotient with its low 15 mantissa bits cleared.

    The relative error of a normal result is below 2**-8; each Newton step doubles the good bits.
    Inferred: the precision.
    """
    return op.bit_and(op.fdiv(op.constant(ONE), a), op.constant(RECIPROCAL_BITS))


@instruction(Unit.VMAC, latency="vector_convert")
def VFINTS32(op: VectorWords, a: VR) -> VR:
    """Convert signed 32-bit integers to float32.

    Inferred: unit.
    """
    return op.int_to_float(a)


@instruction(Unit.VMAC, latency="vector_convert")
def VFSTRU32(op: VectorWords, a: VR) -> VR:
    """Convert float32 to signed 32-bit integers: toward zero, saturating, 0 on NaN.

    Inferred: name and unit.
    """
    return op.float_to_int(a)


@instruction(Unit.VIEU, latency="vector_compare")
def VFCMPGS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Compare: 1 where a > b, else 0 (also on NaN)."""
    return op.fgreater(a, b)


@instruction(Unit.VIEU, latency="vector_compare")
def VFCMPGES32(op: VectorWords, a: VR, b: VR) -> VR:
    """Compare: 1 where a >= b, else 0 (also on NaN).

    Inferred: name.
    """
    return op.fgreater_equal(a, b)


@instruction(Unit.VIEU, latency="vector_compare")
def VFCMPES32(op: VectorWords, a: VR, b: VR) -> VR:
    """Compare: 1 where a equals b, else 0 (also on NaN); -0 equals +0."""
    return op.fequal(a, b)


@instruction(Unit.VIEU, latency="vector_compare")
def VFCMPLS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Compare: 1 where a < b, else 0 (also on NaN)."""
    return op.fgreater(b, a)
