"""The numpy vocabulary bound to one core: memory operands and control.

The words themselves are in `numpy_values`; here stands only what needs a core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isa.descriptor import DESCRIPTOR_WORDS
from isa.errors import SimulationError
from isa.instruction import Effect
from isa.values import ControlWords
from simulator.reference.numpy_values import NumpyScalar, NumpyVector
from simulator.reference.unknown import UNKNOWN, known
from simulator.state import Status

if TYPE_CHECKING:
    from simulator.reference.core import Core


class CoreVectorWords(NumpyVector):
    """The vector words of a core."""


class CoreScalarWords(NumpyScalar, ControlWords):
    """The scalar and control words of a core."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core

    def load(self, address: Any, word: int = 0, step: int = 1) -> Any:
        loaded = address.load_word(word)
        return loaded if loaded is UNKNOWN else self.low_word(loaded)

    def store(self, address: Any, value: Any, word: int = 0, step: int = 1) -> None:
        address.store_word(word, value if value is UNKNOWN else value & 0xFFFFFFFF)

    def core_id(self) -> int:
        return self._core.number

    def branch(self, target: Any) -> None:
        self._core.branch(target)

    def dma_start(self, address: Any, channel: Any) -> None:
        core = self._core
        self._check_channel(channel)
        if core.starting is not None:
            raise SimulationError("a packet starts two transfers")
        index = core.scalar_memory.index(address, DESCRIPTOR_WORDS)
        if core.checker is not None:
            step = next(s for s in core.steps[core.packet] if s.effect is Effect.DMA_START)
            core.checker.load(core, step, core.scalar_memory, index, index + DESCRIPTOR_WORDS)
        words = core.scalar_memory.words[index : index + DESCRIPTOR_WORDS].tolist()
        if core.unknown_words and core.unknown_words.intersection(
            range(index, index + DESCRIPTOR_WORDS)
        ):
            known(UNKNOWN, "a DMA descriptor")
        core.starting = (channel, words)

    def dma_wait(self, channel: Any) -> None:
        self._check_channel(channel)
        self._core.block(Status.WAITING, channel)

    def barrier(self) -> None:
        self._core.block(Status.AT_BARRIER)

    def halt(self) -> None:
        self._core.block(Status.HALTED)

    def idle(self, cycles: Any) -> None:
        """A SNOP's cycles are counted by the core itself."""

    def _check_channel(self, channel: int) -> None:
        channels = self._core.machine.dma.channels
        if not 0 <= channel < channels:
            raise SimulationError(f"DMA channel {channel} is outside 0 to {channels - 1}")
