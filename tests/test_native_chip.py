"""The chip's compiled loop: threads, slices, logs and interrupts change nothing that a run says."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest

import micro_programs
from isa import Builder, Count, SimulationError, Tensor, UsageError, kernel, unless, when_set
from isa.descriptor import Plane, TransferRequest
from isa.language.kernel import Kernel
from isa.program import Program
from micro_programs import AM, DDR, EASY, SM, R, one, row, without_folders
from simulator.compiled import native_chip, pace, rounds
from simulator.compiled.programs import compiled_program
from simulator.compiled.record import NUMBERS
from simulator.simulate import Run, simulate
from test_goldens import kernel_of

DATA = 64 * 1024
Micro = micro_programs.Bench


@pytest.fixture(params=[(1, 500), (2, 300), (4, 1000)], ids=str)
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on so many threads, and come back to Python after so many packets."""
    threads, budget = request.param
    monkeypatch.setenv(native_chip.VARIABLE, str(threads))
    monkeypatch.setattr(pace, "FIRST_BUDGET", budget)
    monkeypatch.setattr(pace, "SLICE_SECONDS", 0.0)  # stay with the first budget


@cache
def on_reference(name: str, params: str) -> tuple[Kernel, Run]:
    tested = kernel_of(name, params)
    return tested, simulate(tested, tested.make_inputs(3), cores=4, engine="reference")


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("conv2d_forward", "batch=40 channels=3 filters=9 height=3 width=3"),
        ("relu_forward", "batch=40 features=333"),
    ],
)
def test_threads_and_slices_change_nothing(name: str, params: str) -> None:
    tested, one = on_reference(name, params)
    other = simulate(tested, tested.make_inputs(3), cores=4, engine="compiled")
    assert one.result == other.result
    for tensor, expected in one.outputs.items():
        np.testing.assert_array_equal(other.outputs[tensor], expected)


@cache
def _programs(body: Any, cores: int) -> Program:
    return micro_programs.program(body, EASY, cores)


def both(body: Any, cores: int, prepare: Any) -> tuple[Micro, Micro]:
    """Return the same bench for both engines."""
    plain = Micro(_programs(body, cores), EASY, cores)
    compiled = Micro(plain.program, EASY, cores, compiled=compiled_program(plain.program, EASY, 0))
    for bench in (plain, compiled):
        prepare(bench)
    return plain, compiled


def many(k: Builder) -> None:
    """Load 16 words again and again, R1 times, and meet each time."""
    k.ddr_buffer("data", DATA)
    again = k.label("again")
    one(k, "dmastart", R[32], 3)
    one(k, "dmawait", 3)
    one(k, "barrier")
    one(k, "ssub", 1, R[1], R[1])
    k.idle(3)
    one(k, "sbr", again, when=when_set(R[1]))
    k.idle(6)
    one(k, "halt")


def test_logs_grow() -> None:
    def prepare(bench: Micro) -> None:
        bench[R[1]] = 700
        for core in range(2):
            bench.transfer_of(core, 0, row(DDR, 16), row(AM, 16))

    plain, compiled = both(many, 2, prepare)
    expected, found = plain.run(1_000_000), compiled.run(1_000_000)
    assert found == expected
    assert len(found.transfers) == 1400  # more than a new log holds
    assert found.cores[0].stalls == expected.cores[0].stalls
    assert found.transfers[:3] == list(expected.transfers)[:3]


def delay(k: Builder) -> None:
    """Go 12 cycles round R0 times."""
    top = k.label("top")
    one(k, "ssub", 1, R[0], R[0])
    k.idle(4)
    one(k, "sbr", top, when=when_set(R[0]))
    k.idle(6)


def delays(bench: Micro, *turns: int) -> None:
    for core, count in enumerate(turns):
        bench.write(R[0], count, core)


