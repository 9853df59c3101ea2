"""Recipes of the kernels that work word by word: ReLU both ways, the update of weights.

Shapes play no part on the chip: the words of all samples are one long vector, see
`streaming.word_stream`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Rate, Tensor, Work, kernel, when_set
from isa.operands import Register
from kernels import reference
from kernels.judging.gradients import verify_update
from kernels.streaming.word_stream import Combine, Elementwise

Array = np.ndarray[Any, Any]


def _relu_forward(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"z": reference.relu_forward(inputs["x"])}


@kernel(
    inputs=lambda p: {"x": Tensor((p.batch, p.features))},
    outputs=lambda p: {"z": Tensor((p.batch, p.features))},
    work=lambda p: Work(flops=p.batch * p.features),
    reference=_relu_forward,
)
def relu_forward(k: Builder, batch: Count = 64, features: Count = 12544) -> None:
    """ReLU: z = 0 where x < 0, else x (NaN stays NaN)."""
    zero = k.vmovi(0)

    def clip(k: Builder, values: list[Register]) -> None:
        k.vfmaxs32(zero, values[0], values[0])

    Elementwise(k, batch * features, [k.input("x")], k.output("z"), clip).emit()


def _relu_backward(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"dx": reference.relu_backward(inputs["x"], inputs["dz"])}


@kernel(
    inputs=lambda p: {name: Tensor((p.batch, p.features)) for name in ("x", "dz")},
    outputs=lambda p: {"dx": Tensor((p.batch, p.features))},
    work=lambda p: Work(flops=p.batch * p.features),
    reference=_relu_backward,
)
def relu_backward(k: Builder, batch: Count = 64, features: Count = 12544) -> None:
    """ReLU backward: dx = 0 where x <= 0, else dz (also where x is NaN)."""
    x, dz, dx = k.input("x"), k.input("dz"), k.output("dx")
    Elementwise(k, batch * features, [dz, x], dx, masking(k)).emit()


def masking(k: Builder) -> Combine:
    """Return the backward pass of ReLU on two sources, gradient and then the input x.

    Takes a register of the scope for its zeros.
    """
    zero = k.vmovi(0)

    def mask(k: Builder, values: list[Register]) -> None:
        gradient, x = values
        clipped = k.lane_predicate("clipped")
        k.vfcmpges32(zero, x, clipped)
        k.vmov(zero, gradient, when=when_set(clipped))

    return mask


def _sgd_update(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"weight": reference.sgd_update(inputs["weight"], inputs["dweight"], p.lr)}


@kernel(
    inputs=lambda p: {name: Tensor((p.size,)) for name in ("weight", "dweight")},
    outputs=lambda p: {"weight": Tensor((p.size,))},
    work=lambda p: Work(flops=p.size),
    reference=_sgd_update,
    verify=verify_update,
)
def sgd_update(k: Builder, size: Count = 1048576, lr: Rate = 0.01) -> None:
    """Stochastic gradient descent: weight - lr * dweight, in place, with one rounding."""
    weight, dweight = k.input("weight"), k.input("dweight")
    Elementwise(k, size, [weight, dweight], k.output("weight"), descent(k, lr)).emit()


def descent(k: Builder, lr: float) -> Combine:
    """Return the update of two sources, weight and then its gradient, by the rate `lr`.

    Takes a register of the scope for the rate, in which float32 rounds it.
    """
    rate = k.vmovi(-lr)

    def descend(k: Builder, values: list[Register]) -> None:
        weight, gradient = values
        k.vfmulas32(rate, gradient, weight, weight)

    return descend
