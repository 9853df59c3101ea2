"""Training for real: digits to 97 % on the simulated chip, beside the same training in numpy.

The network is that of example 5, with 16 filters and a ReLU in each of its convolutions. A step
takes 64 digits, which fill four vectors of 16 lanes. One definition of the step serves both
trainings: they start from the same parameters, take the same digits in the same order, and differ
in who computes an operator, the chip or numpy in float32. Softmax and loss are the host's in both.
Chip and numpy add in orders of their own, so that the trainings slowly part; a picture shows the
losses and how far they are apart. Digits that no step has seen are read on the chip as well.

    pip install -e '.[examples]' && python examples/06_training_for_real.py
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from attrs import Factory, define
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
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
    relu_backward,
    sgd_update,
)
from simulator import simulate
from simulator.reporting.output import write_whole
from simulator.reporting.report import Report

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
Run = Callable[..., Tensors]
"""Computes an operator's outputs by name, given its name and its inputs by name."""

BATCH, RATE, CLASSES = 64, 0.2, 10
UNSEEN = 6 * BATCH
TRAINED = 22 * BATCH  # of 1,797 digits 5 are left over, so that all batches are full

FIRST: dict[str, Any] = {"batch": BATCH, "channels": 1, "height": 8, "width": 8, "filters": 16}
POOLING: dict[str, Any] = {"batch": BATCH, "channels": 16, "height": 8, "width": 8}
SECOND: dict[str, Any] = {"batch": BATCH, "channels": 16, "height": 4, "width": 4, "filters": 16}
CONNECTED: dict[str, Any] = {"batch": BATCH, "in_features": 256, "out_features": CLASSES}

SHAPES = {
    "filters1": (16, 1, 3, 3), "biases1": (16,),
    "filters2": (16, 16, 3, 3), "biases2": (16,),
    "weight": (CLASSES, 256), "bias": (CLASSES,),
}  # fmt: skip
CONVOLVING = ("filters1", "biases1", "filters2", "biases2")
"""Parameters that go to `sgd_update` as one vector; `fc_backward` updates the others."""

OPERATORS: dict[str, Kernel] = {
    "convolution 1, ReLU 1": conv2d_forward(**FIRST, relu=True),
    "pooling": maxpool2d_forward(**POOLING),
    "convolution 2, ReLU 2": conv2d_forward(**SECOND, relu=True),
    "connected": fc_forward(**CONNECTED),
    "back: connected, update": fc_backward(**CONNECTED, lr=RATE),
    "back: ReLU 2": relu_backward(batch=BATCH, features=16 * 4 * 4),
    "back: filters 2": conv2d_backward_weight(**SECOND),
    "back: convolution 2, ReLU 1": conv2d_backward_data(**SECOND, relu=True),
    "back: pooling": maxpool2d_backward(**POOLING),
    "back: filters 1": conv2d_backward_weight(**FIRST),
    "update: filters, biases": sgd_update(size=16 * 9 + 16 + 16 * 16 * 9 + 16, lr=RATE),
}
"""A step in its order. Windows are the kernels' defaults: 3 with pad 1, pooling 2."""


# The chip ----------------------------------------------------------------------------------------


@define
class Chip:
    """Runs operators on the simulated chip, and remembers what they take."""

    cores: int = 1
    reports: dict[str, Report] = Factory(dict)
    """Of the last run of each operator: every run takes the same cycles."""
    calls: Counter[str] = Factory(Counter)
    first_calls: Counter[str] = Factory(Counter)
    """Seconds of the host; they build and compile an operator's program."""
    later_calls: Counter[str] = Factory(Counter)

    def run(self, operator: str, **inputs: Array) -> Tensors:
        """Return an operator's outputs by name."""
        began = time.perf_counter()
        run = simulate(OPERATORS[operator], inputs, cores=self.cores)
        spent = self.later_calls if operator in self.reports else self.first_calls
        spent[operator] += time.perf_counter() - began
        self.calls[operator] += 1
        self.reports[operator] = run.report
        return run.outputs

    def spent(self) -> Array:
        """Return all cycles so far, the seconds they take on the chip, and the host's seconds."""
        reports = [(self.calls[name], report) for name, report in self.reports.items()]
        cycles = sum(calls * report.cycles for calls, report in reports)
        seconds = sum(calls * report.seconds for calls, report in reports)
        return np.array([cycles, seconds, (self.first_calls + self.later_calls).total()])


# The same operators in numpy ---------------------------------------------------------------------


