"""Registers, memory and source lines: what every part of the builder stands on.

`Storage` hands out named registers and buffers, gives them back when a scope ends, and knows the
author's line, so that everything emitted or refused can name it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, update_wrapper
from itertools import count
from math import prod
from numbers import Integral
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from isa.errors import KernelError
from isa.language.allocation import MemoryPool, RegisterBlock, RegisterPool, halves
from isa.machine import Machine
from isa.operands import File, Register
from isa.program import Buffer, Origin

LOOP_PREDICATE = Register(File.SCALAR, 0)
"""R0 holds the conditions of the builder's own branches."""

SCALAR_BASE = Register(File.ADDRESS, 15)
"""AR15 always points into SM, so that `*+AR15[n]` reaches every constant."""

REACH = 4 * 65536
"""Bytes that `*+AR15[n]` reaches; constants lie at the end of SM."""


S = TypeVar("S", bound="Storage")
P = ParamSpec("P")
T = TypeVar("T")


class Block(AbstractContextManager[T]):
    """What `with k.loop(...)` enters: the builder knows it until then, to refuse it without."""

    def __init__(self, builder: Storage, what: str, body: AbstractContextManager[T]) -> None:
        self._builder, self.what, self._body = builder, what, body
        self.origin = builder.origin()
        builder.unentered.append(self)

    def __enter__(self) -> T:
        if self in self._builder.unentered:
            self._builder.unentered.remove(self)
        return self._body.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._body.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"{self.what} without its `with`"


def block(
    generator: Callable[Concatenate[S, P], Iterator[T]],
) -> Callable[Concatenate[S, P], Block[T]]:
    """Make a builder's method a context manager that must be entered."""
    body, word = contextmanager(generator), generator.__name__

    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Block[T]:
        named = args[0] if args else kwargs.get("name")
        what = f"{word} '{named}'" if isinstance(named, str) else word
        return Block(self, what, body(self, *args, **kwargs))

    update_wrapper(method, generator)
    return method


CALLERS_LINES = "CALLERS_LINES"
"""A module that defines this name is a tool of authors: what it emits has its caller's line."""


