"""Working sets larger than AM or SM: every way to cut them really happens, and stays right.

That a cut happens is seen in the transfers of the run, which name the buffers they join; that
`Blocking` means it, in its sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.errors import KernelError
from isa.language.kernel import Kernel
from isa.machine import Machine
from kernel_run import assert_near, assert_sums, machine, run
from kernels import conv2d_forward, fc_forward, maxpool2d_forward, reference
from kernels.conv import window_shape
from kernels.fully_connected import ONE
from kernels.product.blocking import RESERVED_SCALAR_BYTES, Blocking, Shape
from kernels.product.inner_product import Tile
from kernels.product.window import Extent
from kernels.samples.columns import BatchSplit
from simulator.simulate import Run
from small_sizes import small

# Choosing --------------------------------------------------------------------------------------


def product_of(kernel: Kernel) -> Shape:
    p = kernel.p
    if kernel.name == "fc_forward":
        return Shape(p.out_features, p.in_features, ONE, ONE)
    return window_shape(p)


def blocking_of(kernel: Kernel, cores: int, record: Machine) -> Blocking:
    split = BatchSplit.make(kernel.p.batch, cores, record.vpu.lanes)
    return Blocking.choose(product_of(kernel), split, record)


def test_a_layer_of_vgg16_worked_by_hand() -> None:
    # conv3_1: 128 channels, 256 filters, 3 x 3; 64 samples are rows of 256 bytes in AM.
    # Sums: a quarter of AM holds 786,432 / 4 / 256 = 768 outputs, so all 256 in 32 tiles of 8.
    # Images: half of AM less 65,536 bytes of sums is 1,280 rows; a window row has 3 * 128 = 384,
    # so a chunk takes all three window rows, 1,152 image rows.
    # Weights: (131,072 - 8,192 - 1,024) / 8 = 15,232 words, 13 outputs of 1,152: one tile a block.
    kernel = conv2d_forward(
        batch=64, channels=128, height=56, width=56, filters=256, size=3, stride=1, pad=1
    )
    blocking = blocking_of(kernel, 1, machine())
    assert blocking == Blocking(Tile(8, 4), window_rows=3, piece=384, tiles=1, blocks=32, group=32)
    assert (blocking.chunk, blocking.block_outputs, blocking.groups) == (1152, 8, 1)


def test_no_weight_block_is_padding_where_a_smaller_one_divides_the_tiles() -> None:
    # conv1_2: 64 filters are 8 tiles. Weights: (131,072 - 8,192 - 256) / 8 = 15,328 words, 26
    # outputs of 576 rows: 3 tiles a block at most, so 3 blocks of 3. A tile takes 8 * 576 + 80
    # cycles, a block 100: 4 * (2 * 4,688 + 100) = 37,904, 3 * (3 * 4,688 + 100) = 42,492.
    kernel = conv2d_forward(batch=64, channels=64, height=224, width=224, filters=64, size=3, pad=1)
    blocking = blocking_of(kernel, 1, machine())
    assert blocking == Blocking(Tile(8, 4), window_rows=3, piece=192, tiles=2, blocks=4, group=4)


def test_a_fully_connected_layer_worked_by_hand() -> None:
    # fc6: 25,088 inputs, 4,096 outputs. Sums: 768 outputs, 96 tiles, 196,608 bytes for one half.
    # Images: 393,216 - 196,608 bytes are 768 rows; 25,088 / 768 is 32.7: 33 pieces of 761 rows.
    # Weights: (131,072 - 8,192 - 3,072) / 8 = 14,976 words, 19 outputs of 761: 2 tiles a block,
    # 256 blocks, at most 48 of them a group: 6 groups of 43, the last of 41 blocks.
    kernel = fc_forward(batch=64, in_features=25088, out_features=4096)
    blocking = blocking_of(kernel, 1, machine())
    assert blocking == Blocking(Tile(8, 4), window_rows=1, piece=761, tiles=2, blocks=256, group=43)
    assert (blocking.groups, blocking.padded_biases) == (6, 6 * 43 * 16)


def buffers(blocking: Blocking, split: BatchSplit) -> tuple[int, int]:
    """Return the bytes of AM and SM that the double buffers take, each aligned to 64."""
    row = 4 * split.largest
    images, sums = 2 * blocking.chunk * row, 2 * blocking.group_outputs * row
    weights, biases = 8 * blocking.chunk * blocking.block_outputs, 4 * blocking.group_outputs
    return -(-images // 64) * 64 + sums, -(-weights // 64) * 64 + biases


@settings(max_examples=300)
@given(
    outputs=st.integers(1, 60_000),
    channels=st.integers(1, 30_000),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    extent=st.integers(11, 300),
    batch=st.integers(1, 2_000),
    cores=st.integers(1, 4),
    am_words=st.integers(1_300, 200_000),
    sm_words=st.integers(2_200, 64_000),
)
def test_any_product_fits_any_memory(
    outputs: int,
    channels: int,
    size: tuple[int, int],
    extent: int,
    batch: int,
    cores: int,
    am_words: int,
    sm_words: int,
) -> None:
    record = machine(f"am.bytes={8 * (am_words // 2)}", f"sm.bytes={8 * (sm_words // 2)}")
    shape = Shape(outputs, channels, *(Extent(extent, s, 1, 0) for s in size))
    split = BatchSplit.make(batch, cores, lanes=16)
    blocking = Blocking.choose(shape, split, record)
    array, scalar = buffers(blocking, split)
    assert array <= record.am.bytes
    assert scalar <= record.sm.bytes - RESERVED_SCALAR_BYTES
    assert 1 <= blocking.window_rows <= size[0]
    assert 1 <= blocking.piece <= shape.run
    assert blocking.window_rows == 1 or blocking.piece == shape.run
    assert blocking.padded_outputs >= outputs
    assert (blocking.blocks - 1) * blocking.block_outputs < outputs, "a block holds padding only"
    assert 1 <= blocking.group <= blocking.blocks


# Running ---------------------------------------------------------------------------------------

# Products on small machines: kernel parameters, cores, AM and SM bytes, what must happen.
# 64 samples are rows of 256 bytes: 16 KiB of AM hold two tiles of sums twice and 16 rows twice.
SMALL = {
    "part of the window's rows": (
        {"channels": 4, "filters": 9, "height": 3, "width": 4, "size": 3, "pad": 1, "batch": 50},
        1, 16_384, 12_288, {"rows cut"},
    ),
    "pieces of a window row": (
        {"channels": 20, "filters": 5, "height": 3, "width": 3, "size": 3, "pad": 1, "batch": 60},
        1, 16_384, 12_288, {"rows cut", "pieces"},
    ),
    "pieces of unequal length at the border": (
        {"channels": 7, "filters": 3, "height": 1, "width": 5, "size": (1, 5), "pad": (0, 3),
         "batch": 36, "relu": True},
        1, 8_192, 12_288, {"pieces"},
    ),
    "weight blocks": (
        {"channels": 5, "filters": 40, "height": 2, "width": 2, "size": 3, "pad": 1, "batch": 20},
        3, 786_432, 12_288, {"blocks"},
    ),
    "weight blocks that need rows of weights cut": (
        {"channels": 20, "filters": 20, "height": 2, "width": 2, "size": 2, "pad": 1, "batch": 5},
        1, 786_432, 8_960, {"rows cut", "pieces", "blocks"},
    ),
    "groups of outputs": (
        {"channels": 3, "filters": 50, "height": 2, "width": 3, "size": 2, "pad": 0, "batch": 40,
         "relu": True},
        1, 16_384, 131_072, {"blocks", "groups"},
    ),
    "groups of several blocks, the last one smaller": (
        {"channels": 6, "filters": 100, "height": 2, "width": 2, "size": 2, "pad": 1, "batch": 33},
        1, 16_384, 9_728, {"rows cut", "blocks", "groups"},
    ),
    "blocks of samples": (
        {"channels": 2, "filters": 9, "height": 3, "width": 3, "size": 2, "pad": 0, "batch": 130},
        1, 786_432, 131_072, {"samples"},
    ),
    "blocks of samples on every core": (
        {"channels": 3, "filters": 33, "height": 2, "width": 2, "size": 3, "pad": 1, "batch": 261},
        4, 16_384, 10_240, {"samples", "blocks", "groups"},
    ),
    "everything at once": (
        {"channels": 24, "filters": 20, "height": 2, "width": 1, "size": 2, "pad": 1, "batch": 66,
         "relu": True},
        1, 8_192, 9_216, {"samples", "rows cut", "pieces", "blocks", "groups"},
    ),
}  # fmt: skip


def cuts(blocking: Blocking, shape: Shape, split: BatchSplit) -> set[str]:
    """Name what a blocking cuts."""
    found = {
        "samples": split.count > 1,
        "rows cut": blocking.window_rows < shape.rows.largest,
        "pieces": blocking.piece < shape.run,
        "blocks": blocking.blocks > 1,
        "groups": blocking.groups > 1,
    }
    return {name for name, happens in found.items() if happens}


def fills(result: Run, buffer: str, core: int = 0) -> int:
    """Count the transfers into a buffer in which a core takes part."""
    transfers = result.result.transfers
    return sum(t.destination.startswith(buffer) and t.mask >> core & 1 for t in transfers)


def chunks_of(shape: Shape, blocking: Blocking) -> int:
    """Count the chunks of all positions: rows and pieces of the real part of each window."""

    def real(extent: Extent) -> list[int]:
        corners = [output * extent.stride - extent.pad for output in range(extent.outputs)]
        ends = [min(corner + extent.size, extent.input) for corner in corners]
        return [max(1, end - max(corner, 0)) for corner, end in zip(corners, ends, strict=True)]

    return sum(
        -(-rows // blocking.window_rows) * -(-columns * shape.channels // blocking.piece)
        for rows in real(shape.rows)
        for columns in real(shape.columns)
    )


def assert_product(kernel: Kernel, result: Run, inputs: dict[str, Any]) -> None:
    p, tensors = kernel.p, (inputs["x"], inputs["weight"], inputs["bias"])
    if kernel.name == "fc_forward":
        truth = reference.fc_forward(*tensors, p.relu)
        magnitude, terms = reference.fc_magnitude(*tensors), p.in_features
    else:
        truth = reference.conv2d_forward(*tensors, p.stride, p.pad, p.relu)
        magnitude = reference.conv2d_magnitude(*tensors, p.stride, p.pad)
        terms = p.channels * p.size[0] * p.size[1]
    assert_sums(result.outputs["z"], truth, magnitude, terms)


@pytest.mark.parametrize("name", SMALL)
def test_a_convolution_is_cut_and_right(name: str, engine: str) -> None:
    params, cores, am, sm, expected = SMALL[name]
    kernel, record = conv2d_forward(**params), machine(f"am.bytes={am}", f"sm.bytes={sm}")
    shape, split = window_shape(kernel.p), BatchSplit.make(kernel.p.batch, cores, lanes=16)
    blocking = blocking_of(kernel, cores, record)
    assert cuts(blocking, shape, split) == expected
    inputs = kernel.make_inputs(1)
    result = run(kernel, inputs, engine, cores, record)
    assert_product(kernel, result, inputs)
    chunks = split.count * chunks_of(shape, blocking)
    assert fills(result, "image chunks") == chunks * blocking.groups
    assert fills(result, "weight blocks") == chunks * blocking.blocks
    assert fills(result, "z") == split.count * shape.positions * blocking.groups


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "cores", "am", "sm", "expected"),
    [
        (64, 100, 9, 1, 16_384, 131_072, {"pieces"}),
        (12, 50, 100, 1, 786_432, 16_384, {"blocks"}),
        (40, 30, 60, 1, 16_384, 131_072, {"pieces", "blocks", "groups"}),
        (70, 80, 70, 1, 8_192, 9_216, {"samples", "pieces", "blocks", "groups"}),
        (150, 40, 50, 3, 12_288, 9_216, {"pieces", "blocks", "groups"}),
    ],
)
def test_a_fully_connected_layer_is_cut_and_right(
    batch: int,
    inputs: int,
    outputs: int,
    cores: int,
    am: int,
    sm: int,
    expected: set[str],
    engine: str,
) -> None:
    kernel = fc_forward(batch=batch, in_features=inputs, out_features=outputs, relu=True)
    record = machine(f"am.bytes={am}", f"sm.bytes={sm}")
    split = BatchSplit.make(batch, cores, lanes=16)
    assert cuts(blocking_of(kernel, cores, record), product_of(kernel), split) == expected
    data = kernel.make_inputs(2)
    assert_product(kernel, run(kernel, data, engine, cores, record), data)


@pytest.mark.parametrize(
    ("channels", "image", "batch", "cores", "am", "turns"),
    [
        # Half of AM holds 32, 18, 12, 31 rows of samples; a turn is a run of pixels or channels.
        (3, (5, 5), 64, 1, 16_384, 3),  # 10 pixels of 3 channels, 10, 5
        (6, (4, 4), 57, 1, 8_208, 6),  # 3 pixels of 6 channels, five times, then 1
        (20, (2, 2), 41, 1, 4_096, 8),  # 12 channels of 1 pixel, four times; then 8 channels
        (5, (4, 2), 261, 4, 8_192, 4),  # 6 pixels of 5 channels, 2; and two blocks of samples
    ],
)
def test_images_are_turned_to_columns_in_pieces(
    channels: int,
    image: tuple[int, int],
    batch: int,
    cores: int,
    am: int,
    turns: int,
    engine: str,
) -> None:
    kernel = conv2d_forward(
        batch=batch, channels=channels, height=image[0], width=image[1], filters=3, size=2,
        stride=2, layout="nchw",
    )  # fmt: skip
    inputs = kernel.make_inputs(3)
    result = run(kernel, inputs, engine, cores, machine(f"am.bytes={am}"))
    assert fills(result, "columns") == turns
    assert_product(kernel, result, inputs)


@pytest.mark.parametrize(
    ("channels", "size", "width", "batch", "am", "pieces", "runs"),
    [
        # A channel takes (2 * piece + 4) rows of samples in AM.
        (10, (2, 2), 4, 64, 12_288, 1, 2),  # 48 rows are 6 channels of 8: 6, 4
        (5, (1, 20), 20, 64, 46_080, 2, 1),  # 180 rows are 5 channels of 36: 16 pixels, 4
        (3, (2, 20), 21, 64, 18_432, 2, 2),  # 72 rows are 2 channels of 36: 2, 1
        (2, (2, 5), 5, 64, 3_072, 2, 2),  # 12 rows are a channel of 4 pixels: 4, 1
        (2, (1, 3), 3, 64, 1_536, 3, 2),  # 6 rows are a channel of 1 pixel
        (3, (2, 3), 7, 61, 4_880, 1, 3),  # 2 * 2,440 bytes, less the gaps before buffers: 1 each
    ],
)
def test_pooling_takes_runs_of_channels_and_pieces_of_rows(
    channels: int,
    size: tuple[int, int],
    width: int,
    batch: int,
    am: int,
    pieces: int,
    runs: int,
    engine: str,
) -> None:
    kernel = maxpool2d_forward(
        batch=batch, channels=channels, height=2, width=width, size=size, stride=2
    )
    inputs = kernel.make_inputs(4)
    result = run(kernel, inputs, engine, 1, machine(f"am.bytes={am}"))
    z, index = reference.maxpool2d_forward(inputs["x"], size, (2, 2))
    assert_near(result.outputs["z"], z)
    assert_near(result.outputs["index"], index)
    positions = z.shape[2] * z.shape[3]
    assert fills(result, "z") == fills(result, "index") == positions * runs
    assert fills(result, "window pieces") == positions * runs * size[0] * pieces


# Refusing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "memory", "size", "needed"),
    [
        # 1 image row and 8 rows of sums, twice, for 64 samples: 2 * 9 * 256.
        (small("conv2d_forward", batch=64), "am", 4_600, 4_608),
        # 1 row and 16 rows of sums for one sample: 2 * 4 bytes, up to 64, and 2 * 16 * 4.
        (small("fc_forward", batch=1), "am", 184, 192),
        # 4 * 8 bytes of biases and two buffers of 16 words beside what is reserved.
        (small("conv2d_forward", batch=64), "sm", 8_344, 8_352),
        # a pixel, a value and an index, twice, for 64 samples: 6 * 256.
        (small("maxpool2d_forward", batch=64), "am", 1_528, 1_536),
        # a row of 64 samples, twice, to turn images; said before the product is cut.
        (small("conv2d_forward", batch=64, layout="nchw"), "am", 504, 4_608),
    ],
)
def test_a_memory_too_small_for_the_smallest_tile_is_named(
    kernel: Kernel, memory: str, size: int, needed: int
) -> None:
    message = f"{memory.upper()} has {size:,} bytes, {needed:,} are needed"
    with pytest.raises(KernelError, match=message) as caught:
        kernel.program(machine(f"{memory}.bytes={size}"))
    assert "\n" not in str(caught.value)
    assert f"use a larger {memory}.bytes" in str(caught.value)


@pytest.mark.parametrize(
    ("kernel", "am", "sm"),
    [
        (small("conv2d_forward", batch=64, filters=3, height=2, width=2), 4_608, 8_352),
        (small("conv2d_forward", filters=3, height=2, width=2, layout="nchw"), 4_608, 8_352),
        (fc_forward(batch=1, in_features=9, out_features=20), 192, 8_384),
        (maxpool2d_forward(batch=64, channels=2, height=2, width=3), 1_536, 1_024),
    ],
)
def test_the_smallest_memory_that_is_accepted_works(
    kernel: Kernel, am: int, sm: int, engine: str
) -> None:
    inputs = kernel.make_inputs(5)
    result = run(kernel, inputs, engine, 1, machine(f"am.bytes={am}", f"sm.bytes={sm}"))
    if kernel.name == "maxpool2d_forward":
        z, _ = reference.maxpool2d_forward(inputs["x"], kernel.p.size, kernel.p.stride)
        assert_near(result.outputs["z"], z)
    else:
        assert_product(kernel, result, inputs)


def test_a_batch_of_many_blocks_finds_room_for_its_table() -> None:
    # 30,000 samples on one core are 469 blocks, a table of 28 bytes each: 13 of 16 KiB of SM.
    kernel = fc_forward(batch=30_000, in_features=3, out_features=3)
    assert len(kernel.program(machine("sm.bytes=32768")).packets) > 0
    with pytest.raises(KernelError, match="SM has 16,384 bytes"):
        kernel.program(machine("sm.bytes=16384"))


def test_biases_leave_room_for_weights() -> None:
    # The sums of 49,152 outputs of one sample fit AM; their biases would take 196,608 bytes of SM.
    kernel = fc_forward(batch=1, in_features=4, out_features=60_000)
    blocking = blocking_of(kernel, 1, machine())
    assert 4 * blocking.group_outputs <= 131_072 // 4
    assert blocking.groups > 1


def test_the_largest_of_two_blocks_decides() -> None:
    # 65 samples are blocks of 33 and 32; a chunk that fits 32 samples need not fit 33.
    split = BatchSplit.make(65, 1, lanes=16)
    shape = Shape(8, 1000, ONE, ONE)
    blocking = Blocking.choose(shape, split, machine("am.bytes=16384"))
    # 16,384 - 2 * 8 * 132 bytes of sums, down to a multiple of 64, in rows of 2 * 132 bytes: 53.
    pieces = -(-1000 // 53)
    assert blocking.piece == -(-1000 // pieces)
    assert np.isclose(blocking.chunk, 53, atol=1)
