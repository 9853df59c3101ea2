"""Traces of a window of a compiled run: byte for byte as of a run on the reference engine."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isa.language.kernel import Kernel
from isa.machine import Machine
from kernel_run import machine
from simulator.reporting.trace import Trace, Window
from simulator.result import StallPlace
from simulator.simulate import Run, simulate
from test_goldens import kernel_of

BANKED = ("am.bank_model=true", "am.banks=4")

KERNELS = {
    "conv2d_forward": "batch=40 channels=3 filters=9 height=3 width=3",
    "maxpool2d_forward": "batch=20 channels=2 height=4 width=4",
    "relu_forward": "batch=20 features=70",
}


class Listening(Trace):
    """Keeps all that a run tells, and writes the traces of many windows of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.told: list[tuple[Any, ...]] = []
        self.stalls: list[tuple[int, int]] = []
        """First cycle and cycles."""

    def packet(self, core: int, cycle: int, packet: int) -> None:
        self.told.append((Trace.packet, core, cycle, packet))

    def stall(self, core: int, cycle: int, cycles: int, place: StallPlace) -> None:
        self.told.append((Trace.stall, core, cycle, cycles, place))
        self.stalls.append((cycle, cycles))

    def of(self, window: Window, run: Run, record: Machine) -> bytes:
        """Return the trace of a window."""
        trace = Trace(self.path, window)
        for tell, *what in self.told:
            tell(trace, *what)
        trace.save(run.program, run.result, record)
        return Path(self.path).read_bytes()


@cache
def kernel_named(name: str) -> Kernel:
    return kernel_of(name, KERNELS[name])


def run(
    name: str, cores: int, overrides: tuple[str, ...], timing_only: bool, engine: str, trace: Trace
) -> Run:
    kernel = kernel_named(name)
    return simulate(
        kernel,
        None if timing_only else kernel.make_inputs(3),
        machine=machine(*overrides),
        cores=cores,
        engine=engine,
        timing_only=timing_only,
        trace=trace,
    )


def awkward(stalls: list[tuple[int, int]], cycles: int) -> list[Window]:
    """Return windows at both ends of a run, and within, before and behind stalls."""
    windows = [(0, 1), (0, 70), (cycles - 20, cycles + 50), (cycles + 5, cycles + 6)]
    longest = sorted(stalls, key=lambda stall: stall[1])[-2:]
    for first, count in {*longest, stalls[0], stalls[-1]}:
        end = first + count
        windows += [(first + count // 2, end + 40), (first, first + 1), (end, end + 25)]
        windows += [(first - 30, first + count // 2), (end - 1, end), (first + 1, end)]
    return [(max(first, 0), max(end, first + 1, 1)) for first, end in windows]


@pytest.mark.parametrize("timing_only", [False, True])
@pytest.mark.parametrize("overrides", [(), BANKED], ids=["plain", "banks"])
@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("name", KERNELS)
def test_a_window_is_traced_as_on_the_reference_engine(
    name: str, cores: int, overrides: tuple[str, ...], timing_only: bool, tmp_path: Path
) -> None:
    options = (name, cores, overrides, timing_only)
    heard = Listening(tmp_path / "expected.json")
    whole = run(*options, "reference", heard)
    for window in awkward(heard.stalls, whole.result.cycles):
        path = tmp_path / "trace.json"
        traced = run(*options, "compiled", Trace(path, window))
        assert traced.report.engine == "compiled"
        assert traced.result == whole.result, window
        for tensor, words in whole.outputs.items():
            np.testing.assert_array_equal(traced.outputs[tensor], words)
        assert path.read_bytes() == heard.of(window, whole, machine(*overrides)), window


def test_a_trace_without_a_window_runs_on_the_reference_engine(tmp_path: Path) -> None:
    traced = run("relu_forward", 1, (), True, "compiled", Trace(tmp_path / "trace.json"))
    assert traced.report.engine == "reference"
