"""Compiled runs stopped at any cycle: the reference engine's state there, the same run afterwards.

Expected values are those of a whole run on the reference engine.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest

import micro_programs
from isa import Builder, Machine, unless, when_set
from isa.program import Program
from micro_programs import AM, AR, DDR, LIMIT, SM, VLR, VR, R, machine, one, row
from simulator.chip import Chip
from simulator.compiled.core import CompiledCore
from simulator.compiled.programs import compiled_program
from simulator.fuzzing import running
from simulator.fuzzing.comparing import first_difference
from simulator.fuzzing.generator import generate
from simulator.memory import Memory
from simulator.result import ChipResult
from test_native_chip import delay, delays
from test_snapshot import END, mixed

Micro = micro_programs.Bench

LATE = 10_000
"""A cycle after the end of all programs here."""

EASY = micro_programs.EASY
BANKED = machine(*micro_programs.EASY_SETTINGS, "am.bank_model=true", "am.banks=4")


def busy(k: Builder) -> None:
    """Twice: load, go round R4 times with results in flight over the branch, meet. Then store."""
    k.ddr_buffer("data", 64 * 1024)
    delay(k)
    again = k.label("again")
    one(k, "dmastart", R[32], 3)
    one(k, "smov", R[4], R[2])
    k.idle(2)
    top = k.label("top")
    with k.packet():
        k.vldw(AR[0].post(16), VR[4])
        k.vldw(AR[1] + 0, VR[5], when=when_set(R[2]))
        k.ssub(1, R[2], R[2])
    with k.packet():
        k.vfmulas32(VR[4], VR[5], VR[6], VR[6])
        k.vfmulas32(VR[4], VR[5], VR[7], VR[7], when=when_set(VR[0]))
    k.idle(3)
    one(k, "sbr", top, when=when_set(R[2]))
    with k.packet():
        k.vfmulas32(VR[4], VR[5], VR[8], VR[8])
        k.svbcast(R[2], VR[9])
    one(k, "smvcgc", R[2], micro_programs.ENTRY[3])
    k.idle(4)
    one(k, "dmawait", 3)
    one(k, "ssub", 1, R[1], R[1])
    one(k, "barrier")
    k.idle(4)
    one(k, "sbr", again, when=when_set(R[1]))
    one(k, "dmastart", R[33], 5, when=unless(R[1]))
    k.idle(5)
    one(k, "dmawait", 5)
    one(k, "halt")


@cache
def busy_program(record: Machine, cores: int) -> Program:
    return micro_programs.program(busy, record, cores)


def bench(record: Machine, cores: int, compiled: bool, timing_only: bool = False) -> Micro:
    """Return a bench of `busy`, its cores in step with nobody."""
    program = busy_program(record, cores)
    code = compiled_program(program, record, 0) if compiled else None
    made = Micro(program, record, cores, timing_only=timing_only, compiled=code)
    made[R[1]] = 2
    made[VLR], made[VR[0]] = 0xFF3F, range(16)
    for core in range(cores):
        made.write(R[4], 3 + core, core)
        made.transfer_of(core, 0, row(DDR, 64 + 32 * core), row(AM, 64 + 32 * core))
        made.transfer_of(core, 1, row(AM, 16), row(DDR + 4096 + 1024 * core, 16))
    delays(made, *range(1, cores + 1))
    if not timing_only:
        made.place(DDR, np.arange(1, 257, dtype=np.float32).view(np.uint32).tolist())
    return made


def seen(made: Micro) -> list[Any]:
    """Return registers and memories."""
    found: list[Any] = [made.chip.ddr.words.tobytes()]
    for core in made.chip.cores:
        memories: tuple[Memory, ...] = (core.array_memory, core.scalar_memory)
        found += [memory.words.tobytes() for memory in memories]
        found += [core.scalars, core.addresses, core.lane_mask, core.vectors.tobytes()]
        found += [core.exchange.tobytes()]
    return found


def interpreted(chip: Chip) -> list[int]:
    """Return the packets of each core that the reference engine ran."""
    assert all(isinstance(core, CompiledCore) for core in chip.cores)
    return [sum(core.executed) for core in chip.cores]


MACHINES = [
    pytest.param(EASY, 1, False, id="one core"),
    pytest.param(EASY, 3, False, id="three cores"),
    pytest.param(EASY, 3, True, id="timing only"),
    pytest.param(BANKED, 2, False, id="banks"),
    pytest.param(BANKED, 2, True, id="banks, timing only"),
]


@pytest.mark.parametrize(("record", "cores", "timing_only"), MACHINES)
def test_any_window_changes_nothing(record: Machine, cores: int, timing_only: bool) -> None:
    whole = bench(record, cores, False, timing_only)
    expected = whole.run()
    end = seen(whole)
    for first in range(expected.cycles + 2):
        stopped = bench(record, cores, True, timing_only)
        assert stopped.chip.run(LIMIT, window=(first, first + first % 9)) == expected, first
        assert timing_only or seen(stopped) == end, first


@pytest.mark.parametrize(("record", "cores", "timing_only"), MACHINES)
def test_states_at_any_cycle(record: Machine, cores: int, timing_only: bool) -> None:
    cycles = bench(record, cores, False, timing_only).run().cycles
    flying = 0
    for cycle in range(0, cycles, 3 if timing_only or record is BANKED else 1):
        states = [
            bench(record, cores, compiled, timing_only).chip.states_at(cycle, LIMIT)
            for compiled in (False, True)
        ]
        for one_state, other in zip(*states, strict=True):
            assert (one_state is None) == (other is None), cycle
            if one_state is not None:
                assert one_state.tobytes() == other.tobytes(), cycle
                flying = max(flying, int(other["flying_count"]))
    assert flying >= 4


def test_a_state_is_that_of_a_core_stopped_there() -> None:
    record = Machine.load()
    program = mixed().program(record)
    for cycle in range(END.cycle):
        chip = Chip(program, record, compiled=compiled_program(program, record, 0))
        (state,) = chip.states_at(cycle, LATE)
        stopped = Chip(program, record).cores[0]
        stopped.run(cycle)
        # no stalls: the core is exactly there
        assert int(state["issue"] + state["stalled"]) == cycle == stopped.cycle
        for name, words in (("vectors", stopped.vectors), ("exchange", stopped.exchange)):
            np.testing.assert_array_equal(state[name], words)
        assert state["scalars"].tolist() == stopped.scalars
        assert state["addresses"].tolist() == stopped.addresses
        sent = sum(
            1 if not hasattr(write, "rows") and len(write.targets) == 1 else len(write.targets)
            for due in stopped.ring
            for write, _, _ in due
        )
        assert int(state["flying_count"]) == sent


def test_compiled_code_goes_on_soon_after_a_window() -> None:
    made = bench(EASY, 2, True)
    for core in range(2):
        made.write(R[4], 400, core)
    result: ChipResult = made.chip.run(100_000, window=(1000, 1010))
    assert result.cycles > 9000
    # the window, and to where a stretch begins and ends: 8 packets a round of 12 cycles
    assert all(6 <= packets <= 20 for packets in interpreted(made.chip))


def astray(k: Builder) -> None:
    """Go to the packet behind a label, where no stretch begins; then round R0 times."""
    behind = k.new_label("behind")
    one(k, "smovi", behind, R[10])
    k.idle(3)
    one(k, "sadd", 1, R[10], R[10])
    k.idle(3)
    one(k, "sbr", R[10])
    k.idle(6)
    k.place(behind)
    one(k, "smovi", 77, R[12])
    one(k, "smovi", 78, R[13])
    delay(k)
    one(k, "barrier")
    one(k, "halt")


def test_a_branch_to_where_no_stretch_begins_is_soon_over() -> None:
    program = micro_programs.program(astray, EASY, 3)
    whole = Micro(program, EASY, 3)
    made = Micro(program, EASY, 3, compiled=compiled_program(program, EASY, 0))
    for one_bench in (whole, made):
        delays(one_bench, 400, 300, 200)
    assert made.run() == whole.run()
    assert seen(made) == seen(whole)
    assert (made[R[12]], made[R[13]]) == (0, 78)
    # SBR, SNOP 6, SMOVI, and the first turn, until its result has landed
    assert all(3 <= packets <= 8 for packets in interpreted(made.chip))


def test_a_core_that_waits_long_passes_the_window() -> None:
    # core 0 waits at the barrier while core 1 goes round 300 times
    def made(compiled: bool) -> Micro:
        found = bench(EASY, 2, compiled)
        found.write(R[4], 300, 1)
        return found

    expected = made(False).run()
    for first in (700, 2500, 3900):
        stopped = made(True)
        assert stopped.chip.run(LIMIT, window=(first, first + 100)) == expected
        assert max(interpreted(stopped.chip)) < 100


@pytest.mark.parametrize("window", [(0, 30), (40, 41), (60, LATE)])
def test_a_mistake_in_or_behind_a_window_has_the_same_message(window: tuple[int, int]) -> None:
    def made(compiled: bool) -> Micro:
        found = bench(EASY, 2, compiled)
        found.transfer_of(1, 1, row(AM, 16), row(SM + 2, 16))  # not at a word
        return found

    message = made(False).failure()
    assert "core 1, cycle " in message
    stopped = made(True)
    chip_run = stopped.chip.run
    stopped.chip.run = lambda limit: chip_run(limit, window=window)  # type: ignore[method-assign]
    assert stopped.failure() == message


@pytest.mark.parametrize("number", [3, 12])
@pytest.mark.parametrize("timing_only", [False, True])
def test_windows_of_random_programs(
    number: int, timing_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTM7004_CACHE", "off")
    case, random = generate(7, number, 60), Random(number)
    expected = running.run_reference(case, timing_only=timing_only)
    assert expected.result is not None
    whole_run = Chip.run
    for _ in range(12):
        first = random.randrange(expected.result.cycles)
        window = (first, first + random.choice([0, 1, 10, 100, 300]))
        monkeypatch.setattr(
            Chip, "run", lambda chip, limit, at=window: whole_run(chip, limit, window=at)
        )
        stopped = running.run_compiled(case, timing_only=timing_only)
        assert first_difference(case, expected, stopped, ("whole", f"window {window}")) is None
