"""A network like VGG16 with 4 x 4 images: two convolutions, pooling, two fully connected layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from isa.machine import Machine
from kernels import LIBRARY
from kernels.layers import Layer
from simulator.network.plan import Plan, Step, make_plan
from simulator.network.row import Row
from simulator.network.run import Chip

Array = np.ndarray[Any, Any]

PLANE = {"height": 4, "width": 4}
WINDOW = {"size": 3, "stride": 1, "pad": 1}
LAYERS = [
    Layer("tiny/conv1", "conv2d_forward", {"channels": 3, **PLANE, "filters": 3, **WINDOW}),
    Layer("tiny/conv2", "conv2d_forward", {"channels": 3, **PLANE, "filters": 2, **WINDOW}),
    Layer("tiny/pool", "maxpool2d_forward", {"channels": 2, **PLANE, "size": 2, "stride": 2}),
    Layer("tiny/fc1", "fc_forward", {"in_features": 8, "out_features": 4}),
    Layer("tiny/fc2", "fc_forward", {"in_features": 4, "out_features": 5}),
]
NAMES = ("conv1", "conv2", "pool", "fc1", "fc2")
CHIP = Chip(Machine.load(), cores=1, engine="reference")


def plan(phase: str, batch: int = 3, chosen: tuple[str, ...] = NAMES) -> Plan:
    return make_plan(phase, batch, LAYERS, chosen, LIBRARY)


@attrs.define
class Follower:
    """Notes which steps ran; one of them may begin with an interrupt."""

    interrupted: int | None = None
    begun: list[int] = attrs.field(factory=list)

    def begins(self, number: int, step: Step) -> Callable[[int, int], None] | None:
        if number == self.interrupted:
            raise KeyboardInterrupt
        self.begun.append(number)
        return None

    def ends(self, number: int, row: Row) -> None:
        assert number == self.begun[-1]