class Storage:
    """Named registers and buffers of one program under construction."""

    def __init__(self, name: str, machine: Machine, cores: int) -> None:
        self.name, self.machine, self.cores = name, machine, cores
        self.registers = RegisterPool(
            machine.issue.scalar_predicates, machine.issue.lane_predicates
        )
        self.registers.owner[LOOP_PREDICATE] = "the builder's branches"
        self.registers.owner[SCALAR_BASE] = "the pointer into SM"
        self.am_pool = MemoryPool("AM", machine.am.base, machine.am.bytes)
        self.sm_pool = MemoryPool("SM", machine.sm.base, machine.sm.bytes)
        self.ddr_pool = MemoryPool("DDR", machine.ddr.base, machine.ddr.bytes)
        self._loops: list[str] = []
        self._scopes: list[list[Register]] = [[]]
        self._buffer_of: dict[Register, str] = {}
        self._home: Origin | None = None
        self.unentered: list[Block[Any]] = []
        self.scalar_base = machine.sm.base + max(0, machine.sm.bytes - REACH)

    def origin(self, skip: int = 0) -> Origin:
        """Return the line of the author's file that is being executed."""
        if self._home is not None:
            return self._home
        frame = sys._getframe(1 + skip)
        while frame.f_back is not None and _is_passed(frame):
            frame = frame.f_back
        return Origin(frame.f_code.co_filename, frame.f_lineno, "/".join(self._loops))

    @contextmanager
    def at_home(self, home: Origin) -> Iterator[None]:
        """Take `home` for the author's line: for what the builder itself adds to a program."""
        self._home = home
        try:
            yield
        finally:
            self._home = None

    def error(self, message: str) -> KernelError:
        """Return an error that names the author's line."""
        return KernelError(f"{self.origin()}: {message}")

    @block
    def scope(self) -> Iterator[None]:
        """Give back, at the end, the registers and buffers taken inside."""
        pools = (self.am_pool, self.sm_pool)
        marks = [pool.next for pool in pools]
        self._scopes.append([])
        try:
            yield
        finally:
            registers = self._scopes.pop()
            self.registers.release(registers)
            for register in registers:
                self._buffer_of.pop(register, None)
            if any(pool.next != mark for pool, mark in zip(pools, marks, strict=True)):
                self.flush()  # one block must not see two buffers share memory
            for pool, mark in zip(pools, marks, strict=True):
                pool.give_back(mark, self.position())

    def flush(self) -> None:
        """End the current stretch of scheduled operations."""

    def position(self) -> int:
        """Return the number of the packet that comes next."""
        return 0

    def _one(self, file: File, name: str, candidates: list[int]) -> Register:
        try:
            taken = self.registers.take(file, name, 1, candidates)
        except KernelError as error:
            raise self.error(str(error)) from None
        self._scopes[-1] += taken
        return taken[0]

    def _registers(self, file: File, name: str, shape: tuple[int, ...]) -> RegisterBlock:
        if any(type(extent) is not int or extent < 1 for extent in shape):
            shown = ", ".join(map(str, shape))
            raise self.error(f"registers '{name}': extents must be whole numbers, got {shown}")
        try:
            taken = self.registers.take_block(file, name, prod(shape))
        except KernelError as error:
            raise self.error(str(error)) from None
        self._scopes[-1] += taken
        return RegisterBlock(name, taken, shape)

    def scalar(self, name: str) -> Register:
        """Take one scalar register."""
        return self._one(File.SCALAR, name, self.registers.general(File.SCALAR))

    def scalars(self, name: str, *shape: int) -> RegisterBlock:
        """Take a block of scalar registers of that shape."""
        return self._registers(File.SCALAR, name, shape)

    def vector(self, name: str) -> Register:
        """Take one vector register."""
        return self._one(File.VECTOR, name, self.registers.general(File.VECTOR))

    def vectors(self, name: str, *shape: int) -> RegisterBlock:
        """Take a block of vector registers of that shape."""
        return self._registers(File.VECTOR, name, shape)

    def scalar_predicate(self, name: str) -> Register:
        """Take a scalar register that can predicate instructions; R0 serves the builder's loops."""
        candidates = list(range(1, self.machine.issue.scalar_predicates))
        return self._one(File.SCALAR, name, candidates)

    def lane_predicate(self, name: str) -> Register:
        """Take a vector register that can predicate lanes."""
        return self._one(File.VECTOR, name, list(range(self.machine.issue.lane_predicates)))

    def vector_address(self, name: str) -> Register:
        """Take one of AR0-AR7."""
        return self._one(File.ADDRESS, name, list(halves(vector=True)))

    def scalar_address(self, name: str) -> Register:
        """Take one of AR8-AR14 (AR15 always points into SM)."""
        return self._one(File.ADDRESS, name, list(halves(vector=False))[:-1])

    def vector_offset(self, name: str) -> Register:
        """Take one of OR0-OR7."""
        return self._one(File.OFFSET, name, list(halves(vector=True)))

    def scalar_offset(self, name: str) -> Register:
        """Take one of OR8-OR15."""
        return self._one(File.OFFSET, name, list(halves(vector=False)))

    def scalar_pair(self, name: str) -> Register:
        """Take an even/odd pair of scalar registers; return the even one."""
        return self._pair(File.SCALAR, name)

    def vector_pair(self, name: str) -> Register:
        """Take an even/odd pair of vector registers; return the even one."""
        return self._pair(File.VECTOR, name)

    def _pair(self, file: File, name: str) -> Register:
        try:
            (even,) = self.registers.take_pairs(file, name, 1)
        except KernelError as error:
            raise self.error(str(error)) from None
        self._scopes[-1] += [even, Register(file, even.index + 1)]
        return even

    def array_buffer(self, name: str, size: int) -> Buffer:
        """Take `size` bytes of AM until the scope ends."""
        return self._memory(self.am_pool, name, size)

    def scalar_buffer(self, name: str, size: int) -> Buffer:
        """Take `size` bytes of SM until the scope ends."""
        return self._memory(self.sm_pool, name, size)

    def ddr_buffer(self, name: str, size: int) -> Buffer:
        """Take `size` bytes of DDR for the whole program."""
        return self._memory(self.ddr_pool, name, size)

    def _memory(self, pool: MemoryPool, name: str, size: int, permanent: bool = False) -> Buffer:
        if not isinstance(name, str):
            raise self.error(f"{pool.space} buffer: give its name, then its bytes; got {name!r}")
        if not isinstance(size, Integral) or isinstance(size, bool) or size % 4:
            wanted = "its size must be a whole number of bytes, a multiple of 4"
            raise self.error(f"{pool.space} buffer '{name}': {wanted}; got {size!r}")
        taken = {buffer.name for buffer in pool.buffers}
        unique = next(n for n in _numbered(name) if n not in taken)
        try:
            return pool.take(unique, size, permanent, self.position())
        except KernelError as error:
            raise self.error(str(error)) from None


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name} {number}"


def _is_passed(frame: FrameType) -> bool:
    """Tell whether the author is further out: in the builder, or in a module that says so."""
    return _is_own(frame.f_code.co_filename) or CALLERS_LINES in frame.f_globals


@cache
def _is_own(file: str) -> bool:
    return Path(file).parent == _OWN_FOLDER or file.endswith("contextlib.py")


_OWN_FOLDER = Path(__file__).parent
