"""The machine record: what it says of itself, overrides, files that extend it, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from isa import Builder, Machine, UsageError
from isa.instruction import Unit
from isa.language.kernel import Kernel, kernel
from isa.language.tensor import Tensor
from micro_programs import Bench, R, machine, one

RECORD = Machine.load()

# What it says -----------------------------------------------------------------------------------


def test_every_field_says_its_unit_its_source_and_how_sure_it_is() -> None:
    values = RECORD.values()
    assert list(RECORD.notes) == list(values)
    for key, note in RECORD.notes.items():
        assert note.unit, key
        assert note.source, key
        assert note.confidence in ("silicon", "sibling", "inferred"), key


def test_the_published_figures() -> None:
    # FT-M7004: 4 cores, 16 processing elements each, 128 GFlops a core; 16 lanes x 4 MACs x 2
    assert RECORD.name == "ft-m7004"
    assert (RECORD.chip.cores, RECORD.vpu.lanes) == (4, 16)
    assert RECORD.macs_per_cycle == 64
    assert RECORD.peak_gflops == 128.0
    slots = "SLDST SMAC1 SMAC2 SIEU SBR VLDST1 VLDST2 VMAC1 VMAC2 VMAC3 VMAC4 VIEU"
    assert " ".join(RECORD.issue.slots) == slots
    # AM 768 KiB, SM 128 KiB, 42.7 bytes a cycle of which transfers reach four fifths
    assert (RECORD.am.bytes, RECORD.sm.bytes) == (786_432, 131_072)
    assert (RECORD.ddr.bytes_per_cycle, RECORD.ddr.efficiency) == (42.7, 0.8)
    assert RECORD.am.bank_model is False


def test_slots_of_a_unit() -> None:
    assert RECORD.slots_of(Unit.SMAC) == ("SMAC1", "SMAC2")
    assert RECORD.slots_of(Unit.VIEU) == ("VIEU",)


@pytest.mark.parametrize(
    ("overrides", "macs", "gflops"),
    [
        (["chip.clock_ghz=0.5"], 64, 64.0),
        (["vpu.lanes=8"], 32, 64.0),
        # three VMACs as on FT-M7002: 16 * 3 = 48, 96 GFlops
        (['issue.slots=["SLDST","SMAC1","SIEU","SBR","VLDST1","VMAC1","VMAC2","VMAC3","VIEU"]'],
         48, 96.0),
    ],
)  # fmt: skip
def test_peaks_follow_from_the_record(overrides: list[str], macs: int, gflops: float) -> None:
    record = machine(*overrides)
    assert (record.macs_per_cycle, record.peak_gflops) == (macs, gflops)


def test_machines_are_equal_by_their_values() -> None:
    assert Machine.load() == RECORD
    assert hash(RECORD) == hash(Machine.load())
    other = machine("latency.branch=5")
    assert other != RECORD
    # a source is not a value
    assert machine('latency.branch={value = 7, source = "guess"}') == RECORD


# Changes ----------------------------------------------------------------------------------------


def test_an_override_changes_one_value_and_says_so() -> None:
    changed = machine("ddr.bytes_per_cycle=25.6", "am.bank_model=true", " dma.channels = 8")
    assert (changed.ddr.bytes_per_cycle, changed.am.bank_model, changed.dma.channels) == (
        25.6,
        True,
        8,
    )
    keys = {key for key, value in RECORD.values().items() if changed.values()[key] != value}
    assert keys == {"ddr.bytes_per_cycle", "am.bank_model", "dma.channels"}
    note = changed.notes["ddr.bytes_per_cycle"]
    assert (note.unit, note.source, note.confidence) == (
        "bytes/cycle, whole chip",
        "set by --set",
        "user",
    )
    assert changed.notes["ddr.efficiency"] == RECORD.notes["ddr.efficiency"]


def test_the_last_override_holds() -> None:
    assert machine("dma.channels=8", "dma.channels=4").dma.channels == 4


def test_a_whole_number_may_stand_for_a_rate() -> None:
    rate = machine("ddr.bytes_per_cycle=16").ddr.bytes_per_cycle
    assert (rate, type(rate)) == (16.0, float)


def test_an_overridden_latency_changes_cycles() -> None:
    # SMOV t=0, multiply-add t=1, HALT as it lands: t=7, or t=10
    def cycles(record: Machine) -> int:
        def body(k: Builder) -> None:
            one(k, "smov", R[5], R[4])
            k.sfmulas32(R[4], R[4], R[6])

        return Bench(body, record).run().cycles

    assert cycles(RECORD) == 8
    assert cycles(machine("latency.scalar_multiply_add_float=9")) == 11


def test_a_file_that_extends_states_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "slow.toml"
    path.write_text(
        'extends = "ft-m7004"\n'
        "[ddr]\n"
        'bytes_per_cycle = { value = 10.0, source = "board notes", confidence = "silicon" }\n'
        "[latency]\n"
        "branch = 5\n"
    )
    slow = Machine.load(str(path), ["dma.channels=8"])
    assert (slow.name, slow.ddr.bytes_per_cycle, slow.latency["branch"]) == ("slow", 10.0, 5)
    assert (slow.dma.channels, slow.am) == (8, RECORD.am)
    note = slow.notes["ddr.bytes_per_cycle"]
    assert (note.source, note.confidence) == ("board notes", "silicon")
    assert note.unit == RECORD.notes["ddr.bytes_per_cycle"].unit
    note = slow.notes["latency.branch"]
    assert (note.source, note.confidence) == (f"set by {path}", "user")


def test_a_file_can_name_its_machine(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('extends = "ft-m7004"\nname = "half"\n[chip]\ncores = 2\n')
    assert (Machine.load(str(path)).name, Machine.load(str(path)).chip.cores) == ("half", 2)


def test_a_complete_file_needs_no_parent(tmp_path: Path) -> None:
    path = tmp_path / "copy.toml"
    source = (Path(__file__).parent.parent / "isa/machines/ft-m7004.toml").read_text("utf-8")
    path.write_text(source, encoding="utf-8")
    assert Machine.load(str(path)) == RECORD
    for line in source.splitlines():
        key = line.partition(" = ")[0]
        if key in ("lanes", "branch", "address_update", "vector_load"):
            path.write_text(source.replace(line, ""), encoding="utf-8")
            with pytest.raises(UsageError, match=rf"key '\w+\.{key}' is missing"):
                Machine.load(str(path))


# What is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ddr.bytes_per_cycle", "--set needs key=value"),
        ("ddr.bytes_per_cicle=1", "unknown machine key 'ddr.bytes_per_cicle'; did you mean ddr.by"),
        ("latency.brunch=1", "unknown machine key 'latency.brunch'; did you mean latency.branch"),
        ("branch=1", "unknown machine key 'branch'"),
        ("dma.channels=", "--set dma.channels: '' is not a number"),
        ("dma.channels=four", "--set dma.channels: 'four' is not a number"),
        ("dma.channels=4.0", "'dma.channels' must be a whole number of at least 1, is 4.0"),
        ("dma.channels=true", "'dma.channels' must be a whole number of at least 1, is True"),
        ('dma.channels="4"', "'dma.channels' must be a whole number of at least 1, is '4'"),
        ("dma.channels=0", "'dma.channels' must be a whole number of at least 1, is 0"),
        ("dma.channels=-3", "'dma.channels' must be a whole number of at least 1, is -3"),
        ("dma.channels=17", "dma.channels must not be above 16"),
        ("dma.launch_cycles=-1", "'dma.launch_cycles' must be a whole number of at least 0"),
        ("barrier.cycles=0.5", "'barrier.cycles' must be a whole number of at least 0"),
        ("latency.branch=0", "'latency.branch' must be a whole number of at least 1, is 0"),
        ("latency.vector_load=256", "latency must not be above 255"),
        ("chip.clock_ghz=0", "'chip.clock_ghz' must be a number above 0 and below 2**31, is 0"),
        ("ddr.bytes_per_cycle=-1.5", "'ddr.bytes_per_cycle' must be a number above 0"),
        ("ddr.bytes_per_cycle=nan", "'ddr.bytes_per_cycle' must be a number above 0"),
        ("ddr.bytes_per_cycle=inf", "'ddr.bytes_per_cycle' must be a number above 0"),
        ("ddr.bytes_per_cycle=true", "'ddr.bytes_per_cycle' must be a number above 0"),
        ("ddr.efficiency=1.01", "ddr.efficiency must not be above 1"),
        ("ddr.burst_bytes=30", "ddr.burst_bytes must be a multiple of 4"),
        ("am.bank_model=1", "'am.bank_model' must be true or false, is 1"),
        ("am.bank_row_bytes=6", "am.bank_row_bytes must be a multiple of 4"),
        ("am.bytes=1001", "am.bytes must be a multiple of 8"),
        ("sm.bytes=12", "sm.bytes must be a multiple of 8"),
        ("am.bytes=0x200000", "am.base, sm.base, ddr.base memories overlap"),
        ("sm.base=0x40000000", "am.base, sm.base, ddr.base memories overlap"),
        ("ddr.base=0xF_0000_0000", "ddr.bytes passes 36-bit addresses"),
        ("am.base=0x40000002", "am.base must be a multiple of 4"),
        ("sm.base=0x40100001", "sm.base must be a multiple of 4"),
        ("ddr.base=0x7_0000_0002", "ddr.base must be a multiple of 4"),
        ("vpu.lanes=12", "vpu.lanes must be 4, 8 or 16"),
        ("chip.cores=17", "chip.cores must not be above 16"),
        ("issue.slots=[]", "'issue.slots' must be a list of slots of SLDST, SMAC"),
        ('issue.slots="SBR"', "'issue.slots' must be a list of slots"),
        ('issue.slots=["SBR", "FPU1"]', "'issue.slots' must be a list of slots"),
        ('issue.slots=["SLDST","SMAC1","SIEU","SBR","VLDST1","VMAC1"]', "leaves a unit without"),
        ('issue.slots=["SLDST","SMAC","SIEU","SBR","VLDST","VMAC","VIEU","VIEU"]', "slot twice"),
        ("issue.scalar_predicates=65", "issue.scalar_predicates must not be above 64"),
        ("issue.lane_predicates=100", "issue.lane_predicates must not be above 64"),
        ("dma.channels={unit='x'}", "'dma.channels': a field gives value, unit, source and"),
        ("dma.channels={value=4, confidence='sure'}", "'dma.channels': confidence must be one of"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named(override: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        machine(override)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ddr\n", "is not valid TOML: "),
        ('extends = "ft-m7003"\n', "extends must be one of ft-m7004, is 'ft-m7003'"),
        ('extends = "ft-m7004"\nname = 7\n', "name must be text, is 7"),
        ('extends = "ft-m7004"\nddr = 7\n', "'ddr' must be a section such as [ddr]"),
        ('extends = "ft-m7004"\n[ddr]\nspeed = 7\n', "unknown machine key 'ddr.speed'"),
        ('extends = "ft-m7004"\n[gpu]\nspeed = 7\n', "unknown machine key 'gpu.speed'"),
        ('extends = "ft-m7004"\n[ddr]\nbytes = "many"\n', "'ddr.bytes' must be a whole number"),
        ('extends = "ft-m7004"\n[ddr]\nbytes = {value = 64, reason = "x"}\n', "'ddr.bytes': a fie"),
        ("[chip]\ncores = 4\n", "'chip.cores' must give value, unit, source and confidence"),
        ('[chip]\ncores = {value = 4, unit = "", source = "", confidence = "silicon"}\n',
         "key 'chip.clock_ghz' is missing"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        Machine.load(str(path))
    assert words in str(caught.value)


def test_a_machine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown machine 'ft-m7040'; did you mean ft-m7004"):
        Machine.load("ft-m7040")
    with pytest.raises(UsageError, match=r"cannot read machine file '.*none.toml': No such file"):
        Machine.load(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not valid TOML"):
        Machine.load(str(tmp_path / "bytes.toml"))


def make_empty() -> Kernel:
    def empty(k: Builder) -> None:
        """Do nothing."""

    shapes = {"x": Tensor((4,))}
    return kernel(inputs=lambda p: shapes, outputs=lambda p: {})(empty)()


@pytest.mark.parametrize("cores", [0, 5, -1, 1.0])
def test_a_run_on_more_cores_than_there_are(cores: float) -> None:
    with pytest.raises(UsageError, match=r"cores must be from 1 to 4 on ft-m7004, got "):
        make_empty().program(RECORD, cores)  # type: ignore[arg-type]
