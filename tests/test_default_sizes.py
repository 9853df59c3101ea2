"""What `ftm7004 run KERNEL` shows: the default sizes are right, and show a kernel at work."""

from __future__ import annotations

import pytest

from kernels import LIBRARY
from simulator.reporting.verification import judge
from simulator.simulate import simulate

# What a kernel has to reach: products a share of all multiply-adds, the others of the DDR's peak,
# of which 80 % is there to be had, and half where a value and an index are compared for each pixel.
PRODUCTS = {
    "conv2d_forward": 0.9,
    "conv2d_backward_data": 0.9,
    "conv2d_backward_weight": 0.9,
    "fc_forward": 0.9,
    "fc_backward": 0.7,
}
STREAMS = {
    "maxpool2d_forward": 0.5,
    "maxpool2d_backward": 0.7,
    "relu_forward": 0.7,
    "relu_backward": 0.7,
    "sgd_update": 0.7,
}


@pytest.mark.parametrize("name", LIBRARY)
def test_defaults(name: str) -> None:
    kernel = LIBRARY[name]()
    inputs = kernel.make_inputs(0)
    run = simulate(kernel, inputs)
    verdict = judge(kernel, inputs, run.outputs)
    assert verdict is not None
    assert verdict.passed, verdict.compared
    if name in PRODUCTS:
        assert run.report.mac_utilization > PRODUCTS[name]
    else:
        assert run.report.ddr_efficiency > STREAMS[name]
