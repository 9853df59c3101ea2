"""Scalar values that move by the same amount every turn of a loop, found through the semantics.

The functions of the instruction entries are called with values that know addition only; any other
word of the vocabulary raises `NotLinearError`. Called by `steady_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from isa.operands import Register


class NotLinearError(Exception):
    """Raised where a value is no sum of registers and numbers."""


@frozen
class Amount:
    """A number of bytes or units: a constant, and multiples of registers that the loop leaves."""

    constant: int = 0
    products: frozenset[tuple[Register, int]] = frozenset()

    def __add__(self, other: Amount) -> Amount:
        factors = dict(self.products)
        for register, factor in other.products:
            factors[register] = factors.get(register, 0) + factor
        kept = frozenset((register, factor) for register, factor in factors.items() if factor)
        return Amount(self.constant + other.constant, kept)

    def __neg__(self) -> Amount:
        return Amount(-self.constant, frozenset((r, -factor) for r, factor in self.products))

    def __bool__(self) -> bool:
        return bool(self.constant or self.products)


@frozen
class Linear:
    """An amount, and at most one register of those that the loop changes."""

    amount: Amount = field(factory=Amount)
    root: Register | None = None


class LinearWords:
    """The vocabulary's words of addition; every other word raises NotLinearError."""

    def constant(self, number: int) -> Linear:
        return Linear(Amount(number))

    def add(self, a: Any, b: Any) -> Linear:
        a, b = self._value(a), self._value(b)
        if a.root is not None and b.root is not None:
            raise NotLinearError
        return Linear(a.amount + b.amount, b.root if a.root is None else a.root)

    def subtract(self, a: Any, b: Any) -> Linear:
        b = self._value(b)
        if b.root is not None:
            raise NotLinearError
        return self.add(a, Linear(-b.amount))

    def _value(self, a: Any) -> Linear:
        return self.constant(a) if isinstance(a, int) else a

    def __getattr__(self, word: str) -> Callable[..., Any]:
        raise NotLinearError


def linear(semantics: Callable[..., Any], values: list[Any]) -> Linear | None:
    """Return the result of an instruction on linear values; None if it is not linear."""
    try:
        result = semantics(LinearWords(), *values)
    except NotLinearError:
        return None
    return LinearWords()._value(result) if isinstance(result, int | Linear) else None


def source(register: Register, changing: Mapping[Register, Any]) -> Linear:
    """Return a register as a linear value; `changing` are those that the loop writes."""
    if register in changing:
        return Linear(root=register)
    return Linear(Amount(0, frozenset({(register, 1)})))
