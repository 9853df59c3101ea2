"""A program: packets of operations with the author's lines, the data it needs, its tensors.

Built by `isa.language.builder`, checked by `isa.packing.legality`, printed by `isa.listing`, run by
the simulator. Every operation carries where it comes from (source line, loop, buffer): reports,
traces and errors stand on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from attrs import field, frozen

from isa.instruction import Effect, Instruction, Unit
from isa.operands import Address, AddressKind, Kind, Label, Operand, Predicate, Register
from isa.pipelined_loop import PipelinedLoop


@frozen
class Origin:
    """The author's place of a packet or operation."""

    file: str = "<unknown>"
    line: int = 0
    loop: str = ""
    """Path of the enclosing device loops, outermost first, such as `rows/columns`."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


Numbers = np.ndarray[Any, np.dtype[np.int64]]


@frozen
class Operation:
    """One instruction with its operands, sources first; `slot` is empty until it is packed."""

    instruction: Instruction
    operands: tuple[Operand, ...]
    predicate: Predicate | None = None
    slot: str = ""
    buffer: str = ""
    """Name of the memory buffer it accesses, where the author said so."""
    origin: Origin = Origin()

    @property
    def sources(self) -> tuple[Operand, ...]:
        return self.operands[: len(self.instruction.sources)]

    @property
    def results(self) -> tuple[Operand, ...]:
        return self.operands[len(self.instruction.sources) :]

    @property
    def address(self) -> Address | None:
        """Return the memory operand, or None."""
        position = self.instruction.address_position
        operand = None if position is None else self.operands[position]
        return operand if isinstance(operand, Address) else None

    @property
    def address_kind(self) -> type[AddressKind] | None:
        """Return the kind of the memory operand, which scales its offsets, or None."""
        position = self.instruction.address_position
        kind = None if position is None else self.instruction.sources[position][1]
        return kind if kind is not None and issubclass(kind, AddressKind) else None

    @cached_property
    def reads(self) -> tuple[Register, ...]:
        """Return every register read at issue: sources, addresses, the predicate."""
        kinds = self.instruction.kinds
        found = [r for kind, o in zip(kinds, self.sources, strict=False) for r in _named(kind, o)]
        if self.predicate is not None:
            found.append(self.predicate.register)
        return tuple(found)

    @cached_property
    def writes(self) -> tuple[Register, ...]:
        """Return the registers of the results (an address update is not among them)."""
        kinds = self.instruction.results
        return tuple(
            r for kind, o in zip(kinds, self.results, strict=True) for r in _named(kind, o)
        )

    def __str__(self) -> str:
        return operation_text(self)


def _named(kind: type[Kind], operand: Operand) -> tuple[Register, ...]:
    """Return the registers an operand names; an immediate or a label names none."""
    return kind.registers(operand) if isinstance(operand, Register | Address) else ()


def operation_text(operation: Operation) -> str:
    """Return the assembly text of one operation, with predicate and unit suffix."""
    entry = operation.instruction
    texts = [
        kind.text(operand) for kind, operand in zip(entry.kinds, operation.operands, strict=True)
    ]
    predicate = f"{operation.predicate} " if operation.predicate else ""
    return f"{predicate}{entry.mnemonic}{_suffix(operation.slot)} {', '.join(texts)}".rstrip()


def _suffix(slot: str) -> str:
    """Return `.M2` for VMAC2 and SMAC2, as FT-Matrix assembly writes it; other units have none."""
    return f".M{slot[4:]}" if slot[1:4] == "MAC" else ""


@frozen
class Packet:
    """Operations issued together; `cycles` is above 1 only for a SNOP."""

    operations: tuple[Operation, ...]
    origin: Origin = Origin()
    pinned: bool = False

    @property
    def cycles(self) -> int:
        for operation in self.operations:
            if operation.instruction.effect is Effect.IDLE:
                count = operation.operands[0]
                assert isinstance(count, int)
                return count
        return 1


@frozen
class Buffer:
    """A named piece of memory: byte address and length; `space` is AM, SM or DDR."""

    name: str
    space: str
    address: int
    bytes: int

    @property
    def end(self) -> int:
        return self.address + self.bytes


@frozen
class TensorPlacement:
    """How a host tensor lies in DDR.

    `place(array, words)` fills the words of the buffer (uint32), which may hold anything before,
    and `read(words, array)` fills the host tensor.
    """

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    place: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], None]
    read: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], None]


@frozen
class Program:
    """A complete program for `cores` cores, all of which start at packet 0.

    `scalar_data[core]` is the initial content of SM as (byte address, words) pieces: constants and
    per-core arguments. `ddr_bytes` is how much DDR the tensors and scratch buffers take.
    """

    name: str
    packets: tuple[Packet, ...]
    labels: Mapping[str, int]
    cores: int
    inputs: Mapping[str, TensorPlacement] = field(factory=dict)
    outputs: Mapping[str, TensorPlacement] = field(factory=dict)
    scalar_data: tuple[tuple[tuple[int, np.ndarray[Any, Any]], ...], ...] = ()
    buffers: tuple[Buffer, ...] = ()
    lifetimes: Mapping[Buffer, range] = field(factory=dict)
    """Packets for which a buffer holds its bytes; scopes use AM and SM one after the other."""
    ddr_bytes: int = 0
    pipelined: Mapping[str, PipelinedLoop] = field(factory=dict)
    """How each software-pipelined loop came out, by the label of its first packet."""

    @cached_property
    def loops(self) -> tuple[tuple[str, ...], Numbers]:
        """The paths of all loops, in their order, and the number of each packet's own.

        A packet belongs to the loop of its deepest operation.
        """
        paths = [_loop_of(packet) for packet in self.packets]
        numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
        return tuple(numbers), np.array([numbers[path] for path in paths], np.int64)

    @cached_property
    def packet_cycles(self) -> tuple[int, ...]:
        """The cycles each packet takes to issue."""
        return tuple(packet.cycles for packet in self.packets)

    @cached_property
    def issues(self) -> Mapping[str, Numbers]:
        """The packets in which each issue slot has an operation; a SNOP is none."""
        found: dict[str, list[int]] = {}
        for number, packet in enumerate(self.packets):
            for operation in packet.operations:
                if operation.instruction.effect is not Effect.IDLE:
                    found.setdefault(operation.slot, []).append(number)
        return {slot: np.array(numbers, np.int64) for slot, numbers in found.items()}

    @cached_property
    def multiplies_under_lane_predicates(self) -> bool:
        """Whether data decide how many lanes an operation on a VMAC slot enables."""
        return any(
            operation.predicate is not None
            and operation.predicate.is_lane_predicate
            and operation.slot.startswith(Unit.VMAC.name)
            for packet in self.packets
            for operation in packet.operations
        )

    def target(self, label: Label) -> int:
        """Return the packet number of a label."""
        return self.labels[label.name]

    def buffer_at(self, address: int, packet: int | None = None) -> Buffer | None:
        """Return the buffer that holds a byte address, at a packet if given; for messages."""
        held = [buffer for buffer in self.buffers if buffer.address <= address < buffer.end]
        for buffer in held:
            if packet is None or packet in self.lifetimes.get(buffer, (packet,)):
                return buffer
        return held[0] if held else None


def _loop_of(packet: Packet) -> str:
    paths = [packet.origin.loop, *(operation.origin.loop for operation in packet.operations)]
    return max(paths, key=lambda path: path.count("/") + bool(path))
