"""Fully connected backward, and the update, at awkward shapes, against numpy and PyTorch."""

from __future__ import annotations

from functools import cache
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covering import covering
from isa.errors import KernelError, UsageError
from isa.language.kernel import Kernel
from kernel_run import ROUNDING, Array, assert_near, assert_sums, machine, run, sprinkled
from kernels import fc_backward, reference
from kernels.judging.gradients import verify_layer_gradients
from simulator.simulate import Run, simulate

Tensors = dict[str, Array]

# Most pairs of values of two columns stand in some row: a covering set, not the full product.
# batch cores in_features out_features lr
CASES = [
    (1, 1, 1, 2, None),
    (1, 1, 33, 65, 0.5),
    (1, 3, 17, 15, None),
    (1, 4, 130, 1, 0.0),
    (5, 1, 33, 15, 0.5),
    (5, 1, 130, 1, None),
    (5, 3, 17, 65, None),
    (5, 4, 1, 65, 0.0),
    (17, 1, 17, 1, 0.0),
    (17, 3, 130, 2, 0.5),
    (17, 4, 1, 15, None),
    (33, 1, 130, 1, None),
    (33, 1, 17, 65, 0.5),
    (33, 3, 33, 2, 0.0),
    (33, 4, 1, 15, 0.5),
    (64, 1, 17, 2, 0.0),
    (64, 3, 1, 1, 0.5),
    (64, 4, 33, 15, None),
    (65, 1, 1, 15, 0.0),
    (65, 3, 33, 1, None),
    (65, 4, 17, 2, 0.5),
    (150, 1, 1, 2, 0.0),
    (150, 3, 17, 15, 0.5),
    (150, 4, 33, 1, None),
    (2, 1, 130, 65, None),
    (5, 1, 64, 64, None),
    (17, 3, 2, 130, 0.5),
    (33, 1, 15, 33, 0.0),
]


def kernel_of(batch: int, inputs: int, outputs: int, lr: float | None = None) -> Kernel:
    return fc_backward(batch=batch, in_features=inputs, out_features=outputs, lr=lr)


@cache
def result_of(case: tuple[Any, ...], engine: str) -> tuple[Tensors, Tensors]:
    """Return inputs and outputs of a case; one run serves several tests."""
    batch, cores, *sizes = case
    kernel = kernel_of(batch, *sizes)
    inputs = kernel.make_inputs(seed=len(str(case)))
    return inputs, run(kernel, inputs, engine, cores).outputs


@np.errstate(all="ignore")
def assert_gradients(inputs: Tensors, outputs: Tensors, truth: Tensors) -> None:
    """Compare sums over outputs and over samples; one rounding for each product, and one more."""
    x, weight, dz = (np.abs(inputs[name].astype(np.float64)) for name in ("x", "weight", "dz"))
    magnitudes = {"dx": dz @ weight, "dweight": dz.T @ x, "dbias": dz.sum(axis=0)}
    for name, magnitude in magnitudes.items():
        terms = dz.shape[1] if name == "dx" else len(dz)
        assert outputs[name].dtype == np.float32
        assert_sums(outputs[name], truth[name], magnitude, terms)


@np.errstate(all="ignore")
def assert_updates(inputs: Tensors, outputs: Tensors, truth: Tensors, lr: float) -> None:
    """Compare weight - lr * dweight: errors of the gradient, of lr, and of the last rounding."""
    x, dz = (np.abs(inputs[name].astype(np.float64)) for name in ("x", "dz"))
    for name, magnitude in {"weight": dz.T @ x, "bias": dz.sum(axis=0)}.items():
        step = lr * (len(x) + 2) * ROUNDING * magnitude
        allowed = 1.01 * (step + ROUNDING * np.abs(truth[name]))
        assert outputs[name].dtype == np.float32
        assert_near(outputs[name], truth[name], np.where(np.isfinite(allowed), allowed, 0))


def assert_right(kernel: Kernel, inputs: Tensors, outputs: Tensors) -> None:
    """Compare with numpy float64."""
    lr = kernel.p.lr
    truth = reference.fc_backward(
        inputs["x"], inputs["weight"], inputs["dz"], lr, inputs.get("bias")
    )
    assert outputs.keys() == truth.keys()
    assert_gradients(inputs, outputs, truth)
    if lr is not None:
        assert_updates(inputs, outputs, truth, lr)