def windows(images: Array) -> Array:
    """Return the 3 x 3 neighbourhood of every pixel, zeros around the image: (N, C, H, W, 3, 3)."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), axis=(2, 3))


def convolve(images: Array, filters: Array) -> Array:
    """Return images (N, O, H, W) of images (N, C, H, W) and filters (O, C, 3, 3)."""
    pixels = np.tensordot(windows(images), filters, axes=([1, 4, 5], [1, 2, 3]))
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def convolve_relu(x: Array, weight: Array, bias: Array) -> Tensors:
    """Return a convolution, with biases, behind a ReLU."""
    return {"z": np.maximum(convolve(x, weight) + bias[:, None, None], np.float32(0))}


def filter_gradients(x: Array, dz: Array) -> Tensors:
    """Return the gradients of filters and biases."""
    dweight = np.tensordot(dz, windows(x), axes=([0, 2, 3], [0, 2, 3]))
    return {"dweight": dweight, "dbias": dz.sum(axis=(0, 2, 3))}


def image_gradient(x: Array, weight: Array, dz: Array) -> Tensors:
    """Return the gradient of a convolution's input, 0 where a ReLU before it was closed."""
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return {"dx": np.where(x > 0, convolve(dz, turned), np.float32(0))}


def pool(x: Array) -> Tensors:
    """Return the maximum of every 2 x 2 pixels, and its place in the plane."""
    samples, channels, height, width = x.shape
    tiles = x.reshape(samples, channels, height // 2, 2, width // 2, 2).swapaxes(3, 4)
    flat = tiles.reshape(samples, channels, height // 2, width // 2, 4)
    down, right = np.divmod(flat.argmax(axis=-1), 2)
    rows, columns = np.indices((height // 2, width // 2))
    return {"z": flat.max(axis=-1), "index": (2 * rows + down) * width + 2 * columns + right}


def unpool(dz: Array, index: Array) -> Tensors:
    """Return planes of zeros with each gradient where its maximum came from."""
    samples, channels, height, width = dz.shape
    planes = np.zeros((samples, channels, 4 * height * width), np.float32)
    np.put_along_axis(planes, index.reshape(samples, channels, -1), rows_of(dz, 2), axis=2)
    return {"dx": planes.reshape(samples, channels, 2 * height, 2 * width)}


def connect_backward(x: Array, weight: Array, bias: Array, dz: Array) -> Tensors:
    """Return the gradient of its input, which uses the old weights, and the updated parameters."""
    rate = np.float32(RATE)
    return {
        "dx": dz @ weight,
        "weight": weight - rate * (dz.T @ x),
        "bias": bias - rate * dz.sum(axis=0),
    }


IN_NUMPY: dict[str, Run] = {
    "convolution 1, ReLU 1": convolve_relu,
    "pooling": pool,
    "convolution 2, ReLU 2": convolve_relu,
    "connected": lambda x, weight, bias: {"z": x @ weight.T + bias},
    "back: connected, update": connect_backward,
    "back: ReLU 2": lambda x, dz: {"dx": np.where(x > 0, dz, np.float32(0))},
    "back: filters 2": filter_gradients,
    "back: convolution 2, ReLU 1": image_gradient,
    "back: pooling": unpool,
    "back: filters 1": filter_gradients,
    "update: filters, biases": lambda weight, dweight: {
        "weight": weight - np.float32(RATE) * dweight
    },
}
"""In float32 throughout."""


# One step, whoever computes the operators --------------------------------------------------------


def rows_of(images: Array, axes: int = 1) -> Array:
    """Return one row for each sample, or for each plane of each sample."""
    return images.reshape(*images.shape[:axes], -1)


def read(run: Run, parameters: Tensors, images: Array) -> Tensors:
    """Return the activations of the forward pass by name."""
    filters1, biases1, filters2, biases2, weight, bias = parameters.values()
    a1 = run("convolution 1, ReLU 1", x=images, weight=filters1, bias=biases1)["z"]
    pooling = run("pooling", x=a1)
    a2 = run("convolution 2, ReLU 2", x=pooling["z"], weight=filters2, bias=biases2)["z"]
    logits = run("connected", x=rows_of(a2), weight=weight, bias=bias)["z"]
    return {"pooled": pooling["z"], "index": pooling["index"], "a2": a2, "logits": logits}


def step(run: Run, parameters: Tensors, images: Array, labels: Array) -> tuple[float, Tensors]:
    """Return the loss and the updated parameters."""
    seen = read(run, parameters, images)
    loss, dlogits = cross_entropy(seen["logits"], labels)
    pooled, a2, filters2 = seen["pooled"], seen["a2"], parameters["filters2"]
    connected = {"x": rows_of(a2), "weight": parameters["weight"], "bias": parameters["bias"]}
    last = run("back: connected, update", **connected, dz=dlogits)
    dz2 = run("back: ReLU 2", x=rows_of(a2), dz=last["dx"])["dx"].reshape(a2.shape)
    second = run("back: filters 2", x=pooled, dz=dz2)
    dpooled = run("back: convolution 2, ReLU 1", x=pooled, weight=filters2, dz=dz2)["dx"]
    dz1 = run("back: pooling", dz=dpooled, index=seen["index"])["dx"]
    first = run("back: filters 1", x=images, dz=dz1)
    gradients = [first["dweight"], first["dbias"], second["dweight"], second["dbias"]]
    updated = update(run, parameters, gradients)
    return loss, {**updated, "weight": last["weight"], "bias": last["bias"]}


def update(run: Run, parameters: Tensors, gradients: list[Array]) -> Tensors:
    """Return the updated filters and biases; they go as one vector."""
    weight = np.concatenate([parameters[name].ravel() for name in CONVOLVING])
    dweight = np.concatenate([gradient.ravel() for gradient in gradients])
    updated = run("update: filters, biases", weight=weight, dweight=dweight)["weight"]
    ends = np.cumsum([gradient.size for gradient in gradients])
    parts = zip(CONVOLVING, np.split(updated, ends[:-1]), strict=True)
    return {name: part.reshape(SHAPES[name]) for name, part in parts}


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean cross-entropy behind a softmax, and its gradient in float32."""
    wide = logits.astype(np.float64)
    odds = np.exp(wide - wide.max(axis=1, keepdims=True))
    chances = odds / odds.sum(axis=1, keepdims=True)
    right = np.eye(CLASSES)[labels]
    loss = -np.log(chances[right == 1]).mean()
    return float(loss), ((chances - right) / len(labels)).astype(np.float32)


# Both trainings ----------------------------------------------------------------------------------


def scans() -> tuple[Array, Array]:
    """Return images (N, 1, 8, 8) float32, centred to about -1 to 2, and their labels, shuffled."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return ((digits.images[order, None] - 5) / 6).astype(np.float32), digits.target[order]


def start() -> Tensors:
    """Return parameters to begin with, always the same: random, but for the biases of 0."""
    generator = np.random.default_rng(3)
    parameters = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for name, gain in (("filters1", 2), ("filters2", 2), ("weight", 1)):
        scale = (gain / np.prod(SHAPES[name][1:])) ** 0.5
        parameters[name] += generator.normal(0, scale, SHAPES[name]).astype(np.float32)
    return parameters


@define
class Training:
    """A training under way, and what it has shown so far."""

    run: Run
    parameters: Tensors = Factory(start)
    losses: list[float] = Factory(list)
    shares_right: list[float] = Factory(list)
    """Of unseen digits, after each epoch."""
    answers: Array = Factory(lambda: np.zeros(0, int))
    """What the unseen digits were read as, last time."""
    seconds: float = 0.0

    def epoch(self, images: Array, labels: Array, order: Array) -> None:
        """Take a step for each batch in the order given."""
        began = time.perf_counter()
        for batch in order.reshape(-1, BATCH):
            loss, self.parameters = step(self.run, self.parameters, images[batch], labels[batch])
            self.losses.append(loss)
        self.seconds += time.perf_counter() - began

    def judge(self, images: Array, labels: Array) -> None:
        """Read unseen digits."""
        began = time.perf_counter()
        batches = images.reshape(-1, BATCH, *images.shape[1:])
        logits = [read(self.run, self.parameters, batch)["logits"] for batch in batches]
        self.answers = np.concatenate(logits).argmax(axis=1)
        self.shares_right.append(float((self.answers == labels).mean()))
        self.seconds += time.perf_counter() - began


def train(chip: Chip, epochs: int) -> tuple[Training, Training]:
    """Train on the chip and in numpy, a line an epoch."""
    images, labels = scans()
    unseen, answers = images[:UNSEEN], labels[:UNSEEN]
    images, labels = (tensor[UNSEEN:][:TRAINED] for tensor in (images, labels))
    on_chip = Training(chip.run)
    in_numpy = Training(lambda operator, **inputs: IN_NUMPY[operator](**inputs))
    print("       mean loss           unseen read right")
    print("epoch  on chip   in numpy  on chip  in numpy      cycles   on chip  on host  numpy")
    for number in range(epochs):
        before, numpy = chip.spent(), in_numpy.seconds
        order = np.random.default_rng(number).permutation(TRAINED)
        for training in (on_chip, in_numpy):
            training.epoch(images, labels, order)
        (cycles, on_chip_seconds, host), numpy = chip.spent() - before, in_numpy.seconds - numpy
        for training in (on_chip, in_numpy):
            training.judge(unseen, answers)
        losses = [np.mean(t.losses[-TRAINED // BATCH :]) for t in (on_chip, in_numpy)]
        print(
            f"{number + 1:>5}{losses[0]:>9.5f}{losses[1]:>11.5f}"
            f"{on_chip.shares_right[-1]:>9.2%}{in_numpy.shares_right[-1]:>10.2%}"
            f"{cycles:>12,.0f}{1e3 * on_chip_seconds:>7.2f} ms{host:>7.2f} s{numpy:>5.2f} s"
        )
    return on_chip, in_numpy


# What came of it ---------------------------------------------------------------------------------


def table(chip: Chip) -> None:
    """Print where the cycles on the chip went, and the host's time."""
    print(f"\n{'operator':<28}{'calls':>6}{'cycles':>9}{'share':>8}{'of peak':>9}{'MAC use':>9}"
          f"{'first call':>12}{'later':>11}")  # fmt: skip
    everything = chip.spent()[0]
    of_peak = use = 0.0
    for name, report in chip.reports.items():
        calls = chip.calls[name]
        share = calls * report.cycles / everything
        of_peak, use = of_peak + report.efficiency * share, use + report.mac_utilization * share
        used = f"{report.mac_utilization:.1%}" if report.mac_utilization else "-"
        print(f"{name:<28}{calls:>6}{report.cycles:>9,}{share:>8.1%}{report.efficiency:>9.1%}"
              f"{used:>9}{chip.first_calls[name]:>10.2f} s"
              f"{1e3 * chip.later_calls[name] / max(1, calls - 1):>8.2f} ms")  # fmt: skip
    calls, first, later = chip.calls.total(), chip.first_calls.total(), chip.later_calls.total()
    print(f"{'all':<28}{calls:>6}{everything / calls:>9,.0f}{1:>8.1%}{of_peak:>9.1%}{use:>9.1%}"
          f"{first:>10.2f} s{1e3 * later / (calls - len(chip.reports)):>8.2f} ms")  # fmt: skip


def compare(on_chip: Training, in_numpy: Training) -> None:
    """Print how far the two trainings are apart."""
    apart = np.abs(np.subtract(on_chip.losses, in_numpy.losses))
    pairs = [(on_chip.parameters[name], in_numpy.parameters[name]) for name in SHAPES]
    drift = max(np.abs(tensor - other).max() / np.abs(other).max() for tensor, other in pairs)
    print(f"\nlosses of {len(apart)} steps: at most {apart.max():.1e} apart, {apart[0]:.1e} in the "
          f"first step, {apart[-1]:.1e} in the last")  # fmt: skip
    print(f"parameters in the end: at most {drift:.1e} of a tensor's largest value apart")
    others = np.sum(on_chip.answers != in_numpy.answers)
    print(f"unseen digits: {others} of {UNSEEN} read otherwise than in numpy")


def draw(on_chip: Training, in_numpy: Training, path: Path) -> None:
    """Write the losses of both trainings, their difference, and the shares read right, as a PNG."""
    figure = Figure(figsize=(7.2, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, between, below = figure.subplots(3, 1, height_ratios=(2, 1, 1), sharex=True)
    steps = np.arange(1, len(on_chip.losses) + 1)
    above.plot(steps, in_numpy.losses, color="0.7", linewidth=3, label="numpy float32")
    above.plot(steps, on_chip.losses, linewidth=1, label="simulated FT-M7004")
    above.set(ylabel="loss", yscale="log")
    above.legend()
    between.plot(steps, np.abs(np.subtract(on_chip.losses, in_numpy.losses)), linewidth=1)
    between.set(ylabel="losses apart", yscale="log")
    ends = steps[TRAINED // BATCH - 1 :: TRAINED // BATCH]
    below.plot(ends, in_numpy.shares_right, "o", color="0.7", markersize=8)
    below.plot(ends, on_chip.shares_right, ".-")
    below.set(xlabel="step", ylabel="unseen read right")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda stream: figure.savefig(stream, format="png", dpi=120))


@click.command()
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--cores", type=click.IntRange(1, 4), default=1, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default="output", show_default=True)
def main(epochs: int, cores: int, output: Path) -> None:
    """Train on the chip and in numpy, compare, and draw both."""
    chip = Chip(cores)
    on_chip, in_numpy = train(chip, epochs)
    table(chip)
    compare(on_chip, in_numpy)
    cycles, chip_seconds, _ = chip.spent()
    draw(on_chip, in_numpy, path := output / "training.png")
    host = f"host: {on_chip.seconds:.1f} s, {chip.first_calls.total():.1f} s of it first calls"
    print(f"chip: {cycles:,.0f} cycles = {1e3 * chip_seconds:.1f} ms")
    print(f"{host}; numpy: {in_numpy.seconds:.1f} s")
    print(f"{on_chip.shares_right[-1]:.2%} of {UNSEEN} unseen digits read right, in numpy "
          f"{in_numpy.shares_right[-1]:.2%}; wrote {path}")  # fmt: skip


if __name__ == "__main__":
    main()
