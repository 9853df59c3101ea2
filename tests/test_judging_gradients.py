"""Judging gradients: right sums pass in whatever order they were added, wrong ones fail."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isa.language.kernel import Verdict
from kernel_run import Array
from kernels import reference
from kernels.judging import sampling
from kernels.judging.gradients import (
    verify_data_gradient,
    verify_layer_gradients,
    verify_update,
    verify_weight_gradient,
)
from kernels.judging.rounding import data_gradient_limits, layer_limits

Tensors = dict[str, Array]


def random(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


# Verdicts ----------------------------------------------------------------------------------------


def convolution(**changes: Any) -> SimpleNamespace:
    """Return parameters: windows of 2 x 3 that skip pixels and see padding."""
    sizes = {
        "batch": 5, "channels": 3, "height": 6, "width": 4, "filters": 4, "size": (2, 3),
        "stride": (3, 2), "pad": (0, 2), "relu": False,
    }  # fmt: skip
    return SimpleNamespace(**sizes | changes)


def layer(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"batch": 6, "in_features": 20, "out_features": 7, "lr": 0.5} | changes
    )


def tensors_of(p: SimpleNamespace) -> Tensors:
    """Return x, weight and dz of a convolution."""
    rows, columns = (
        len(range(-pad, extent + pad - size + 1, stride))
        for extent, size, stride, pad in zip(
            (p.height, p.width), p.size, p.stride, p.pad, strict=True
        )
    )
    return {
        "x": random(p.batch, p.channels, p.height, p.width),
        "weight": random(p.filters, p.channels, *p.size, seed=2),
        "dz": random(p.batch, p.filters, rows, columns, seed=3),
    }


def data_gradient(p: SimpleNamespace, inputs: Tensors) -> Array:
    x = inputs["x"] if p.relu else None
    dx = reference.conv2d_backward_data(
        inputs["dz"], inputs["weight"], inputs["x"].shape, p.stride, p.pad, x
    )
    return dx.astype(np.float32)


def weight_gradient(p: SimpleNamespace, inputs: Tensors) -> Tensors:
    x, dz, shape = inputs["x"], inputs["dz"], inputs["weight"].shape
    found = reference.conv2d_backward_weight(x, dz, shape, p.stride, p.pad)
    return dict(zip(("dweight", "dbias"), (part.astype(np.float32) for part in found), strict=True))


def layer_tensors(p: SimpleNamespace) -> Tensors:
    return {
        "x": random(p.batch, p.in_features),
        "weight": random(p.out_features, p.in_features, seed=2),
        "dz": random(p.batch, p.out_features, seed=3),
        "bias": random(p.out_features, seed=4),
    }


def layer_gradients(p: SimpleNamespace, t: Tensors) -> Tensors:
    found = reference.fc_backward(t["x"], t["weight"], t["dz"], p.lr, t["bias"])
    return {name: part.astype(np.float32) for name, part in found.items()}


def refused(found: Verdict, words: str) -> None:
    assert not found.passed
    assert words in found.compared


def changed(array: Array, place: tuple[int, ...], by: float) -> Array:
    wrong = array.copy()
    wrong[place] += np.float32(by)
    return wrong


@pytest.mark.parametrize("relu", [False, True])
def test_a_right_data_gradient_passes_and_a_wrong_one_is_named(relu: bool) -> None:
    p = convolution(relu=relu)
    inputs = tensors_of(p)
    dx = data_gradient(p, inputs)
    found = verify_data_gradient(p, inputs, {"dx": dx})
    assert found.passed
    assert found.compared == "all 360 values against the numpy float64 reference"
    place = tuple(np.argwhere(dx != 0)[50].tolist())
    by = np.abs(dx[place]) * 1e-5
    refused(
        verify_data_gradient(p, inputs, {"dx": changed(dx, place, by)}),
        f"1 of 360 values wrong: first dx[{', '.join(map(str, place))}]",
    )


def test_a_pixel_that_no_window_reaches_must_be_zero() -> None:
    # windows of 2 rows at every third: rows 2 and 5 lie between them
    p = convolution()
    inputs = tensors_of(p)
    dx = data_gradient(p, inputs)
    assert (dx[:, :, 2::3] == 0).all()
    wrong = changed(dx, (4, 2, 5, 3), 1e-45)
    refused(verify_data_gradient(p, inputs, {"dx": wrong}), "first dx[4, 2, 5, 3] is 1e-45")


def test_a_mask_must_clip_exactly_where_x_is_not_positive() -> None:
    p = convolution(relu=True)
    inputs = tensors_of(p)
    inputs["x"][0, 0, 0, :2] = 0, np.nan
    dx = data_gradient(p, inputs)
    assert (dx[0, 0, 0, 0], dx[0, 0, 0, 1] != 0) == (0, True)
    assert verify_data_gradient(p, inputs, {"dx": dx}).passed
    wrong = changed(dx, (0, 0, 0, 0), 1e-30)
    refused(verify_data_gradient(p, inputs, {"dx": wrong}), "1 of 360 values wrong: first dx[0, 0,")
    unmasked = data_gradient(convolution(), inputs)
    refused(verify_data_gradient(p, inputs, {"dx": unmasked}), "values wrong")
    refused(verify_data_gradient(convolution(), inputs, {"dx": dx}), "values wrong")


def test_a_chain_of_a_data_gradient_is_within_its_limit() -> None:
    # 3 x 3 over 60 filters: up to 540 terms, in the order of the rows of dz
    p = convolution(batch=2, size=(3, 3), stride=(1, 1), pad=(1, 1), filters=60)
    for constant in (False, True):
        inputs = tensors_of(p)
        if constant:
            inputs["dz"][:], inputs["weight"][:] = 0.7, 0.1
        sums = np.zeros((p.batch, p.channels, p.height, p.width), np.float32)
        dz, weight = (inputs[name].astype(np.float64) for name in ("dz", "weight"))
        for i, j, o in product(range(6), range(4), range(60)):
            for m, k in product(range(3), range(3)):
                h, w = i + m - 1, j + k - 1
                if 0 <= h < 6 and 0 <= w < 4:
                    term = dz[:, o, i, j, None] * weight[o, :, m, k]
                    sums[:, :, h, w] = (sums[:, :, h, w] + term).astype(np.float32)
        assert (np.abs(sums - data_gradient(p, inputs)) > 0).any()
        assert verify_data_gradient(p, inputs, {"dx": sums}).passed


def test_one_missing_product_of_a_data_gradient_is_seen() -> None:
    p = convolution(batch=2, size=(3, 3), stride=(1, 1), pad=(1, 1), filters=64)
    allowed = data_gradient_limits(p, tensors_of(p))
    assert np.median(allowed) < 0.01 / 4  # products of a quarter on average, 576 of them
    no_bias = np.zeros(1, np.float32)
    one = layer_limits(random(1, 576), random(1, 576, seed=2), no_bias)[0, 0]
    assert 0.3 < allowed[0, 0, 2, 2] / one < 3


def test_a_right_weight_gradient_passes_and_a_wrong_one_is_named() -> None:
    p = convolution()
    inputs = tensors_of(p)
    right = weight_gradient(p, inputs)
    found = verify_weight_gradient(p, inputs, right)
    assert found.passed
    assert found.compared == "all 76 values against the numpy float64 reference"
    for name, place in (("dweight", (3, 1, 0, 2)), ("dbias", (2,))):
        wrong = right | {name: changed(right[name], place, 1e-4)}
        words = f"1 of 76 values wrong: first {name}[{', '.join(map(str, place))}]"
        refused(verify_weight_gradient(p, inputs, wrong), words)


def test_a_sample_that_counts_twice_is_seen() -> None:
    p = convolution(batch=33)
    inputs = tensors_of(p)
    twice = {name: np.concatenate([part, part[8:9]]) for name, part in inputs.items()}
    wrong = weight_gradient(p, twice | {"weight": inputs["weight"]})
    refused(verify_weight_gradient(p, inputs, wrong), "76 of 76 values wrong")


@pytest.mark.parametrize("lr", [None, 0.0, 0.5])
def test_right_layer_gradients_pass_and_wrong_ones_are_named(lr: float | None) -> None:
    p = layer(lr=lr)
    inputs = layer_tensors(p)
    right = layer_gradients(p, inputs)
    found = verify_layer_gradients(p, inputs, right)
    assert found.passed, found.compared
    total = {None: 267, 0.0: 414, 0.5: 414}[lr]  # 120 + 140 + 7, and 140 + 7 updated
    assert found.compared == f"all {total} values against the numpy float64 reference"
    for name, part in right.items():
        place = tuple(extent - 1 for extent in part.shape)
        wrong = right | {name: changed(part, place, 1e-5)}
        refused(
            verify_layer_gradients(p, inputs, wrong), f"1 of {total} values wrong: first {name}["
        )


def test_a_doubled_rate_and_a_gradient_through_the_new_weight_are_seen() -> None:
    p = layer()
    inputs = layer_tensors(p)
    right, doubled = layer_gradients(p, inputs), layer_gradients(layer(lr=1.0), inputs)
    for name in ("weight", "bias"):
        refused(verify_layer_gradients(p, inputs, right | {name: doubled[name]}), f"first {name}[0")
    late = layer_gradients(p, inputs | {"weight": right["weight"]})["dx"]
    refused(verify_layer_gradients(p, inputs, right | {"dx": late}), "120 of 414 values wrong")


@pytest.mark.parametrize("seed", range(3))
def test_updates_of_rounded_gradients_pass(seed: int) -> None:
    p = layer(batch=40, lr=0.3)
    inputs = layer_tensors(p)
    inputs["x"] = random(40, 20, seed=seed)
    right = layer_gradients(p, inputs)
    sums = np.zeros((7, 20), np.float32)
    for pixels, gradient in zip(inputs["x"], inputs["dz"].astype(np.float64), strict=True):
        sums = (sums + gradient[:, None] * pixels).astype(np.float32)
    right["dweight"] = sums
    rate = float(np.float32(0.3))
    right["weight"] = (inputs["weight"] - rate * right["dweight"].astype(float)).astype(np.float32)
    assert verify_layer_gradients(p, inputs, right).passed


def test_an_update_is_rounded_once() -> None:
    p, inputs = SimpleNamespace(size=500, lr=0.1), {"weight": random(500), "dweight": random(500)}
    rate = float(np.float32(0.1))
    updated = inputs["weight"] - rate * inputs["dweight"].astype(np.float64)
    right = updated.astype(np.float32)
    found = verify_update(p, inputs, {"weight": right})
    assert (found.passed, found.compared[:14]) == (True, "all 500 values")
    off = np.nextafter(np.nextafter(right, np.float32(9)), np.float32(9))
    refused(verify_update(p, inputs, {"weight": off}), "500 of 500 values wrong")
    doubled = (inputs["weight"] - 2 * rate * inputs["dweight"].astype(float)).astype(np.float32)
    refused(verify_update(p, inputs, {"weight": doubled}), "500 of 500 values wrong")


def test_updates_of_nan_infinity_and_beyond_float32() -> None:
    nan, inf = np.nan, np.inf
    gradient = np.array([1, nan, inf, -3e38, 0, -4e37], np.float32)
    inputs = {"weight": np.array([nan, 1, 1, 3e38, inf, 3e38], np.float32), "dweight": gradient}
    p = SimpleNamespace(size=6, lr=1.0)
    right = np.array([nan, nan, -inf, inf, inf, 3.4e38], np.float32)
    assert verify_update(p, inputs, {"weight": right}).passed
    for place in range(5):
        wrong = right.copy()
        wrong[place] = 1
        refused(verify_update(p, inputs, {"weight": wrong}), f"first weight[{place}] is 1.0")


def test_nan_and_infinity_must_be_met() -> None:
    p = convolution()
    inputs = tensors_of(p)
    inputs["dz"][1, 2, 0, 0], inputs["dz"][2, 1, 1, 1] = np.nan, np.inf
    dx, right = data_gradient(p, inputs), weight_gradient(p, inputs)
    assert 0 < np.isnan(dx).sum() < dx.size
    assert np.isinf(right["dbias"][1])
    assert verify_data_gradient(p, inputs, {"dx": dx}).passed
    assert verify_weight_gradient(p, inputs, right).passed
    refused(verify_data_gradient(p, inputs, {"dx": np.nan_to_num(dx)}), "is 0.0, expected nan")
    wrong = right | {"dbias": np.nan_to_num(right["dbias"])}
    refused(verify_weight_gradient(p, inputs, wrong), "first dbias[1]")


# Samples -----------------------------------------------------------------------------------------


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every run here too large to compare as a whole."""
    monkeypatch.setattr(sampling, "ALL", 2_500)
    monkeypatch.setattr(sampling, "POSITIONS", 6)
    monkeypatch.setattr(sampling, "IMAGES", 3)
    monkeypatch.setattr(sampling, "FILTERS", 2)


