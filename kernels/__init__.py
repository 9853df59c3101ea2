"""Programs for the chip: the operators of convolutional networks, by name in `LIBRARY`."""

from isa.language.kernel import KernelDefinition
from kernels.conv import conv2d_forward
from kernels.conv_data import conv2d_backward_data
from kernels.conv_weight import conv2d_backward_weight
from kernels.elementwise import relu_backward, relu_forward, sgd_update
from kernels.fully_connected import fc_forward
from kernels.fully_connected_backward import fc_backward
from kernels.pool import maxpool2d_backward, maxpool2d_forward

LIBRARY: dict[str, KernelDefinition] = {
    definition.name: definition
    for definition in (
        conv2d_forward,
        conv2d_backward_data,
        conv2d_backward_weight,
        maxpool2d_forward,
        maxpool2d_backward,
        fc_forward,
        fc_backward,
        relu_forward,
        relu_backward,
        sgd_update,
    )
}
"""Every kernel of the library, in the order of the documentation."""

__all__ = [
    "LIBRARY",
    "conv2d_backward_data",
    "conv2d_backward_weight",
    "conv2d_forward",
    "fc_backward",
    "fc_forward",
    "maxpool2d_backward",
    "maxpool2d_forward",
    "relu_backward",
    "relu_forward",
    "sgd_update",
]
