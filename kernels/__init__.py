"""Programs for the chip: the operators of convolutional networks, by name in `LIBRARY`."""

from isa.language.kernel import KernelDefinition
from kernels.conv import conv2d_forward
from kernels.elementwise import relu_forward
from kernels.fully_connected import fc_forward
from kernels.pool import maxpool2d_forward

LIBRARY: dict[str, KernelDefinition] = {
    definition.name: definition
    for definition in (conv2d_forward, maxpool2d_forward, fc_forward, relu_forward)
}
"""Every kernel of the library, in the order of the documentation."""

__all__ = ["LIBRARY", "conv2d_forward", "fc_forward", "maxpool2d_forward", "relu_forward"]
