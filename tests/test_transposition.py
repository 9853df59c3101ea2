"""Columns of samples turned to rows on the chip, and DDR filled with a number."""

from __future__ import annotations

import numpy as np
import pytest

from isa import Builder, Count, KernelError, Tensor, kernel
from isa.descriptor import Plane, TransferRequest
from kernel_run import machine, run
from kernels.samples.columns import BatchSplit
from kernels.samples.transposition import fill, transpose_columns


@kernel(
    inputs=lambda p: {"x": Tensor((p.batch, p.features))},
    outputs=lambda p: {"rows": Tensor((p.batch, p.features))},
)
def turned(k: Builder, batch: Count = 5, features: Count = 3) -> None:
    """Turn the columns of x, which lie as kernels of layers have them, back to rows."""
    split = BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
    x = k.input("x", fill=split.place_samples)
    transpose_columns(k, x, features, split, k.output("rows"))


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize(
    ("batch", "features"),
    [(1, 1), (1, 33), (5, 3), (17, 1), (33, 16), (64, 15), (70, 40), (150, 7)],
)
def test_rows(batch: int, features: int, cores: int, engine: str) -> None:
    definition = turned(batch=batch, features=features)
    inputs = definition.make_inputs(1)
    rows = run(definition, inputs, engine, cores).outputs["rows"]
    np.testing.assert_array_equal(rows, inputs["x"])


def test_more_features_than_am_holds(engine: str) -> None:
    # 2,048 bytes hold 1,024 bytes of a half: 4 rows of 64 samples; 9 rows take 3 runs.
    definition = turned(batch=64, features=9)
    inputs = definition.make_inputs(2)
    result = run(definition, inputs, engine, record=machine("am.bytes=2048"))
    np.testing.assert_array_equal(result.outputs["rows"], inputs["x"])
    # Each run is one transpose into AM and one store of a piece of every sample's row.
    modes = [transfer.mode for transfer in result.result.transfers]
    assert sorted(modes) == ["copy"] * 3 + ["transpose"] * 3


def test_cycles_of_a_transposition_on_an_ideal_memory(engine: str) -> None:
    # 16 samples, 16 features: one transpose of 1,024 bytes, one store. With a rate of 1,024 bytes
    # a cycle and a launch of 60 each takes 61 cycles from its start, and they follow each other.
    definition = turned(batch=16, features=16)
    fast = machine(
        "ddr.bytes_per_cycle=1280", "dma.bytes_per_cycle=1024", "dma.transpose_bytes_per_cycle=1024"
    )
    result = run(definition, definition.make_inputs(3), engine, record=fast)
    first, second = result.result.transfers
    assert first.end - first.begin == second.end - second.begin == 1
    assert first.begin - first.last_request == second.begin - second.last_request == 60
    assert second.first_request >= first.end


def test_an_am_smaller_than_two_rows_is_refused() -> None:
    # Two rows of 64 samples are 512 bytes.
    with pytest.raises(KernelError, match=r"AM has 448 bytes, 512 are needed: a row of 64 samples"):
        turned(batch=64, features=2).program(machine("am.bytes=448"))


@kernel(inputs=lambda p: {}, outputs=lambda p: {"z": Tensor((p.words + 32,))})
def filled(k: Builder, words: Count = 32, skipped: Count = 16) -> None:
    """Fill all of z with 1, then a part in it with 2.5."""
    z = k.output("z")
    fill(k, z, 0, words + 32, 1.0)
    fill(k, z, 4 * skipped, words, 2.5)


@pytest.mark.parametrize("cores", [1, 4])
def test_fill(cores: int, engine: str) -> None:
    z = run(filled(words=48), {}, engine, cores).outputs["z"]
    np.testing.assert_array_equal(z, [1.0] * 16 + [2.5] * 48 + [1.0] * 16)


def test_fill_takes_whole_vectors() -> None:
    with pytest.raises(KernelError, match="fill writes vectors of 16 words, not 72 words"):
        filled(words=40).program(machine())


def test_turned_rows_can_be_stored_elsewhere_after_a_barrier(engine: str) -> None:
    @kernel(
        inputs=lambda p: {"x": Tensor((p.batch, 2))}, outputs=lambda p: {"z": Tensor((p.batch, 2))}
    )
    def moved(k: Builder, batch: Count = 6) -> None:
        """Turn on all cores; the last one copies what the others have turned."""
        split = BatchSplit.make(batch, k.cores, k.machine.vpu.lanes)
        x = k.input("x", fill=split.place_samples)
        rows, z = k.ddr_buffer("rows", 8 * batch), k.output("z")
        transpose_columns(k, x, 2, split, rows)
        k.barrier()
        tile = k.array_buffer("tile", 8 * batch)
        whole = Plane(tile.address, 1, 2 * batch, 0)
        load = TransferRequest(Plane(rows.address, 1, 2 * batch, 0), whole)
        store = TransferRequest(whole, Plane(z.address, 1, 2 * batch, 0))
        with k.when(k.seq(k.scoreid(), k.cores - 1)):
            for name, request in (("load", load), ("store", store)):
                k.start(k.descriptor(name, request), 0)
                k.wait(0)

    inputs = moved().make_inputs(4)
    np.testing.assert_array_equal(run(moved(), inputs, engine, 4).outputs["z"], inputs["x"])
