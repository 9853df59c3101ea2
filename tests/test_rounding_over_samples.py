"""Limits of sums over samples: right sums are within them in whatever order they were added."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from kernel_run import ROUNDING, Array
from kernels.judging.rounding_over_samples import layer_gradient_limits, weight_gradient_limits

KINDS = ["random", "positive", "constant", "halves cancel", "samples cancel", "rising", "large"]


def random(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def data(kind: str, samples: int, positions: int) -> tuple[Array, Array]:
    """Return x (samples, 3, positions, 1) and dz (samples, 2, positions, 1)."""
    x = random(samples, 3, positions, 1)
    dz = random(samples, 2, positions, 1, seed=2)
    if kind in ("positive", "constant", "samples cancel"):
        x, dz = np.abs(x), np.abs(dz)
    if kind in ("constant", "samples cancel"):
        x[:], dz[:] = x[0, :, :1], 0.1
    if kind == "samples cancel":
        dz[1::2] *= -1
    if kind == "halves cancel":
        half = positions // 2
        x[:, :, half : 2 * half], dz[:, :, half : 2 * half] = -x[:, :, :half], dz[:, :, :half]
    if kind == "rising":
        x *= np.linspace(0, 1, positions)[:, None] ** 8
    if kind == "large":
        x *= 1e30
    return x.astype(np.float32), dz.astype(np.float32)


def added(start: Array, terms: Array) -> Array:
    """Return `start` and all terms, rounded to float32 after each.

    A product of two float32 is exact in float64; its sum is rounded there first, 2**-29 finer.
    """
    sums = start.astype(np.float32)
    for term in terms:
        sums = (sums + term).astype(np.float32)
    return sums


def chain(terms: Array) -> Array:
    """Add terms (samples, positions, ...) one by one."""
    flat = terms.reshape(-1, *terms.shape[2:])
    return added(np.zeros(flat.shape[1:]), flat)


def backwards(terms: Array) -> Array:
    return chain(terms[::-1, ::-1])


def tree(terms: Array) -> Array:
    """Add neighbours, then neighbouring sums, and so on."""
    level = terms.reshape(-1, *terms.shape[2:])
    while len(level) > 1:
        odd = level[len(level) // 2 * 2 :]
        level = (level[0:-1:2] + level[1::2]).astype(np.float32).astype(np.float64)
        level = np.concatenate([level, odd])
    return level[0].astype(np.float32)


def in_lanes(terms: Array, lanes: int = 16, block: int = 64) -> Array:
    """Add in lanes, block by block, position by position, vector by vector; then over lanes."""
    sums = np.zeros((lanes, *terms.shape[2:]), np.float32)
    for first, lane in product(range(0, len(terms), block), range(lanes)):
        of_lane = terms[first + lane : first + block : lanes].swapaxes(0, 1)
        sums[lane] = added(sums[lane], of_lane.reshape(-1, *terms.shape[2:]))
    return added(np.zeros(terms.shape[2:]), sums.astype(np.float64))


def on_four_cores(terms: Array) -> Array:
    cores = [in_lanes(part) for part in np.array_split(terms, 4)]
    return added(np.zeros(terms.shape[2:]), np.array(cores, np.float64))


def products(x: Array, dz: Array) -> Array:
    """Return (samples, positions, filters, channels) in float64."""
    terms = np.einsum("nopq,ncpq->npoc", dz.astype(np.float64), x.astype(np.float64))
    return np.asarray(terms)


def limits(x: Array, dz: Array) -> Array:
    """Return the limits of dweight of a 1 x 1 convolution, (filters, channels)."""
    return weight_gradient_limits(x, dz, (1, 1), (1, 1), (0, 0))[0][:, :, 0, 0]


ORDERS = [chain, backwards, tree, in_lanes, on_four_cores]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("samples", "positions"), [(1, 1), (5, 1), (17, 9), (64, 49), (130, 7), (3, 1000)]
)
def test_any_order_is_within_its_limit(kind: str, samples: int, positions: int) -> None:
    x, dz = data(kind, samples, positions)
    terms, allowed = products(x, dz), limits(x, dz)
    assert np.isfinite(allowed).all()
    biases = weight_gradient_limits(x, dz, (1, 1), (1, 1), (0, 0))[1]
    for order in ORDERS:
        assert (np.abs(order(terms) - terms.sum(axis=(0, 1))) <= allowed).all(), order
        gradient = dz[:, :, :, 0].swapaxes(1, 2).astype(np.float64)
        assert (np.abs(order(gradient) - gradient.sum(axis=(0, 1))) <= biases).all(), order


@pytest.mark.parametrize(("samples", "positions"), [(17, 9), (64, 49), (256, 1), (3, 1000)])
def test_one_missing_product_is_seen(samples: int, positions: int) -> None:
    x, dz = data("random", samples, positions)
    assert (np.abs(products(x, dz)) > limits(x, dz)).mean() > 0.8


@pytest.mark.parametrize(("samples", "positions"), [(64, 784), (16, 3136)])
def test_one_missing_position_is_seen_in_a_long_sum(samples: int, positions: int) -> None:
    # the magnitudes of 50,176 products, a quarter each, would excuse 50,176**2 * 2**-24 / 4 = 37
    x, dz = data("random", samples, positions)
    missing = np.abs(products(x, dz).sum(axis=0))
    assert (missing > limits(x, dz)).mean() > 0.6
    assert limits(x, dz).max() < 1


def test_limits_worked_by_hand() -> None:
    # 2 * 3 and 4 * -1 of one sample: magnitudes of 10, and no sum of neighbours is more. A chain
    # rounds twice; in lanes of up to 4 samples it is 4 * 2 times, and 20 for lanes and cores.
    x = np.array([2, 4], np.float32).reshape(1, 1, 2, 1)
    dz = np.array([3, -1], np.float32).reshape(1, 1, 2, 1)
    assert limits(x, dz)[0, 0] == pytest.approx(28 * 10 * ROUNDING, rel=1e-6)

    # 64 positions of 1 and -1 in turn: totals after each run of 8 are 0, so what remains is the
    # beginning and the end of a run: 16 at most. 4 * 64 + 20 roundings.
    ones = np.ones((1, 1, 64, 1), np.float32)
    signs = ones.copy()
    signs[:, :, 1::2] = -1
    assert limits(ones, signs)[0, 0] == pytest.approx(276 * 16 * ROUNDING, rel=1e-5)

    # 1 in 10 samples of 1 position: magnitudes of 10; 4 + 20 roundings.
    found = layer_gradient_limits(np.ones((10, 1), np.float32), np.ones((10, 2), np.float32))
    assert found[0] == pytest.approx(np.full((2, 1), 24 * 10 * ROUNDING), rel=1e-6)
    assert found[1] == pytest.approx(np.full(2, 24 * 10 * ROUNDING), rel=1e-6)


def test_portions_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, dz = data("random", 37, 3)
    whole = limits(x, dz)
    monkeypatch.setattr("kernels.judging.rounding_over_samples.PORTION", 1)
    assert limits(x, dz) == pytest.approx(whole, rel=1e-12)


def test_sums_that_may_overflow_have_no_limit_and_zeros_none_to_spare() -> None:
    x = np.array([3e38, 3e38], np.float32).reshape(1, 1, 2, 1)
    dz = np.array([1, -1], np.float32).reshape(1, 1, 2, 1)
    assert limits(x, dz)[0, 0] == np.inf
    assert limits(x, 0 * dz)[0, 0] == 0
    assert limits(x * np.float32(np.inf), dz)[0, 0] == 0  # no finite terms
