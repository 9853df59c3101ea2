"""Scalar loads and stores: one or two 32-bit words of SM.

A loaded word is sign-extended to 64 bits, a stored word is the low 32 bits of its register. An
address is a multiple of 4, also that of a double word.

Called by both engines with the scalar vocabulary.
"""

from __future__ import annotations

from isa.instruction import Unit, instruction
from isa.instructions.kinds import R, RPair, ScalarDoubleWord, ScalarWord
from isa.values import ScalarWords


@instruction(Unit.SLDST, latency="scalar_load")
def SLDW(op: ScalarWords, address: ScalarWord) -> R:
    """Load one word, sign-extended."""
    return op.load(address)


@instruction(Unit.SLDST, latency="scalar_load")
def SLDDW(op: ScalarWords, address: ScalarDoubleWord) -> RPair:
    """Load two consecutive words, sign-extended, to the even and the odd register of a pair."""
    return op.load(address, 0), op.load(address, 1)


@instruction(Unit.SLDST, latency="store")
def SSTW(op: ScalarWords, value: R, address: ScalarWord) -> None:
    """Store the low 32 bits of a register."""
    op.store(address, value)


@instruction(Unit.SLDST, latency="store")
def SSTDW(op: ScalarWords, pair: RPair, address: ScalarDoubleWord) -> None:
    """Store the low 32 bits of the even, then of the odd register of a pair."""
    even, odd = pair
    op.store(address, even, 0)
    op.store(address, odd, 1)
