"""Convolution backward, the gradient of the input: algorithm 2, one product per input position.

Samples are in the lanes. Pixel (h, w) multiplies the kernel's rows and columns that reached it with
the gradients of the outputs they went to, which are neighbours: with a stride these are every
stride-th kernel row and column, from the last to the first. Neither zeros between gradients nor
padding is ever made or multiplied; a pixel that no window reached gets 0.

The weights are scalars, broadcast one by one, so nothing has to be transposed for them on the chip:
the host stores them by input channels as it stores the forward's by output channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Padding, Pair, Tensor, kernel
from kernels import reference
from kernels.conv import check_window, convolution_work, output_shape
from kernels.judging.gradients import verify_data_gradient
from kernels.product.blocking import Blocking, Shape
from kernels.product.companions import Mask
from kernels.product.finish import PLAIN, Recipe
from kernels.product.matrix_product import Matrices, Product
from kernels.product.placement import ColumnImages, ColumnOutputs
from kernels.product.weights import PackedWeights
from kernels.product.window import Extent, GradientExtent
from kernels.samples.columns import BatchSplit
from kernels.samples.packing import pack_weights

Array = np.ndarray[Any, Any]


def _input_shape(p: Any) -> tuple[int, int, int, int]:
    return (p.batch, p.channels, p.height, p.width)


def _shape(p: Any) -> Shape:
    """Return the product: input channels by what reaches a pixel of the gradients."""
    extents = (
        GradientExtent(Extent(*dimension))
        for dimension in zip((p.height, p.width), p.size, p.stride, p.pad, strict=True)
    )
    return Shape(p.channels, p.filters, *extents)


def _inputs(p: Any) -> Mapping[str, Tensor]:
    tensors = {
        "dz": Tensor(output_shape(p)),
        "weight": Tensor((p.filters, p.channels, *p.size)),
    }
    return tensors | ({"x": Tensor(_input_shape(p))} if p.relu else {})


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    dx = reference.conv2d_backward_data(
        inputs["dz"], inputs["weight"], _input_shape(p), p.stride, p.pad, inputs.get("x")
    )
    return {"dx": dx}


@kernel(
    inputs=_inputs,
    outputs=lambda p: {"dx": Tensor(_input_shape(p))},
    work=convolution_work,
    reference=_reference,
    verify=verify_data_gradient,
    check=check_window,
)
def conv2d_backward_data(
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
) -> None:
    """Gradient of a convolution's input from dz, optionally 0 where that input x is <= 0 (ReLU)."""
    shape, split = _shape(k.p), BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
    blocking = Blocking.choose(shape, split, k.machine, companions=int(relu))
    gradients = k.input("dz", fill=split.place_images)
    weights = k.input(
        "weight",
        4 * shape.weight_rows * blocking.padded_outputs,
        fill=lambda w, words: pack_weights(w.transpose(1, 0, 2, 3), words, shape, blocking),
    )
    outputs = k.output("dx", restore=split.read_images)
    matrices = Matrices(
        ColumnImages(gradients, shape.window_row),
        PackedWeights.of(weights, shape, blocking),
        ColumnOutputs(outputs, shape.positions, channels),
    )
    finish: Recipe = PLAIN
    if relu:
        x = k.input("x", fill=split.place_images)
        finish = Mask(ColumnOutputs(x, shape.positions, channels), channels)
    Product(shape, split, blocking, matrices, finish).emit(k)
