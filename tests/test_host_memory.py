"""Memory of the host that runs use again: never while somebody holds it, never with old data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from isa import Tensor, kernel
from isa.errors import KernelError, SimulationError
from isa.program import Buffer, Program, TensorPlacement
from kernels import relu_forward, sgd_update
from simulator import host_memory, placing, simulate
from simulator.host_memory import LARGE_BYTES, Pool

WORDS = LARGE_BYTES // 4
"""Words of the smallest array that comes from a pool."""


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_nobody_holds_is_used_again_as_it_was_left():
    pool = Pool()
    first, zero = pool.take(WORDS)
    assert zero
    assert not first.any()
    first[:] = 7
    where = address(first)
    del first
    assert pool.kept_bytes == 4 * WORDS
    again, zero = pool.take(WORDS)
    assert (address(again), zero, pool.kept_bytes) == (where, False, 0)
    assert (again == 7).all()


@pytest.mark.parametrize(
    "part",
    [
        lambda words: words[5:9],
        lambda words: words.view(np.float32).reshape(2, -1).T[3:],
        lambda words: np.lib.stride_tricks.as_strided(words, (3,), (8,)),
        lambda words: memoryview(words)[2:3],
        lambda words: np.frombuffer(words, np.uint8)[::2],
    ],
)
def test_a_view_holds_the_whole_array(part: Any):
    pool = Pool()
    words, _ = pool.take(WORDS)
    held = part(words)
    del words
    assert pool.kept_bytes == 0
    other, zero = pool.take(WORDS)
    assert zero
    other[:] = 9
    del held
    assert pool.kept_bytes == 4 * WORDS


def test_a_small_array_is_not_kept():
    pool = Pool()
    words, zero = pool.take(WORDS - 1)
    assert zero
    assert len(words) == WORDS - 1
    del words
    assert pool.kept_bytes == 0


def test_the_smallest_that_fits_is_taken_and_shows_no_more_than_asked_for():
    pool = Pool()
    held = [pool.take(count * WORDS)[0] for count in (4, 2, 3)]
    where = [address(words) for words in held]
    del held
    words, zero = pool.take(2 * WORDS - 5)
    assert (address(words), len(words), zero) == (where[1], 2 * WORDS - 5, False)
    assert pool.take(4 * WORDS + 1)[1]


def test_no_array_is_much_larger_than_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_memory, "SPARE_BYTES", 4 * WORDS)
    pool = Pool()
    words, _ = pool.take(3 * WORDS)
    del words
    # One of 3 units for 1 unit would waste 2, and 1 may be spare; so the 3 go, for 1 new.
    _, zero = pool.take(WORDS)
    assert zero
    assert pool.kept_bytes == 0


def test_no_more_is_kept_than_may_be():
    pool = Pool(kept_bytes=5 * 4 * WORDS)
    held = [pool.take(count * WORDS)[0] for count in (6, 1, 2, 3)]
    kept = []
    while held:  # 6 units are too many, then 1 and 2 are not, and with 3 it would be 6
        del held[0]
        kept.append(pool.kept_bytes // (4 * WORDS))
    assert kept == [0, 1, 3, 3]


def test_the_oldest_go_where_nothing_fits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_memory, "SPARE_BYTES", 5 * 4 * WORDS)
    pool = Pool()
    held = [pool.take(count * WORDS)[0] for count in (1, 2, 3)]
    while held:
        del held[0]
    _, zero = pool.take(4 * WORDS)
    assert zero
    assert pool.kept_bytes == 5 * 4 * WORDS


def test_threads_never_share_an_array():
    pool = Pool()

    def work(number: int) -> bool:
        right = True
        for _ in range(50):
            words, _ = pool.take(WORDS)
            words[:64] = number
            words[-64:] = number
            right &= set(words[:64]) == set(words[-64:]) == {number}
        return right

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


# Through runs -----------------------------------------------------------------------------------

ROWS = 1 << 10  # of 256 features: a MiB


def inputs(seed: int) -> dict[str, np.ndarray]:
    return relu_forward(batch=ROWS, features=256).make_inputs(seed)


def run(seed: int) -> np.ndarray:
    return simulate(
        relu_forward(batch=ROWS, features=256), inputs(seed), engine="compiled"
    ).outputs["z"]


def test_outputs_stay_as_they_are_whatever_runs_next():
    outputs = [run(seed) for seed in range(4)]
    part = run(4)[7, 3:5]
    for seed in range(5, 8):
        run(seed)
    for seed, z in enumerate(outputs):
        np.testing.assert_array_equal(z, np.maximum(inputs(seed)["x"], 0))
    np.testing.assert_array_equal(part, np.maximum(inputs(4)["x"], 0)[7, 3:5])


def test_outputs_are_arrays_to_write_to_and_inputs_are_left_alone():
    given = sgd_update(size=WORDS).make_inputs(1)
    before = {name: array.copy() for name, array in given.items()}
    out = simulate(sgd_update(size=WORDS), given, engine="compiled").outputs["weight"]
    assert out.flags.writeable
    assert out.flags.c_contiguous
    out[:] = 0
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


def test_runs_use_memory_again(monkeypatch: pytest.MonkeyPatch):
    """A run that somebody keeps holds its outputs, not the memories of its chip."""
    monkeypatch.setattr(placing, "POOL", pool := Pool())
    kept = simulate(relu_forward(batch=ROWS, features=256), inputs(0), engine="compiled")
    assert kept.result.transfers[0].source
    assert pool.kept_bytes >= 2 * 4 * 256 * ROWS  # x and z in DDR
    before = pool.kept_bytes
    assert (run(1) >= 0).all()
    assert pool.kept_bytes == before + 4 * 256 * ROWS  # and the second run's own z


@kernel(
    inputs=lambda p: {"x": Tensor((WORDS,))},
    outputs=lambda p: {"z": Tensor((WORDS,)), "scratch": Tensor((WORDS,))},
)
def silent(k: Any) -> None:
    """Write nothing at all."""


@pytest.mark.parametrize("cycle_limit", [None, 20_000])
def test_memory_starts_at_zero_also_after_an_error(cycle_limit: int | None):
    ones = np.ones((2 * ROWS, 256), np.float32)
    if cycle_limit is None:
        simulate(relu_forward(batch=2 * ROWS, features=256), {"x": ones}, engine="compiled")
    else:
        with pytest.raises(SimulationError, match="still running at the limit"):
            simulate(
                relu_forward(batch=2 * ROWS, features=256), {"x": ones}, engine="compiled",
                cycle_limit=cycle_limit,
            )  # fmt: skip
    outputs = simulate(silent(), {"x": ones.ravel()[:WORDS]}, engine="compiled").outputs
    assert not outputs["z"].any()
    assert not outputs["scratch"].any()


@kernel(
    inputs=lambda p: {"x": Tensor((WORDS,))},
    outputs=lambda p: {"z": Tensor((p.rows, WORDS // p.rows))},
)
def own_layout(k: Any, rows: int = 4, wrong: str = "") -> None:
    """Hand on x by the author's own layouts, which return arrays, even views of the memory."""
    k.input("x", place=lambda x: x[: 5 if wrong == "place" else None][::-1])
    shape = (-1,) if wrong == "read" else (rows, -1)
    k.output("z", read=lambda words: words.view(np.float32).reshape(shape))


