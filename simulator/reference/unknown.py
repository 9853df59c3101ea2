"""The value of a timing-only run that nobody knows: a word of tensor data.

Such a run allocates no tensors. Whatever is computed from tensor data is UNKNOWN; a branch, a
predicate, an address or a DMA descriptor that depends on it ends the run with one message.
"""

from __future__ import annotations

from typing import Any, Final

from isa.errors import SimulationError


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"

    def _with(self, other: object) -> _Unknown:
        return self

    __add__ = __radd__ = __mul__ = __rmul__ = _with  # address arithmetic


UNKNOWN: Final = _Unknown()


def known(value: Any, use: str) -> Any:
    """Return the value, or refuse the run because `use` depends on tensor data."""
    if value is UNKNOWN:
        raise SimulationError(
            f"a timing-only run cannot know {use}: it depends on tensor data; run with numbers"
        )
    return value
