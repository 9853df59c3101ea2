"""Runs of the library's kernels for tests: machines, awkward data, and how near a result must be.

Runs on the reference engine are checked runs: a race, an uninitialised read or a broken store
latency fails the test that meets it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isa.language.kernel import Kernel
from isa.machine import Machine
from simulator.simulate import Run, simulate

Array = np.ndarray[Any, Any]

ROUNDING = 2.0**-24
"""Largest relative error of rounding to float32."""


def machine(*overrides: str) -> Machine:
    """Return FT-M7004 with `section.field=value` changes."""
    return Machine.load(overrides=overrides)


def run(
    kernel: Kernel,
    inputs: dict[str, Array],
    engine: str,
    cores: int = 1,
    record: Machine | None = None,
) -> Run:
    """Run a kernel, checked where the engine checks."""
    checked = engine == "reference"
    return simulate(
        kernel, inputs, machine=record or machine(), cores=cores, engine=engine, check=checked
    )


def sprinkled(inputs: dict[str, Array], share: float = 0.03, seed: int = 1) -> dict[str, Array]:
    """Return the inputs with NaN, both infinities and -0 strewn in, `share` of each."""
    generator = np.random.default_rng(seed)
    strewn = {}
    for name, array in inputs.items():
        strewn[name] = array.copy()
        for value in (np.nan, np.inf, -np.inf, -0.0):
            strewn[name][generator.random(array.shape) < share] = value
    return strewn


def assert_sums(actual: Array, expected: Array, magnitude: Array, terms: int) -> None:
    """Fail unless float32 sums of so many products are as near the truth as roundings allow.

    One rounding for each fused multiply-add: at most terms * 2**-24 of the sum of magnitudes, and
    one more for what is of second order. NaN must be NaN, infinities must have the right sign.
    """
    allowed = np.where(np.isfinite(magnitude), (terms + 1) * ROUNDING * magnitude, 0.0)
    assert_near(actual, expected, allowed)


def assert_near(actual: Array, expected: Array, allowed: Array | float = 0.0) -> None:
    """Fail unless every value is within `allowed`; NaN equals NaN, infinities equal by sign."""
    assert actual.shape == expected.shape
    wide, wanted = actual.astype(np.float64), expected.astype(np.float64)
    same = (wide == wanted) | (np.isnan(wide) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        right = same | (np.abs(wide - wanted) <= allowed)
    wrong = np.argwhere(~right)
    places = [tuple(place) for place in wrong[:3].tolist()]
    found = [(place, wide[place], wanted[place]) for place in places]
    assert not found, f"{len(wrong)} of {actual.size} wrong: (place, is, must be) {found}"
