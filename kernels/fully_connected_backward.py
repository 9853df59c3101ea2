"""Fully connected layer backward: algorithm 6, three matrix products and the update.

dx is a product of the weights by columns of samples, like the forward one; the rows of the weight
matrix (out_features, in_features) are the rows its inner product wants, so nothing is transposed.
dweight sums over the samples. With samples in the lanes every weight would need a sum across lanes
of its own, over a short batch; so its lanes hold input features instead, x and dz are turned
once, by DMA transposes, and weights come and go as PyTorch has them. dbias is the product of dz by
a column of ones. An update takes the sums as they leave the registers, after dx is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Rate, Tensor, Work, kernel
from isa.program import Buffer
from kernels import reference
from kernels.fully_connected import ONE
from kernels.judging.gradients import verify_layer_gradients
from kernels.product.blocking import Blocking, Shape
from kernels.product.companions import Update
from kernels.product.finish import PLAIN, Recipe
from kernels.product.matrix_product import Matrices, Product
from kernels.product.placement import ColumnImages, ColumnOutputs, RowImages, RowOutputs
from kernels.product.weights import RowWeights
from kernels.samples.columns import BatchSplit
from kernels.samples.transposition import fill, transpose_columns

Array = np.ndarray[Any, Any]


def _inputs(p: Any) -> Mapping[str, Tensor]:
    tensors = {
        "x": Tensor((p.batch, p.in_features)),
        "weight": Tensor((p.out_features, p.in_features)),
        "dz": Tensor((p.batch, p.out_features)),
    }
    return tensors | ({} if p.lr is None else {"bias": Tensor((p.out_features,))})


def _outputs(p: Any) -> Mapping[str, Tensor]:
    weight, bias = Tensor((p.out_features, p.in_features)), Tensor((p.out_features,))
    gradients = {
        "dx": Tensor((p.batch, p.in_features)),
        "dweight": weight,
        "dbias": bias,
    }
    return gradients | ({} if p.lr is None else {"weight": weight, "bias": bias})


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    tensors = inputs["x"], inputs["weight"], inputs["dz"]
    return reference.fc_backward(*tensors, p.lr, inputs.get("bias"))


def _work(p: Any) -> Work:
    products = 2 * p.batch * p.in_features * p.out_features
    return Work(2 * products, products)


@kernel(
    inputs=_inputs,
    outputs=_outputs,
    work=_work,
    reference=_reference,
    verify=verify_layer_gradients,
)
def fc_backward(
    k: Builder,
    batch: Count = 64,
    in_features: Count = 2048,
    out_features: Count = 512,
    lr: Rate | None = None,
) -> None:
    """Gradients of a fully connected layer from dz; with a rate lr, updates weight and bias."""
    layer = _Layer(k)
    with k.phase("turning"):
        layer.turn()
    with k.phase("dx"):
        layer.data_gradient()
    k.barrier()  # now all rows of x and dz are turned, and nobody needs the old weights
    with k.phase("dweight"):
        layer.weight_gradient()
    with k.phase("dbias"):
        layer.bias_gradient()


class _Layer:
    """The matrices of the layer in DDR, and its products."""

    def __init__(self, k: Builder) -> None:
        p, lanes = k.p, k.machine.vpu.lanes
        self.k, self.p = k, p
        self.samples = BatchSplit.make(p.batch, k.cores, lanes)
        self.features = BatchSplit.make(p.in_features, k.cores, lanes)
        self.biases = BatchSplit.make(p.out_features, k.cores, lanes)
        companions = 0 if p.lr is None else 1
        self.to_data = self._product(p.in_features, p.out_features, self.samples, 0)
        self.to_weights = self._product(p.out_features, p.batch, self.features, companions)
        self.to_biases = self._product(1, p.batch, self.biases, companions)
        self.x = k.input("x", fill=self.samples.place_samples)
        self.weight = self._weights(p.out_features * p.in_features)
        self.dz = k.input("dz", fill=self.samples.place_samples)
        self.x_rows = k.ddr_buffer("x by samples", 4 * p.batch * p.in_features)
        self.beyond = -(-self.to_weights[1].block_outputs // lanes) * lanes
        self.dz_rows = k.ddr_buffer("dz by samples", 4 * (p.batch * p.out_features + self.beyond))
        count = p.batch * self.to_biases[1].block_outputs
        self.ones = k.ddr_buffer("ones", 4 * (-(-count // lanes) * lanes))

    def _product(
        self, outputs: int, channels: int, split: BatchSplit, companions: int
    ) -> tuple[Shape, Blocking]:
        shape = Shape(outputs, channels, ONE, ONE)
        return shape, Blocking.choose(shape, split, self.k.machine, companions)

    def _weights(self, words: int) -> Buffer:
        """Return the weight matrix, which the last block of inputs reads past its end."""
        beyond = self.to_data[1].block_outputs
        return self.k.input("weight", 4 * (words + beyond), fill=_place_rows)

    def turn(self) -> None:
        """Turn x and dz, and make the column of ones."""
        k, p = self.k, self.p
        transpose_columns(k, self.x, p.in_features, self.samples, self.x_rows)
        transpose_columns(k, self.dz, p.out_features, self.samples, self.dz_rows)
        fill(k, self.dz_rows, 4 * p.batch * p.out_features, self.beyond, 0.0)
        fill(k, self.ones, 0, self.ones.bytes // 4, 1.0)

    def data_gradient(self) -> None:
        """Emit dx = weight^T dz."""
        shape, blocking = self.to_data
        dx = self.k.output("dx", restore=self.samples.read_samples)
        matrices = Matrices(
            ColumnImages(self.dz, shape.window_row),
            RowWeights(self.weight, blocking.block_outputs, shape.outputs),
            ColumnOutputs(dx, 1, shape.outputs),
        )
        Product(shape, self.samples, blocking, matrices).emit(self.k)

    def weight_gradient(self) -> None:
        """Emit dweight = dz^T x, and the update."""
        shape, blocking = self.to_weights
        columns = self.p.in_features
        matrices = Matrices(
            RowImages(self.x_rows, columns),
            RowWeights(self.dz_rows, blocking.block_outputs, shape.outputs),
            RowOutputs(self.k.output("dweight"), columns),
        )
        finish: Recipe = PLAIN
        if self.p.lr is not None:
            weight = self.k.output("weight")
            finish = Update(RowOutputs(weight, columns), shape.outputs, self.p.lr)
        Product(shape, self.features, blocking, matrices, finish).emit(self.k)

    def bias_gradient(self) -> None:
        """Emit dbias = dz^T 1, and the update."""
        shape, blocking = self.to_biases
        matrices = Matrices(
            RowImages(self.dz_rows, self.p.out_features),
            RowWeights(self.ones, blocking.block_outputs, blocking.block_outputs),
            RowOutputs(self.k.output("dbias"), self.p.out_features),
        )
        finish: Recipe = PLAIN
        if self.p.lr is not None:
            bias = RowOutputs(self.k.input("bias"), self.p.out_features)
            self.k.output("bias")
            finish = Update(bias, 1, self.p.lr)
        Product(shape, self.biases, blocking, matrices, finish).emit(self.k)


def _place_rows(weight: Array, words: Array) -> None:
    """Fill words with a matrix as it lies on the host, and with zeros beyond it."""
    words[: weight.size] = weight.reshape(-1).view(np.uint32)
    words[weight.size :] = 0
