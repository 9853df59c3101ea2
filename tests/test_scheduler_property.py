"""Random blocks mean the same before and after scheduling, on a model of the pipeline made here.

The model knows an instruction only as "a value of what it reads": each different (instruction,
inputs) has a number of its own. In program order every operation sees all earlier ones; in packets,
reads happen at issue, a result of latency L lands L cycles later, and nothing loads stored bytes
within the store latency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

import isa.instructions  # noqa: F401  (fills the registry)
from isa import operands as kinds
from isa.instruction import REGISTRY, SYNCHRONISING, Effect, Instruction
from isa.machine import Machine
from isa.operands import Address, AddressKind, File, Kind, Label, Predicate, Register, Update
from isa.packing.legality import findings
from isa.packing.scheduler import schedule
from isa.program import Operation, Origin, Packet, Program

MACHINE = Machine.load("ft-m7004")
LATENCY = MACHINE.latency
LANE_MASK = Register(File.LANE_MASK)
BUFFERS = ("", "x", "y")
LOADING = (Effect.LOAD, Effect.DMA_START)

Word = tuple[bool, str, int]
"""One word of memory: vector or scalar, buffer name, number."""


@define
class Model:
    """Registers and memory; values are numbers without meaning, equal where the inputs are."""

    numbers: dict[tuple[Any, ...], int]
    registers: dict[Register, int] = field(factory=lambda: defaultdict(int))
    memory: dict[Word, int] = field(factory=lambda: defaultdict(int))
    stored: dict[Word, int] = field(factory=dict)

    def number(self, *inputs: Any) -> int:
        return self.numbers.setdefault(inputs, len(self.numbers) + 1)

    def moved(self, operation: Operation, address: Address) -> int:
        """Return the address register plus or minus the offset, in bytes."""
        kind, offset = operation.address_kind, address.offset
        assert kind is not None
        steps = self.registers[offset] if isinstance(offset, Register) else offset
        sign = -1 if address.negative else 1
        return self.registers[address.base] + sign * steps * kind.unit_bytes

    def words(self, operation: Operation) -> list[Word]:
        """Return the words of an access; one without a buffer name touches every buffer."""
        address, kind = operation.address, operation.address_kind
        if address is None or kind is None:
            return []
        post = address.update is Update.POST
        first = self.registers[address.base] if post else self.moved(operation, address)
        count = kind.unit_bytes // 4 * (MACHINE.vpu.lanes if kind.vector else 1)
        names = [operation.buffer] if operation.buffer else BUFFERS
        return [(kind.vector, name, first // 4 + i) for name in names for i in range(count)]

    def issue(self, operation: Operation, cycle: int) -> list[tuple[Register, int, int, bool]]:
        """Return (register, value, latency, whether the old value may remain) of all results."""
        inputs = self.inputs(operation)
        if operation.instruction.effect in LOADING:
            touched = self.words(operation) or list(self.stored)
            assert all(cycle >= self.stored.get(w, -99) + LATENCY["store"] for w in touched)
            inputs += tuple(self.memory[word] for word in self.words(operation))
        merges = operation.predicate is not None or operation.instruction.masks_lanes
        latency = operation.instruction.latency(LATENCY, operation.operands)
        found = [
            (register, self.number(*inputs, n), latency, merges)
            for n, register in enumerate(operation.writes)
        ]
        # small addresses, so that accesses through different registers meet
        small = (File.ADDRESS, File.OFFSET)
        found = [(r, v % 4 * 4 if r.file in small else v, c, m) for r, v, c, m in found]
        address = operation.address
        if address is not None and address.update is not Update.NONE:
            step, merges = self.moved(operation, address), operation.predicate is not None
            found.append((address.base, step, LATENCY["address_update"], merges))
        return found

    def inputs(self, operation: Operation) -> tuple[Any, ...]:
        read = [self.registers[register] for register in operation.reads]
        mask = self.registers[LANE_MASK] if operation.instruction.masks_lanes else 0
        constants = [str(o) for o in operation.sources if not isinstance(o, Register | Address)]
        return (operation.instruction.name, str(operation.predicate), mask, *read, *constants)

    def store(self, operation: Operation, cycle: int) -> None:
        if operation.instruction.effect is Effect.STORE:
            inputs = self.inputs(operation)
            for number, word in enumerate(self.words(operation)):
                assert self.stored.get(word) != cycle, "two stores of one packet overlap"
                self.stored[word] = cycle
                self.memory[word] = self.number(*inputs, number, self.memory[word])

    def land(self, register: Register, value: int, merges: bool) -> None:
        if merges:
            value = self.number("merge", value, self.registers[register])
            value = value % 4 * 4 if register.file in (File.ADDRESS, File.OFFSET) else value
        self.registers[register] = value


def run_in_order(block: Sequence[Operation], model: Model) -> None:
    for number, operation in enumerate(block):
        results = model.issue(operation, 100 * number)
        model.store(operation, 100 * number)
        for register, value, _, merges in results:
            model.land(register, value, merges)


def run_packets(packets: Sequence[Packet], model: Model) -> int:
    """Run packets from cycle 0; return the cycle in which the block ends."""
    cycle = 0
    flying: dict[int, dict[Register, tuple[int, bool]]] = defaultdict(dict)
    for packet in packets:
        operations = packet.operations
        issued = [result for o in operations for result in model.issue(o, cycle)]
        for operation in operations:
            model.store(operation, cycle)
        for register, value, latency, merges in issued:
            assert register not in flying[cycle + latency], "two results land together"
            flying[cycle + latency][register] = (value, merges)
        for _ in range(packet.cycles):
            cycle += 1
            for register, (value, merges) in flying.pop(cycle, {}).items():
                model.land(register, value, merges)
    assert not any(flying.values()), "a result lands after the end"
    assert all(stored + LATENCY["store"] <= cycle for stored in model.stored.values())
    return cycle


def places(file: File, *indices: int) -> st.SearchStrategy[Register]:
    return st.sampled_from([Register(file, index) for index in indices])


SCALAR, VECTOR = places(File.SCALAR, 0, 1, 2, 3), places(File.VECTOR, 0, 1, 2, 3)
SMALL = st.sampled_from([0, 1, 2, 16, 32])
OPERANDS: dict[type[Kind], st.SearchStrategy[Any]] = {
    kinds.R: SCALAR,
    kinds.VR: VECTOR,
    kinds.AR: places(File.ADDRESS, 0, 1, 8, 9),
    kinds.AROR: places(File.ADDRESS, 0, 1, 8, 9) | places(File.OFFSET, 0, 8),
    kinds.SVRi: places(File.EXCHANGE, 0, 1),
    kinds.SVR: places(File.EXCHANGE, -1),
    kinds.VLR: st.just(LANE_MASK),
    kinds.RPair: places(File.SCALAR, 0, 2),
    kinds.VRPair: places(File.VECTOR, 0, 2),
    kinds.Imm32: SMALL,
    kinds.RI: SCALAR | SMALL,
    kinds.VRI: VECTOR | SMALL,
}


def addresses(kind: type[AddressKind]) -> st.SearchStrategy[Address]:
    first = 0 if kind.vector else 8
    offsets = SMALL | places(File.OFFSET, first)
    bases = places(File.ADDRESS, first, first + 1)
    return st.builds(Address, bases, st.sampled_from(Update), offsets, st.booleans())


def operand(kind: type[Kind]) -> st.SearchStrategy[Any]:
    return addresses(kind) if issubclass(kind, AddressKind) else OPERANDS[kind]


@st.composite
def operations(draw: st.DrawFn, entries: Sequence[Instruction]) -> Operation:
    entry = draw(st.sampled_from(entries))
    operands = [draw(operand(kind)) for kind in entry.kinds]
    if entry.in_place:
        operands[-1] = operands[-2]
    files = [File.SCALAR, File.VECTOR] if entry.masks_lanes else [File.SCALAR]
    predicates = [
        Predicate(Register(f, i), n) for f in files for i in (0, 1) for n in (True, False)
    ]
    predicate = draw(st.sampled_from([*[None] * len(predicates), *predicates]))
    buffer = draw(st.sampled_from(BUFFERS)) if entry.address_position is not None else ""
    return Operation(entry, tuple(operands), predicate, "", buffer)


LEFT_OUT = (Effect.BRANCH, Effect.HALT, Effect.IDLE)
ORDINARY = [entry for entry in REGISTRY.values() if entry.effect not in LEFT_OUT]
FAMILIES = [
    [REGISTRY[name] for name in names.split()]
    for names in (
        "SLDW SSTW SLDDW SSTDW SADDA",
        "VLDW VSTW VLDDW VSTDW SADDA",
        "SLDW SSTW VLDW VSTW DMASTART DMAWAIT BARRIER",
        "VFMULAS32 VFADDS32 VFMULS32 VMULIS32 VMOV SMVCGC_VLR",
    )
]
ENDINGS: list[list[Operation]] = [
    [],
    [Operation(REGISTRY["HALT"], ())],
    [Operation(REGISTRY["SBR"], (Label("top"),))],
    [Operation(REGISTRY["SBR"], (Label("top"),), Predicate(Register(File.SCALAR, 0)))],
    [Operation(REGISTRY["SBR"], (Register(File.SCALAR, 1),))],
]


@st.composite
def blocks(draw: st.DrawFn) -> list[Operation]:
    # few instructions in one block, so that they meet often
    some = st.lists(st.sampled_from(ORDINARY), min_size=2, max_size=6)
    entries = draw(some | st.sampled_from(FAMILIES))
    # a drawn length is spread evenly; lists by themselves stay short
    length = draw(st.integers(0, 30))
    body = draw(st.lists(operations(entries), min_size=length, max_size=length))
    block = body + draw(st.sampled_from(ENDINGS))
    return [evolve(o, origin=Origin("kernel.py", line)) for line, o in enumerate(block)]


def issue_cycles(packets: Sequence[Packet]) -> dict[int, int]:
    at, cycle = {}, 0
    for packet in packets:
        at.update({o.origin.line: cycle for o in packet.operations if o.instruction.name != "SNOP"})
        cycle += packet.cycles
    return at


def check_order(block: Sequence[Operation], at: dict[int, int]) -> None:
    """Synchronising operations stand apart from each other and from every memory access."""
    for first in block:
        for second in block[first.origin.line + 1 :]:
            effects = {first.instruction.effect, second.instruction.effect}
            touches = effects <= SYNCHRONISING | {Effect.LOAD, Effect.STORE}
            if touches and effects & SYNCHRONISING:
                assert at[first.origin.line] < at[second.origin.line]


@settings(max_examples=200)
@given(blocks())
def test_a_schedule_means_what_the_block_says(block: list[Operation]) -> None:
    packets = schedule(block, MACHINE)
    numbers: dict[tuple[Any, ...], int] = {}
    in_order, scheduled = Model(numbers), Model(numbers)
    run_in_order(block, in_order)
    length = run_packets(packets, scheduled)
    assert scheduled.registers == in_order.registers
    assert scheduled.memory == in_order.memory

    at = issue_cycles(packets)
    assert sorted(at) == list(range(len(block)))
    check_order(block, at)
    if block and block[-1].instruction.effect is Effect.BRANCH:
        assert length == at[len(block) - 1] + LATENCY["branch"]


@settings(max_examples=100)
@given(blocks())
def test_a_schedule_is_legal(block: list[Operation]) -> None:
    halt = Packet((Operation(REGISTRY["HALT"], (), slot="SBR"),))
    packets = (*schedule(block, MACHINE), halt)
    assert findings(Program("random", packets, {"top": 0}, 1), MACHINE) == []
