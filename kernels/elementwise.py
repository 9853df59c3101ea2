"""ReLU forward: every element for itself, so the words of all samples are one long vector.

The words are split over the cores in whole vectors and stream through AM in double-buffered
pieces, which the ReLU overwrites in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isa import Builder, Count, Tensor, Work, kernel
from isa.descriptor import Plane, TransferRequest
from isa.operands import VLR, File, Register
from isa.program import Buffer
from kernels import reference
from kernels.streams import Stream

Array = np.ndarray[Any, Any]

LOAD_CHANNEL, STORE_CHANNEL = 0, 2


def _reference(p: Any, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"z": reference.relu_forward(inputs["x"])}


@kernel(
    inputs=lambda p: {"x": Tensor((p.batch, p.features))},
    outputs=lambda p: {"z": Tensor((p.batch, p.features))},
    work=lambda p: Work(flops=p.batch * p.features),
    reference=_reference,
)
def relu_forward(k: Builder, batch: Count = 64, features: Count = 256) -> None:
    """ReLU: z = 0 where x < 0, else x (NaN stays NaN)."""
    _Elementwise(k, batch * features, k.input("x"), k.output("z")).emit()
