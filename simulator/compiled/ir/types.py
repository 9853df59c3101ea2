"""Types of LLVM IR. Two types are the same exactly if their texts are."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.compiled.ir.values import Constant, Value

KEPT_CONSTANTS = 4096
"""Of each type."""


class Type:
    """A type by its text; calling it with a number gives that constant."""

    __slots__ = ("_constants", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._constants: dict[int, Constant] = {}

    def __call__(self, number: int) -> Value:
        # Most constants occur many times.
        found = self._constants.get(number)
        if found is None:
            found = Constant(self, int(number))
            if len(self._constants) < KEPT_CONSTANTS:
                self._constants[number] = found
        return found

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Type) and self.text == other.text)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


class IntType(Type):
    """Integers of so many bits."""

    __slots__ = ("width",)

    def __init__(self, width: int) -> None:
        super().__init__(f"i{width}")
        self.width = width


class FloatType(Type):
    """Single precision."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("float")


class PointerType(Type):
    """An address of anything."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("ptr")


class VoidType(Type):
    """What a function returns that returns nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("void")


class VectorType(Type):
    """So many elements of a type."""

    __slots__ = ("count", "element")

    def __init__(self, element: Type, count: int) -> None:
        super().__init__(f"<{count} x {element}>")
        self.element, self.count = element, count


class FunctionType(Type):
    """A result and arguments."""

    __slots__ = ("args", "return_type")

    def __init__(self, return_type: Type, args: Sequence[Type]) -> None:
        super().__init__(f"{return_type} ({', '.join(map(str, args))})")
        self.return_type, self.args = return_type, tuple(args)
