"""Max pooling forward: algorithm 3, all samples of a window row by row of the matrix.

For every output position and run of channels, the window's rows arrive one after the other; the
largest value and the row number where it sat stay in AM until the window is complete. The first
maximum wins; NaN wins over everything, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Pair, Tensor, Work, kernel
from kernels import reference
from kernels.columns import BatchSplit, image_rows, rows_to_images
from kernels.pooling import Pooling

Array = np.ndarray[Any, Any]


def output_shape(p: Any) -> tuple[int, int, int, int]:
    """Return the shape of z and index."""
    rows = reference.output_extent(p.height, p.size[0], p.stride[0], 0)
    columns = reference.output_extent(p.width, p.size[1], p.stride[1], 0)
    return (p.batch, p.channels, rows, columns)


def _check(p: Any) -> str | None:
    if p.size[0] > p.height or p.size[1] > p.width:
        size = f"{p.size[0]}x{p.size[1]}"
        return f"window {size} is larger than the image {p.height}x{p.width}; use a smaller size"
    return None


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    z, index = reference.maxpool2d_forward(inputs["x"], p.size, p.stride)
    return {"z": z, "index": index}


def _work(p: Any) -> Work:
    return Work(flops=(p.size[0] * p.size[1] - 1) * int(np.prod(output_shape(p))))


@kernel(
    inputs=lambda p: {"x": Tensor((p.batch, p.channels, p.height, p.width))},
    outputs=lambda p: {
        "z": Tensor(output_shape(p)),
        "index": Tensor(output_shape(p), "int64"),
    },
    work=_work,
    reference=_reference,
    check=_check,
)
def maxpool2d_forward(
    k: Builder,
    batch: Count = 64,
    channels: Count = 16,
    height: Count = 8,
    width: Count = 8,
    size: Pair = (2, 2),
    stride: Pair = (2, 2),
) -> None:
    """Max pooling: z and the index h * W + w of each maximum; floor mode, no padding."""
    split = BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
    shape = output_shape(k.p)

    def read_index(words: Array) -> Array:
        rows = rows_to_images(split.read(words).view(np.int32), shape)
        return (rows // channels).astype(np.int64)

    images = k.input("x", place=lambda x: split.place(image_rows(x)))
    values = k.output(
        "z", read=lambda words: rows_to_images(split.read(words).view(np.float32), shape)
    )
    indices = k.output("index", read=read_index)
    Pooling.make(k, k.p, split, shape, images, values, indices).emit()
