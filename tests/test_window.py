"""Where windows lie: every position of one dimension on the device, against plain enumeration."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from isa import Builder, Count, Padding, Tensor, kernel
from isa.descriptor import Plane, TransferRequest
from kernel_run import run
from kernels.product.window import Dimension, Extent, GradientExtent

FIELDS = 4


def dimension_of(p: object) -> Dimension:
    """Return the dimension that the parameters of `positions` describe."""
    forward = Extent(p.extent, p.size, p.stride, p.pad[0])
    return GradientExtent(forward) if p.gradient else forward


@kernel(
    inputs=lambda p: {},
    outputs=lambda p: {"spans": Tensor((dimension_of(p).outputs, FIELDS), "int32")},
)
def positions(
    k: Builder,
    extent: Count = 6,
    size: Count = 3,
    stride: Count = 2,
    pad: Padding = (1, 1),
    gradient: bool = False,
) -> None:
    """Write tap, first pixel, validity and count of the window at every position."""
    dimension = dimension_of(k.p)
    words = FIELDS * dimension.outputs
    buffer, spans = k.scalar_buffer("spans in SM", 4 * words), k.output("spans")
    pointer = k.point(k.scalar_address("row"), buffer)
    span = dimension.span(k, "row")
    span.restart()
    with k.loop("positions", dimension.outputs):
        real = span.locate()
        for value in (real.tap, real.first, real.valid, span.count):
            k.sstw(value, pointer.post(1))
        span.advance()
    store = TransferRequest(Plane(buffer.address, 1, words, 0), Plane(spans.address, 1, words, 0))
    k.start(k.descriptor("store", store), 0)
    k.wait(0)


def assert_windows(
    extent: int, size: int, stride: int, pad: int, gradient: bool, engine: str
) -> None:
    definition = positions(extent=extent, size=size, stride=stride, pad=pad, gradient=gradient)
    dimension = dimension_of(definition.p)
    spans = run(definition, {}, engine).outputs["spans"]
    outputs = (extent + 2 * pad - size) // stride + 1
    pixels = outputs if gradient else extent
    assert sorted(dimension.taps) == list(range(size))

    def meets(position: int, tap: int, pixel: int) -> bool:
        """Tell whether, at a position, a kernel row falls on a pixel (an output's gradient)."""
        if gradient:
            return pixel * stride + tap - pad == position
        return position * stride + tap - pad == pixel

    for position, (tap, first, valid, count) in enumerate(spans.tolist()):
        pairs = ((m, pixel) for pixel in range(pixels) for m in range(size))
        met = [(m, pixel) for m, pixel in pairs if meets(position, m, pixel)]
        assert valid == bool(met), position
        assert 1 <= count <= dimension.largest, position
        assert 0 <= tap < size, position
        assert 0 <= first < pixels, position
        if met:
            rows = dimension.taps[tap : tap + count]
            assert list(zip(rows, range(first, first + count), strict=True)) == met, position


def test_taps_of_a_gradient_by_hand() -> None:
    # 5 kernel rows, stride 2: rows 0, 2, 4 meet even pixels (padded), the last one the first
    # output; rows 1 and 3 meet odd ones.
    assert GradientExtent(Extent(9, 5, 2, 0)).taps == [4, 2, 0, 3, 1]
    assert GradientExtent(Extent(9, 3, 1, 1)).taps == [2, 1, 0]
    assert GradientExtent(Extent(9, 2, 3, 0)).taps == [0, 1]
    assert GradientExtent(Extent(9, 1, 1, 0)).taps == [0]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (6, 3, 1, 1),
        (7, 3, 2, 1),
        (7, 5, 2, 3),
        (9, 2, 4, 0),
        (3, 1, 1, 3),
        (5, 7, 3, 4),
        (1, 1, 5, 0),
    ],
)
def test_every_position(shape: tuple[int, int, int, int], gradient: bool, engine: str) -> None:
    assert_windows(*shape, gradient, engine)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extent=st.integers(1, 9),
    size=st.integers(1, 8),
    stride=st.integers(1, 6),
    pad=st.integers(0, 9),
    gradient=st.booleans(),
)
def test_any_window(
    extent: int, size: int, stride: int, pad: int, gradient: bool, engine: str
) -> None:
    assume(size <= extent + 2 * pad)
    assert_windows(extent, size, stride, pad, gradient, engine)
