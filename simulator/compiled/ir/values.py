"""Values of LLVM IR: what an instruction takes, as it is written there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.compiled.ir.module import Block

Undefined = "undef"
"""The value that is any."""


class Value:
    """A value by its type and its name or number."""

    __slots__ = ("ref", "type")

    def __init__(self, kind: Any, ref: str) -> None:
        self.type, self.ref = kind, ref

    def __str__(self) -> str:
        return f"{self.type.text} {self.ref}"


class Bitcast(Value):
    """The bits of another value as another type."""

    __slots__ = ("source",)

    def __init__(self, kind: Any, ref: str, source: Value) -> None:
        super().__init__(kind, ref)
        self.source = source


class Constant(Value):
    """An integer, a vector of integers, or `Undefined`."""

    __slots__ = ("constant",)

    def __init__(self, kind: Any, constant: int | str | Sequence[int]) -> None:
        self.constant = constant
        super().__init__(kind, _written(kind, constant))

    @property
    def lanes(self) -> list[int]:
        """The integers of a vector."""
        if isinstance(self.constant, int):
            return [self.constant] * int(self.type.count)
        return [int(lane) for lane in self.constant]


class Phi(Value):
    """A value for each of the blocks that lead here."""

    __slots__ = ("incoming",)

    def __init__(self, kind: Any, ref: str) -> None:
        super().__init__(kind, ref)
        self.incoming: list[tuple[Value, Block]] = []

    def add_incoming(self, value: Value, block: Block) -> None:
        """Say what it is where a block leads here."""
        self.incoming.append((value, block))

    @property
    def line(self) -> str:
        """The instruction, once all is known."""
        ways = ", ".join(f"[{value.ref}, {block.ref}]" for value, block in self.incoming)
        return f"{self.ref} = phi {self.type.text} {ways}"


def _written(kind: Any, constant: int | str | Sequence[int]) -> str:
    if isinstance(constant, str):
        return constant
    if isinstance(constant, int):
        count = getattr(kind, "count", None)
        if count is None:
            return str(constant)
        constant = [constant] * count
    if not any(constant):
        return "zeroinitializer"
    element = kind.element.text
    return f"<{', '.join(f'{element} {lane}' for lane in constant)}>"
