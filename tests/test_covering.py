"""The choice of cases for the compiled engine leaves out no value."""

from __future__ import annotations

from collections import Counter

import test_conv2d_backward_data
import test_conv2d_forward
import test_fc_backward
from covering import covering


def test_a_choice_worked_out_by_hand() -> None:
    # All pairs of three values. 00 and 01 are the first that add two values; of 02, 10 and so on 10
    # is the first to add two, then 11 and 22. Of 2 one is missing in each column: 02 and 20.
    pairs = [(first, second) for first in range(3) for second in range(3)]
    assert covering(pairs) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 2)]
    assert covering(pairs[:1]) == pairs[:1]


def test_every_value_of_the_tables_is_there_twice_if_it_was() -> None:
    for module in (test_conv2d_forward, test_conv2d_backward_data, test_fc_backward):
        before = Counter(value for case in module.CASES for value in enumerate(case))
        chosen = covering(module.CASES)
        after = Counter(value for case in chosen for value in enumerate(case))
        assert all(after[value] >= min(2, count) for value, count in before.items())
        assert len(chosen) < len(module.CASES)
