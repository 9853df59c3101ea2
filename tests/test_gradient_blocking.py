"""Gradients of weights on machines of any size: how they are cut, and how long they take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.errors import KernelError
from isa.language.kernel import Kernel
from kernel_run import machine, run
from kernels import conv2d_backward_weight
from kernels.samples.columns import BatchSplit
from kernels.weight_gradient.blocking import GradientBlocking, GradientShape
from simulator.simulate import Run, simulate
from small_sizes import small
from test_conv2d_backward_weight import assert_right

# How it is cut ---------------------------------------------------------------------------------


def blocking_of(kernel: Kernel, cores: int, record: Any) -> GradientBlocking:
    p = kernel.p
    split = BatchSplit.make(p.batch, cores, record.vpu.lanes)
    return GradientBlocking.choose(GradientShape.of(p), split, p.strategy == "tasks", cores, record)


def fills(result: Run, buffer: str, core: int = 0) -> int:
    """Count the transfers of a core into a buffer."""
    transfers = result.result.transfers
    return sum(t.destination.startswith(buffer) and t.mask >> core & 1 for t in transfers)


@pytest.mark.parametrize(
    ("params", "cores", "am", "cut", "groups"),
    [
        # All in one chunk and one group: 16 KiB of sums, 2 * 8 KiB of each operand.
        ({"batch": 16, "channels": 4, "filters": 8, "height": 4, "width": 4}, 1, 786_432,
         {"tap_rows": 3, "tap_columns": 3, "rows": 4, "columns": 4}, 1),
        # AM for a single tap, tile and position: 9 groups of 6 chunks.
        ({"batch": 64, "channels": 4, "filters": 8, "height": 2, "width": 3}, 1, 8_896,
         {"tap_rows": 1, "tap_columns": 1, "rows": 1, "columns": 1}, 9),
    ],
)  # fmt: skip
def test_a_layer_is_cut_and_right(
    params: dict[str, int], cores: int, am: int, cut: dict[str, int], groups: int, engine: str
) -> None:
    kernel, record = conv2d_backward_weight(**params), machine(f"am.bytes={am}")
    blocking = blocking_of(kernel, cores, record)
    assert {name: getattr(blocking, name) for name in cut} == cut
    assert blocking.groups == groups
    inputs = kernel.make_inputs(6)
    result = run(kernel, inputs, engine, cores, record)
    assert_right(kernel, inputs, result.outputs)
    p = kernel.p
    rows, columns = -(-p.height // blocking.rows), -(-p.width // blocking.columns)
    assert fills(result, "gradients") == fills(result, "images") == groups * rows * columns
    assert fills(result, "dweight") == groups
    assert fills(result, "dbias") == blocking.counts[0]


SIZES = {
    "batch": st.integers(1, 300),
    "channels": st.integers(1, 300),
    "height": st.integers(7, 60),
    "width": st.integers(7, 60),
    "filters": st.integers(1, 300),
    "size": st.tuples(st.integers(1, 7), st.integers(1, 7)),
    "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "pad": st.tuples(st.integers(0, 3), st.integers(0, 3)),
    "strategy": st.sampled_from(["tasks", "batch"]),
}


@settings(max_examples=6)
@given(
    sizes=st.fixed_dictionaries(SIZES),
    cores=st.integers(1, 4),
    am_words=st.integers(4_272, 200_000),
    channels=st.integers(6, 16),
)
def test_any_layer_fits_any_memory(
    sizes: dict[str, Any], cores: int, am_words: int, channels: int
) -> None:
    record = machine(f"am.bytes={8 * (am_words // 2)}", f"dma.channels={channels}")
    kernel = conv2d_backward_weight(**sizes)
    cut = blocking_of(kernel, cores, record)
    assert cut.array_bytes(16) <= record.am.bytes
    assert 2 * sum(cut.pieces) + 2 <= channels
    p = kernel.p
    for step, extent in zip(
        (cut.outputs, cut.channels, cut.tap_rows, cut.tap_columns),
        (p.filters, p.channels, *p.size),
        strict=True,
    ):
        assert 1 <= step < extent + 8
    assert cut.groups * cut.weights >= p.filters * p.channels * p.size[0] * p.size[1]


@pytest.mark.parametrize("stride", [1, (2, 3)])
@pytest.mark.parametrize(
    ("cores", "strategy", "sizes", "pieces"),
    [
        # outputs, channels, tap rows, tap columns, rows, columns: transfers of rows of pixels
        (1, "tasks", (8, 4, 3, 2, 2, 3), (2, 3)),
        (3, "batch", (16, 8, 1, 1, 3, 4), (3, 3)),
        (4, "tasks", (8, 8, 3, 1, 1, 4), (1, 3)),
        (2, "batch", (8, 8, 2, 2, 2, 1), (2, 3)),
        (2, "tasks", (16, 8, 1, 2, 2, 4), (2, 2)),
    ],
)
def test_any_cut_is_right(
    cores: int,
    strategy: str,
    sizes: tuple[int, ...],
    pieces: tuple[int, int],
    stride: Any,
    engine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Cuts that divide nothing evenly; some chunks of narrow columns see only padding.
    kernel = conv2d_backward_weight(
        batch=18, channels=6, height=3, width=7, filters=11, size=(3, 2), stride=stride,
        pad=(1, 2), strategy=strategy,
    )  # fmt: skip
    vectors = 2 if cores == 1 else 1
    cut = GradientBlocking(GradientShape.of(kernel.p), vectors, True, *sizes)
    assert cut.pieces == pieces or stride != 1
    monkeypatch.setattr(GradientBlocking, "choose", lambda *given: cut)
    inputs = kernel.make_inputs(11)
    assert_right(kernel, inputs, run(kernel, inputs, engine, cores).outputs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # 64 samples are 4 vectors, rows of 256 bytes. Of one position 8 outputs' and 4 channels',
        # twice: 4,096 + 2,048; 32 + 8 sums of 64 bytes: 2,560; 40 words, up to 192: 8,896.
        (["am.bytes=8888"], "AM has 8,888 bytes, 8,896 are needed: .* use a larger am.bytes"),
        (["dma.channels=5"], "dma.channels=5 are too few, 6 are needed: .* with more"),
    ],
)
def test_a_machine_too_small_is_refused(overrides: list[str], message: str) -> None:
    kernel = small("conv2d_backward_weight", batch=64)
    with pytest.raises(KernelError, match=message) as caught:
        kernel.program(machine(*overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", ["tasks", "batch"])
@pytest.mark.parametrize("overrides", [["am.bytes=8896"], ["dma.channels=6"]])
def test_the_smallest_machine_works(strategy: str, overrides: list[str], engine: str) -> None:
    kernel = conv2d_backward_weight(
        batch=64, channels=4, height=2, width=2, filters=8, size=2, strategy=strategy
    )
    inputs = kernel.make_inputs(7)
    record = machine(*overrides)
    assert_right(kernel, inputs, run(kernel, inputs, engine, 1, record).outputs)


def test_rows_of_pixels_come_in_one_transfer_where_chunks_span_the_width() -> None:
    # 112 pixels of 8 channels and 64 samples are 229,376 bytes; three rows of them, twice, are too
    # much. So chunks are narrower, and every row of pixels is a transfer of its own.
    def cut(extent: int) -> GradientBlocking:
        layer = conv2d_backward_weight(
            batch=256, height=extent, width=extent, channels=64, filters=64
        )
        return blocking_of(layer, 4, machine())

    assert cut(14).pieces == (1, 1)
    assert cut(112).columns < 112
    assert cut(112).pieces == (cut(112).rows, cut(112).rows + 2)


# Time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["tasks", "batch"])
def test_timing_only_takes_as_long(strategy: str, engine: str) -> None:
    kernel = conv2d_backward_weight(
        batch=21, channels=3, height=3, width=3, filters=9, size=2, strategy=strategy
    )
    real = run(kernel, kernel.make_inputs(8), engine, 4).report
    timed = simulate(kernel, cores=4, engine=engine, timing_only=True).report
    assert (timed.cycles, timed.packets) == (real.cycles, real.packets)


def loops(result: Run, name: str) -> int:
    """Return the cycles of the loops of a name, prologue and epilogue included."""
    return sum(loop.cycles for loop in result.report.loops if name in loop.loop.split("/")[-1])


def test_the_products_take_what_the_vmacs_need(engine: str) -> None:
    # 16 outputs by 4 channels are 2 tiles. Along each axis the three taps meet 3, 4, 3 of 4
    # positions, 10 in all: 10 * 10 positions of all taps, 4 vectors of 8 packets each. For each of
    # 9 taps and 2 tiles the pipeline fills and drains in 11 packets: 8 until the first row is
    # loaded, 3 until the last channel has caught up.
    kernel = small("conv2d_backward_weight", batch=64, channels=4, height=4, width=4)
    result = simulate(kernel, engine=engine, timing_only=True)
    assert blocking_of(kernel, 1, machine()).rows == 4
    assert loops(result, "outer product") == 2 * (10 * 10 * 4 * 8) + 9 * 2 * 11
    assert kernel.work.multiply_adds == 64 * 2 * (10 * 10 * 4 * 8)


def test_the_sums_of_biases_and_lanes_take_what_the_slots_need(engine: str) -> None:
    # Biases: 2 tiles of 8 rows, 16 positions, 4 vectors; two are loaded and added a packet, so
    # 16 packets a position, and 8 until the first has been loaded.
    # Lanes: 9 * 16 * 4 weights and 16 biases, one a packet; the last is loaded in packet 591,
    # added up 8 packets later and stored after 12 more. 8 + 12 packets in all to fill and drain.
    kernel = small("conv2d_backward_weight", batch=64, channels=4, height=4, width=4)
    result = simulate(kernel, engine=engine, timing_only=True)
    assert loops(result, "row sums") == 2 * (16 * 16 + 8)
    assert loops(result, "lane sums") == 592 + 20


def test_the_sum_over_cores_takes_what_the_ddr_needs(engine: str) -> None:
    # 16 x 16 weights are 1,024 bytes. Each of 4 cores loads its quarter, 256 bytes, of all 4
    # copies: 4,096 bytes at 34.16 a cycle are 119.9 cycles from the first byte to the last,
    # whoever gets them when. The cores store a quarter each: 1,024 bytes, 30.0 cycles.
    # Nobody loads before the barrier, which all leave 21 cycles after the last one's arrival, and
    # that waited for its copy; then data moves 60 cycles after the start.
    kernel = small(
        "conv2d_backward_weight", batch=64, height=2, width=2, size=1, pad=0, strategy="batch"
    )
    result = simulate(kernel, engine=engine, timing_only=True, cores=4)
    transfers = result.result.transfers
    copied = [t for t in transfers if t.destination.startswith("copies of")]
    loads = [t for t in transfers if t.source.startswith("copies of dweight")]
    stores = [t for t in transfers if t.destination == "dweight"]
    assert (len(loads), len(stores)) == (16, 4)
    assert {t.ddr_bytes for t in (*loads, *stores)} == {256}
    assert max(t.end for t in loads) - min(t.begin for t in loads) == 120
    assert 30 <= max(t.end for t in stores) - min(t.begin for t in stores) <= 32
    assert min(t.begin for t in loads) > max(t.end for t in copied) + 21 + 60


def test_a_single_window_on_a_wide_image_leaves_out_what_it_does_not_meet(engine: str) -> None:
    # One position of 7 columns, of which a tap meets one pixel. Of 64 samples a row takes 256
    # bytes: 8 gradients and 4 pixels, 8 more of each that are cleared, twice: 14,336. The sums of
    # 32 weights and 8 biases take 2,560 as vectors and 160 as words: 17,056, aligned 17,088.
    kernel = conv2d_backward_weight(
        batch=64, channels=3, height=1, width=7, filters=5, size=(1, 7), pad=0
    )
    inputs = kernel.make_inputs(1)
    result = run(kernel, inputs, engine, record=machine("am.bytes=17088"))
    assert_right(kernel, inputs, result.outputs)
