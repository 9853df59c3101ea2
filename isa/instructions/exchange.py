"""Between the scalar and the vector unit: broadcast, exchange register SVR, lane mask VLR.

SVR has one 32-bit entry a lane.

Called by both engines, with the vector vocabulary where lanes are read or written, else with the
scalar one.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import SVR, VLR, VR, R, SVRi
from isa.values import ScalarWords, VectorWords


@instruction(Unit.SMAC, latency="broadcast")
def SVBCAST(op: VectorWords, a: R) -> VR:
    """Copy the low 32 bits of a scalar register to every lane."""
    return op.broadcast(a)


@instruction(Unit.VIEU, latency="vector_to_exchange")
def VMVCGC(op: VectorWords, a: VR) -> SVR:
    """Move a vector register to SVR: lane i to entry i."""
    return a


@instruction(Unit.VIEU, latency="exchange_to_vector")
def VMVCCG(op: VectorWords, a: SVR) -> VR:
    """Move SVR to a vector register: entry i to lane i."""
    return a


@instruction(Unit.SIEU, latency="exchange_to_scalar")
def SMVCCG(op: ScalarWords, a: SVRi) -> R:
    """Move one entry of SVR to a scalar register, sign-extended.

    Inferred: unit.
    """
    return a


@instruction(Unit.SIEU, latency="scalar_to_exchange")
def SMVCGC(op: ScalarWords, a: R) -> SVRi:
    """Move the low 32 bits of a scalar register to one entry of SVR.

    Inferred: unit.
    """
    return op.low_word(a)


@instruction(Unit.SIEU, latency="lane_mask")
def SMVCGC_VLR(op: ScalarWords, a: R) -> VLR:
    """Set the lane mask: bit i of a enables lane i, further bits are ignored.

    Inferred: unit.
    """
    return a