def clash(k: Builder) -> None:
    """Core 0 (R1 set) starts an illegal transfer late, the others at once."""
    k.ddr_buffer("data", DATA)
    delay(k)
    one(k, "dmastart", R[32], 0, when=when_set(R[1]))
    one(k, "dmastart", R[33], 1, when=unless(R[1]))
    one(k, "dmawait", 0)
    one(k, "halt")


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("guilty", [(0, 1, 2), (1, 2), (2,)])
def test_the_error_of_the_lowest_core_is_told(guilty: tuple[int, ...]) -> None:
    def prepare(bench: Micro) -> None:
        bench.write(R[1], 1, core=0)
        delays(bench, 90, 1, 30)
        for core in range(3):
            target = SM + 2 if core in guilty else SM
            bench.transfer_of(core, 0, row(DDR, 16), Plane(target, 1, 16, 0))
            bench.transfer_of(core, 1, row(DDR, 16), Plane(target, 1, 16, 0))

    plain, compiled = both(clash, 3, prepare)
    message = plain.failure()
    assert f": core {guilty[0]}, cycle " in message
    assert compiled.failure() == message


def disagree(k: Builder) -> None:
    k.ddr_buffer("data", DATA)
    delay(k)
    one(k, "dmastart", R[32], 0)
    one(k, "dmastart", R[33], 1)
    one(k, "dmawait", 0)
    one(k, "dmawait", 5)
    one(k, "halt")


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("broken", [1, 2, None])
def test_a_broadcast_that_disagrees_is_told_before_what_comes_later(broken: int | None) -> None:
    # behind it, every core waits for a channel on which nothing was started
    def prepare(bench: Micro) -> None:
        delays(bench, 1, 70, 9)
        for core in range(3):
            source = row(DDR + 64, 16) if core == broken else row(DDR, 16)
            bench.transfer_of(core, 0, row(DDR, 16), row(AM, 16))
            bench.transfer_of(core, 1, source, row(AM + 640, 16), cores=0b111)

    plain, compiled = both(disagree, 3, prepare)
    message = plain.failure()
    expected = "must read the same source" if broken else "waits for channel 5"
    assert expected in message
    assert compiled.failure() == message


@kernel(inputs=lambda p: {}, outputs=lambda p: {"z": Tensor((16,))})
def endless(k: Builder, transfers: Count = 1) -> None:
    tile, z = k.array_buffer("tile", 64), k.output("z")
    going = k.smovi(1)
    load = k.descriptor("load", TransferRequest(*(Plane(b.address, 1, 16, 0) for b in (z, tile))))
    with k.until_zero("endless", going):
        if transfers > 1:
            k.start(load, 0)
            k.wait(0)
        k.sadd(going, 0, going)


