"""Programs for the chip: the operators of convolutional networks, by name in `LIBRARY`."""

from isa.kernel import KernelDefinition
from kernels.conv import conv2d_forward
from kernels.fully_connected import fc_forward

LIBRARY: dict[str, KernelDefinition] = {
    definition.name: definition
    for definition in (conv2d_forward, fc_forward)
}
"""Every kernel of the library, in the order of the documentation."""

__all__ = ["LIBRARY", "conv2d_forward", "fc_forward"]