def in_pytorch(inputs: Tensors, lr: float | None) -> Tensors:
    """Return what autograd and a step of stochastic gradient descent find in float64."""
    torch = pytest.importorskip("torch")
    x, weight, dz = (torch.from_numpy(inputs[n]).double() for n in ("x", "weight", "dz"))
    host_bias = inputs.get("bias", np.zeros(dz.shape[1], np.float32))
    bias = torch.from_numpy(host_bias).double()
    for leaf in (x, weight, bias):
        leaf.requires_grad_()
    torch.nn.functional.linear(x, weight, bias).backward(dz)
    found = {"dx": x.grad, "dweight": weight.grad, "dbias": bias.grad}
    if lr is not None:
        torch.optim.SGD([weight, bias], lr=lr).step()
        found |= {"weight": weight.detach(), "bias": bias.detach()}
    return {name: part.numpy() for name, part in found.items()}


@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_numpy(case: tuple[Any, ...], engine: str) -> None:
    batch, _, *sizes = case
    assert_right(kernel_of(batch, *sizes), *result_of(case, engine))


@pytest.mark.usefixtures("torch")
@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_pytorch(case: tuple[Any, ...], engine: str) -> None:
    inputs, outputs = result_of(case, engine)
    lr = case[4]
    expected = in_pytorch(inputs, lr)
    assert_gradients(inputs, outputs, expected)
    if lr is not None:
        assert_updates(inputs, outputs, expected, lr)


def test_a_hand_worked_step(engine: str) -> None:
    # dx[0] = 1*(1, 0) + 0*(2, 1) + 2*(0, -4), dx[1] = 0*(1, 0) + 1*(2, 1) - 1*(0, -4)
    # dweight rows: 1*(1, 2); 1*(3, -1); 2*(1, 2) - 1*(3, -1); half of each is subtracted
    kernel = kernel_of(2, 2, 3, lr=0.5)
    values = {
        "x": [[1, 2], [3, -1]],
        "weight": [[1, 0], [2, 1], [0, -4]],
        "dz": [[1, 0, 2], [0, 1, -1]],
        "bias": [0, 10, 1],
    }
    inputs = {name: np.array(value, np.float32) for name, value in values.items()}
    outputs = run(kernel, inputs, engine).outputs
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "dx": [[1, -8], [2, 5]],
        "dweight": [[1, 2], [3, -1], [-1, 5]],
        "dbias": [1, 1, 1],
        "weight": [[0.5, -1], [0.5, 1.5], [0.5, -6.5]],
        "bias": [-0.5, 9.5, 0.5],
    }


def test_an_update_is_rounded_once(engine: str) -> None:
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24: taken from 1 + 2^-11 it leaves -2^-24, which a product
    # rounded to 24 bits before the subtraction would have lost.
    factor = 1 + 2**-12
    inputs = {"x": [[factor]], "dz": [[1]], "weight": [[1 + 2**-11]], "bias": [0]}
    tensors = {name: np.array(value, np.float32) for name, value in inputs.items()}
    outputs = run(kernel_of(1, 1, 1, lr=factor), tensors, engine).outputs
    assert outputs["weight"].tolist() == [[-(2**-24)]]


@pytest.mark.parametrize("cores", [1, 4])
def test_dx_is_that_of_the_old_weight(cores: int, engine: str) -> None:
    # A rate this large leaves nothing of the old weight in the new one.
    update, plain = kernel_of(20, 20, 9, lr=1e6), kernel_of(20, 20, 9)
    inputs = update.make_inputs(3)
    updated = run(update, inputs, engine, cores).outputs
    del inputs["bias"]
    gradients = run(plain, inputs, engine, cores).outputs
    for name, gradient in gradients.items():
        assert (updated[name] == gradient).all(), name


def test_inputs_are_left_as_they_were(engine: str) -> None:
    kernel = kernel_of(3, 4, 5, lr=0.5)
    inputs = kernel.make_inputs(3)
    before = {name: tensor.copy() for name, tensor in inputs.items()}
    outputs = run(kernel, inputs, engine).outputs
    assert all((inputs[name] == before[name]).all() for name in before)
    assert (outputs["weight"] != before["weight"]).any()


def test_a_rate_of_zero_changes_nothing(engine: str) -> None:
    kernel = kernel_of(17, 9, 5, lr=0.0)
    inputs = kernel.make_inputs(4)
    outputs = run(kernel, inputs, engine).outputs
    assert (outputs["weight"] == inputs["weight"]).all()
    assert (outputs["bias"] == inputs["bias"]).all()


@pytest.mark.parametrize("lr", [None, 0.5])
def test_nan_and_infinity(lr: float | None, engine: str) -> None:
    kernel = kernel_of(20, 17, 9, lr)
    inputs = sprinkled(kernel.make_inputs(4), share=0.01)
    outputs = run(kernel, inputs, engine, cores=3).outputs
    for name in outputs:
        assert 0 < np.isfinite(outputs[name]).sum() < outputs[name].size, name
    assert_right(kernel, inputs, outputs)
    for name, expected in in_pytorch(inputs, lr).items():
        assert_near(outputs[name], expected, 1e-5)


