"""Max pooling backward: dx equal to numpy's and PyTorch's, on 1, 3 and 4 cores, both variants.

Gradients are eighths of small integers, so that every sum is exact in float32 and any order of
additions must give the same dx.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from covering import covering
from isa.language.kernel import Kernel
from kernel_run import Array, assert_near, machine, run
from kernels import maxpool2d_backward, maxpool2d_forward, reference
from simulator.simulate import Run

# Every pair of values of two columns stands in some row: a covering set, not the full product.
# batch cores channels image size stride
CASES = [
    (1, 1, 5, (3, 4), (1, 1), (1, 2)),
    (1, 1, 5, (2, 20), (1, 18), (2, 2)),
    (1, 3, 1, (5, 4), (2, 2), (2, 1)),
    (1, 3, 1, (5, 5), (5, 5), (1, 1)),
    (1, 3, 1, (2, 20), (1, 18), (1, 1)),
    (1, 3, 2, (5, 6), (3, 3), (4, 4)),
    (1, 4, 1, (7, 3), (5, 2), (4, 4)),
    (1, 4, 2, (4, 5), (3, 2), (1, 3)),
    (5, 1, 1, (4, 5), (3, 2), (2, 1)),
    (5, 1, 1, (5, 5), (5, 5), (2, 2)),
    (5, 1, 2, (7, 3), (5, 2), (1, 1)),
    (5, 3, 1, (3, 4), (1, 1), (4, 4)),
    (5, 3, 1, (5, 4), (2, 2), (1, 2)),
    (5, 3, 5, (5, 5), (5, 5), (1, 3)),
    (5, 4, 1, (5, 6), (3, 3), (1, 3)),
    (5, 4, 1, (2, 20), (1, 18), (4, 4)),
    (17, 1, 1, (3, 4), (1, 1), (1, 3)),
    (17, 1, 1, (5, 6), (3, 3), (2, 2)),
    (17, 3, 1, (5, 5), (5, 5), (4, 4)),
    (17, 3, 2, (2, 20), (1, 18), (1, 2)),
    (17, 4, 1, (5, 4), (2, 2), (1, 1)),
    (17, 4, 1, (4, 5), (3, 2), (1, 1)),
    (17, 4, 5, (7, 3), (5, 2), (2, 1)),
    (33, 1, 1, (5, 4), (2, 2), (1, 3)),
    (33, 1, 2, (5, 4), (2, 2), (4, 4)),
    (33, 3, 1, (7, 3), (5, 2), (2, 2)),
    (33, 4, 1, (3, 4), (1, 1), (2, 1)),
    (33, 4, 1, (4, 5), (3, 2), (1, 2)),
    (33, 4, 1, (5, 5), (5, 5), (1, 2)),
    (33, 4, 1, (2, 20), (1, 18), (2, 1)),
    (33, 4, 5, (5, 6), (3, 3), (1, 1)),
    (64, 1, 1, (5, 4), (2, 2), (2, 2)),
    (64, 1, 1, (2, 20), (1, 18), (1, 3)),
    (64, 1, 1, (7, 3), (5, 2), (1, 2)),
    (64, 3, 1, (5, 6), (3, 3), (2, 1)),
    (64, 3, 1, (5, 5), (5, 5), (1, 1)),
    (64, 3, 5, (4, 5), (3, 2), (4, 4)),
    (64, 4, 2, (3, 4), (1, 1), (2, 2)),
    (65, 1, 2, (5, 5), (5, 5), (2, 1)),
    (65, 3, 1, (3, 4), (1, 1), (1, 1)),
    (65, 3, 1, (2, 20), (1, 18), (4, 4)),
    (65, 3, 1, (7, 3), (5, 2), (1, 3)),
    (65, 4, 1, (5, 6), (3, 3), (1, 2)),
    (65, 4, 1, (4, 5), (3, 2), (2, 2)),
    (65, 4, 5, (5, 4), (2, 2), (2, 2)),
]

INDEXED = [
    (1, 1, 2, (5, 4), (2, 2), (2, 2)),
    (3, 4, 1, (4, 5), (3, 3), (2, 2)),
    (5, 3, 2, (4, 5), (3, 2), (1, 2)),
    (2, 1, 1, (5, 5), (5, 5), (1, 1)),
    (17, 1, 1, (6, 5), (2, 3), (4, 4)),
    (2, 1, 3, (3, 2), (1, 1), (1, 1)),
    (66, 1, 1, (2, 2), (2, 1), (1, 1)),
]

NAN, INFINITY = float("nan"), float("inf")


def kernel_of(case: tuple[Any, ...], variant: str = "rows") -> Kernel:
    batch, _, channels, (height, width), size, stride = case
    return maxpool2d_backward(
        batch=batch, channels=channels, height=height, width=width, size=size, stride=stride,
        variant=variant,
    )  # fmt: skip


def eighths(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Return numbers whose sums are exact."""
    return generator.integers(-64, 65, shape).astype(np.float32) / 8