def judged(kind: str) -> tuple[Callable[[Tensors], Verdict], Tensors, int]:
    """Return a verify function, right outputs, and how many of their values are a sample."""
    if kind == "layer":
        p = layer(batch=600)
        inputs = layer_tensors(p)
        # 2,500 // 600 = 4 elements of dweight, in 2 rows; 2,500 // 64 = 39 of dx, 6 by 6.
        sample = 36 + 4 + 2 + 4 + 2
        return (
            lambda out: verify_layer_gradients(p, inputs, out),
            layer_gradients(p, inputs),
            sample,
        )
    p = convolution(batch=9, relu=True)
    inputs = tensors_of(p)
    if kind == "data":
        right = {"dx": data_gradient(p, inputs)}
        return lambda out: verify_data_gradient(p, inputs, out), right, 6 * 3 * 2
    # a pair takes 2 * 3 * 64: 6 pairs, 2 filters by 3 channels, with 6 weights each
    right = weight_gradient(p, inputs)
    return lambda out: verify_weight_gradient(p, inputs, out), right, 36 + 2


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("kind", ["data", "weight", "layer"])
def test_a_large_result_is_sampled_and_says_so(kind: str) -> None:
    verify, right, sample = judged(kind)
    total = sum(part.size for part in right.values())
    found = verify(right)
    assert found.compared == (
        f"a random sample of {sample} of {total:,} values against the numpy float64 reference"
    )
    assert found.passed
    assert found == verify(right)
    wrong = verify({name: part + np.float32(0.5) for name, part in right.items()})
    assert not wrong.passed
    assert wrong.compared.startswith(
        f"{sample} of {sample} values of a random sample (of {total:,}"
    )


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("kind", ["data", "weight", "layer"])
def test_a_sample_has_the_last_element_and_names_its_place(kind: str) -> None:
    verify, right, _ = judged(kind)
    for name, part in right.items():
        last = tuple(extent - 1 for extent in part.shape)
        found = verify(right | {name: changed(part, last, 0.5)})
        refused(found, f"first {name}[{', '.join(map(str, last))}] is")


def test_numbers_are_chosen_with_both_ends() -> None:
    generator = np.random.default_rng(1)
    assert sampling.choose(generator, 4, 9).tolist() == [0, 1, 2, 3]
    for _ in range(20):
        found = sampling.choose(generator, 9, 4).tolist()
        assert found == sorted(set(found))
        assert (len(found), found[0], found[-1]) == (4, 0, 8)
    assert {int(sampling.choose(generator, 3, 1)[0]) for _ in range(50)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("rows", "columns", "most", "expected"),
    [(64, 64, 34, (5, 6)), (2, 500, 34, (2, 17)), (500, 2, 34, (17, 2)), (9, 9, 0, (1, 1))],
)
def test_pairs_keep_the_budget(
    rows: int, columns: int, most: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "ALL", 10 * most)
    found = sampling.pairs(rows, columns, cost=10)
    assert tuple(map(len, found)) == expected
