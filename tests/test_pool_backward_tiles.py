"""How max pooling backward cuts dx to fit AM: every way to cut happens and stays right.

That a cut happens is seen in the tiling and in the transfers of a run; that other machines change
nothing, in dx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.descriptor import LARGEST_STRIDE
from isa.errors import KernelError
from isa.language.kernel import Kernel
from kernel_run import Array, assert_near, machine, run
from kernels import maxpool2d_backward, reference
from kernels.pooling.backward_tiles import ROWS_NEEDED, Extent, Layer, Tiling
from simulator.simulate import Run
from small_sizes import small
from test_inner_product import COMPILED_MACHINES, MACHINES

# Choosing --------------------------------------------------------------------------------------


def extent(pixels: int, size: int, stride: int) -> Extent:
    return Extent(pixels, size, stride, (pixels - size) // stride + 1)


# 64 samples are rows of 256 bytes, so AM holds 3,072 of them. A tile is enough at 32,768 bytes,
# 128 rows. Needed are the rows of two tiles, and of two pieces with dz and index each.
CHOICES = {
    # A cell of 2 x 2 pixels and 64 channels is 256 rows already.
    "VGG16's first": (
        extent(224, 2, 2), extent(224, 2, 2), 64, Tiling(2, 2, 64, 1, 1, whole_channels=True),
    ),
    # 512 channels: 2 * 2,048 + 4 * 512 rows are too many. A row of cells: 2 * 56 + 4 * 14 = 168 for
    # each channel, 18 channels fit; 9 are enough, and at least 16 are taken.
    "VGG16's fourth": (
        extent(28, 2, 2), extent(28, 2, 2), 512, Tiling(2, 28, 16, 1, 14, whole_channels=False),
    ),
    # Two cells of 2 x 2 x 16 = 64 rows are enough.
    "some cells of a row": (
        extent(8, 2, 2), extent(8, 2, 2), 16, Tiling(2, 4, 16, 1, 2, whole_channels=True),
    ),
    # 2 channels: a row of cells is 32 rows, so all four together are enough.
    "the whole image": (
        extent(8, 2, 2), extent(8, 2, 2), 2, Tiling(8, 8, 2, 4, 4, whole_channels=True),
    ),
    # Overlapping: whole rows first. Two rows of windows reach into two rows of pixels:
    # 2 * 2 * 56 + 4 * 2 * 27 = 440 rows for each channel, 6 of them fit.
    "ResNet's": (
        extent(56, 3, 2), extent(56, 3, 2), 64, Tiling(2, 56, 6, 2, 27, whole_channels=False),
    ),
    # A cell has 10,000 pixels. 3,072 / 6 rows hold 16 channels of 32 pixels and windows, twice.
    "a large stride": (
        extent(200, 100, 100), extent(200, 3, 100), 16,
        Tiling(1, 32, 16, 1, 2, whole_channels=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_worked_by_hand(name: str) -> None:
    rows, columns, channels, tiling = CHOICES[name]
    assert Layer(rows, columns, channels, row_bytes=256, room=3072).tiling() == tiling


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    extents = []
    for _ in range(2):
        pixels = draw(st.integers(1, 400))
        extents.append(extent(pixels, draw(st.integers(1, pixels)), draw(st.integers(1, pixels))))
    row_bytes = 4 * draw(st.integers(1, 64))
    room = draw(st.integers(ROWS_NEEDED, 200_000))
    channels = draw(st.one_of(st.integers(1, 600), st.integers(1, 2**29)))
    return Layer(*extents, channels, row_bytes, room)


@settings(max_examples=300)
@given(layer=layers())
def test_any_layer_is_cut_to_fit(layer: Layer) -> None:
    tiling = layer.tiling()
    assert tiling.needed <= layer.room
    assert 1 <= tiling.rows <= layer.rows.input
    assert 1 <= tiling.columns <= layer.columns.input
    assert 1 <= tiling.channels <= layer.channels
    pixel = layer.channels * layer.row_bytes
    if tiling.whole_channels:
        assert tiling.channels == layer.channels
        assert pixel * layer.columns.input <= LARGEST_STRIDE
    else:
        assert tiling.columns == layer.columns.input or tiling.rows == 1
        assert tiling.window_columns == layer.columns.outputs or tiling.window_rows == 1
        assert pixel <= LARGEST_STRIDE or tiling.columns == tiling.window_columns == 1


@settings(max_examples=200)
@given(layer=layers())
def test_a_piece_has_all_windows_of_a_tile_or_a_part_of_one_row(layer: Layer) -> None:
    tiling = layer.tiling()
    if tiling.rows == tiling.window_rows == 1 and not tiling.whole_channels:
        return
    for axis, tile, piece in (
        (layer.rows, tiling.rows, tiling.window_rows),
        (layer.columns, tiling.columns, tiling.window_columns),
    ):
        for first in range(0, axis.input, tile):
            end = min(first + tile, axis.input)
            reaching = sum(
                i * axis.stride < end and i * axis.stride + axis.size > first
                for i in range(axis.outputs)
            )
            assert reaching <= piece


# Running ---------------------------------------------------------------------------------------

# Kernel parameters, cores, bytes of AM; tiles of dx and pieces with windows, for all cores.
SMALL = {
    # 17 samples: 48 rows of 68 bytes. A cell of 2 x 2 x 3 pixels takes 2 * 12 + 4 * 3 = 36 rows.
    # The third cell of a row is a single column that no window reaches.
    "a cell at a time": (
        {"batch": 17, "channels": 3, "height": 4, "width": 5}, 1, 3_328, 6, 4,
    ),
    # 64 samples: 25 rows of 256 bytes. 4 pixels and 4 windows of 1 x 1 take 24 rows: 4, 4 and 2.
    "some cells of a row": (
        {"batch": 64, "channels": 1, "height": 1, "width": 10, "size": 1, "stride": 1},
        1, 6_400, 3, 3,
    ),
    # 32 rows: a cell takes 36, but a row of cells of 1 channel 2 * 8 + 4 * 2 = 24.
    "whole rows of a channel": (
        {"batch": 64, "channels": 3, "height": 4, "width": 4}, 1, 8_192, 6, 6,
    ),
    # 9 samples: 83 rows of 36 bytes. 3 rows of 5 windows reach into a row of 9 pixels: for each
    # channel 2 * 9 + 4 * 15 = 78 rows.
    "whole rows that overlap": (
        {"batch": 9, "channels": 2, "height": 7, "width": 9, "size": 5, "stride": 1},
        1, 3_072, 14, 14,
    ),
    # 20 rows are 3 channels of 1 pixel and 1 window, twice.
    "a pixel at a time": (
        {"batch": 64, "channels": 3, "height": 4, "width": 4}, 1, 5_120, 16, 16,
    ),
    # 36 rows of 64 bytes are 2 channels of 3 pixels: 14 parts for each of 3 rows. Windows have the
    # rows 0 and 1 and the columns 0 and 1, 30 and 31: they reach into 2 * 2 parts.
    "parts of a row, most without windows": (
        {"batch": 16, "channels": 2, "height": 3, "width": 40, "size": 2, "stride": (3, 30)},
        1, 2_304, 42, 4,
    ),
    # 10 rows are 1 channel of 1 pixel and 1 window. A pixel of row 0, 1, 2 meets 1, 2, 1 rows of
    # windows, likewise columns: 16 pieces for each of 2 channels.
    "a channel of a pixel, windows one by one": (
        {"batch": 64, "channels": 2, "height": 3, "width": 3, "size": 2, "stride": 1},
        1, 2_560, 18, 32,
    ),
    # 66 or 65 samples a core, 33 or 32 a block.
    "blocks of samples on every core": (
        {"batch": 261, "channels": 3, "height": 5, "width": 4, "size": (3, 2), "stride": 2},
        4, 6_144, None, None,
    ),
}  # fmt: skip


def gradients_of(kernel: Kernel, seed: int) -> dict[str, Array]:
    """Return random inputs with gradients whose sums are exact."""
    inputs = kernel.make_inputs(seed)
    inputs["dz"] = np.round(inputs["dz"] * 64).astype(np.float32)
    return inputs


def assert_gradient(kernel: Kernel, result: Run, inputs: dict[str, Array]) -> None:
    dx = result.outputs["dx"]
    truth = reference.maxpool2d_backward(inputs["dz"], inputs["index"], dx.shape)
    assert_near(dx, truth)


def count(result: Run, **names: str) -> int:
    """Count the transfers whose source or destination is a buffer."""
    transfers = result.result.transfers
    return sum(all(getattr(t, end).startswith(n) for end, n in names.items()) for t in transfers)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_am_is_enough(name: str, engine: str) -> None:
    params, cores, am, tiles, pieces = SMALL[name]
    kernel = maxpool2d_backward(**params)
    inputs = gradients_of(kernel, 1)
    result = run(kernel, inputs, engine, cores, machine(f"am.bytes={am}"))
    assert_gradient(kernel, result, inputs)
    if tiles is not None:
        assert count(result, destination="dx") == tiles
        assert count(result, source="dz") == count(result, source="index") == pieces


@pytest.mark.on_engines("machine_name", MACHINES, compiled=COMPILED_MACHINES)
def test_gradients_are_right_on_another_machine(machine_name: str, engine: str) -> None:
    record = machine(*MACHINES[machine_name])
    shapes: list[dict[str, Any]] = [
        {"batch": 37, "channels": 3, "height": 4, "width": 5},
        {"batch": 20, "channels": 2, "height": 3, "width": 4, "size": (2, 3), "stride": 1},
        {"batch": 2, "channels": 2, "height": 3, "width": 2, "size": 2, "stride": 1,
         "variant": "indexed"},
    ]  # fmt: skip
    for params in shapes:
        kernel = maxpool2d_backward(**params)
        inputs = gradients_of(kernel, 2)
        assert_gradient(kernel, run(kernel, inputs, engine, 1, record), inputs)


def test_element_by_element_takes_runs_of_samples_that_fit_sm(engine: str) -> None:
    # 1,152 bytes less 1,024 and a table of 28 hold 3 samples of 4 * (2 * 2 + 2 * 2) bytes: dz and
    # index of 2 channels, 2 pixels of them. So 7 samples are 3 runs, over 4 positions.
    kernel = maxpool2d_backward(
        batch=7, channels=2, height=3, width=3, size=2, stride=1, variant="indexed"
    )
    inputs = gradients_of(kernel, 3)
    result = run(kernel, inputs, engine, 1, machine("sm.bytes=1152"))
    assert_gradient(kernel, result, inputs)
    assert count(result, source="dz") == 3 * 4


@pytest.mark.parametrize(
    ("variant", "override", "message"),
    [
        # a pixel, a gradient and an index, twice, for 64 samples: 6 * 256.
        ("rows", "am.bytes=1528", "AM has 1,528 bytes, 1,536 are needed: a pixel, a gradient and"),
        # 1,024 and a table of 28 bytes; dz and index of 16 channels, 2 pixels of 16: 4 * 64.
        ("indexed", "sm.bytes=1304", "SM has 1,304 bytes, 1,308 are needed: dz and index of 16"),
        ("indexed", "am.bytes=56", "AM has 56 bytes, 64 are needed: a vector of zeros"),
        ("rows", "dma.channels=5", "'tile of dx' uses DMA channels 4 and 5"),
    ],
)
def test_a_machine_too_small_is_named(variant: str, override: str, message: str) -> None:
    with pytest.raises(KernelError, match=message) as caught:
        small("maxpool2d_backward", variant=variant).program(machine(override))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "override"), [("rows", "am.bytes=1536"), ("indexed", "sm.bytes=1312")]
)
def test_what_the_error_asks_for_is_enough(variant: str, override: str, engine: str) -> None:
    # Bytes of SM are a multiple of 8.
    kernel = small("maxpool2d_backward", height=2, width=2, variant=variant)
    inputs = gradients_of(kernel, 4)
    assert_gradient(kernel, run(kernel, inputs, engine, 1, machine(override)), inputs)
