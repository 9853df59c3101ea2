"""Training: a small network learns handwritten digits, all of its operators on the simulated chip.

    layer                 forward            backward                          update
    convolution 1, 3 x 3  conv2d_forward     conv2d_backward_weight            sgd_update
    ReLU 1                relu_forward       (in conv2d_backward_data below)
    max pooling, 2 x 2    maxpool2d_forward  maxpool2d_backward
    convolution 2, 3 x 3  conv2d_forward     conv2d_backward_data and _weight  sgd_update
    ReLU 2                (in it)            relu_backward
    fully connected       fc_forward         fc_backward                       (in it)

Softmax and cross-entropy are the host's work, in numpy. All else that goes from one operator to the
next is the float32 that the chip computed; the host lays it out anew for each, which is not timed.

After every step the loss, all activations, all gradients and all parameters are compared with the
same step in numpy float64. It starts from the chip's parameters of that moment, so that every step
is judged by itself. A second float64 training goes its own way from the start, and shows how far
the two drift apart.

    pip install -e '.[examples]' && python examples/05_training.py
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from attrs import define, field
from sklearn.datasets import load_digits

from isa import Kernel
from kernels import (
    conv2d_backward_data,
    conv2d_backward_weight,
    conv2d_forward,
    fc_backward,
    fc_forward,
    maxpool2d_backward,
    maxpool2d_forward,
    reference,
    relu_backward,
    relu_forward,
    sgd_update,
)
from simulator import simulate
from simulator.reporting.report import Report

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]

STEPS, BATCH, RATE = 12, 64, 0.2
SIZE, CLASSES, UNSEEN = 8, 10, 256

FIRST: dict[str, Any] = {"batch": BATCH, "channels": 1, "height": 8, "width": 8, "filters": 8}
POOLING: dict[str, Any] = {"batch": BATCH, "channels": 8, "height": 8, "width": 8}
SECOND: dict[str, Any] = {"batch": BATCH, "channels": 8, "height": 4, "width": 4, "filters": 8}
CONNECTED: dict[str, Any] = {"batch": BATCH, "in_features": 128, "out_features": CLASSES}
ONE, TWO = (1, 1), (2, 2)

SHAPES = {
    "filters1": (8, 1, 3, 3), "biases1": (8,),
    "filters2": (8, 8, 3, 3), "biases2": (8,),
    "weight": (CLASSES, 128), "bias": (CLASSES,),
}  # fmt: skip
"""The parameters, as PyTorch has them."""
CONVOLVING = ("filters1", "biases1", "filters2", "biases2")
"""Those of them that `sgd_update` takes, as one vector. `fc_backward` updates the rest itself."""

OPERATORS: dict[str, Kernel] = {
    "convolution 1": conv2d_forward(**FIRST),
    "ReLU 1": relu_forward(batch=BATCH, features=8 * 8 * 8),
    "pooling": maxpool2d_forward(**POOLING),
    "convolution 2, ReLU 2": conv2d_forward(**SECOND, relu=True),
    "fully connected": fc_forward(**CONNECTED),
    "back: connected, update": fc_backward(**CONNECTED, lr=RATE),
    "back: ReLU 2": relu_backward(batch=BATCH, features=8 * 4 * 4),
    "back: filters 2": conv2d_backward_weight(**SECOND),
    "back: convolution 2, ReLU 1": conv2d_backward_data(**SECOND, relu=True),
    "back: pooling": maxpool2d_backward(**POOLING),
    "back: filters 1": conv2d_backward_weight(**FIRST),
    "update: filters, biases": sgd_update(size=8 * 9 + 8 + 8 * 8 * 9 + 8, lr=RATE),
}
"""A step of training in its order. Windows are the kernels' defaults: 3 with pad 1, pooling 2."""

TOLERANCE = sqrt(BATCH * SIZE * SIZE) * 2.0**-24
"""Largest error of a tensor, as a share of its largest value: 3.8e-6.

A float32 sum of n terms of either sign is off by about sqrt(n) roundings of 2**-24. The longest
sums are the gradients of the first filters: all pixels of all samples.
"""


