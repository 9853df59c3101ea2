"""What the machine is, and the language to write programs for it; imports nothing of ours.

A kernel file needs no more than these names.
"""

from isa.builder import Builder
from isa.emitter import unless, when_set
from isa.errors import Ftm7004Error, KernelError, SimulationError, UsageError
from isa.kernel import Kernel, KernelDefinition, Verdict, Work, kernel
from isa.machine import Machine
from isa.parameters import Count, Padding, Pair
from isa.tensor import Tensor

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
    "SimulationError",
    "Tensor",
    "UsageError",
    "Verdict",
    "Work",
    "kernel",
    "unless",
    "when_set",
]
