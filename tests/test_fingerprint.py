"""What names kept machine code: every change that could change the code, and no other."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from isa import Builder, unless, when_set
from isa.operands import Address, Label, Operand, Register, Update
from isa.program import Operation, Origin, Program
from micro_programs import AR, MACHINE, OR, VR, R, machine, one, program
from simulator.compiled import fingerprint
from simulator.compiled.cache import CodeCache
from simulator.compiled.core import Compiled, _object_code
from simulator.compiled.fingerprint import ROOT, SOURCES, described
from test_goldens import kernel_of

SMALL = "batch=20 features=40"


def body(k: Builder) -> None:
    """Write every kind of operand, predicates of both kinds and a branch."""
    top = k.label("top")
    with k.packet():
        k.vldw(AR[0].post(16), VR[5])
        k.smovi(5, R[1])
    one(k, "vldw", AR[1] + OR[0], VR[6], when=when_set(R[1]))
    one(k, "vldw", AR[1] - 3, VR[7], when=unless(VR[1]))
    one(k, "sbr", top, when=when_set(R[2]))
    k.idle(6)


SAMPLE = program(body)


def text(of: Program) -> str:
    return "\n".join(described(of, MACHINE))


def other_operands(operand: Operand) -> Iterator[Operand]:
    if isinstance(operand, Register):
        yield attrs.evolve(operand, index=operand.index + 2)
    elif isinstance(operand, int):
        yield operand + 1
    elif isinstance(operand, Address):
        yield attrs.evolve(operand, base=AR[5])
        yield attrs.evolve(operand, negative=not operand.negative)
        yield attrs.evolve(operand, offset=0)
        yield attrs.evolve(operand, offset=OR[7])
        for update in set(Update) - {operand.update}:
            yield attrs.evolve(operand, update=update)


def other_operations(operation: Operation) -> Iterator[Operation]:
    """Return operations that differ from one in a single thing."""
    for place, operand in enumerate(operation.operands):
        for other in other_operands(operand):
            operands = (*operation.operands[:place], other, *operation.operands[place + 1 :])
            yield attrs.evolve(operation, operands=operands)
    yield attrs.evolve(operation, slot=f"{operation.slot}9")
    yield attrs.evolve(operation, instruction=SAMPLE.packets[-1].operations[0].instruction)
    if operation.predicate is None:
        yield attrs.evolve(operation, predicate=when_set(R[0]))
    else:
        yield attrs.evolve(operation, predicate=None)
        yield attrs.evolve(operation, predicate=attrs.evolve(operation.predicate, negated=True))
        yield attrs.evolve(operation, predicate=attrs.evolve(operation.predicate, register=R[5]))


def other_programs() -> Iterator[Program]:
    """Return programs that differ from the sample in a single thing."""
    for number, packet in enumerate(SAMPLE.packets):
        before, after = SAMPLE.packets[:number], SAMPLE.packets[number + 1 :]
        yield attrs.evolve(SAMPLE, packets=before + after)
        for place, operation in enumerate(packet.operations):
            rest = packet.operations[:place], packet.operations[place + 1 :]
            for other in other_operations(operation):
                if other != operation:
                    changed = attrs.evolve(packet, operations=(*rest[0], other, *rest[1]))
                    yield attrs.evolve(SAMPLE, packets=(*before, changed, *after))
    yield attrs.evolve(SAMPLE, labels={"top": 1})
    yield attrs.evolve(SAMPLE, labels={"top": 0, "other": 2})
    yield attrs.evolve(SAMPLE, cores=2)


def test_every_change_of_a_program_shows() -> None:
    known = {text(SAMPLE): "the sample itself"}
    programs = list(other_programs())
    assert len(programs) > 50
    for other in programs:
        written = text(other)
        assert written not in known, f"{other.packets} is taken for {known.get(written)}"
        known[written] = str(other.packets)


def test_operations_know_their_packet() -> None:
    first, second, *rest = SAMPLE.packets
    (moved, *others) = first.operations
    packets = (
        attrs.evolve(first, operations=tuple(others)),
        attrs.evolve(second, operations=(moved, *second.operations)),
        *rest,
    )
    assert text(attrs.evolve(SAMPLE, packets=packets)) != text(SAMPLE)


@pytest.mark.parametrize(
    "setting",
    ["latency.vector_load=12", "vpu.lanes=8", "am.bytes=4096", "sm.base=4096", "dma.channels=3"],
)
def test_a_change_of_the_machine_shows(setting: str) -> None:
    assert fingerprint.fingerprint(SAMPLE, machine(setting)) != fingerprint.fingerprint(
        SAMPLE, MACHINE
    )


def test_what_does_not_matter_does_not_show() -> None:
    key = fingerprint.fingerprint(SAMPLE, MACHINE)
    assert key is not None
    assert key == fingerprint.fingerprint(program(body), machine())
    moved = Origin("elsewhere.py", 77, "rows/columns")
    operations = [
        tuple(attrs.evolve(o, origin=moved, buffer="x") for o in packet.operations)
        for packet in SAMPLE.packets
    ]
    packets = tuple(
        attrs.evolve(packet, operations=its, origin=moved, pinned=not packet.pinned)
        for packet, its in zip(SAMPLE.packets, operations, strict=True)
    )
    other = attrs.evolve(SAMPLE, packets=packets, name="other", ddr_bytes=4096)
    assert key == fingerprint.fingerprint(other, MACHINE)


def test_names_of_labels_do_not_show() -> None:
    packets = tuple(
        attrs.evolve(
            packet,
            operations=tuple(
                attrs.evolve(o, operands=(Label("new"),)) if Label("top") in o.operands else o
                for o in packet.operations
            ),
        )
        for packet in SAMPLE.packets
    )
    assert packets != SAMPLE.packets
    assert text(attrs.evolve(SAMPLE, packets=packets, labels={"new": 0})) == text(SAMPLE)


def test_the_variant_and_the_host_show(monkeypatch: pytest.MonkeyPatch) -> None:
    key = fingerprint.fingerprint(SAMPLE, MACHINE)
    assert fingerprint.fingerprint(SAMPLE, MACHINE, variant=1) != key
    monkeypatch.setattr("simulator.compiled.native.host_identity", lambda: ("another",))
    assert fingerprint.fingerprint(SAMPLE, MACHINE) != key


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a source of a code generator that was just loaded."""
    for folder in ("isa/instructions", "simulator/compiled"):
        (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / "simulator/compiled/packets.py"
    path.write_text("first")
    os.utime(path, (1000, 1000))
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    fingerprint.contents.cache_clear()
    monkeypatch.setattr(fingerprint, "LOADED", fingerprint.stamps())
    yield path
    fingerprint.contents.cache_clear()


def test_sources_show(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = fingerprint.fingerprint(SAMPLE, MACHINE)
    assert key is not None
    sources.write_text("other")
    assert fingerprint.fingerprint(SAMPLE, MACHINE) is None  # edited since they were loaded
    monkeypatch.setattr(fingerprint, "LOADED", fingerprint.stamps())  # as in a new process
    fingerprint.contents.cache_clear()
    assert fingerprint.fingerprint(SAMPLE, MACHINE) not in (None, key)
    sources.unlink()
    assert fingerprint.fingerprint(SAMPLE, MACHINE) is None


def test_generators_import_nothing_that_is_not_a_source() -> None:
    """What a generator imports may decide what it writes; the others run what was written."""
    paths = {path for pattern in SOURCES for path in ROOT.glob(pattern)}
    known = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in paths}
    known |= {"isa.errors", "isa.instructions", "isa.machine_file", "simulator.compiled.ir"}
    known |= {"isa.pipelined_loop"}  # a report that lies in the program
    running = {"simulator/compiled/core.py", "simulator/compiled/programs.py"}
    generators = [
        path for path in paths
        if path.parent.name != "simulator" and path.relative_to(ROOT).as_posix() not in running
    ]  # fmt: skip
    for path in generators:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = getattr(node, "module", None) if isinstance(node, ast.ImportFrom) else None
            if module and module.split(".")[0] in ("isa", "simulator"):
                names = {f"{module}.{alias.name}" for alias in node.names}
                assert module in known or names <= known, f"{path} imports {module}"


OBJECT = """
from hashlib import sha256
from isa.machine import Machine
from simulator.compiled.core import Compiled, _object_code
from test_goldens import kernel_of
machine = Machine.load()
for name, params in (
    ("relu_backward", "batch=20 features=40"),
    ("fc_forward", "batch=40 in_features=20 out_features=9"),
):
    program = kernel_of(name, params).program(machine, 1)
    print(sha256(_object_code(Compiled(program, machine).plan)).hexdigest())
"""


def test_a_program_gives_the_same_object_code_in_every_process() -> None:
    codes = {
        subprocess.run(
            [sys.executable, "-c", OBJECT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(codes) == 1


def test_code_depends_on_nothing_but_what_is_named() -> None:
    whole = kernel_of("relu_backward", SMALL).program(MACHINE, 2)
    packets = tuple(
        attrs.evolve(
            packet,
            origin=Origin(),
            operations=tuple(
                attrs.evolve(o, origin=Origin(), buffer="") for o in packet.operations
            ),
        )
        for packet in whole.packets
    )
    bare = Program("", packets, whole.labels, whole.cores)
    codes = {_object_code(Compiled(program, MACHINE).plan) for program in (bare, whole)}
    assert len(codes) == 1


def test_a_second_process_generates_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTM7004_CACHE", str(tmp_path))
    assert Compiled(kernel_of("relu_backward", SMALL).program(MACHINE, 1), MACHINE).address
    (kept,) = CodeCache(tmp_path).files()

    def generated(*_: object, **__: object) -> None:
        raise AssertionError("code was generated again")

    monkeypatch.setattr("simulator.compiled.core.to_object", generated)
    monkeypatch.setattr("simulator.compiled.ir.Module", generated)
    again = Compiled(kernel_of("relu_backward", SMALL).program(MACHINE, 1), MACHINE)
    assert again.address == again.libraries[0].address("run")
    kept.path.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="generated again"):
        _ = Compiled(kernel_of("relu_backward", SMALL).program(MACHINE, 1), MACHINE).address
