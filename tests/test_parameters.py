"""Types of kernel parameters: what they accept from Python and as text, and what they refuse."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
import pytest

from isa import Count, KernelDefinition, Pair, Rate, UsageError, kernel
from isa.language.parameters import AtLeast

RATE = "parameter 'lr' must be a number from 0 to 3.4028235e+38, the largest of float32, got "


@kernel(inputs=lambda p: {}, outputs=lambda p: {})
def learns(k: Any, lr: Rate = 0.5) -> None:
    """Have a rate."""


@kernel(inputs=lambda p: {}, outputs=lambda p: {})
def may_learn(k: Any, lr: Rate | None = None) -> None:
    """Have a rate or none."""


@kernel(inputs=lambda p: {}, outputs=lambda p: {})
def other(
    k: Any,
    factor: float = 1,
    count: Count | None = None,
    size: Pair = (1, 1),
    limit: Annotated[float | None, AtLeast(1)] = None,
) -> None:
    """Have parameters of other types."""


def given(definition: KernelDefinition, text: str) -> Any:
    """Return the value of lr that the text gives on a command line."""
    return definition(lr=definition.parameters["lr"].parse(text)).p.lr


@pytest.mark.parametrize("definition", [learns, may_learn])
@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0, 0.0), (1, 1.0), (0.25, 0.25), (1e-50, 1e-50), (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5), (np.int64(2), 2.0), (Fraction(1, 4), 0.25),
        (3.4028234663852886e38, float(np.finfo(np.float32).max)),
    ],
)  # fmt: skip
def test_rates_become_floats(definition: KernelDefinition, value: Any, kept: float) -> None:
    rate = definition(lr=value).p.lr
    assert (rate, type(rate)) == (kept, float)


@pytest.mark.parametrize("definition", [learns, may_learn])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf"), (-1, "-1"),
        (-1e-300, "-1e-300"), (3.5e38, "3.5e+38"), (10**400, "1000"), (True, "True"),
        ("0.1", "'0.1'"), ((1, 2), "(1, 2)"), (1j, "1j"),
    ],
)  # fmt: skip
def test_other_values_are_no_rates(definition: KernelDefinition, value: Any, shown: str) -> None:
    with pytest.raises(UsageError, match=re.escape(RATE + shown)):
        definition(lr=value)


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), ("0.1", 0.1), ("1e-3", 0.001), ("2", 2.0), (".5", 0.5)]
)
def test_rates_on_the_command_line(text: str, value: float) -> None:
    assert given(learns, text) == given(may_learn, text) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nan", "nan"), ("-1", "-1"), ("-0.5", "-0.5"), ("inf", "inf"), ("true", "True"),
        ("fast", "'fast'"), ("1x2", "(1, 2)"), ("1e39", "1e+39"), ("", "''"),
    ],
)  # fmt: skip
def test_texts_that_are_no_rates(text: str, shown: str) -> None:
    for definition in (learns, may_learn):
        with pytest.raises(UsageError, match=re.escape(RATE + shown)):
            given(definition, text)


def test_none_is_a_value_where_the_type_says_so() -> None:
    assert may_learn().p.lr is None
    assert given(may_learn, "none") is None
    assert (other().p.count, other().p.limit) == (None, None)
    with pytest.raises(UsageError, match=re.escape(RATE + "None")):
        given(learns, "none")
    with pytest.raises(UsageError, match="'factor' must be a finite number, got None"):
        other(factor=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"factor": float("nan")}, "'factor' must be a finite number, got nan"),
        ({"factor": 10**400}, "'factor' must be a finite number, got 1000"),
        ({"count": 0}, "'count' must be a whole number from 1 to 2147483647, got 0"),
        ({"limit": 0.5}, "'limit' must be a number from 1 to 3.4028235e+38"),
        ({"size": (0, 1)}, "'size' must be a whole number or a pair such as 3x5 from 1 to"),
    ],
)
def test_limits_of_the_other_types(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        other(**wrong)


def test_the_other_types_keep_what_they_accept() -> None:
    parameters = other(factor=-1e300, count=3, size=2, limit=1).p
    assert (parameters.factor, parameters.count) == (-1e300, 3)
    assert (parameters.size, parameters.limit) == ((2, 2), 1.0)
