"""Samples in the lanes: the split of a batch, the lane masks it implies, and the layout in DDR."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.samples import turning
from kernels.samples.columns import BatchSplit, Block

SPLITS = st.builds(
    BatchSplit.make, st.integers(1, 700), st.integers(1, 4), st.sampled_from([4, 8, 16])
)


@pytest.mark.parametrize(
    ("batch", "cores", "blocks", "vectors"),
    [
        # samples of each core's blocks, worked by hand for 16 lanes: at most 64 samples a block
        (1, 1, [[1]], 1),
        (1, 4, [[1]], 1),
        (5, 3, [[2], [2], [1]], 1),
        (16, 1, [[16]], 1),
        (17, 1, [[17]], 2),
        (33, 1, [[33]], 4),
        (64, 4, [[16], [16], [16], [16]], 1),
        (65, 1, [[33, 32]], 4),
        (65, 4, [[17], [16], [16], [16]], 2),
        (70, 1, [[35, 35]], 4),
        (129, 2, [[33, 32], [32, 32]], 4),
        (193, 1, [[49, 48, 48, 48]], 4),
    ],
)
def test_a_batch_is_split_over_cores_then_blocks(
    batch: int, cores: int, blocks: list[list[int]], vectors: int
) -> None:
    split = BatchSplit.make(batch, cores, lanes=16)
    assert [[block.samples for block in row] for row in split.blocks] == blocks
    assert split.vectors == vectors
    assert (split.active, split.count) == (len(blocks), len(blocks[0]))
    assert split.largest == max(max(row) for row in blocks)


def test_fewer_lanes_take_more_blocks() -> None:
    # 8 lanes: 4 vectors hold 32 samples, so 65 samples are three blocks.
    split = BatchSplit.make(65, cores=1, lanes=8)
    assert [block.samples for block in split.blocks[0]] == [22, 22, 21]


def test_vectors_of_a_block_enable_the_same_lanes_and_overlap_at_its_end() -> None:
    # 33 samples as four vectors of 9 lanes: 0-8, 9-17, 18-26 and 24-32.
    block = Block(first=0, samples=33, vectors=4)
    assert (block.width, block.offsets) == (9, [0, 9, 18, 24])
    assert Block(first=5, samples=17, vectors=2).offsets == [0, 8]


@given(split=SPLITS)
def test_every_sample_is_in_one_block_and_some_lane(split: BatchSplit) -> None:
    blocks = [block for row in split.blocks for block in row]
    assert [b.first for b in blocks] == list(np.cumsum([0, *(b.samples for b in blocks)])[:-1])
    assert sum(b.samples for b in blocks) == split.batch
    assert len({len(row) for row in split.blocks}) == 1
    for block in blocks:
        lanes = {offset + lane for offset in block.offsets for lane in range(block.width)}
        assert lanes == set(range(block.samples))


@given(split=SPLITS)
def test_blocks_differ_by_one_sample_and_fit_their_vectors(split: BatchSplit) -> None:
    sizes = [block.samples for row in split.blocks for block in row]
    assert max(sizes) - min(sizes) <= 1
    assert {block.vectors for row in split.blocks for block in row} <= {1, 2, 4}


@given(batch=st.integers(1, 300), cores=st.integers(1, 4), rows=st.integers(1, 5))
def test_what_is_placed_is_read_back(batch: int, cores: int, rows: int) -> None:
    split = BatchSplit.make(batch, cores, lanes=16)
    samples = np.arange(rows * batch, dtype=np.float32).reshape(batch, rows)
    words, read = np.empty(rows * batch, np.uint32), np.empty_like(samples)
    split.place_samples(samples, words)
    assert sorted(words.view(np.float32).tolist()) == samples.ravel().tolist()
    split.read_samples(words, read)
    assert (read == samples).all()


def test_a_block_is_a_matrix_of_its_own() -> None:
    # 3 samples on 2 cores: samples 0 and 1, then sample 2; rows of a block are consecutive.
    split = BatchSplit.make(3, cores=2, lanes=16)
    words = np.empty(6, np.uint32)
    split.place_samples(np.array([[10, 20], [11, 21], [12, 22]], np.int32), words)
    assert words.tolist() == [10, 11, 20, 21, 12, 22]


def test_rows_have_channels_fastest_then_width_then_height() -> None:
    # Element (n, c, h, w) is 1000 n + 100 c + 10 h + w; row (h * W + w) * C + c, column n.
    n, c, h, w = np.ogrid[0:2, 0:3, 0:2, 0:4]
    images = (1000 * n + 100 * c + 10 * h + w).astype(np.float32)
    words = np.empty(images.size, np.uint32)
    BatchSplit.make(2, cores=1, lanes=16).place_images(images, words)
    rows = words.view(np.float32).reshape(2 * 4 * 3, 2)
    assert rows[:4].tolist() == [[0, 1000], [100, 1100], [200, 1200], [1, 1001]]
    assert rows[(1 * 4 + 3) * 3 + 2].tolist() == [213, 1213]


def columns_of(split: BatchSplit, images: np.ndarray) -> list[int]:
    """The words of all blocks, each a matrix of rows (h, w, c) and a column for every sample."""
    matrix = images.transpose(2, 3, 1, 0).reshape(-1, split.batch)
    blocks = [block for row in split.blocks for block in row]
    return [int(x) for b in blocks for x in matrix[:, b.first : b.first + b.samples].ravel()]


@given(
    split=SPLITS, channels=st.integers(1, 5), dtype=st.sampled_from(["int32", "int64"]),
    words=st.sampled_from([1, 100, 3000, 1 << 18]), run=st.sampled_from([1, 4, 1024]),
)  # fmt: skip
def test_images_lie_as_the_matrix_of_their_rows(
    split: BatchSplit, channels: int, dtype: str, words: int, run: int
) -> None:
    """In pieces of one pixel, of some, of whole channels, or in one piece."""
    shape = (split.batch, channels, 2, 3)
    images = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    placed, read = np.empty(images.size, np.uint32), np.empty_like(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turning, "PIECE_WORDS", words)
        patch.setattr(turning, "LONG_RUN", run)
        split.place_images(images, placed)
        split.read_images(placed, read)
    assert placed.tolist() == columns_of(split, images)
    assert read.tolist() == images.tolist()
