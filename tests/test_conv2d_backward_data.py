"""Gradient of a convolution's input at awkward shapes, against numpy float64 and PyTorch."""

from __future__ import annotations

from functools import cache
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from covering import covering
from isa.errors import KernelError, UsageError
from isa.language.kernel import Kernel
from kernel_run import Array, assert_near, assert_sums, machine, run, sprinkled
from kernels import conv2d_backward_data, reference
from kernels.judging.gradients import verify_data_gradient
from simulator.simulate import Run, simulate
from small_sizes import small

# Nearly every pair of values of two columns stands in some row: not the full product.
# batch cores channels image filters size stride pad relu
CASES = [
    (1, 1, 2, (3, 3), 5, (3, 3), (1, 1), (0, 0), True),
    (1, 1, 9, (2, 5), 1, (7, 7), (3, 2), (3, 3), False),
    (1, 1, 2, (4, 2), 5, (1, 1), (2, 2), (2, 2), False),
    (1, 1, 17, (3, 3), 2, (1, 5), (2, 1), (1, 1), True),
    (1, 1, 2, (1, 6), 1, (5, 5), (1, 1), (2, 2), False),
    (1, 3, 1, (1, 6), 5, (1, 1), (4, 1), (3, 3), False),
    (5, 1, 9, (1, 6), 5, (1, 1), (4, 1), (1, 1), False),
    (5, 1, 17, (3, 3), 1, (1, 1), (2, 1), (3, 3), True),
    (5, 1, 2, (2, 5), 2, (1, 5), (3, 2), (0, 0), False),
    (5, 1, 1, (4, 2), 1, (3, 3), (1, 1), (2, 2), True),
    (5, 3, 2, (1, 6), 1, (7, 7), (2, 2), (3, 3), True),
    (5, 4, 2, (4, 2), 1, (3, 3), (2, 2), (0, 3), False),
    (17, 1, 1, (1, 6), 2, (1, 5), (2, 2), (3, 3), True),
    (17, 1, 9, (4, 2), 5, (5, 5), (4, 1), (2, 2), False),
    (17, 1, 1, (3, 3), 1, (3, 3), (4, 1), (0, 0), False),
    (17, 1, 9, (2, 5), 5, (7, 7), (2, 1), (3, 3), True),
    (17, 3, 2, (1, 6), 1, (1, 5), (1, 1), (1, 1), False),
    (17, 4, 17, (1, 6), 1, (1, 1), (3, 2), (0, 3), False),
    (33, 1, 2, (4, 2), 1, (3, 3), (2, 1), (0, 3), False),
    (33, 1, 17, (2, 5), 5, (1, 5), (4, 1), (2, 2), True),
    (33, 1, 1, (3, 3), 1, (5, 5), (2, 2), (1, 1), False),
    (33, 1, 9, (1, 6), 2, (1, 1), (1, 1), (0, 0), False),
    (33, 3, 1, (4, 2), 2, (5, 5), (3, 2), (3, 3), False),
    (33, 4, 9, (1, 6), 1, (1, 5), (2, 1), (0, 0), True),
    (64, 1, 17, (1, 6), 1, (5, 5), (3, 2), (2, 2), True),
    (64, 1, 1, (2, 5), 2, (1, 1), (1, 1), (0, 3), True),
    (64, 1, 2, (4, 2), 2, (7, 7), (4, 1), (3, 3), True),
    (64, 1, 17, (2, 5), 1, (1, 5), (2, 2), (1, 1), True),
    (64, 1, 17, (2, 5), 1, (3, 3), (2, 1), (3, 3), True),
    (64, 3, 9, (3, 3), 5, (3, 3), (3, 2), (0, 3), False),
    (65, 1, 2, (4, 2), 5, (1, 5), (4, 1), (0, 3), False),
    (65, 1, 17, (1, 6), 1, (7, 7), (1, 1), (3, 3), False),
    (65, 3, 1, (3, 3), 2, (7, 7), (2, 1), (2, 2), False),
    (65, 3, 17, (2, 5), 1, (1, 1), (3, 2), (0, 0), True),
    (65, 4, 9, (1, 6), 2, (3, 3), (2, 2), (1, 1), True),
    (70, 1, 1, (4, 2), 1, (1, 1), (3, 2), (1, 1), True),
    (70, 3, 17, (4, 2), 2, (1, 1), (2, 2), (0, 0), True),
    (70, 4, 1, (1, 6), 5, (3, 3), (4, 1), (3, 3), False),
    (70, 4, 9, (3, 3), 1, (7, 7), (1, 1), (2, 2), False),
    (70, 4, 2, (2, 5), 1, (5, 5), (2, 1), (2, 2), False),
]