def images(kernel: Kernel, generator: np.random.Generator) -> Array:
    """Return images of few different values, so that neighbouring windows share maxima."""
    return generator.integers(-2, 3, kernel.outputs["dx"].shape).astype(np.float32)


def inputs_of(kernel: Kernel, seed: int) -> dict[str, Array]:
    """Return gradients, and the indices of an image's maxima from the numpy reference."""
    generator = np.random.default_rng(seed)
    x = images(kernel, generator)
    index = reference.maxpool2d_forward(x, kernel.p.size, kernel.p.stride)[1]
    return {"x": x, "dz": eighths(index.shape, generator), "index": index}


def tensors(inputs: dict[str, Array]) -> dict[str, Array]:
    return {"dz": inputs["dz"], "index": inputs["index"]}


@cache
def result_of(case: tuple[Any, ...], variant: str, engine: str) -> tuple[dict[str, Array], Run]:
    """Return inputs and run of a case; one run serves several tests."""
    kernel = kernel_of(case, variant)
    inputs = inputs_of(kernel, seed=len(str(case)))
    return inputs, run(kernel, tensors(inputs), engine, cores=case[1])


def expected(kernel: Kernel, inputs: dict[str, Array]) -> Array:
    shape = kernel.outputs["dx"].shape
    return reference.maxpool2d_backward(inputs["dz"], inputs["index"], shape)


BY_INDEX = [(case, "indexed") for case in INDEXED]
BOTH = [(case, "rows") for case in CASES] + BY_INDEX
COMPILED = [(case, "rows") for case in covering(CASES)] + BY_INDEX


@pytest.mark.on_engines("case_and_variant", BOTH, compiled=COMPILED)
def test_against_numpy(case_and_variant: tuple[Any, str], engine: str) -> None:
    case, variant = case_and_variant
    inputs, result = result_of(case, variant, engine)
    dx = result.outputs["dx"]
    assert dx.dtype == np.float32
    assert_near(dx, expected(kernel_of(case), inputs))


@pytest.mark.on_engines("case_and_variant", BOTH, compiled=COMPILED)
def test_against_pytorch(case_and_variant: tuple[Any, str], engine: str) -> None:
    torch = pytest.importorskip("torch")
    case, variant = case_and_variant
    inputs, result = result_of(case, variant, engine)
    x = torch.from_numpy(inputs["x"]).double().requires_grad_()
    _, _, _, _, size, stride = case
    z, index = torch.nn.functional.max_pool2d(x, size, stride, return_indices=True)
    z.backward(torch.from_numpy(inputs["dz"]).double())
    assert (index.numpy() == inputs["index"]).all()
    assert_near(result.outputs["dx"], x.grad.numpy())


