"""Listings: every slot, label, SNOP and source line in its place, and parts of a listing."""

from __future__ import annotations

from pathlib import Path

import pytest

from isa.errors import UsageError
from isa.instruction import REGISTRY
from isa.listing import listing
from isa.machine import Machine
from isa.program import Operation, Origin, Packet, Program
from small_run import small_program

MACHINE = Machine.load()

SOURCE = """\
def rows(k):
    image = k.vldw(start)
    with k.loop("rows", 2):
        k.vfmulas32(image, a, b)
        k.vfmulas32(image, a, c)
    k.wait(0)
    k.halt()
"""

# Columns: SMAC1 SBR VLDST1 VMAC1 VMAC2; runs of spaces and dashes are shortened to one space.
WHOLE = """\
; rows for 2 cores of ft m7004: 7 packets

packet loop SMAC1 SBR VLDST1 VMAC1 VMAC2 source
0 . SMOVI.M1 2, R1 . VLDW *AR0++[16], VR4 . . rows.py:2 image = k.vldw(start)
rows:
1 rows . . . VFMULAS32.M1 VR4, VR5, VR6, VR6 VFMULAS32.M2 VR4, VR5, VR7, VR7 \
rows.py:4,5 k.vfmulas32(image, a, b)
2 rows SNOP 3 rows.py:3 with k.loop("rows", 2):
3 rows . [R0] SBR rows . . . rows.py:3 with k.loop("rows", 2):
4 rows SNOP 6 rows.py:3 with k.loop("rows", 2):
rows_end:
5 . . DMAWAIT 0 . . . rows.py:6 k.wait(0)
6 . . HALT . . . rows.py:7 k.halt()
end:"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "rows.py").write_text(SOURCE, encoding="utf-8")
    return small_program(str(tmp_path / "rows.py"))


def test_the_whole_program(program):
    text = listing(program, MACHINE)
    lines = [" ".join(line.replace("-", " ").split()) for line in text.splitlines()]
    assert "\n".join(lines) == WHOLE


def test_columns_stand_under_their_slots(program):
    lines = listing(program, MACHINE).splitlines()
    head = next(line for line in lines if line.startswith("packet"))
    row = next(line for line in lines if line.lstrip().startswith("1 "))
    branch = next(line for line in lines if line.lstrip().startswith("3 "))
    snop = next(line for line in lines if "SNOP 3" in line)
    assert row.index("VFMULAS32.M2") == head.index("VMAC2")
    assert branch.index("[R0] SBR rows") == head.index("SBR")
    assert head.index("SMAC1") == row.index(".") == snop.index("-")
    widest = ["SMOVI.M1 2, R1", "[R0] SBR rows", "VLDW *AR0++[16], VR4"]
    widest += ["VFMULAS32.M1 VR4, VR5, VR6, VR6"] * 2
    assert snop.rindex("-") + 1 == len("packet  rows  ") + len("  ".join(widest))
    for line in (row, branch, snop):
        assert line.index("rows.py:") == head.index("source")


def test_some_columns(program):
    text = listing(program, MACHINE, columns=["VMAC1", "SIEU"])
    assert text.splitlines()[2].split() == ["packet", "loop", "SIEU", "VMAC1", "source"]
    assert "VLDW" not in text
    assert "VFMULAS32.M1" in text


@pytest.mark.parametrize(
    ("first", "last", "numbers", "labels"),
    [
        (0, 0, ["0"], []),
        (1, 2, ["1", "2"], ["rows:"]),
        (5, 99, ["5", "6"], ["rows_end:", "end:"]),
        (6, 6, ["6"], ["end:"]),
    ],
)
def test_some_packets(program, first, last, numbers, labels):
    lines = listing(program, MACHINE, first=first, last=last).splitlines()[3:]
    assert [line for line in lines if line[0] != " "] == labels
    assert [line.split()[0] for line in lines if line[0] == " "] == numbers


def test_a_slot_used_elsewhere_keeps_its_column(program):
    assert "VMAC2" in listing(program, MACHINE, first=6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["VMAC9"]}, "unknown issue slot 'VMAC9'; did you mean VMAC"),
        ({"first": 7}, "packet 7 does not exist: 'rows' has 7 packets"),
    ],
)
def test_what_is_not_there(program, options, words):
    with pytest.raises(UsageError, match=words):
        listing(program, MACHINE, **options)


def test_a_snop_beside_other_work_stays_in_its_column():
    move = Operation(REGISTRY["SCOREID"], (small_program().packets[0].operations[0].operands[1],))
    snop = Operation(REGISTRY["SNOP"], (4,), slot="SBR")
    packet = Packet((Operation(**{**_fields(move), "slot": "SIEU"}), snop), Origin())
    text = listing(Program("both", (packet,), {}, cores=1), MACHINE)
    assert text.splitlines()[0] == "; both for 1 core of ft-m7004: 1 packet"
    assert text.splitlines()[3].split() == ["0", ".", "SCOREID", "R1", "SNOP", "4", "<unknown>:0"]


def _fields(operation: Operation) -> dict[str, object]:
    return {"instruction": operation.instruction, "operands": operation.operands}


def test_the_text_names_no_folder(program, tmp_path):
    assert str(tmp_path) not in listing(program, MACHINE)
