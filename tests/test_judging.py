"""Judging sums: right results always pass, wrong ones fail even where a sum is long."""

from __future__ import annotations

import re
from inspect import unwrap

import numpy as np
import pytest

from isa.language.comparison import compare_floats, verdict
from isa.language.kernel import Kernel, Verdict
from kernel_run import ROUNDING, Array
from kernels import conv2d_forward, fc_forward, reference
from kernels.judging import sampling
from kernels.judging.forward import verify_convolution, verify_fully_connected
from kernels.judging.rounding import convolution_limits, convolution_limits_at, layer_limits

CONVOLUTION = conv2d_forward(
    batch=5, channels=3, height=4, width=3, filters=4, size=3, stride=(2, 1), pad=(1, 4)
)
LAYER = fc_forward(batch=6, in_features=500, out_features=7)


def right_convolution(kernel: Kernel, inputs: dict[str, Array]) -> Array:
    p, tensors = kernel.p, (inputs["x"], inputs["weight"], inputs["bias"])
    return reference.conv2d_forward(*tensors, p.stride, p.pad, p.relu).astype(np.float32)


def right_layer(inputs: dict[str, Array]) -> Array:
    return reference.fc_forward(inputs["x"], inputs["weight"], inputs["bias"]).astype(np.float32)


def chain(x: Array, weight: Array, bias: Array) -> Array:
    """Return float32 sums of x (N, K) and weight (N, K), rounded after every term.

    The product is exact in float64; its sum is rounded there first, 2**-29 finer.
    """
    sums = bias.astype(np.float32)
    for pixels, factors in zip(x.T.astype(np.float64), weight.T.astype(np.float64), strict=True):
        sums = (sums + pixels * factors).astype(np.float32)
    return sums


