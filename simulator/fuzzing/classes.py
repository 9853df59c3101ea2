"""Which values an instruction may meet in random programs: integers everywhere, floats by rule.

The payload of a NaN is not defined, so a value that may be one must never reach integer
arithmetic, a predicate, an address or memory that is read as integers. Which operands of an
instruction may be such values, and whether its result may be one, is found out by running its
semantics over values that only know their class; so new instructions come in by themselves.
Called by `drawing`, which chooses operands.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from itertools import product
from typing import Any

from attrs import frozen

from isa.instruction import Instruction
from isa.operands import SVR, VR, VRI, AddressKind, Kind, R, RPair, SVRi, VRPair

EITHER = (R, RPair, VR, VRI, VRPair, SVR, SVRi, AddressKind)
"""Kinds of operands that can hold a float."""


class Class(Enum):
    """What a register or a piece of memory may hold."""

    CONTROL = "known without tensor data: predicates, counters, addresses"
    INTEGER = "an integer that may come from tensor data"
    FLOAT = "a float32, perhaps a NaN"


class ClashError(Exception):
    """A float met integer arithmetic."""


@frozen
class Traced:
    """A value on its way through the semantics."""

    is_float: bool
    computed: bool = False
    """Tell whether the instruction itself made it, so that its bits may be trimmed."""


INTEGER, FLOAT = Traced(False), Traced(True)

COMPARING = ("greater", "equal", "less")


class ClassWords:
    """The vocabulary over classes: a word it does not know is taken by its name."""

    lanes = 16

    def __getattr__(self, name: str) -> Callable[..., Traced]:
        if name.startswith("f") and any(part in name for part in COMPARING):
            return lambda *values: INTEGER
        if name == "float_to_int":
            return lambda *values: INTEGER
        if name.startswith("f"):
            return lambda *values: Traced(True, computed=True)
        return _integer_word

    def int_to_float(self, a: Traced) -> Traced:
        _refuse_floats(a)
        return Traced(True, computed=True)

    def select(self, condition: Traced, a: Traced, b: Traced) -> Traced:
        _refuse_floats(condition)
        return Traced(a.is_float or b.is_float, a.computed or b.computed)

    def low_word(self, a: Traced) -> Traced:
        return a

    def broadcast(self, a: Traced) -> Traced:
        return a

    def rotate(self, a: Traced, distance: int) -> Traced:
        return a

    def shuffle(self, a: Traced, index: Any) -> Traced:
        _refuse_floats(index)
        return a

    def load(self, address: Traced, *where: int) -> Traced:
        return Traced(address.is_float)

    def store(self, address: Traced, value: Traced, *where: int) -> None:
        if value.is_float and not address.is_float:
            raise ClashError


def _integer_word(*values: Any) -> Traced:
    """Return an integer; the bits of a float made by the instruction itself stay a float."""
    made = any(isinstance(value, Traced) and value.computed for value in values)
    _refuse_floats(*values)
    return Traced(made, made)


def _refuse_floats(*values: Any) -> None:
    for value in values:
        if isinstance(value, Traced) and value.is_float and not value.computed:
            raise ClashError


@frozen
class Flow:
    """One way to choose classes: which sources may be floats, and whether the result may be."""

    sources: tuple[bool, ...]
    result: bool


@cache
def flows(entry: Instruction) -> tuple[Flow, ...]:
    """Return every legal choice of classes for the sources of an instruction."""
    choices = [(False, True) if issubclass(kind, EITHER) else (False,) for _, kind in entry.sources]
    found = []
    for floats in product(*choices):
        values = [_value(kind, f) for (_, kind), f in zip(entry.sources, floats, strict=True)]
        try:
            result = entry.semantics(ClassWords(), *values)
        except ClashError:
            continue
        parts = result if isinstance(result, tuple) else (result,)
        found.append(Flow(floats, any(part is not None and part.is_float for part in parts)))
    return tuple(found)


def _value(kind: type[Kind], is_float: bool) -> Any:
    value = FLOAT if is_float else INTEGER
    return (value, value) if issubclass(kind, RPair | VRPair) else value
