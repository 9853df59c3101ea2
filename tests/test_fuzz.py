"""Random programs: always legal, all instructions, equal on both engines; differences are found."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from click.testing import CliRunner

from isa.instruction import REGISTRY
from isa.listing import listing
from isa.operands import File, Register
from isa.packing.legality import findings
from simulator.cli.commands import ftm7004
from simulator.compiled.cache import VARIABLE
from simulator.compiled.llvm_values import LlvmVector
from simulator.fuzzing import campaign
from simulator.fuzzing.campaign import Campaign, Request, Summary
from simulator.fuzzing.case import Case
from simulator.fuzzing.classes import flows
from simulator.fuzzing.comparing import compare, compare_engines, first_difference
from simulator.fuzzing.faults import FAULTS, with_fault
from simulator.fuzzing.findings import finding_of
from simulator.fuzzing.generator import generate
from simulator.fuzzing.running import Outcome
from simulator.fuzzing.shrinking import shrink, without_packets
from simulator.fuzzing.work import Done
from simulator.result import ChipResult

SEED, PROGRAMS, COMPARED = 2026, 10, 3
SMALL = 8
"""Packets aimed at where a program only has to be one."""


@pytest.fixture(autouse=True)
def _keep_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no machine code of a changed engine come to others."""
    monkeypatch.setenv(VARIABLE, "off")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [generate(SEED, number) for number in range(PROGRAMS)]


def names(case: Case) -> set[str]:
    return {o.instruction.name for packet in case.program.packets for o in packet.operations}


def test_programs_hold_every_instruction(cases: list[Case]) -> None:
    assert set().union(*map(names, cases)) == set(REGISTRY)


def test_programs_are_legal(cases: list[Case]) -> None:
    assert [findings(case.program, case.machine) for case in cases] == [[]] * PROGRAMS


def test_machines_and_numbers_of_cores_differ(cases: list[Case]) -> None:
    assert len({case.overrides for case in cases}) > 1
    assert len({case.program.cores for case in cases}) > 1


def test_both_engines_agree(cases: list[Case]) -> None:
    verdicts = [compare(case) for case in cases[:COMPARED]]
    assert [str(v.difference) for v in verdicts if v.difference] == []
    assert [v.complaint for v in verdicts if v.complaint] == []
    assert any(v.native for v in verdicts)
    assert any(v.timing for v in verdicts)


def test_a_seed_and_a_number_always_give_the_same_program(cases: list[Case]) -> None:
    again, first = generate(SEED, 3), cases[3]
    assert listing(again.program, again.machine) == listing(first.program, first.machine)
    assert again.overrides == first.overrides
    np.testing.assert_array_equal(again.ddr, first.ddr)


def test_every_kind_of_mistake_is_made_and_ends_alike() -> None:
    made: dict[str, int] = {}
    for number in range(4):
        case = with_fault(generate(SEED, number, SMALL), 1.0)
        verdict = compare(case)
        assert verdict.difference is None, (case.command, case.fault, verdict.difference)
        made[case.fault] = made.get(case.fault, 0) + bool(verdict.error)
    assert set(made) <= set(FAULTS)
    assert sum(made.values()) > 0


# Classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("VADD", {"ii>i"}),
        ("VFADDS32", {"ii>f", "if>f", "fi>f", "ff>f"}),
        ("VFSTRU32", {"i>i", "f>i"}),
        ("VFINTS32", {"i>f"}),
        ("VSEL", {"iii>i", "iif>f", "ifi>f", "iff>f"}),
        ("VSHUFW", {"ii>i", "fi>f"}),
        ("SFCMPGS32", {"ii>i", "if>i", "fi>i", "ff>i"}),
        ("SMOVIH", {"ii>i"}),
    ],
)
def test_what_may_be_a_nan(name: str, expected: set[str]) -> None:
    """A float, which may be a NaN, stays away from integers; what compares or converts ends it."""
    letters = "if"
    found = {
        "".join(letters[f] for f in flow.sources) + ">" + letters[flow.result]
        for flow in flows(REGISTRY[name])
    }
    assert found == expected