@pytest.mark.parametrize("variant", ["rows", "indexed"])
def test_a_hand_worked_gradient(variant: str, engine: str) -> None:
    # Windows of 2 x 2 on 3 x 4 pixels, one step apart: 2 x 3 of them; pixels are numbered
    #    0 1  2  3    The maximum is pixel 5 for the windows 0, 1, 3 and 4 and pixel 7 for windows
    #    4 5  6  7    2 and 5. So dx is 1 + 2 + 8 + 16 at pixel 5, 4 + 32 at pixel 7.
    #    8 9 10 11
    kernel = maxpool2d_backward(
        batch=1, channels=1, height=3, width=4, size=2, stride=1, variant=variant
    )
    index = np.array([[[[5, 5, 7], [5, 5, 7]]]])
    dz = np.array([[[[1, 2, 4], [8, 16, 32]]]], np.float32)
    dx = run(kernel, {"dz": dz, "index": index}, engine).outputs["dx"]
    assert dx.tolist() == [[[[0, 0, 0, 0], [0, 27, 0, 36], [0, 0, 0, 0]]]]


@pytest.mark.parametrize("variant", ["rows", "indexed"])
def test_pixels_between_and_behind_windows_get_zero(variant: str, engine: str) -> None:
    # Windows of 1 x 2, 3 x 4 steps apart on 5 x 7 pixels: at rows 0 and 3, columns 0 and 4.
    kernel = maxpool2d_backward(
        batch=2, channels=1, height=5, width=7, size=(1, 2), stride=(3, 4), variant=variant
    )
    index = np.array([[[[1, 4], [21, 26]]], [[[0, 5], [22, 25]]]])
    dz = np.arange(1, 9, dtype=np.float32).reshape(2, 1, 2, 2)
    dx = run(kernel, {"dz": dz, "index": index}, engine).outputs["dx"]
    wanted = np.zeros((2, 35))
    wanted[0, [1, 4, 21, 26]] = 1, 2, 3, 4
    wanted[1, [0, 5, 22, 25]] = 5, 6, 7, 8
    assert dx.reshape(2, 35).tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("size", "stride"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 3), (3, 1))], ids=str
)
def test_the_index_of_the_forward_kernel_fits(
    size: tuple[int, int], stride: tuple[int, int], engine: str
) -> None:
    shape = {"batch": 20, "channels": 3, "height": 5, "width": 6, "size": size, "stride": stride}
    forward, backward = maxpool2d_forward(**shape), maxpool2d_backward(**shape)
    x = forward.make_inputs(seed=1)["x"]
    pooled = run(forward, {"x": x}, engine, 3).outputs
    gradients = {"dz": pooled["z"], "index": pooled["index"]}
    dx = run(backward, gradients, engine, 3).outputs["dx"]
    # z itself comes back to where it was, once for each window that chose the pixel.
    chosen = reference.maxpool2d_backward(np.ones_like(pooled["z"]), pooled["index"], x.shape)
    assert_near(dx, chosen * x.astype(np.float64), allowed=1e-6)
    assert (dx[chosen == 0] == 0).all()


def test_gradients_that_are_not_chosen_leak_nowhere(engine: str) -> None:
    for variant, case in (
        ("rows", (33, 1, 2, (4, 5), (2, 2), (2, 2))),
        ("rows", (33, 1, 2, (4, 5), (3, 2), (1, 2))),
        ("indexed", (3, 1, 2, (4, 5), (3, 2), (1, 2))),
    ):
        kernel = kernel_of(case, variant)
        inputs = kernel.make_inputs(seed=3)
        for place, value in ((1, NAN), (2, INFINITY), (5, -INFINITY), (7, -0.0)):
            inputs["dz"].reshape(-1)[place::11] = value
        dx = run(kernel, inputs, engine).outputs["dx"]
        truth = reference.maxpool2d_backward(inputs["dz"], inputs["index"], dx.shape)
        assert np.isnan(truth).any()
        assert np.isinf(truth).any()
        assert (np.isfinite(dx) == np.isfinite(truth)).all()
        assert_near(dx, truth, allowed=1e-6)


