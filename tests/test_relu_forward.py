"""ReLU forward: exactly max(x, 0), NaN kept, for any number of words, cores and pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isa.errors import KernelError
from kernel_run import Array, assert_near, machine, run
from kernels import reference, relu_forward
from small_sizes import small


def values(batch: int, features: int, seed: int = 0) -> Array:
    """Return numbers of both signs with NaN, infinities, zeros and subnormals among them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(batch, features)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45):
        x[generator.random(x.shape) < 0.04] = value
    return x


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize(
    ("batch", "features"),
    [
        (1, 1),  # one lane, and cores without work
        (1, 15), (1, 16), (1, 17),  # around one vector
        (3, 16), (5, 13), (17, 31),  # not a whole number of vectors
        (1, 256), (2, 136), (1, 255),  # around the 16 vectors of one turn of the main loop
        (33, 65), (70, 64),
    ],
)  # fmt: skip
def test_against_numpy(batch: int, features: int, cores: int, engine: str) -> None:
    x = values(batch, features)
    z = run(relu_forward(batch=batch, features=features), {"x": x}, engine, cores).outputs["z"]
    assert (z.dtype, z.shape) == (np.float32, (batch, features))
    assert_near(z, reference.relu_forward(x))


def test_against_pytorch(engine: str) -> None:
    torch = pytest.importorskip("torch")
    x = values(9, 77)
    assert np.isnan(x).any()
    z = run(relu_forward(batch=9, features=77), {"x": x}, engine, cores=3).outputs["z"]
    assert_near(z, torch.relu(torch.from_numpy(x).double()).numpy())


def test_hand_worked_values(engine: str) -> None:
    x = np.array([[-1, 2, -np.inf, np.inf, np.nan, 0]], np.float32)
    z = run(relu_forward(batch=1, features=6), {"x": x}, engine).outputs["z"][0]
    assert z[[0, 1, 2, 3, 5]].tolist() == [0, 2, 0, np.inf, 0]
    assert np.isnan(z[4])


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("words", [63, 64, 65, 128, 129, 300])
def test_pieces_stream_through_a_small_array_memory(words: int, cores: int, engine: str) -> None:
    # 512 bytes are two halves of 64 words, so 300 words on one core come in five pieces.
    x = values(1, words, seed=words)
    record = machine("am.bytes=512")
    result = run(relu_forward(batch=1, features=words), {"x": x}, engine, cores, record)
    assert_near(result.outputs["z"], reference.relu_forward(x))
    if cores == 1:
        loads = [t for t in result.result.transfers if t.source == "x"]
        assert len(loads) == -(-words // 64)


def test_an_array_memory_without_room_for_two_vectors_is_refused() -> None:
    with pytest.raises(KernelError, match="AM has 120 bytes, 128 are needed"):
        relu_forward(batch=1, features=5).program(machine("am.bytes=120"))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 30), features=st.integers(1, 60), cores=st.integers(1, 4))
def test_any_small_size(batch: int, features: int, cores: int, engine: str) -> None:
    x = values(batch, features, seed=batch)
    z = run(relu_forward(batch=batch, features=features), {"x": x}, engine, cores).outputs["z"]
    assert_near(z, reference.relu_forward(x))


@pytest.mark.parametrize(("channels", "used"), [(1, "0 and 1"), (2, "2 and 3")])
def test_too_few_channels_are_named_when_the_program_is_built(channels: int, used: str) -> None:
    with pytest.raises(KernelError, match=rf"channels {used}.*dma\.channels={channels}"):
        small("relu_forward").program(machine(f"dma.channels={channels}"))


def test_transfers_and_work_overlap(engine: str) -> None:
    # Loads and stores of 32,768 words take 2 * 4 * 32,768 / 34.16 = 7,674 cycles of DDR; a core
    # that loaded all before it worked would need over 4,000 more.
    report = run(relu_forward(batch=64, features=512), {"x": values(64, 512)}, engine).report
    assert report.cycles < 1.15 * 7_674
