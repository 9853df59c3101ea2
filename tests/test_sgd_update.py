"""The update of weights: weight - lr * dweight in place, with one rounding for each element."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isa.errors import UsageError
from kernel_run import ROUNDING, Array, assert_near, machine, run, sprinkled
from kernels import reference, sgd_update
from simulator.reporting.verification import judge
from simulator.simulate import simulate

ONE_OF_EACH = 'issue.slots=["SLDST","SMAC1","SIEU","SBR","VLDST1","VMAC1","VIEU"]'
NAN, INFINITY = float("nan"), float("inf")


def tensors(size: int, seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    drawn = {n: generator.normal(size=size).astype(np.float32) for n in ("weight", "dweight")}
    return sprinkled(drawn, share=0.04, seed=seed)


def updated(inputs: dict[str, Array], lr: float, engine: str, cores: int = 1, **more: Any) -> Array:
    """Return the weight of a run of these tensors."""
    kernel = sgd_update(size=len(inputs["weight"]), lr=lr)
    weight: Array = run(kernel, inputs, engine, cores, **more).outputs["weight"]
    return weight


def fused(inputs: dict[str, Array], lr: float) -> Array:
    """Return what the C library's fused multiply-add makes of every element."""
    library = ctypes.util.find_library("m")
    if library is None:
        pytest.skip("no C mathematics library")
    fmaf = ctypes.CDLL(library).fmaf
    fmaf.restype, fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    pairs = zip(inputs["weight"].tolist(), inputs["dweight"].tolist(), strict=True)
    return np.array([fmaf(-lr, gradient, weight) for weight, gradient in pairs], np.float32)


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 33, 256, 1000])
def test_every_element_is_rounded_once(size: int, cores: int, engine: str) -> None:
    inputs = tensors(size, seed=size)
    weight = updated(inputs, 0.3, engine, cores)
    assert (weight.dtype, weight.shape) == (np.float32, (size,))
    expected = fused(inputs, 0.3)
    assert_near(weight, expected)
    assert (np.signbit(weight) == np.signbit(expected))[~np.isnan(expected)].all()


@pytest.mark.parametrize("lr", [0.0, 0.001, 0.1, 1.0, 1e10, 1e-42])
def test_against_numpy(lr: float, engine: str) -> None:
    inputs = tensors(300, seed=7)
    truth = reference.sgd_update(inputs["weight"], inputs["dweight"], lr)
    step = np.abs(inputs["dweight"].astype(np.float64))
    # A rounding of the sum, and one of the rate; 1e-42 is subnormal, in steps of 2**-149.
    with np.errstate(invalid="ignore"):
        allowed = 1.01 * (ROUNDING * (np.abs(truth) + lr * step) + 2.0**-150 * (step + 1))
    finite = np.isfinite(truth)
    assert_near(updated(inputs, lr, engine, 3), truth, np.where(finite, allowed, 0))


def test_hand_worked_values(engine: str) -> None:
    # 0.5 is exact in float32, and so is every result here.
    weight = [1, 2, -3, 0, -0.0, INFINITY, INFINITY, NAN, 4]
    dweight = [2, -2, 0.5, 0, 0, 1, INFINITY, 1, -INFINITY]
    expected = [0, 3, -3.25, 0, -0.0, INFINITY, NAN, NAN, INFINITY]
    inputs = {
        "weight": np.array(weight, np.float32),
        "dweight": np.array(dweight, np.float32),
    }
    result = updated(inputs, 0.5, engine)
    assert_near(result, np.array(expected, np.float64))
    assert np.signbit(result[3:5]).tolist() == [False, True]


def test_the_product_is_not_rounded(engine: str) -> None:
    # (1 + 2**-12)**2 = 1 + 2**-11 + 2**-24; rounded by itself it would lose its last bit.
    factor = 1 + 2.0**-12
    inputs = {"weight": np.array([factor**2 - 2.0**-24]), "dweight": np.array([factor])}
    single = {name: array.astype(np.float32) for name, array in inputs.items()}
    assert updated(single, factor, engine).tolist() == [-(2.0**-24)]


def test_a_rate_of_zero_keeps_every_bit(engine: str) -> None:
    weight = np.array([1.5, -0.0, 0.0, 1e-45, -3e38, INFINITY, -INFINITY], np.float32)
    dweight = np.full(7, 9, np.float32)
    kept = updated({"weight": weight, "dweight": dweight}, 0.0, engine)
    assert kept.tobytes() == weight.tobytes()
    lost = updated({"weight": weight, "dweight": np.full(7, np.inf, np.float32)}, 0.0, engine)
    assert np.isnan(lost).all()  # 0 times infinity


