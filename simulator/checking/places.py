"""How the messages of checked runs name addresses, operations and transfers.

Called by `simulator.checking.checker` and `simulator.checking.races` for a message only, never on
the way.
"""

from __future__ import annotations

from isa.instruction import Effect
from isa.program import Buffer, Operation, Origin, Program


def place(program: Program, address: int, tagged: Buffer | None = None) -> str:
    """Return a byte address as an offset in its buffer, with the address itself.

    AM and SM buffers of different scopes may share bytes: `tagged` is the one the author named.
    """
    buffer = tagged or program.buffer_at(address)
    if buffer is None:
        return f"{address:#x} (in no buffer)"
    return f"'{buffer.name}' + {address - buffer.address} bytes ({address:#x})"


def buffer_name(program: Program, address: int) -> str:
    """Return the name of the buffer that holds an address, or the address itself."""
    buffer = program.buffer_at(address)
    return f"'{buffer.name}'" if buffer else f"{address:#x}"


def subject(program: Program, packet: int, operation: Operation) -> str:
    """Return the operation that a message is about, with its line and a blank behind.

    Nothing where its packet, which the core puts in front, holds no other.
    """
    if len(program.packets[packet].operations) == 1:
        return ""
    return f"{operation} ({operation.origin}) "


def origin_of_start(program: Program, packet: int) -> Origin:
    """Return where in the author's file a packet's transfer is started."""
    return next(
        operation.origin
        for operation in program.packets[packet].operations
        if operation.instruction.effect is Effect.DMA_START
    )


def cycles(count: int) -> str:
    """Return a number of cycles in words."""
    return f"{count} cycle" if count == 1 else f"{count} cycles"
