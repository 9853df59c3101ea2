"""Both engines on one program: the first thing in which they differ, or nothing.

Errors must have the same text; cycles, counters, stalls, transfers, registers and memories must be
equal to the last bit, except that any NaN equals any NaN where floats live. Called by `campaign`
for each program and by `shrinking` for each smaller one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from isa.instruction import Unit
from isa.operands import Register
from simulator.fuzzing.case import Case
from simulator.fuzzing.running import Outcome, is_native, run_compiled, run_reference
from simulator.result import ChipResult

UNKNOWABLE = "a timing-only run cannot know"
"""How errors begin of timing-only runs that would need tensor data."""


@frozen
class Difference:
    """Something that must be equal and is not."""

    what: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.what}\n  {self.one}\n  {self.other}"


@frozen
class Verdict:
    """What comparing one program showed."""

    difference: Difference | None = None
    complaint: str = ""
    """Why a checked run refuses a program that was meant to be legal."""
    error: str = ""
    """The error that both engines ended in."""
    native: bool = False
    """Whether machine code was compared."""
    timing: bool = False
    """Whether a timing-only run was compared."""
    executed: tuple[int, ...] = ()
    """How often each packet issued, all cores together."""


def compare(case: Case) -> Verdict:
    """Run a program in every way and return the first difference, if any."""
    reference = run_reference(case, check=case.checked and not case.fault)
    if reference.error and not case.fault:
        return Verdict(complaint=reference.error)
    difference, native = None, is_native(case)
    if native:
        compiled = run_compiled(case)
        difference = _engine_difference(case, reference, compiled)
    timing = False
    if difference is None and not case.fault:
        timing, difference = _compare_timing(case, reference)
    return Verdict(
        difference, "", reference.error, native, timing, _executed(reference.result)
    )  # fmt: skip


def compare_engines(case: Case) -> Verdict:
    """Compare full runs of both engines only, without looking for races: for shrinking."""
    reference = run_reference(case)
    if reference.error and not case.fault:
        return Verdict(complaint=reference.error)
    if not is_native(case):
        return Verdict()
    return Verdict(_engine_difference(case, reference, run_compiled(case)), native=True)


def _engine_difference(case: Case, reference: Outcome, compiled: Outcome) -> Difference | None:
    """Return what differs; of a mistake that does no harm only that it does none.

    It may have mixed floats with integers, or made a race, and then nothing else is defined.
    """
    names = ("reference", "compiled")
    if case.fault and not reference.error:
        return _error_difference(reference, compiled, names)
    return first_difference(case, reference, compiled, names)


def _error_difference(one: Outcome, other: Outcome, names: tuple[str, str]) -> Difference | None:
    if one.error == other.error:
        return None
    return _differ("error", one.error or "(none)", other.error or "(none)", names)


def _executed(result: ChipResult | None) -> tuple[int, ...]:
    if result is None:
        return ()
    return tuple(map(sum, zip(*(core.executed for core in result.cores), strict=True)))


def _compare_timing(case: Case, full: Outcome) -> tuple[bool, Difference | None]:
    """Compare runs without numbers with the full one; tell whether there were any."""
    names = ("full run", "timing-only run, reference")
    timed = run_reference(case, timing_only=True)
    if UNKNOWABLE in timed.error:
        return False, None
    difference = _timing_difference(case, full, timed, names)
    if difference is None and is_native(case, timing_only=True):
        compiled = run_compiled(case, timing_only=True)
        names = ("timing-only run, reference", "timing-only run, compiled")
        difference = first_difference(case, timed, compiled, names)
    return True, difference


def _timing_difference(
    case: Case, full: Outcome, timed: Outcome, names: tuple[str, str]
) -> Difference | None:
    if full.result is None or timed.result is None:
        return _error_difference(full, timed, names)
    return _result_difference(full.result, timed.result, names, lanes=not _lane_predicates(case))


def _lane_predicates(case: Case) -> bool:
    """Tell whether VMAC lanes depend on data, which a run without numbers does not know."""
    return any(
        o.predicate is not None and o.predicate.is_lane_predicate
        for packet in case.program.packets
        for o in packet.operations
        if o.slot.startswith(Unit.VMAC.name)
    )


# What two runs must have in common ---------------------------------------------------------------


def first_difference(
    case: Case, one: Outcome, other: Outcome, names: tuple[str, str]
) -> Difference | None:
    """Return the first difference of two runs of a program that must be the same."""
    if one.result is None or other.result is None:
        return _error_difference(one, other, names)
    return (
        _result_difference(one.result, other.result, names)
        or _register_difference(case, one, other, names)
        or _memory_difference(case, one, other, names)
    )


def _differ(what: str, one: Any, other: Any, names: tuple[str, str]) -> Difference:
    return Difference(what, f"{names[0]}: {one}", f"{names[1]}: {other}")


def _result_difference(
    one: ChipResult, other: ChipResult, names: tuple[str, str], lanes: bool = True
) -> Difference | None:
    seen: list[tuple[str, Any, Any]] = []
    for number, (mine, theirs) in enumerate(zip(one.cores, other.cores, strict=True)):
        packets = enumerate(zip(mine.executed, theirs.executed, strict=True))
        seen += [(f"times core {number} issued packet {at}", a, b) for at, (a, b) in packets]
        places = [*mine.stalls, *(place for place in theirs.stalls if place not in mine.stalls)]
        for place in places:
            what = f"stalls of core {number} at packet {place.packet} by {place.cause}"
            what += f" {place.transfer}" if place.transfer >= 0 else ""
            seen.append((what, mine.stalls.get(place, 0), theirs.stalls.get(place, 0)))
        seen.append((f"cycle in which core {number} halts", mine.halted, theirs.halted))
        if lanes:
            seen.append((f"VMAC lanes of core {number}", mine.vmac_lanes, theirs.vmac_lanes))
    seen.append(("number of transfers", len(one.transfers), len(other.transfers)))
    for first, second in zip(one.transfers, other.transfers, strict=False):
        seen.append((f"transfer {first.id}", first, second))
    seen += [("cycles", one.cycles, other.cycles), ("DDR traffic", one.ddr_bytes, other.ddr_bytes)]
    return next((_differ(what, a, b, names) for what, a, b in seen if a != b), None)


def _register_difference(
    case: Case, one: Outcome, other: Outcome, names: tuple[str, str]
) -> Difference | None:
    for (core, file), mine in one.registers.items():
        theirs = other.registers[core, file]
        unequal = mine != theirs
        for place in np.argwhere(unequal):
            register = Register(file, int(place[0]))
            a, b = int(mine[tuple(place)]), int(theirs[tuple(place)])
            if register in case.float_registers and _is_nan(a) and _is_nan(b):
                continue
            lane = f" lane {place[1]}" if len(place) > 1 else ""
            return _differ(f"{register}{lane} of core {core}", _bits(a), _bits(b), names)
    return None


def _memory_difference(
    case: Case, one: Outcome, other: Outcome, names: tuple[str, str]
) -> Difference | None:
    for (core, space), mine in one.memories.items():
        theirs = other.memories[core, space]
        for index in np.flatnonzero(mine != theirs):
            a, b = int(mine[index]), int(theirs[index])
            address = _base(case, space) + 4 * int(index)
            if _is_nan(a) and _is_nan(b) and _holds_floats(case, space, address):
                continue
            where = f"{space} of core {core}" if space != "DDR" else space
            return _differ(f"{where} at {address:#x}", _bits(a), _bits(b), names)
    return None


def _base(case: Case, space: str) -> int:
    machine = case.machine
    return {"AM": machine.am.base, "SM": machine.sm.base, "DDR": machine.ddr.base}[space]


def _holds_floats(case: Case, space: str, address: int) -> bool:
    return any(r.space == space and r.address <= address < r.end for r in case.float_regions)


def _is_nan(bits: int) -> bool:
    return bits & 0x7FFFFFFF > 0x7F800000


def _bits(value: int) -> str:
    return f"{value:#x} ({value})"