@define
class Chip:
    """Runs operators, and keeps the report of the last run of each."""

    reports: dict[str, Report] = field(factory=dict)

    def run(self, operator: str, **inputs: Array) -> Tensors:
        """Return an operator's outputs by name."""
        run = simulate(OPERATORS[operator], inputs)
        self.reports[operator] = run.report
        return run.outputs

    @property
    def cycles(self) -> int:
        """Cycles of one step."""
        return sum(report.cycles for report in self.reports.values())

    @property
    def seconds(self) -> float:
        """The time they take."""
        return sum(report.seconds for report in self.reports.values())


def scans() -> tuple[Array, Array]:
    """Return images (N, 1, 8, 8) float32, centred to about -1 to 2, and their labels, shuffled."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return ((digits.images[order, None] - 5) / 6).astype(np.float32), digits.target[order]


def start() -> Tensors:
    """Return parameters to begin with, always the same: random, but for the biases of 0."""
    generator = np.random.default_rng(3)
    parameters = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for name in ("filters1", "filters2", "weight"):
        fan_in = np.prod(SHAPES[name][1:])
        parameters[name] += generator.normal(0, fan_in**-0.5, SHAPES[name])
    return parameters


def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the mean cross-entropy behind a softmax and its gradient, in float64."""
    wide = logits.astype(np.float64)
    odds = np.exp(wide - wide.max(axis=1, keepdims=True))
    chances = odds / odds.sum(axis=1, keepdims=True)
    right = np.eye(CLASSES)[labels]
    return -np.log(chances[right == 1]).mean(), (chances - right) / len(labels)


def rows(images: Array) -> Array:
    """Return one row for each sample."""
    return images.reshape(len(images), -1)


def planes(images: Array) -> Array:
    """Return one row for each plane of each sample: the rows that pooling's index points into."""
    return images.reshape(*images.shape[:2], -1)


# One step, on the chip and in numpy --------------------------------------------------------------


def step_on_chip(chip: Chip, parameters: Tensors, images: Array, labels: Array) -> Tensors:
    """Return all tensors of a step by name, the updated parameters among them."""
    filters1, biases1, filters2, biases2, weight, bias = parameters.values()
    z1 = chip.run("convolution 1", x=images, weight=filters1, bias=biases1)["z"]
    a1 = chip.run("ReLU 1", x=rows(z1))["z"].reshape(z1.shape)
    pooling = chip.run("pooling", x=a1)
    pooled, index = pooling["z"], pooling["index"]
    a2 = chip.run("convolution 2, ReLU 2", x=pooled, weight=filters2, bias=biases2)["z"]
    logits = chip.run("fully connected", x=rows(a2), weight=weight, bias=bias)["z"]
    loss, slope = cross_entropy(logits, labels)

    dlogits = slope.astype(np.float32)
    connected = {"x": rows(a2), "weight": weight, "bias": bias, "dz": dlogits}
    last = chip.run("back: connected, update", **connected)
    da2 = last["dx"]
    dz2 = chip.run("back: ReLU 2", x=rows(a2), dz=da2)["dx"].reshape(a2.shape)
    second = chip.run("back: filters 2", x=pooled, dz=dz2)
    dpooled = chip.run("back: convolution 2, ReLU 1", x=pooled, weight=filters2, dz=dz2)["dx"]
    dz1 = chip.run("back: pooling", dz=dpooled, index=index)["dx"]
    first = chip.run("back: filters 1", x=images, dz=dz1)

    gradients = [first["dweight"], first["dbias"], second["dweight"], second["dbias"]]
    return {
        "z1": z1, "a1": a1, "pooled": pooled, "index": index, "chosen": pooled, "a2": a2,
        "logits": logits, "loss": loss, "dlogits": dlogits,
        "dweight": last["dweight"], "dbias": last["dbias"],
        "da2": da2, "dz2": dz2, "dpooled": dpooled, "dz1": dz1,
        **{f"d{name}": gradient for name, gradient in zip(CONVOLVING, gradients, strict=True)},
        **update_on_chip(chip, parameters, gradients),
        "weight": last["weight"], "bias": last["bias"],
    }  # fmt: skip


