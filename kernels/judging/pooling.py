"""Were maxima and their gradients right: the `verify` functions of max pooling.

Forward, nothing rounds: values and indices must be equal. Backward, one gradient must arrive to the
bit and several within what their roundings add up to. Of a large result whole planes are compared,
all pixels of random channels of random images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

from isa import Verdict
from isa.language.comparison import compare_floats, compare_integers, verdict
from kernels import reference
from kernels.judging import sampling
from kernels.judging.rounding import ROUNDING, finite, unless_overflowing

Array = np.ndarray[Any, Any]


def verify_maxima(p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Verdict:
    """Compare z and index of max pooling: all of them, or a sample of planes."""
    planes = _Planes.of(p)
    x, z, index = (planes.take(t) for t in (inputs["x"], outputs["z"], outputs["index"]))
    values, pixels = reference.maxpool2d_forward(x, p.size, p.stride)
    places, flat = planes.places(z.shape), planes.flat
    comparisons = [
        compare_floats("z", flat(z), flat(values), flat(np.zeros(z.shape)), places),
        compare_integers("index", flat(index), flat(pixels), places),
    ]
    return verdict(comparisons, planes.sample_of(outputs))


def verify_pooling_gradient(
    p: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Verdict:
    """Compare dx of max pooling: all of it, or a sample of planes."""
    planes = _Planes.of(p)
    dz, index, dx = (planes.take(t) for t in (inputs["dz"], inputs["index"], outputs["dx"]))
    truth = reference.maxpool2d_backward(dz, index, dx.shape)
    overlap = p.size[0] > p.stride[0] or p.size[1] > p.stride[1]
    limits = _limits(dz, index, dx.shape) if overlap else np.zeros(dx.shape)
    places, flat = planes.places(dx.shape), planes.flat
    compared = compare_floats("dx", flat(dx), flat(truth), flat(limits), places)
    return verdict([compared], planes.sample_of(outputs))


@frozen
class _Planes:
    """The planes of a batch that are compared: of some images some channels, or all of them."""

    picked: tuple[Array, Array] | None

    @staticmethod
    def of(p: Any) -> _Planes:
        if p.batch * p.channels * p.height * p.width <= sampling.PIXELS:
            return _Planes(None)
        generator = np.random.default_rng(sampling.SEED)
        images = sampling.choose(generator, p.batch, sampling.IMAGES)
        return _Planes((images, sampling.choose(generator, p.channels, sampling.FILTERS)))

    def take(self, tensor: Array) -> Array:
        return tensor if self.picked is None else tensor[np.ix_(*self.picked)]

    def flat(self, taken: Array) -> Array:
        """Return the elements of a taken tensor as `places` numbers them; a whole one as it is."""
        return taken if self.picked is None else taken.ravel()

    def places(self, shape: tuple[int, ...]) -> Array | None:
        """Return where in the whole tensor each element of the taken one sits, (values, 4)."""
        if self.picked is None:
            return None
        grid = np.meshgrid(*self.picked, *map(np.arange, shape[2:]), indexing="ij")
        return np.stack([axis.ravel() for axis in grid], axis=1)

    def sample_of(self, outputs: Mapping[str, Array]) -> int:
        """Return the number of values the planes are a sample of; 0 if they are all."""
        return 0 if self.picked is None else sum(tensor.size for tensor in outputs.values())


@np.errstate(all="ignore")
def _limits(dz: Array, index: Array, shape: tuple[int, ...]) -> Array:
    """Return how far each dx may be off: n gradients round n - 1 times, by 2**-24 of a sum.

    No sum of finite gradients is larger than the sum of their magnitudes.
    """
    plane = (shape[0], shape[1], shape[2], shape[3])
    terms = reference.maxpool2d_backward(np.ones_like(dz), index, plane)
    magnitude = reference.maxpool2d_backward(np.abs(finite(dz)), index, plane)
    roundings = np.maximum(terms - 1, 0)
    limits = ROUNDING * (1 + ROUNDING) ** roundings * roundings * magnitude
    return unless_overflowing(limits, magnitude)