# Memories and machines ---------------------------------------------------------------------------


def count(result: Run, buffer: str, source: str = "") -> int:
    """Count the transfers into a buffer, from a buffer, in which core 0 takes part."""
    return sum(
        t.destination.startswith(buffer) and t.source.startswith(source) and t.mask & 1
        for t in result.result.transfers
    )


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "lr", "cores"),
    [
        (40, 40, 30, 0.5, 3),
        (70, 20, 40, None, 1),
        (66, 40, 17, 0.5, 1),
    ],
)
def test_a_small_memory_cuts_and_stays_right(
    batch: int, inputs: int, outputs: int, lr: float | None, cores: int, engine: str
) -> None:
    kernel = kernel_of(batch, inputs, outputs, lr)
    tensors = kernel.make_inputs(2)
    small = run(kernel, tensors, engine, cores, machine("am.bytes=12288", "sm.bytes=9216"))
    assert_right(kernel, tensors, small.outputs)
    roomy = run(kernel, tensors, engine, cores)
    for name, tensor in roomy.outputs.items():
        assert (small.outputs[name] == tensor).all(), name
    for buffer, source in (("image chunks", "dz"), ("image chunks", "x"), ("weight blocks", "")):
        assert count(small, buffer, source) > count(roomy, buffer, source)


@pytest.mark.parametrize("lr", [None, 0.5])
def test_a_memory_too_small_is_refused_in_one_line(lr: float | None) -> None:
    with pytest.raises(KernelError, match=r"AM has 2,048 bytes, \S+ are needed") as caught:
        kernel_of(64, 64, 64, lr).program(machine("am.bytes=2048"))
    assert "\n" not in str(caught.value)


ONE_OF_EACH = 'issue.slots=["SLDST","SMAC1","SIEU","SBR","VLDST1","VMAC1","VIEU"]'
MACHINES = {
    "slow everything": tuple(
        f"latency.{name}={value + 2}" for name, value in machine().latency.items()
    ),
    "immediate everything": tuple(f"latency.{name}=1" for name in machine().latency),
    "4 lanes": ("vpu.lanes=4",),
    "1 of each": (ONE_OF_EACH,),
}


@pytest.mark.parametrize("machine_name", MACHINES)
def test_another_machine(machine_name: str, engine: str) -> None:
    kernel = kernel_of(21, 19, 10, lr=0.5)
    inputs = kernel.make_inputs(1)
    outputs = run(kernel, inputs, engine, 3, machine(*MACHINES[machine_name])).outputs
    assert_right(kernel, inputs, outputs)


def test_time_does_not_depend_on_the_data(engine: str) -> None:
    kernel = kernel_of(9, 20, 10, lr=0.5)
    inputs = sprinkled(kernel.make_inputs(1), share=0.1)
    timed = simulate(kernel, cores=3, engine=engine, timing_only=True)
    assert timed.report.cycles == run(kernel, inputs, engine, 3).report.cycles


# Any shape, and what is refused ------------------------------------------------------------------


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20)),
    lr=st.sampled_from([None, 0.0, 0.1]),
    cores=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_small_layer(
    sizes: tuple[int, int, int], lr: float | None, cores: int, seed: int, engine: str
) -> None:
    kernel = kernel_of(*sizes, lr)
    inputs = kernel.make_inputs(seed)
    assert_right(kernel, inputs, run(kernel, inputs, engine, cores).outputs)


@pytest.mark.parametrize("lr", [-1, -1e-9, float("nan"), float("inf"), 1e39, "fast"])
def test_a_rate_that_is_none_is_refused(lr: Any) -> None:
    with pytest.raises(UsageError, match=r"lr.* must be a number from 0 .* got"):
        fc_backward(lr=lr)


def test_an_update_needs_the_bias_and_gradients_alone_do_not() -> None:
    update, plain = kernel_of(2, 3, 4, lr=0.5), kernel_of(2, 3, 4)
    inputs = update.make_inputs()
    with pytest.raises(UsageError, match="takes inputs x, weight, dz: unknown bias"):
        simulate(plain, inputs)
    del inputs["bias"]
    with pytest.raises(UsageError, match="takes inputs x, weight, dz, bias: missing bias"):
        simulate(update, inputs)


def test_a_gradient_of_another_shape_is_refused_with_the_right_one() -> None:
    kernel = kernel_of(2, 3, 4)
    inputs = kernel.make_inputs()
    inputs["dz"] = inputs["dz"][:, :3]
    with pytest.raises(UsageError, match=r"'dz' must have shape \(2, 4\), has \(2, 3\)"):
        simulate(kernel, inputs)


def test_it_is_judged_element_by_element() -> None:
    assert unwrap(fc_backward.verify) is verify_layer_gradients
