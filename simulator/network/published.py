"""The figures of the FT-M7004 paper that a run of VGG16 is set beside, as printed and as meant.

The paper prints 0.0688 s for one image on the GTX 1080 and 0.0900 s on FT-M7004. The two are
exchanged, and 0.0900 stands for 0.0090: 1 / 0.0090 s are the GTX 1080's own 111 images a second,
and 30.94 GFlop / (512 GFlop/s x 87.76 %) = 0.0689 s is FT-M7004's time. Both values are kept here.
16 images a second would be 96.7 % of the peak, so the figures agree only to their rounding.
"""

from __future__ import annotations

from attrs import frozen

from simulator.network.plan import INFERENCE, TRAINING
from simulator.network.row import ONE_CORE

EFFICIENCY, UTILISATION, DDR_EFFICIENCY = "efficiency", "mac_utilization", "ddr_efficiency"

IMAGE_FLOPS = 30.94e9
"""Nominal flops of one image, forward."""


@frozen
class Mean:
    """The mean of a share over the layers that run a kernel."""

    what: str
    kernel: str
    layers: int
    """Layers of the network that run it."""
    share: str
    published: float | None = None
    calibration: bool = False
    """The published figure was used to choose the DDR rate, so it is no evidence."""


@frozen
class Device:
    """One image forward on another chip."""

    name: str
    peak_tflops: float
    printed_seconds: float
    seconds: float
    """As meant."""
    images_per_second: float


def _poolings(kernel: str, compute: float, access: float) -> tuple[Mean, ...]:
    return (
        Mean("pooling, of one core's peak", kernel, 5, ONE_CORE, compute, calibration=True),
        Mean("pooling, of all cores' peak", kernel, 5, EFFICIENCY),
        Mean("pooling, data access", kernel, 5, DDR_EFFICIENCY, access, calibration=True),
    )


MEANS = {
    INFERENCE: (
        Mean("convolution", "conv2d_forward", 13, EFFICIENCY, 0.8662),
        Mean("convolution, MAC utilisation", "conv2d_forward", 13, UTILISATION),
        *_poolings("maxpool2d_forward", 0.0400, 0.8000),
        Mean("fully connected", "fc_forward", 3, EFFICIENCY, 0.9317),
    ),
    TRAINING: (
        Mean("convolution, dx", "conv2d_backward_data", 12, EFFICIENCY, 0.6963),
        Mean("convolution, dx, MAC utilisation", "conv2d_backward_data", 12, UTILISATION),
        Mean("convolution, dweight", "conv2d_backward_weight", 13, EFFICIENCY),
        Mean("convolution, dweight, MAC utilisation", "conv2d_backward_weight", 13, UTILISATION),
        *_poolings("maxpool2d_backward", 0.0239, 0.4759),
        Mean("fully connected, backward and update", "fc_backward", 3, EFFICIENCY, 0.8198),
    ),
}

NETWORK = {INFERENCE: 0.8776, TRAINING: 0.5974}
"""Efficiency of the whole network."""

GPU_TRAINING = ("GTX 1080", 0.6552)
"""The one other device whose training the paper has."""

DEVICES = (
    Device("FT-M7004 in the paper", 0.512, 0.0900, 0.0688, 16),
    Device("GTX 1080", 9.0, 0.0688, 0.0090, 111),
    Device("Pascal Titan X", 11.0, 0.0060, 0.0060, 163),
    Device("Maxwell Titan X", 6.7, 0.0108, 0.0108, 92),
)
