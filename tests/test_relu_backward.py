"""ReLU backward: the gradient where the input was positive or NaN, 0 elsewhere, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isa.errors import KernelError
from kernel_run import Array, assert_near, machine, run, sprinkled
from kernels import reference, relu_backward
from simulator.simulate import simulate

ONE_OF_EACH = 'issue.slots=["SLDST","SMAC1","SIEU","SBR","VLDST1","VMAC1","VIEU"]'
NAN, INFINITY = float("nan"), float("inf")


def tensors(batch: int, features: int, seed: int = 0) -> dict[str, Array]:
    """Return x and dz with NaN, infinities, zeros of both signs and subnormals among them."""
    generator = np.random.default_rng(seed)
    normal = {n: generator.normal(size=(batch, features)).astype(np.float32) for n in ("x", "dz")}
    inputs = sprinkled(normal, share=0.05, seed=seed)
    for value in (0.0, 1e-45, -1e-45):
        inputs["x"][generator.random((batch, features)) < 0.05] = value
    return inputs


def masked(inputs: dict[str, Array], engine: str, cores: int = 1, *overrides: str) -> Array:
    """Return dx of a run of these tensors."""
    batch, features = inputs["x"].shape
    kernel = relu_backward(batch=batch, features=features)
    dx: Array = run(kernel, inputs, engine, cores, machine(*overrides)).outputs["dx"]
    return dx


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize(
    ("batch", "features"),
    [(1, 1), (1, 15), (1, 17), (3, 11), (2, 128), (1, 257), (8, 125)],
)
def test_against_numpy(batch: int, features: int, cores: int, engine: str) -> None:
    inputs = tensors(batch, features, seed=features)
    dx = masked(inputs, engine, cores)
    assert (dx.dtype, dx.shape) == (np.float32, (batch, features))
    assert_near(dx, reference.relu_backward(inputs["x"], inputs["dz"]))


def test_hand_worked_values(engine: str) -> None:
    x = [1, -1, 0, -0.0, NAN, INFINITY, -INFINITY, 1e-45, -1e-45, 2, 2, -2]
    dz = [3, 3, 3, 3, 3, 3, 3, 3, 3, NAN, -INFINITY, NAN]
    expected = [3, 0, 0, 0, 3, 3, 0, 3, 0, NAN, -INFINITY, 0]
    inputs = {"x": np.array([x], np.float32), "dz": np.array([dz], np.float32)}
    assert_near(masked(inputs, engine), np.array([expected], np.float64))


def test_a_gradient_passes_with_its_sign_and_a_masked_one_is_positive_zero(engine: str) -> None:
    inputs = {"x": np.array([[1, 1, -1]], np.float32), "dz": np.array([[-0.0, 0, -5]], np.float32)}
    assert np.signbit(masked(inputs, engine)).tolist() == [[True, False, False]]


def test_against_pytorch(engine: str) -> None:
    torch = pytest.importorskip("torch")
    inputs = tensors(9, 77)
    x = torch.from_numpy(inputs["x"]).double().requires_grad_()
    torch.relu(x).backward(torch.from_numpy(inputs["dz"]).double())
    # PyTorch's CPU takes NaN inputs for positive, too.
    assert_near(masked(inputs, engine, 3), x.grad.numpy())


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("words", [31, 32, 33, 64, 65, 300])
def test_pieces_stream_through_a_small_array_memory(words: int, cores: int, engine: str) -> None:
    # 512 bytes are two halves of 32 words for each of two tensors.
    inputs = tensors(1, words, seed=words)
    record = machine("am.bytes=512")
    result = run(relu_backward(batch=1, features=words), inputs, engine, cores, record)
    dx = reference.relu_backward(inputs["x"], inputs["dz"])
    assert_near(result.outputs["dx"], dx)
    if cores == 1:
        loads = [t for t in result.result.transfers if t.source == "dz"]
        assert len(loads) == -(-words // 32)


def test_an_array_memory_without_room_for_two_vectors_of_both_is_refused() -> None:
    with pytest.raises(
        KernelError, match="AM has 248 bytes, 256 are needed: a vector of each of 2"
    ):
        relu_backward(batch=1, features=5).program(machine("am.bytes=248"))


@pytest.mark.parametrize(
    "overrides",
    [
        ("latency.vector_load=20", "latency.vector_integer=5", "latency.store=9"),
        ("issue.lane_predicates=1",),
        ("vpu.lanes=4",),
        (ONE_OF_EACH,),
    ],
)
def test_other_machines(overrides: tuple[str, ...], engine: str) -> None:
    inputs = tensors(3, 111)
    dx = masked(inputs, engine, 2, *overrides)
    assert_near(dx, reference.relu_backward(inputs["x"], inputs["dz"]))


def test_time_does_not_depend_on_the_data(engine: str) -> None:
    kernel, inputs = relu_backward(batch=5, features=100), tensors(5, 100)
    timed = simulate(kernel, cores=3, engine=engine, timing_only=True)
    assert timed.report.cycles == run(kernel, inputs, engine, 3).report.cycles


def test_the_work_is_one_operation_an_element() -> None:
    assert relu_backward(batch=3, features=7).work.flops == 21


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 30), features=st.integers(1, 60), cores=st.integers(1, 4))
def test_any_small_size(batch: int, features: int, cores: int, engine: str) -> None:
    inputs = tensors(batch, features, seed=batch)
    dx = masked(inputs, engine, cores)
    assert_near(dx, reference.relu_backward(inputs["x"], inputs["dz"]))
