"""`check_inputs` of a kernel: what is wrong with values that shapes and dtypes allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isa import Builder, Tensor, UsageError, kernel
from isa.language.kernel import Kernel
from simulator import simulate
from simulator.cli import commands as cli

POSITIVE = """
import numpy as np
from isa import Builder, Tensor, kernel


def problem(p, inputs):
    if (inputs["x"] > 0).all():
        return None
    return f"x[{int(np.argmin(inputs['x'] > 0))}] is not positive; take its magnitude"


@kernel(
    inputs=lambda p: {"x": Tensor((p.count,))},
    outputs=lambda p: {},
    random_inputs=lambda p, generator: {"x": np.ones(p.count, np.float32)},
    check_inputs=problem,
)
def positive(k: Builder, count: int = 4) -> None:
    \"\"\"Do nothing with positive numbers.\"\"\"
"""


def kernel_with(check_inputs: Callable[..., Any] | None) -> Kernel:
    @kernel(
        inputs=lambda p: {"x": Tensor((p.count,))},
        outputs=lambda p: {},
        check_inputs=check_inputs,
    )
    def checked(k: Builder, count: int = 4) -> None:
        """Do nothing."""

    return checked()


def refuse_zeros(p: Any, inputs: Any) -> str | None:
    return f"one of {p.count} numbers is 0; use others" if (inputs["x"] == 0).any() else None


def test_bad_values_are_refused_with_the_kernel_s_name() -> None:
    checked = kernel_with(refuse_zeros)
    simulate(checked, {"x": np.ones(4, np.float32)})
    with pytest.raises(UsageError) as caught:
        simulate(checked, {"x": np.array([1, 2, 0, 4], np.float32)})
    assert str(caught.value) == "kernel 'checked': one of 4 numbers is 0; use others"


def test_shapes_and_dtypes_are_checked_first() -> None:
    def never(p: Any, inputs: Any) -> str:
        raise AssertionError("called with a wrong shape or dtype")

    for wrong in (np.zeros(3, np.float32), np.zeros(4)):
        with pytest.raises(UsageError, match="tensor 'x' must"):
            simulate(kernel_with(never), {"x": wrong})


def test_it_gets_arrays_whatever_was_given() -> None:
    seen = []
    checked = kernel_with(lambda p, inputs: seen.append(type(inputs["x"])))
    checked.check_inputs({"x": [np.float32(1)] * 4})
    assert seen == [np.ndarray]


def test_a_timing_only_run_has_no_values_to_check() -> None:
    simulate(kernel_with(lambda p, inputs: "always wrong"), timing_only=True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda p: None, r"check_inputs must be a function of \(p, inputs\)"),
        ("text", r"check_inputs must be a function of \(p, inputs\), got 'text'"),
        (lambda p, inputs: 5, r"check_inputs\(p, inputs\) must return a text .*, got 5"),
    ],
)
def test_a_hook_of_another_kind_is_refused(answer: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"kernel 'checked': {message}"):
        kernel_with(answer).check_inputs({"x": np.ones(4, np.float32)})


def status(inputs: str) -> Any:
    """Return the exit status of a run with the inputs of a file."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "user.py", "--input", inputs])
    return ended.value.code


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(POSITIVE, encoding="utf-8")
    np.savez("good.npz", x=np.array([1, 2, 3, 4], np.float32))
    np.savez("bad.npz", x=np.array([1, -2, 3, 4], np.float32))
    assert status("good.npz") == 0
    capsys.readouterr()
    assert status("bad.npz") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "kernel 'positive': x[1] is not positive; take its magnitude" in captured.err
    assert "Traceback" not in captured.err
