"""Gradients against difference quotients of the simulator's own forward passes, exactly.

The backward kernels must give the slopes of sum(z * r) for a fixed r. An operator is linear in any
one of its tensors, or linear between kinks where it has a ReLU or a maximum. All numbers here are
small multiples of STEP, so that float32 holds every product and every sum without rounding. Then a
central difference that crosses no kink *is* the slope, to the last bit, and results must be equal.

Samples do not depend on each other, and neither do filters. So a single forward pass moves every
element both ways: each moved copy of a sample is a sample of its own, each copy of a filter a
filter of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from attrs import frozen

from isa.language.kernel import Kernel
from kernel_run import Array, run
from kernels import LIBRARY

Shape = dict[str, Any]

STEP = 0.0625
"""How far an element is moved: what it is multiplied with is at most 3, so no sum moves by 1/4."""

# batch channels image filters size stride pad
CONVOLUTIONS = [
    (2, 2, (3, 3), 2, (3, 3), (1, 1), (1, 1)),
    (2, 1, (5, 4), 3, (2, 3), (2, 1), (0, 1)),
    (2, 2, (3, 5), 2, (1, 2), (2, 3), (1, 0)),  # pixels in no window, windows of padding alone
    (1, 2, (2, 3), 2, (2, 2), (1, 2), (2, 3)),  # pad >= size
]
# batch channels image size stride
POOLINGS = [
    (2, 2, (4, 4), (2, 2), (2, 2)),
    (1, 3, (4, 5), (3, 2), (1, 1)),  # pixels in several windows
    (2, 1, (5, 4), (1, 2), (2, 3)),  # pixels in none
]


def whole(shape: tuple[int, ...], largest: int, seed: int) -> Array:
    """Return random whole numbers from -largest to largest."""
    values = np.random.default_rng(seed).integers(-largest, largest + 1, shape)
    return values.astype(np.float32)


def rows(images: Array) -> Array:
    """Return one row for each sample."""
    return images.reshape(len(images), -1)


@cache
def kernel(name: str, **shape: Any) -> Kernel:
    """Return a kernel of the library; tests with the same shape share its program."""
    return LIBRARY[name](**shape)


@frozen
class Chip:
    """The kernels as functions of tensors."""

    engine: str

    def __call__(self, name: str, shape: Shape, **inputs: Array) -> dict[str, Array]:
        return run(kernel(name, **shape), inputs, self.engine).outputs

    def relu(self, x: Array) -> Array:
        shape = {"batch": len(x), "features": x[0].size}
        return self("relu_forward", shape, x=rows(x))["z"].reshape(x.shape)

    def relu_backward(self, x: Array, dz: Array) -> Array:
        shape = {"batch": len(x), "features": x[0].size}
        return self("relu_backward", shape, x=rows(x), dz=rows(dz))["dx"].reshape(x.shape)


@pytest.fixture
def chip(engine: str) -> Chip:
    return Chip(engine)


def slopes(forward: Callable[[Array], Array], at: Array, r: Array) -> Array:
    """Return the slopes of sum(z * r) by every element of `at`, from one forward pass.

    `forward` takes any number of samples, or of filters, and returns z with as many rows.
    """
    moves = STEP * np.eye(at[0].size).reshape(-1, *at.shape[1:])
    moved = at[:, None, None] + np.stack([moves, -moves])
    z = forward(moved.astype(np.float32).reshape(-1, *at.shape[1:])).astype(np.float64)
    sums = (z.reshape(len(at), 2, len(moves), -1) * r.reshape(len(at), 1, 1, -1)).sum(axis=-1)
    return ((sums[:, 0] - sums[:, 1]) / (2 * STEP)).reshape(at.shape)


def assert_equal(gradient: Array, expected: Array) -> None:
    """Fail unless the gradient has every slope, and slopes were found at all."""
    assert expected.any()
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, expected)


class Convolution:
    """A convolution with data. Its sums are whole numbers and a half: none is near ReLU's kink."""

    def __init__(self, case: tuple[Any, ...], chip: Chip, relu: bool = False) -> None:
        batch, channels, (height, width), filters, size, stride, pad = case
        self.chip, self.relu = chip, relu
        self.fixed = {"channels": channels, "height": height, "width": width}
        self.fixed |= {"size": size, "stride": stride, "pad": pad}
        self.shape = {"batch": batch, "filters": filters, **self.fixed}
        self.x = whole((batch, channels, height, width), 3, seed=1)
        self.weight = whole((filters, channels, *size), 3, seed=2)
        self.bias = whole((filters,), 3, seed=3) + np.float32(0.5)

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        shape = {"batch": len(x), "filters": len(weight), "relu": self.relu, **self.fixed}
        return self.chip("conv2d_forward", shape, x=x, weight=weight, bias=bias)["z"]

    def of_images(self, x: Array) -> Array:
        return self.forward(x, self.weight, self.bias)

    def of_filters(self, filters: Array) -> Array:
        """Return z with filters first; a row of `filters` is a filter and, last, its bias."""
        weight = filters[:, :-1].reshape(-1, *self.weight.shape[1:])
        return self.forward(self.x, weight, filters[:, -1]).swapaxes(0, 1)

    def before_relu(self, z: Array, dz: Array) -> Array:
        return self.chip.relu_backward(z, dz) if self.relu else dz


