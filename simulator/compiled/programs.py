"""Machine code of the programs that ran last, so that a program is compiled once, or twice.

A run that does little spends its time on compiling. So a program's first runs get quick code; once
they have done much together, it is compiled again, to code that is worth its making.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from attrs import define, field

from isa.machine import Machine
from isa.program import Program
from simulator.compiled.core import Compiled

KEPT = 32
"""Programs whose code is kept."""

QUICK_CYCLES = 8_000_000
"""Cycles of one core up to which quick code, which takes about twice as long to run, saves time."""


@define
class _Codes:
    """The codes of a program by whether they are quick, and what its runs have done."""

    made: dict[bool, Compiled] = field(factory=dict)
    cycles: float = 0


_kept: OrderedDict[tuple[int, Machine], _Codes] = OrderedDict()
_lock = Lock()


def compiled_program(program: Program, machine: Machine, cycles: float) -> Compiled:
    """Return the machine code of a program for a run that takes at least so many cycles of a core.

    0 if nobody knows: it may be long.
    """
    key = (id(program), machine)  # kept code keeps its program, so that no other gets its id
    with _lock:
        codes = _kept.setdefault(key, _Codes())
        codes.cycles += cycles
        quick = 0 < codes.cycles < QUICK_CYCLES
        if quick not in codes.made:
            codes.made[quick] = Compiled(program, machine, quick=quick)
        _kept.move_to_end(key)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
        return codes.made[quick]
