"""Gradients of a convolution's weights and biases, both strategies, against numpy and PyTorch."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from isa.errors import UsageError
from isa.language.kernel import Kernel
from kernel_run import Array, assert_near, assert_sums, machine, run, sprinkled
from kernels import conv2d_backward_weight, reference
from kernels.judging.gradients import verify_weight_gradient
from simulator.simulate import simulate
from small_sizes import small

# Most pairs of values of two columns stand in some row: not the full product.
# batch cores channels image filters size stride pad strategy KiB of AM
CASES = [
    (1, 1, 5, (5, 5), 1, (1, 5), (2, 1), (0, 0), "batch", 32),
    (1, 3, 2, (4, 4), 17, (1, 1), (1, 3), (3, 3), "batch", 32),
    (1, 4, 1, (6, 2), 3, (1, 1), (2, 2), (1, 1), "batch", 768),
    (1, 4, 9, (1, 6), 8, (1, 5), (1, 1), (0, 3), "tasks", 64),
    (5, 1, 9, (3, 7), 8, (1, 1), (2, 2), (3, 3), "tasks", 32),
    (5, 3, 2, (1, 6), 8, (1, 1), (1, 3), (0, 0), "tasks", 64),
    (5, 3, 1, (3, 7), 1, (3, 3), (1, 1), (0, 3), "batch", 768),
    (5, 3, 5, (5, 5), 3, (7, 7), (1, 3), (1, 1), "batch", 64),
    (5, 4, 5, (6, 2), 17, (1, 1), (1, 3), (2, 2), "tasks", 32),
    (17, 1, 1, (4, 4), 3, (7, 7), (2, 2), (2, 2), "tasks", 64),
    (17, 3, 9, (6, 2), 17, (1, 1), (2, 1), (0, 0), "batch", 768),
    (17, 4, 2, (4, 4), 1, (5, 5), (1, 3), (1, 1), "tasks", 32),
    (33, 1, 2, (6, 2), 1, (1, 1), (2, 2), (0, 3), "batch", 64),
    (33, 4, 5, (4, 4), 3, (3, 3), (2, 1), (0, 0), "tasks", 768),
    (64, 1, 1, (1, 6), 17, (1, 5), (1, 3), (0, 0), "batch", 768),
    (64, 1, 2, (1, 6), 8, (3, 3), (2, 2), (1, 1), "batch", 64),
    (65, 1, 2, (5, 5), 3, (5, 5), (1, 1), (0, 0), "tasks", 768),
    (70, 3, 2, (6, 2), 8, (1, 5), (2, 2), (2, 2), "batch", 768),
]


def kernel_of(case: tuple[Any, ...]) -> Kernel:
    batch, _, channels, image, filters, size, stride, pad, strategy, _ = case
    return conv2d_backward_weight(
        batch=batch, channels=channels, height=image[0], width=image[1], filters=filters,
        size=size, stride=stride, pad=pad, strategy=strategy,
    )  # fmt: skip


@cache
def result_of(case: tuple[Any, ...], engine: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return inputs and outputs of a case; one run serves several tests."""
    kernel = kernel_of(case)
    inputs = kernel.make_inputs(seed=len(str(case)))
    record = machine(f"am.bytes={1024 * case[-1]}")
    return inputs, run(kernel, inputs, engine, case[1], record).outputs


def truth(kernel: Kernel, inputs: dict[str, Array]) -> tuple[Array, Array]:
    p = kernel.p
    shape = (p.filters, p.channels, *p.size)
    return reference.conv2d_backward_weight(inputs["x"], inputs["dz"], shape, p.stride, p.pad)