def kernel_of(case: tuple[Any, ...]) -> Kernel:
    batch, _, channels, image, filters, size, stride, pad, relu = case
    return conv2d_backward_data(
        batch=batch, channels=channels, height=image[0], width=image[1], filters=filters,
        size=size, stride=stride, pad=pad, relu=relu,
    )  # fmt: skip


@cache
def result_of(case: tuple[Any, ...], engine: str) -> tuple[dict[str, Array], Array]:
    """Return inputs and dx of a case; one run serves several tests."""
    kernel = kernel_of(case)
    inputs = kernel.make_inputs(seed=len(str(case)))
    return inputs, run(kernel, inputs, engine, cores=case[1]).outputs["dx"]


def truth(kernel: Kernel, inputs: dict[str, Array]) -> Array:
    p, dz, weight = kernel.p, inputs["dz"], inputs["weight"]
    shape, x = (p.batch, p.channels, p.height, p.width), inputs["x"] if p.relu else None
    return reference.conv2d_backward_data(dz, weight, shape, p.stride, p.pad, x)


def terms_of(kernel: Kernel) -> int:
    p = kernel.p
    return int(p.filters * p.size[0] * p.size[1])


def magnitudes(inputs: dict[str, Array]) -> dict[str, Array]:
    """Return inputs whose gradient is the sum of the magnitudes of the terms; x masks as before."""
    sizes = {name: np.abs(inputs[name]) for name in ("dz", "weight")}
    return inputs | sizes


def assert_right(kernel: Kernel, inputs: dict[str, Array], dx: Array) -> None:
    """Compare with numpy float64."""
    assert dx.dtype == np.float32
    magnitude = truth(kernel, magnitudes(inputs))
    assert_sums(dx, truth(kernel, inputs), magnitude, terms_of(kernel))


def in_pytorch(kernel: Kernel, inputs: dict[str, Array]) -> Array:
    """Return the gradient that autograd finds in float64, through a ReLU of x where there is one.

    A convolution is linear in its input, so without a ReLU any x serves.
    """
    torch = pytest.importorskip("torch")
    p = kernel.p
    shape = (p.batch, p.channels, p.height, p.width)
    host_x = inputs["x"] if p.relu else np.zeros(shape, np.float32)
    x, weight, dz = (
        torch.from_numpy(part).double() for part in (host_x, inputs["weight"], inputs["dz"])
    )
    x.requires_grad_()
    entering = torch.relu(x) if p.relu else x
    torch.nn.functional.conv2d(entering, weight, stride=p.stride, padding=p.pad).backward(dz)
    gradient: Array = x.grad.numpy()
    return gradient


@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_numpy(case: tuple[Any, ...], engine: str) -> None:
    inputs, dx = result_of(case, engine)
    assert_right(kernel_of(case), inputs, dx)


@pytest.mark.usefixtures("torch")
@pytest.mark.on_engines("case", CASES, compiled=covering(CASES))
def test_against_pytorch(case: tuple[Any, ...], engine: str) -> None:
    kernel = kernel_of(case)
    inputs, dx = result_of(case, engine)
    magnitude = in_pytorch(kernel, magnitudes(inputs))
    assert_sums(dx, in_pytorch(kernel, inputs), magnitude, terms_of(kernel))


def single(values: Array | list[Any]) -> Array:
    """Return one image of one channel, or one filter of one channel."""
    return np.array(values, np.float32)[None, None]