def update_on_chip(chip: Chip, parameters: Tensors, gradients: list[Array]) -> Tensors:
    """Return the updated filters and biases of both convolutions; they go as one vector."""
    weight = np.concatenate([parameters[name].ravel() for name in CONVOLVING])
    dweight = np.concatenate([gradient.ravel() for gradient in gradients])
    updated = chip.run("update: filters, biases", weight=weight, dweight=dweight)["weight"]
    ends = np.cumsum([gradient.size for gradient in gradients])
    parts = zip(CONVOLVING, np.split(updated, ends[:-1]), strict=True)
    return {name: part.reshape(SHAPES[name]) for name, part in parts}


def step_in_numpy(
    parameters: Tensors, images: Array, labels: Array, decided: Tensors | None = None
) -> Tensors:
    """Return the same tensors in float64.

    Of two values that only rounding tells apart either may be the maximum, and one that rounding
    moves across 0 may pass a ReLU or not; each choice has a right gradient of its own. So the
    backward pass takes the choices of `decided`, the chip's step. "chosen" shows that its index is
    right: in float64, too, the pixels it names are as large as any of their windows.
    """
    wide = {name: tensor.astype(np.float64) for name, tensor in parameters.items()}
    filters1, biases1, filters2, biases2, weight, bias = wide.values()
    z1 = reference.conv2d_forward(images, filters1, biases1, ONE, ONE)
    a1 = reference.relu_forward(z1)
    pooled, index = reference.maxpool2d_forward(a1, TWO, TWO)
    a2 = reference.conv2d_forward(pooled, filters2, biases2, ONE, ONE, relu=True)
    logits = reference.fc_forward(rows(a2), weight, bias)
    loss, dlogits = cross_entropy(logits, labels)

    choices = decided or {"pooled": pooled, "index": index, "a2": a2}
    chosen = np.take_along_axis(planes(a1), planes(choices["index"]), axis=2)
    last = reference.fc_backward(rows(a2), weight, dlogits, RATE, bias)
    dz2 = np.where(choices["a2"] > 0, last["dx"].reshape(a2.shape), 0)
    dpooled = reference.conv2d_backward_data(
        dz2, filters2, pooled.shape, ONE, ONE, choices["pooled"]
    )
    dz1 = reference.maxpool2d_backward(dpooled, choices["index"], a1.shape)
    second = reference.conv2d_backward_weight(pooled, dz2, filters2.shape, ONE, ONE)
    first = reference.conv2d_backward_weight(images, dz1, filters1.shape, ONE, ONE)

    gradients = dict(zip(CONVOLVING, (*first, *second), strict=True))
    return {
        "z1": z1, "a1": a1, "pooled": pooled, "index": index,
        "chosen": chosen.reshape(pooled.shape), "a2": a2,
        "logits": logits, "loss": loss, "dlogits": dlogits,
        "dweight": last["dweight"], "dbias": last["dbias"],
        "da2": last["dx"], "dz2": dz2, "dpooled": dpooled, "dz1": dz1,
        **{f"d{name}": gradient for name, gradient in gradients.items()},
        **{name: wide[name] - RATE * gradient for name, gradient in gradients.items()},
        "weight": last["weight"], "bias": last["bias"],
    }  # fmt: skip


def parameters_of(step: Tensors) -> Tensors:
    """Return the updated parameters of a step, those that the next one starts from."""
    return {name: step[name] for name in SHAPES}


# Were they the same? -----------------------------------------------------------------------------


def compare(step: Tensors, truth: Tensors) -> tuple[float, str]:
    """Return the largest error, as a share of its tensor's largest value, and the tensor's name.

    An index is a whole number, and "chosen" stands for it. If there is an error that float32 cannot
    explain, end the program with the first tensor that has one: the later ones depend on it.
    """
    errors = {name: apart(step[name], truth[name]) for name in truth if name != "index"}
    for name, error in errors.items():
        if error > TOLERANCE:
            raise SystemExit(
                f"the chip's {name} is wrong: {error:.2g} of its largest value away from float64, "
                f"but rounding explains {TOLERANCE:.2g}"
            )
    worst = max(errors, key=errors.__getitem__)
    return errors[worst], worst


