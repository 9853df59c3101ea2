"""Machine code of the programs that ran last, so that a program is compiled once."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from isa.machine import Machine
from isa.program import Program
from simulator.compiled.core import Compiled

KEPT = 32
"""Programs whose code is kept."""

_kept: OrderedDict[tuple[int, Machine], Compiled] = OrderedDict()
_lock = Lock()


def compiled_program(program: Program, machine: Machine) -> Compiled:
    """Return the machine code of a program, compiled at its first run."""
    key = (id(program), machine)  # kept code keeps its program, so that no other gets its id
    with _lock:
        if key not in _kept:
            _kept[key] = Compiled(program, machine)
        _kept.move_to_end(key)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
        return _kept[key]
