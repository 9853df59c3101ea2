"""Vector loads and stores: one or two 32-bit words of AM for every enabled lane.

The words of all lanes are consecutive; an address is a multiple of 4 and need not be one of a
whole vector.

Called by both engines with the vector vocabulary.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import VR, VectorDoubleWord, VectorWord, VRPair
from isa.values import VectorWords


@instruction(Unit.VLDST, latency="vector_load")
def VLDW(op: VectorWords, address: VectorWord) -> VR:
    """Load one word a lane: word i to lane i."""
    return op.load(address)


@instruction(Unit.VLDST, latency="vector_load")
def VLDDW(op: VectorWords, address: VectorDoubleWord) -> VRPair:
    """Load two words a lane: words 2i and 2i + 1 to lane i of the even and the odd register.

    Inferred: which word goes to which register.
    """
    return op.load(address, 0, 2), op.load(address, 1, 2)


@instruction(Unit.VLDST, latency="store")
def VSTW(op: VectorWords, value: VR, address: VectorWord) -> None:
    """Store one word a lane: lane i to word i."""
    op.store(address, value)


@instruction(Unit.VLDST, latency="store")
def VSTDW(op: VectorWords, pair: VRPair, address: VectorDoubleWord) -> None:
    """Store two words a lane: lane i of the even and the odd register to words 2i and 2i + 1.

    Inferred: which register goes to which word.
    """
    even, odd = pair
    op.store(address, even, 0, 2)
    op.store(address, odd, 1, 2)
