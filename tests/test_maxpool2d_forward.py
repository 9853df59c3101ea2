"""Max pooling forward: values and indices equal to numpy's and PyTorch's, on 1, 3 and 4 cores."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from covering import covering
from isa.errors import UsageError
from isa.language.kernel import Kernel
from kernel_run import Array, assert_near, run
from kernels import maxpool2d_forward, reference

# Every pair of values of two columns stands in some row: a covering set, not the full product.
# batch cores channels image size stride
CASES = [
    (1, 1, 5, (3, 20), (1, 18), (2, 2)),
    (1, 3, 1, (5, 3), (2, 3), (2, 1)),
    (1, 3, 2, (4, 4), (3, 1), (1, 3)),
    (1, 3, 5, (4, 4), (2, 3), (1, 1)),
    (1, 3, 2, (4, 4), (3, 3), (2, 2)),
    (1, 4, 2, (6, 5), (2, 2), (4, 4)),
    (1, 4, 2, (2, 7), (1, 1), (2, 1)),
    (5, 1, 1, (4, 4), (1, 1), (4, 4)),
    (5, 1, 2, (3, 20), (1, 18), (2, 1)),
    (5, 1, 5, (2, 7), (2, 2), (1, 1)),
    (5, 1, 5, (6, 5), (2, 3), (2, 2)),
    (5, 1, 1, (3, 20), (3, 3), (1, 3)),
    (5, 3, 1, (5, 3), (3, 1), (2, 2)),
    (5, 4, 5, (5, 3), (1, 1), (1, 3)),
    (17, 1, 5, (2, 7), (2, 2), (1, 3)),
    (17, 1, 1, (3, 20), (1, 18), (1, 1)),
    (17, 1, 1, (5, 3), (2, 2), (2, 1)),
    (17, 1, 1, (4, 4), (1, 1), (4, 4)),
    (17, 1, 1, (4, 4), (3, 1), (1, 1)),
    (17, 3, 1, (6, 5), (3, 3), (4, 4)),
    (17, 4, 2, (4, 4), (2, 3), (2, 2)),
    (33, 1, 2, (5, 3), (3, 3), (1, 1)),
    (33, 1, 1, (6, 5), (1, 1), (1, 1)),
    (33, 1, 1, (3, 20), (3, 1), (1, 3)),
    (33, 1, 2, (4, 4), (2, 2), (4, 4)),
    (33, 1, 2, (3, 20), (2, 3), (2, 2)),
    (33, 3, 1, (3, 20), (1, 18), (2, 1)),
    (33, 4, 5, (4, 4), (3, 3), (2, 2)),
    (33, 4, 1, (2, 7), (2, 3), (4, 4)),
    (64, 1, 2, (6, 5), (2, 3), (1, 3)),
    (64, 1, 1, (3, 20), (2, 2), (2, 2)),
    (64, 1, 5, (4, 4), (3, 1), (2, 1)),
    (64, 1, 2, (4, 4), (3, 3), (1, 1)),
    (64, 1, 1, (2, 7), (2, 3), (1, 3)),
    (64, 3, 5, (3, 20), (1, 18), (4, 4)),
    (64, 4, 5, (5, 3), (1, 1), (1, 3)),
    (65, 1, 2, (5, 3), (2, 2), (2, 2)),
    (65, 1, 5, (4, 4), (3, 3), (2, 1)),
    (65, 1, 1, (2, 7), (2, 3), (1, 1)),
    (65, 1, 1, (3, 20), (1, 1), (4, 4)),
    (65, 3, 5, (6, 5), (3, 1), (4, 4)),
    (65, 4, 1, (3, 20), (1, 18), (1, 3)),
    (70, 1, 1, (6, 5), (1, 1), (2, 1)),
    (70, 1, 1, (4, 4), (3, 3), (1, 3)),
    (70, 1, 1, (3, 20), (1, 18), (4, 4)),
    (70, 3, 2, (2, 7), (1, 1), (2, 2)),
    (70, 3, 5, (4, 4), (2, 2), (4, 4)),
    (70, 4, 1, (5, 3), (3, 1), (4, 4)),
    (70, 4, 1, (5, 3), (2, 3), (1, 1)),
]

NAN, INFINITY = float("nan"), float("inf")


def kernel_of(case: tuple[Any, ...]) -> Kernel:
    batch, _, channels, (height, width), size, stride = case
    return maxpool2d_forward(
        batch=batch, channels=channels, height=height, width=width, size=size, stride=stride
    )


def images(kernel: Kernel, seed: int) -> Array:
    """Return images of few different values, so that most windows have several maxima."""
    values = np.array([-2.5, -1, -0.0, 0, 0.5, 3], np.float32)
    return np.random.default_rng(seed).choice(values, kernel.inputs["x"].shape)


def pooled(kernel: Kernel, x: Array, engine: str, cores: int = 1) -> dict[str, Array]:
    return run(kernel, {"x": x}, engine, cores).outputs


@cache
def result_of(case: tuple[Any, ...], engine: str) -> tuple[Array, dict[str, Array]]:
    """Return images and outputs of a case; one run serves several tests."""
    kernel = kernel_of(case)
    x = images(kernel, seed=len(str(case)))
    return x, pooled(kernel, x, engine, cores=case[1])


def assert_as_numpy(kernel: Kernel, x: Array, outputs: dict[str, Array]) -> None:
    z, index = reference.maxpool2d_forward(x, kernel.p.size, kernel.p.stride)
    assert (outputs["z"].dtype, outputs["index"].dtype) == (np.float32, np.int64)
    assert_near(outputs["z"], z)
    assert_near(outputs["index"], index)


def assert_as_pytorch(kernel: Kernel, x: Array, outputs: dict[str, Array]) -> None:
    torch = pytest.importorskip("torch")
    z, index = torch.nn.functional.max_pool2d(
        torch.from_numpy(x).double(), kernel.p.size, kernel.p.stride, return_indices=True
    )
    assert_near(outputs["z"], z.numpy())
    assert_near(outputs["index"], index.numpy())


@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_numpy(case: tuple[Any, ...], engine: str) -> None:
    assert_as_numpy(kernel_of(case), *result_of(case, engine))


@pytest.mark.usefixtures("torch")
@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_pytorch(case: tuple[Any, ...], engine: str) -> None:
    assert_as_pytorch(kernel_of(case), *result_of(case, engine))


def test_a_hand_worked_pooling(engine: str) -> None:
    # 1 9 2 0 7    windows 2 x 2, stride 2: the last column and row are left out.
    # 3 4 8 8 7    Left: 9 at row 0, column 1. Right: 8 at row 1, column 2, the first of two.
    # 9 9 9 9 9
    x = np.array([[1, 9, 2, 0, 7], [3, 4, 8, 8, 7], [9, 9, 9, 9, 9]], np.float32)
    kernel = maxpool2d_forward(batch=1, channels=1, height=3, width=5)
    outputs = pooled(kernel, x[None, None], engine)
    assert outputs["z"].tolist() == [[[[9, 8]]]]
    assert outputs["index"].tolist() == [[[[1, 7]]]]


SPECIAL = {
    "all NaN": [NAN, NAN, NAN, NAN],
    "NaN first": [NAN, 1, 2, INFINITY],
    "NaN last": [INFINITY, 1, 2, NAN],
    "NaN between": [1, NAN, 2, NAN],
    "all -inf": [-INFINITY, -INFINITY, -INFINITY, -INFINITY],
    "-inf and less than nothing": [-INFINITY, -3e38, -INFINITY, -3e38],
    "inf twice": [0, INFINITY, 1, INFINITY],
    "zeros of both signs": [-0.0, 0.0, -0.0, 0.0],
    "subnormal": [0.0, 1e-45, 0.0, 1e-45],
    "all equal": [2, 2, 2, 2],
}


def special_images() -> Array:
    """Return images of 2 x 4: the four values of every row above, then the same backwards."""
    values = np.array(list(SPECIAL.values()), np.float32)
    both = np.stack([values, values[:, ::-1]], axis=1)
    return both.reshape(len(values), 1, 2, 4)


SPECIAL_KERNELS = [
    maxpool2d_forward(batch=len(SPECIAL), channels=1, height=2, width=4, size=size, stride=stride)
    for size, stride in [((2, 2), 2), ((1, 4), 1), ((2, 3), 1)]
]


@pytest.mark.parametrize("kernel", SPECIAL_KERNELS, ids=["2x2", "1x4", "2x3"])
def test_special_values_against_numpy(kernel: Kernel, engine: str) -> None:
    x = special_images()
    assert_as_numpy(kernel, x, pooled(kernel, x, engine))


@pytest.mark.parametrize("kernel", SPECIAL_KERNELS, ids=["2x2", "1x4", "2x3"])
def test_special_values_against_pytorch(kernel: Kernel, engine: str) -> None:
    x = special_images()
    assert_as_pytorch(kernel, x, pooled(kernel, x, engine))


def test_a_nan_wins_and_of_several_the_last(engine: str) -> None:
    # Worked by hand for windows of one row: of [1, NaN, 2, NaN] and backwards, columns 3 and 2.
    kernel = maxpool2d_forward(batch=1, channels=1, height=2, width=4, size=(1, 4), stride=1)
    x = special_images()[list(SPECIAL).index("NaN between")][None]
    outputs = pooled(kernel, x, engine)
    assert np.isnan(outputs["z"]).all()
    assert outputs["index"].ravel().tolist() == [3, 4 + 2]


def test_minus_infinity_is_a_value_with_a_place(engine: str) -> None:
    kernel = maxpool2d_forward(batch=2, channels=3, height=4, width=4, stride=2)
    x = np.full((2, 3, 4, 4), -np.inf, np.float32)
    outputs = pooled(kernel, x, engine)
    assert (outputs["z"] == -np.inf).all()
    assert outputs["index"][0, 0].tolist() == [[0, 2], [8, 10]]
    assert_as_numpy(kernel, x, outputs)


@pytest.mark.parametrize("width", [15, 16, 17, 33])
def test_a_window_as_wide_as_the_image(width: int, engine: str) -> None:
    # One position; windows wider than 16 pixels come in pieces, the last of them shorter.
    kernel = maxpool2d_forward(
        batch=17, channels=2, height=2, width=width, size=(2, width), stride=1
    )
    x = images(kernel, width)
    outputs = pooled(kernel, x, engine)
    assert outputs["z"].shape == (17, 2, 1, 1)
    assert_as_numpy(kernel, x, outputs)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), cores=st.integers(1, 4))
def test_any_small_shape(data: st.DataObject, cores: int, engine: str) -> None:
    extents = st.tuples(st.integers(1, 6), st.integers(1, 6))
    (height, width), size = data.draw(extents), data.draw(extents)
    assume(size[0] <= height and size[1] <= width)
    kernel = maxpool2d_forward(
        batch=data.draw(st.integers(1, 40)), channels=data.draw(st.integers(1, 4)),
        height=height, width=width, size=size, stride=data.draw(extents),
    )  # fmt: skip
    x = images(kernel, data.draw(st.integers(0, 99)))
    x[np.random.default_rng(1).random(x.shape) < 0.05] = np.nan
    assert_as_numpy(kernel, x, pooled(kernel, x, engine, cores))


def test_a_window_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UsageError, match="window 3x5 is larger than the image 4x4"):
        maxpool2d_forward(height=4, width=4, size=(3, 5))
