"""The command line on a user's kernels: what it prints, writes and returns when all goes well."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from isa.machine import Machine
from simulator.cli import commands as cli
from simulator.cli import progress as cli_progress
from simulator.reporting import trace
from user_kernels import write_kernels

ROOT = Path(__file__).parent.parent


class Ended(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def words(self) -> str:
        return " ".join(self.out.split())

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Command:
    """Return `command(*arguments)`, which runs ftm7004 in a folder with the user's kernels."""
    write_kernels(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_run_verifies_and_reports(command):
    ended = command("run", "user.py:double")
    assert (ended.status, ended.err) == (0, "")
    assert "double(rows=4)" in ended.words
    assert "verified: all 64 values against the numpy float64 reference" in ended.words
    assert "\nrows " in ended.out


def test_the_installed_command_needs_nothing_else(tmp_path):
    """Run it as users do, in a process of its own."""
    write_kernels(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "simulator.cli", "run", str(tmp_path / "user.py:double")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "verified: all 64 values" in done.stdout
    assert "\x1b" not in done.stdout


def test_json_on_stdout_is_alone(command):
    ended = command("run", "user.py:double", "-p", "rows=6", "--json", "-")
    assert (ended.status, ended.err) == (0, "")
    document = ended.document
    assert (document["kernel"], document["params"]) == ("double", {"rows": 6})
    assert (document["verified"], document["max_error"]) == (True, 0.0)
    assert document["ddr_bytes"] == 2 * 6 * 64  # in and out, whole bursts
    assert document["flops_nominal"] == 96


def test_a_wrong_result_fails_after_the_report(command, tmp_path):
    ended = command("run", "user.py:wrong", "--json", "r.json", "--output", "z.npz")
    assert ended.status == 1
    assert "WRONG RESULT: 64 of 64 values wrong: first z[0, 0] is" in ended.words
    assert ended.err.startswith("error: wrong result: 64 of 64 values wrong")
    assert json.loads((tmp_path / "r.json").read_text())["verified"] is False
    assert (tmp_path / "z.npz").exists()


def test_without_a_reference_nothing_is_verified(command):
    assert "not verified: the kernel has no reference" in command("run", "user.py:unchecked").words
    document = command("run", "user.py:unchecked", "--json", "-").document
    assert (document["verified"], document["max_error"]) == (None, None)


def test_tensors_come_from_and_go_to_files(command):
    x = np.arange(64, dtype=np.float32).reshape(4, 16)
    np.savez_compressed("in.npz", x=x)
    assert command("run", "user.py:double", "--input", "in.npz", "--output", "o.npz").status == 0
    with np.load("o.npz") as outputs:
        assert outputs.files == ["z"]
        assert np.array_equal(outputs["z"], 2 * x)
        assert outputs["z"].dtype == np.float32


def test_seeds(command):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        command("run", "user.py:double", "--seed", seed, "--output", f"{name}.npz")
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    assert Path("a.npz").read_bytes() != Path("c.npz").read_bytes()


def test_timing_only_has_the_same_cycles_and_no_tensors(command):
    full = command("run", "user.py:double", "--json", "-").document
    timing = command("run", "user.py:double", "--json", "-", "--timing-only").document
    assert timing["cycles"] == full["cycles"]
    assert (timing["verified"], timing["timing_only"]) == (None, True)


def test_set_changes_the_machine(command):
    arguments = ("run", "user.py:double", "-p", "rows=64", "--json", "-")
    fast = command(*arguments).document
    slow = command(*arguments, "--set", "ddr.bytes_per_cycle=4.27").document
    # Two transfers of 4,096 bytes: 120 cycles each at 34.16 B/cycle, 1,200 at 3.416
    assert slow["cycles"] - fast["cycles"] == pytest.approx(2 * (1200 - 120), abs=4)
    assert "ddr.bytes_per_cycle=4.27" in slow["notes"][-1]


def test_a_machine_file(command, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nextends = "ft-m7004"\n[barrier]\ncycles = 5'
    )
    assert command("run", "user.py:idle", "--machine", "mine.toml", "--json", "-").document[
        "machine"
    ] == ("mine")


@pytest.mark.parametrize(
    ("options", "used"),
    [([], "compiled"), (["--engine", "reference"], "reference"), (["--check"], "reference")],
)
def test_engines(command, options, used):
    document = command("run", "user.py:double", "--json", "-", *options).document
    assert (document["engine"], document["verified"]) == (used, True)


def test_check_and_cores(command):
    document = command("run", "user.py:idle", "--cores", "3", "--check", "--json", "-").document
    assert (document["cores"], len(document["per_core"])) == (3, 3)


def test_trace(command):
    assert command("run", "user.py:double", "--trace", "t.json").status == 0
    document = json.loads(Path("t.json").read_text())
    names = {event["name"] for event in document["traceEvents"]}
    assert {"x -> image", "image -> z", "VFADDS32", "dma_wait"} <= names
    cycles = document["otherData"]["cycles"]
    late = max(event.get("ts", 0) for event in document["traceEvents"])
    assert late == pytest.approx((cycles - 1) / 1000)  # HALT


def test_trace_cycles(command):
    command("run", "user.py:double", "--trace", "t.json", "--trace-cycles", "0:3")
    document = json.loads(Path("t.json").read_text())
    assert document["otherData"]["window"] == [0, 3]
    assert max(event.get("ts", 0) for event in document["traceEvents"]) <= 0.002


def test_a_layer_gives_parameters_and_p_overrides_them(command):
    ended = command(
        "run", "user.py:idle", "--layer", "vgg16/conv3_1", "-p", "width=8", "--json", "-"
    )
    assert ended.document["params"] == {
        "batch": 16, "channels": 128, "height": 56, "width": 8, "filters": 256,
        "size": [3, 3], "stride": [1, 1], "pad": [1, 1],
    }  # fmt: skip


def test_pairs_and_repeated_parameters(command):
    ended = command(
        "run", "user.py:idle", "-p", "size=3x5", "-p", "pad=2", "-p", "pad=4", "--json", "-"
    )
    assert ended.document["params"]["size"] == [3, 5]
    assert ended.document["params"]["pad"] == [4, 4]


def test_listing(command):
    ended = command("listing", "user.py:double")
    lines = ended.out.splitlines()
    assert (ended.status, ended.err) == (0, "")
    assert lines[0].startswith("; double for 1 core of ft-m7004: ")
    assert "rows:" in lines
    assert any("VFADDS32" in line and "user.py:" in line for line in lines)


def test_part_of_a_listing(command):
    ended = command("listing", "user.py:double", "--columns", "vmac1,SBR", "--packets", "3:5")
    head, *rows = ended.out.splitlines()[2:]
    assert head.split() == ["packet", "loop", "SBR", "VMAC1", "source"]
    assert [row.split()[0] for row in rows if row.startswith(" ")] == ["3", "4"]


def test_a_listing_as_json(command):
    document = command("listing", "user.py:double", "--json", "-").document
    packets = document["packets"]
    assert [packet["packet"] for packet in packets] == list(range(len(packets)))
    assert packets[-1]["operations"] == {"SBR": "HALT"}
    assert any(packet["loop"] == "rows" and packet["labels"] == ["rows"] for packet in packets)


def test_a_listing_says_what_it_ignores(command):
    ended = command("listing", "user.py:double", "--trace", "t.json", "--check")
    assert "ignores --trace, --check" in ended.err
    assert not Path("t.json").exists()


def test_machine(command):
    ended = command("machine", "--set", "barrier.cycles=7")
    assert ended.status == 0
    lines = {line.split()[0]: line for line in ended.out.splitlines()}
    for field, note in Machine.load().notes.items():
        if field != "barrier.cycles":
            assert note.confidence in lines[field]
            assert note.source in lines[field]
    assert "set by --set" in ended.words
    assert "peak of a core: 128 GFlop/s" in ended.out  # 16 lanes * 4 VMACs * 2 * 1 GHz
    assert "DDR rate that transfers reach: 34.16 GB/s" in ended.out  # 42.7 * 0.8


def test_machine_as_json(command):
    document = command("machine", "--json", "-").document
    field = document["fields"]["ddr.bytes_per_cycle"]
    assert (field["value"], field["confidence"]) == (42.7, "inferred")
    assert set(field) == {"value", "unit", "confidence", "source"}
    assert document["peaks"]["peak of the chip"] == {"value": 512.0, "unit": "GFlop/s"}
    assert document["fields"]["issue.slots"]["value"][0] == "SLDST"


def test_kernels(command):
    ended = command("kernels")
    assert ended.status == 0
    for name, definition in import_module("kernels").LIBRARY.items():
        assert f"{name}  {definition.meaning}\n" in ended.out
        assert all(f"{parameter}=" in ended.out for parameter in definition.parameters)
    assert "conv2d_forward  " in ended.out
    assert "size=3x3" in ended.out
    assert "x, weight, bias -> z" in ended.out
    assert "dz, weight, [x] -> dx" in ended.out  # x is asked for with relu=true
    assert "dz, [bias] -> dx, dweight, dbias, [weight], [bias]" in ended.out
    assert "strategy=auto|tasks|batch" in ended.out
    assert "vgg16/conv3_1" in ended.words


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(command, arguments):
    ended = command(*arguments)
    assert (ended.status, ended.err) == (0, "")
    for name in ("kernels", "run", "listing", "machine"):
        assert f"\n  {name} " in ended.out


@pytest.mark.parametrize("name", ["run", "listing"])
def test_every_command_on_a_kernel_takes_the_options_of_run(command, name):
    ended = command(name, "--help")
    options = ["p", "-layer", "-cores", "-machine", "-set", "-engine", "-input", "-output", "-json"]
    options += ["-trace", "-trace-cycles", "-check", "-timing-only", "-cycle-limit", "-seed"]
    for option in options:
        assert f" -{option} " in ended.words


def test_version(command):
    assert command("--version").out.startswith("ftm7004, version ")


@pytest.mark.parametrize(
    ("slow", "options", "words"),
    [
        ("compiled", [], "on the compiled engine, and"),
        ("reference", ["--engine", "reference"], "on the reference engine, and"),
        ("reference", ["--check"], "on the reference engine, which --check and --trace need, and"),
        ("compiled", ["--check"], ""),
        ("reference", [], ""),
    ],
)
def test_a_long_run_is_announced(command, monkeypatch, slow, options, words):
    monkeypatch.setitem(cli_progress.PACKETS_PER_SECOND, slow, 0.01)
    # 64 flops at 64 a packet: one packet, 100 seconds at this speed
    ended = command("run", "user.py:double", "--json", "-", *options)
    if words:
        assert f"note: at least 1 packets, so 2 minutes or more {words}" in ended.err
    else:
        assert ended.err == ""
    assert ended.document["verified"] is True


def test_a_trace_that_cannot_hold_everything_is_announced(command, monkeypatch):
    monkeypatch.setattr(trace, "MOST_OPERATIONS", 0)
    ended = command("run", "user.py:double", "--trace", "t.json")
    assert "note: the trace will keep the first 0 operations; choose other" in ended.err
    assert "note: the trace 't.json' keeps the first 0 operations" in ended.err
    assert json.loads(Path("t.json").read_text())["otherData"]["truncated"] is True
    assert command("run", "user.py:idle", "--trace", "t.json", "--trace-cycles", "50:60").err == ""


class Terminal:
    """A stderr that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, True), (100.0, False)])
def test_the_progress_bar_waits(monkeypatch, seconds, shown):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(cli_progress, "QUIET_SECONDS", seconds)
    monkeypatch.setenv("TERM", "xterm")
    with cli_progress.progress_bar(1000) as progress:
        assert progress is not None
        progress(0, 400)
        progress(1, 1_234_567)
    assert ("core 1, cycle 1,234,567" in terminal.text) is shown


def test_there_is_no_bar_without_a_terminal(capsys):
    with cli_progress.progress_bar(1000) as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")