@pytest.mark.parametrize(
    ("case", "relu"),
    [*((case, False) for case in CONVOLUTIONS), (CONVOLUTIONS[0], True)],
    ids=str,
)
def test_convolution(case: tuple[Any, ...], relu: bool, chip: Chip) -> None:
    layer = Convolution(case, chip, relu)
    z = layer.of_images(layer.x)
    r = whole(z.shape, 2, seed=4)
    filters = np.column_stack([rows(layer.weight), layer.bias])
    by_images = slopes(layer.of_images, layer.x, r)
    by_filters = slopes(layer.of_filters, filters, r.swapaxes(0, 1))
    dz = layer.before_relu(z, r)
    data = chip("conv2d_backward_data", layer.shape, dz=dz, weight=layer.weight)
    sums = chip("conv2d_backward_weight", layer.shape, x=layer.x, dz=dz)
    assert_equal(data["dx"], by_images)
    assert_equal(rows(sums["dweight"]), by_filters[:, :-1])
    assert_equal(sums["dbias"], by_filters[:, -1])


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_of_a_relu(case: tuple[Any, ...], chip: Chip) -> None:
    """conv2d_backward_data with relu=True gives the slopes by u where z is of max(u, 0)."""
    layer = Convolution(case, chip)
    u = layer.x + np.float32(0.5)
    x = chip.relu(u)
    r = whole(layer.of_images(x).shape, 2, seed=4)
    expected = slopes(lambda u: layer.of_images(chip.relu(u)), u, r)
    shape = {"relu": True, **layer.shape}
    assert_equal(
        chip("conv2d_backward_data", shape, dz=r, weight=layer.weight, x=x)["dx"], expected
    )


@pytest.mark.parametrize("case", POOLINGS, ids=str)
def test_pooling(case: tuple[Any, ...], chip: Chip) -> None:
    batch, channels, (height, width), size, stride = case
    fixed = {"channels": channels, "height": height, "width": width, "size": size, "stride": stride}
    x = np.random.default_rng(1).permutation(batch * channels * height * width)  # no two are equal
    x = x.reshape(batch, channels, height, width).astype(np.float32)
    pooled = chip("maxpool2d_forward", {"batch": batch, **fixed}, x=x)
    r = whole(pooled["z"].shape, 3, seed=4)
    expected = slopes(
        lambda x: chip("maxpool2d_forward", {"batch": len(x), **fixed}, x=x)["z"], x, r
    )
    shape = {"batch": batch, **fixed}
    assert_equal(chip("maxpool2d_backward", shape, dz=r, index=pooled["index"])["dx"], expected)


