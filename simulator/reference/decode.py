"""From packets to steps: what the reference engine does for each operation, prepared once.

A step gathers its sources, calls the semantics of its instruction entry, and leaves results to
land later. Multiply-adds of one packet that need no predicate form one step over stacked lanes:
the semantics is the same function, numpy just does more at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from isa.instruction import ONE_WRITE_PORT, Effect, Instruction, Unit
from isa.machine import Machine
from isa.operands import (
    SVR,
    VR,
    VRI,
    Address,
    AddressKind,
    File,
    Kind,
    Label,
    Operand,
    Register,
    RPair,
    SVRi,
    Update,
    VRPair,
)
from isa.program import Operation, Packet, Program

if TYPE_CHECKING:
    from simulator.reference.core import Core

Get = Callable[["Core"], Any]


class Write:
    """Results on their way to registers: `land` puts them there."""

    __slots__ = ("has_lanes", "packet", "ports", "targets")

    def __init__(
        self, targets: tuple[Register, ...], packet: int, ports: tuple[str, ...] = ()
    ) -> None:
        self.targets, self.packet, self.ports = targets, packet, ports
        self.has_lanes = targets[0].file in (File.VECTOR, File.EXCHANGE)

    def land(self, core: Core, value: Any, lanes: Any) -> None:
        """Store the value; `lanes` is None for all lanes, else the enabled ones (bool)."""
        raise NotImplementedError

    def parts(self, value: Any) -> list[tuple[Register, Any]]:
        """Return the value of each target register."""
        return [(self.targets[0], value)]


class ScalarWrite(Write):
    """A result in one register of R, AR or OR."""

    __slots__ = ("file", "index")

    def __init__(self, target: Register, packet: int, ports: tuple[str, ...] = ()) -> None:
        super().__init__((target,), packet, ports)
        self.file, self.index = target.file, target.index

    def land(self, core: Core, value: Any, lanes: Any) -> None:
        core.scalar_file(self.file)[self.index] = value


class PairWrite(Write):
    """An even/odd pair of scalar or vector registers."""

    def land(self, core: Core, value: Any, lanes: Any) -> None:
        for target, part in zip(self.targets, value, strict=True):
            core.put(target, part, lanes)

    def parts(self, value: Any) -> list[tuple[Register, Any]]:
        return list(zip(self.targets, value, strict=True))


class AnyWrite(Write):
    """A result in one register of any file."""

    def land(self, core: Core, value: Any, lanes: Any) -> None:
        core.put(self.targets[0], value, lanes)


class ExchangeWrite(Write):
    """All entries of the exchange register, lane by lane."""

    def land(self, core: Core, value: Any, lanes: Any) -> None:
        enabled = slice(None) if lanes is None else lanes
        core.exchange[: core.lanes][enabled] = value[enabled]

    def parts(self, value: Any) -> list[tuple[Register, Any]]:
        """Return an entry for each lane; further entries stay as they are."""
        return [(target, int(part)) for target, part in zip(self.targets, value, strict=False)]


class StackedWrite(Write):
    """Results of several operations of one packet, one row each."""

    __slots__ = ("rows",)

    def __init__(
        self, targets: tuple[Register, ...], packet: int, ports: tuple[str, ...] = ()
    ) -> None:
        super().__init__(targets, packet, ports)
        self.rows = np.array([target.index for target in targets])

    def land(self, core: Core, value: Any, lanes: Any) -> None:
        if lanes is None:
            core.vectors[self.rows] = value
        else:
            core.vectors[np.ix_(self.rows, lanes)] = value[:, lanes]

    def parts(self, value: Any) -> list[tuple[Register, Any]]:
        return list(zip(self.targets, value, strict=True))


class Step:
    """One operation, or several stacked ones, ready to execute."""

    __slots__ = (
        "address_position", "base_update", "effect", "get", "lane_predicate", "latency", "mask",
        "negated", "operation", "operations", "scalar_predicate", "semantics", "vector", "vmacs",
        "write",
    )  # fmt: skip

    def __init__(self, operation: Operation, machine: Machine, program: Program, at: int) -> None:
        entry = operation.instruction
        self.operation = operation
        self.operations: tuple[Operation, ...] = (operation,)
        self.effect, self.semantics = entry.effect, entry.semantics
        self.address_position = entry.address_position
        self.mask, self.vector = entry.masks_lanes, _uses_lanes(entry)
        self.vmacs = int(operation.slot.startswith(Unit.VMAC.name))
        self.latency = entry.latency(machine.latency, operation.operands)
        predicate = operation.predicate
        self.negated = predicate is not None and predicate.negated
        self.scalar_predicate = self.lane_predicate = -1
        if predicate is not None and predicate.is_lane_predicate:
            self.lane_predicate = predicate.register.index
        elif predicate is not None:
            self.scalar_predicate = predicate.register.index
        self.get = tuple(
            getter(kind, operand, entry, program)
            for (_, kind), operand in zip(entry.sources, operation.sources, strict=True)
        )
        self.write = _write(operation, at)
        self.base_update = _update_write(operation, at)


class StackedStep(Step):
    """Unpredicated multiply-adds of one packet, computed side by side."""

    __slots__ = ()

    def __init__(
        self, operations: Sequence[Operation], machine: Machine, program: Program, at: int
    ) -> None:
        super().__init__(operations[0], machine, program, at)
        self.vmacs = len(operations)
        rows = zip(*(operation.sources for operation in operations), strict=True)
        self.get = tuple(_stacked_getter([r.index for r in row]) for row in rows)
        targets = tuple(operation.writes[0] for operation in operations)
        self.write = StackedWrite(targets, at, tuple(operation.slot for operation in operations))
        self.operations = tuple(operations)


def _stacked_getter(indices: list[int]) -> Get:
    rows = np.array(indices)
    return lambda core: core.vectors[rows]


def getter(kind: type[Kind], operand: Operand, entry: Instruction, program: Program) -> Get:
    """Return the function that reads one source of an operation."""
    if isinstance(operand, Label):
        target = program.target(operand)
        return lambda core: target
    if isinstance(operand, Address):
        assert issubclass(kind, AddressKind)
        return address_getter(kind, operand)
    if isinstance(operand, int):
        return _constant_getter(kind, operand, entry)
    index = operand.index
    if issubclass(kind, RPair | VRPair):
        return _pair_getter(operand)
    if operand.file is File.VECTOR:
        return lambda core: core.vectors[index]
    if kind is SVR:
        return lambda core: core.exchange[: core.lanes].copy()
    if kind is SVRi:
        return lambda core: core.exchange_entry(index)
    file = operand.file
    return lambda core: core.scalar_file(file)[index]


def _pair_getter(even: Register) -> Get:
    """Return the function that reads both registers of a pair as (even, odd)."""
    index, file = even.index, even.file
    if file is File.VECTOR:
        return lambda core: (core.vectors[index], core.vectors[index + 1])
    return lambda core: (core.scalar_file(file)[index], core.scalar_file(file)[index + 1])


def _constant_getter(kind: type[Kind], value: int, entry: Instruction) -> Get:
    if kind is VRI:
        return lambda core: core.vector_words.constant(value)
    return lambda core: value


def address_getter(kind: type[AddressKind], address: Address) -> Get:
    """Return the function that computes the byte address an operand accesses."""
    base, scale = address.base.index, kind.unit_bytes * (-1 if address.negative else 1)
    if address.update is Update.POST:
        return lambda core: core.addresses[base]
    if isinstance(address.offset, Register):
        index = address.offset.index
        return lambda core: core.addresses[base] + scale * core.offsets[index]
    step = scale * address.offset
    return lambda core: core.addresses[base] + step


def update_amount(core: Core, operation: Operation) -> int:
    """Return how many bytes the operation moves its address register by."""
    address, kind = operation.address, operation.address_kind
    assert address is not None
    assert kind is not None
    steps = address.offset
    if isinstance(steps, Register):
        steps = core.offsets[steps.index]
    return kind.unit_bytes * steps * (-1 if address.negative else 1)


def _uses_lanes(entry: Instruction) -> bool:
    """Tell whether the semantics gets the vector words: vector units and vector results."""
    return entry.is_vector or any(issubclass(kind, VR | VRPair) for kind in entry.results)


def _write(operation: Operation, at: int) -> Write | None:
    targets = operation.writes
    if not targets:
        return None
    unit = operation.slot.rstrip("0123456789")
    ports = (operation.slot,) if unit in {u.name for u in ONE_WRITE_PORT} else ()
    if operation.instruction.results[0] is SVR:
        return ExchangeWrite(targets, at, ports)
    if len(targets) > 1:
        return PairWrite(targets, at, ports)
    if targets[0].file in (File.SCALAR, File.ADDRESS, File.OFFSET):
        return ScalarWrite(targets[0], at, ports)
    return AnyWrite(targets, at, ports)


def _update_write(operation: Operation, at: int) -> Write | None:
    address = operation.address
    if address is None or address.update is Update.NONE:
        return None
    return ScalarWrite(address.base, at)


def _can_stack(operation: Operation) -> bool:
    entry = operation.instruction
    return (
        entry.units == (Unit.VMAC,)
        and not entry.cross_lane
        and operation.predicate is None
        and all(kind is VR for kind in entry.kinds)
    )


def decode_packet(packet: Packet, machine: Machine, program: Program, at: int) -> tuple[Step, ...]:
    """Return the steps of a packet, stackable operations together."""
    steps: list[Step] = []
    single = [o for o in packet.operations if not _can_stack(o)]
    stackable = [o for o in packet.operations if _can_stack(o)]
    stackable.sort(key=lambda operation: operation.instruction.name)
    for _, group in groupby(stackable, key=lambda operation: operation.instruction.name):
        operations = list(group)
        if len(operations) > 1:
            steps.append(StackedStep(operations, machine, program, at))
        else:
            single += operations
    steps += [
        Step(o, machine, program, at) for o in single if o.instruction.effect is not Effect.IDLE
    ]
    return tuple(steps)