def apart(tensor: Array, truth: Array) -> float:
    """Return the largest deviation as a share of the largest value; infinity for a NaN."""
    share = np.abs(tensor - truth).max() / np.abs(truth).max()
    return float(np.nan_to_num(share, nan=np.inf))


def decided_otherwise(step: Tensors, truth: Tensors) -> tuple[int, int]:
    """Count the ReLUs and maxima that chip and float64 decide differently, and all of them."""
    decisions = [
        (step["a1"] > 0) != (truth["a1"] > 0),
        (step["a2"] > 0) != (truth["a2"] > 0),
        step["index"] != truth["index"],
    ]
    return sum(int(d.sum()) for d in decisions), sum(d.size for d in decisions)


def share_right(logits: Array, labels: Array) -> float:
    """Return the share of digits that are read correctly."""
    return float((logits.argmax(axis=1) == labels).mean())


# The log -----------------------------------------------------------------------------------------


def train(chip: Chip, images: Array, labels: Array) -> tuple[Tensors, list[float]]:
    """Train on the chip, compare every step, print a line about it; return parameters, losses."""
    parameters, own = start(), start()
    losses, otherwise, decisions = [], 0, 0
    print("step  loss on chip  in float64  read right   cycles  time on chip  largest error")
    for number in range(STEPS):
        batch = slice(number * BATCH, (number + 1) * BATCH)
        scans, digits = images[batch], labels[batch]
        step = step_on_chip(chip, parameters, scans, digits)
        truth = step_in_numpy(parameters, scans, digits, decided=step)
        error, name = compare(step, truth)
        otherwise, decisions = np.add((otherwise, decisions), decided_otherwise(step, truth))
        parameters, own = parameters_of(step), parameters_of(step_in_numpy(own, scans, digits))
        losses.append(float(step["loss"]))
        print(
            f"{number + 1:>4}{losses[-1]:>14.6f}{truth['loss']:>12.6f}"
            f"{share_right(step['logits'], digits):>12.1%}{chip.cycles:>9,}"
            f"{chip.seconds * 1e6:>11.1f} us  {error:.1e} in {name}"
        )
    drift = max(apart(parameters[name], own[name]) for name in SHAPES)
    print(f"every tensor equals float64 within {TOLERANCE:.1e} of its largest value")
    print(f"of {decisions:,} ReLUs and maxima, {otherwise} were decided otherwise than in float64")
    print(f"a float64 training that went its own way is {drift:.1e} away after {STEPS} steps")
    return parameters, losses


def table(chip: Chip) -> None:
    """Print where the cycles of a step went."""
    print(f"\n{'one step':<29}{'kernel':<23}{'cycles':>8}{'share':>8}{'of peak':>9}{'MAC use':>9}")
    for operator, report in chip.reports.items():
        row(operator, report.kernel, [report], chip.cycles)
    row("all", "", list(chip.reports.values()), chip.cycles)


def row(name: str, kernel: str, reports: list[Report], total: int) -> None:
    """Print a line of the table, with means over the time of the reports."""
    cycles = sum(report.cycles for report in reports)
    efficiency = sum(report.efficiency * report.cycles for report in reports) / cycles
    use = sum(report.mac_utilization * report.cycles for report in reports) / cycles
    print(
        f"{name:<29}{kernel:<23}{cycles:>8,}{cycles / total:>8.1%}{efficiency:>9.1%}"
        f"{f'{use:.1%}' if use else '-':>9}"
    )


def main() -> None:
    """Train, print how it went, and end with an error if nothing was learnt."""
    images, labels = scans()
    chip = Chip()
    parameters, losses = train(chip, images[UNSEEN:], labels[UNSEEN:])
    table(chip)
    before, after = (
        share_right(step_in_numpy(p, images[:UNSEEN], labels[:UNSEEN])["logits"], labels[:UNSEEN])
        for p in (start(), parameters)
    )
    print(f"\n{UNSEEN} unseen digits: {before:.1%} read right before training, {after:.1%} after")
    if losses[-1] > losses[0] / 2:
        raise SystemExit(f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f}, not below half")


if __name__ == "__main__":
    main()
