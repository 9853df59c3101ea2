"""Fully connected layer forward: algorithm 5, a matrix product with one window.

A layer with K inputs is a convolution of a 1 x 1 image with K channels: rows of the weight matrix
times columns of samples, weights streamed through SM, sums kept in AM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Tensor, Work, kernel
from kernels import reference
from kernels.judging.forward import verify_fully_connected
from kernels.product.blocking import Blocking, Shape
from kernels.product.finish import PLAIN, Clip
from kernels.product.matrix_product import Matrices, Product
from kernels.product.placement import ColumnImages, ColumnOutputs
from kernels.product.weights import PackedWeights
from kernels.product.window import Extent
from kernels.samples.columns import BatchSplit
from kernels.samples.packing import pack_bias, pack_weights

Array = np.ndarray[Any, Any]

ONE = Extent(1, 1, 1, 0)


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"z": reference.fc_forward(inputs["x"], inputs["weight"], inputs["bias"], p.relu)}


def _work(p: Any) -> Work:
    products = p.batch * p.in_features * p.out_features
    return Work(2 * products, products)


@kernel(
    inputs=lambda p: {
        "x": Tensor((p.batch, p.in_features)),
        "weight": Tensor((p.out_features, p.in_features)),
        "bias": Tensor((p.out_features,)),
    },
    outputs=lambda p: {"z": Tensor((p.batch, p.out_features))},
    work=_work,
    reference=_reference,
    verify=verify_fully_connected,
)
def fc_forward(
    k: Builder,
    batch: Count = 64,
    in_features: Count = 2048,
    out_features: Count = 512,
    relu: bool = False,
) -> None:
    """Fully connected layer: z = x * weight^T + bias, optionally with ReLU."""
    shape = Shape(out_features, in_features, ONE, ONE)
    split = BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
    blocking = Blocking.choose(shape, split, k.machine)
    images = k.input("x", fill=split.place_samples)
    weights = k.input(
        "weight",
        4 * shape.weight_rows * blocking.padded_outputs,
        fill=lambda w, words: pack_weights(w[:, :, None, None], words, shape, blocking),
    )
    bias = k.input("bias", 4 * blocking.padded_biases, fill=pack_bias)
    outputs = k.output("z", restore=split.read_samples)
    matrices = Matrices(
        ColumnImages(images, shape.window_row),
        PackedWeights.of(weights, shape, blocking),
        ColumnOutputs(outputs, 1, out_features),
        bias,
    )
    Product(shape, split, blocking, matrices, Clip() if relu else PLAIN).emit(k)
