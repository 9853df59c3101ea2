"""Reports: every number of one hand-made run, its JSON form, and how it reads at 80 columns."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import attrs
import numpy as np
import pytest
from rich.console import Console

from isa.language.kernel import Verdict
from isa.language.tensor import Tensor
from isa.machine import Machine
from isa.program import Buffer, Program, TensorPlacement
from simulator.reporting.counters import LoopCount
from simulator.reporting.rendering import render
from simulator.reporting.report import Report, make_report
from small_run import make_kernel, small_program, small_result

# The keys that users' scripts rely on, in their order.
KEYS = [
    "kernel", "params", "machine", "cores", "engine", "cycles", "seconds", "flops_nominal",
    "gflops", "peak_gflops", "efficiency", "mac_utilization", "vmac_occupancy", "ddr_bytes",
    "ddr_efficiency", "ddr_occupancy", "stalls", "packets", "host_seconds", "verified",
    "max_error", "per_core",
]  # fmt: skip


def report_of(kernel=None, program=None, result=None, machine=None, **options) -> Report:
    return make_report(
        kernel or make_kernel(),
        machine or Machine.load(),
        program or small_program(),
        result or small_result(),
        "reference",
        1.5,
        **options,
    )


def printed(report: Report, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    render(report, console)
    return console.file.getvalue()


def test_numbers_of_a_run():
    report = report_of()
    assert (report.cycles, report.cores, report.packets) == (50, 2, 11 + 7)
    assert report.seconds == pytest.approx(50e-9)  # 1 GHz
    assert report.gflops == pytest.approx(128)  # 6,400 flops in 50 ns
    assert report.peak_gflops == 256  # 2 cores * 16 lanes * 4 VMACs * 2 flops * 1 GHz
    assert report.efficiency == pytest.approx(0.5)
    assert report.mac_utilization == pytest.approx(1600 / 6400)  # of 50 cycles * 2 cores * 64
    assert report.vmac_occupancy == pytest.approx(80 / 6400)
    assert report.ddr_efficiency == pytest.approx(640 / 2135)  # 50 cycles * 42.7 bytes
    assert report.ddr_occupancy == pytest.approx(0.4)  # 854 / 2135
    assert report.stalls == {"dma_wait": 15, "barrier": 6, "bank_conflict": 0}


def test_the_peaks_come_from_the_machine():
    machine = Machine.load(
        "ft-m7004",
        ["chip.clock_ghz=2.0", "ddr.bytes_per_cycle=85.4", "vpu.lanes=8", "ddr.efficiency=0.5"],
    )
    report = report_of(machine=machine)
    assert report.seconds == pytest.approx(25e-9)
    assert report.gflops == pytest.approx(256)
    assert report.peak_gflops == 256  # 2 cores * 8 lanes * 4 VMACs * 2 flops * 2 GHz
    assert report.mac_utilization == pytest.approx(0.5)
    assert report.ddr_occupancy == pytest.approx(0.2)
    assert "vpu.lanes=8" in report.notes[-1]


def test_where_the_core_cycles_went():
    report = report_of()
    # Of 2 * 50 core-cycles; SBR, DMAWAIT and HALT issue 3 + 2 + 2 times on SBR, SNOPs do not count.
    busy = {"SMAC1": 0.02, "VLDST1": 0.02, "VMAC1": 0.03, "VMAC2": 0.03, "SBR": 0.07}
    assert report.slots == {slot: busy.get(slot, 0) for slot in Machine.load().issue.slots}
    assert report.loops == (LoopCount("", 6, 6, 21), LoopCount("rows", 12, 33, 0))


def test_each_core():
    first, second = report_of().per_core
    assert first == {
        "cycles": 40,
        "packets": 11,
        "stalls": {"dma_wait": 15, "barrier": 0, "bank_conflict": 0},
        "vmac_occupancy": pytest.approx(64 / 3200),  # of 50 cycles * 64
    }
    assert (second["cycles"], second["packets"]) == (20, 7)
    assert second["vmac_occupancy"] == pytest.approx(16 / 3200)


def test_the_json_keys_in_their_order():
    assert list(report_of().to_dict())[: len(KEYS)] == KEYS


def test_the_json_is_plain():
    document = json.loads(json.dumps(report_of().to_dict(), allow_nan=False))
    assert document["params"] == {"batch": 2, "size": [1, 3]}
    assert (document["verified"], document["max_error"]) == (None, None)
    assert document["per_core"][1]["stalls"]["barrier"] == 6
    assert document["loops"][1] == {"loop": "rows", "packets": 12, "cycles": 33, "stalls": 0}


def test_numbers_that_json_has_no_word_for():
    odd = attrs.evolve(
        report_of(),
        params={"n": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "p": Path("a")},
        gflops=math.inf,
        efficiency=np.float64("nan"),
    )
    document = odd.to_dict()
    assert document["params"] == {"n": 3, "f": 0.5, "b": True, "p": "a"}
    assert (document["gflops"], document["efficiency"]) == (None, None)
    json.dumps(document, allow_nan=False)


def test_verdicts():
    report = report_of()
    assert (report.verified, report.max_error) == (None, None)
    right = report.with_verdict(Verdict(np.True_, np.float32(0.25), "all 60 values"))
    assert right.to_dict()["verified"] is True
    assert (right.max_error, right.verification) == (0.25, "all 60 values")
    wrong = report.with_verdict(Verdict(False, math.nan, "1 of 60 values wrong"))
    assert wrong.to_dict()["verified"] is False
    assert wrong.to_dict()["max_error"] is None
    nothing = report.with_verdict(None)
    assert nothing.to_dict()["verified"] is None
    assert nothing.verification.startswith("not verified")


def test_a_run_of_no_cycles_divides_nothing_by_nothing():
    nothing = attrs.evolve(small_result(), cycles=0)
    report = report_of(result=nothing)
    assert (report.efficiency, report.mac_utilization, report.ddr_occupancy) == (0, 0, 0)
    assert "0.00 %" in printed(report)


def test_reads_at_80_columns_and_without_a_terminal():
    text = printed(report_of())
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    words = " ".join(text.split())
    assert "rows(batch=2, size=1x3)" in words
    assert "50 cycles = 50 ns" in words
    assert "128.000 GFlop/s of peak 256.0" in words
    assert "efficiency 50.00 % nominal flops / (time x peak 256.0 GFlop/s)" in words
    assert "MAC utilisation 25.00 % needed MACs / (cycles x 2 cores x 64 MACs)" in words
    assert "VMAC occupancy 1.25 %" in words
    assert "DDR efficiency 29.98 % compulsory bytes / (time x DDR peak 42.7 GB/s)" in words
    assert "DDR occupancy 40.00 %" in words
    assert "854 bytes, 1.33 times the 640 compulsory" in words
    assert "SBR 7.00 %" in words
    assert "rows 12 33 0 33.00 %" in words
    assert "outside loops 6 6 21 27.00 %" in words
    assert "after HALT 40 40.00 %" in words
    assert "dma_wait 15 15.00 % barrier 6 6.00 % bank_conflict 0 0.00 %" in words
    assert "0 40 11 15 0 0 2.00 %" in words
    assert "not verified" in words


@pytest.mark.parametrize("width", [40, 80, 200])
def test_any_width(width):
    text = printed(report_of(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "HALT" in text


def test_says_how_sure_the_machine_is():
    notes = Machine.load().notes.values()
    inferred = sum(note.confidence == "inferred" for note in notes)
    words = " ".join(printed(report_of()).split())
    assert f"{inferred} of {len(notes)} fields inferred" in words
    assert "ftm7004 machine" in words


def test_says_what_was_verified():
    right = report_of().with_verdict(Verdict(True, 3e-7, "all 60 values against numpy float64"))
    assert "verified: all 60 values against numpy float64, largest error 3e-07" in printed(right)
    wrong = report_of().with_verdict(Verdict(False, 2.0, "1 of 60 values wrong: z[3] is 1.0"))
    assert "WRONG RESULT: 1 of 60 values wrong: z[3] is 1.0, largest error 2" in printed(wrong)
    assert "not verified: timing only" in printed(report_of(timing_only=True))


def test_no_flops():
    report = report_of(kernel=make_kernel(flops=0))
    assert (report.flops_nominal, report.efficiency) == (0, 0.0)
    assert "no flops declared" in printed(report)


def test_pooling_is_calibrated_on_one_core():
    words = " ".join(printed(report_of(kernel=make_kernel("maxpool2d_forward", 128))).split())
    # 128 flops in 50 ns are 2.56 GFlop/s: 1 % of two cores' peak, 2 % of one core's
    assert "1.00 % of 2 cores' peak, 2.00 % of one core's peak (calibration)" in words
    assert "calibration" not in printed(report_of())


def test_names_that_look_like_markup_are_shown_as_they_are():
    odd = attrs.evolve(report_of(), kernel="[bold]rows", notes=("[red]x",))
    assert "[bold]rows(" in printed(odd)
    assert "[red]x" in printed(odd)


def test_host_seconds_and_their_parts():
    report = report_of(place_seconds=0.25, run_seconds=1, readback_seconds=0.002)
    words = " ".join(printed(report).split())
    assert "1.500 s (place 250.000 ms, read back 2.000 ms), 33 cycles a second" in words
    assert report.to_dict()["run_seconds"] == 1


def test_says_which_tensors_the_host_lays_out():
    tensor = Tensor((4,))

    def placed(place) -> TensorPlacement:
        buffer = Buffer("x", "DDR", 0, 16)
        return TensorPlacement(buffer, tensor.shape, tensor.dtype, place, tensor.from_words)

    inputs = {"x": placed(lambda array: array[::-1]), "bias": placed(tensor.to_words)}
    program = attrs.evolve(small_program(), inputs=inputs)
    assert isinstance(program, Program)
    assert report_of(program=program).notes[0].startswith("the host lays out x as the kernel")
    plain = attrs.evolve(program, inputs={"bias": inputs["bias"]})
    assert "lays out" not in " ".join(report_of(program=plain).notes)


def test_loops_stand_under_the_loops_around_them():
    paths = ["", "a", "a/b", "a/b/c", "x/y", "x/y/z", "never"]
    loops = tuple(LoopCount(path, 1, int(path != "never"), 0) for path in paths)
    text = printed(attrs.evolve(report_of(), loops=loops))
    shown = [line[:8].rstrip() for line in text.splitlines()]
    first = shown.index("outside")
    assert shown[first + 1 : first + 6] == ["a", "  b", "    c", "x/y", "  z"]
    assert "never" not in text


def test_many_loops_show_the_largest():
    loops = tuple(LoopCount(f"l{n}", 1, n + 1, 0) for n in range(30))
    text = printed(attrs.evolve(report_of(), loops=loops))
    assert "\nl29 " in text
    assert "\nl9 " not in text
    assert "and 10 loops with fewer cycles" in text
