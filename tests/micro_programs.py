"""Micro-programs for tests: a few pinned packets on a bare builder, registers set by hand.

A program holds what its test writes and a HALT, nothing before it: packet 0 is the test's first
and issues in cycle 0. Registers and memories are set before the run and read after it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isa import Builder, KernelError, Machine, SimulationError, Tensor
from isa.descriptor import Plane, TransferRequest
from isa.operands import FILE_LENGTH, File, Register
from isa.program import Program
from simulator.chip import Chip
from simulator.compiled.core import Compiled
from simulator.memory import Memory
from simulator.reference.core import Core
from simulator.result import ChipResult

R, VR, AR, OR, ENTRY = (
    [Register(file, index) for index in range(FILE_LENGTH[file])]
    for file in (File.SCALAR, File.VECTOR, File.ADDRESS, File.OFFSET, File.EXCHANGE)
)
SVR = Register(File.EXCHANGE, -1)
VLR = Register(File.LANE_MASK)
AM, SM, DDR = 0x4000_0000, 0x4010_0000, 0x8_0000_0000
AM_END = AM + 768 * 1024
VECTOR = 64
"""Bytes of a vector of 16 lanes."""
LANES = range(16)

COMPILED = False
"""Whether benches run on the compiled engine, where it does what they ask for."""

LIMIT = 10_000
Body = Callable[[Builder], None]
Tensors = Mapping[str, Tensor]


def machine(*overrides: str) -> Machine:
    """Return the default machine with `section.field=value` changes."""
    return Machine.load(overrides=overrides)


MACHINE = machine()

EASY_SETTINGS = ("ddr.bytes_per_cycle=16.0", "ddr.efficiency=1.0", "dma.launch_cycles=10")
EASY = machine(*EASY_SETTINGS)
"""A machine for mental arithmetic: 16 bytes a cycle from DDR, 10 cycles after the start."""


def one(k: Builder, name: str, *operands: Any, **options: Any) -> None:
    """Issue one operation in a packet of its own."""
    with k.packet():
        getattr(k, name)(*operands, **options)


def program(
    body: Body, record: Machine = MACHINE, cores: int = 1, inputs: Tensors | None = None
) -> Program:
    """Return the program that `body` writes with a bare builder."""
    builder = Builder("micro", record, cores, inputs or {}, {}, {})
    body(builder)
    return builder.finish()


def stagger(k: Builder) -> None:
    """Come to the next packet, number 11, in cycle 7 + 10 times the steps of `Bench.stagger`."""
    one(k, "sbr", R[63])
    k.idle(6)
    for _ in range(9):
        k.idle(10)


def row(address: int, words: int, count: int = 1, stride: int = 0) -> Plane:
    """Return `count` rows of `words` words, one behind the other unless `stride` says else."""
    return Plane(address, count, words, stride or 4 * words)


class Bench:
    """A program on a chip; `bench[R[3]] = 7` sets it on every core, `bench[R[3]]` reads core 0.

    AR0-AR7 start at the first byte of AM, AR8-AR15 at that of SM.
    """

    def __init__(
        self, body: Body | Program, record: Machine = MACHINE, cores: int = 1, **options: Any
    ) -> None:
        self.program = body if isinstance(body, Program) else program(body, record, cores)
        if COMPILED and not options.keys() & {"check", "tracer"}:
            options["compiled"] = Compiled(self.program, record)
        self.chip = Chip(self.program, record, **options)
        for pointer in AR:
            self[pointer] = AM if pointer.is_vector_half else SM

    def __setitem__(self, register: Register, value: Any) -> None:
        for core in range(len(self.chip.cores)):
            self.write(register, value, core)

    def __getitem__(self, register: Register) -> Any:
        return self.read(register)

    def write(self, register: Register, value: Any, core: int) -> None:
        """Set a register of one core: an int, or a sequence of ints or floats for its lanes."""
        if register.file is File.LANE_MASK:
            self.chip.cores[core].set_lane_mask(value)
        else:
            _file(self.chip.cores[core], register)[register.index] = _bits(value)

    def read(self, register: Register, core: int = 0) -> Any:
        """Return a scalar as an int, a vector as a list of unsigned ints."""
        if register.file is File.LANE_MASK:
            return self.chip.cores[core].lane_mask
        value = _file(self.chip.cores[core], register)[register.index]
        return value.tolist() if isinstance(value, np.ndarray | np.uint32) else value

    def floats(self, register: Register) -> list[float]:
        """Return the lanes of a vector as float32."""
        lanes: list[float] = np.array(self[register], np.uint32).view(np.float32).tolist()
        return lanes

    def place(self, address: int, words: Iterable[int], core: int = 0) -> None:
        """Put 32-bit words into the memory that holds a byte address."""
        memory, values = self._memory(address, core), np.array(list(words), np.uint32)
        first = memory.index(address, len(values))
        memory.words[first : first + len(values)] = values

    def words(self, address: int, count: int, core: int = 0) -> list[int]:
        """Return 32-bit words of the memory that holds a byte address."""
        memory = self._memory(address, core)
        first = memory.index(address, count)
        found: list[int] = memory.words[first : first + count].tolist()
        return found

    def _memory(self, address: int, core: int) -> Memory:
        owner = self.chip.cores[core]
        memories = (owner.array_memory, owner.scalar_memory, self.chip.ddr)
        return next(memory for memory in memories if memory.holds(address, address + 4))

    def transfer(self, number: int, source: Plane, target: Plane, **fields: Any) -> None:
        """Put a descriptor into every core's SM and its address into R32 + `number`."""
        for core in range(len(self.chip.cores)):
            self.transfer_of(core, number, source, target, **fields)

    def transfer_of(self, core: int, number: int, source: Plane, target: Plane, **f: Any) -> None:
        """Put a descriptor into one core's SM and its address into R32 + `number`."""
        address = SM + 0x1000 + 64 * number
        self.place(address, TransferRequest(source, target, **f).words(), core)
        self.write(R[32 + number], address, core)

    def stagger(self, *steps: int) -> None:
        """Make each core skip all but so many of the idle packets of `stagger`."""
        for core, count in enumerate(steps):
            self.write(R[63], 11 - count, core)

    def run(self, limit: int = LIMIT) -> ChipResult:
        """Run to the end; return cycles, stalls and transfers."""
        return self.chip.run(limit)

    def failure(self, limit: int = LIMIT) -> str:
        """Return the message of a run that must fail, with folders cut off."""
        with pytest.raises(SimulationError) as caught:
            self.run(limit)
        return without_folders(str(caught.value))


