"""Verification: what passes, what does not, and what a failure says; limits worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isa.errors import Ftm7004Error
from isa.language.kernel import Kernel, Verdict, kernel
from isa.language.tensor import Tensor
from simulator.reporting.verification import judge


def kernel_with(reference, **more) -> Kernel:
    def copy(k) -> None:
        """Do nothing."""

    definition = kernel(
        inputs=lambda p: {}, outputs=lambda p: {"z": Tensor((3,))}, reference=reference, **more
    )
    return definition(copy)()


def verdict_on(actual, expected, dtype="float32") -> Verdict:
    found = judge(
        kernel_with(lambda p, inputs: {"z": expected}), {}, {"z": np.array(actual, dtype)}
    )
    assert found is not None
    return found


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("actual", "expected", "passed"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], True),
        # median 2: 1e-6 + 1e-5 * 2 = 2.1e-5 allowed around 1 and 2, 3.1e-5 around 3
        ([1.00002, 2.0, 3.00003], [1.0, 2.0, 3.0], True),
        ([1.00003, 2.0, 3.0], [1.0, 2.0, 3.0], False),
        ([1.0, 2.0, 3.00004], [1.0, 2.0, 3.0], False),
        # a sum that cancels beside values around 8 may leave 8.1e-5
        ([8e-5, 8.0, -8.0], [0.0, 8.0, -8.0], True),
        ([9e-5, 8.0, -8.0], [0.0, 8.0, -8.0], False),
        # but zeros are no small gradients: 1e-6 * 3e-8 + 1e-5 * 2e-8 is far below 1e-8
        ([0.0, 0.0, 0.0], [1e-8, 2e-8, 3e-8], False),
        ([1e-7, 0.0, 0.0], [0.0, 0.0, 0.0], True),
        ([1e-5, 0.0, 0.0], [0.0, 0.0, 0.0], False),
        # one giant does not excuse the others: the median is 2
        ([1.1, 2.0, 1e30], [1.0, 2.0, 1e30], False),
        ([NAN, INF, -INF], [NAN, INF, -INF], True),
        ([NAN, 0.0, 0.0], [0.0, 0.0, 0.0], False),
        ([0.0, 1.0, 2.0], [NAN, 1.0, 2.0], False),
        ([INF, 1.0, 2.0], [-INF, 1.0, 2.0], False),
        ([INF, 1.0, 2.0], [3.4e38, 1.0, 2.0], False),
        # 1e39 has no float32 but infinity
        ([INF, 1.0, 2.0], [1e39, 1.0, 2.0], True),
        ([3e38, 1.0, 2.0], [1e39, 1.0, 2.0], False),
    ],
)
def test_floats(actual, expected, passed):
    assert verdict_on(actual, np.array(expected, np.float64)).passed is passed


@pytest.mark.parametrize(
    ("actual", "expected", "passed"),
    [
        ([1, -2, 2**31 - 1], [1, -2, 2**31 - 1], True),
        ([1, -2, 2**31 - 1], [1, -2, 2**31 - 2], False),
        ([1, 0, 0], [1.0, 0.0, 0.0], True),
        ([1, 0, 0], [1.5, 0.0, 0.0], False),
    ],
)
def test_integers_are_exact(actual, expected, passed):
    assert verdict_on(actual, np.array(expected), "int32").passed is passed


def test_large_integers_are_not_compared_as_floats():
    big = 2**62
    assert not verdict_on([big + 1, 0, 0], np.array([big, 0, 0]), "int64").passed


def test_says_what_was_compared():
    found = verdict_on([1.0, 2.0, 3.0], np.array([1.0, 2.5, 3.0]) - np.array([0, 0.5, 0]))
    assert found == Verdict(True, 0.0, "all 3 values against the numpy float64 reference")


def test_a_failure_names_the_first_and_the_worst_element():
    found = verdict_on([1.0, 2.5, 9.0], np.array([1.0, 2.0, 3.0]))
    assert (found.passed, found.max_error) == (False, 6.0)
    assert found.compared == (
        "2 of 3 values wrong: first z[1] is 2.5, expected 2.0 (allowed deviation 2.1e-05); "
        "worst z[2] is 9.0, expected 3.0"
    )


def test_a_position_has_every_index():
    reference = {"z": np.zeros((2, 3, 4))}
    actual = np.zeros((2, 3, 4), np.float32)
    actual[1, 2, 3] = 1
    found = judge(kernel_with(lambda p, inputs: reference), {}, {"z": actual})
    assert "z[1, 2, 3] is 1.0, expected 0.0" in found.compared


def test_a_nan_is_an_infinite_error():
    found = verdict_on([NAN, 0, 0], np.zeros(3))
    assert found.max_error == INF
    assert "z[0] is nan" in found.compared


def test_several_outputs():
    def reference(p, inputs):
        return {"y": inputs["x"], "z": -inputs["x"]}

    x = np.arange(4, dtype=np.float32)
    right = judge(kernel_with(reference), {"x": x}, {"y": x, "z": -x})
    assert right == Verdict(True, 0.0, "all 8 values against the numpy float64 reference")
    wrong = judge(kernel_with(reference), {"x": x}, {"y": x, "z": x})
    assert wrong.compared.startswith("3 of 8 values wrong: first z[1] is 1.0, expected -1.0")


def test_nothing_to_compare_with():
    assert judge(kernel_with(None), {}, {"z": np.zeros(3, np.float32)}) is None


def test_a_kernel_may_compare_by_itself():
    asked = []

    def verify(p, inputs, outputs) -> Verdict:
        asked.append((dict(inputs), dict(outputs)))
        return Verdict(True, 0.125, "a random sample")

    own = kernel_with(lambda p, inputs: {"z": np.ones(3)}, verify=verify)
    found = judge(own, {"x": 1}, {"z": 2})
    assert found == Verdict(True, 0.125, "a random sample")
    assert asked == [({"x": 1}, {"z": 2})]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({}, "must return the outputs z; it returned none"),
        ({"y": np.zeros(3)}, "it returned y"),
        (np.zeros(3), "must return a dict of arrays"),
        (None, "must return a dict of arrays"),
        ({"z": np.zeros(4)}, r"gives 'z' the shape \(4,\), the kernel declares \(3,\)"),
    ],
)
def test_a_reference_that_returns_something_else(returned, words):
    with pytest.raises(Ftm7004Error, match=words):
        judge(kernel_with(lambda p, inputs: returned), {}, {"z": np.zeros(3, np.float32)})