def in_pytorch(kernel: Kernel, inputs: dict[str, Array]) -> tuple[Array, Array]:
    """Return the gradients that autograd finds in float64."""
    torch = pytest.importorskip("torch")
    p = kernel.p
    x, dz = (torch.from_numpy(inputs[name]).double() for name in ("x", "dz"))
    weight = torch.zeros((p.filters, p.channels, *p.size), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(p.filters, dtype=torch.float64, requires_grad=True)
    z = torch.nn.functional.conv2d(x, weight, bias, stride=p.stride, padding=p.pad)
    z.backward(dz)
    return weight.grad.numpy(), bias.grad.numpy()


def assert_right(
    kernel: Kernel, inputs: dict[str, Array], outputs: dict[str, Array], of: Any = truth
) -> None:
    """Compare both gradients with the truth; lanes and cores round a few times more than terms."""
    sizes = {name: np.abs(tensor) for name, tensor in inputs.items()}
    with np.errstate(invalid="ignore", over="ignore"):
        expected, magnitudes = of(kernel, inputs), of(kernel, sizes)
    terms = kernel.p.batch * inputs["dz"].shape[2] * inputs["dz"].shape[3]
    for name, value, magnitude in zip(("dweight", "dbias"), expected, magnitudes, strict=True):
        assert outputs[name].dtype == np.float32
        assert_sums(outputs[name], value, magnitude, terms + 8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_numpy(case: tuple[Any, ...], engine: str) -> None:
    kernel, (inputs, outputs) = kernel_of(case), result_of(case, engine)
    assert_right(kernel, inputs, outputs)
    assert verify_weight_gradient(kernel.p, inputs, outputs).passed


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_pytorch(case: tuple[Any, ...], engine: str) -> None:
    inputs, outputs = result_of(case, engine)
    assert_right(kernel_of(case), inputs, outputs, in_pytorch)


# By hand ---------------------------------------------------------------------------------------


def test_a_hand_worked_gradient(engine: str) -> None:
    # x 1 2 3   dz 1   10   weight (0, 0) met 1, 2, 4, 5:     1 + 20 + 400 + 5000
    #   4 5 6     100 1000  weight (1, 1) met 5, 6, 8, 9:     5 + 60 + 800 + 9000
    #   7 8 9
    kernel = conv2d_backward_weight(
        batch=1, channels=1, height=3, width=3, filters=1, size=2, pad=0
    )
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    dz = np.array([[1, 10], [100, 1000]], np.float32)[None, None]
    outputs = run(kernel, {"x": x, "dz": dz}, engine).outputs
    assert outputs["dweight"].tolist() == [[[[5421, 6532], [8754, 9865]]]]
    assert outputs["dbias"].tolist() == [1111]


@pytest.mark.parametrize("strategy", ["tasks", "batch"])
def test_each_sample_counts_once(strategy: str, engine: str) -> None:
    # One pixel, one weight: sample s adds s + 1. 70 samples on 4 cores: blocks of 18 and 17, where
    # stale lanes would add; 70 * 71 / 2 = 2485.
    kernel = conv2d_backward_weight(
        batch=70, channels=1, height=1, width=1, filters=1, size=1, pad=0, strategy=strategy
    )
    x = np.arange(1, 71, dtype=np.float32).reshape(70, 1, 1, 1)
    for cores in (1, 4):
        outputs = run(kernel, {"x": x, "dz": np.ones_like(x)}, engine, cores).outputs
        assert outputs["dweight"].item() == 2485
        assert outputs["dbias"].item() == 70


# What must not be multiplied -------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["tasks", "batch"])
def test_nothing_padded_is_multiplied(strategy: str, engine: str) -> None:
    # The infinite gradients at the corners meet real pixels at some taps, padding at the others.
    kernel = conv2d_backward_weight(
        batch=3, channels=2, height=3, width=4, filters=9, size=3, pad=1, strategy=strategy
    )
    inputs = kernel.make_inputs(1)
    inputs["x"] = np.abs(inputs["x"]) + 1
    inputs["dz"][:, :, 0, 0] = np.inf
    outputs = run(kernel, inputs, engine, cores=3).outputs
    assert np.isposinf(outputs["dweight"][:, :, 1:, 1:]).all()
    assert np.isfinite(outputs["dweight"][:, :, 0]).all()
    assert np.isfinite(outputs["dweight"][:, :, :, 0]).all()
    assert_right(kernel, inputs, outputs)


def test_a_tap_that_meets_only_padding_has_no_gradient(engine: str) -> None:
    # One pixel padded by 1: eight of nine taps meet nothing, and the rim of gradients is infinite.
    kernel = conv2d_backward_weight(batch=5, channels=1, height=1, width=1, filters=1)
    inputs = kernel.make_inputs(2)
    dweight = run(kernel, inputs, engine).outputs["dweight"]
    assert dweight[0, 0, 1, 1] != 0
    dweight[0, 0, 1, 1] = 0
    assert (dweight == 0).all()


@pytest.mark.parametrize("strategy", ["tasks", "batch"])
def test_nan_and_infinity_flow_as_in_ieee(strategy: str, engine: str) -> None:
    # Few of them, so that most weights see none; AM so small that chunks follow each other.
    kernel = conv2d_backward_weight(
        batch=19, channels=5, height=2, width=3, filters=11, size=2, pad=1, strategy=strategy
    )
    inputs = sprinkled(kernel.make_inputs(3), share=0.002, seed=4)
    outputs = run(kernel, inputs, engine, 3, machine("am.bytes=16384")).outputs
    for special in (np.isnan, np.isposinf, np.isneginf):
        assert 0 < special(outputs["dweight"]).sum() < outputs["dweight"].size // 2
    assert_right(kernel, inputs, outputs)


def test_rows_beyond_the_last_output_or_channel_stay_apart(engine: str) -> None:
    # 3 of 8 outputs, 3 of 4 channels: a tile multiplies what lies behind them, too.
    kernel = conv2d_backward_weight(
        batch=2, channels=3, height=2, width=2, filters=3, size=1, pad=0
    )
    inputs = kernel.make_inputs(5)
    inputs["dz"][:, 0], inputs["x"][:, 0] = np.nan, np.inf
    outputs = run(kernel, inputs, engine).outputs
    assert np.isfinite(outputs["dweight"][1:, 1:]).all()
    assert_right(kernel, inputs, outputs)


@pytest.mark.parametrize("strategy", ["tasks", "batch"])
def test_more_cores_than_samples_or_groups(strategy: str, engine: str) -> None:
    kernel = conv2d_backward_weight(
        batch=2, channels=1, height=3, width=2, filters=1, strategy=strategy
    )
    inputs = kernel.make_inputs(9)
    assert_right(kernel, inputs, run(kernel, inputs, engine, 4).outputs)


# Any shape -------------------------------------------------------------------------------------

SHAPES = {
    "batch": st.integers(1, 40),
    "channels": st.integers(1, 5),
    "height": st.integers(1, 4),
    "width": st.integers(1, 4),
    "filters": st.integers(1, 10),
    "size": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "pad": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "strategy": st.sampled_from(["tasks", "batch"]),
}


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.fixed_dictionaries(SHAPES),
    cores=st.integers(1, 4),
    am=st.sampled_from([14_336, 20_480, 786_432]),
    seed=st.integers(0, 99),
)
def test_any_small_shape(
    shape: dict[str, Any], cores: int, am: int, seed: int, engine: str
) -> None:
    for extent, size, pad in zip(
        (shape["height"], shape["width"]), shape["size"], shape["pad"], strict=True
    ):
        assume(size <= extent + 2 * pad)
    kernel = conv2d_backward_weight(**shape)
    inputs = kernel.make_inputs(seed)
    result = run(kernel, inputs, engine, cores, machine(f"am.bytes={am}"))
    assert_right(kernel, inputs, result.outputs)


def test_both_strategies_agree(engine: str) -> None:
    # Whole numbers are exact in any order.
    params = {"batch": 37, "channels": 5, "height": 4, "width": 3, "filters": 9, "size": 2}
    results = []
    for strategy in ("tasks", "batch"):
        kernel = conv2d_backward_weight(**params, strategy=strategy)
        inputs = {name: np.round(4 * tensor) for name, tensor in kernel.make_inputs(10).items()}
        results.append(run(kernel, inputs, engine, 3).outputs)
        assert_near(results[-1]["dweight"], truth(kernel, inputs)[0])
    assert (results[0]["dweight"] == results[1]["dweight"]).all()
    assert (results[0]["dbias"] == results[1]["dbias"]).all()


def test_what_is_no_layer_is_refused() -> None:
    with pytest.raises(UsageError, match=r"kernel width 6 is larger .* 5 \(width 3, pad 1\)"):
        conv2d_backward_weight(height=9, width=3, size=(3, 6), pad=1)
    with pytest.raises(UsageError, match="strategy"):
        conv2d_backward_weight(strategy="both")


@pytest.mark.parametrize(
    ("sizes", "better"),
    [
        ({"batch": 64, "channels": 16, "filters": 16}, "tasks"),
        ({"batch": 2, "channels": 8, "height": 5, "width": 5}, "tasks"),
        ({"batch": 70, "channels": 3, "filters": 8, "height": 9, "width": 9}, "batch"),
    ],
)
def test_auto_takes_the_faster_strategy(sizes: dict[str, int], better: str, engine: str) -> None:
    # Three channels and 8 filters are one tile a tap: too few tasks for four cores.
    cycles = {
        strategy: simulate(
            small("conv2d_backward_weight", **sizes, strategy=strategy), {}, cores=4, engine=engine,
            timing_only=True,
        ).report.cycles
        for strategy in ("auto", "tasks", "batch")
    }  # fmt: skip
    assert cycles["auto"] == cycles[better] == min(cycles.values())
    assert cycles["tasks"] != cycles["batch"]
