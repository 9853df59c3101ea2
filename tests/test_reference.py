"""The numpy truth against numbers worked by hand, the definition as plain loops, and PyTorch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from attrs import evolve, frozen

from isa.errors import UsageError
from kernels import layers, reference


@frozen
class Shape:
    """One convolution: image (batch, channels, height, width), filters, and its geometry."""

    image: tuple[int, int, int, int]
    filters: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return (self.filters, self.image[1], *self.size)

    @property
    def output(self) -> tuple[int, int, int, int]:
        """By trial: window tops from -pad, every stride, while the window fits the padded image."""
        places = (
            len(range(-pad, extent + pad - size + 1, stride))
            for extent, size, stride, pad in zip(
                self.image[2:], self.size, self.stride, self.pad, strict=True
            )
        )
        return (self.image[0], self.filters, *places)


SHAPES = [
    Shape((1, 1, 1, 1), 1, (1, 1)),
    Shape((1, 2, 4, 5), 3, (3, 3), pad=(1, 1)),
    Shape((5, 3, 6, 4), 2, (1, 5), pad=(0, 2)),
    Shape((17, 2, 5, 7), 3, (3, 2), stride=(2, 1), pad=(1, 0)),
    Shape((2, 3, 7, 7), 4, (1, 1), stride=(2, 2)),
    Shape((5, 1, 8, 3), 2, (3, 3), stride=(3, 2), pad=(2, 1)),
    Shape((1, 2, 3, 4), 2, (2, 3), stride=(1, 2), pad=(3, 3)),
    Shape((3, 2, 2, 2), 2, (1, 1), pad=(2, 1)),
    Shape((2, 1, 2, 3), 1, (5, 4), stride=(2, 1), pad=(3, 2)),
    Shape((1, 2, 9, 2), 2, (2, 2), stride=(4, 5), pad=(0, 3)),
]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tensors(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    sizes = (shape.image, shape.weight, (shape.filters,), shape.output)
    x, weight, bias, dz = (random(size, seed) for seed, size in enumerate(sizes))
    return x, weight, bias, dz


def products(shape: Shape) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the places in z, x and weight of every multiply-add, by seven loops."""
    (st_h, st_w), (pad_h, pad_w), (_, _, height, width) = shape.stride, shape.pad, shape.image
    for n, o, i, j in product(*map(range, shape.output)):
        for c, m, k in product(*map(range, shape.weight[1:])):
            h, w = i * st_h + m - pad_h, j * st_w + k - pad_w
            if 0 <= h < height and 0 <= w < width:
                yield (n, o, i, j), (n, c, h, w), (o, c, m, k)


def close(result: np.ndarray, expected: Any) -> None:
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, np.asarray(expected), rtol=1e-12, atol=1e-12)


@pytest.fixture
def torch() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


# ---- by hand


def test_convolution_by_hand() -> None:
    # image 1 2 3   kernel 1 10   pad 1 on the left and right only, stride 2 along the width:
    #       4 5 6                 windows (0 1) (2 3); (0 4) (5 6); bias 0.5
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 2, 3)
    weight = np.array([1, 10], dtype=np.float32).reshape(1, 1, 1, 2)
    bias = np.array([0.5], dtype=np.float32)
    z = reference.conv2d_forward(x, weight, bias, (1, 2), (0, 1))
    assert z.tolist() == [[[[10.5, 32.5], [40.5, 65.5]]]]

    # dz 1 2: pixel 1 met weight 10 of the first window; 2 and 3 met 1 and 10 of the second.
    #    3 4
    dz = np.array([[1, 2], [3, 4]], dtype=np.float32).reshape(1, 1, 2, 2)
    dx = reference.conv2d_backward_data(dz, weight, (1, 1, 2, 3), (1, 2), (0, 1))
    assert dx.tolist() == [[[[10, 2, 20], [30, 4, 40]]]]

    # weight 1 met padding, 2, padding, 5: 2*2 + 4*5 = 24; weight 10 met 1 3 4 6:
    # 1*1 + 2*3 + 3*4 + 4*6 = 43.
    dweight, dbias = reference.conv2d_backward_weight(x, dz, (1, 1, 1, 2), (1, 2), (0, 1))
    assert dweight.tolist() == [[[[24, 43]]]]
    assert dbias.tolist() == [10]


