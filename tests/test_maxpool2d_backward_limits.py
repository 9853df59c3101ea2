"""Max pooling backward around its results: how long it takes, how it is judged, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from isa.errors import UsageError
from kernel_run import run
from kernels import maxpool2d_backward
from simulator.cli import commands as cli
from simulator.reporting.verification import judge
from simulator.simulate import simulate

# Timing and judging ----------------------------------------------------------------------------


def test_a_timing_only_run_takes_as_long(engine: str) -> None:
    kernel = maxpool2d_backward(batch=20, channels=3, height=5, width=6, size=3, stride=2)
    full = run(kernel, kernel.make_inputs(2), engine, 3)
    timed = simulate(kernel, cores=3, engine=engine, timing_only=True)
    assert timed.report.cycles == full.report.cycles
    assert timed.outputs == {}


REFUSAL = (
    "kernel 'maxpool2d_backward': "
    'variant "indexed" follows the data of its inputs, so there is no timing-only run; use variant '
    '"rows" or run with numbers'
)


def test_a_timing_only_run_of_the_indexed_variant_is_refused(engine: str) -> None:
    kernel = maxpool2d_backward(batch=1, channels=1, height=2, width=2, variant="indexed")
    with pytest.raises(UsageError) as caught:
        simulate(kernel, engine=engine, timing_only=True)
    assert str(caught.value) == REFUSAL
    simulate(kernel, kernel.make_inputs(), engine=engine)


def test_the_command_line_refuses_it_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "maxpool2d_backward", "-p", "batch=1", "-p", "channels=1", "--timing-only"]
    for variant, status in (("indexed", 2), ("rows", 0)):
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "-p", f"variant={variant}"])
        assert ended.value.code == status
        captured = capsys.readouterr()
        assert (captured.out == "") == (f"error: {REFUSAL}\n" in captured.err) == (status == 2)


def test_the_indexed_variant_takes_many_times_as_long(engine: str) -> None:
    kernels = [
        maxpool2d_backward(batch=16, channels=2, height=4, width=4, variant=variant)
        for variant in ("rows", "indexed")
    ]
    inputs = kernels[0].make_inputs(0)
    rows, indexed = (run(kernel, inputs, engine).report.cycles for kernel in kernels)
    assert indexed > 10 * rows


def test_sums_that_cancel_are_judged_right_and_a_lost_gradient_wrong(engine: str) -> None:
    # 16 windows of 4 x 4 share the pixel in the middle; their sum of about 1 comes from 100s.
    kernel = maxpool2d_backward(batch=4, channels=1, height=7, width=7, size=4, stride=1)
    generator = np.random.default_rng(5)
    dz = generator.uniform(-100, 100, (4, 1, 4, 4)).astype(np.float32)
    dz[..., 3, 3] += 1 - dz.sum(axis=(2, 3))
    inputs = {"dz": dz, "index": np.full(dz.shape, 3 * 7 + 3)}
    outputs = run(kernel, inputs, engine).outputs
    assert judge(kernel, inputs, outputs).passed
    outputs["dx"][1, 0, 3, 3] -= np.float32(1e-2)
    verdict = judge(kernel, inputs, outputs)
    assert not verdict.passed
    assert "1 of 196 values wrong: first dx[1, 0, 3, 3]" in verdict.compared


def test_one_gradient_is_copied_to_the_bit_or_wrong() -> None:
    kernel = maxpool2d_backward(batch=1, channels=1, height=2, width=2)
    inputs = {"dz": np.full((1, 1, 1, 1), 0.1, np.float32), "index": np.full((1, 1, 1, 1), 2)}
    dx = np.zeros((1, 1, 2, 2), np.float32)
    dx[0, 0, 1, 0] = 0.1
    assert judge(kernel, inputs, {"dx": dx}).passed
    dx[0, 0, 1, 0] = np.nextafter(np.float32(0.1), np.float32(1))
    assert not judge(kernel, inputs, {"dx": dx}).passed


def test_nominal_flops_are_those_of_the_forward_pass() -> None:
    kernel = maxpool2d_backward(batch=3, channels=2, height=7, width=9, size=(3, 2), stride=2)
    assert (kernel.work.flops, kernel.work.multiply_adds) == (3 * 2 * 3 * 4 * 5, 0)


@pytest.mark.parametrize("seed", range(3))
def test_random_indices_name_pixels_of_their_windows(seed: int) -> None:
    kernel = maxpool2d_backward(batch=9, channels=3, height=7, width=8, size=(3, 2), stride=(2, 3))
    inputs = kernel.make_inputs(seed)
    row, column = np.divmod(inputs["index"], 8)
    down, across = row - [[0], [2], [4]], column - [0, 3, 6]
    assert {(a, b) for a, b in zip(down.ravel(), across.ravel(), strict=True)} == {
        (a, b) for a in range(3) for b in range(2)
    }
    kernel.check_inputs(inputs)


# Refusing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        # Images of 5 x 6, windows of 2 x 3 in steps of 2 x 3: window [1, 1] has the rows 2 and 3,
        # the columns 3 to 5.
        ((1, 0, 1, 1), -1, r"index\[1, 0, 1, 1\] is -1, no pixel of the plane, which has 0 to 29"),
        ((1, 0, 1, 1), 30, r"index\[1, 0, 1, 1\] is 30, no pixel of the plane"),
        ((0, 1, 1, 1), 11, r"index\[0, 1, 1, 1\] is 11, row 1, column 5; its window has the rows "
                           r"2 to 3 and the columns 3 to 5; give the index that maxpool2d_forward"),
        ((0, 1, 1, 1), 14, "is 14, row 2, column 2; its window has the rows 2 to 3"),
        ((0, 1, 1, 1), 2**40, f"is {2**40}, no pixel of the plane"),
    ],
)  # fmt: skip
def test_an_index_outside_its_window_is_refused(
    place: tuple[int, ...], value: int, message: str
) -> None:
    kernel = maxpool2d_backward(batch=2, channels=2, height=5, width=6, size=(2, 3), stride=(2, 3))
    inputs = kernel.make_inputs(1)
    inputs["index"][place] = value
    with pytest.raises(UsageError, match=f"^kernel 'maxpool2d_backward': .*{message}"):
        simulate(kernel, inputs)


def test_the_first_bad_index_is_named() -> None:
    kernel = maxpool2d_backward(batch=2, channels=2, height=4, width=4)
    inputs = kernel.make_inputs(1)
    inputs["index"][:] = 15
    with pytest.raises(UsageError, match=r"index\[0, 0, 0, 0\] is 15, row 3, column 3; its window"):
        kernel.check_inputs(inputs)


def test_an_index_of_another_type_is_refused() -> None:
    kernel = maxpool2d_backward(batch=1, channels=1, height=2, width=2)
    inputs = kernel.make_inputs(1)
    for dtype in ("int32", "float32"):
        wrong = {"dz": inputs["dz"], "index": inputs["index"].astype(dtype)}
        with pytest.raises(UsageError, match=f"tensor 'index' must be int64, is {dtype}"):
            simulate(kernel, wrong)


def test_more_rows_than_an_index_can_number_are_refused() -> None:
    with pytest.raises(UsageError, match="are 2,147,549,184 matrix rows; an index has 32 bits"):
        maxpool2d_backward(batch=1, channels=2**15, height=2, width=2**15 + 1)
