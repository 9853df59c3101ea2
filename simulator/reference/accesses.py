"""Memory operands while an instruction executes: where the vocabulary's load and store arrive.

A reference is made for one access of one operation. Loads see memory as it was when the packet
issued; stores wait in the core until all loads of the packet are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.reference.unknown import UNKNOWN

if TYPE_CHECKING:
    from simulator.reference.core import Core
    from simulator.reference.decode import Step


class ScalarReference:
    """One access of SM."""

    __slots__ = ("address", "core", "step")

    def __init__(self, core: Core, step: Step, address: int) -> None:
        self.core, self.step, self.address = core, step, address

    def load_word(self, word: int) -> Any:
        """Return the 32-bit word number `word` from the address on, unsigned."""
        core, memory = self.core, self.core.scalar_memory
        index = memory.index(self.address + 4 * word, 1)
        if core.checker is not None:
            core.checker.load(core, self.step, memory, index, index + 1)
        if index in core.unknown_words:
            return UNKNOWN
        return int(memory.words[index])

    def store_word(self, word: int, value: Any) -> None:
        """Store a 32-bit word when the packet's loads are done."""
        memory = self.core.scalar_memory
        index = memory.index(self.address + 4 * word, 1)
        self.core.stores.append((self.step, memory, slice(index, index + 1), value))


class VectorReference:
    """One access of AM by all lanes or the enabled ones; a disabled lane touches nothing."""

    __slots__ = ("address", "core", "lanes", "step")

    def __init__(self, core: Core, step: Step, address: int, lanes: Any) -> None:
        self.core, self.step, self.address, self.lanes = core, step, address, lanes

    def _words(self, word: int, step: int) -> Any:
        """Return the word indices that the enabled lanes access, as a slice or an array."""
        first, memory = self.address + 4 * word, self.core.array_memory
        if self.lanes is None:
            span = (self.core.lanes - 1) * step + 1
            index = memory.index(first, span)
            return slice(index, index + span, step)
        enabled = np.flatnonzero(self.lanes)
        if not len(enabled):
            return enabled
        low, high = int(enabled[0]), int(enabled[-1])
        index = memory.index(first + 4 * step * low, (high - low) * step + 1)
        return index + (enabled - low) * step

    def load_lanes(self, word: int, step: int) -> Any:
        """Return one word a lane (uint32); disabled lanes get 0, which never lands."""
        core, memory = self.core, self.core.array_memory
        where = self._words(word, step)
        if core.checker is not None:
            core.checker.load_lanes(core, self.step, memory, where)
        if self.lanes is None:
            return memory.words[where].copy()
        result = np.zeros(core.lanes, np.uint32)
        result[self.lanes] = memory.words[where]
        return result

    def store_lanes(self, word: int, step: int, value: Any) -> None:
        """Store one word a lane when the packet's loads are done."""
        where = self._words(word, step)
        enabled = value if self.lanes is None else value[self.lanes]
        self.core.stores.append((self.step, self.core.array_memory, where, enabled.copy()))