def test_a_hand_worked_gradient(engine: str) -> None:
    # dz 1 2  weight   1   10:  pixel (1, 1) met every weight: 4*1 + 3*10 + 2*100 + 1*1000
    #    3 4         100 1000   pixel (0, 1): weight 10 in the first window, 1 in the second
    kernel = conv2d_backward_data(
        batch=1, channels=1, height=3, width=3, filters=1, size=2, pad=0, stride=1
    )
    inputs = {"dz": single([[1, 2], [3, 4]]), "weight": single([[1, 10], [100, 1000]])}
    dx = run(kernel, inputs, engine).outputs["dx"]
    assert dx[0, 0].tolist() == [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]]


def test_a_hand_worked_gradient_with_stride_and_padding(engine: str) -> None:
    # Windows of 1 x 2 on columns (-1, 0) and (1, 2): column 0 met weight 10 of the first, columns
    # 1 and 2 met 1 and 10 of the second. Then x clips what is not positive.
    sizes = {"batch": 1, "channels": 1, "height": 2, "width": 3, "filters": 1}
    window = {"size": (1, 2), "stride": (1, 2), "pad": (0, 1)}
    inputs = {"dz": single([[1, 2], [3, 4]]), "weight": single([[1, 10]])}
    dx = run(conv2d_backward_data(**sizes, **window), inputs, engine).outputs["dx"]
    assert dx[0, 0].tolist() == [[10, 2, 20], [30, 4, 40]]
    masked = inputs | {"x": single([[-1, 0, 1e-45], [-0.0, np.nan, np.inf]])}
    dx = run(conv2d_backward_data(**sizes, **window, relu=True), masked, engine).outputs["dx"]
    assert dx[0, 0].tolist() == [[0, 0, 20], [0, 4, 40]]


@pytest.mark.parametrize("relu", [False, True])
def test_pixels_that_no_window_reaches_get_zero(relu: bool, engine: str) -> None:
    # Windows of 1 x 2 at every third row and column: rows 1 and 2 of three, column 2 of three,
    # and what is left over at the end are never seen. Whatever the rest holds, they are 0.
    kernel = conv2d_backward_data(
        batch=5, channels=3, height=6, width=7, filters=2, size=(1, 2), stride=3, pad=0, relu=relu
    )
    inputs = sprinkled(kernel.make_inputs(3), share=0.1)
    dx = run(kernel, inputs, engine, cores=3).outputs["dx"]
    reached = np.zeros((6, 7), bool)
    reached[np.ix_([0, 3], [0, 1, 3, 4])] = True
    assert (dx[:, :, ~reached] == 0).all()
    assert np.isnan(dx[:, :, reached]).any()
    assert_right(kernel, inputs, dx)


def test_an_infinite_weight_that_meets_only_padding_leaves_no_nan(engine: str) -> None:
    # 3 x 3 on one pixel padded by 1: eight of the nine weights meet padding.
    kernel = conv2d_backward_data(batch=3, channels=1, height=1, width=1, filters=1, size=3, pad=1)
    inputs = kernel.make_inputs(6)
    inputs["weight"][:] = np.inf
    inputs["weight"][0, 0, 1, 1] = 2
    dx = run(kernel, inputs, engine).outputs["dx"]
    assert (dx == inputs["dz"] * 2).all()


def test_a_gradient_beside_the_image_reaches_nothing(engine: str) -> None:
    # One pixel padded by 2: of 5 x 5 windows of 1 x 1 only the middle one sees it.
    kernel = conv2d_backward_data(batch=3, channels=2, height=1, width=1, filters=2, size=1, pad=2)
    inputs = kernel.make_inputs(7)
    alone = inputs["dz"][:, :, 2:3, 2:3].copy()
    inputs["dz"][:] = np.nan
    inputs["dz"][:, :, 2:3, 2:3] = alone
    dx = run(kernel, inputs, engine).outputs["dx"]
    expected = np.einsum("noij,ocij->ncij", alone.astype(float), inputs["weight"].astype(float))
    assert_near(dx, expected, 1e-6)


