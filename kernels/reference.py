"""The kernels' mathematics in plain numpy: the truth for runs, tests and examples.

Nothing here is shared with the simulator or with the kernels' programs. Tensors follow PyTorch:
images NCHW, weights OIHW, fully connected `x (N, K)` and `weight (M, K)`. Inputs may be float32 or
float64; all is computed and returned in float64. Sizes, strides, pads are (height, width) pairs.

Padding is skipped, never multiplied: an infinite weight that meets only padding leaves no NaN, and
a window without a real pixel gives the bias. NaN and infinity flow as in IEEE-754, unwarned.

Each sum here is linear in each of its tensors, so the function applied to absolute values is the
magnitude that bounds a float32 result's rounding: |result - truth| <= c * eps * magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from isa.errors import UsageError

Pair = tuple[int, int]
Shape4 = tuple[int, int, int, int]
Real = NDArray[np.floating[Any]]
Double = NDArray[np.float64]
Indices = NDArray[np.int64]


def output_extent(extent: int, size: int, stride: int, pad: int) -> int:
    """Return how many windows fit along one dimension (floor mode); `UsageError` if none does."""
    padded = extent + 2 * pad
    if size > padded:
        raise UsageError(
            f"no output: a window of {size} does not fit into an extent of {extent} "
            f"padded by {pad} on both sides ({padded}); use a smaller window or more padding"
        )
    return (padded - size) // stride + 1


def _meetings(extent: int, size: int, stride: int, pad: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield, along one dimension, each kernel offset that meets real pixels: the offset, the
    outputs at which it does, and the pixels that it meets there.
    """
    outputs = output_extent(extent, size, stride, pad)
    for offset in range(size):
        first = max(0, -((offset - pad) // stride))
        past = min(outputs, (extent - 1 + pad - offset) // stride + 1)
        if first < past:
            start, last = (output * stride + offset - pad for output in (first, past - 1))
            yield offset, slice(first, past), slice(start, last + 1, stride)


def conv2d_needed_macs(
    batch: int,
    channels: int,
    height: int,
    width: int,
    filters: int,
    size: Pair,
    stride: Pair,
    pad: Pair,
) -> int:
    """Count the multiply-adds on real pixels; forward and both backward passes need the same."""
    per_plane = 1
    for dimension in zip((height, width), size, stride, pad, strict=True):
        per_plane *= sum(outs.stop - outs.start for _, outs, _ in _meetings(*dimension))
    return batch * filters * channels * per_plane


@frozen
class Tap:
    """One position of the kernel, with the outputs that use it and the input pixels it meets."""

    offset: Pair
    outputs: tuple[Any, slice, slice]
    inputs: tuple[Any, slice, slice]


def taps(plane: Pair, size: Pair, stride: Pair, pad: Pair) -> Iterator[Tap]:
    """Yield the kernel's positions in row order, without those that meet padding only."""
    rows, columns = (_meetings(*d) for d in zip(plane, size, stride, pad, strict=True))
    for (m, z_rows, x_rows), (k, z_columns, x_columns) in product(rows, columns):
        yield Tap((m, k), (..., z_rows, z_columns), (..., x_rows, x_columns))


def _output_plane(plane: Pair, size: Pair, stride: Pair, pad: Pair) -> Pair:
    rows, columns = (output_extent(*d) for d in zip(plane, size, stride, pad, strict=True))
    return rows, columns


def _plane(tensor: Real) -> Pair:
    return tensor.shape[2], tensor.shape[3]


def _double(tensor: Real) -> Double:
    return np.asarray(tensor, dtype=np.float64)


def _kernel_major(weight: Real) -> Double:
    """Reorder OIHW to HWOI, where each kernel position is a contiguous (O, I) matrix."""
    return np.ascontiguousarray(_double(weight).transpose(2, 3, 0, 1))


def _across_channels(matrix: Double, images: Double) -> Double:
    """Multiply the channels of every pixel, (R, C) by (N, C, h, w), to (N, R, h, w)."""
    batch, channels, height, width = images.shape
    mixed = matrix @ images.reshape(batch, channels, height * width)
    return mixed.reshape(batch, -1, height, width)


def _check_gradient(dz: Real, plane: Pair, size: Pair, stride: Pair, pad: Pair) -> None:
    expected = _output_plane(plane, size, stride, pad)
    if _plane(dz) != expected:
        raise UsageError(
            f"dz is {_plane(dz)} pixels, but the outputs of a {size} window with stride {stride} "
            f"and pad {pad} on {plane} pixels are {expected}"
        )


@np.errstate(all="ignore")
def conv2d_forward(
    x: Real, weight: Real, bias: Real, stride: Pair, pad: Pair, relu: bool = False
) -> Double:
    """Return z (N, O, nH, nW) of x (N, C, H, W), weight (O, C, kH, kW) and bias (O,)."""
    size, images, kernel = _plane(weight), _double(x), _kernel_major(weight)
    z = np.empty((len(x), len(weight), *_output_plane(_plane(x), size, stride, pad)))
    z[:] = _double(bias)[:, None, None]
    for tap in taps(_plane(x), size, stride, pad):
        z[tap.outputs] += _across_channels(kernel[tap.offset], images[tap.inputs])
    return relu_forward(z) if relu else z


@np.errstate(all="ignore")
def conv2d_backward_data(
    dz: Real, weight: Real, input_shape: Shape4, stride: Pair, pad: Pair, x: Real | None = None
) -> Double:
    """Return dx of `input_shape` (N, C, H, W); given x, dx is masked to 0 where x <= 0 (ReLU).

    Images are independent: a sample of a large run is `dz[picked]` and `x[picked]`.
    """
    plane, size = input_shape[2:], _plane(weight)
    _check_gradient(dz, plane, size, stride, pad)
    gradient, kernel, dx = _double(dz), _kernel_major(weight), np.zeros(input_shape)
    for tap in taps(plane, size, stride, pad):
        dx[tap.inputs] += _across_channels(kernel[tap.offset].T, gradient[tap.outputs])
    return dx if x is None else relu_backward(x, dx)


@np.errstate(all="ignore")
def conv2d_backward_weight(
    x: Real, dz: Real, weight_shape: Shape4, stride: Pair, pad: Pair
) -> tuple[Double, Double]:
    """Return (dweight of `weight_shape` (O, C, kH, kW), dbias (O,)), summed over the batch.

    Channel pairs are independent: a sample of a large run is `x[:, picked]` and `dz[:, picked]`.
    """
    plane, size = _plane(x), weight_shape[2:]
    _check_gradient(dz, plane, size, stride, pad)
    images, gradient, dweight = _double(x), _double(dz), np.zeros(weight_shape)
    axes = ((0, 2, 3), (0, 2, 3))
    for tap in taps(plane, size, stride, pad):
        dweight[(..., *tap.offset)] = np.tensordot(gradient[tap.outputs], images[tap.inputs], axes)
    return dweight, gradient.sum(axis=(0, 2, 3))


def conv2d_magnitude(x: Real, weight: Real, bias: Real, stride: Pair, pad: Pair) -> Double:
    """Return the sums of |x| * |weight| + |bias| behind every output of `conv2d_forward`."""
    return conv2d_forward(np.abs(x), np.abs(weight), np.abs(bias), stride, pad)


def _real_part(extent: int, size: int, start: int) -> tuple[slice, slice]:
    """Return the kernel offsets and the pixels of the window at `start` that are not padding."""
    first = max(0, -start)
    past = max(first, min(size, extent - start))
    return slice(first, past), slice(start + first, start + past)


def windows(
    x: Real, weight: Real, stride: Pair, pad: Pair, points: NDArray[np.integer[Any]]
) -> Iterator[tuple[int, Double, Double]]:
    """Yield for each output (n, o, i, j): o, then its real pixels and their weights, (C, h, w)."""
    outputs = (len(x), len(weight), *_output_plane(_plane(x), _plane(weight), stride, pad))
    for point in points.tolist():
        if not all(0 <= place < limit for place, limit in zip(point, outputs, strict=True)):
            raise UsageError(f"there is no output at {point}: the outputs' shape is {outputs}")
        n, o, *place = point
        (m, rows), (k, columns) = (
            _real_part(extent, size, at * step - margin)
            for extent, size, at, step, margin in zip(
                _plane(x), _plane(weight), place, stride, pad, strict=True
            )
        )
        yield o, _double(x[n, :, rows, columns]), _double(weight[o, :, m, k])


@np.errstate(all="ignore")
def conv2d_forward_points(
    x: Real,
    weight: Real,
    bias: Real,
    stride: Pair,
    pad: Pair,
    relu: bool,
    points: NDArray[np.integer[Any]],
) -> Double:
    """Return only the outputs at `points`, rows of (n, o, i, j): a sample of a large run."""
    seen = windows(x, weight, stride, pad, points)
    z = np.array([float(bias[o]) + (pixels * kernel).sum() for o, pixels, kernel in seen])
    return relu_forward(z) if relu else z


@np.errstate(all="ignore")
def conv2d_magnitude_points(
    x: Real,
    weight: Real,
    bias: Real,
    stride: Pair,
    pad: Pair,
    points: NDArray[np.integer[Any]],
) -> Double:
    """Return `conv2d_magnitude` at `points`, rows of (n, o, i, j)."""
    seen = windows(x, weight, stride, pad, points)
    return np.array(
        [abs(float(bias[o])) + np.abs(pixels * kernel).sum() for o, pixels, kernel in seen]
    )


@np.errstate(all="ignore")
def maxpool2d_forward(x: Real, size: Pair, stride: Pair) -> tuple[Double, Indices]:
    """Return z and index (N, C, nH, nW); an index is the flat h * W + w of the maximum's pixel.

    The first of equal maxima wins. A NaN beats every number, and a later NaN an earlier one, as in
    PyTorch. Windows are not padded; pixels beyond the last whole window are left out (floor mode).
    """
    no_pad = (0, 0)
    images, (height, width) = _double(x), _plane(x)
    rows, columns = _output_plane((height, width), size, stride, no_pad)
    corner = (np.arange(rows) * stride[0] * width)[:, None] + np.arange(columns) * stride[1]
    z = np.full((*x.shape[:2], rows, columns), -np.inf)
    index = np.broadcast_to(corner, z.shape).astype(np.int64)
    for tap in taps((height, width), size, stride, no_pad):
        pixels = images[tap.inputs]
        wins = (pixels > z) | np.isnan(pixels)
        z = np.where(wins, pixels, z)
        index = np.where(wins, corner + (tap.offset[0] * width + tap.offset[1]), index)
    return z, index


@np.errstate(all="ignore")
def maxpool2d_backward(dz: Real, index: NDArray[np.integer[Any]], input_shape: Shape4) -> Double:
    """Return dx of `input_shape`: every dz added to the pixel that its index names."""
    batch, channels, height, width = input_shape
    pixels = height * width
    if index.min() < 0 or index.max() >= pixels:
        raise UsageError(
            f"index reaches from {index.min()} to {index.max()}, but a plane of "
            f"{height} x {width} has the pixels 0 to {pixels - 1}"
        )
    planes = np.arange(batch * channels).reshape(batch, channels, 1, 1) * pixels
    places = (planes + index).ravel()
    dx = np.zeros(batch * channels * pixels)
    np.add.at(dx, places, _double(dz).ravel())
    return dx.reshape(input_shape)


@np.errstate(all="ignore")
def fc_forward(x: Real, weight: Real, bias: Real, relu: bool = False) -> Double:
    """Return z (N, M) of x (N, K), weight (M, K) and bias (M,)."""
    z: Double = _double(x) @ _double(weight).T + _double(bias)
    return relu_forward(z) if relu else z


def fc_magnitude(x: Real, weight: Real, bias: Real) -> Double:
    """Return the sums of |x| * |weight| + |bias| behind every output of `fc_forward`."""
    return fc_forward(np.abs(x), np.abs(weight), np.abs(bias))


@np.errstate(all="ignore")
def fc_backward(
    x: Real, weight: Real, dz: Real, lr: float | None = None, bias: Real | None = None
) -> dict[str, Double]:
    """Return dx (N, K), dweight (M, K), dbias (M,) by name; with a learning rate the updated
    weight and bias as well. dx always uses the weight from before the update.
    """
    gradient = _double(dz)
    dweight, dbias = gradient.T @ _double(x), gradient.sum(axis=0)
    results = {"dx": gradient @ _double(weight), "dweight": dweight, "dbias": dbias}
    if lr is None:
        return results
    if bias is None:
        raise UsageError("fc_backward with a learning rate updates the bias too: give it the bias")
    updated = {"weight": sgd_update(weight, dweight, lr), "bias": sgd_update(bias, dbias, lr)}
    return results | updated


@np.errstate(all="ignore")
def relu_forward(x: Real) -> Double:
    """Return max(x, 0) of any shape; NaN stays NaN and -0 becomes 0."""
    values = _double(x)
    return np.where(values <= 0, 0.0, values)


@np.errstate(all="ignore")
def relu_backward(x: Real, dz: Real) -> Double:
    """Return dz where x > 0 (or x is NaN) and 0 where x <= 0, of any shape."""
    return np.where(_double(x) <= 0, 0.0, _double(dz))


@np.errstate(all="ignore")
def sgd_update(weight: Real, dweight: Real, lr: float) -> Double:
    """Return weight - lr * dweight, of any shape."""
    updated: Double = _double(weight) - lr * _double(dweight)
    return updated
