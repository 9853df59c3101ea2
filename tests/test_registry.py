"""The registry as a whole: what every instruction entry must have, and what is derived from it."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path

import pytest

from isa import operands
from isa.instruction import REGISTRY, Instruction, Unit
from isa.instructions import GROUPS
from isa.language.builder import Builder
from isa.machine import Machine
from isa.operands import AddressKind, File, Kind, Label, Operand, Predicate, Register
from isa.program import Operation, operation_text
from isa.reference_page import assembly, page

PAGE = Path(__file__).parent.parent / "docs" / "isa.md"
MACHINE = Machine.load()
each_entry = pytest.mark.parametrize("entry", REGISTRY.values(), ids=lambda entry: entry.name)

# Not of an instruction: the address register that a memory operand moves.
LATENCIES_OF_OPERANDS = {"address_update"}

AR0, AR8 = Register(File.ADDRESS, 0), Register(File.ADDRESS, 8)
SAMPLE: dict[str, Operand] = {
    "AR": Register(File.ADDRESS, 9),
    "AROR": Register(File.OFFSET, 2),
    "Imm32": -5,
    "R": Register(File.SCALAR, 3),
    "RI": 100,
    "RPair": Register(File.SCALAR, 12),
    "SVR": Register(File.EXCHANGE, -1),
    "SVRi": Register(File.EXCHANGE, 15),
    "ScalarDoubleWord": AR8.post(Register(File.OFFSET, 9), negative=True),
    "ScalarWord": AR8 - 5,
    "SnopCount": 6,
    "Target": Label("loop"),
    "VLR": Register(File.LANE_MASK),
    "VR": Register(File.VECTOR, 10),
    "VRI": Register(File.VECTOR, 30),
    "VRPair": Register(File.VECTOR, 0),
    "VectorDoubleWord": AR0 + 0,
    "VectorWord": AR0.pre(16),
}


def sample(entry: Instruction, slot: str = "", predicate: Predicate | None = None) -> Operation:
    values = tuple(SAMPLE[kind.__name__] for kind in entry.kinds)
    return Operation(entry, values, predicate, slot)


@each_entry
def test_every_unit_has_an_issue_slot(entry: Instruction) -> None:
    assert all(MACHINE.slots_of(unit) for unit in entry.units)


@each_entry
def test_every_latency_class_is_in_the_machine(entry: Instruction) -> None:
    named = {entry.latency_class, entry.scalar_latency_class} - {""}
    assert named <= set(MACHINE.latency)
    assert entry.latency_class or not entry.results


def test_every_latency_of_the_machine_is_used() -> None:
    entries = REGISTRY.values()
    used = {e.latency_class for e in entries} | {e.scalar_latency_class for e in entries}
    assert used - {""} | LATENCIES_OF_OPERANDS == set(MACHINE.latency)
    assert not used & LATENCIES_OF_OPERANDS


def test_every_instruction_stands_in_a_group_of_the_reference_page() -> None:
    modules = {entry.semantics.__module__ for entry in REGISTRY.values()}
    assert modules == {group.__name__ for group in GROUPS}


def test_every_unit_of_the_machine_has_an_instruction() -> None:
    assert {unit for entry in REGISTRY.values() for unit in entry.units} == set(Unit)


@each_entry
def test_the_first_line_of_a_meaning_is_a_sentence_of_its_own(entry: Instruction) -> None:
    first, _, rest = entry.meaning.partition("\n")
    assert first[0].isupper()
    assert first.endswith(".")
    assert not rest or rest.startswith("\n")
    assert "|" not in entry.meaning  # it would end a cell of the reference page


def test_names_are_told_apart() -> None:
    methods = Counter(entry.method for entry in REGISTRY.values())
    assert max(methods.values()) == 1
    forms = Counter(
        (e.mnemonic, tuple(kind.__name__ for kind in e.kinds)) for e in REGISTRY.values()
    )
    assert max(forms.values()) == 1, "two entries look alike in assembly"


@each_entry
def test_no_word_of_the_builder_hides_an_instruction(entry: Instruction) -> None:
    assert not hasattr(Builder, entry.method)


@each_entry
def test_the_vocabulary_fits_the_unit(entry: Instruction) -> None:
    """An engine passes vector words where lanes are computed: vector units and vector results."""
    first = next(iter(inspect.signature(entry.semantics).parameters.values()))
    makes_lanes = any(kind.__name__ in ("VR", "VRPair") for kind in entry.results)
    if entry.is_vector or makes_lanes:
        assert first.annotation == "VectorWords"
    else:
        assert first.annotation in ("ScalarWords", "ControlWords")


@each_entry
def test_a_memory_operand_is_the_last_source(entry: Instruction) -> None:
    addresses = [n for n, (_, kind) in enumerate(entry.sources) if issubclass(kind, AddressKind)]
    assert addresses in ([], [len(entry.sources) - 1])


@each_entry
def test_an_accumulator_is_of_the_kind_of_its_destination(entry: Instruction) -> None:
    assert entry.in_place == (entry.sources[-1:] != () and entry.sources[-1][0] == "acc")
    if entry.in_place:
        assert entry.sources[-1][1] is entry.results[0]


@each_entry
def test_every_operand_has_a_text_form(entry: Instruction) -> None:
    values = [SAMPLE[kind.__name__] for kind in entry.kinds]
    assert all(kind.accepts(v) for kind, v in zip(entry.kinds, values, strict=True))
    text = operation_text(sample(entry))
    mnemonic, _, listed = text.partition(" ")
    assert mnemonic == entry.mnemonic
    assert len(listed.split(", ")) == max(1, len(entry.kinds))
    assert "None" not in text
    assert "<" not in text


@pytest.mark.parametrize(
    ("name", "slot", "predicate", "text"),
    [
        ("VFMULAS32", "VMAC4", None, "VFMULAS32.M4 VR10, VR10, VR10, VR10"),
        ("SADD", "SMAC2", None, "SADD.M2 100, 100, R3"),
        ("SADD", "SIEU", Predicate(Register(File.SCALAR, 1)), "[R1] SADD 100, 100, R3"),
        ("VLDDW", "VLDST1", None, "VLDDW *AR0, VR1:VR0"),
        ("VLDW", "VLDST2", None, "VLDW *++AR0[16], VR10"),
        ("SSTDW", "SLDST", None, "SSTDW R13:R12, *AR8--[OR9]"),
        ("SLDW", "SLDST", None, "SLDW *-AR8[5], R3"),
        ("SMVAGA", "SMAC1", None, "SMVAGA.M1 R3, OR2"),
        ("SMVCGC", "SIEU", None, "SMVCGC R3, SVR15"),
        ("SMVCGC_VLR", "SIEU", None, "SMVCGC R3, VLR"),
        ("VMVCCG", "VIEU", None, "VMVCCG SVR, VR10"),
        ("SBR", "SBR", Predicate(Register(File.SCALAR), negated=True), "[!R0] SBR loop"),
        ("SNOP", "SBR", None, "SNOP 6"),
        ("HALT", "SBR", None, "HALT"),
    ],
)
def test_assembly_text(name: str, slot: str, predicate: Predicate | None, text: str) -> None:
    assert operation_text(sample(REGISTRY[name], slot, predicate)) == text


def test_address_arithmetic_has_two_latencies() -> None:
    """Three cycles to an address register of vector accesses, two to one of scalar accesses."""
    entry = REGISTRY["SADDA"]
    assert entry.latency(MACHINE.latency, (4, AR0, AR0)) == 3
    assert entry.latency(MACHINE.latency, (4, AR8, AR8)) == 2


def test_every_kind_of_operand_is_used() -> None:
    abstract = {Kind, AddressKind}
    kinds = {
        kind
        for name, kind in inspect.getmembers(operands, inspect.isclass)
        if issubclass(kind, Kind) and kind not in abstract and not name.startswith("_")
    }
    assert {kind for entry in REGISTRY.values() for kind in entry.kinds} == kinds


def test_the_reference_page_is_up_to_date() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(MACHINE), "run: python -m isa.reference_page > docs/isa.md"


def test_the_reference_page_lists_every_instruction_and_operand_once() -> None:
    rows = [line for line in page(MACHINE).splitlines() if line.startswith("| `")]
    for entry in REGISTRY.values():
        assert sum(row.startswith(f"| `{assembly(entry)}`") for row in rows) == 1
    for kind in SAMPLE:
        assert sum(row.startswith(f"| `{kind}` |") for row in rows) == 1


def test_the_reference_page_gives_latencies_and_what_is_inferred() -> None:
    rows = page(MACHINE).splitlines()

    def row(assembly_text: str) -> str:
        return next(row for row in rows if row.startswith(f"| `{assembly_text}`"))

    assert "| VMAC | 6 |" in row("VFMULAS32 a:VR, b:VR, acc:VR, acc:VR")
    assert "| SMAC, SIEU | 3 / 2 |" in row("SADDA a:RI, b:AR, d:AR")
    assert "| VIEU | 12 (inferred) |" in row("VFSUMS32 a:VR, d:VR")
    assert "(method `smvcgc_vlr`)" in row("SMVCGC a:R, d:VLR")
    assert "| SBR | - |" in row("HALT")


def test_the_reference_page_follows_the_machine() -> None:
    slower = Machine.load(overrides=["latency.broadcast=9"])
    assert "| `SVBCAST a:R, d:VR` | SMAC | 9 |" in page(slower)


def test_the_reference_page_shows_every_address_mode() -> None:
    text = page(MACHINE)
    for offset in ("16", "OR1"):
        for form in ("*+AR0[{}]", "*-AR0[{}]", "*AR0++[{}]", "*AR0--[{}]", "*++AR0[{}]",
                     "*--AR0[{}]"):  # fmt: skip
            assert f"| `{form.format(offset)}` |" in text
    assert "| `*AR0` | `ar + 0` | AR | - |" in text
