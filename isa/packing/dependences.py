"""What must come before what in one basic block: registers, memory, synchronisation.

The scheduler calls `dependences` and gets a graph of distances in cycles. Operations mean what they
mean in program order; the graph holds what the exposed pipeline needs to keep that meaning.
`landings` and `reads` are also what the legality rules go by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from attrs import frozen

from isa.errors import KernelError
from isa.instruction import SYNCHRONISING, Effect
from isa.machine import Machine
from isa.operands import Address, File, Register, Update
from isa.program import Operation

LANE_MASK = Register(File.LANE_MASK)


@frozen
class Node:
    """One operation of a block, by position, or (None) a mere meeting point of dependences.

    `after` holds (node, cycles): this one issues at least so many cycles after that node. Cycles
    may be negative: a slow result may be started before a fast one that it must land behind.
    """

    position: int | None
    after: tuple[tuple[int, int], ...]


def result_latency(operation: Operation, machine: Machine) -> int:
    """Return the cycles from issue until the results can be read, 0 without results.

    Raise KernelError where the machine lacks the latency class of the instruction.
    """
    try:
        return operation.instruction.latency(machine.latency, operation.operands)
    except KeyError as missing:
        raise KernelError(
            f"{operation.origin}: {operation}: machine '{machine.name}' has no "
            f"latency.{missing.args[0]}; add it to the machine file"
        ) from None


def landings(operation: Operation, machine: Machine) -> list[tuple[Register, int]]:
    """Return every register written, address updates included, with the cycles until it lands."""
    latency = result_latency(operation, machine)
    landed = [(register, latency) for register in operation.writes]
    address = operation.address
    if address is not None and address.update is not Update.NONE:
        landed.append((address.base, machine.latency["address_update"]))
    return landed


def in_flight(operation: Operation, machine: Machine) -> int:
    """Return the cycles from issue until nothing of the operation is under way."""
    landed = [cycles for _, cycles in landings(operation, machine)]
    if operation.instruction.effect is Effect.STORE:
        landed.append(machine.latency["store"])
    return max(landed, default=1)


def reads(operation: Operation) -> tuple[Register, ...]:
    """Return every register read at issue, the lane mask included."""
    mask = (LANE_MASK,) if operation.instruction.masks_lanes else ()
    return operation.reads + mask


def access_bytes(
    operation: Operation, address: Address, machine: Machine
) -> tuple[int, int] | None:
    """Return the first byte and the end of an access, relative to its address register at issue.

    None where the offset is a register.
    """
    kind = operation.address_kind
    assert kind is not None
    if isinstance(address.offset, Register):
        return None
    step = -address.offset if address.negative else address.offset
    first = 0 if address.update is Update.POST else step * kind.unit_bytes
    return first, first + kind.unit_bytes * (machine.vpu.lanes if kind.vector else 1)


def dependences(operations: Sequence[Operation], machine: Machine) -> list[Node]:
    """Return the dependence graph of a block; a node refers to earlier nodes only."""
    nodes: list[Node] = []

    def meet(before: list[int]) -> int:
        nodes.append(Node(None, tuple((node, 0) for node in before)))
        return len(nodes) - 1

    orders: tuple[_Order, ...] = (
        _RegisterOrder(machine),
        _MemoryOrder(machine, meet),
        _Synchronisation(machine, meet),
    )
    for position, operation in enumerate(operations):
        after = [found for order in orders for found in order.before(operation)]
        node = len(nodes)
        nodes.append(Node(position, tuple(after)))
        for order in orders:
            order.record(node, operation)
    return nodes


class _Order(Protocol):
    """One reason for order: asked what an operation follows, then told where it stands."""

    def before(self, operation: Operation) -> list[tuple[int, int]]: ...

    def record(self, node: int, operation: Operation) -> None: ...


class _RegisterOrder:
    """Last writer of each register, and its readers since.

    Landings in one register stay in program order, so whoever waits for the last writer has
    waited for all of them: predicated writes, which merge, need nothing more.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._writer: dict[Register, tuple[int, int]] = {}
        self._readers: dict[Register, list[int]] = defaultdict(list)

    def before(self, operation: Operation) -> list[tuple[int, int]]:
        writer = self._writer
        found = [writer[register] for register in reads(operation) if register in writer]
        for register, latency in landings(operation, self._machine):
            # the old value stays until the result lands, so the writer may even issue first
            found += [(reader, 1 - latency) for reader in self._readers[register]]
            if register in writer:
                node, landing = writer[register]
                found.append((node, landing + 1 - latency))
        return found

    def record(self, node: int, operation: Operation) -> None:
        for register in reads(operation):
            self._readers[register].append(node)
        for register, latency in landings(operation, self._machine):
            self._writer[register] = (node, latency)
            self._readers[register] = []


Meet = Callable[[list[int]], int]
"""Adds a node that comes after the given ones, and returns it."""


class _Gathering:
    """Nodes that some later node follows all alike, kept as one edge however many they are."""

    def __init__(self, meet: Meet) -> None:
        self._meet = meet
        self._nodes: list[int] = []

    def add(self, *nodes: int) -> None:
        self._nodes += nodes

    def all(self) -> list[int]:
        if len(self._nodes) > 1:
            self._nodes = [self._meet(self._nodes)]
        return self._nodes