@pytest.mark.parametrize("transfers", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_ends_a_run_soon(
    transfers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native_chip.VARIABLE, str(threads))
    simulate(
        kernel_of("relu_forward", "batch=2 features=16"),
        engine="compiled",
        inputs={"x": np.zeros((2, 16), np.float32)},
    )  # everything is loaded
    endless_kernel, before = endless(transfers=transfers), threading.active_count()
    seen: list[int] = []
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        simulate(
            endless_kernel, {}, cores=2, engine="compiled", cycle_limit=10**15,
            progress=lambda core, cycle: seen.append(cycle),
        )  # fmt: skip
    timer.join()
    assert threading.active_count() == before
    assert len(seen) > 2


def test_a_limit_is_told_for_the_lowest_core(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []
    for engine in ("reference", "compiled"):
        with pytest.raises(SimulationError) as caught:
            simulate(endless(transfers=2), {}, cores=3, engine=engine, cycle_limit=20_011)
        messages.append(without_folders(str(caught.value)))
    assert messages[0] == messages[1]
    assert "core 0, cycle 20" in messages[0]
    assert "still running at the limit of 20,011 cycles" in messages[0]


def test_numbers_of_a_record_follow_each_other() -> None:
    layout = compiled_program(_programs(many, 2), EASY, 0).plan.record
    places = [layout.numbers[name] for name in NUMBERS]
    assert places == list(range(places[0], places[0] + 8 * len(NUMBERS), 8))


def test_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, cores, threads in (("3", 4, 3), ("3", 2, 2), ("1", 4, 1)):
        monkeypatch.setenv(native_chip.VARIABLE, asked)
        assert native_chip.host_threads(cores) == threads
    for wrong in ("0", "two", "", "-1"):
        monkeypatch.setenv(native_chip.VARIABLE, wrong)
        with pytest.raises(UsageError, match=f"FTM7004_THREADS must be .* got '{wrong}'"):
            native_chip.host_threads(4)
    monkeypatch.delenv(native_chip.VARIABLE)
    assert native_chip.host_threads(64) == len(os.sched_getaffinity(0))


def test_waiting_threads_leave_the_processor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # two threads for one busy core: the idle one sleeps
    @kernel(inputs=lambda p: {}, outputs=lambda p: {})
    def lopsided(k: Builder) -> None:
        busy = k.seq(k.scoreid(), 0)
        with k.when(busy), k.loop("busy", 3_000_000):
            pass

    monkeypatch.setenv(native_chip.VARIABLE, "2")
    simulate(lopsided(), {}, cores=2, engine="compiled")
    began, used = time.perf_counter(), time.process_time()
    simulate(lopsided(), {}, cores=2, engine="compiled")
    took, used = time.perf_counter() - began, time.process_time() - used
    assert used < 1.5 * took + 0.05


def test_the_faster_number_of_threads_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for rates, best in (({1: 100.0, 2: 170.0}, 2), ({1: 100.0, 2: 60.0}, 1)):
        chosen = pace.Pace(2)
        used = []
        for _ in range(40):
            used.append(chosen.threads)
            packets = 2 * chosen.budget
            chosen.note(packets, packets / rates[used[-1]] / 1e6)
        # two threads until the first trial of one, then the faster but for a trial every 16 slices
        first = used.index(1, 1)
        assert set(used[1:first]) == {2}
        trials = [n for n, threads in enumerate(used) if n > first and threads != best]
        assert trials == list(range(first + 16, 40, 16))
        # a slice takes 0.1 s: 1e7 packets at 1e8 a second, half of them for each core
        assert 0.8 < 2 * chosen.budget / rates[best] / 1e5 < 1.25


def test_one_thread_makes_no_trials() -> None:
    alone = pace.Pace(1)
    for _ in range(20):
        assert alone.threads == 1
        alone.note(1_000_000, 0.1)


def unknown(k: Builder) -> None:
    k.ddr_buffer("data", DATA)
    for number in range(3):
        one(k, "dmastart", R[32 + number], number)
    for number in range(3):
        one(k, "dmawait", number)
    one(k, "halt")


def test_a_run_without_numbers_marks_what_nobody_knows_in_scalar_memory() -> None:
    def prepare(bench: Micro) -> None:
        bench.transfer(0, row(DDR, 5, 3), row(SM, 5, 3, 32))
        bench.transfer(1, row(DDR, 64), row(AM, 64))
        for core in range(2):
            bench.transfer_of(core, 2, row(SM + 512, 4), row(DDR + 512 + 64 * core, 4))

    plain = Micro(_programs(unknown, 2), EASY, 2)
    options = {"compiled": compiled_program(plain.program, EASY, 0), "timing_only": True}
    compiled = Micro(plain.program, EASY, 2, **options)
    shadows = []
    for bench in (plain, compiled):
        prepare(bench)
    for core in compiled.chip.cores:
        shadows.append(shadow := np.zeros(len(core.scalar_memory.words), np.uint8))
        core.numbers["shadow"][0] = shadow.ctypes.data  # type: ignore[attr-defined]
    before = [core.scalar_memory.words.copy() for core in compiled.chip.cores]
    assert compiled.run() == plain.run()
    for core, shadow, words in zip(compiled.chip.cores, shadows, before, strict=True):
        np.testing.assert_array_equal(core.scalar_memory.words, words)
        # rows of 5 words, 8 words apart
        assert np.flatnonzero(shadow).tolist() == [8 * n + m for n in range(3) for m in range(5)]
        assert not core.array_memory.words.any()


def test_the_loop_does_the_same_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_chip, "work", lambda: rounds.work)
    monkeypatch.setenv(native_chip.VARIABLE, "1")
    tested, expected = on_reference("relu_forward", "batch=40 features=333")
    found = simulate(tested, tested.make_inputs(3), cores=4, engine="compiled")
    assert found.result == expected.result
    np.testing.assert_array_equal(found.outputs["z"], expected.outputs["z"])


def test_runs_at_the_same_time_share_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTM7004_CACHE", "off")
    monkeypatch.setattr(native_chip, "_libraries", [])
    tested, expected = on_reference("relu_forward", "batch=40 features=333")
    inputs = tested.make_inputs(3)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(simulate, tested, inputs, cores=4, engine="compiled") for _ in range(3)]
    assert all(run.result().result == expected.result for run in runs)
    assert len(native_chip._libraries) == 1
