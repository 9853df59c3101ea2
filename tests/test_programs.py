"""Code of programs: quick at first, better where much is done, the same results from both."""

from __future__ import annotations

import numpy as np
import pytest

from isa.machine import Machine
from kernels import fc_forward
from simulator import simulate
from simulator.compiled import programs
from simulator.compiled.programs import compiled_program

MACHINE = Machine.load()


def test_quick_code_until_the_runs_have_done_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "QUICK_FLOPS", 100)
    program = fc_forward(batch=3, in_features=5, out_features=2).program(MACHINE, 1)
    first, second, third, fourth = (
        compiled_program(program, MACHINE, flops) for flops in (40, 59, 1, 1)
    )
    assert (first.quick, third.quick) == (True, False)
    assert first is second
    assert third is fourth


def test_much_or_unknown_work_gets_better_code_at_once() -> None:
    for batch, flops in ((1, programs.QUICK_FLOPS), (2, 0)):
        program = fc_forward(batch=batch, in_features=5, out_features=2).program(MACHINE, 1)
        assert not compiled_program(program, MACHINE, flops).quick


def test_few_lanes_have_no_quick_code() -> None:
    narrow = Machine.load(overrides=["vpu.lanes=4"])
    program = fc_forward(batch=3, in_features=5, out_features=2).program(narrow, 1)
    assert not compiled_program(program, narrow, 1).quick


def test_both_codes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fc_forward(batch=20, in_features=33, out_features=17)
    inputs, runs = kernel.make_inputs(seed=1), []
    for limit in (programs.QUICK_FLOPS, 0):
        monkeypatch.setattr(programs, "QUICK_FLOPS", limit)
        runs.append(simulate(kernel, inputs, cores=2))
    assert runs[0].result == runs[1].result
    np.testing.assert_array_equal(runs[0].outputs["z"], runs[1].outputs["z"])
