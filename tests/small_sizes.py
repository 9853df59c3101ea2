"""Sizes of the library's kernels for tests, where those that a test does not name do not matter.

The kernels' own defaults show them at work and are too large for the reference engine.
"""

from __future__ import annotations

from typing import Any

from isa.language.kernel import Kernel
from kernels import LIBRARY

CONVOLUTION = {"batch": 64, "channels": 16, "height": 6, "width": 6, "filters": 16}
POOLING = {"batch": 64, "channels": 16, "height": 8, "width": 8}
CONNECTED = {"batch": 64, "in_features": 256, "out_features": 64}
FEATURES = {"batch": 64, "features": 256}

SMALL: dict[str, dict[str, int]] = {
    "conv2d_forward": CONVOLUTION,
    "conv2d_backward_data": CONVOLUTION,
    "conv2d_backward_weight": CONVOLUTION,
    "fc_forward": CONNECTED,
    "fc_backward": CONNECTED,
    "maxpool2d_forward": POOLING,
    "maxpool2d_backward": POOLING,
    "relu_forward": FEATURES,
    "relu_backward": FEATURES,
    "sgd_update": {"size": 16384},
}


def small(name: str, **given: Any) -> Kernel:
    """Return a kernel with the parameters that are given, and small sizes else."""
    return LIBRARY[name](**{**SMALL[name], **given})