class _Synchronisation:
    """DMA, barriers and halt: in order with each other and with accesses to both memories."""

    def __init__(self, machine: Machine, meet: Meet) -> None:
        self._store_latency = machine.latency["store"]
        self._accesses = {effect: _Gathering(meet) for effect in (Effect.LOAD, Effect.STORE)}
        self._last: list[int] = []

    def before(self, operation: Operation) -> list[tuple[int, int]]:
        effect = operation.instruction.effect
        if effect not in SYNCHRONISING:
            return [(node, 1) for node in self._last] if effect in self._accesses else []
        # a DMA start reads its descriptor from memory, like a load
        landed = self._store_latency if effect is Effect.DMA_START else 1
        found = [(node, landed) for node in self._accesses[Effect.STORE].all()]
        return found + [(node, 1) for node in self._accesses[Effect.LOAD].all() + self._last]

    def record(self, node: int, operation: Operation) -> None:
        effect = operation.instruction.effect
        if effect in SYNCHRONISING:
            self._last = [node]
        elif effect in self._accesses:
            self._accesses[effect].add(node)


@frozen
class _Access:
    """A load or store; `first` and `end` count bytes from where its pointer's known path began."""

    node: int
    stores: bool
    first: int
    end: int

    def meets(self, other: _Access) -> bool:
        shared = self.first < other.end and other.first < self.end
        return shared and (self.stores or other.stores)

    def covers(self, other: _Access) -> bool:
        return self.stores and self.first <= other.first and other.end <= self.end


_GRANULE_BYTES = 32
"""Accesses through one pointer are looked up by pieces of memory of this size."""


def _granules(access: _Access) -> range:
    return range(access.first // _GRANULE_BYTES, (access.end - 1) // _GRANULE_BYTES + 1)


class _Accesses:
    """Accesses of one buffer name through one address register along its known path."""

    def __init__(self, meet: Meet) -> None:
        self.loads, self.stores = _Gathering(meet), _Gathering(meet)
        self._by_granule: dict[int, list[_Access]] = defaultdict(list)

    def add(self, node: int, stores: bool, access: _Access | None) -> None:
        (self.stores if stores else self.loads).add(node)
        if access is None:
            return
        for granule in _granules(access):
            near = self._by_granule[granule]
            if stores:
                # whoever meets a covered access meets this store, which follows it
                near[:] = [other for other in near if not access.covers(other)]
            near.append(access)

    def meeting(self, access: _Access) -> Iterator[_Access]:
        found = (o for granule in _granules(access) for o in self._by_granule.get(granule, ()))
        return (other for other in found if access.meets(other))


class _MemoryOrder:
    """Loads and stores of both memories that may touch the same bytes, in program order.

    Two accesses are apart if their buffers have different names, or if they go through one address
    register, changed by immediates only in between, and their bytes do not meet. Accesses through
    registers that have since been changed otherwise lie under None: nothing is known of them.
    """

    def __init__(self, machine: Machine, meet: Meet) -> None:
        self._machine, self._meet = machine, meet
        self._held: dict[bool, dict[str, dict[Register | None, _Accesses]]] = {True: {}, False: {}}
        self._moved: dict[Register, int] = defaultdict(int)

    def before(self, operation: Operation) -> list[tuple[int, int]]:
        if operation.address is None or operation.address_kind is None:
            return []
        base, access = self._place(-1, operation, operation.address)
        stores = operation.instruction.effect is Effect.STORE
        found: list[tuple[int, int]] = []
        for pointer, held in self._may_meet(operation):
            if access is not None and pointer == base:
                met = list(held.meeting(access))
                loads = [other.node for other in met if not other.stores]
                stored = [other.node for other in met if other.stores]
            else:
                loads, stored = held.loads.all() if stores else [], held.stores.all()
            found += [(node, 0) for node in loads]
            found += [(node, 1 if stores else self._machine.latency["store"]) for node in stored]
        return found

    def _may_meet(self, operation: Operation) -> list[tuple[Register | None, _Accesses]]:
        """Return what was accessed in the same memory under the same name, or without one."""
        assert operation.address_kind is not None
        held = self._held[operation.address_kind.vector]
        names = {operation.buffer: 0, "": 0} if operation.buffer else held
        return [entry for name in names for entry in held.get(name, {}).items()]

    def _place(
        self, node: int, operation: Operation, address: Address
    ) -> tuple[Register | None, _Access | None]:
        """Return the pointer of an access and its bytes, None where the offset is a register."""
        reach = access_bytes(operation, address, self._machine)
        if reach is None:
            return None, None
        first, end = (byte + self._moved[address.base] for byte in reach)
        stores = operation.instruction.effect is Effect.STORE
        return address.base, _Access(node, stores, first, end)

    def record(self, node: int, operation: Operation) -> None:
        address, kind = operation.address, operation.address_kind
        if address is not None and kind is not None:
            pointer, access = self._place(node, operation, address)
            named = self._held[kind.vector].setdefault(operation.buffer, {})
            held = named.setdefault(pointer, _Accesses(self._meet))
            held.add(node, operation.instruction.effect is Effect.STORE, access)
            self._move(operation, address, kind.unit_bytes)
        for register in operation.writes:
            if register.file is File.ADDRESS:
                self._forget(register)

    def _move(self, operation: Operation, address: Address, unit_bytes: int) -> None:
        if address.update is Update.NONE:
            return
        if isinstance(address.offset, Register) or operation.predicate is not None:
            self._forget(address.base)
        else:
            step = -address.offset if address.negative else address.offset
            self._moved[address.base] += step * unit_bytes

    def _forget(self, pointer: Register) -> None:
        """Start a new path of an address register: its old accesses may lie anywhere."""
        self._moved[pointer] = 0
        for named in (*self._held[True].values(), *self._held[False].values()):
            old = named.pop(pointer, None)
            if old is not None:
                unknown = named.setdefault(None, _Accesses(self._meet))
                unknown.loads.add(*old.loads.all())
                unknown.stores.add(*old.stores.all())
