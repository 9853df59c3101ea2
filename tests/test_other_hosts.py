"""Machine code for processors that this host may not be: the same bits without AVX or multiply-add.

Code for the plainest x86-64 runs on every x86 host. For Arm and for AVX-512 it is only generated.
"""

from __future__ import annotations

import platform

import numpy as np
import pytest
from llvmlite import binding

import kernels
from kernel_run import machine
from simulator.compiled import core, native
from simulator.compiled.core import Compiled
from simulator.simulate import simulate
from test_goldens import kernel_of

SMALL = [
    ("conv2d_forward", "batch=20 channels=3 filters=9 height=4 width=4"),
    ("maxpool2d_forward", "batch=17 channels=2 height=5 width=5"),
]


class OtherHost(native.Host):
    """This computer, taken for one with another processor."""

    processor_name = "x86-64"

    def __init__(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(binding, "get_host_cpu_name", lambda: self.processor_name)
            patch.setattr(native, "_features", lambda: "")
            super().__init__()


@pytest.fixture
def plain_host(monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("code for x86-64 does not run here")
    monkeypatch.setattr(native, "_hosts", [OtherHost()])
    monkeypatch.setenv("FTM7004_CACHE", "off")


@pytest.mark.parametrize(("name", "params"), SMALL)
def test_the_same_bits_without_vectors_of_the_host(
    name: str, params: str, plain_host: None
) -> None:
    kernel = kernel_of(name, params)
    inputs = kernel.make_inputs(5)
    assert native.vector_registers() == (16, 16)
    # The code must be made anew: what other tests compiled is for this host.
    run = simulate(kernel, inputs, engine="compiled", machine=machine("dma.launch_cycles=61"))
    one = simulate(kernel, inputs, engine="reference", machine=machine("dma.launch_cycles=61"))
    assert run.report.engine == "compiled"
    assert run.result == one.result
    for tensor in one.outputs:
        np.testing.assert_array_equal(run.outputs[tensor], one.outputs[tensor])


@pytest.mark.parametrize(
    ("triple", "processor", "features"),
    [
        ("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f"),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon"),
    ],
)
def test_code_for_other_processors_is_generated(
    triple: str, processor: str, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(triple)
    other = OtherHost.__new__(OtherHost)
    other.triple, other.processor, other.features = triple, processor, features
    other.machine = target.create_target_machine(cpu=processor, features=features, opt=1)
    monkeypatch.setattr(native, "_hosts", [other])
    program = kernels.conv2d_forward(batch=64, channels=8, height=3, width=3).program(machine())
    made = core._object_code(Compiled(program, machine()).plan)
    assert len(made) > 10_000