def test_relu_of_a_convolution_masks_forward_and_backward() -> None:
    x = np.array([-1, 0, 2], dtype=np.float32).reshape(1, 1, 1, 3)
    weight = np.full((1, 1, 1, 1), 3, dtype=np.float32)
    bias = np.array([1], dtype=np.float32)
    z = reference.conv2d_forward(x, weight, bias, (1, 1), (0, 0), relu=True)
    assert z.tolist() == [[[[0, 1, 7]]]]  # -2 is cut
    dx = reference.conv2d_backward_data(z, weight, (1, 1, 1, 3), (1, 1), (0, 0), x=x)
    assert dx.tolist() == [[[[0, 0, 21]]]]  # x = 0 passes nothing


def test_sums_are_wider_than_float32() -> None:
    # 2^24 + 1 - 2^24: float32 cannot hold 2^24 + 1 and would give 0.
    x = np.array([2**24, 1, -(2**24)], dtype=np.float32)
    ones, zero = np.ones((1, 3, 1, 1), dtype=np.float32), np.zeros(1, dtype=np.float32)
    z = reference.conv2d_forward(x.reshape(1, 3, 1, 1), ones, zero, (1, 1), (0, 0))
    assert z.tolist() == [[[[1]]]]
    assert reference.fc_forward(x[None], ones.reshape(1, 3), zero).tolist() == [[1]]


def test_padding_is_skipped_not_multiplied_by_zero() -> None:
    # The infinite weight meets the pixel at one output only; elsewhere it meets padding.
    x = np.ones((1, 1, 1, 1), dtype=np.float32)
    weight = np.array([np.inf, 2], dtype=np.float32).reshape(1, 1, 1, 2)
    bias = np.array([5], dtype=np.float32)
    z = reference.conv2d_forward(x, weight, bias, (1, 1), (0, 2))
    assert z.tolist() == [[[[5, 7, math.inf, 5]]]]


def test_nan_and_infinity_flow_without_warnings() -> None:
    x = np.array([np.inf, 1], dtype=np.float32).reshape(1, 2, 1, 1)
    weight = np.array([[0, 1], [np.nan, 1], [-1, 1]], dtype=np.float32).reshape(3, 2, 1, 1)
    bias = np.zeros(3, dtype=np.float32)
    expected = [math.nan, math.nan, -math.inf]  # inf * 0 + 1, nan, -inf + 1
    z = reference.conv2d_forward(x, weight, bias, (1, 1), (0, 0))
    close(z.ravel(), expected)
    points = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]])
    sample = reference.conv2d_forward_points(x, weight, bias, (1, 1), (0, 0), False, points)
    close(sample, expected)
    flat = reference.fc_forward(x.reshape(1, 2), weight.reshape(3, 2), bias, relu=True)
    close(flat.ravel(), [math.nan, math.nan, 0])


def test_max_pooling_by_hand() -> None:
    # 1 3 3 0 9   2 x 2 windows at stride 2; the fifth column has no whole window.
    # 2 3 7 7 9   First maximum: 3 at flat 1 (not 6); 7 at flat 7 (not 8).
    x = np.array([[1, 3, 3, 0, 9], [2, 3, 7, 7, 9]], dtype=np.float32).reshape(1, 1, 2, 5)
    z, index = reference.maxpool2d_forward(x, (2, 2), (2, 2))
    assert z.tolist() == [[[[3, 7]]]]
    assert (index.dtype, index.tolist()) == (np.int64, [[[[1, 7]]]])

    # Windows of 1 x 3 at stride 1 overlap: 7 at flat 7 wins twice and gets both gradients.
    _, index = reference.maxpool2d_forward(x[:, :, 1:, :4], (1, 3), (1, 1))
    assert index.tolist() == [[[[2, 2]]]]
    dz = np.array([10, 5], dtype=np.float32).reshape(1, 1, 1, 2)
    dx = reference.maxpool2d_backward(dz, index, (1, 1, 1, 4))
    assert dx.tolist() == [[[[0, 0, 15, 0]]]]


