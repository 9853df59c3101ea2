"""Judging infinite truths: a float32 sum may overflow before it meets an infinity, or may not.

Two terms of -3e38 are -inf in float32 and -6e38 in float64; with +inf they are NaN on the chip and
inf in the truth. Terms of -3 leave no such excuse: their sum with +inf is inf in any order.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from isa.language.comparison import compare_floats
from isa.language.kernel import Kernel
from kernel_run import Array, run
from kernels import (
    conv2d_backward_data,
    conv2d_backward_weight,
    conv2d_forward,
    fc_backward,
    fc_forward,
    maxpool2d_backward,
)
from kernels.judging import sampling
from kernels.judging.rounding_over_samples import update_limits
from simulator.reporting.verification import judge

Tensors = dict[str, Array]

PLANE: dict[str, Any] = {"batch": 1, "height": 1, "width": 1, "size": 1, "stride": 1, "pad": 0}
SAMPLES = PLANE | {"batch": 3, "channels": 1, "filters": 1}
CASES: dict[str, tuple[Kernel, str, str, tuple[str, ...]]] = {
    # the kernel, the input that holds the three terms, the output that is their sum; all else is 1
    "conv2d_forward": (conv2d_forward(**PLANE, channels=3, filters=1), "x", "z", ("bias",)),
    "relu": (conv2d_forward(**PLANE, channels=3, filters=1, relu=True), "x", "z", ("bias",)),
    "fc_forward": (fc_forward(batch=1, in_features=3, out_features=1), "x", "z", ("bias",)),
    "conv2d_backward_data": (
        conv2d_backward_data(**PLANE, channels=1, filters=3), "dz", "dx", ()),
    "conv2d_backward_weight": (conv2d_backward_weight(**SAMPLES), "dz", "dweight", ()),
    "dbias": (conv2d_backward_weight(**SAMPLES), "dz", "dbias", ()),
    "fc_backward": (fc_backward(batch=1, in_features=1, out_features=3), "dz", "dx", ()),
    "layer dweight": (fc_backward(batch=3, in_features=1, out_features=1), "dz", "dweight", ()),
    "layer dbias": (fc_backward(batch=3, in_features=1, out_features=1), "dz", "dbias", ()),
    "update": (fc_backward(batch=3, in_features=1, out_features=1, lr=1.0), "dz", "weight", ()),
    # windows of 3 in steps of 1 on a row of 5 share the pixel in the middle
    "maxpool2d_backward": (
        maxpool2d_backward(batch=1, channels=1, height=1, width=5, size=(1, 3), stride=(1, 1)),
        "dz", "dx", ()),
}  # fmt: skip
HUGE, SMALL = -3e38, -3.0


def tensors(case: str, terms: tuple[float, ...]) -> Tensors:
    kernel, summed, _, zeros = CASES[case]
    made = {name: np.ones(t.shape, t.dtype) for name, t in kernel.inputs.items()}
    made[summed] = np.array(terms, np.float32).reshape(made[summed].shape)
    made |= {name: np.zeros_like(made[name]) for name in zeros}
    return made | ({"index": np.full((1, 1, 1, 3), 2)} if "index" in made else {})


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_sum_that_overflows_before_an_infinity_is_right(
    case: str, sample: bool, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sample:
        monkeypatch.setattr(sampling, "ALL", 0)
    kernel, found = CASES[case][0], []
    for terms in sorted(set(permutations((HUGE, HUGE, np.inf)))):
        inputs = tensors(case, terms)
        outputs = run(kernel, inputs, engine).outputs
        found.append(outputs[CASES[case][2]].ravel())
        verdict = judge(kernel, inputs, outputs)
        assert verdict.passed, verdict.compared
    # the case is what it says: in some order the chip's sum is NaN where the truth is infinite
    assert case == "relu" or np.isnan(found).any()


@pytest.mark.parametrize("value", [np.nan, -np.inf, 3e38, 0])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("case", CASES)
def test_an_infinity_among_small_terms_must_be_met(
    case: str, sign: int, value: float, engine: str
) -> None:
    kernel, _, name, _ = CASES[case]
    inputs = tensors(case, (sign * SMALL, sign * SMALL, sign * np.inf))
    outputs = run(kernel, inputs, engine).outputs
    assert judge(kernel, inputs, outputs).passed
    place = np.unravel_index(np.argmax(np.isinf(outputs[name])), outputs[name].shape)
    if case == "relu" and sign < 0:
        assert outputs[name].item() == 0
        value = value or 1.0  # a clipped -inf must be 0
    outputs[name][place] = value if outputs[name][place] >= 0 else -value
    verdict = judge(kernel, inputs, outputs)
    assert not verdict.passed
    assert f" wrong: first {name}[" in verdict.compared


@pytest.mark.parametrize("case", sorted(set(CASES) - {"relu", "update"}))
def test_a_nan_must_be_met_though_finite_terms_overflow(case: str) -> None:
    # inf and -inf are NaN in any order, and so is NaN, whatever else overflows
    kernel, _, name, _ = CASES[case]
    for terms in ((HUGE, np.nan, HUGE), (np.nan, np.inf, 1.0)):
        inputs = tensors(case, terms)
        outputs = run(kernel, inputs, "reference").outputs
        assert judge(kernel, inputs, outputs).passed
        outputs[name][np.isnan(outputs[name])] = np.inf
        assert not judge(kernel, inputs, outputs).passed


def test_an_update_is_infinite_where_its_weight_or_gradient_is() -> None:
    updated, gradient = np.array([np.inf, -np.inf, np.inf]), np.array([1, np.inf, -np.inf])
    limits = update_limits(updated, gradient, 0.1, np.array([1e-7, 0, np.inf]))
    actual = np.full(3, np.nan, np.float32)
    wrong = compare_floats("weight", actual, updated, limits).wrong
    assert wrong.tolist() == [True, True, False]


def test_only_an_infinite_limit_excuses_an_infinite_truth() -> None:
    truth = np.array([np.inf, np.inf, np.inf, np.nan, -np.inf, 1])
    allowed = np.array([np.inf, 1e38, np.nan, np.inf, np.inf, np.inf])
    actual = np.array([np.nan, np.nan, 1, 1, 5, np.nan], np.float32)
    compared = compare_floats("z", actual, truth, allowed)
    assert compared.wrong.tolist() == [False, True, True, True, False, False]