def test_the_weight_is_updated_in_place(engine: str) -> None:
    program = sgd_update(size=100).program(machine())
    assert program.inputs["weight"].buffer == program.outputs["weight"].buffer
    inputs = tensors(100)
    before = inputs["weight"].copy()
    result = run(sgd_update(size=100), inputs, engine)
    w, p = "weight", "pieces of words"
    ends = {(t.source, t.destination) for t in result.result.transfers}
    assert ends == {(w, p), ("dweight", p), (p, w)}
    np.testing.assert_array_equal(inputs["weight"], before)  # the host's tensor stays


def test_against_pytorch(engine: str) -> None:
    torch = pytest.importorskip("torch")
    inputs = tensors(500, seed=3)
    weight = torch.nn.Parameter(torch.from_numpy(inputs["weight"]).double())
    weight.grad = torch.from_numpy(inputs["dweight"]).double()
    torch.optim.SGD([weight], lr=0.05).step()
    truth = weight.detach().numpy()
    reach = np.abs(inputs["weight"].astype(np.float64)) + np.abs(inputs["dweight"])
    allowed = np.where(np.isfinite(truth), 2 * ROUNDING * reach, 0)
    assert_near(updated(inputs, 0.05, engine, 4), truth, allowed)


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("size", [31, 33, 64, 65, 300])
def test_pieces_stream_through_a_small_array_memory(size: int, cores: int, engine: str) -> None:
    # 512 bytes are two halves of 32 words for each of two tensors.
    inputs, record = tensors(size, seed=size), machine("am.bytes=512")
    result = updated(inputs, 0.7, engine, cores, record=record)
    assert_near(result, fused(inputs, 0.7))


@pytest.mark.parametrize(
    "overrides",
    [
        ("latency.vector_load=20", "latency.vector_multiply_add_float=11", "latency.store=9"),
        ("vpu.lanes=8",),
        (ONE_OF_EACH,),
    ],
)
def test_other_machines(overrides: tuple[str, ...], engine: str) -> None:
    inputs = tensors(333)
    assert_near(updated(inputs, 0.7, engine, 2, record=machine(*overrides)), fused(inputs, 0.7))


def test_time_does_not_depend_on_the_data(engine: str) -> None:
    kernel, inputs = sgd_update(size=500), tensors(500)
    timed = simulate(kernel, cores=3, engine=engine, timing_only=True)
    assert timed.report.cycles == run(kernel, inputs, engine, 3).report.cycles


def test_the_work_is_one_operation_an_element() -> None:
    assert sgd_update(size=21).work.flops == 21


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 600), lr=st.floats(0, 1e3), cores=st.integers(1, 4))
def test_any_small_size(size: int, lr: float, cores: int, engine: str) -> None:
    inputs = tensors(size, seed=size)
    result = updated(inputs, lr, engine, cores)
    assert_near(result, fused(inputs, float(np.float32(lr))))


# Verification ---------------------------------------------------------------------------------


def verdict_on(weight: float, dweight: float, lr: float, result: float) -> bool:
    inputs = {
        "weight": np.array([weight], np.float32),
        "dweight": np.array([dweight], np.float32),
    }
    found = judge(sgd_update(size=1, lr=lr), inputs, {"weight": np.array([result], np.float32)})
    assert found is not None
    return found.passed


def test_verification_allows_the_rounding_of_the_rate(engine: str) -> None:
    # float32 has 0.1 + 1.49e-9, so 1000 - 0.1 * 9999.999 is 1.49e-5 too small.
    inputs = {
        "weight": np.array([1000], np.float32),
        "dweight": np.array([9999.999], np.float32),
    }
    (result,) = updated(inputs, 0.1, engine).tolist()
    truth = 1000 - 0.1 * float(inputs["dweight"][0])
    assert 1e-5 < truth - result < 2e-5
    assert verdict_on(1000, 9999.999, 0.1, result)


def test_verification_sees_an_error_of_two_roundings() -> None:
    # 1 - 0.25 * 1 = 0.75 is exact; float32 has steps of 2**-24 there.
    assert verdict_on(1, 1, 0.25, 0.75)
    assert not verdict_on(1, 1, 0.25, 0.75 + 2 * 2.0**-24)
    assert not verdict_on(1, 1, 0.25, NAN)


@pytest.mark.parametrize("seed", range(3))
def test_right_results_pass_verification(seed: int, engine: str) -> None:
    kernel, inputs = sgd_update(size=700, lr=0.1 + seed), tensors(700, seed=seed)
    outputs = run(kernel, inputs, engine, 4).outputs
    found = judge(kernel, inputs, outputs)
    assert found is not None
    assert found.passed, found.compared


@pytest.mark.parametrize("lr", [NAN, -1, INFINITY, True, "fast", None])
def test_bad_rates_are_refused(lr: Any) -> None:
    with pytest.raises(UsageError, match=r"'lr' must be a number from 0 to 3\.4028235e\+38"):
        sgd_update(lr=lr)
