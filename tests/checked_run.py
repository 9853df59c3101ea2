"""Checked runs for tests: broken kernels with the words their message must have, and repairs.

A `rule` is a kernel with a parameter `broken`; it reads x and writes z, 128 words each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isa import Builder, SimulationError, Tensor, kernel
from isa.descriptor import Plane, TransferRequest
from isa.language.kernel import KernelDefinition
from isa.operands import File, Register
from isa.program import Buffer
from simulator.simulate import Run, simulate

Body = Callable[..., None]
WORDS = 128
VECTOR = 64  # bytes of a vector of 16 lanes
ONES = Register(File.VECTOR, 60)
X = np.arange(WORDS, dtype=np.float32)


def rule(rules: list[Any], *words: str, cores: int = 1) -> Callable[[Body], Body]:
    """Add a kernel to the parameters of a test."""

    def register(body: Body) -> Body:
        rules.append(pytest.param(body, words, cores, id=body.__name__))
        return body

    return register


def make(body: Body) -> KernelDefinition:
    tensor = Tensor((WORDS,))
    return kernel(inputs=lambda p: {"x": tensor}, outputs=lambda p: {"z": tensor})(body)


def run(body: Body, cores: int = 1, **parameters: Any) -> Run:
    return simulate(make(body)(**parameters), {"x": X}, cores=cores, check=True)


def refusal(body: Body, cores: int = 1, **parameters: Any) -> str:
    """Return the message of a run that must fail; one line that begins with its place."""
    with pytest.raises(SimulationError) as caught:
        run(body, cores, **parameters)
    message = str(caught.value)
    assert re.match(r"\S+\.py:\d+: core \d, cycle \d+[,:] .+$", message)
    return message


def row(buffer: Buffer, words: int = 16, first: int = 0) -> Plane:
    return Plane(buffer.address + 4 * first, 1, words, 4 * words)


def start(k: Builder, source: Plane, target: Plane, channel: int, cores: int = 0) -> None:
    request = TransferRequest(source, target, cores=cores)
    k.start(k.descriptor("move", request), channel)


def filled(k: Builder, words: int = 16, name: str = "tile") -> tuple[Buffer, Register]:
    """Take an AM buffer, store ones to its first words, return it with a pointer to it."""
    tile = k.array_buffer(name, 2 * VECTOR)
    pointer = k.point(k.vector_address(name), tile)
    k.vmovi(1.0, ONES)
    for position in range(0, words, 16):
        k.vstw(ONES, pointer + position)
    k.flush()
    k.idle(4)
    return tile, pointer
