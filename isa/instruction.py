"""One instruction = one entry: the `@instruction` decorator and the registry it fills.

An entry is a Python function. Its name is the mnemonic, its annotated parameters are the source
operands, its return annotation the destinations, its docstring the line of the manual, its body
the semantics over the vocabulary of `isa.values`. Builder methods, assembly text, hazard rules,
both engines and the reference page are derived from it; nothing about an instruction is written
anywhere else.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from enum import Enum
from functools import cached_property
from typing import Any, get_type_hints

from attrs import frozen

from isa.operands import SVR, VR, AddressKind, File, Kind, Operand, Register, VRPair


class Unit(Enum):
    """A kind of functional unit; the machine says which issue slots belong to it."""

    SLDST = "scalar load and store"
    SMAC = "scalar multiply-add, broadcast and address arithmetic"
    SIEU = "scalar integer and logic"
    SBR = "branch and control"
    VLDST = "vector load and store"
    VMAC = "vector multiply-add"
    VIEU = "vector integer, logic and shuffle"


class Effect(Enum):
    """What an instruction does besides computing its results."""

    NONE = "none"
    LOAD = "load"
    STORE = "store"
    BRANCH = "branch"
    IDLE = "idle"
    DMA_START = "DMA start"
    DMA_WAIT = "DMA wait"
    BARRIER = "barrier"
    HALT = "halt"


SYNCHRONISING = frozenset({Effect.DMA_START, Effect.DMA_WAIT, Effect.BARRIER, Effect.HALT})
"""Effects that stay in program order with each other and with memory accesses."""

ONE_WRITE_PORT = frozenset({Unit.SMAC, Unit.SIEU, Unit.VMAC, Unit.VIEU})
"""Units whose results leave one at a time, one a cycle and slot."""


@frozen(eq=False)
class Instruction:
    """One instruction of the machine; `sources` and `results` pair a name with a kind."""

    name: str
    units: tuple[Unit, ...]
    latency_class: str
    scalar_latency_class: str
    sources: tuple[tuple[str, type[Kind]], ...]
    results: tuple[type[Kind], ...]
    effect: Effect
    in_place: bool
    cross_lane: bool
    meaning: str
    semantics: Callable[..., Any]

    @cached_property
    def mnemonic(self) -> str:
        """Return the assembly name: entries that differ only in operand kinds share it."""
        return self.name.partition("_")[0]

    @property
    def method(self) -> str:
        """Return the name of the builder method."""
        return self.name.lower()

    @cached_property
    def kinds(self) -> tuple[type[Kind], ...]:
        """Return the kinds of all operands, sources first."""
        return tuple(kind for _, kind in self.sources) + self.results

    @cached_property
    def address_position(self) -> int | None:
        """Return which source is the memory operand, or None."""
        for position, (_, kind) in enumerate(self.sources):
            if issubclass(kind, AddressKind):
                return position
        return None

    @cached_property
    def is_vector(self) -> bool:
        """Tell whether the semantics runs lane by lane (vector units)."""
        return self.units[0] in (Unit.VLDST, Unit.VMAC, Unit.VIEU)

    @cached_property
    def masks_lanes(self) -> bool:
        """Tell whether VLR and lane predicates apply: it writes vector lanes or stores them."""
        writes = any(issubclass(kind, VR | VRPair | SVR) for kind in self.results)
        return writes or (self.is_vector and self.effect is Effect.STORE)

    def latency(self, latencies: Any, operands: tuple[Operand, ...]) -> int:
        """Return the cycles from issue to use, from the machine's `latency` table.

        Address arithmetic takes another class when its destination is a scalar address register.
        """
        if not self.results:
            return 0
        last = operands[-1]
        scalar = isinstance(last, Register) and last.file in (File.ADDRESS, File.OFFSET)
        if scalar and isinstance(last, Register) and not last.is_vector_half:
            return int(latencies[self.scalar_latency_class])
        return int(latencies[self.latency_class])


REGISTRY: dict[str, Instruction] = {}
"""Every instruction by name, in the order of definition (filled by `isa.instructions`)."""


def instruction(
    *units: Unit,
    latency: str | tuple[str, str] = "",
    effect: Effect | None = None,
    in_place: bool = False,
    cross_lane: bool = False,
) -> Callable[[Callable[..., Any]], Instruction]:
    """Register the decorated semantics as an instruction.

    `latency` names a class of the machine's table (a pair: vector and scalar address registers);
    `in_place` says that the last source must be the destination on 32-bit cores; `cross_lane`
    says that lanes see each other, so packets cannot be computed side by side.
    """

    def register(semantics: Callable[..., Any]) -> Instruction:
        sources, results = _signature(semantics)
        classes = latency if isinstance(latency, tuple) else (latency, latency)
        entry = Instruction(
            name=semantics.__name__,
            units=units,
            latency_class=classes[0],
            scalar_latency_class=classes[1],
            sources=sources,
            results=results,
            effect=effect or _memory_effect(sources, results),
            in_place=in_place,
            cross_lane=cross_lane,
            meaning=inspect.cleandoc(semantics.__doc__ or ""),
            semantics=semantics,
        )
        _check_entry(entry)
        REGISTRY[entry.name] = entry
        return entry

    return register


def _signature(
    semantics: Callable[..., Any],
) -> tuple[tuple[tuple[str, type[Kind]], ...], tuple[type[Kind], ...]]:
    hints = get_type_hints(semantics, vars(sys.modules[semantics.__module__]))
    names = list(inspect.signature(semantics).parameters)[1:]
    sources = tuple((name, hints[name]) for name in names)
    returned = hints["return"]
    return sources, () if returned is type(None) else (returned,)


def _memory_effect(sources: tuple[tuple[str, type[Kind]], ...], results: tuple[Any, ...]) -> Effect:
    if not any(issubclass(kind, AddressKind) for _, kind in sources):
        return Effect.NONE
    return Effect.LOAD if results else Effect.STORE


def _check_entry(entry: Instruction) -> None:
    problems = [
        (not entry.units, "no unit"),
        (not entry.meaning, "no meaning line"),
        (bool(entry.results) and not entry.latency_class, "a result but no latency class"),
        (entry.name in REGISTRY, "defined twice"),
    ]
    for wrong, problem in problems:
        if wrong:
            raise ValueError(f"instruction {entry.name}: {problem}")
