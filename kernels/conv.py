"""Convolution forward: algorithm 1, one matrix product per output position, nothing padded.

Samples are in the lanes. Output position (i, j) multiplies the kernel's rows and columns that meet
real pixels with the image rows below them, which are contiguous; see `product.matrix_product`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from isa import Builder, Count, Padding, Pair, Tensor, Work, kernel
from kernels import reference
from kernels.judging.forward import verify_convolution
from kernels.product.blocking import Blocking, Shape
from kernels.product.finish import PLAIN, Clip
from kernels.product.matrix_product import Matrices, Product
from kernels.product.placement import ColumnImages, ColumnOutputs
from kernels.product.weights import PackedWeights
from kernels.product.window import Extent
from kernels.samples.columns import BatchSplit
from kernels.samples.packing import pack_bias, pack_weights
from kernels.samples.unpack import unpack_images

Array = np.ndarray[Any, Any]


def window_shape(p: Any) -> Shape:
    """Return the product that a convolution's parameters describe."""
    return Shape(
        p.filters, p.channels,
        Extent(p.height, p.size[0], p.stride[0], p.pad[0]),
        Extent(p.width, p.size[1], p.stride[1], p.pad[1]),
    )  # fmt: skip


def output_shape(p: Any) -> tuple[int, int, int, int]:
    """Return the shape of z."""
    shape = window_shape(p)
    return (p.batch, p.filters, shape.rows.outputs, shape.columns.outputs)


def check_window(p: Any) -> str | None:
    """Return what is wrong with window and image, or None."""
    for name, extent, size, pad in (
        ("height", p.height, p.size[0], p.pad[0]),
        ("width", p.width, p.size[1], p.pad[1]),
    ):
        if size > extent + 2 * pad:
            return (
                f"kernel {name} {size} is larger than the padded image's {extent + 2 * pad} "
                f"({name} {extent}, pad {pad}); use a smaller size or more padding"
            )
    return None


def convolve(k: Builder, p: Any, relu: bool, layout: str) -> None:
    """Place the tensors of a convolution and emit its product."""
    shape, split = window_shape(p), BatchSplit.make(p.batch, k.cores, k.machine.vpu.lanes)
    blocking = Blocking.choose(shape, split, k.machine)
    image_bytes = 4 * p.batch * p.channels * p.height * p.width
    weight_bytes = 4 * shape.weight_rows * blocking.padded_outputs
    if layout == "nchw":
        images = k.ddr_buffer("columns", image_bytes)
    else:
        images = k.input("x", image_bytes, fill=split.place_images)
    weights = k.input(
        "weight", weight_bytes, fill=lambda w, words: pack_weights(w, words, shape, blocking)
    )
    outputs = k.output("z", restore=split.read_images)
    matrices = Matrices(
        ColumnImages(images, shape.window_row),
        PackedWeights.of(weights, shape, blocking),
        ColumnOutputs(outputs, shape.positions, shape.outputs),
        k.input("bias", 4 * blocking.padded_biases, fill=pack_bias),
    )
    if layout == "nchw":
        unpack_images(k, k.input("x"), images, p, split)
    Product(shape, split, blocking, matrices, Clip() if relu else PLAIN).emit(k)


def convolution_work(p: Any) -> Work:
    """Return the work of a convolution: the same forward and for either gradient."""
    nominal = 2 * p.channels * p.size[0] * p.size[1] * int(np.prod(output_shape(p)))
    needed = reference.conv2d_needed_macs(
        p.batch, p.channels, p.height, p.width, p.filters, p.size, p.stride, p.pad
    )
    return Work(nominal, needed)


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    z = reference.conv2d_forward(
        inputs["x"], inputs["weight"], inputs["bias"], p.stride, p.pad, p.relu
    )
    return {"z": z}


@kernel(
    inputs=lambda p: {
        "x": Tensor((p.batch, p.channels, p.height, p.width)),
        "weight": Tensor((p.filters, p.channels, *p.size)),
        "bias": Tensor((p.filters,)),
    },
    outputs=lambda p: {"z": Tensor(output_shape(p))},
    work=convolution_work,
    reference=_reference,
    verify=verify_convolution,
    check=check_window,
)
def conv2d_forward(
    k: Builder,
    batch: Count = 64,
    channels: Count = 32,
    height: Count = 14,
    width: Count = 14,
    filters: Count = 64,
    size: Pair = (3, 3),
    stride: Pair = (1, 1),
    pad: Padding = (1, 1),
    relu: bool = False,
    layout: Literal["columns", "nchw"] = "columns",
) -> None:
    """Convolution: z = x * weight + bias, optionally with ReLU; NCHW images, OIHW weights."""
    convolve(k, k.p, relu, layout)