def data(kind: str, terms: int) -> tuple[Array, Array]:
    """Return 40 sums' pixels and weights, (40, terms) each."""
    generator = np.random.default_rng(terms)
    x = generator.uniform(-1, 1, (40, terms))
    weight = generator.uniform(-1, 1, (40, terms))
    if kind == "positive":
        x, weight = np.abs(x), np.abs(weight)
    if kind == "constant":
        x[:], weight[:] = np.abs(x[:, :1]), 0.1
    if kind == "cancelling":
        x[:, terms // 2 : terms // 2 * 2] = -x[:, : terms // 2]
        weight[:, terms // 2 : terms // 2 * 2] = weight[:, : terms // 2]
    if kind == "subnormal":
        x *= 1e-40
    return x.astype(np.float32), weight.astype(np.float32)


def limits(x: Array, weight: Array, bias: Array) -> Array:
    """Return the limit of each pair of rows."""
    return np.array([layer_limits(x[[n]], weight[[n]], bias[[n]])[0, 0] for n in range(len(x))])


KINDS = ["random", "positive", "constant", "cancelling", "subnormal"]


@pytest.mark.parametrize("terms", [1, 9, 15, 16, 17, 576, 4608])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_of_multiply_adds_is_within_its_limit(kind: str, terms: int) -> None:
    x, weight = data(kind, terms)
    bias = np.zeros(len(x), np.float32)
    truth = (x.astype(np.float64) * weight.astype(np.float64)).sum(axis=1)
    error = np.abs(chain(x, weight, bias) - truth)
    assert (error <= limits(x, weight, bias)).all()


@pytest.mark.parametrize("terms", [576, 4608, 25088])
def test_the_limit_grows_with_the_root_of_random_terms(terms: int) -> None:
    # Partial sums of k random products are about sqrt(k) * sigma, so the limit is about
    # 2**-24 * sigma * terms**1.5 * 2/3 * 0.8 (the mean magnitude), and sigma = 1/3 for
    # products of two numbers uniform in [-1, 1); what is more comes from runs of terms.
    x, weight = data("random", terms)
    found = limits(x, weight, np.zeros(len(x), np.float32))
    assert np.median(found) < 2 * ROUNDING * terms**1.5 / 3


@pytest.mark.parametrize("terms", [576, 4608])
def test_one_missing_product_is_seen(terms: int) -> None:
    x, weight = data("random", terms)
    missing = np.abs(x[:, 7] * weight[:, 7])
    seen = missing > limits(x, weight, np.zeros(len(x), np.float32))
    assert seen.mean() > 0.8


def test_a_limit_worked_by_hand() -> None:
    # bias 1, then 2 * 3 and 4 * -1: the run's magnitudes are 10, so both sums are taken for 11.
    # 2 * 11 * 2**-24, a little more for what is of second order, 2 * 2**-150 for subnormals.
    found = layer_limits(
        np.array([[2, 4]], np.float32), np.array([[3, -1]], np.float32), np.ones(1, np.float32)
    )
    assert found.shape == (1, 1)
    assert 22 * ROUNDING < found[0, 0] < 22 * ROUNDING * 1.000001


def test_sums_that_may_overflow_have_no_limit_and_infinite_ones_none_to_spare() -> None:
    x = np.array([[3e38, 3e38], [np.inf, 1], [np.nan, 1], [1, 1]], np.float32)
    found = layer_limits(x, np.array([[1, -1]], np.float32), np.zeros(1, np.float32))[:, 0]
    assert found[0] == np.inf
    # the others' finite terms have magnitudes of 1, 1 and 2, and two roundings
    assert (found[1:] < 5 * ROUNDING).all()
    expected = np.array([0, np.inf, np.nan, 0])
    actual = np.array([np.inf, np.inf, np.nan, 0], np.float32)
    assert verdict([compare_floats("z", actual, expected, found)]).passed
    wrong = compare_floats("z", np.array([0, 1, 1, 1], np.float32), expected, found)
    assert wrong.wrong.tolist() == [False, True, True, True]


def test_limits_at_points_are_those_of_the_whole_but_sharper() -> None:
    inputs = CONVOLUTION.make_inputs(7)
    every = convolution_limits(CONVOLUTION.p, inputs)
    points = np.argwhere(np.isfinite(every))
    assert len(points) == every.size
    at_points = convolution_limits_at(CONVOLUTION.p, inputs, points).reshape(every.shape)
    assert (at_points <= every * (1 + 1e-9)).all()
    whole = every[:, :, :, 4]  # the one column of windows without padding at its sides
    assert np.median(at_points[:, :, :, 4] / whole) > 0.25


# Verdicts --------------------------------------------------------------------------------------


def test_a_right_convolution_passes_and_says_what_was_compared() -> None:
    inputs = CONVOLUTION.make_inputs(1)
    z = right_convolution(CONVOLUTION, inputs)
    assert z.shape == (5, 4, 2, 9)
    found = verify_convolution(CONVOLUTION.p, inputs, {"z": z})
    assert (found.passed, found.compared) == (
        True,
        "all 360 values against the numpy float64 reference",
    )
    assert 0 < found.max_error < 1e-6


def test_a_wrong_convolution_names_the_first_and_the_worst_element() -> None:
    inputs = CONVOLUTION.make_inputs(1)
    z = right_convolution(CONVOLUTION, inputs)
    z[1, 2, 0, 3] += np.float32(0.001)
    z[3, 0, 1, 8] = 100
    found = verify_convolution(CONVOLUTION.p, inputs, {"z": z})
    assert not found.passed
    assert found.max_error > 99
    first = re.escape(f"2 of 360 values wrong: first z[1, 2, 0, 3] is {z[1, 2, 0, 3]!s}, expected ")
    assert re.match(first + r"\S+ \(allowed deviation \S+\); ", found.compared)
    assert "worst z[3, 0, 1, 8] is 100.0, expected " in found.compared


def test_a_window_of_padding_must_be_the_bias_to_the_bit() -> None:
    # Columns 0 and 8 of the output lie in the padding of 4 columns.
    inputs = CONVOLUTION.make_inputs(1)
    z = right_convolution(CONVOLUTION, inputs)
    assert (z[:, :, :, 0] == inputs["bias"][None, :, None]).all()
    z[4, 3, 1, 0] = np.nextafter(z[4, 3, 1, 0], np.float32(2))
    found = verify_convolution(CONVOLUTION.p, inputs, {"z": z})
    assert "1 of 360 values wrong: first z[4, 3, 1, 0]" in found.compared


def test_nan_and_infinity_must_be_met() -> None:
    inputs = LAYER.make_inputs(2)
    inputs["x"][1, 5], inputs["x"][2, 6], inputs["x"][3, 7] = np.nan, np.inf, -np.inf
    z = right_layer(inputs)
    assert np.isnan(z[1]).all()
    assert np.isinf(z[2:4]).all()
    assert verify_fully_connected(LAYER.p, inputs, {"z": z}).passed
    for place, value in (((1, 0), 3.0), ((2, 1), -z[2, 1]), ((3, 2), np.nan), ((0, 0), np.nan)):
        wrong = z.copy()
        wrong[place] = value
        found = verify_fully_connected(LAYER.p, inputs, {"z": wrong})
        assert (found.passed, found.max_error) == (False, np.inf)
        assert f"first z[{place[0]}, {place[1]}] is" in found.compared


def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every run too large to compare as a whole."""
    monkeypatch.setattr(sampling, "ALL", 0)
    monkeypatch.setattr(sampling, "POSITIONS", 6)
    monkeypatch.setattr(sampling, "IMAGES", 3)
    monkeypatch.setattr(sampling, "FILTERS", 1)


@pytest.mark.parametrize("kernel", [CONVOLUTION, LAYER], ids=["convolution", "layer"])
def test_a_large_result_is_sampled_and_says_so(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled(monkeypatch)
    inputs = kernel.make_inputs(3)
    is_layer = kernel is LAYER
    z = right_layer(inputs) if is_layer else right_convolution(kernel, inputs)
    verify = verify_fully_connected if is_layer else verify_convolution
    found: Verdict = verify(kernel.p, inputs, {"z": z})
    assert found.passed
    # 6 positions x 3 images x 1 filter; 3 samples x 6 outputs of the layer
    total = 42 if is_layer else 360
    text = f"a random sample of 18 of {total} values against the numpy float64 reference"
    assert found.compared == text
    wrong = verify(kernel.p, inputs, {"z": z + np.float32(0.5)})
    text = rf"18 of 18 values of a random sample \(of {total}\) wrong: first z\[(.*?)\] is (\S+),"
    match = re.match(text, wrong.compared)
    assert match
    place = tuple(int(index) for index in match[1].split(", "))
    assert float(match[2]) == pytest.approx(z[place] + 0.5, rel=1e-6)


def test_a_sample_is_spread_and_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = conv2d_forward(batch=40, channels=1, height=20, width=20, filters=30, size=1, pad=0)
    inputs = kernel.make_inputs(4)
    z = right_convolution(kernel, inputs)
    monkeypatch.setattr(sampling, "ALL", 0)
    first = verify_convolution(kernel.p, inputs, {"z": z})
    assert first == verify_convolution(kernel.p, inputs, {"z": z})
    assert first.compared.startswith("a random sample of 8,192 of 480,000 values")
    for half in (np.s_[:20], np.s_[20:], np.s_[:, :15], np.s_[:, 15:], np.s_[:, :, :, 10:]):
        wrong = z.copy()
        wrong[half] += np.float32(0.01)
        assert not verify_convolution(kernel.p, inputs, {"z": wrong}).passed


def test_the_kernels_are_judged_so() -> None:
    assert unwrap(conv2d_forward.verify) is verify_convolution
    assert unwrap(fc_forward.verify) is verify_fully_connected


def test_finite_sums_beyond_float32_are_not_judged() -> None:
    # 2 * 3e38 is finite in float64 and beyond float32: a sum may pass either infinity on its way
    truth, limit = np.array([-6e38, 6e38]), np.array([np.inf, np.inf])
    judged = verdict([compare_floats("z", np.array([np.inf, 1], np.float32), truth, limit)])
    assert judged.passed
