"""The recipes of max pooling, forward and backward: algorithms 3 and 4, samples in the lanes.

Forward, the first maximum of a window wins and NaN wins over everything, as in PyTorch. An index is
h * width + w on the host and the number of a matrix row, index * channels + c, on the chip.
Backward, the gradient of an output goes to the pixel of its index. The device programs are
`kernels.pooling.forward`, `kernels.pooling.backward_rows` and `kernels.pooling.backward_indexed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from isa import Builder, Count, Pair, Tensor, Work, kernel
from kernels import reference
from kernels.judging.pooling import verify_maxima, verify_pooling_gradient
from kernels.pooling.backward_indexed import emit_indexed
from kernels.pooling.backward_layer import PoolingBackward
from kernels.pooling.backward_rows import emit_rows
from kernels.pooling.backward_tiles import Extent
from kernels.pooling.forward import Pooling
from kernels.samples.columns import BatchSplit

Array = np.ndarray[Any, Any]


ROW_NUMBERS = 2**31
"""An index is the number of a matrix row in a signed word."""


def output_shape(p: Any) -> tuple[int, int, int, int]:
    """Return the shape of z, dz and index."""
    rows = reference.output_extent(p.height, p.size[0], p.stride[0], 0)
    columns = reference.output_extent(p.width, p.size[1], p.stride[1], 0)
    return (p.batch, p.channels, rows, columns)


def _check(p: Any) -> str | None:
    if p.size[0] > p.height or p.size[1] > p.width:
        size = f"{p.size[0]}x{p.size[1]}"
        return f"window {size} is larger than the image {p.height}x{p.width}; use a smaller size"
    rows = p.height * p.width * p.channels
    if rows > ROW_NUMBERS:
        return (
            f"{p.channels} channels of {p.height}x{p.width} are {rows:,} matrix rows; an index has "
            f"32 bits for {ROW_NUMBERS:,}; use fewer channels or a smaller image"
        )
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
    verify=verify_maxima,
    check=_check,
)
def maxpool2d_forward(
    k: Builder,
    batch: Count = 64,
    channels: Count = 64,
    height: Count = 14,
    width: Count = 14,
    size: Pair = (2, 2),
    stride: Pair = (2, 2),
) -> None:
    """Max pooling: z and the index h * W + w of each maximum; floor mode, no padding."""
    split = BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
    shape = output_shape(k.p)

    def read_index(words: Array, index: Array) -> None:
        split.read_images(words, index)
        index //= channels

    images = k.input("x", fill=split.place_images)
    values = k.output("z", restore=split.read_images)
    indices = k.output("index", restore=read_index)
    Pooling.make(k, k.p, split, shape, images, values, indices).emit()


def _corners(p: Any) -> tuple[Array, Array]:
    """Return the first row (nH, 1) and the first column (nW,) of every window."""
    _, _, rows, columns = output_shape(p)
    return np.arange(rows)[:, None] * p.stride[0], np.arange(columns) * p.stride[1]


def _check_index(p: Any, inputs: Mapping[str, Array]) -> str | None:
    """Say which index names no pixel of its window, the first one in the tensor's order.

    Sample by sample, as what it takes is several times what it looks at.
    """
    top, left = _corners(p)
    for n, index in enumerate(inputs["index"]):
        row, column = np.divmod(index, p.width)
        below = (row >= top) & (row < top + p.size[0])
        right = below & (column >= left) & (column < left + p.size[1])
        if not right.all():
            c, i, j = (int(part) for part in np.argwhere(~right)[0])
            corner = int(top[i, 0]), int(left[j])
            return _wrong_index(p, (n, c, i, j), int(index[c, i, j]), corner)
    return None


def _wrong_index(
    p: Any, place: tuple[int, int, int, int], value: int, corner: tuple[int, int]
) -> str:
    """Say what is wrong with the index at a place, whose window begins at a corner."""
    (first, start), (n, c, i, j) = corner, place
    last, end = first + p.size[0] - 1, start + p.size[1] - 1
    pixels = p.height * p.width
    where = f"row {value // p.width}, column {value % p.width}"
    if not 0 <= value < pixels:
        where = f"no pixel of the plane, which has 0 to {pixels - 1}"
    return (
        f"index[{n}, {c}, {i}, {j}] is {value}, {where}; its window has the rows {first} to {last} "
        f"and the columns {start} to {end}; give the index that maxpool2d_forward returned for "
        "this shape, size and stride"
    )


def _check_timing_only(p: Any) -> str | None:
    if p.variant != "indexed":
        return None
    return (
        'variant "indexed" follows the data of its inputs, so there is no timing-only run; use '
        'variant "rows" or run with numbers'
    )


def _random_gradients(p: Any, generator: np.random.Generator) -> Mapping[str, Array]:
    """Return gradients uniform in [-1, 1), and for each a random pixel of its window."""
    shape, (top, left) = output_shape(p), _corners(p)
    rows, columns = (top + generator.integers(0, p.size[0], shape),
                     left + generator.integers(0, p.size[1], shape))  # fmt: skip
    gradients = generator.uniform(-1, 1, shape).astype(np.float32)
    return {"dz": gradients, "index": rows * p.width + columns}


def _input_shape(p: Any) -> tuple[int, int, int, int]:
    return (p.batch, p.channels, p.height, p.width)


def _backward_reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    dx = reference.maxpool2d_backward(inputs["dz"], inputs["index"], _input_shape(p))
    return {"dx": dx}


@kernel(
    inputs=lambda p: {
        "dz": Tensor(output_shape(p)),
        "index": Tensor(output_shape(p), "int64"),
    },
    outputs=lambda p: {"dx": Tensor(_input_shape(p))},
    work=_work,
    reference=_backward_reference,
    verify=verify_pooling_gradient,
    random_inputs=_random_gradients,
    check=_check,
    check_inputs=_check_index,
    check_timing_only=_check_timing_only,
)
def maxpool2d_backward(
    k: Builder,
    batch: Count = 64,
    channels: Count = 64,
    height: Count = 14,
    width: Count = 14,
    size: Pair = (2, 2),
    stride: Pair = (2, 2),
    variant: Literal["rows", "indexed"] = "rows",
) -> None:
    """Max pooling backward: dx, every dz at the pixel of its index, 0 elsewhere.

    "rows" compares the indices of whole rows of samples with each pixel of their window. "indexed"
    adds element by element where the index points, as the paper does: slow, for comparison.
    """
    split = BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
    shape = output_shape(k.p)

    def place_index(index: Array, words: Array) -> None:
        split.place_images(index, words)
        for block, part in split.parts(words):
            rows = part.reshape(-1, channels, block.samples)
            rows *= channels
            rows += np.arange(channels, dtype=np.uint32)[:, None]

    gradients = k.input("dz", fill=split.place_images)
    indices = k.input("index", fill=place_index)
    images = k.output("dx", restore=split.read_images)
    rows, columns = (
        Extent(extent, window, min(step, extent), outputs)
        for extent, window, step, outputs in zip(
            (height, width), size, stride, shape[2:], strict=True
        )
    )
    emit = emit_indexed if variant == "indexed" else emit_rows
    emit(PoolingBackward(k, split, channels, rows, columns, gradients, indices, images))
