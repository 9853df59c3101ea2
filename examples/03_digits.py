"""Handwritten digits: train a small network in numpy, then read digits on the simulated chip.

The network is convolution 3 x 3 + ReLU, max pooling 2 x 2, fully connected. Training takes a few
seconds in plain numpy; 256 scans that it never saw then go through the library's kernels, layer by
layer, and the result is compared with the same network in numpy float64.

    python examples/03_digits.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from sklearn.datasets import load_digits

from isa import Kernel
from kernels import conv2d_forward, fc_forward, maxpool2d_forward
from simulator import simulate

Array = np.ndarray[Any, Any]

FILTERS, CLASSES, SIZE = 8, 10, 8
POOLED = FILTERS * (SIZE // 2) ** 2
TESTED = 256
EPOCHS, BATCH, RATE, MOMENTUM = 20, 32, 0.05, 0.9


@frozen
class Network:
    """Trained parameters, float32: weights OIHW and (classes, features), biases."""

    filters: Array
    filter_bias: Array
    weight: Array
    bias: Array

    def wide(self) -> list[Array]:
        """Return the parameters in float64."""
        parts = (self.filters, self.filter_bias, self.weight, self.bias)
        return [part.astype(np.float64) for part in parts]


def scans() -> tuple[Array, Array, Array, Array]:
    """Return training images and labels, test images and labels; images (N, 1, 8, 8), 0 to 1."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order]
    return images[TESTED:], labels[TESTED:], images[:TESTED], labels[:TESTED]


# The network in numpy ---------------------------------------------------------------------------


def windows(images: Array) -> Array:
    """Return the 3 x 3 neighbourhoods (N, 8, 8, 9) of images (N, 1, 8, 8), zeros outside."""
    padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).reshape(
        -1, SIZE, SIZE, 9
    )


def forward(parameters: list[Array], images: Array) -> tuple[Array, Array, Array]:
    """Return logits, and for training the pooled features and which pixels they came from."""
    filters, filter_bias, weight, bias = parameters
    z = windows(images) @ filters.reshape(FILTERS, 9).T + filter_bias
    blocks = np.maximum(z, 0).reshape(-1, SIZE // 2, 2, SIZE // 2, 2, FILTERS)
    pooled = blocks.max(axis=(2, 4))
    chosen = (blocks == pooled[:, :, None, :, None]) & (blocks > 0)
    features = pooled.transpose(0, 3, 1, 2).reshape(-1, POOLED)  # channels first, as on the chip
    return features @ weight.T + bias, features, chosen


def gradients(parameters: list[Array], images: Array, labels: Array) -> list[Array]:
    """Return the gradients of the mean cross-entropy."""
    logits, features, chosen = forward(parameters, images)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = odds / odds.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    back = (error @ parameters[2]).reshape(-1, FILTERS, SIZE // 2, SIZE // 2)
    dz = (back.transpose(0, 2, 3, 1)[:, :, None, :, None] * chosen).reshape(-1, FILTERS)
    dfilters = (dz.T @ windows(images).reshape(-1, 9)).reshape(FILTERS, 1, 3, 3)
    return [dfilters, dz.sum(axis=0), error.T @ features, error.sum(axis=0)]


def train(images: Array, labels: Array) -> Network:
    """Train by stochastic gradient descent with momentum, always from the same seed."""
    generator = np.random.default_rng(0)
    shapes = ((FILTERS, 1, 3, 3), (FILTERS,), (CLASSES, POOLED), (CLASSES,))
    parameters = [generator.normal(0, 0.1, shape) for shape in shapes]
    speeds = [np.zeros(shape) for shape in shapes]
    for _ in range(EPOCHS):
        order = generator.permutation(len(images))
        for first in range(0, len(order), BATCH):
            some = order[first : first + BATCH]
            steps = gradients(parameters, images[some].astype(np.float64), labels[some])
            for parameter, speed, step in zip(parameters, speeds, steps, strict=True):
                speed *= MOMENTUM
                speed -= RATE * step
                parameter += speed
    return Network(*(parameter.astype(np.float32) for parameter in parameters))


# The network on the chip ------------------------------------------------------------------------


def layer(kernel: Kernel, inputs: dict[str, Array]) -> Array:
    """Run one layer, print a line about it, and return its first output."""
    run = simulate(kernel, inputs)
    report = run.report
    print(f"{kernel.name:<18}{report.cycles:>10,} cycles{report.efficiency:>8.1%}")
    return next(iter(run.outputs.values()))


def infer(network: Network, images: Array) -> Array:
    """Return the logits that the simulated chip computes."""
    batch = len(images)
    convolution = conv2d_forward(
        batch=batch, channels=1, height=SIZE, width=SIZE, filters=FILTERS, relu=True
    )
    z = layer(convolution, {"x": images, "weight": network.filters, "bias": network.filter_bias})
    pooling = maxpool2d_forward(batch=batch, channels=FILTERS, height=SIZE, width=SIZE)
    pooled = layer(pooling, {"x": z})
    connected = fc_forward(batch=batch, in_features=POOLED, out_features=CLASSES)
    features = pooled.reshape(batch, POOLED)
    return layer(connected, {"x": features, "weight": network.weight, "bias": network.bias})


def compare(logits: Array, expected: Array) -> float:
    """Return the largest error; fail if it is more than float32 rounding or changes a digit."""
    error = float(np.abs(logits - expected).max())
    same = np.array_equal(logits.argmax(axis=1), expected.argmax(axis=1))
    if error > 1e-5 * np.abs(expected).max() or not same:
        raise SystemExit(f"the chip's logits are wrong: error {error:.3g}, same digits: {same}")
    return error


def main() -> None:
    """Train, read the test scans on the chip, compare with numpy, print how it went."""
    images, labels, test_images, test_labels = scans()
    network = train(images, labels)
    print(f"{'layer':<18}{'time on the chip':>17}{'of peak':>8}")
    logits = infer(network, test_images)
    expected, _, _ = forward(network.wide(), test_images.astype(np.float64))
    error = compare(logits, expected)
    right = float((logits.argmax(axis=1) == test_labels).mean())
    print(f"{right:.2%} of {TESTED} unseen digits read correctly")
    print(f"logits equal numpy float64 within float32 rounding, largest error {error:.2g}")


if __name__ == "__main__":
    main()