def _file(core: Core, register: Register) -> Any:
    return {
        File.SCALAR: core.scalars,
        File.ADDRESS: core.addresses,
        File.OFFSET: core.offsets,
        File.VECTOR: core.vectors,
        File.EXCHANGE: core.exchange,
    }[register.file]


def _bits(value: Any) -> Any:
    """Return ints as they are, float lanes as their bits."""
    if isinstance(value, Sequence) and isinstance(value[0], float):
        return np.array(value, np.float32).view(np.uint32)
    return value


def refusal(
    body: Body, record: Machine = MACHINE, cores: int = 1, inputs: Tensors | None = None
) -> str:
    """Return the message of a program that must not be built, with folders cut off."""
    with pytest.raises(KernelError) as caught:
        program(body, record, cores, inputs)
    return without_folders(str(caught.value))


def without_folders(message: str) -> str:
    return re.sub(r"/\S+/(\w+\.py:)", r"\1", message)


def stalls(result: ChipResult, core: int = 0) -> dict[tuple[int, str], int]:
    """Return the stalled cycles of a core by packet and cause."""
    return {(at.packet, at.cause): cycles for at, cycles in result.cores[core].stalls.items()}


def here(function: Callable[..., Any]) -> str:
    """Return file and number of the line of a function that is marked `# here`."""
    lines, first = inspect.getsourcelines(function)
    (number,) = (first + n for n, line in enumerate(lines) if line.rstrip().endswith("# here"))
    return f"{Path(inspect.getfile(function)).name}:{number}"
