"""What a network's rows add up to: bounds, means and sums, worked out by hand."""

from __future__ import annotations

import attrs
import pytest

from isa.machine import Machine
from kernels import conv2d_forward, fc_forward, maxpool2d_forward
from simulator.network.bounds import Bounds, bounds
from simulator.network.published import DEVICES, IMAGE_FLOPS
from simulator.network.row import Row
from simulator.network.summary import device_rows, means, network_bound, whole
from simulator.reporting.report import Report
from simulator.simulate import simulate

MACHINE = Machine.load()


def report(kernel: object, cycles: int, **changes: object) -> Report:
    """Return a report of a small run, as if it had taken other cycles."""
    small = simulate(kernel, timing_only=True, cores=2, engine="reference").report
    return attrs.evolve(small, cycles=cycles, seconds=cycles / 1e9, **changes)


@pytest.fixture(scope="module")
def layers() -> list[Row]:
    window = conv2d_forward(batch=2, channels=1, height=2, width=2, filters=1)
    connected = fc_forward(batch=2, in_features=4, out_features=2)
    none, some, more = ({"dma_wait": dma, "barrier": dma % 4} for dma in (0, 4, 5))
    reports = [
        report(window, 1000, efficiency=0.75, stalls=some, host_seconds=2.0),
        report(connected, 3000, efficiency=0.5, stalls=more, host_seconds=1.0),
        report(window, 500, efficiency=1.25, stalls=none, host_seconds=0.5),
    ]
    return [Row.of(f"layer{n}", each, MACHINE) for n, each in enumerate(reports)]


def test_bounds_of_a_convolution():
    """vgg16/conv5_3 for one image: 512 x 512 channels, 14 x 14 pixels, 40 of 42 taps a side."""
    kernel = conv2d_forward(batch=1, channels=512, height=14, width=14, filters=512)
    given = attrs.evolve(
        report(maxpool2d_forward(batch=1, channels=1), 1),
        multiply_adds=kernel.work.multiply_adds,
        compulsory_bytes=kernel.compulsory_bytes,
    )
    found = bounds(given, MACHINE)
    assert found.compute == 512 * 512 * 40 * 40 / (2 * 64)
    tensors = 512 * 14 * 14 + 512 * 512 * 9 + 512 + 512 * 14 * 14
    assert found.ddr == pytest.approx(4 * tensors / (42.7 * 0.8))
    assert found.latency == 2 * 60 + 8 + 6 + 4
    assert (found.held_by, found.cycles) == ("compute", found.compute)


@pytest.mark.parametrize(
    ("cycles", "holds"), [((3, 2, 1), "compute"), ((1, 3, 2), "DDR"), ((2, 1, 3), "latency")]
)
def test_the_largest_bound_holds(cycles, holds):
    assert (Bounds(*cycles).held_by, Bounds(*cycles).cycles) == (holds, 3)


def test_the_whole_is_sums_and_shares_of_sums(layers):
    total = whole("tiny", {"batch": 2}, layers, MACHINE)
    assert (total.kernel, total.cycles, total.seconds) == ("tiny", 4500, 4500 / 1e9)
    window, connected = 2 * 2 * 4 * 9, 2 * 2 * 4 * 2  # 2 flops, batch, outputs, window or inputs
    assert total.flops_nominal == 2 * window + connected
    assert total.gflops == pytest.approx((2 * window + connected) / 4500)
    assert total.efficiency == pytest.approx(total.gflops / 256)
    needed = 2 * (2 * 16) + 2 * 4 * 2  # of each window 4 of 9 pixels are real
    assert total.mac_utilization == pytest.approx(needed / (4500 * 2 * 64))
    moved = 2 * 4 * (8 + 9 + 1 + 8) + 4 * (8 + 8 + 2 + 4)
    assert total.ddr_efficiency == pytest.approx(moved / (4500 * 42.7))
    assert total.stalls == {"dma_wait": 9, "barrier": 1}
    assert total.host_seconds == 3.5
    assert [loop.loop for loop in total.loops] == [
        "layer0/conv2d_forward", "layer1/fc_forward", "layer2/conv2d_forward"
    ]  # fmt: skip
    assert set(total.to_dict()) == set(layers[0].report.to_dict())


@pytest.mark.parametrize(
    ("verdicts", "verified"),
    [([True, True, True], True), ([True, False, True], False), ([True, None, True], None)],
)
def test_one_wrong_row_makes_the_whole_wrong(layers, verdicts, verified):
    rows = [
        attrs.evolve(row, report=attrs.evolve(row.report, verified=verdict, max_error=0.5))
        for row, verdict in zip(layers, verdicts, strict=True)
    ]
    assert whole("tiny", {}, rows, MACHINE).verified is verified


def test_a_mean_is_over_layers_and_beside_the_published_one_if_they_are_all(layers):
    found = {mean.mean.what: mean for mean in means("inference", layers)}
    convolution = found["convolution"]
    assert (convolution.layers, convolution.ours) == (2, 1.0)
    assert convolution.difference is None  # 2 of 13 layers
    all_layers = attrs.evolve(convolution, layers=13)
    assert all_layers.difference == pytest.approx(1.0 - 0.8662)
    assert "pooling, data access" not in found


def test_the_network_is_held_by_what_holds_most_of_its_time(layers):
    rows = [
        attrs.evolve(row, bounds=Bounds(*each))
        for row, each in zip(layers, [(700, 1, 1), (1, 1000, 1), (350, 1, 1)], strict=True)
    ]
    found = network_bound(rows)
    assert found["bound"] == "compute"
    assert found["bound_cycles"] == {"compute": 1050, "DDR": 1000, "latency": 0}
    assert found["bound_share"] == pytest.approx(2050 / 4500)


def test_devices_of_the_paper_keep_what_is_printed(layers):
    printed = {device.name: (device.printed_seconds, device.seconds) for device in DEVICES}
    assert printed["FT-M7004 in the paper"] == (0.0900, 0.0688)
    assert printed["GTX 1080"] == (0.0688, 0.0090)
    assert pytest.approx(0.0688, abs=2e-4) == IMAGE_FLOPS / (512e9 * 0.8776)
    ours = device_rows(2, whole("tiny", {}, layers, MACHINE))[-1]
    assert ours["seconds"] == pytest.approx(2250e-9)
    assert ours["images_per_second"] == pytest.approx(1 / 2250e-9)


def test_a_report_comes_back_from_json(layers):
    for row in layers:
        again = Report.from_dict(row.report.to_dict())
        assert again.to_dict() == row.report.to_dict()
