"""What the machine is, and the language to write programs for it; imports nothing of ours.

A kernel file needs no more than these names; transfers that are not whole buffers are described
with `isa.descriptor`.
"""

from isa.errors import Ftm7004Error, KernelError, SimulationError, UsageError
from isa.language.builder import Builder
from isa.language.emitter import unless, when_set
from isa.language.kernel import Kernel, KernelDefinition, Verdict, Work, kernel
from isa.language.parameters import Count, Padding, Pair, Rate
from isa.language.tensor import Tensor
from isa.machine import Machine

__all__ = [
    "Builder",
    "Count",
    "Ftm7004Error",
    "Kernel",
    "KernelDefinition",
    "KernelError",
    "Machine",
    "Padding",
    "Pair",
    "Rate",
    "SimulationError",
    "Tensor",
    "UsageError",
    "Verdict",
    "Work",
    "kernel",
    "unless",
    "when_set",
]
