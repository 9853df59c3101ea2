"""The pinned outer product: its rhythm on any machine, full VMACs, walks over rectangles."""

from __future__ import annotations

import numpy as np
import pytest

from isa import Builder, Tensor, kernel
from isa.instruction import Unit
from isa.language.kernel import Kernel
from kernel_run import Array, machine, run
from kernels import conv2d_backward_weight
from kernels.weight_gradient.outer_product import CHANNELS, OUTPUTS, OuterProduct, Rhythm, Walk
from small_sizes import small
from test_conv2d_backward_weight import assert_right
from test_inner_product import COMPILED_MACHINES, MACHINES, slots


@pytest.mark.parametrize(
    ("overrides", "vectors", "output", "channels", "gradients"),
    [
        # Two loads a cycle: a gradient's and, in the first four cycles, a channel's.
        ((), 4, 1, (0, 1, 2, 3), 4),
        ((), 1, 1, (0, 1, 2, 3), 4),
        # Two VMACs: two cycles an output; two channels in each of them.
        ((slots(vector=2),), 4, 2, (0, 1, 1, 2), 2),
        ((slots(vector=3),), 4, 2, (0, 1, 1, 2), 2),
        # One VLDST: a gradient in every even cycle, a channel in some odd ones; so all four
        # channels are multiplied in odd cycles.
        ((slots(load=1),), 4, 2, (1, 3, 5, 7), 4),
        # One VMAC: four cycles an output, a channel in each.
        ((slots(vector=1),), 4, 4, (0, 1, 2, 3), 1),
        # One of each: a cycle in which a gradient is loaded has no load for a channel.
        ((slots(load=1, vector=1),), 4, 5, (1, 2, 3, 4), 1),
        # A sum takes 11 cycles, and is added to every 8 or 16.
        (("latency.vector_multiply_add_float=11",), 4, 2, (0, 1, 1, 2), 2),
        # Counting down and branching takes 13 cycles; a step of one vector has 8 or 16.
        (("latency.branch=12",), 1, 2, (0, 1, 1, 2), 2),
        (("latency.branch=12",), 2, 1, (0, 1, 2, 3), 4),
    ],
)
def test_the_rhythm_follows_slots_and_latencies(
    overrides: tuple[str, ...],
    vectors: int,
    output: int,
    channels: tuple[int, ...],
    gradients: int,
) -> None:
    rhythm = Rhythm.make(vectors, machine(*overrides))
    assert (rhythm.output, rhythm.channels, rhythm.gradients) == (output, channels, gradients)
    assert rhythm.interval == 8 * output * vectors


@pytest.mark.parametrize("batch", [7, 16, 17, 40, 64])
def test_every_packet_of_the_steady_state_multiplies_on_all_vmacs(batch: int) -> None:
    program = small("conv2d_backward_weight", batch=batch).program(machine())
    packets = [p for p in program.packets if p.origin.loop.endswith("/outer product")]
    vectors = -(-batch // 16)
    assert len(packets) == 8 * vectors
    operations = [o for packet in packets for o in packet.operations]
    for packet in packets:
        multiplying = {o.slot for o in packet.operations if o.instruction.name == "VFMULAS32"}
        assert multiplying == set(machine().slots_of(Unit.VMAC))
    assert len([o for o in operations if o.instruction.name == "VLDW"]) == 12 * vectors


# One tile ---------------------------------------------------------------------------------------

VECTORS = 2


def tile_kernel(rows: int, columns: int, width: int, step: int) -> Kernel:
    """Return one tile: `rows` x `columns` positions of images `width` columns wide.

    The gradients are (rows, width, 8), the pixels (rows, step * width, 4), each two vectors.
    """
    lanes = 16
    row = VECTORS * lanes
    shapes = {"dz": (rows, width, OUTPUTS, row), "x": (rows, step * width, CHANNELS, row)}

    def one_tile(k: Builder) -> None:
        """Multiply a rectangle."""
        operands = [k.array_buffer(name, 4 * int(np.prod(shapes[name]))) for name in shapes]
        results = k.array_buffer("results", 4 * OUTPUTS * CHANNELS * lanes)
        for channel, (name, buffer) in enumerate(zip(shapes, operands, strict=True)):
            k.copy(k.input(name), buffer, channel)
            k.wait(channel)
        sums = k.vectors("sum", OUTPUTS, CHANNELS)
        for total in sums:
            k.vmovi(0, total)
        pointers = [k.point(k.vector_address(b.name), b) for b in operands]
        pixel = 4 * row * CHANNELS
        distances = (
            columns,
            4 * row * OUTPUTS,
            4 * row * OUTPUTS * (width - columns + 1),
            pixel * step,
            pixel * step * (width - columns + 1),
        )
        walk = Walk(*map(k.constant, distances))
        product = OuterProduct(k, VECTORS, sums, *pointers)
        product.begin(walk)
        product.steps(walk).run(k.constant(rows * columns))
        place = k.point(k.vector_address("results"), results)
        for number, total in enumerate(sums):
            k.vstw(total, place + lanes * number)
        k.copy(results, k.output("sums"), 2)
        k.wait(2)

    definition = kernel(
        inputs=lambda p: {name: Tensor(shape) for name, shape in shapes.items()},
        outputs=lambda p: {"sums": Tensor((OUTPUTS, CHANNELS, lanes))},
    )
    return definition(one_tile)()


def whole(shape: tuple[int, ...], seed: int) -> Array:
    """Return whole numbers, whose sums of products are exact."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "columns", "width", "step"),
    [(1, 1, 1, 1), (1, 2, 3, 1), (2, 1, 1, 2), (3, 2, 2, 1), (3, 4, 6, 2), (5, 1, 2, 1)],
)
def test_a_walk_takes_every_position_of_its_rectangle(
    rows: int, columns: int, width: int, step: int, engine: str
) -> None:
    layer = tile_kernel(rows, columns, width, step)
    inputs = {name: whole(tensor.shape, 1) for name, tensor in layer.inputs.items()}
    result = run(layer, inputs, engine)
    dz, x = inputs["dz"][:, :columns], inputs["x"][:, : step * columns : step]
    lanes = (rows, columns, -1, VECTORS, 16)
    expected = np.einsum("ijovl,ijcvl->ocl", dz.reshape(lanes), x.reshape(lanes))
    assert (result.outputs["sums"] == expected).all()
    # A step has 2 * 8 packets. The first sum is added to 8 cycles after its first load, the last
    # channel 3 cycles behind the first: 11 packets to fill and drain, once there are two steps.
    if rows * columns > 1:
        taken = [c.cycles for c in result.report.loops if c.loop.startswith("outer product")]
        assert sum(taken) == rows * columns * 2 * 8 + 11


@pytest.mark.on_engines("machine_name", MACHINES, compiled=COMPILED_MACHINES)
def test_gradients_are_right_on_another_machine(machine_name: str, engine: str) -> None:
    layer = conv2d_backward_weight(
        batch=37, channels=5, height=1, width=3, filters=9, size=2, strategy="batch"
    )
    inputs = layer.make_inputs(1)
    result = run(layer, inputs, engine, 2, machine(*MACHINES[machine_name]))
    assert_right(layer, inputs, result.outputs)
