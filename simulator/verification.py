"""Was the result right: a run's outputs against the kernel's float64 reference.

Called by the command line after a run, never by `simulate`. A kernel may bring its own comparison
(`verify`), for large outputs or sharper bounds; otherwise every element of every output is
compared with `reference`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

from isa.errors import KernelError
from isa.kernel import Array, Kernel, Verdict

RELATIVE = 1e-5
"""Allowed deviation, relative to an element or, if larger, to its tensor's median magnitude."""
ABSOLUTE = 1e-6
"""Allowed besides, so that sums which cancel may leave a rounding; less where a tensor is small."""


@frozen
class _Comparison:
    """One output tensor against its reference."""

    name: str
    actual: Array
    expected: Array
    wrong: Array
    """True where an element is wrong."""
    error: Array
    """Absolute deviation; infinite where NaN or infinity meets something else."""
    allowed: Array

    @property
    def max_error(self) -> float:
        return float(self.error.max(initial=0.0))

    def worst(self) -> tuple[int, ...]:
        """Return the position of the wrong element that passes its limit by the largest factor."""
        tiny = np.finfo(np.float64).tiny
        excess = np.where(self.wrong, self.error / np.maximum(self.allowed, tiny), -1.0)
        return tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))

    def element(self, position: tuple[int, ...]) -> str:
        got, wanted = self.actual[position], self.expected[position]
        place = f"[{', '.join(str(index) for index in position)}]" if position else ""
        return f"{self.name}{place} is {got!s}, expected {wanted!s}"


def judge(
    kernel: Kernel, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict | None:
    """Compare a run's outputs with the kernel's reference; None if the kernel has none.

    Floats may deviate by `ABSOLUTE` and `RELATIVE`; integers must be equal; NaN equals NaN and
    infinities equal by sign, a reference beyond float32 counting as infinite. Raise KernelError
    for a reference that does not give the outputs' names and shapes.
    """
    definition = kernel.definition
    if definition.verify is not None:
        return definition.verify(kernel.p, inputs, outputs)
    if definition.reference is None or not outputs:
        return None
    expected = definition.reference(kernel.p, inputs)
    _check_reference(kernel, expected, outputs)
    return _verdict([_compare(name, outputs[name], expected[name]) for name in outputs])


def _check_reference(kernel: Kernel, expected: Any, outputs: Mapping[str, Array]) -> None:
    given = list(expected) if isinstance(expected, Mapping) else [type(expected).__name__]
    if set(given) != set(outputs):
        raise KernelError(
            f"the reference of kernel '{kernel.name}' must return the outputs "
            f"{', '.join(outputs)}; it returned {', '.join(map(str, given)) or 'none'}"
        )
    for name, array in outputs.items():
        shape = np.shape(expected[name])
        if shape != array.shape:
            raise KernelError(
                f"the reference of kernel '{kernel.name}' gives '{name}' the shape {shape}, "
                f"the kernel declares {array.shape}"
            )


def _compare(name: str, actual: Array, reference: Any) -> _Comparison:
    expected = np.asarray(reference)
    if actual.dtype.kind != "f":
        wrong = np.asarray(actual != expected)
        error = _deviation(actual.astype(np.float64), expected.astype(np.float64))
        return _Comparison(name, actual, expected, wrong, error, np.zeros(actual.shape))
    wide = np.asarray(actual, dtype=np.float64)
    expected = _as_float32_range(expected.astype(np.float64))
    error, allowed = _deviation(wide, expected), _allowed(expected)
    return _Comparison(name, actual, expected, error > allowed, error, allowed)


def _deviation(actual: Array, expected: Array) -> Array:
    """Return |actual - expected|: 0 between two NaN or like infinities, else infinite with one."""
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(actual - expected))
    return np.where(np.isnan(error), math.inf, error)


def _as_float32_range(expected: Array) -> Array:
    """Return the values with those that round to infinity in float32 as infinities."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(np.float32)
    return np.where(np.isinf(rounded), rounded.astype(np.float64), expected)


def _allowed(expected: Array) -> Array:
    """Return the deviation allowed to each element; 0 where the reference is not finite."""
    finite = np.isfinite(expected)
    magnitude = np.where(finite, np.abs(expected), 0.0)
    known = magnitude[finite]
    largest = float(known.max(initial=0.0))
    typical = float(np.median(known)) if known.size else 0.0
    absolute = ABSOLUTE * min(1.0, largest) if largest else ABSOLUTE
    return np.where(finite, absolute + RELATIVE * np.maximum(magnitude, typical), 0.0)


def _verdict(comparisons: list[_Comparison]) -> Verdict:
    compared = sum(c.actual.size for c in comparisons)
    largest = max((c.max_error for c in comparisons), default=0.0)
    failed = [c for c in comparisons if c.wrong.any()]
    if not failed:
        values = "1 value" if compared == 1 else f"all {compared:,} values"
        return Verdict(True, largest, f"{values} against the numpy float64 reference")
    wrong = sum(int(c.wrong.sum()) for c in failed)
    return Verdict(False, largest, f"{wrong:,} of {compared:,} values wrong: {_wrongs(failed[0])}")


def _wrongs(failed: _Comparison) -> str:
    """Describe the first wrong element of a tensor, and the worst one where that is another."""
    first = tuple(int(index) for index in np.argwhere(failed.wrong)[0])
    worst = failed.worst()
    text = f"first {failed.element(first)} (allowed deviation {failed.allowed[first]:.3g})"
    return text if worst == first else f"{text}; worst {failed.element(worst)}"