@pytest.mark.parametrize(
    ("batch", "features", "outputs", "lr"), [(5, 7, 3, None), (17, 2, 9, 0.25)]
)
def test_fully_connected(
    batch: int, features: int, outputs: int, lr: float | None, chip: Chip
) -> None:
    fixed = {"in_features": features, "out_features": outputs}
    x, weight = whole((batch, features), 3, seed=1), whole((outputs, features), 3, seed=2)
    bias, r = whole((outputs,), 3, seed=3), whole((batch, outputs), 3, seed=4)

    def of_samples(x: Array) -> Array:
        return chip("fc_forward", {"batch": len(x), **fixed}, x=x, weight=weight, bias=bias)["z"]

    def of_outputs(layer: Array) -> Array:
        """Return z with outputs first; a row of `layer` is one's weights and, last, its bias."""
        shape = {"batch": batch, "in_features": features, "out_features": len(layer)}
        return chip("fc_forward", shape, x=x, weight=layer[:, :-1], bias=layer[:, -1])["z"].T

    by_outputs = slopes(of_outputs, np.column_stack([weight, bias]), r.T)
    slopes_by = {"x": slopes(of_samples, x, r)}
    slopes_by |= {"weight": by_outputs[:, :-1], "bias": by_outputs[:, -1]}
    inputs = {"x": x, "weight": weight, "dz": r} | ({} if lr is None else {"bias": bias})
    found = chip("fc_backward", {"batch": batch, "lr": lr, **fixed}, **inputs)
    for name, expected in slopes_by.items():
        assert_equal(found[f"d{name}"], expected)
    if lr is not None:
        assert_equal(found["weight"], weight - lr * slopes_by["weight"])
        assert_equal(found["bias"], bias - lr * slopes_by["bias"])


def test_a_network(chip: Chip) -> None:
    """Convolution with ReLU, pooling, fully connected: the slopes by the images, through it all."""
    first = Convolution((2, 1, (4, 5), 2, (2, 2), (1, 1), (0, 0)), chip, relu=True)
    first.x = whole(first.x.shape, 99, seed=5)
    first.bias -= 150  # so that the ReLU leaves nothing of some windows
    weight, bias, r = whole((3, 8), 3, seed=6), whole((3,), 3, seed=7), whole((2, 3), 2, seed=8)

    def pooling(batch: int) -> Shape:
        fixed = {"channels": 2, "height": 3, "width": 4, "size": (2, 2), "stride": (1, 2)}
        return {"batch": batch, **fixed}

    def connected(batch: int) -> Shape:
        return {"batch": batch, "in_features": 8, "out_features": 3}

    def forward(x: Array) -> Array:
        features = rows(chip("maxpool2d_forward", pooling(len(x)), x=first.of_images(x))["z"])
        return chip("fc_forward", connected(len(x)), x=features, weight=weight, bias=bias)["z"]

    z = first.of_images(first.x)
    assert_no_ties(z)
    pooled, index = chip("maxpool2d_forward", pooling(2), x=z).values()
    assert 0 < np.count_nonzero(pooled) < pooled.size
    dpooled = chip("fc_backward", connected(2), x=rows(pooled), weight=weight, dz=r)["dx"]
    dz = chip("maxpool2d_backward", pooling(2), dz=dpooled.reshape(pooled.shape), index=index)["dx"]
    dx = chip("conv2d_backward_data", first.shape, dz=first.before_relu(z, dz), weight=first.weight)
    assert_equal(dx["dx"], slopes(forward, first.x, r))


def assert_no_ties(z: Array) -> None:
    """Fail if the two largest values of a window are equal: the pooling has a kink there.

    Ties at 0 are none, for the ReLU keeps these values where they are.
    """
    windows = np.lib.stride_tricks.sliding_window_view(z, (2, 2), axis=(2, 3))[:, :, :, ::2]
    *_, second, first = np.sort(windows.reshape(-1, 4)).T
    assert ((first > second) | (first == 0)).all()
