"""The operand kinds as instruction entries write them: `a: VR` in a signature.

At run time these are the classes of `isa.operands`, which the registry reads. A type checker sees
values instead, because that is what an engine passes in and gets back: a type of its own, for a
pair a tuple (even, odd), for an address an object that loads and stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from isa import operands
from isa.values import Value

if TYPE_CHECKING:
    AR: TypeAlias = Value
    AROR: TypeAlias = Value
    Imm32: TypeAlias = Value
    R: TypeAlias = Value
    RI: TypeAlias = Value
    RPair: TypeAlias = Value
    ScalarDoubleWord: TypeAlias = Value
    ScalarWord: TypeAlias = Value
    SnopCount: TypeAlias = Value
    SVR: TypeAlias = Value
    SVRi: TypeAlias = Value
    Target: TypeAlias = Value
    VectorDoubleWord: TypeAlias = Value
    VectorWord: TypeAlias = Value
    VLR: TypeAlias = Value
    VR: TypeAlias = Value
    VRI: TypeAlias = Value
    VRPair: TypeAlias = Value
else:

    def __getattr__(name: str) -> type[operands.Kind]:
        return getattr(operands, name)
