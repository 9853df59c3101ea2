"""Between lanes: shuffle and reductions, on VIEU.

A disabled lane keeps its destination's old value, but is read like any other.

Called by both engines with the vector vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

from isa.instruction import Unit, instruction
from isa.instructions.kinds import VR
from isa.values import Value, VectorWords


@instruction(Unit.VIEU, latency="shuffle", cross_lane=True)
def VSHUFW(op: VectorWords, a: VR, index: VR) -> VR:
    """Fetch lanes: lane i gets lane index[i] of a, the index taken modulo the number of lanes.

    Inferred: the operands.
    """
    return op.shuffle(a, index)


@instruction(Unit.VIEU, latency="reduction", cross_lane=True)
def VFSUMS32(op: VectorWords, a: VR) -> VR:
    """Add all lanes in float32 as a tree of halves; every lane gets the sum.

    For d = lanes/2, ..., 2, 1 lane i becomes lane i plus lane i + d; then all lanes copy lane 0.
    Inferred: no reduction instruction is published.
    """
    return _reduce(op, op.fadd, a)


@instruction(Unit.VIEU, latency="reduction", cross_lane=True)
def VFRMAXS32(op: VectorWords, a: VR) -> VR:
    """Take the float32 maximum of all lanes as a tree of halves; every lane gets it.

    The steps are those of VFSUMS32; each takes lane i where it is greater, else lane i + d.
    Inferred: no reduction instruction is published.
    """
    return _reduce(op, lambda low, high: op.select(op.fgreater(low, high), low, high), a)


def _reduce(op: VectorWords, combine: Callable[[Value, Value], Value], a: Value) -> Value:
    """Combine lane i with lane i + distance for distances lanes/2 to 1; spread lane 0."""
    distance = op.lanes // 2
    while distance:
        a = combine(a, op.rotate(a, distance))
        distance //= 2
    return op.shuffle(a, op.constant(0))