def test_pooling_keeps_planes_apart_and_lets_nan_win() -> None:
    nan, inf = math.nan, math.inf
    x = np.array([[5, nan, 6, 7], [-inf, -inf, -inf, -inf]], dtype=np.float32)
    z, index = reference.maxpool2d_forward(x.reshape(1, 2, 2, 2), (2, 2), (2, 2))
    close(z.ravel(), [nan, -inf])
    assert index.ravel().tolist() == [1, 0]
    dx = reference.maxpool2d_backward(np.array([[[[3]], [[4]]]]), index, (1, 2, 2, 2))
    assert dx.reshape(2, 4).tolist() == [[0, 3, 0, 0], [4, 0, 0, 0]]


def test_fully_connected_by_hand() -> None:
    x = np.array([[1, 2], [3, -1]], dtype=np.float32)
    weight = np.array([[1, 0], [2, 1], [0, -4]], dtype=np.float32)
    bias = np.array([0, 10, 1], dtype=np.float32)
    assert reference.fc_forward(x, weight, bias).tolist() == [[1, 14, -7], [3, 15, 5]]
    assert reference.fc_magnitude(x, weight, bias).tolist() == [[1, 14, 9], [3, 17, 5]]

    dz = np.array([[1, 0, 2], [0, 1, -1]], dtype=np.float32)
    plain = reference.fc_backward(x, weight, dz)
    assert {key: value.tolist() for key, value in plain.items()} == {
        "dx": [[1, -8], [2, 5]],
        "dweight": [[1, 2], [3, -1], [-1, 5]],
        "dbias": [1, 1, 1],
    }
    updated = reference.fc_backward(x, weight, dz, lr=0.5, bias=bias)
    assert updated["dx"].tolist() == [[1, -8], [2, 5]]  # with the old weight
    assert updated["weight"].tolist() == [[0.5, -1], [0.5, 1.5], [0.5, -6.5]]
    assert updated["bias"].tolist() == [-0.5, 9.5, 0.5]


def test_elementwise_by_hand() -> None:
    x = np.array([-1, -0.0, 0, 2, np.nan, -np.inf], dtype=np.float32)
    z = reference.relu_forward(x)
    close(z, [0, 0, 0, 2, math.nan, 0])
    assert not np.signbit(z).any()
    dz = np.full(6, 7, dtype=np.float32)
    close(reference.relu_backward(x, dz), [0, 0, 0, 7, 7, 0])
    weight, dweight = np.array([1, 2], np.float32), np.array([4, -4], np.float32)
    close(reference.sgd_update(weight, dweight, 0.25), [0, 3])


# ---- by the definition, as plain loops


@each_shape
def test_convolution_by_seven_loops(shape: Shape) -> None:
    x, weight, bias, dz = tensors(shape)
    z = np.broadcast_to(bias[None, :, None, None], shape.output).astype(float).tolist()
    dx, dweight = np.zeros(shape.image), np.zeros(shape.weight)
    for at, pixel, tap in products(shape):
        n, o, i, j = at
        z[n][o][i][j] += float(x[pixel]) * float(weight[tap])
        dx[pixel] += float(dz[at]) * float(weight[tap])
        dweight[tap] += float(dz[at]) * float(x[pixel])
    geometry = shape.stride, shape.pad
    close(reference.conv2d_forward(x, weight, bias, *geometry), z)
    close(reference.conv2d_backward_data(dz, weight, shape.image, *geometry), dx)
    results = reference.conv2d_backward_weight(x, dz, shape.weight, *geometry)
    close(results[0], dweight)
    close(results[1], [math.fsum(dz[:, o].ravel().tolist()) for o in range(shape.filters)])


@each_shape
def test_needed_multiply_adds_by_counting(shape: Shape) -> None:
    count = sum(1 for _ in products(shape))
    geometry = shape.size, shape.stride, shape.pad
    assert reference.conv2d_needed_macs(*shape.image, shape.filters, *geometry) == count


