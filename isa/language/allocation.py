"""Registers and memory by name: what a kernel author asks for and gives back by leaving a scope.

The builder owns one `RegisterPool` and one `MemoryPool` per memory. Predicates are scarce
(R0-R2, VR0-VR1), so ordinary requests take them last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from operator import index as whole_number
from typing import overload

from attrs import define, field

from isa.errors import KernelError
from isa.operands import FILE_LENGTH, VECTOR_HALF, File, Register
from isa.program import Buffer


class RegisterBlock(Sequence[Register]):
    """Registers with a shape: `acc[o, v]` is one register, `acc[3]` the fourth, slices work."""

    def __init__(self, name: str, registers: Sequence[Register], shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape
        self._registers = tuple(registers)

    def __len__(self) -> int:
        return len(self._registers)

    def __iter__(self) -> Iterator[Register]:
        return iter(self._registers)

    @overload
    def __getitem__(self, key: int | tuple[int, ...]) -> Register: ...
    @overload
    def __getitem__(self, key: slice) -> RegisterBlock: ...
    def __getitem__(self, key: int | tuple[int, ...] | slice) -> Register | RegisterBlock:
        if isinstance(key, slice):
            part = self._registers[key]
            return RegisterBlock(self.name, part, (len(part),))
        indices = tuple(map(whole_number, key if isinstance(key, tuple) else (key,)))
        if len(indices) == 1 and -len(self) <= indices[0] < len(self):
            return self._registers[indices[0]]
        flat, inside = 0, len(indices) == len(self.shape)
        for index, extent in zip(indices, self.shape, strict=False):
            flat, inside = flat * extent + index, inside and 0 <= index < extent
        if not inside:
            shown = ", ".join(map(str, indices))
            raise KernelError(f"registers '{self.name}' of shape {self.shape} have no [{shown}]")
        return self._registers[flat]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(str, self))})"


@define
class RegisterPool:
    """Which registers are taken, and by what name."""

    scalar_predicates: int
    lane_predicates: int
    owner: dict[Register, str] = field(factory=dict)
    _leases: list[str] = field(factory=list)
    """The name given with each handing out, in order."""
    _lent: list[tuple[Register, ...]] = field(factory=list)
    """The registers of each handing out."""
    _current: dict[Register, int] = field(factory=dict)

    def take(self, file: File, name: str, count: int, candidates: Sequence[int]) -> list[Register]:
        """Take `count` free registers of the candidates, in their order, or say who holds them."""
        free = self._free(file, candidates)
        if len(free) < count:
            raise KernelError(self._shortage(file, name, count, candidates))
        return self._lend(name, [Register(file, i) for i in free[:count]])

    def take_block(self, file: File, name: str, count: int) -> list[Register]:
        """Take registers, from an even one with its odd neighbour if the count is even."""
        general = self.general(file)
        if count % 2 == 0:
            free = self._free(file, general)
            for start, (even, odd) in enumerate(pairwise(free)):
                part = free[start : start + count]
                rising = len(part) == count and part[-1] == max(part)
                if even % 2 == 0 and odd == even + 1 and rising:
                    return self.take(file, name, count, part)
        return self.take(file, name, count, general)

    def take_pairs(self, file: File, name: str, count: int) -> list[Register]:
        """Take `count` even/odd pairs; return their even registers."""
        evens = [i for i in self.general(file) if i % 2 == 0]
        free = [
            i for i in evens if not {Register(file, i), Register(file, i + 1)} & set(self.owner)
        ]
        if len(free) < count:
            raise KernelError(self._shortage(file, name, 2 * count, self.general(file)))
        both = [Register(file, i + half) for i in free[:count] for half in (0, 1)]
        return self._lend(name, both)[::2]

    def _free(self, file: File, candidates: Iterable[int]) -> list[int]:
        held = {register.index for register in self.owner if register.file is file}
        return [index for index in candidates if index not in held]

    def _lend(self, name: str, registers: Iterable[Register]) -> list[Register]:
        self._leases.append(name)
        lent = [Register(r.file, r.index, len(self._leases)) for r in registers]
        self._lent.append(tuple(lent))
        for register in lent:
            self.owner[register] = name
            self._current[register] = register.lease
        return lent

    @property
    def leases(self) -> int:
        """How often registers have been handed out."""
        return len(self._leases)

    def lent_since(self, leases: int) -> set[Register]:
        """Return every register handed out since there were so many leases."""
        return {register for lent in self._lent[leases:] for register in lent}

    def returned(self, register: Register) -> str:
        """Return the name of a register that was handed out and given back since, else ''."""
        if not register.lease or self._current.get(register) == register.lease:
            return ""
        return self._leases[register.lease - 1]

    def general(self, file: File) -> list[int]:
        """Return the numbers of a file in the order of ordinary requests: predicates last."""
        first = {File.SCALAR: self.scalar_predicates, File.VECTOR: self.lane_predicates}.get(
            file, 0
        )
        return [*range(first, FILE_LENGTH[file]), *range(first)]

    def release(self, registers: Sequence[Register]) -> None:
        """Give registers back."""
        for register in registers:
            self.owner.pop(register, None)
            self._current.pop(register, None)

    def _shortage(self, file: File, name: str, count: int, candidates: Sequence[int]) -> str:
        held: dict[str, int] = {}
        for register, owner in self.owner.items():
            if register.file is file and register.index in candidates:
                held[owner] = held.get(owner, 0) + 1
        holders = ", ".join(f"{owner} ({n})" for owner, n in held.items()) or "nobody"
        return (
            f"'{name}' needs {count} {file.value} registers and {len(candidates)} exist; "
            f"held by {holders}; leave a scope or reuse some"
        )


def halves(vector: bool) -> range:
    """Return the AR and OR numbers of vector (0-7) or scalar (8-15) accesses."""
    return range(VECTOR_HALF) if vector else range(VECTOR_HALF, FILE_LENGTH[File.ADDRESS])


@define
class MemoryPool:
    """One memory: scoped buffers grow from its start, permanent ones down from its end."""

    space: str
    base: int
    bytes: int
    next: int = field(init=False)
    peak: int = field(init=False)
    top: int = field(init=False)
    buffers: list[Buffer] = field(factory=list)
    born: dict[Buffer, int] = field(factory=dict)
    """The packet from which on a buffer holds its bytes."""
    died: dict[Buffer, int] = field(factory=dict)
    """The packet from which on a buffer's bytes are free again."""

    def __attrs_post_init__(self) -> None:
        self.next = self.peak = self.base
        self.top = self.base + self.bytes

    @property
    def free(self) -> int:
        """Bytes between the scoped and the permanent buffers."""
        return self.top - self.next

    def give_back(self, mark: int, packet: int) -> None:
        """Free what lies from address `mark` on; the program has come to `packet`."""
        for buffer in self.buffers:
            if mark <= buffer.address < self.next:
                self.died.setdefault(buffer, packet)
        self.next = mark

    def take(self, name: str, count: int, permanent: bool = False, packet: int = 0) -> Buffer:
        """Take `count` bytes, aligned to 64, or say by how many they do not fit and who holds them.

        Permanent buffers keep clear of everything that was ever allocated in a scope. `packet` is
        where the program has come to.
        """
        if count <= 0:
            raise KernelError(f"{self.space} buffer '{name}' needs at least 1 byte, not {count}")
        start = (self.top - count) // ALIGNMENT * ALIGNMENT
        if not permanent:
            start = -(-self.next // ALIGNMENT) * ALIGNMENT
        missing = self.peak - start if permanent else start + count - self.top
        if missing > 0:
            raise KernelError(self._shortage(name, count, missing))
        buffer = Buffer(name, self.space, start, count)
        self.buffers.append(buffer)
        self.born[buffer] = 0 if permanent else packet
        if permanent:
            self.top = start
        else:
            self.next = start + count
            self.peak = max(self.peak, self.next)
        return buffer

    def _live(self) -> list[Buffer]:
        """Return the buffers not given back: the later of two in one place, and what lies below."""
        live: list[Buffer] = []
        end = self.next
        for buffer in reversed(self.buffers):
            if buffer.address >= self.top:
                live.append(buffer)
            elif buffer.end <= end:
                live.append(buffer)
                end = buffer.address
        return live[::-1]

    def _shortage(self, name: str, count: int, missing: int) -> str:
        held = ", ".join(f"{b.name} ({b.bytes:,})" for b in self._live())
        remedy = "a smaller batch or layer" if self.space == "DDR" else "smaller tiles"
        return (
            f"{self.space} buffer '{name}' of {count:,} bytes does not fit: {missing:,} bytes too "
            f"many for {self.bytes:,}; held by {held or 'nobody'}; use {remedy}"
        )


ALIGNMENT = 64
"""Every buffer starts at a multiple of 64 bytes: two bursts, one vector."""
