"""Integer instructions whose result is known when the code is written. The builder calls it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from simulator.compiled.ir.types import IntType
from simulator.compiled.ir.values import Constant, Value

COMPUTED: dict[str, Callable[[int, int], int]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
    "shl": lambda a, b: a << b if b >= 0 else 0,
}  # fmt: skip

COMPARED: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "and": -1, "or": 0, "xor": 0, "shl": 0}
ABSORBING = {"mul": 0, "and": 0}
"""Numbers that leave the other operand as it is, or that are the result themselves."""

ONE_SIDED = ("sub", "shl")
"""Instructions in which these numbers count only on the right."""


def folded(instruction: str, a: Value, b: Value) -> Value | None:
    """Return what an instruction of scalar integers results in, where that is known; else None."""
    kind = a.type
    if kind.__class__ is not IntType:
        return None
    left, right = _number(a, kind), _number(b, kind)
    if left is not None and right is not None:
        if instruction == "shl" and not 0 <= right < kind.width:
            return None
        made: Value = kind(_signed(COMPUTED[instruction](left, right), kind.width))
        return made
    if right is not None:
        return _with_number(instruction, a, right, b)
    if left is not None and instruction not in ONE_SIDED:
        return _with_number(instruction, b, left, a)
    return None


def _with_number(instruction: str, other: Value, number: int, constant: Value) -> Value | None:
    if number == NEUTRAL[instruction]:
        return other
    return constant if number == ABSORBING.get(instruction) else None


def folded_comparison(sign: str, a: Any, b: Any, *, signed: bool) -> bool | None:
    """Return whether two constants compare so; None for vectors."""
    kind = a.type
    if kind.__class__ is not IntType:
        return None
    left, right = _number(a, kind), _number(b, kind)
    if left is None or right is None:
        return None
    if not signed:
        left, right = left % 2**kind.width, right % 2**kind.width
    return COMPARED[sign](left, right)


def _number(value: Value, kind: IntType) -> int | None:
    """Return a constant as a signed number."""
    constant = value.constant if isinstance(value, Constant) else None
    return _signed(constant, kind.width) if isinstance(constant, int) else None


def _signed(number: int, width: int) -> int:
    number %= 2**width
    return number - 2**width if number >> (width - 1) else number