@each_shape
def test_points_and_magnitudes_by_seven_loops(shape: Shape) -> None:
    x, weight, bias, _ = tensors(shape)
    points = np.argwhere(np.ones(shape.output))[::-1]
    z = {tuple(point): float(bias[point[1]]) for point in points.tolist()}
    size = {point: abs(value) for point, value in z.items()}
    for at, pixel, tap in products(shape):
        term = float(x[pixel]) * float(weight[tap])
        z[at] += term
        size[at] += abs(term)
    picked = [tuple(point) for point in points.tolist()]
    geometry = shape.stride, shape.pad
    sample = reference.conv2d_forward_points(x, weight, bias, *geometry, False, points)
    close(sample, [z[point] for point in picked])
    cut = reference.conv2d_forward_points(x, weight, bias, *geometry, True, points)
    close(cut, [max(z[point], 0) for point in picked])
    bounds = reference.conv2d_magnitude_points(x, weight, bias, *geometry, points)
    close(bounds, [size[point] for point in picked])
    whole = reference.conv2d_magnitude(x, weight, bias, *geometry)
    close(whole[tuple(points.T)], bounds)


# ---- by PyTorch


@each_shape
def test_convolution_as_pytorch(shape: Shape, torch: ModuleType) -> None:
    x, weight, bias, dz = (torch.tensor(part, dtype=torch.float64) for part in tensors(shape))
    for leaf in (x, weight, bias):
        leaf.requires_grad_()
    z = torch.nn.functional.conv2d(torch.relu(x), weight, bias, shape.stride, shape.pad)
    z.backward(dz)
    arrays = [part.detach().numpy() for part in (x, weight, bias, dz)]
    host_x, host_weight, host_bias, host_dz = arrays
    rectified, geometry = reference.relu_forward(host_x), (shape.stride, shape.pad)
    close(reference.conv2d_forward(rectified, host_weight, host_bias, *geometry), z.detach())
    cut = reference.conv2d_forward(rectified, host_weight, host_bias, *geometry, relu=True)
    close(cut, torch.relu(z).detach())
    dx = reference.conv2d_backward_data(host_dz, host_weight, shape.image, *geometry, x=host_x)
    close(dx, x.grad)
    results = reference.conv2d_backward_weight(rectified, host_dz, shape.weight, *geometry)
    close(results[0], weight.grad)
    close(results[1], bias.grad)


@pytest.mark.parametrize(
    ("size", "stride"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((1, 4), (3, 1)), ((2, 1), (3, 4))]
)
@pytest.mark.parametrize("with_nan", [False, True])
def test_max_pooling_as_pytorch(
    size: tuple[int, int], stride: tuple[int, int], with_nan: bool, torch: ModuleType
) -> None:
    # Few distinct values, so that most windows hold equal maxima.
    x = np.random.default_rng(3).integers(-2, 3, (5, 3, 7, 9)).astype(np.float64)
    if with_nan:
        x[x == -2] = np.nan
        x[0, 0] = -np.inf
    leaf = torch.tensor(x, requires_grad=True)
    z, index = torch.nn.functional.max_pool2d(leaf, size, stride, return_indices=True)
    dz = random(tuple(z.shape), 4)
    z.backward(torch.tensor(dz, dtype=torch.float64))
    ours, our_index = reference.maxpool2d_forward(x, size, stride)
    np.testing.assert_array_equal(ours, z.detach().numpy())
    np.testing.assert_array_equal(our_index, index.numpy())
    close(reference.maxpool2d_backward(dz, our_index, (5, 3, 7, 9)), leaf.grad)


def test_fully_connected_training_step_as_pytorch(torch: ModuleType) -> None:
    arrays = [random(shape, 7).astype(np.float64) for shape in ((5, 11), (3, 11), (3,), (5, 3))]
    x, weight, bias, dz = arrays
    leaves = [torch.tensor(part, requires_grad=True) for part in (x, weight, bias)]
    z = torch.nn.functional.linear(*leaves)
    z.backward(torch.tensor(dz))
    close(reference.fc_forward(x, weight, bias), z.detach())
    results = reference.fc_backward(x, weight, dz, lr=0.1, bias=bias)
    for key, leaf in zip(("dx", "dweight", "dbias"), leaves, strict=True):
        close(results[key], leaf.grad)
    torch.optim.SGD(leaves[1:], lr=0.1).step()
    for key, leaf in zip(("weight", "bias"), leaves[1:], strict=True):
        close(results[key], leaf.detach())


