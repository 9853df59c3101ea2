"""The instruction set: one entry per instruction; importing it fills `isa.instruction.REGISTRY`.

Builder, legality rules, engines and the reference page (docs/isa.md) are derived from the entries.
"""

from __future__ import annotations

from isa.instructions import (
    address,
    control,
    cross_lane,
    exchange,
    scalar_float,
    scalar_integer,
    scalar_memory,
    vector_float,
    vector_integer,
    vector_memory,
)

GROUPS = (
    scalar_integer,
    scalar_float,
    address,
    scalar_memory,
    vector_memory,
    vector_float,
    vector_integer,
    cross_lane,
    exchange,
    control,
)
"""The groups of instructions in the order of the reference page."""
