"""Convolution forward at awkward shapes, against numpy float64 and PyTorch, on 1, 3 and 4 cores."""

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
from kernel_run import Array, assert_near, assert_sums, run, sprinkled
from kernels import conv2d_forward, reference

# Every pair of values of two columns stands in some row: a covering set, not the full product.
# batch cores channels image filters size stride pad relu layout
CASES = [
    (1, 1, 2, (4, 4), 3, (3, 3), (2, 2), (0, 0), True, "nchw"),
    (1, 3, 1, (6, 2), 8, (1, 5), (2, 1), (0, 3), True, "nchw"),
    (1, 3, 5, (3, 7), 3, (7, 7), (1, 1), (2, 2), True, "nchw"),
    (1, 3, 2, (4, 4), 17, (5, 5), (2, 2), (3, 3), False, "nchw"),
    (1, 4, 2, (1, 6), 1, (1, 1), (1, 1), (0, 3), True, "columns"),
    (1, 4, 1, (5, 5), 8, (1, 5), (2, 2), (3, 3), True, "columns"),
    (1, 4, 1, (6, 2), 9, (3, 3), (2, 2), (1, 1), False, "columns"),
    (5, 1, 1, (3, 7), 9, (1, 1), (2, 2), (3, 3), False, "columns"),
    (5, 1, 2, (4, 4), 17, (3, 3), (2, 2), (1, 1), True, "columns"),
    (5, 1, 5, (3, 7), 17, (1, 5), (2, 2), (0, 3), True, "nchw"),
    (5, 1, 1, (5, 5), 8, (3, 3), (2, 2), (2, 2), False, "nchw"),
    (5, 1, 1, (6, 2), 1, (5, 5), (1, 1), (2, 2), True, "nchw"),
    (5, 3, 2, (5, 5), 3, (5, 5), (2, 1), (0, 0), False, "columns"),
    (5, 4, 1, (4, 4), 9, (7, 7), (2, 2), (2, 2), False, "columns"),
    (5, 4, 5, (1, 6), 17, (1, 1), (2, 1), (0, 0), True, "nchw"),
    (17, 1, 5, (6, 2), 17, (1, 1), (2, 2), (1, 1), False, "columns"),
    (17, 1, 2, (3, 7), 1, (3, 3), (2, 1), (0, 0), True, "nchw"),
    (17, 1, 2, (1, 6), 8, (3, 3), (2, 2), (3, 3), False, "nchw"),
    (17, 1, 2, (4, 4), 3, (7, 7), (2, 2), (2, 2), False, "nchw"),
    (17, 1, 2, (6, 2), 1, (5, 5), (2, 1), (0, 3), False, "nchw"),
    (17, 3, 2, (5, 5), 9, (1, 5), (2, 1), (0, 0), False, "columns"),
    (17, 4, 1, (1, 6), 9, (5, 5), (1, 1), (2, 2), True, "nchw"),
    (33, 1, 5, (4, 4), 9, (3, 3), (2, 2), (0, 3), False, "columns"),
    (33, 1, 2, (6, 2), 8, (1, 1), (1, 1), (0, 0), False, "columns"),
    (33, 1, 1, (5, 5), 17, (7, 7), (1, 1), (1, 1), True, "nchw"),
    (33, 1, 1, (1, 6), 3, (5, 5), (2, 1), (3, 3), False, "nchw"),
    (33, 3, 2, (4, 4), 1, (1, 5), (2, 1), (1, 1), True, "columns"),
    (33, 4, 1, (3, 7), 8, (7, 7), (2, 2), (2, 2), False, "columns"),
    (64, 1, 1, (3, 7), 3, (1, 1), (2, 1), (2, 2), True, "columns"),
    (64, 1, 2, (4, 4), 17, (5, 5), (2, 2), (2, 2), True, "columns"),
    (64, 1, 1, (4, 4), 8, (7, 7), (1, 1), (3, 3), False, "columns"),
    (64, 1, 5, (5, 5), 1, (5, 5), (1, 1), (0, 0), False, "columns"),
    (64, 1, 5, (1, 6), 8, (1, 5), (1, 1), (0, 0), False, "nchw"),
    (64, 3, 2, (1, 6), 9, (3, 3), (2, 2), (1, 1), True, "columns"),
    (64, 4, 2, (6, 2), 3, (5, 5), (2, 2), (0, 3), False, "columns"),
    (65, 1, 5, (5, 5), 1, (5, 5), (2, 1), (0, 3), False, "columns"),
    (65, 1, 1, (1, 6), 17, (1, 1), (2, 2), (0, 0), False, "columns"),
    (65, 3, 2, (1, 6), 8, (1, 5), (1, 1), (0, 0), True, "columns"),
    (65, 3, 2, (6, 2), 1, (7, 7), (2, 2), (3, 3), False, "nchw"),
    (65, 3, 5, (4, 4), 3, (1, 1), (2, 2), (1, 1), False, "nchw"),
    (65, 3, 2, (4, 4), 9, (7, 7), (2, 2), (2, 2), False, "nchw"),
    (65, 4, 1, (3, 7), 1, (3, 3), (2, 2), (0, 0), True, "nchw"),
    (70, 1, 2, (3, 7), 8, (5, 5), (2, 2), (1, 1), False, "columns"),
    (70, 1, 1, (4, 4), 17, (3, 3), (1, 1), (0, 0), True, "columns"),
    (70, 1, 5, (1, 6), 1, (7, 7), (2, 1), (3, 3), True, "nchw"),
    (70, 1, 5, (6, 2), 8, (5, 5), (2, 1), (0, 3), False, "nchw"),
    (70, 3, 1, (5, 5), 9, (1, 1), (2, 2), (0, 0), False, "columns"),
    (70, 4, 2, (6, 2), 3, (1, 5), (2, 2), (2, 2), False, "nchw"),
]