@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_flow_as_in_ieee(relu: bool, engine: str) -> None:
    kernel = conv2d_backward_data(
        batch=20, channels=3, height=4, width=3, filters=3, size=2, pad=1, stride=(2, 1), relu=relu
    )
    inputs = sprinkled(kernel.make_inputs(4))
    dx = run(kernel, inputs, engine).outputs["dx"]
    for special in (np.isnan, np.isposinf, np.isneginf):
        assert 0 < special(dx).sum() < dx.size // 2
    assert_right(kernel, inputs, dx)


@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_as_in_pytorch(relu: bool, engine: str) -> None:
    # Without padding, which PyTorch multiplies as zeros.
    kernel = conv2d_backward_data(
        batch=20, channels=3, height=4, width=3, filters=3, size=2, pad=0, relu=relu
    )
    inputs = sprinkled(kernel.make_inputs(5))
    expected = in_pytorch(kernel, inputs)
    assert 0 < np.isnan(expected).sum() < expected.size // 2
    assert_near(run(kernel, inputs, engine).outputs["dx"], expected, 1e-5)


# Memories and machines ---------------------------------------------------------------------------


def count(result: Run, buffer: str) -> int:
    """Count the transfers into a buffer in which core 0 takes part."""
    return sum(t.destination.startswith(buffer) and t.mask & 1 for t in result.result.transfers)


@pytest.mark.parametrize(
    ("changes", "cores", "am", "sm", "cut"),
    [
        # 64 samples are rows of 256 bytes; with a ReLU two rows for each channel of dx.
        ({"batch": 60, "filters": 20}, 1, 16_384, 12_288, {"windows"}),
        ({"batch": 40, "channels": 40, "relu": True}, 1, 20_000, 131_072, {"groups"}),
        ({"batch": 20, "channels": 40, "filters": 5}, 3, 786_432, 9_728, {"windows", "blocks"}),
        (
            {"batch": 66, "channels": 40, "filters": 12, "relu": True},
            1, 20_000, 9_600, {"samples", "windows", "blocks", "groups"},
        ),
        ({"batch": 261, "channels": 9, "size": 2}, 4, 16_384, 9_216, {"samples"}),
    ],
)  # fmt: skip
def test_a_small_memory_cuts_and_stays_right(
    changes: dict[str, Any], cores: int, am: int, sm: int, cut: set[str], engine: str
) -> None:
    sizes = {"channels": 6, "filters": 3, "height": 2, "width": 3, "size": 3, "stride": (1, 2)}
    kernel = conv2d_backward_data(**sizes | changes)
    inputs = kernel.make_inputs(2)
    record = machine(f"am.bytes={am}", f"sm.bytes={sm}")
    result = run(kernel, inputs, engine, cores, record)
    assert_right(kernel, inputs, result.outputs["dx"])
    blocks = -(-kernel.p.batch // (64 * cores))
    stores, chunks, weights = (count(result, b) for b in ("dx", "image chunks", "weight blocks"))
    found = {
        "samples": blocks > 1,
        "groups": stores > blocks * 6,
        "windows": chunks > stores,
        "blocks": weights > chunks,
    }
    assert {name for name, happens in found.items() if happens} == cut


def test_the_same_in_a_roomy_memory(engine: str) -> None:
    kernel = conv2d_backward_data(batch=66, channels=20, height=2, width=3, filters=12, stride=2)
    inputs = kernel.make_inputs(2)
    small = run(kernel, inputs, engine, 1, machine("am.bytes=12288", "sm.bytes=9216"))
    roomy = run(kernel, inputs, engine, 1)
    assert (small.outputs["dx"] == roomy.outputs["dx"]).all()
    assert count(roomy, "image chunks") == count(roomy, "dx") == 2 * 6


@pytest.mark.parametrize("relu", [False, True])
def test_a_memory_too_small_is_refused_in_one_line(relu: bool) -> None:
    kernel = small("conv2d_backward_data", batch=64, relu=relu)
    with pytest.raises(KernelError, match=r"AM has 4,600 bytes, \S+ are needed") as caught:
        kernel.program(machine("am.bytes=4600"))
    assert "\n" not in str(caught.value)


ONE_OF_EACH = 'issue.slots=["SLDST","SMAC1","SIEU","SBR","VLDST1","VMAC1","VIEU"]'
MACHINES = {
    "slow everything": tuple(
        f"latency.{name}={value + 2}" for name, value in machine().latency.items()
    ),
    "immediate everything": tuple(f"latency.{name}=1" for name in machine().latency),
    "8 lanes": ("vpu.lanes=8",),
    "4 lanes": ("vpu.lanes=4",),
    "1 of each": (ONE_OF_EACH,),
    "1 VLDST": (
        'issue.slots=["SLDST","SMAC1","SMAC2","SIEU","SBR","VLDST1","VMAC1","VMAC2","VIEU"]',
    ),
    "1 lane predicate": ("issue.lane_predicates=1",),
}


@pytest.mark.parametrize("machine_name", MACHINES)
def test_another_machine(machine_name: str, engine: str) -> None:
    kernel = conv2d_backward_data(
        batch=37, channels=9, height=3, width=2, filters=2, size=2, stride=(2, 1), relu=True
    )
    inputs = kernel.make_inputs(1)
    dx = run(kernel, inputs, engine, 3, machine(*MACHINES[machine_name])).outputs["dx"]
    assert_right(kernel, inputs, dx)


@pytest.mark.parametrize("relu", [False, True])
def test_time_does_not_depend_on_the_data(relu: bool, engine: str) -> None:
    kernel = conv2d_backward_data(
        batch=9, channels=2, height=2, width=3, filters=3, stride=2, relu=relu
    )
    inputs = sprinkled(kernel.make_inputs(1), share=0.1)
    timed = simulate(kernel, cores=3, engine=engine, timing_only=True)
    assert timed.report.cycles == run(kernel, inputs, engine, 3).report.cycles


# Any shape, and what is refused ------------------------------------------------------------------

SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 40),
        "channels": st.integers(1, 10),
        "height": st.integers(1, 4),
        "width": st.integers(1, 4),
        "filters": st.integers(1, 4),
        "size": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "pad": st.tuples(st.integers(0, 3), st.integers(0, 3)),
        "relu": st.booleans(),
    }
)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, cores=st.integers(1, 4), seed=st.integers(0, 99))
def test_any_small_shape(shape: dict[str, Any], cores: int, seed: int, engine: str) -> None:
    for extent, size, pad in zip(
        (shape["height"], shape["width"]), shape["size"], shape["pad"], strict=True
    ):
        assume(size <= extent + 2 * pad)
    kernel = conv2d_backward_data(**shape)
    inputs = kernel.make_inputs(seed)
    assert_right(kernel, inputs, run(kernel, inputs, engine, cores).outputs["dx"])


