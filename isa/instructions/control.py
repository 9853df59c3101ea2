"""Control: branches, idle cycles, DMA, barriers, the end of a program.

A register that holds a packet number can take the place of a label.

Called by both engines with the control vocabulary, which gets labels as packet numbers.
"""

from __future__ import annotations

from isa.instruction import Effect, Unit, instruction
from isa.instructions.kinds import RI, R, SnopCount, Target
from isa.values import ControlWords


@instruction(Unit.SBR, latency="branch", effect=Effect.BRANCH)
def SBR(op: ControlWords, target: Target) -> None:
    """Go to a label, or to the packet whose number a register holds, after the delay slots."""
    op.branch(target)


@instruction(Unit.SBR, effect=Effect.IDLE)
def SNOP(op: ControlWords, cycles: SnopCount) -> None:
    """Issue nothing for so many cycles."""
    op.idle(cycles)


@instruction(Unit.SLDST, effect=Effect.DMA_START)
def DMASTART(op: ControlWords, descriptor: R, channel: RI) -> None:
    """Start the transfer that the descriptor at a byte address of SM describes, on a channel.

    Inferred: stands for writes to the chip's memory-mapped DMA registers.
    """
    op.dma_start(descriptor, channel)


@instruction(Unit.SBR, effect=Effect.DMA_WAIT)
def DMAWAIT(op: ControlWords, channel: RI) -> None:
    """Wait until the transfer of a channel is complete.

    Inferred: stands for a loop that polls the chip's memory-mapped DMA registers.
    """
    op.dma_wait(channel)


@instruction(Unit.SBR, effect=Effect.BARRIER)
def BARRIER(op: ControlWords) -> None:
    """Wait until every core of the run has come to a barrier.

    Inferred: stands for the chip's memory-mapped barriers.
    """
    op.barrier()


@instruction(Unit.SIEU, latency="scalar_integer")
def SCOREID(op: ControlWords) -> R:
    """Set to the number of this core, from 0.

    Inferred: name.
    """
    return op.core_id()


@instruction(Unit.SBR, effect=Effect.HALT)
def HALT(op: ControlWords) -> None:
    """End the program of this core.

    Inferred: name.
    """
    op.halt()
