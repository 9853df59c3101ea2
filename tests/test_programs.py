"""Code of programs: quick at first, better where much is done, the same results from both."""

from __future__ import annotations

import numpy as np
import pytest

from isa.machine import Machine
from kernels import fc_forward, maxpool2d_forward
from simulator import simulate
from simulator.compiled import programs
from simulator.compiled.programs import compiled_program
from simulator.simulate import least_cycles

MACHINE = Machine.load()


def test_quick_code_until_the_runs_have_done_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "QUICK_CYCLES", 100)
    program = fc_forward(batch=3, in_features=5, out_features=2).program(MACHINE, 1)
    first, second, third, fourth = (
        compiled_program(program, MACHINE, cycles) for cycles in (40, 59, 1, 1)
    )
    assert (first.quick, third.quick) == (True, False)
    assert first is second
    assert third is fourth


def test_much_or_unknown_work_gets_better_code_at_once() -> None:
    for batch, cycles in ((1, programs.QUICK_CYCLES), (2, 0)):
        program = fc_forward(batch=batch, in_features=5, out_features=2).program(MACHINE, 1)
        assert not compiled_program(program, MACHINE, cycles).quick


def test_few_lanes_have_no_quick_code() -> None:
    narrow = Machine.load(overrides=["vpu.lanes=4"])
    program = fc_forward(batch=3, in_features=5, out_features=2).program(narrow, 1)
    assert not compiled_program(program, narrow, 1).quick


def test_both_codes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fc_forward(batch=20, in_features=33, out_features=17)
    inputs, runs = kernel.make_inputs(seed=1), []
    for limit in (programs.QUICK_CYCLES, 0):
        monkeypatch.setattr(programs, "QUICK_CYCLES", limit)
        runs.append(simulate(kernel, inputs, cores=2))
    assert runs[0].result == runs[1].result
    np.testing.assert_array_equal(runs[0].outputs["z"], runs[1].outputs["z"])


def test_moving_much_is_doing_much() -> None:
    """VGG16's first pooling: 0.6 GFlop, but 4.9 GB at 34.16 bytes a cycle."""
    pooling = maxpool2d_forward(batch=256, channels=64, height=224, width=224)
    moved = 256 * 64 * (224 * 224 + 2 * 112 * 112) * 4
    assert least_cycles(pooling, MACHINE) == pytest.approx(moved / (42.7 * 0.8))
    assert least_cycles(pooling, MACHINE) > programs.QUICK_CYCLES


def test_multiplying_much_is_doing_much() -> None:
    kernel = fc_forward(batch=64, in_features=4096, out_features=4096)
    assert least_cycles(kernel, MACHINE) == 4096 * 4096  # 64 multiply-adds a cycle