def kernel_of(case: tuple[Any, ...]) -> Kernel:
    batch, _, channels, image, filters, size, stride, pad, relu, layout = case
    return conv2d_forward(
        batch=batch, channels=channels, height=image[0], width=image[1], filters=filters,
        size=size, stride=stride, pad=pad, relu=relu, layout=layout,
    )  # fmt: skip


@cache
def result_of(case: tuple[Any, ...], engine: str) -> tuple[dict[str, Array], Array]:
    """Return inputs and output of a case; one run serves several tests."""
    kernel = kernel_of(case)
    inputs = kernel.make_inputs(seed=len(str(case)))
    return inputs, run(kernel, inputs, engine, cores=case[1]).outputs["z"]


def terms_of(kernel: Kernel) -> int:
    p = kernel.p
    return int(p.channels * p.size[0] * p.size[1])


def assert_right(kernel: Kernel, inputs: dict[str, Array], z: Array) -> None:
    """Compare with numpy float64."""
    p, tensors = kernel.p, (inputs["x"], inputs["weight"], inputs["bias"])
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = reference.conv2d_magnitude(*tensors, p.stride, p.pad)
    expected = reference.conv2d_forward(*tensors, p.stride, p.pad, p.relu)
    assert z.dtype == np.float32
    assert_sums(z, expected, magnitude, terms_of(kernel))


def in_pytorch(kernel: Kernel, inputs: dict[str, Array]) -> Array:
    """Return PyTorch's result in float64."""
    torch = pytest.importorskip("torch")
    p = kernel.p
    x, weight, bias = (torch.from_numpy(inputs[n]).double() for n in ("x", "weight", "bias"))
    z = torch.nn.functional.conv2d(x, weight, bias, stride=p.stride, padding=p.pad)
    result: Array = (z.relu() if p.relu else z).numpy()
    return result


@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_numpy(case: tuple[Any, ...], engine: str) -> None:
    inputs, z = result_of(case, engine)
    assert_right(kernel_of(case), inputs, z)


@pytest.mark.usefixtures("torch")
@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_pytorch(case: tuple[Any, ...], engine: str) -> None:
    kernel = kernel_of(case)
    inputs, z = result_of(case, engine)
    magnitudes = {name: np.abs(tensor) for name, tensor in inputs.items()}
    assert_sums(z, in_pytorch(kernel, inputs), in_pytorch(kernel, magnitudes), terms_of(kernel))


