"""What the kernels' code and cycles are today, in tests/golden: a change must be seen and meant.

After a change that is meant, `pytest --update-golden` rewrites the files; review the difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
import pytest

from isa.instruction import Unit
from isa.language.kernel import Kernel
from isa.listing import listing
from isa.program import Program
from kernel_run import machine
from kernels import LIBRARY
from simulator.simulate import Run, simulate
from small_sizes import small

Golden = Callable[[str, str], None]

# The steady state of the inner product --------------------------------------------------------


def steady_state(program: Program) -> list[int]:
    """Return the numbers of the packets in the loop of the inner product."""
    return [
        number
        for number, packet in enumerate(program.packets)
        if packet.origin.loop.endswith("/inner product")
    ]


def steady_listing(kernel: Kernel) -> str:
    """Return the listing of the steady state, packets counted from its first.

    Source lines are left out: they change with every edit of the file.
    """
    program = kernel.program(machine())
    numbers = steady_state(program)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    labels = {
        name: number - numbers[0] for name, number in program.labels.items() if number in numbers
    }
    packets = tuple(program.packets[number] for number in numbers)
    text = listing(attrs.evolve(program, packets=packets, labels=labels), machine())
    (width,) = (line.index("source") for line in text.splitlines() if line.startswith("packet"))
    return "\n".join(line[:width].rstrip() for line in text.splitlines())


def test_the_steady_state_of_8_outputs_by_4_vectors(golden: Golden) -> None:
    golden("inner_product_8x4", steady_listing(small("conv2d_forward", batch=64)))


@pytest.mark.parametrize("batch", [17, 32, 33, 64])
@pytest.mark.parametrize("name", ["conv2d_forward", "fc_forward"])
def test_every_packet_of_the_steady_state_multiplies_on_all_vmacs(name: str, batch: int) -> None:
    # 17 to 32 samples are two vectors, 33 to 64 four.
    program = small(name, batch=batch).program(machine())
    vmacs = set(machine().slots_of(Unit.VMAC))
    assert len(vmacs) == 4
    packets = [program.packets[number] for number in steady_state(program)]
    assert len(packets) == 8
    for packet in packets:
        multiplying = {
            o.slot for o in packet.operations if o.instruction.mnemonic.startswith("VFMULAS32")
        }
        assert multiplying == vmacs


@pytest.mark.parametrize(
    ("batch", "counts"),
    [
        (64, {"VFMULAS32": 32, "SVBCAST": 8, "SLDDW": 4, "VLDW": 4}),  # 8 outputs x 4 vectors
        (32, {"VFMULAS32": 32, "SVBCAST": 16, "SLDDW": 8, "VLDW": 2}),  # 16 x 2
        (16, {"VFMULAS32": 16, "SVBCAST": 16, "SLDDW": 8, "VLDW": 1}),  # 16 x 1
    ],
)
def test_a_step_loads_each_weight_and_each_vector_once(batch: int, counts: dict[str, int]) -> None:
    program = small("conv2d_forward", batch=batch).program(machine())
    packets = [program.packets[number] for number in steady_state(program)]
    found = Counter(o.instruction.name for packet in packets for o in packet.operations)
    assert found == {**counts, "SSUB": 1, "SBR": 1}


# Cycles ----------------------------------------------------------------------------------------

CYCLES = [
    ("conv2d_forward", "batch=64 channels=8 filters=8 height=4 width=4", 1),
    ("conv2d_forward", "batch=96 channels=8 filters=16 height=3 width=3", 3),
    ("conv2d_forward", "batch=20 channels=4 filters=17 height=4 stride=2 relu=true", 4),
    ("conv2d_forward", "batch=130 channels=3 filters=8 height=2 width=4 layout=nchw", 4),
    ("conv2d_forward", "batch=2 channels=2 filters=9 height=3 size=1x5 pad=0x2", 3),
    ("fc_forward", "batch=64 in_features=200 out_features=24", 1),
    ("fc_forward", "batch=70 in_features=120 out_features=40 relu=true", 3),
    ("fc_forward", "batch=256 in_features=128 out_features=10", 4),
    ("maxpool2d_forward", "batch=64 channels=8 height=4 width=4", 1),
    ("maxpool2d_forward", "batch=64 channels=4 height=5 width=5 size=3", 4),
    ("maxpool2d_forward", "batch=40 channels=2 height=3 width=18 size=2x17 stride=1", 3),
    ("relu_forward", "batch=64 features=500", 1),
    ("relu_forward", "batch=65 features=333", 4),
    ("conv2d_backward_data", "batch=64 channels=8 filters=8 height=4 width=4", 1),
    ("conv2d_backward_data", "batch=33 channels=5 filters=3 height=7 stride=2 relu=true", 3),
    ("conv2d_backward_data", "batch=128 channels=8 filters=4 height=4 size=1x5 pad=0x2", 4),
    ("conv2d_backward_weight", "batch=64 channels=8 filters=8 height=4 width=4", 1),
    ("conv2d_backward_weight", "batch=48 channels=8 filters=9 strategy=tasks", 3),
    ("conv2d_backward_weight", "batch=70 channels=3 filters=8 stride=2 strategy=batch", 4),
    ("fc_backward", "batch=64 in_features=200 out_features=24", 1),
    ("fc_backward", "batch=70 in_features=120 out_features=40 lr=0.5", 3),
    ("maxpool2d_backward", "batch=64 channels=8 height=4 width=4", 1),
    ("maxpool2d_backward", "batch=40 channels=4 height=7 width=7 size=3", 4),
    ("maxpool2d_backward", "batch=5 channels=2 height=3 width=3 variant=indexed", 1),
    ("relu_backward", "batch=64 features=500", 1),
    ("sgd_update", "size=9000 lr=0.5", 4),
]


def kernel_of(name: str, params: str) -> Kernel:
    definition = LIBRARY[name]
    given = dict(part.split("=") for part in params.split())
    return small(name, **{n: definition.parameters[n].parse(text) for n, text in given.items()})


def line(title: str, cores: int, result: Run) -> str:
    report = result.report
    stalls = " ".join(f"{cause}={count}" for cause, count in report.stalls.items())
    return (
        f"{title} on {cores}:\n"
        f"    cycles {report.cycles}  packets {report.packets}"
        f"  mac_utilization {report.mac_utilization:.4f}  stalls {stalls}"
    )


def test_cycles(golden: Golden) -> None:
    # On the default engine; test_compiled_engine.py compares the other with it for the same cases.
    lines = []
    for name, params, cores in CYCLES:
        kernel = kernel_of(name, params)
        result = simulate(kernel, kernel.make_inputs(), cores=cores)
        lines.append(line(f"{name} {params}", cores, result))
    golden("cycles", "\n".join(lines))
