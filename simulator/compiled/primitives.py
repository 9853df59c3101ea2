"""What integer code may call that is no arithmetic: memory by address, other code, other threads.

Every primitive is a Python function, which does the same for one thread, and a writer of LLVM IR.
Called by the chip's loop over its cores (`simulator.compiled.rounds`) and the copies of transfers.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen
from llvmlite import binding

from simulator.chip_record import Record
from simulator.compiled import ir

Words = Any
"""Flat unsigned 32-bit words."""
Flags = Any
"""Flat bytes."""

INTEGER = ir.IntType(64)
POINTER = ir.PointerType()
BOOLEAN, SHORT = ir.IntType(1), ir.IntType(32)
VOID = ir.VoidType()
UNBOUNDED = 1 << 40
"""Items of memory that is known by its address alone."""

PAUSES = {"x86_64": ("llvm.x86.sse2.pause", []), "aarch64": ("llvm.aarch64.hint", [1])}
"""What says to a processor that its thread waits in a loop: LLVM's name and arguments."""


@frozen
class Primitive:
    """How a primitive is written, and the kind of what it returns."""

    write: Callable[..., Any]
    result: str = "int"


PRIMITIVES: dict[Any, Primitive] = {}


def primitive(
    write: Callable[..., Any], result: str = "int"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a Python function as a primitive."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        PRIMITIVES[function] = Primitive(write, result)
        return function

    return register


# Memory -----------------------------------------------------------------------------------------


def _pointer(b: ir.IRBuilder, address: Any) -> Any:
    return b.inttoptr(address, POINTER)


def _memory(address: int, kind: Any) -> Any:
    size = ctypes.sizeof(kind)
    return np.ctypeslib.as_array((kind * (UNBOUNDED // size)).from_address(int(address)))


@primitive(_pointer, "Record")
def record_at(address: int) -> Record:
    """Return the 64-bit integers at an address of the host."""
    found: Record = _memory(address, ctypes.c_int64)
    return found


@primitive(_pointer, "Words")
def words_at(address: int) -> Words:
    """Return the words at an address of the host."""
    return _memory(address, ctypes.c_uint32)


@primitive(_pointer, "Flags")
def flags_at(address: int) -> Flags:
    """Return the bytes at an address of the host."""
    return _memory(address, ctypes.c_uint8)


def _copy(b: ir.IRBuilder, target: Any, to: Any, source: Any, at: Any, count: Any) -> Any:
    word = ir.IntType(32)
    places = [b.gep(words, [n], source_etype=word) for words, n in ((target, to), (source, at))]
    given = [*places, b.shl(count, INTEGER(2)), BOOLEAN(0)]
    b.call_named("llvm.memcpy.p0.p0.i64", VOID, given)
    return INTEGER(0)


@primitive(_copy)
def copy_run(target: Words, to: int, source: Words, at: int, count: int) -> int:
    """Copy `count` words from item `at` of the source to item `to` of the target."""
    target[to : to + count] = source[at : at + count]
    return 0


def _fill(b: ir.IRBuilder, target: Any, to: Any, count: Any) -> Any:
    byte = ir.IntType(8)
    where = b.gep(target, [to], source_etype=byte)
    b.call_named("llvm.memset.p0.i64", VOID, [where, byte(1), count, BOOLEAN(0)])
    return INTEGER(0)


@primitive(_fill)
def fill_run(target: Flags, to: int, count: int) -> int:
    """Set `count` flags from item `to` on."""
    target[to : to + count] = 1
    return 0


# Code -------------------------------------------------------------------------------------------


def _call(b: ir.IRBuilder, function: Any, argument: Any) -> Any:
    written = ir.FunctionType(INTEGER, [POINTER])
    return b.call_at(b.inttoptr(function, POINTER), written, [b.inttoptr(argument, POINTER)])


@primitive(_call)
def call(function: int, argument: int) -> int:
    """Call machine code at an address with the address of a record."""
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(int(function))(int(argument)))


# Bits -------------------------------------------------------------------------------------------


def _lowest_bit(b: ir.IRBuilder, mask: Any) -> Any:
    return b.cttz(mask, BOOLEAN(1))


@primitive(_lowest_bit)
def lowest_bit(mask: int) -> int:
    """Return the number of the lowest bit that is set; one must be."""
    return (mask & -mask).bit_length() - 1


# Threads ----------------------------------------------------------------------------------------


def _fetch_add(b: ir.IRBuilder, record: Any, at: Any, amount: Any) -> Any:
    return b.atomic_rmw("add", b.gep(record, [at], source_etype=INTEGER), amount, "acq_rel")


@primitive(_fetch_add)
def fetch_add(record: Record, at: int, amount: int) -> int:
    """Add to an item that other threads add to as well, and return what it was."""
    before = record[at]
    record[at] += amount
    return before


def _see(b: ir.IRBuilder, record: Any, at: Any) -> Any:
    return b.load_atomic(b.gep(record, [at], source_etype=INTEGER), "acquire", 8, typ=INTEGER)


@primitive(_see)
def see(record: Record, at: int) -> int:
    """Return an item that another thread may change, and all that it did before."""
    return record[at]


def _show(b: ir.IRBuilder, record: Any, at: Any, value: Any) -> Any:
    b.atomic_rmw("xchg", b.gep(record, [at], source_etype=INTEGER), value, "release")
    return INTEGER(0)


@primitive(_show)
def show(record: Record, at: int, value: int) -> int:
    """Set an item for other threads to see, with all that was done before."""
    record[at] = value
    return 0


def _pause(b: ir.IRBuilder) -> Any:
    found = PAUSES.get(str(binding.get_process_triple()).split("-")[0])
    if found is not None:
        name, arguments = found
        b.call_named(name, VOID, [SHORT(argument) for argument in arguments])
    return INTEGER(0)


@primitive(_pause)
def pause() -> int:
    """Let the processor know that this thread only waits."""
    return 0


WAITING = ("usleep", "sched_yield", "clock_gettime")
"""What the C library of a host has for threads that wait."""

CLOCK = getattr(time, "CLOCK_MONOTONIC", 0)


def can_wait() -> bool:
    """Tell whether threads of this host can wait without a processor."""
    return all(binding.address_of_symbol(name) for name in WAITING)


def _sleep(b: ir.IRBuilder, microseconds: Any) -> Any:
    if can_wait():
        b.call_named("usleep", SHORT, [b.trunc(microseconds, SHORT)])
    return INTEGER(0)


@primitive(_sleep)
def sleep(microseconds: int) -> int:
    """Give this thread's processor to others for a while."""
    return 0


def _yield(b: ir.IRBuilder) -> Any:
    if can_wait():
        b.call_named("sched_yield", SHORT, [])
    return INTEGER(0)


@primitive(_yield)
def let_others_run() -> int:
    """Let other threads have this thread's processor, if they want it."""
    return 0


def _now(b: ir.IRBuilder, record: Any, at: Any) -> Any:
    if not can_wait():
        return INTEGER(0)
    place = b.gep(record, [at], source_etype=INTEGER)
    b.call_named("clock_gettime", SHORT, [SHORT(CLOCK), place])
    seconds = b.load(place, typ=INTEGER, align=8)
    behind = b.gep(place, [INTEGER(1)], source_etype=INTEGER)
    nanoseconds = b.load(behind, typ=INTEGER, align=8)
    return b.add(b.mul(seconds, INTEGER(1_000_000_000)), nanoseconds)


@primitive(_now)
def now(record: Record, at: int) -> int:
    """Return nanoseconds of the host's clock; two items from `at` on are scratch. 0: no clock."""
    return time.clock_gettime_ns(CLOCK) if can_wait() else 0