def test_a_mask_needs_x_and_x_needs_a_mask() -> None:
    plain, masked = (small("conv2d_backward_data", batch=2, relu=relu) for relu in (False, True))
    inputs = masked.make_inputs()
    with pytest.raises(UsageError, match="takes inputs dz, weight: unknown x"):
        simulate(plain, inputs)
    with pytest.raises(UsageError, match="takes inputs dz, weight, x: missing x"):
        simulate(masked, {name: inputs[name] for name in ("dz", "weight")})


def test_a_gradient_of_another_shape_is_refused_with_the_right_one() -> None:
    # 6 x 6 padded by 1, windows of 3 x 3 at every second pixel: 3 x 3 outputs
    kernel = small("conv2d_backward_data", batch=2, filters=5, stride=2)
    inputs = kernel.make_inputs()
    inputs["dz"] = inputs["dz"][:, :, :, :2]
    with pytest.raises(
        UsageError, match=r"'dz' must have shape \(2, 5, 3, 3\), has \(2, 5, 3, 2\)"
    ):
        simulate(kernel, inputs)


def test_a_kernel_larger_than_the_padded_image_is_refused() -> None:
    with pytest.raises(UsageError, match=r"kernel width 6 is larger .* 5 \(width 3, pad 1\)"):
        conv2d_backward_data(height=9, width=3, size=(3, 6), pad=1)


def test_it_is_judged_element_by_element() -> None:
    assert unwrap(conv2d_backward_data.verify) is verify_data_gradient
