"""The compiled engine against the reference engine: the same bits, cycles, stalls and errors."""

from __future__ import annotations

import numpy as np
import pytest

from isa import Builder, Count, SimulationError, Tensor, kernel
from isa.language.kernel import Kernel
from kernel_run import machine, sprinkled
from simulator.compiled import programs
from simulator.simulate import Run, simulate
from test_goldens import CYCLES, kernel_of


@pytest.fixture(autouse=True)
def better_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the code that long runs use; small sizes get quick code else."""
    monkeypatch.setattr(programs, "QUICK_CYCLES", 0)


def assert_same(kernel: Kernel, cores: int, sprinkle: bool = False, *overrides: str) -> Run:
    """Run on both engines; fail unless outputs, cycles, counters and transfers are the same."""
    inputs = kernel.make_inputs(7)
    if sprinkle:
        inputs = sprinkled(inputs)
    one, other = (
        simulate(kernel, inputs, machine=machine(*overrides), cores=cores, engine=engine)
        for engine in ("reference", "compiled")
    )
    assert (one.report.engine, other.report.engine) == ("reference", "compiled")
    assert one.result == other.result
    for name, tensor in one.outputs.items():
        np.testing.assert_array_equal(other.outputs[name], tensor)
    return other


@pytest.mark.parametrize(("name", "params", "cores"), CYCLES)
def test_every_kernel_of_the_library(name: str, params: str, cores: int) -> None:
    assert_same(kernel_of(name, params), cores)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("conv2d_forward", "batch=33 channels=2 filters=9 height=3 width=3 relu=true"),
        ("conv2d_backward_data", "batch=20 channels=3 filters=2 height=3 stride=2 relu=true"),
        ("fc_forward", "batch=5 in_features=20 out_features=9"),
        ("relu_backward", "batch=5 features=33"),
    ],
)
def test_nan_and_infinities(name: str, params: str) -> None:
    assert_same(kernel_of(name, params), 2, True)


@pytest.mark.parametrize(
    "overrides",
    [
        ("vpu.lanes=8",),
        ("latency.vector_load=12", "latency.vector_multiply_add_float=9", "latency.branch=9"),
        ("issue.one_result_per_unit=false", "dma.launch_cycles=200"),
    ],
)
def test_other_machines(overrides: tuple[str, ...]) -> None:
    kernel = kernel_of("conv2d_forward", "batch=40 channels=3 filters=9 height=3 width=3")
    assert_same(kernel, 2, False, *overrides)


def test_it_runs_unless_another_is_asked_for() -> None:
    kernel = kernel_of("relu_forward", "batch=2 features=40")
    assert simulate(kernel, kernel.make_inputs(1)).report.engine == "compiled"


def test_checks_run_on_the_reference_engine() -> None:
    kernel = kernel_of("relu_forward", "batch=2 features=40")
    report = simulate(kernel, kernel.make_inputs(1), engine="compiled", check=True).report
    assert report.engine == "reference"


@pytest.mark.parametrize(
    ("name", "params", "cores"),
    [case for case in CYCLES if case[2] == 4 or "backward_data" in case[0] or "lr=" in case[1]],
)
def test_timing_only_of_every_kernel(name: str, params: str, cores: int) -> None:
    kernel = kernel_of(name, params)
    timed = simulate(kernel, timing_only=True, cores=cores, engine="compiled")
    assert timed.report.engine == "compiled"
    other = simulate(kernel, timing_only=True, cores=cores, engine="reference")
    assert timed.result == other.result


@pytest.mark.parametrize("timing_only", [False, True])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("conv2d_forward", "batch=33 channels=3 height=3 width=3 filters=9"),
        ("relu_backward", "batch=33"),
    ],
)
def test_bank_model(name: str, params: str, timing_only: bool) -> None:
    kernel = kernel_of(name, params)
    record = machine("am.bank_model=true", "am.banks=4")
    inputs = None if timing_only else kernel.make_inputs(3)
    one, other = (
        simulate(kernel, inputs, machine=record, cores=2, timing_only=timing_only, engine=engine)
        for engine in ("reference", "compiled")
    )
    assert other.report.engine == "compiled"
    assert other.report.stalls["bank_conflict"] > 0
    assert one.result == other.result


def test_a_branch_to_where_a_register_says() -> None:
    @kernel(inputs=lambda p: {"x": Tensor((16,))}, outputs=lambda p: {"z": Tensor((16,))})
    def called(k: Builder) -> None:
        """Double x in a subroutine, which is no label's business to return from."""
        tile = k.array_buffer("tile", 64)
        k.copy(k.input("x"), tile, 0)
        k.wait(0)
        double, after, link = k.new_label("double"), k.new_label("after"), k.scalar("link")
        k.call(double, link)
        k.sbr(after)
        k.place(double)
        place = k.point(k.vector_address("place"), tile)
        value = k.vldw(place + 0)
        k.vstw(k.vfadds32(value, value), place + 0)
        k.ret(link)
        k.place(after)
        k.copy(tile, k.output("z"), 0)
        k.wait(0)

    x = np.arange(16, dtype=np.float32)
    run = simulate(called(), {"x": x}, engine="compiled")
    assert run.report.engine == "compiled"
    np.testing.assert_array_equal(run.outputs["z"], 2 * x)
    assert run.result == simulate(called(), {"x": x}, engine="reference").result


def faulty(kind: str, after: int) -> Kernel:
    """Return a kernel that goes wrong in turn `after` of its loop."""

    @kernel(inputs=lambda p: {}, outputs=lambda p: {"z": Tensor((16,))})
    def wrong(k: Builder, turns: Count = 100) -> None:
        tile = k.array_buffer("tile", 64)
        place = k.point(k.vector_address("place"), tile)
        words = k.point(k.scalar_address("words"), k.scalar_buffer("words", 64))
        number, value = k.smovi(5), k.vmovi(1.0)
        with k.loop("turns", turns) as left, k.when(k.seq(left, turns - after)):
            if kind == "store":
                k.sadda(k.constant(2**21), place, place)
                k.vstw(value, place + 0)
            elif kind == "load":
                k.sadda(k.constant(2), words, words)
                k.sldw(words + 0, number)
            elif kind == "wait":
                k.wait(3)
            else:
                k.sbr(k.constant(100_000))
        k.copy(tile, k.output("z"), 0)
        k.wait(0)

    return wrong()


@pytest.mark.parametrize("kind", ["store", "load", "wait", "branch"])
@pytest.mark.parametrize("after", [0, 37])
def test_a_mistake_has_the_same_message(kind: str, after: int) -> None:
    messages = []
    for engine in ("reference", "compiled"):
        with pytest.raises(SimulationError) as caught:
            simulate(faulty(kind, after), {}, engine=engine)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_runaway_kernel_ends_at_the_same_cycle() -> None:
    @kernel(inputs=lambda p: {}, outputs=lambda p: {})
    def endless(k: Builder) -> None:
        one = k.smovi(1)
        with k.until_zero("endless", one):
            k.sadd(one, 0, one)

    messages = []
    for engine in ("reference", "compiled"):
        with pytest.raises(SimulationError, match="still running at the limit of 4,321") as caught:
            simulate(endless(), {}, engine=engine, cycle_limit=4321)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