def test_an_output_is_no_view_of_the_memory():
    x = np.ones(WORDS, np.float32)
    z = simulate(own_layout(), {"x": x}, engine="compiled").outputs["z"]
    for seed in range(3):
        run(seed)
    assert not z.any()


def test_an_own_layout_must_fit():
    x = np.ones(WORDS, np.float32)
    with pytest.raises(KernelError, match="'x': its layout gives 20 bytes for a buffer of 1,048,"):
        simulate(own_layout(wrong="place"), {"x": x}, engine="compiled")
    with pytest.raises(KernelError, match=r"'z': read must return float32 of shape \(4, 65536\)"):
        simulate(own_layout(wrong="read"), {"x": x}, engine="compiled")


@kernel(
    inputs=lambda p: {"x": Tensor((8,))},
    outputs=lambda p: {"z": Tensor((8,))},
)
def padded(k: Any) -> None:
    """Give a plain tensor a larger buffer without saying how it lies there."""
    k.input("x", 64)


def test_a_plain_tensor_fills_its_buffer():
    with pytest.raises(KernelError, match=r"'x': without place it takes 32 bytes, .* is 64"):
        simulate(padded(), {"x": np.ones(8, np.float32)})


def test_a_placement_fills_what_it_got_and_the_rest_is_zero(monkeypatch: pytest.MonkeyPatch):
    """DDR of four units: the second and third tensors lie in the second and fourth."""
    monkeypatch.setattr(placing, "POOL", pool := Pool())
    dirty, _ = pool.take(4 * WORDS)
    dirty[:] = 0xDEAD
    del dirty
    tensor = Tensor((WORDS,), "uint32")
    placements = {
        name: TensorPlacement(
            Buffer(name, "DDR", 256 + 4 * WORDS * unit, 4 * WORDS), tensor.shape, tensor.dtype,
            tensor.to_words, tensor.from_words,
        )
        for name, unit in (("later", 3), ("earlier", 1))
    }  # fmt: skip
    program = Program("p", (), {}, 1, inputs=placements, ddr_bytes=16 * WORDS)
    arrays = {
        name: np.full(WORDS, value, np.uint32) for name, value in (("later", 5), ("earlier", 6))
    }
    words = placing.place(program, 256, arrays)
    assert pool.kept_bytes == 0
    units = words.reshape(4, WORDS)
    assert [np.unique(unit).tolist() for unit in units] == [[0], [6], [0], [5]]