# Comparing --------------------------------------------------------------------------------------


def outcome(value: int, register: int, case: Case) -> Outcome:
    vectors = np.zeros((64, case.machine.vpu.lanes), np.uint32)
    vectors[register, 1] = value
    return Outcome("", ChipResult(7, (), (), 0), {(0, File.VECTOR): vectors})


def test_a_nan_equals_a_nan_only_where_floats_live(cases: list[Case]) -> None:
    case, engines = cases[0], ("one", "other")
    floats = next(r.index for r in case.float_registers if r.file is File.VECTOR)

    def difference(register: int, a: int, b: int) -> str:
        pair = (outcome(a, register, case), outcome(b, register, case))
        return str(first_difference(case, *pair, engines) or "")

    assert Register(File.VECTOR, 0) not in case.float_registers
    assert difference(floats, 0x7FC00000, 0xFFC00001) == ""
    assert difference(floats, 0x7FC00000, 0x7F800000).startswith(f"VR{floats} lane 1 of core 0")
    assert difference(0, 0x7FC00000, 0xFFC00001) == (
        "VR0 lane 1 of core 0\n  one: 0x7fc00000 (2143289344)\n  other: 0xffc00001 (4290772993)"
    )


# Differences and crashes ------------------------------------------------------------------------


def test_a_wrong_word_in_one_engine_is_found_and_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine broadcasts another word; SVBCAST, its latency and HALT are enough to show it."""
    right = LlvmVector.broadcast

    def wrong(words: LlvmVector, scalar: Any) -> Any:
        return words.bit_xor(right(words, scalar), 1)

    monkeypatch.setattr(LlvmVector, "broadcast", wrong)
    small_cases = (generate(SEED, number, SMALL) for number in range(20))
    case = next(case for case in small_cases if compare_engines(case).difference is not None)
    small = shrink(case, compare_engines, seconds=20)
    difference = compare_engines(small).difference
    assert difference is not None
    assert names(small) <= {"SVBCAST", "HALT", "SNOP"}
    assert len(small.program.packets) <= 6
    finding = finding_of(small, difference)
    assert " lane 0 of core 0\n  reference: 0x" in finding.difference
    assert finding.command == f"ftm7004 fuzz --seed {SEED} --first {case.index} --programs 1"
    assert "SVBCAST" in finding.text


def test_labels_stay_with_their_packets() -> None:
    case = generate(SEED, 0, SMALL)
    program = evolve(case.program, labels={"a": 2, "b": 5, "c": 9})
    assert without_packets(program, 3, 4).labels == {"a": 2, "b": 3, "c": 5}


def crashing(news: Connection, orders: Connection, seed: int, numbers: range, *_: Any) -> None:
    """Crash at program 1, as machine code might; be fine for all others."""
    for number in numbers:
        news.send(number)
        if number == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        news.send(Done(number, packets=5))


def run_campaign(monkeypatch: pytest.MonkeyPatch, worker: Callable[..., None]) -> Summary:
    monkeypatch.setattr(campaign, "work", worker)
    return Campaign(Request(seed=9, programs=4)).run()


def test_a_crash_is_reported_and_the_others_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = run_campaign(monkeypatch, crashing)
    assert (summary.programs, summary.packets) == (3, 15)
    (finding,) = summary.findings
    assert finding.index == 1
    assert finding.difference == f"the worker process ended by signal {int(signal.SIGSEGV)}"
    assert finding.command == "ftm7004 fuzz --seed 9 --first 1 --programs 1"


def test_the_command() -> None:
    arguments = ["fuzz", "--programs", "1", "--seed", str(SEED), "--json", "-"]
    result = CliRunner().invoke(ftm7004, arguments, standalone_mode=False)
    assert result.return_value == 0, result.output
    assert '"programs": 1' in result.stdout
    assert '"differences": []' in result.stdout