def test_a_hand_worked_convolution(engine: str) -> None:
    # 1 2 3           1*1 + 2*2 + 4*3 + 5*4 = 37    2*1 + 3*2 + 5*3 + 6*4 = 47
    # 4 5 6  with 1 2:
    # 7 8 9       3 4 4*1 + 5*2 + 7*3 + 8*4 = 67    5*1 + 6*2 + 8*3 + 9*4 = 77, and -50 for all
    kernel = conv2d_forward(batch=1, channels=1, height=3, width=3, filters=1, size=2, pad=0)
    inputs = {
        "x": np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3),
        "weight": np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2),
        "bias": np.array([-50], np.float32),
    }
    z = run(kernel, inputs, engine).outputs["z"]
    assert z.tolist() == [[[[-13, -3], [17, 27]]]]


@pytest.mark.parametrize("relu", [False, True])
def test_a_window_without_a_real_pixel_gives_the_bias(relu: bool, engine: str) -> None:
    # One row of two pixels padded by 2 and 3: of 5 x 8 windows only [2, 3] and [2, 4] see one.
    kernel = conv2d_forward(
        batch=5, channels=2, height=1, width=2, filters=9, size=1, pad=(2, 3), relu=relu
    )
    inputs = kernel.make_inputs(3)
    z = run(kernel, inputs, engine, cores=3).outputs["z"]
    assert z.shape == (5, 9, 5, 8)
    bias = np.maximum(inputs["bias"], 0) if relu else inputs["bias"]
    outside = np.ones((5, 8), bool)
    outside[2, 3:5] = False
    assert (z[:, :, outside] == bias[None, :, None]).all()
    assert_right(kernel, inputs, z)


@pytest.mark.parametrize("layout", ["columns", "nchw"])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_flow_as_in_ieee(relu: bool, layout: str, engine: str) -> None:
    kernel = conv2d_forward(
        batch=20, channels=2, height=4, width=3, filters=9, size=2, pad=1, relu=relu, layout=layout
    )
    inputs = sprinkled(kernel.make_inputs(4))
    z = run(kernel, inputs, engine).outputs["z"]
    for special in (np.isnan, np.isposinf) if relu else (np.isnan, np.isposinf, np.isneginf):
        assert 0 < special(z).sum() < z.size // 2
    assert_right(kernel, inputs, z)


@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_as_in_pytorch(relu: bool, engine: str) -> None:
    # Without padding, which PyTorch multiplies as zeros.
    kernel = conv2d_forward(
        batch=20, channels=2, height=4, width=3, filters=9, size=2, pad=0, relu=relu
    )
    inputs = sprinkled(kernel.make_inputs(5))
    expected = in_pytorch(kernel, inputs)
    assert 0 < np.isnan(expected).sum() < expected.size // 2
    assert_near(run(kernel, inputs, engine).outputs["z"], expected, 1e-5)


def test_an_infinite_weight_that_meets_only_padding_leaves_no_nan(engine: str) -> None:
    # 3 x 3 on one pixel padded by 1: eight of the nine weights meet padding.
    kernel = conv2d_forward(batch=3, channels=1, height=1, width=1, filters=1, size=3, pad=1)
    inputs = kernel.make_inputs(6)
    inputs["weight"][:] = np.inf
    inputs["weight"][0, 0, 1, 1] = 2
    z = run(kernel, inputs, engine).outputs["z"]
    assert_near(z.ravel(), inputs["x"].ravel() * 2 + inputs["bias"], 1e-6)


SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 40),
        "channels": st.integers(1, 4),
        "height": st.integers(1, 4),
        "width": st.integers(1, 4),
        "filters": st.integers(1, 10),
        "size": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "pad": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "relu": st.booleans(),
        "layout": st.sampled_from(["columns", "nchw"]),
    }
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, cores=st.integers(1, 4), seed=st.integers(0, 99))
def test_any_small_shape(shape: dict[str, Any], cores: int, seed: int, engine: str) -> None:
    for extent, size, pad in zip(
        (shape["height"], shape["width"]), shape["size"], shape["pad"], strict=True
    ):
        assume(size <= extent + 2 * pad)
    kernel = conv2d_forward(**shape)
    inputs = kernel.make_inputs(seed)
    assert_right(kernel, inputs, run(kernel, inputs, engine, cores).outputs["z"])


def test_a_kernel_larger_than_the_padded_image_is_refused() -> None:
    with pytest.raises(UsageError, match=r"kernel width 6 is larger .* 5 \(width 3, pad 1\)"):
        conv2d_forward(height=9, width=3, size=(3, 6), pad=1)
