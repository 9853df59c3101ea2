"""Vector integers, logic and selection, lane by lane on 32 bits.

Immediates are sign-extended to 32 bits and serve all lanes; arithmetic wraps.

Called by both engines with the vector vocabulary.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import VR, VRI, Imm32
from isa.values import VectorWords


@instruction(Unit.VMAC, Unit.VIEU, latency="vector_integer")
def VADD(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Add: a + b."""
    return op.add(a, b)


@instruction(Unit.VMAC, Unit.VIEU, latency="vector_integer")
def VSUB(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Subtract: b - a.

    Inferred: name.
    """
    return op.subtract(b, a)


@instruction(Unit.VMAC, latency="vector_multiply")
def VMULIS32(op: VectorWords, a: VR, b: VR) -> VR:
    """Multiply: the low 32 bits of a * b.

    Inferred: name.
    """
    return op.multiply(a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VAND(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Bitwise and of a and b."""
    return op.bit_and(a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VOR(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Bitwise or of a and b."""
    return op.bit_or(a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VXOR(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Bitwise exclusive or of a and b."""
    return op.bit_xor(a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VNOT(op: VectorWords, a: VR) -> VR:
    """Invert every bit of a."""
    return op.bit_not(a)


@instruction(Unit.VIEU, latency="vector_integer")
def VSHFLL(op: VectorWords, count: VRI, a: VRI) -> VR:
    """Shift left by count modulo 32, zeros coming in."""
    return op.shift_left(a, count)


@instruction(Unit.VIEU, latency="vector_integer")
def VSHFLR(op: VectorWords, count: VRI, a: VRI) -> VR:
    """Shift a right by count modulo 32, zeros coming in."""
    return op.shift_right(a, count)


@instruction(Unit.VIEU, latency="vector_integer")
def VSHFAR(op: VectorWords, count: VRI, a: VRI) -> VR:
    """Shift a right by count modulo 32, its sign coming in."""
    return op.shift_right_arithmetic(a, count)


@instruction(Unit.VIEU, latency="vector_integer")
def VSLT(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Compare signed integers: 1 where a < b, else 0.

    Inferred: name, from SLT.
    """
    return op.less(a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VSLTU(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Compare unsigned integers: 1 where a < b, else 0.

    Inferred: name, from SLTU.
    """
    return op.less_unsigned(a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VSEQ(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Compare the bits: 1 where a equals b, else 0.

    Inferred: name, from SEQ.
    """
    return op.equal(a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VMIN(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Return the smaller of two signed integers."""
    return op.select(op.less(a, b), a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VMAX(op: VectorWords, a: VRI, b: VRI) -> VR:
    """Return the larger of two signed integers."""
    return op.select(op.less(b, a), a, b)


@instruction(Unit.VIEU, latency="vector_integer")
def VSEL(op: VectorWords, condition: VR, a: VR, b: VR) -> VR:
    """Select lane by lane: a where the condition is not zero, else b.

    Inferred: name; predicated VMOVs do the same in two steps.
    """
    return op.select(condition, a, b)


@instruction(Unit.VMAC, Unit.VIEU, latency="vector_integer")
def VMOV(op: VectorWords, a: VR) -> VR:
    """Copy a."""
    return a


@instruction(Unit.VMAC, Unit.VIEU, latency="vector_integer")
def VMOVI(op: VectorWords, value: Imm32) -> VR:
    """Set every lane to a 32-bit immediate."""
    return op.constant(value)


@instruction(Unit.VIEU, latency="vector_integer")
def VLANE(op: VectorWords) -> VR:
    """Set each lane to its number, from 0.

    Inferred: name.
    """
    return op.lane_number()
