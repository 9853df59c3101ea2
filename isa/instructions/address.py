"""Address and offset registers: moves and byte arithmetic on SMAC and SIEU.

AR0-AR7 and OR0-OR7 serve vector accesses, AR8-AR15 and OR8-OR15 scalar ones.

Called by both engines with the scalar vocabulary.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import AR, AROR, RI, R
from isa.values import ScalarWords

ADDRESS_ADD = ("address_add_vector", "address_add_scalar")


@instruction(Unit.SMAC, latency="address_move")
def SMVAGA(op: ScalarWords, a: R) -> AROR:
    """Move a scalar register to an address or offset register."""
    return a


@instruction(Unit.SMAC, latency="address_read")
def SMVAAG(op: ScalarWords, a: AR) -> R:
    """Move an address register to a scalar register."""
    return a


@instruction(Unit.SMAC, Unit.SIEU, latency=ADDRESS_ADD)
def SADDA(op: ScalarWords, a: RI, b: AR) -> AR:
    """Add a bytes to an address: b + a."""
    return op.add(b, a)


@instruction(Unit.SMAC, Unit.SIEU, latency=ADDRESS_ADD)
def SSUBA(op: ScalarWords, a: RI, b: AR) -> AR:
    """Subtract a bytes from an address: b - a."""
    return op.subtract(b, a)
