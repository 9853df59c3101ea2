"""The tensors between the steps of a network: real ones, kept as long as a step wants them.

What no step makes is random, drawn from the seed and its name whenever it is asked for: images,
weights (He initialisation, so that activations keep their size), biases, and what would come from a
layer that was not chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from isa.language.tensor import Tensor
from simulator.network.plan import IMAGES, Plan, Step

Array = np.ndarray[Any, Any]

BIAS = 0.01
"""Standard deviation of the biases."""


class Shelf(Protocol):
    """Where tensors are kept outside memory."""

    def load(self, name: str) -> Array:
        """Return a tensor that was kept."""

    def holds(self, name: str) -> bool:
        """Tell whether a tensor is kept."""


class Tensors:
    """The tensors of a run: given ones, those that steps made, and random ones."""

    def __init__(
        self, plan: Plan, seed: int, images: Array | None = None, shelf: Shelf | None = None
    ) -> None:
        self._plan, self._seed, self._shelf = plan, seed, shelf
        self._shapes = plan.shapes()
        self._given = {} if images is None else {IMAGES: images}
        self._made: dict[str, Array] = {}

    def inputs(self, step: Step) -> dict[str, Array]:
        """Return the arrays of a step's kernel by input name."""
        tensors = step.kernel.inputs
        return {name: self._bound(step.reads[name], tensors[name]) for name in tensors}

    def made(self, number: int, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Take the outputs of a step; return those of its tensors that a later one reads."""
        step, alive = self._plan.steps[number], self._plan.alive_before(number + 1)
        fresh = {step.writes[o]: _narrow(t) for o, t in outputs.items() if o in step.writes}
        logits = fresh.get(self._plan.logits)
        if logits is not None and self._plan.slopes in alive:
            fresh[self._plan.slopes] = loss(logits, self.labels())[1]
        fresh = {name: tensor for name, tensor in fresh.items() if name in alive}
        self._made = {n: t for n, t in {**self._made, **fresh}.items() if n in alive}
        return fresh

    def only_for(self, number: int) -> None:
        """Forget, for the shelf has them, the tensors that a step does not read."""
        wanted = self._plan.steps[number].names
        self._made = {name: tensor for name, tensor in self._made.items() if name in wanted}

    def labels(self) -> Array:
        """Return a random class for each image."""
        classes = self._shapes_of_logits()[1]
        return self._generator("labels").integers(classes, size=self._plan.batch)

    def _shapes_of_logits(self) -> tuple[int, ...]:
        last = next(s for s in self._plan.steps if self._plan.logits in s.writes.values())
        return last.kernel.outputs["z"].shape

    def _bound(self, names: tuple[str, ...], tensor: Tensor) -> Array:
        if len(names) == 1:
            whole = self.get(names[0])
        else:
            whole = np.concatenate([self.get(name).reshape(-1) for name in names])
        return whole.reshape(tensor.shape).astype(tensor.dtype, copy=False)

    def get(self, name: str) -> Array:
        """Return a tensor by its name: given, made, kept on the shelf, or random."""
        for known in (self._given, self._made):
            if name in known:
                return known[name]
        if self._shelf is not None and self._shelf.holds(name):
            self._made[name] = self._shelf.load(name)
            return self._made[name]
        return self._random(name)

    def _generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, crc32(name.encode())])

    def _random(self, name: str) -> Array:
        shape, role = self._shapes[name], name.rpartition(".")[2]
        numbers = self._generator(name).standard_normal(shape, dtype=np.float32)
        if role == "weight":
            numbers *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        elif role == "bias":
            numbers *= np.float32(BIAS)
        elif role == "z":
            np.maximum(numbers, 0, out=numbers)
        elif role in ("dz", "dx"):
            numbers /= np.float32(shape[0])
        return numbers


def chances(logits: Array) -> Array:
    """Return the softmax of each row, in float64."""
    wide = logits.astype(np.float64)
    odds = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def loss(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean cross-entropy behind a softmax, and its gradient in float32."""
    predicted, rows = chances(logits), np.arange(len(labels))
    mean = float(-np.log(np.maximum(predicted[rows, labels], np.finfo(float).tiny)).mean())
    predicted[rows, labels] -= 1
    return mean, (predicted / len(labels)).astype(np.float32)


def _narrow(tensor: Array) -> Array:
    """Return indices in 32 bits, as the chip has them; others as they are."""
    return tensor.astype(np.int32) if tensor.dtype == np.int64 else tensor
