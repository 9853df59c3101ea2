"""A run's tensors against the truth: which elements are wrong, and how to say so.

Called by the `verify` functions of kernels and by the command line's plain comparison: they bring
the truth and the deviation they allow, the rest is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen

from isa.language.kernel import Verdict

Array = np.ndarray[Any, Any]


@frozen
class Comparison:
    """One output tensor, or a sample of it, against the truth."""

    name: str
    actual: Array
    expected: Array
    wrong: Array
    """True where an element is wrong."""
    error: Array
    """Absolute deviation; infinite where NaN or infinity meets something else."""
    allowed: Array
    places: Array | None = None
    """Where the elements of a sample sit in the tensor, (values, dimensions); None: all of it."""

    @property
    def max_error(self) -> float:
        return float(self.error.max(initial=0.0))

    def first(self) -> tuple[int, ...]:
        """Return the position of the first wrong element."""
        return _indices(np.argwhere(self.wrong)[0])

    def worst(self) -> tuple[int, ...]:
        """Return the position of the wrong element that passes its limit by the largest factor."""
        tiny = np.finfo(np.float64).tiny
        with np.errstate(all="ignore"):
            excess = np.where(self.wrong, self.error / np.maximum(self.allowed, tiny), -1.0)
        return _indices(np.unravel_index(int(excess.argmax()), excess.shape))

    def element(self, position: tuple[int, ...]) -> str:
        """Return the element as text: its place in the tensor, what it is and should be."""
        got, wanted = self.actual[position], self.expected[position]
        indices = position if self.places is None else _indices(self.places[position])
        place = f"[{', '.join(str(index) for index in indices)}]" if indices else ""
        return f"{self.name}{place} is {got!s}, expected {wanted!s}"


def compare_integers(
    name: str, actual: Array, expected: Array, places: Array | None = None
) -> Comparison:
    """Compare integers, which must be equal."""
    error = _deviation(actual.astype(np.float64), expected.astype(np.float64))
    wrong = np.asarray(actual != expected)
    return Comparison(name, actual, expected, wrong, error, np.zeros(actual.shape), places)


def compare_floats(
    name: str, actual: Array, expected: Array, allowed: Array, places: Array | None = None
) -> Comparison:
    """Compare floats, which may deviate from a truth in float64 by `allowed`.

    NaN equals NaN and infinities equal by sign; a truth beyond float32 counts as infinite. But an
    infinite `allowed` accepts anything for a number or an infinity, NaN too: such a sum may leave
    float32's range on its way. A NaN is one in whatever order it was added up.
    """
    truth = as_float32_range(expected)
    error = _deviation(np.asarray(actual, dtype=np.float64), truth)
    judged = np.isfinite(expected) | (np.isinf(expected) & np.isposinf(allowed))
    limit = np.where(judged, allowed, 0.0)
    return Comparison(name, actual, truth, error > limit, error, limit, places)


def as_float32_range(values: Array) -> Array:
    """Return float64 values with those that round to infinity in float32 as infinities."""
    wide = values.astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = wide.astype(np.float32)
    return np.where(np.isinf(rounded), rounded.astype(np.float64), wide)


def verdict(comparisons: Sequence[Comparison], sample_of: int = 0) -> Verdict:
    """Return the verdict on all tensors; a sample says of how many values it was taken."""
    compared = sum(c.actual.size for c in comparisons)
    largest = max((c.max_error for c in comparisons), default=0.0)
    failed = [c for c in comparisons if c.wrong.any()]
    if not failed:
        values = _values(compared, sample_of)
        return Verdict(True, largest, f"{values} against the numpy float64 reference")
    wrong = sum(int(c.wrong.sum()) for c in failed)
    sampled = f"values of a random sample (of {sample_of:,})" if sample_of else "values"
    return Verdict(
        False, largest, f"{wrong:,} of {compared:,} {sampled} wrong: {_wrongs(failed[0])}"
    )


def _values(compared: int, sample_of: int) -> str:
    if sample_of:
        return f"a random sample of {compared:,} of {sample_of:,} values"
    return "1 value" if compared == 1 else f"all {compared:,} values"


def _wrongs(failed: Comparison) -> str:
    """Describe the first wrong element of a tensor, and the worst one where that is another."""
    first, worst = failed.first(), failed.worst()
    text = f"first {failed.element(first)} (allowed deviation {failed.allowed[first]:.3g})"
    return text if worst == first else f"{text}; worst {failed.element(worst)}"


def _deviation(actual: Array, expected: Array) -> Array:
    """Return |actual - expected|: 0 between two NaN or like infinities, else infinite with one."""
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(actual - expected))
    return np.where(np.isnan(error), math.inf, error)


def _indices(position: Any) -> tuple[int, ...]:
    return tuple(int(index) for index in position)