# ---- what is refused


def test_wrong_geometry_is_named() -> None:
    with pytest.raises(UsageError, match=r"window of 6 .* extent of 3 padded by 1 .*\(5\)"):
        reference.output_extent(3, 6, 1, 1)
    assert reference.output_extent(3, 5, 4, 1) == 1
    assert reference.output_extent(8, 3, 2, 0) == 3  # (8 - 3) / 2 = 2.5, floor, + 1
    shape = evolve(SHAPES[1], pad=(0, 0))
    x, weight, bias, dz = tensors(SHAPES[1])
    geometry = shape.stride, shape.pad
    with pytest.raises(UsageError, match=r"dz is \(4, 5\) pixels.*are \(2, 3\)"):
        reference.conv2d_backward_data(dz, weight, shape.image, *geometry)
    with pytest.raises(UsageError, match=r"dz is \(4, 5\) pixels"):
        reference.conv2d_backward_weight(x, dz, shape.weight, *geometry)
    with pytest.raises(UsageError, match=r"no output at \[0, 0, 2, 0\].*\(1, 3, 2, 3\)"):
        reference.conv2d_forward_points(x, weight, bias, *geometry, False, np.array([[0, 0, 2, 0]]))
    with pytest.raises(UsageError, match="index reaches from 0 to 6"):
        reference.maxpool2d_backward(np.ones((1, 1, 1, 2)), np.array([0, 6]), (1, 1, 2, 3))
    with pytest.raises(UsageError, match="give it the bias"):
        reference.fc_backward(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)), lr=1.0)


# ---- the layer tables, against totals that others published


def macs_and_weights(shape: layers.Layer) -> tuple[int, int]:
    """Return the nominal multiply-adds of one image, and the weights without biases."""
    params = shape.params
    if shape.kernel == "fc_forward":
        weights = params["in_features"] * params["out_features"]
        return weights, weights
    extent = (params["height"] + 2 * params["pad"] - params["size"]) // params["stride"] + 1
    weights = params["filters"] * params["channels"] * params["size"] ** 2
    return weights * extent**2, weights


def test_vgg16_has_its_known_size() -> None:
    # Its usual figures: 138,357,544 parameters and 15.47 G multiply-adds (30.94 GFlop) an image.
    named = {name: known for name, known in layers.LAYERS.items() if name.startswith("vgg16/")}
    pools = {name: pool for name, pool in named.items() if "/pool" in name}
    sums = [known for name, known in named.items() if name not in pools]
    macs, weights = map(sum, zip(*map(macs_and_weights, sums), strict=True))
    biases = sum(known.params.get("filters", known.params.get("out_features")) for known in sums)
    assert (len(named), len(pools)) == (13 + 5 + 3, 5)
    assert weights + biases == 138_357_544
    assert macs == 15_470_264_320
    assert [pool.params["height"] for pool in pools.values()] == [224, 112, 56, 28, 14]
    assert [pool.params["channels"] for pool in pools.values()] == [64, 128, 256, 512, 512]


def test_resnet50_has_its_known_size() -> None:
    # How often the network has each row: 53 convolutions in all. The usual 25,557,032 parameters
    # less 53,120 of batch normalisation and 2,049,000 of the last layer; 3.86 G multiply-adds.
    times = [1, 4, 1, 3, 2, 1, 1, 4, 4, 3, 1, 1, 6, 6, 5, 1, 1, 3, 3, 2]
    table = [layers.layer(f"resnet50/conv{row:02}") for row in range(1, 21)]
    counts = [macs_and_weights(known) for known in table]
    assert sum(n * weights for n, (_, weights) in zip(times, counts, strict=True)) == 23_454_912
    assert round(sum(n * macs for n, (macs, _) in zip(times, counts, strict=True)) / 1e9, 2) == 3.86


def test_an_unknown_layer_brings_its_neighbours() -> None:
    with pytest.raises(UsageError, match=r"unknown layer 'vgg16/conv3_4'.* vgg16/conv3_3"):
        layers.layer("vgg16/conv3_4")
