"""DMA in the builder: descriptors and constants in SM, pointers into buffers.

The shape of a descriptor is given when the program is built; device code may change any field
before it starts the transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from numbers import Integral

from attrs import frozen

from isa.descriptor import FIELDS, Plane, TransferRequest
from isa.errors import unknown
from isa.language.pipelined import PipelinedLoops
from isa.language.storage import SCALAR_BASE
from isa.machine import Machine
from isa.operands import AR, Address, Register
from isa.program import Buffer


@frozen
class Descriptor:
    """A descriptor in SM, by the buffer that holds it."""

    buffer: Buffer


def whole(buffer: Buffer) -> Plane:
    """Return the plane of a whole buffer: one row."""
    return Plane(buffer.address, 1, buffer.bytes // 4, 0)


def _pointer_problem(pointer: Register, buffer: Buffer) -> str:
    """Say why a register cannot point into a buffer, or return an empty string."""
    if not isinstance(buffer, Buffer):
        return f"point takes an address register and then a buffer, got {buffer!r}"
    if not AR.accepts(pointer):
        return f"a pointer must be {AR.wanted}, got {pointer}"
    if buffer.space == "DDR":
        return f"{pointer} cannot reach '{buffer.name}': it is in DDR, copy it to AM first"
    reached = "AM" if pointer.is_vector_half else "SM"
    if reached == buffer.space:
        return ""
    wanted = "k.vector_address" if buffer.space == "AM" else "k.scalar_address"
    return (
        f"{pointer} reaches {reached}, buffer '{buffer.name}' is in {buffer.space}; take {wanted}"
    )


class Transfers(PipelinedLoops):
    """Constants, pointers, and transfers between DDR and the memories of a core."""

    def __init__(self, name: str, machine: Machine, cores: int) -> None:
        super().__init__(name, machine, cores)
        self._scalar_data: list[tuple[Buffer, list[Sequence[int]]]] = []

    def begin(self) -> None:
        """Emit what every program starts with: AR15 points to SM."""
        with self.scope():
            self.smvaga(self.constant(self.scalar_base), SCALAR_BASE)
        self.flush()

    def constants(self, name: str, *per_core: Sequence[int]) -> Buffer:
        """Place 32-bit words in SM before the program starts: one list for all cores, or one each.

        Raise KernelError unless there is one list, or one of the same length for each core of the
        run, and every word a whole number that 32 bits hold, signed or unsigned.
        """
        problem = self._constants_problem(per_core)
        if problem:
            raise self.error(f"constants '{name}': {problem}")
        buffer = self._memory(self.sm_pool, name, 4 * len(per_core[0]), permanent=True)
        words = list(per_core) if len(per_core) > 1 else list(per_core) * self.cores
        self._scalar_data.append((buffer, words))
        return buffer

    def _constants_problem(self, per_core: Sequence[Sequence[int]]) -> str:
        if len(per_core) not in (1, self.cores):
            return f"{len(per_core)} lists for {self.cores} cores"
        lengths = [len(words) for words in per_core]
        if len(set(lengths)) > 1:
            counts = ", ".join(map(str, lengths))
            return f"the lists of the cores have {counts} words; give all the same number"
        for word in chain.from_iterable(per_core):
            if not isinstance(word, Integral) or not -(2**31) <= int(word) < 2**32:
                return f"{word} is not a whole number of 32 bits"
        return ""

    def argument(self, name: str, *per_core: int) -> Register:
        """Return a scalar register loaded with a 32-bit word that may differ between cores."""
        buffer = self.constants(name, *([value] for value in per_core))
        register: Register = self.sldw(self.word(buffer), self.scalar(name), buffer=buffer.name)
        return register

    def word(self, buffer: Buffer, index: int = 0) -> Address:
        """Return the address operand of 32-bit word `index` of an SM buffer."""
        return SCALAR_BASE + ((buffer.address - self.scalar_base) // 4 + index)

    def point(self, pointer: Register, buffer: Buffer, offset: int | Register = 0) -> Register:
        """Make an address register point `offset` bytes into a buffer, and remember which."""
        problem = _pointer_problem(pointer, buffer)
        if problem:
            raise self.error(problem)
        with self.scope():
            if isinstance(offset, Register):
                start = self.sadd(self.constant(buffer.address), offset)
            else:
                start = self.constant(buffer.address + offset)
            self.smvaga(start, pointer)
        self._buffer_of[pointer] = buffer.name
        return pointer

    def point_at(self, pointer: Register, address: Register, buffer: Buffer) -> Register:
        """Make an address register point to the byte address in a register, inside a buffer."""
        problem = _pointer_problem(pointer, buffer)
        if problem:
            raise self.error(problem)
        self.smvaga(address, pointer)
        self._buffer_of[pointer] = buffer.name
        return pointer

    def descriptor(self, name: str, request: TransferRequest) -> Descriptor:
        """Place a descriptor in SM."""
        return Descriptor(self.constants(f"descriptor {name}", request.words()))

    def copy(self, source: Buffer, target: Buffer, channel: int | Register) -> None:
        """Start the transfer of a whole buffer to another of the same size.

        Raise KernelError if the sizes differ or are no multiple of 4 bytes.
        """
        if source.bytes != target.bytes or source.bytes % 4:
            raise self.error(
                f"copy from '{source.name}' ({source.bytes} bytes) to '{target.name}' "
                f"({target.bytes} bytes): sizes must be equal and multiples of 4"
            )
        request = TransferRequest(whole(source), whole(target))
        self.start(self.descriptor(f"{source.name} to {target.name}", request), channel)

    def set_field(self, descriptor: Descriptor, name: str, value: Register) -> None:
        """Store the low word of a register into a field of a descriptor."""
        if name not in FIELDS:
            raise self.error(unknown("descriptor field", name, FIELDS))
        place = self.word(descriptor.buffer, FIELDS.index(name))
        self.sstw(value, place, buffer=descriptor.buffer.name)

    def set_address(self, descriptor: Descriptor, side: str, value: Register) -> None:
        """Store a 64-bit address into the `source` or `destination` of a descriptor."""
        if side not in ("source", "destination"):
            raise self.error(f"set_address: side must be 'source' or 'destination', got {side!r}")
        self.set_field(descriptor, f"{side}_low", value)
        with self.scope():
            self.set_field(descriptor, f"{side}_high", self.sshflr(32, value))

    def start(self, descriptor: Descriptor, channel: int | Register) -> None:
        """Start the transfer on a channel; the channel must have been waited for."""
        with self.scope():
            self.dmastart(self.constant(descriptor.buffer.address), channel)

    def wait(self, channel: int | Register) -> None:
        """Wait until the transfer of a channel is complete."""
        self.dmawait(channel)
