"""Rules about memory and size: stores of one packet, buffers, constants, DDR, cores.

`isa.packing.legality` calls them. Only what is certain before the program runs is refused: AM and
SM are reused by one scope of the author after another, so that buffers there may share bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from isa.instruction import Effect
from isa.machine import ArrayMemory, Machine, ScalarMemory
from isa.packing.dependences import access_bytes
from isa.packing.timing_rules import Complaint, complementary
from isa.program import Buffer, Operation, Packet, Program


def stores_apart(packet: Packet, machine: Machine) -> Iterator[tuple[Operation, str]]:
    """Refuse two stores of a packet through one address register to the same bytes."""
    stores = [o for o in packet.operations if o.instruction.effect is Effect.STORE]
    for one, other in combinations(stores, 2):
        shared = _shared_bytes(one, other, machine)
        if shared > 0 and not complementary(one, other):
            problem = f"stores to {shared} bytes that '{one}' of the same packet stores to, 0 may"
            yield other, f"{problem} be shared; issue it a cycle later"


def _shared_bytes(one: Operation, other: Operation, machine: Machine) -> int:
    """Return how many bytes two accesses of a packet share, 0 where that cannot be known."""
    if one.address is None or other.address is None or one.address.base != other.address.base:
        return 0
    first = access_bytes(one, one.address, machine)
    second = access_bytes(other, other.address, machine)
    if first is None or second is None:
        return 0
    return min(first[1], second[1]) - max(first[0], second[0])


def _cores(program: Program, machine: Machine) -> Iterator[Complaint]:
    most = machine.chip.cores
    if not 1 <= program.cores <= most:
        yield (
            -1,
            None,
            f"is for {program.cores} cores, {machine.name} has {most}; ask for 1 to {most}",
        )


def _buffers_fit(program: Program, machine: Machine) -> Iterator[Complaint]:
    memories: dict[str, ArrayMemory | ScalarMemory] = {"AM": machine.am, "SM": machine.sm}
    for buffer in program.buffers:
        if buffer.space in memories:
            what = f"{buffer.space} buffer '{buffer.name}'"
            place = (buffer.address, buffer.bytes)
            yield from _outside(what, place, buffer.space, memories[buffer.space])


def _scalar_data(program: Program, machine: Machine) -> Iterator[Complaint]:
    for core, pieces in enumerate(program.scalar_data):
        for address, words in pieces:
            yield from _outside(
                f"constant data of core {core}", (address, words.nbytes), "SM", machine.sm
            )


def _outside(
    what: str, place: tuple[int, int], space: str, memory: ArrayMemory | ScalarMemory
) -> Iterator[Complaint]:
    address, size = place
    outside = max(memory.base - address, address + size - memory.base - memory.bytes)
    if outside > 0:
        problem = f"{what} (0x{address:x}, {size:,} bytes) passes {space} by {outside:,} bytes"
        limit = f"{space} holds {memory.bytes:,} from 0x{memory.base:x}"
        yield -1, None, f"{problem}, {limit}; make it smaller or move it"


def _ddr_buffers_apart(program: Program, machine: Machine) -> Iterator[Complaint]:
    """DDR buffers live as long as the program, so two names must not share bytes."""
    buffers = [buffer for buffer in program.buffers if buffer.space == "DDR"]
    buffers.sort(key=lambda buffer: buffer.address)
    for position, buffer in enumerate(buffers):
        for later in _starting_inside(buffer, buffers[position + 1 :]):
            shared = min(buffer.end, later.end) - later.address
            names = f"DDR buffers '{buffer.name}' and '{later.name}'"
            yield -1, None, f"{names} share {shared:,} bytes, 0 may be shared; move one of them"


def _starting_inside(buffer: Buffer, following: Sequence[Buffer]) -> Iterator[Buffer]:
    for later in following:
        if later.address >= buffer.end:
            return
        if later.name != buffer.name:
            yield later


def _ddr_fits(program: Program, machine: Machine) -> Iterator[Complaint]:
    missing = program.ddr_bytes - machine.ddr.bytes
    if missing > 0:
        problem = f"needs {program.ddr_bytes:,} bytes of DDR, {missing:,} more than the"
        limit = f"{machine.ddr.bytes:,} of {machine.name}"
        yield -1, None, f"{problem} {limit}; use a smaller batch"


MEMORY_RULES: dict[str, Callable[[Program, Machine], Iterator[Complaint]]] = {
    "cores": _cores,
    "buffers fit": _buffers_fit,
    "scalar data": _scalar_data,
    "DDR buffers apart": _ddr_buffers_apart,
    "DDR fits": _ddr_fits,
}