def test_opposite_infinities_for_one_pixel_are_nan(engine: str) -> None:
    kernel = maxpool2d_backward(batch=1, channels=1, height=1, width=3, size=(1, 2), stride=1)
    inputs = {
        "dz": np.array([[[[INFINITY, -INFINITY]]]], np.float32),
        "index": np.array([[[[1, 1]]]]),
    }
    (dx,) = run(kernel, inputs, engine).outputs["dx"].reshape(1, 3).tolist()
    assert np.isnan(dx[1])
    assert (dx[0], dx[2]) == (0, 0)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), cores=st.integers(1, 4), variant=st.sampled_from(["rows"] * 3 + ["indexed"]))
def test_any_small_shape(data: st.DataObject, cores: int, variant: str, engine: str) -> None:
    extents = st.tuples(st.integers(1, 6), st.integers(1, 6))
    (height, width), size = data.draw(extents), data.draw(extents)
    assume(size[0] <= height and size[1] <= width)
    kernel = maxpool2d_backward(
        batch=data.draw(st.integers(1, 40 if variant == "rows" else 3)),
        channels=data.draw(st.integers(1, 6 if variant == "rows" else 2)),
        height=height, width=width, size=size, stride=data.draw(extents), variant=variant,
    )  # fmt: skip
    inputs = kernel.make_inputs(data.draw(st.integers(0, 99)))
    inputs["dz"] = eighths(inputs["dz"].shape, np.random.default_rng(1))
    assert_near(run(kernel, inputs, engine, cores).outputs["dx"], expected(kernel, inputs))


# Transfers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2, 2), (1, 2), (3, 2)], ids=str)
def test_windows_that_lie_apart_are_read_once_and_dx_is_written_once(
    size: tuple[int, int], engine: str
) -> None:
    # 32 samples: rows of 128 bytes, whole bursts.
    kernel = maxpool2d_backward(batch=32, channels=6, height=7, width=9, size=size, stride=(3, 2))
    result = run(kernel, kernel.make_inputs(1), engine)
    _, _, rows, columns = kernel.inputs["dz"].shape
    read = sum(t.ddr_bytes for t in result.result.transfers if t.source.startswith(("dz", "index")))
    assert read == 2 * 128 * 6 * rows * columns
    written = sum(t.ddr_bytes for t in result.result.transfers if t.destination.startswith("dx"))
    assert written == 128 * 6 * 7 * 9


@pytest.mark.parametrize(
    ("size", "stride"), [((100, 100), (100, 100)), ((3, 2), (100, 100)), ((60, 70), (1, 1))]
)
def test_programs_do_not_grow_with_windows_and_strides(
    size: tuple[int, int], stride: tuple[int, int]
) -> None:
    kernel = maxpool2d_backward(
        batch=64, channels=3, height=230, width=250, size=size, stride=stride
    )
    assert len(kernel.program(machine()).packets) < 600


def test_a_stride_of_a_hundred(engine: str) -> None:
    # 3 x 1 windows of 2 x 100, rows 0, 100 and 200: all other rows are zeros.
    kernel = maxpool2d_backward(
        batch=2, channels=1, height=205, width=101, size=(2, 100), stride=(100, 100)
    )
    index = np.array([[[[99], [10_100], [20_301]]], [[[101], [10_298], [20_200]]]])
    dz = np.array([1, 2, 3, 4, 5, 6], np.float32).reshape(2, 1, 3, 1)
    dx = run(kernel, {"dz": dz, "index": index}, engine).outputs["dx"].reshape(2, -1)
    assert [np.flatnonzero(image).tolist() for image in dx] == [
        [99, 10_100, 20_301], [101, 10_298, 20_200],
    ]  # fmt: skip
    assert dx[dx != 0].tolist() == [1, 2, 3, 4, 5, 6]
