"""The state of one core as one flat record: registers, results in flight, where it stands.

The reference engine exports and imports it between packets, so that a run can stop at any cycle
and go on elsewhere. Integers are int64, lanes and masks are uint32.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from isa.machine import Machine
from isa.operands import FILE_LENGTH, File


class Status(IntEnum):
    """What a core is doing."""

    RUNNING = 0
    WAITING = 1
    """For the transfer of a channel."""
    AT_BARRIER = 2
    HALTED = 3


FILE_CODES = {file: code for code, file in enumerate(File)}
FILES = tuple(File)


def state_dtype(machine: Machine) -> np.dtype[Any]:
    """Return the record type for a machine: room for everything that can be in flight."""
    lanes = machine.vpu.lanes
    flying = [
        ("due", "i8"), ("file", "i8"), ("index", "i8"), ("packet", "i8"), ("port", "i8"),
        ("mask", "u4"), ("scalar", "i8"), ("lanes", "u4", (lanes,)),
    ]  # fmt: skip
    capacity = 2 * (len(machine.issue.slots) + 1) * max(machine.latency.values())
    return np.dtype([
        ("scalars", "i8", (FILE_LENGTH[File.SCALAR],)),
        ("addresses", "i8", (FILE_LENGTH[File.ADDRESS],)),
        ("offsets", "i8", (FILE_LENGTH[File.OFFSET],)),
        ("vectors", "u4", (FILE_LENGTH[File.VECTOR], lanes)),
        ("exchange", "u4", (FILE_LENGTH[File.EXCHANGE],)),
        ("lane_mask", "u4"),
        ("packet", "i8"),
        ("issue", "i8"),
        ("stalled", "i8"),
        ("idle", "i8"),
        ("branch_at", "i8"),
        ("branch_to", "i8"),
        ("status", "i8"),
        ("blocked_packet", "i8"),
        ("channel", "i8"),
        ("flying_count", "i8"),
        ("flying", flying, (capacity,)),
    ])  # fmt: skip
