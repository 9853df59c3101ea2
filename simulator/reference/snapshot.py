"""Core to record and back: stop between two packets, go on elsewhere, bit by bit the same.

`export_state` writes everything a core is into one record of `state.state_dtype`, results in
flight included; `import_state` makes a core of the same program continue from it. Memories are
flat arrays already and are handed over as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isa.operands import File, Register
from simulator.reference.core import NO_BRANCH, Core
from simulator.reference.decode import AnyWrite, ExchangeWrite, Write
from simulator.reference.unknown import UNKNOWN
from simulator.state import FILE_CODES, FILES, Status, state_dtype

SCALAR_FILES = {"scalars": File.SCALAR, "addresses": File.ADDRESS, "offsets": File.OFFSET}

POSITIONS = ("packet", "issue", "stalled", "idle", "branch_at", "branch_to", "blocked_packet",
             "channel")  # fmt: skip
"""Fields that are plain attributes of the core."""

FLYING_ORDER = ("due", "file", "index", "packet", "mask")

NO_PORT = -1
"""A result that does not count for the write ports."""


def export_state(core: Core) -> Any:
    """Return the core's state as one numpy record (`state_dtype` of its machine).

    A value that a timing-only run does not know is written as 0. What no engine reads again is left
    out, so that both engines' states are equal where the cores are.
    """
    state = np.zeros((), state_dtype(core.machine))
    for name, file in SCALAR_FILES.items():
        state[name] = [_number(value) for value in core.scalar_file(file)]
    state["vectors"], state["exchange"] = core.vectors, core.exchange
    state["lane_mask"], state["status"] = core.lane_mask, core.status
    for name in POSITIONS:
        state[name] = getattr(core, name)
    if core.branch_at == core.issue and not core.idle:  # it has landed
        state["packet"], state["branch_at"] = core.branch_to, NO_BRANCH
    if state["branch_at"] == NO_BRANCH:
        state["branch_to"] = 0
    flying = sorted(_in_flight(core), key=lambda entry: [entry[name] for name in FLYING_ORDER])
    state["flying_count"] = len(flying)
    for place, entry in enumerate(flying):
        for name, value in entry.items():
            state["flying"][place][name] = value
    return state


def import_state(core: Core, state: Any) -> None:
    """Make a core of the same program and machine continue from an exported state."""
    for name, file in SCALAR_FILES.items():
        core.scalar_file(file)[:] = [int(value) for value in state[name]]
    core.vectors[...] = state["vectors"]
    core.exchange[...] = state["exchange"]
    core.set_lane_mask(int(state["lane_mask"]))
    core.status = Status(int(state["status"]))
    for name in POSITIONS:
        setattr(core, name, int(state[name]))
    for due in core.ring:
        due.clear()
    for entry in state["flying"][: int(state["flying_count"])]:
        _put_in_flight(core, entry)


def _in_flight(core: Core) -> list[dict[str, Any]]:
    """Return every result on its way, one entry a register."""
    entries = []
    for distance in range(len(core.ring)):
        due = core.issue + distance
        for write, value, lanes in core.ring[due % len(core.ring)]:
            ports = (
                write.ports
                if len(write.ports) == len(write.targets)
                else write.ports[:1] * len(write.targets)
            )
            for place, (target, part) in enumerate(_parts(core, write, value, lanes)):
                entry = _entry(core, target, part, lanes)
                port = core.machine.issue.slots.index(ports[place]) if ports else NO_PORT
                entries.append({**entry, "due": due, "packet": write.packet, "port": port})
    return entries


def _parts(core: Core, write: Write, value: Any, lanes: Any) -> list[tuple[Register, Any]]:
    """Return the registers that a value lands in, each with its part of it."""
    if core.timing_only and write.has_lanes:
        entries = core.lanes if isinstance(write, ExchangeWrite) else len(write.targets)
        return [(target, UNKNOWN) for target in write.targets[:entries]]
    parts = write.parts(value)
    if lanes is None or not isinstance(write, ExchangeWrite):
        return parts
    return [parts[lane] for lane in np.flatnonzero(lanes)]


def _entry(core: Core, target: Register, value: Any, lanes: Any) -> dict[str, Any]:
    entry = {"file": FILE_CODES[target.file], "index": target.index}
    if not isinstance(value, np.ndarray):
        return {**entry, "mask": (1 << core.lanes) - 1, "scalar": _number(value)}
    enabled = np.ones(core.lanes, bool) if lanes is None else lanes
    mask = sum(1 << int(lane) for lane in np.flatnonzero(enabled))
    return {**entry, "mask": mask, "lanes": np.where(enabled, value, 0)}


def _put_in_flight(core: Core, entry: Any) -> None:
    target = Register(FILES[int(entry["file"])], int(entry["index"]))
    vector = target.file is File.VECTOR
    value: Any = entry["lanes"].copy() if vector else int(entry["scalar"])
    full = int(entry["mask"]) == (1 << core.lanes) - 1
    bits = np.array([int(entry["mask"]) >> lane & 1 for lane in range(core.lanes)], bool)
    port = int(entry["port"])
    ports = () if port == NO_PORT else (core.machine.issue.slots[port],)
    write = AnyWrite((target,), int(entry["packet"]), ports)
    slot = core.ring[int(entry["due"]) % len(core.ring)]
    slot.append((write, value, None if full or not vector else bits))


def _number(value: Any) -> int:
    return 0 if value is UNKNOWN else int(value)
