"""The parameters of a kernel: types with limits, text forms, and what is refused.

A kernel function annotates its parameters (`batch: Count = 16`, `stride: Pair = (1, 1)`); values
come from Python calls or as text from the command line (`-p stride=2x1`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from attrs import frozen

from isa.errors import UsageError, unknown


@frozen
class AtLeast:
    """The smallest value a parameter may have."""

    least: int


Count = Annotated[int, AtLeast(1)]
"""A whole number of at least 1."""

Pair = Annotated[tuple[int, int], AtLeast(1)]
"""Height and width, each at least 1; an int stands for both."""

Padding = Annotated[tuple[int, int], AtLeast(0)]
"""Height and width, each at least 0; an int stands for both."""

Rate = Annotated[float, AtLeast(0)]
"""A number of at least 0, such as a learning rate; kernels round it to float32."""

LARGEST = 2**31 - 1
LARGEST_FLOAT = (2 - 2**-23) * 2.0**127
"""Of float32."""


@frozen
class Parameter:
    """One parameter: its name, type annotation and default."""

    name: str
    annotation: Any
    default: Any

    def parse(self, text: str) -> Any:
        """Return the value that command-line text stands for."""
        if self._base() is str:
            return text
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if text.lower() == "none":
            return None
        if get_origin(self.annotation) is Literal:
            return text
        try:
            parts = [int(part) for part in text.lower().replace(",", "x").split("x")]
            return parts[0] if len(parts) == 1 else tuple(parts)
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            return text

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a parameter that has only these; empty for any other."""
        literal = get_origin(self.annotation) is Literal
        return get_args(self.annotation) if literal else ()

    def check(self, value: Any) -> Any:
        """Return the value in its type, or raise UsageError naming parameter, value and limit."""
        base = self._base()
        if value is None and self._optional():
            return None
        if get_origin(self.annotation) is Literal:
            choices = get_args(self.annotation)
            return self._expect(value, value in choices, f"one of {', '.join(choices)}")
        if base is bool:
            return self._expect(value, isinstance(value, bool), "true or false")
        if base is int:
            least = self._least(-LARGEST)
            return int(
                self._expect(value, _whole(value, least), _at_least("a whole number", least))
            )
        if get_origin(base) is tuple:
            return self._pair(value)
        if base is float:
            return self._number(value)
        return value

    def _pair(self, value: Any) -> tuple[int, int]:
        least = self._least(0)
        both = (value, value) if _whole(value, -LARGEST) else value
        right = isinstance(both, tuple | list) and len(both) == 2
        right = right and all(_whole(part, least) for part in both)
        wanted = _at_least("a whole number or a pair such as 3x5", least)
        self._expect(value, right, wanted)
        return int(both[0]), int(both[1])

    def _number(self, value: Any) -> float:
        least, largest, wanted = -sys.float_info.max, sys.float_info.max, "a finite number"
        if self._limits():
            least, largest = self._least(0), LARGEST_FLOAT
            wanted = f"a number from {least} to {largest:.8g}, the largest of float32"
        number = isinstance(value, Real) and not isinstance(value, bool)
        return float(self._expect(value, number and least <= value <= largest, wanted))

    def _base(self) -> Any:
        """Return the annotation without its limits and without `| None`."""
        return _unwrapped(self.annotation)[0]

    def _optional(self) -> bool:
        return _unwrapped(self.annotation)[2]

    def _limits(self) -> list[AtLeast]:
        return _unwrapped(self.annotation)[1]

    def _least(self, default: int) -> int:
        limits = self._limits()
        return limits[0].least if limits else default

    def _expect(self, value: Any, right: object, wanted: str) -> Any:
        if not right:
            raise UsageError(f"parameter '{self.name}' must be {wanted}, got {value!r}")
        return value


def _unwrapped(annotation: Any) -> tuple[Any, list[AtLeast], bool]:
    """Return the type inside an annotation, its limits, and whether None is allowed, too."""
    limits: list[AtLeast] = []
    optional = False
    while True:
        parts = get_args(annotation)
        if get_origin(annotation) is Annotated:
            limits += [part for part in parts if isinstance(part, AtLeast)]
        elif type(None) in parts:
            optional = True
        else:
            return annotation, limits, optional
        annotation = next(part for part in parts if part is not type(None))


def _whole(value: Any, least: int) -> bool:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return False
    return bool(least <= value <= LARGEST)


def _at_least(what: str, least: int) -> str:
    return f"{what} from {least} to {LARGEST}"


def parameters_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the parameters a kernel function declares after its builder, each with a default."""
    hints = get_type_hints(function, include_extras=True)
    declared = list(inspect.signature(function).parameters.values())[1:]
    for parameter in declared:
        if parameter.default is inspect.Parameter.empty:
            raise UsageError(
                f"kernel '{function.__name__}': parameter '{parameter.name}' needs a default"
            )
    return {
        p.name: Parameter(p.name, hints.get(p.name, type(p.default)), p.default) for p in declared
    }


def checked_values(
    kernel: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return every parameter's value, defaults filled in; refuse unknown names and bad values."""
    for name in given:
        if name not in parameters:
            raise UsageError(f"kernel '{kernel}': " + unknown("parameter", name, parameters))
    try:
        return {n: p.check(given.get(n, p.default)) for n, p in parameters.items()}
    except UsageError as error:
        raise UsageError(f"kernel '{kernel}': {error}") from None
