"""A user's kernel file for tests of the command line: write it with `write_kernels(folder)`.

`double` moves x to AM, doubles it row by row and moves it back; the others do less.
"""

from __future__ import annotations

from pathlib import Path

SOURCE = '''\
import numpy as np

from isa import Count, Pair, Tensor, Work, kernel
from isa.descriptor import Plane, TransferRequest


def tensors(name):
    return lambda p: {name: Tensor((p.rows, 16))}


def twice(p, inputs):
    return {"z": inputs["x"].astype(np.float64) * 2}


def thrice(p, inputs):
    return {"z": inputs["x"].astype(np.float64) * 3}


def body(k, rows):
    x, z, image = k.input("x"), k.output("z"), k.array_buffer("image", rows * 64)

    def plane(buffer):
        return Plane(buffer.address, rows, 16, 64)

    load = k.descriptor("load", TransferRequest(plane(x), plane(image)))
    store = k.descriptor("store", TransferRequest(plane(image), plane(z)))
    k.start(load, 0)
    k.wait(0)
    pointer = k.point(k.vector_address("pointer"), image)
    with k.loop("rows", rows):
        value = k.vldw(pointer + 0)
        k.vstw(k.vfadds32(value, value), pointer.post(16))
    k.start(store, 1)
    k.wait(1)


@kernel(inputs=tensors("x"), outputs=tensors("z"), reference=twice,
        work=lambda p: Work(flops=16 * p.rows))
def double(k, rows: Count = 4):
    """Double every element."""
    body(k, rows)


@kernel(inputs=tensors("x"), outputs=tensors("z"), reference=thrice)
def wrong(k, rows: Count = 4):
    """Double, where the reference triples."""
    body(k, rows)


@kernel(inputs=tensors("x"), outputs=tensors("z"))
def unchecked(k, rows: Count = 4):
    """Double, without a reference."""
    body(k, rows)


@kernel(inputs=lambda p: {}, outputs=lambda p: {})
def endless(k):
    """Never halt."""
    k.sbr(k.label("again"))


@kernel(inputs=lambda p: {}, outputs=lambda p: {})
def idle(k, batch: Count = 1, channels: Count = 1, height: Count = 1, width: Count = 1,
         filters: Count = 1, size: Pair = (1, 1), stride: Pair = (1, 1), pad: Pair = (1, 1)):
    """Halt at once; takes the parameters of a convolution."""


@kernel(inputs=lambda p: {}, outputs=lambda p: {})
def misuse(k):
    """Give an instruction what it cannot take."""
    k.sadd("one", 2)


@kernel(inputs=lambda p: {}, outputs=lambda p: {})
def stumble(k, rows: Count = 4):
    """Fail in Python."""
    return rows + "one"


@kernel(inputs=tensors("x"), outputs=tensors("z"), reference=lambda p, inputs: inputs["y"])
def unsure(k, rows: Count = 4):
    """Have a reference that fails."""
    body(k, rows)


@kernel(inputs=lambda p: {}, outputs=lambda p: {}, check=lambda p: "never fits")
def unfit(k):
    """Refuse its parameters."""
'''


def write_kernels(folder: Path) -> Path:
    """Write the file into a folder and return its path."""
    path = folder / "user.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def line_of(text: str) -> int:
    """Return the number of the first line of the file that holds a text."""
    return next(n for n, line in enumerate(SOURCE.splitlines(), start=1) if text in line)
