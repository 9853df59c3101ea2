"""Named layer shapes of well-known networks, for `--layer vgg16/conv3_1` and the benchmarks.

A layer is a kernel's name and its shape parameters; the batch is the caller's choice. A
convolution's shape holds for its forward and both backward kernels alike, so the options that only
some of them know (`relu`, `layout`) are the caller's as well. Sources: VGG16 is configuration D of
Simonyan and Zisserman (2014) on 224 x 224 images; ResNet-50 is the table of 20 distinct
convolutions in Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD
Architectures" (2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from attrs import field, frozen

from isa.errors import UsageError, unknown


def _read_only(params: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(params))


@frozen
class Layer:
    """One layer of a network: its full name, the forward kernel, that kernel's shape parameters."""

    name: str
    kernel: str
    params: Mapping[str, int] = field(converter=_read_only, hash=False)


# stage -> (image extent, channels before the stage, output channels of its convolutions)
_VGG16_STAGES = (
    (224, 3, (64, 64)),
    (112, 64, (128, 128)),
    (56, 128, (256, 256, 256)),
    (28, 256, (512, 512, 512)),
    (14, 512, (512, 512, 512)),
)
_VGG16_FULLY_CONNECTED = (
    ("fc6", 512 * 7 * 7, 4096),
    ("fc7", 4096, 4096),
    ("fc8", 4096, 1000),
)
# (channels, filters, image extent, kernel size, stride), in the order of the published table
_RESNET50_CONVOLUTIONS = (
    (3, 64, 224, 7, 2),
    (64, 256, 56, 1, 1),
    (64, 64, 56, 1, 1),
    (64, 64, 56, 3, 1),
    (256, 64, 56, 1, 1),
    (256, 512, 56, 1, 2),
    (256, 128, 56, 1, 2),
    (128, 128, 28, 3, 1),
    (128, 512, 28, 1, 1),
    (512, 128, 28, 1, 1),
    (512, 1024, 28, 1, 2),
    (512, 256, 28, 1, 2),
    (256, 256, 14, 3, 1),
    (256, 1024, 14, 1, 1),
    (1024, 256, 14, 1, 1),
    (1024, 2048, 14, 1, 2),
    (1024, 512, 14, 1, 2),
    (512, 512, 7, 3, 1),
    (512, 2048, 7, 1, 1),
    (2048, 512, 7, 1, 1),
)


def _convolution(
    name: str, channels: int, filters: int, extent: int, size: int, stride: int
) -> Layer:
    params = {
        "channels": channels,
        "height": extent,
        "width": extent,
        "filters": filters,
        "size": size,
        "stride": stride,
        "pad": (size - 1) // 2,
    }
    return Layer(name, "conv2d_forward", params)


def _pooling(name: str, channels: int, extent: int) -> Layer:
    params = {"channels": channels, "height": extent, "width": extent, "size": 2, "stride": 2}
    return Layer(name, "maxpool2d_forward", params)


def _vgg16() -> Iterator[Layer]:
    for stage, (extent, channels, widths) in enumerate(_VGG16_STAGES, start=1):
        for position, filters in enumerate(widths, start=1):
            name = f"vgg16/conv{stage}_{position}"
            yield _convolution(name, channels, filters, extent, size=3, stride=1)
            channels = filters
        yield _pooling(f"vgg16/pool{stage}", channels, extent)
    for short, inputs, outputs in _VGG16_FULLY_CONNECTED:
        params = {"in_features": inputs, "out_features": outputs}
        yield Layer(f"vgg16/{short}", "fc_forward", params)


def _resnet50() -> Iterator[Layer]:
    for position, shape in enumerate(_RESNET50_CONVOLUTIONS, start=1):
        yield _convolution(f"resnet50/conv{position:02}", *shape)


#: Every layer by its full name, in the order in which its network (or the published table) has it.
LAYERS: Mapping[str, Layer] = MappingProxyType(
    {layer.name: layer for network in (_vgg16(), _resnet50()) for layer in network}
)


def layer(name: str) -> Layer:
    """Return the layer called that, such as "vgg16/conv3_1"; `UsageError` if there is none."""
    if name not in LAYERS:
        raise UsageError(unknown("layer", name, LAYERS))
    return LAYERS[name]
