"""The pinned inner product on other machines: packets follow the record, sums stay right."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from isa import Builder, Tensor, kernel
from isa.errors import KernelError
from isa.language.kernel import KernelDefinition
from kernel_run import assert_near, assert_sums, machine, run
from kernels import conv2d_forward, fc_forward, maxpool2d_forward, reference, relu_forward
from kernels.product.inner_product import Rhythm, Tile
from kernels.streaming.pipeline import PinnedPipeline
from small_sizes import small

TILES = [Tile(8, 4), Tile(16, 2), Tile(16, 1)]


def slots(scalar: int = 2, load: int = 2, vector: int = 4) -> str:
    """Return a `--set` of so many SMACs, VLDSTs and VMACs."""
    names = ["SLDST", *(f"SMAC{i + 1}" for i in range(scalar)), "SIEU", "SBR"]
    names += [f"VLDST{i + 1}" for i in range(load)] + [f"VMAC{i + 1}" for i in range(vector)]
    return f"issue.slots={json.dumps([*names, 'VIEU'])}"


@pytest.mark.parametrize(
    ("overrides", "tile", "rhythm"),
    [
        # 8 x 4: an output fills the four VMACs of a packet, so 8 packets a step.
        ((), Tile(8, 4), Rhythm(pair=2, second=1, together=2, interval=8)),
        # 16 x 2: a pair of outputs fills them.
        ((), Tile(16, 2), Rhythm(pair=1, second=0, together=2, interval=8)),
        # 16 x 1: no more than a pair of weights can be broadcast in a packet.
        ((), Tile(16, 1), Rhythm(pair=1, second=0, together=2, interval=8)),
        # Two VMACs: an output takes two packets.
        ((slots(vector=2),), Tile(8, 4), Rhythm(pair=4, second=2, together=2, interval=16)),
        ((slots(vector=2),), Tile(16, 2), Rhythm(pair=2, second=1, together=2, interval=16)),
        ((slots(vector=3),), Tile(8, 4), Rhythm(pair=4, second=2, together=2, interval=16)),
        # One SMAC broadcasts one weight a packet.
        ((slots(scalar=1),), Tile(16, 1), Rhythm(pair=2, second=1, together=2, interval=16)),
        # One VLDST: the last of 4 vectors is multiplied 3 cycles behind the first.
        ((slots(load=1),), Tile(8, 4), Rhythm(pair=4, second=1, together=1, interval=16)),
        # An accumulator is written every 11 cycles at best, a branch every 12 + 1.
        (("latency.vector_multiply_add_float=11",), Tile(8, 4), Rhythm(2, 1, 2, 11)),
        (("latency.branch=12",), Tile(8, 4), Rhythm(2, 1, 2, 13)),
        (("latency.scalar_integer=3",), Tile(8, 4), Rhythm(2, 1, 2, 10)),
        # A pointer that moves 3 cycles late can load a pair of weights every 3 cycles.
        (("latency.address_update=3",), Tile(16, 2), Rhythm(3, 0, 2, 24)),
    ],
)
def test_the_rhythm_follows_slots_and_latencies(
    overrides: tuple[str, ...], tile: Tile, rhythm: Rhythm
) -> None:
    assert Rhythm.make(tile, machine(*overrides)) == rhythm


MACHINES = {
    "slower loads": ("latency.vector_load=9", "latency.scalar_load=7"),
    "much slower vector loads": ("latency.vector_load=23",),
    "faster loads": ("latency.vector_load=1", "latency.scalar_load=1", "latency.broadcast=1"),
    "slower broadcast": ("latency.broadcast=6",),
    "shorter branch": ("latency.branch=5",),
    "shortest branch": ("latency.branch=1",),
    "longer branch": ("latency.branch=10",),
    "slower multiply-add": ("latency.vector_multiply_add_float=8",),
    "multiply-add slower than a step": ("latency.vector_multiply_add_float=19",),
    "slower scalar unit": ("latency.scalar_integer=2", "latency.scalar_multiply=5"),
    "slower pointers": ("latency.address_update=2", "latency.address_move=4"),
    "slow everything": tuple(
        f"latency.{name}={value + 2}" for name, value in machine().latency.items()
    ),
    "immediate everything": tuple(f"latency.{name}=1" for name in machine().latency),
    "late stores": ("latency.store=11",),
    "no launch": ("dma.launch_cycles=0", "barrier.cycles=0"),
    "long launch": ("dma.launch_cycles=200",),
    "8 lanes": ("vpu.lanes=8",),
    "4 lanes": ("vpu.lanes=4",),
    "2 VMACs": (slots(vector=2),),
    "3 VMACs": (slots(vector=3),),
    "1 of each": (slots(scalar=1, load=1, vector=1),),
    "8 VMACs": (slots(vector=8),),
    "3 SMACs, 4 VLDSTs": (slots(scalar=3, load=4),),
    "banks": ("am.bank_model=true",),
}
COMPILED_MACHINES = {
    "much slower vector loads", "shortest branch", "slow everything", "immediate everything",
    "8 lanes", "4 lanes", "1 of each", "8 VMACs", "banks",
}  # fmt: skip
"""Longest and shortest flights of results, other widths, packets and stalls."""


@pytest.mark.on_engines("machine_name", MACHINES, compiled=COMPILED_MACHINES)
def test_sums_are_right_on_another_machine(machine_name: str, engine: str) -> None:
    record = machine(*MACHINES[machine_name])
    for batch in (12, 25, 50):  # one, two and four vectors of 16 lanes
        layer = fc_forward(batch=batch, in_features=19, out_features=10)
        inputs = layer.make_inputs(batch)
        z = run(layer, inputs, engine, 1, record).outputs["z"]
        tensors = inputs["x"], inputs["weight"], inputs["bias"]
        truth, magnitude = reference.fc_forward(*tensors), reference.fc_magnitude(*tensors)
        assert_sums(z, truth, magnitude, terms=19)


@pytest.mark.parametrize(
    "name",
    ["slow everything", "immediate everything", "no launch", "8 lanes", "2 VMACs", "1 of each"],
)
def test_the_other_kernels_are_right_on_another_machine(name: str, engine: str) -> None:
    record = machine(*MACHINES[name])
    convolution = conv2d_forward(
        batch=37, channels=3, height=3, width=2, filters=9, size=2, relu=True, layout="nchw"
    )
    inputs = convolution.make_inputs(1)
    z = run(convolution, inputs, engine, 3, record).outputs["z"]
    tensors = inputs["x"], inputs["weight"], inputs["bias"]
    truth = reference.conv2d_forward(*tensors, (1, 1), (1, 1), relu=True)
    magnitude = reference.conv2d_magnitude(*tensors, (1, 1), (1, 1))
    assert_sums(z, truth, magnitude, terms=12)
    pooling = maxpool2d_forward(batch=37, channels=2, height=2, width=3, size=2, stride=1)
    x = pooling.make_inputs(2)["x"]
    assert_near(
        run(pooling, {"x": x}, engine, 3, record).outputs["z"],
        reference.maxpool2d_forward(x, (2, 2), (1, 1))[0],
    )
    x = np.linspace(-1, 1, 300, dtype=np.float32).reshape(3, 100)
    z = run(relu_forward(batch=3, features=100), {"x": x}, engine, 3, record).outputs["z"]
    assert_near(z, np.maximum(x, 0))


# Pipelines that a machine cannot take ---------------------------------------------------------


def pipeline_kernel(interval: int, *cycles: int) -> KernelDefinition:
    """Return a kernel with a pipeline that moves a vector in each of the cycles."""

    def moves(k: Builder) -> None:
        """Move vectors."""
        left = k.scalar_predicate("left")
        k.smovi(9, left)
        pipeline = PinnedPipeline(k, "moves", interval)
        for cycle in cycles:
            pipeline.at(cycle, lambda: k.vlane())
        pipeline.emit(left)

    def outputs(p: Any) -> dict[str, Tensor]:
        return {"z": Tensor((1,))}

    return kernel(inputs=lambda p: {}, outputs=outputs)(moves)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        # cycles 1 and 9 of a step are one packet of the loop; VLANE has only VIEU to issue in
        (pipeline_kernel(8, 1, 9), "VLANE finds no free slot in this packet: VIEU are taken"),
        (pipeline_kernel(7, 1), "an interval of 7 cycles is too short .* at least 8"),
        (pipeline_kernel(8, -1), "cycle -1 is before the step's start"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused_at_its_line(
    definition: KernelDefinition, message: str
) -> None:
    with pytest.raises(KernelError, match=message) as caught:
        definition().program(machine())
    text = str(caught.value)
    assert ".py:" in text
    assert "\n" not in text


def test_a_machine_without_predicates_for_the_loop_is_refused() -> None:
    # R0 serves the builder's own branches; the pipeline counts in another predicate.
    with pytest.raises(KernelError, match="'steps left' needs 1 R register"):
        small("fc_forward", batch=1).program(machine("issue.scalar_predicates=1"))
