"""Fully connected forward at awkward shapes, against numpy float64 and PyTorch."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covering import covering
from isa.language.kernel import Kernel
from kernel_run import Array, assert_near, assert_sums, run, sprinkled
from kernels import fc_forward, reference

# batch cores in_features out_features relu
CASES = [
    (1, 1, 1, 1, False), (1, 3, 31, 17, True), (1, 4, 100, 8, False),
    (5, 1, 2, 9, True), (5, 3, 64, 24, False), (5, 4, 3, 1, True),
    (17, 1, 100, 17, False), (17, 3, 1, 8, True), (17, 4, 31, 9, False),
    (33, 1, 64, 1, True), (33, 3, 2, 17, False), (33, 4, 64, 24, True),
    (64, 1, 3, 40, False), (64, 3, 100, 1, True), (64, 4, 2, 8, True),
    (65, 1, 31, 8, True), (65, 3, 3, 9, False), (65, 4, 64, 17, True),
    (70, 1, 1, 9, True), (70, 3, 31, 40, False), (70, 4, 1, 17, False),
    (130, 1, 7, 3, False), (257, 4, 5, 10, True),
    (3, 1, 1000, 3, True), (64, 1, 1300, 8, False),
]  # fmt: skip


def kernel_of(case: tuple[Any, ...]) -> Kernel:
    batch, _, inputs, outputs, relu = case
    return fc_forward(batch=batch, in_features=inputs, out_features=outputs, relu=relu)


@cache
def result_of(case: tuple[Any, ...], engine: str) -> tuple[dict[str, Array], Array]:
    """Return inputs and output of a case; one run serves several tests."""
    kernel = kernel_of(case)
    inputs = kernel.make_inputs(seed=len(str(case)))
    return inputs, run(kernel, inputs, engine, cores=case[1]).outputs["z"]


def assert_right(kernel: Kernel, inputs: dict[str, Array], z: Array) -> None:
    """Compare with numpy float64."""
    tensors = inputs["x"], inputs["weight"], inputs["bias"]
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = reference.fc_magnitude(*tensors)
    assert z.dtype == np.float32
    assert_sums(z, reference.fc_forward(*tensors, kernel.p.relu), magnitude, kernel.p.in_features)


def in_pytorch(kernel: Kernel, inputs: dict[str, Array]) -> Array:
    """Return PyTorch's result in float64."""
    torch = pytest.importorskip("torch")
    x, weight, bias = (torch.from_numpy(inputs[n]).double() for n in ("x", "weight", "bias"))
    z = torch.nn.functional.linear(x, weight, bias)
    result: Array = (z.relu() if kernel.p.relu else z).numpy()
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
    assert_sums(z, in_pytorch(kernel, inputs), in_pytorch(kernel, magnitudes), kernel.p.in_features)


def test_a_hand_worked_layer(engine: str) -> None:
    # 1*4 + 2*5 + 3*6 = 32 and 1*-1 + 2*0 + 3*1 = 2, plus biases; the second x is minus the first.
    kernel = fc_forward(batch=2, in_features=3, out_features=2)
    inputs = {
        "x": np.array([[1, 2, 3], [-1, -2, -3]], np.float32),
        "weight": np.array([[4, 5, 6], [-1, 0, 1]], np.float32),
        "bias": np.array([0.5, 10], np.float32),
    }
    z = run(kernel, inputs, engine).outputs["z"]
    assert z.tolist() == [[32.5, 12], [-31.5, 8]]


def test_products_are_rounded_once(engine: str) -> None:
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24; minus (1 + 2^-11) leaves 2^-24, which a product rounded
    # to 24 bits before the addition would have lost.
    kernel = fc_forward(batch=1, in_features=1, out_features=1)
    factor = np.float32(1 + 2**-12)
    inputs = {
        "x": np.full((1, 1), factor),
        "weight": np.full((1, 1), factor),
        "bias": np.array([-(1 + 2**-11)], np.float32),
    }
    assert run(kernel, inputs, engine).outputs["z"].tolist() == [[2**-24]]


SPRINKLED = fc_forward(batch=20, in_features=9, out_features=17)
CLIPPED = fc_forward(batch=20, in_features=9, out_features=17, relu=True)


@pytest.mark.parametrize("kernel", [SPRINKLED, CLIPPED], ids=["plain", "relu"])
def test_nan_and_infinity(kernel: Kernel, engine: str) -> None:
    inputs = sprinkled(kernel.make_inputs(4), share=0.02)
    z = run(kernel, inputs, engine, cores=3).outputs["z"]
    assert 0 < np.isnan(z).sum() < z.size
    assert np.isposinf(z).any()
    assert_right(kernel, inputs, z)


@pytest.mark.parametrize("kernel", [SPRINKLED, CLIPPED], ids=["plain", "relu"])
def test_nan_and_infinity_as_in_pytorch(kernel: Kernel, engine: str) -> None:
    inputs = sprinkled(kernel.make_inputs(4), share=0.02)
    expected = in_pytorch(kernel, inputs)
    assert_near(run(kernel, inputs, engine, cores=3).outputs["z"], expected, 1e-5)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(st.integers(1, 140), st.integers(1, 40), st.integers(1, 36)),
    relu=st.booleans(),
    cores=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_small_layer(
    sizes: tuple[int, int, int], relu: bool, cores: int, seed: int, engine: str
) -> None:
    kernel = fc_forward(batch=sizes[0], in_features=sizes[1], out_features=sizes[2], relu=relu)
    inputs = kernel.make_inputs(seed)
    assert_right(kernel, inputs, run(kernel, inputs, engine, cores).outputs["z"])
