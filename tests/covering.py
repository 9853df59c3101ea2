"""A choice of cases in which every single value of every parameter still occurs.

Tables of cases hold all pairs of values, for the reference engine. Most of a compiled test is
compiling, so the compiled engine takes a choice: what it does with a program does not depend on
which sizes met in a kernel, and random programs compare it with the reference engine besides.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

Case = tuple[Any, ...]
TIMES = 2
"""How often every value occurs at least, if the table has it so often."""


def covering(cases: list[Case]) -> list[Case]:
    """Return cases, in their order, in which each value of each column occurs `TIMES` times."""
    there = Counter(value for case in cases for value in enumerate(case))
    missing = {value: min(TIMES, count) for value, count in there.items()}
    chosen: list[Case] = []
    while any(missing.values()):
        left = [case for case in cases if case not in chosen]
        best = max(left, key=lambda case: sum(missing[value] > 0 for value in enumerate(case)))
        chosen.append(best)
        for value in enumerate(best):
            missing[value] = max(0, missing[value] - 1)
    return [case for case in cases if case in chosen]
