"""Was the result right: a run's outputs against the kernel's float64 reference.

Called by the command line after a run, never by `simulate`. A kernel may bring its own comparison
(`verify`), for large outputs or sharper bounds; otherwise every element of every output is
compared with `reference`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa.errors import KernelError
from isa.language.comparison import (
    Comparison,
    as_float32_range,
    compare_floats,
    compare_integers,
    verdict,
)
from isa.language.kernel import Array, Kernel, Verdict

RELATIVE = 1e-5
"""Allowed deviation, relative to an element or, if larger, to its tensor's median magnitude."""
ABSOLUTE = 1e-6
"""Allowed besides, so that sums which cancel may leave a rounding; less where a tensor is small."""


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
    return verdict([_compare(name, outputs[name], expected[name]) for name in outputs])


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


def _compare(name: str, actual: Array, reference: Any) -> Comparison:
    expected = np.asarray(reference)
    if actual.dtype.kind != "f":
        return compare_integers(name, actual, expected)
    return compare_floats(name, actual, expected, _allowed(as_float32_range(expected)))


def _allowed(expected: Array) -> Array:
    """Return the deviation allowed to each element; 0 where the reference is not finite."""
    finite = np.isfinite(expected)
    magnitude = np.where(finite, np.abs(expected), 0.0)
    known = magnitude[finite]
    largest = float(known.max(initial=0.0))
    typical = float(np.median(known)) if known.size else 0.0
    absolute = ABSOLUTE * min(1.0, largest) if largest else ABSOLUTE
    return np.where(finite, absolute + RELATIVE * np.maximum(magnitude, typical), 0.0)
