"""Traces: the events of the hand-made run, windows, the limit, and files written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from isa.errors import UsageError
from isa.machine import Machine
from simulator.reporting.trace import Trace
from simulator.result import BARRIER, DMA_WAIT, StallPlace
from small_run import small_program, small_result

MACHINE = Machine.load()
SLOTS = MACHINE.issue.slots


def record(trace: Trace) -> None:
    """Tell a trace the small run: core 0 issues its two rounds, waits, halts; then core 1."""
    at = 0
    for packet in (0, 1, 2, 3, 4, 1, 2, 3, 4, 5):
        trace.packet(0, at, packet)
        at += (1, 1, 3, 1, 6, 1, 1)[packet]
    trace.stall(0, 24, 15, StallPlace(5, DMA_WAIT, 0))
    trace.packet(0, 39, 6)
    at = 0
    for packet in (0, 1, 2, 3, 4, 5):
        trace.packet(1, at, packet)
        at += (1, 1, 3, 1, 6, 1, 1)[packet]
    trace.stall(1, 13, 6, StallPlace(5, BARRIER))
    trace.packet(1, 19, 6)


def traced(path: Path, window=None, **options: Any) -> tuple[dict[str, Any], Trace]:
    trace = Trace(path, window, **options)
    record(trace)
    trace.save(small_program(), small_result(), MACHINE)
    return json.loads(path.read_text(encoding="utf-8")), trace


@pytest.fixture
def document(tmp_path):
    return traced(tmp_path / "trace.json")[0]


def slices(document, core, row):
    """Return (begin, end, name) in cycles, 1,000 to the microsecond, of one row."""
    return [
        (round(e["ts"] * 1000), round((e["ts"] + e["dur"]) * 1000), e["name"])
        for e in document["traceEvents"]
        if e["ph"] == "X" and (e["pid"], e["tid"]) == (core, row)
    ]


def rows(document, core):
    """Return the row numbers of a core by name."""
    return {
        e["args"]["name"]: e["tid"]
        for e in document["traceEvents"]
        if e["name"] == "thread_name" and e["pid"] == core
    }


def test_rows_are_named_and_ordered(document):
    names = {
        e["pid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "process_name"
    }
    assert names == {0: "core 0", 1: "core 1"}
    order = {
        (e["pid"], e["tid"]): e["args"]["sort_index"]
        for e in document["traceEvents"]
        if e["name"] == "thread_sort_index"
    }
    shown = sorted(rows(document, 0), key=lambda name: order[0, rows(document, 0)[name]])
    assert shown == [*SLOTS, "stalls and barriers", "DMA channel 0", "DMA channel 2"]
    assert [*rows(document, 1)][-1] == "DMA channel 3"


def test_operations(document):
    row = rows(document, 0)
    assert slices(document, 0, row["VMAC2"]) == [(1, 2, "VFMULAS32"), (12, 13, "VFMULAS32")]
    assert slices(document, 0, row["SBR"]) == [
        (2, 5, "SNOP"), (5, 6, "SBR"), (6, 12, "SNOP"), (13, 16, "SNOP"), (16, 17, "SBR"),
        (17, 23, "SNOP"), (23, 24, "DMAWAIT"), (39, 40, "HALT"),
    ]  # fmt: skip
    assert slices(document, 1, row["VLDST1"]) == [(0, 1, "VLDW")]


def test_an_operation_says_what_it_is(document):
    row = rows(document, 0)
    found = {(e["name"], e["tid"]): e["args"] for e in document["traceEvents"] if e["ph"] == "X"}
    assert found["VFMULAS32", row["VMAC2"]] == {
        "text": "VFMULAS32.M2 VR4, VR5, VR7, VR7",
        "packet": 1,
        "line": "rows.py:5",
        "loop": "rows",
    }
    assert found["VLDW", row["VLDST1"]]["buffer"] == "image"


def test_stalls(document):
    row = rows(document, 0)["stalls and barriers"]
    assert slices(document, 0, row) == [(24, 39, "dma_wait")]
    assert slices(document, 1, row) == [(13, 19, "barrier")]
    (stall,) = (e for e in document["traceEvents"] if e["name"] == "dma_wait")
    assert stall["args"] == {
        "cycles": 15,
        "packet": 5,
        "line": "rows.py:6",
        "loop": "",
        "transfer": 0,
        "waits for": "x -> image",
    }


def test_transfers(document):
    assert slices(document, 0, rows(document, 0)["DMA channel 0"]) == [(10, 39, "x -> image")]
    assert slices(document, 1, rows(document, 1)["DMA channel 3"]) == [(10, 39, "x -> image")]
    assert slices(document, 0, rows(document, 0)["DMA channel 2"]) == [(40, 50, "image -> z")]
    broadcast = next(e["args"] for e in document["traceEvents"] if e["name"] == "x -> image")
    assert broadcast == {
        "transfer": 0,
        "mode": "broadcast",
        "ddr_bytes": 640,
        "cores": [0, 1],
        "requested": [2, 4],
        "begin": 10,
        "end": 39,
        "packet": 0,
        "line": "rows.py:2",
    }


def test_says_what_it_shows(document):
    assert document["displayTimeUnit"] == "ns"
    assert document["otherData"] == {
        "program": "rows",
        "machine": "ft-m7004",
        "cores": 2,
        "cycles": 50,
        "time": "1 cycle is shown as 1 ns",
        "window": None,
        "truncated": False,
    }


@pytest.mark.parametrize(
    ("window", "sbr", "stalls", "transfers"),
    [
        # The SNOP of cycles 2 to 4 reaches into the window, the DMAWAIT of 23 is after it.
        ((4, 6), [(2, 5, "SNOP"), (5, 6, "SBR")], [], []),
        ((5, 6), [(5, 6, "SBR")], [], []),
        ((18, 19), [(17, 23, "SNOP")], [], ["x -> image"]),
        # Nothing issues inside: the packet before it is over, the stall and the transfer are not.
        ((30, 31), [], [(24, 39, "dma_wait")], ["x -> image"]),
        ((39, 40), [(39, 40, "HALT")], [], []),
        ((40, 2**62), [], [], ["image -> z"]),
    ],
)
def test_a_window(tmp_path, window, sbr, stalls, transfers):
    document, trace = traced(tmp_path / "trace.json", window)
    row = rows(document, 0)
    assert slices(document, 0, row["SBR"]) == sbr
    assert slices(document, 0, row["stalls and barriers"]) == stalls
    found = [name for row in range(100, 116) for *_, name in slices(document, 0, row)]
    assert found == transfers
    assert document["otherData"]["window"] == list(window)
    assert trace.note == ""


def test_the_limit_keeps_the_earliest_of_all_cores(tmp_path):
    # 2 + 2 operations in cycle 0, 2 + 2 in cycle 1, one SNOP each in cycle 2: 9 hold cycles 0 and 1
    document, trace = traced(tmp_path / "trace.json", most_operations=9)
    operations = [e for e in document["traceEvents"] if e.get("cat") == "operation"]
    assert {e["ts"] for e in operations} == {0.0, 0.001}
    assert len(operations) == 8
    assert document["otherData"]["truncated"] is True
    assert "--trace-cycles A:B" in trace.note


def test_the_limit_counts_from_the_window(tmp_path):
    document, _ = traced(tmp_path / "trace.json", (12, 50), most_operations=3)
    operations = [e for e in document["traceEvents"] if e.get("cat") == "operation"]
    # Core 0 issues two operations in cycle 12, core 1 one; cycle 13 would pass the limit.
    assert [(e["pid"], e["ts"]) for e in operations] == [(0, 0.012), (0, 0.012), (1, 0.012)]


def test_stalls_are_limited_too(tmp_path):
    document, trace = traced(tmp_path / "trace.json", (20, 50), most_operations=3)
    assert not document["otherData"]["truncated"]
    trace = Trace(tmp_path / "many.json", most_operations=10)
    for cycle in range(20):
        trace.stall(0, cycle, 1, StallPlace(1, DMA_WAIT))
    trace.save(small_program(), small_result(), MACHINE)
    assert trace.note


def test_large_cycles_stay_exact(tmp_path):
    path = tmp_path / "trace.json"
    trace = Trace(path)
    trace.packet(0, 123_456_789_012_345, 6)
    late = attrs.evolve(small_result(), transfers=())
    trace.save(small_program(), late, MACHINE)
    assert '"ts":123456789012.345,"dur":0.001' in path.read_text(encoding="utf-8")


def test_a_path_is_checked_before_the_run(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write '.*nowhere/t\.json'"):
        Trace(tmp_path / "nowhere" / "t.json")


def test_an_interrupted_save_leaves_what_was_there(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text("old", encoding="utf-8")
    trace = Trace(path)
    trace.stall(0, 1, 1, StallPlace(99, DMA_WAIT))  # names a packet that does not exist
    with pytest.raises(IndexError):
        trace.save(small_program(), small_result(), MACHINE)
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]
