"""The end of a group of sums: one word of each vector, and the words' way to DDR.

Words leave in the order in which the sums lie in AM: tap by tap, tile by tile, 8 outputs by
4 channels. `read_weights` and `read_biases` make host tensors of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.operands import Register
from isa.program import Buffer
from kernels.weight_gradient.blocking import GradientBlocking
from kernels.weight_gradient.lane_sums import sum_lanes
from kernels.weight_gradient.outer_product import CHANNELS, OUTPUTS
from kernels.weight_gradient.walk import Deal, Records

Array = np.ndarray[Any, Any]


class _Store:
    """A transfer of results on its own channel, perhaps under way."""

    def __init__(
        self, k: Builder, name: str, source: Plane, targets: Sequence[Buffer], channel: int
    ) -> None:
        self.k, self.targets, self.channel = k, targets, channel
        request = TransferRequest(source, Plane(0, 1, source.row_words, 0))
        self.descriptor = k.descriptor(name, request)
        self.busy = k.scalar(f"{name} under way")
        k.smovi(0, self.busy)

    def start(self, word: Register) -> None:
        """Start the transfer to this word of the core's target."""
        k, first = self.k, self.targets[0].address
        with k.scope():
            distance = (self.targets[-1].address - first) // max(1, len(self.targets) - 1)
            target = k.sadd(k.constant(first), k.smulis(k.scoreid(), k.constant(distance)))
            k.set_address(self.descriptor, "destination", k.sadd(target, k.sshfll(2, word)))
        k.start(self.descriptor, self.channel)
        k.smovi(1, self.busy)

    def wait(self) -> None:
        """Wait for the last transfer, if there was one."""
        with self.k.when(self.busy):
            self.k.wait(self.channel)
        self.k.smovi(0, self.busy)


class GradientResults:
    """The results buffer of one core; `dweight` and `dbias` are each core's, evenly spaced."""

    def __init__(
        self,
        k: Builder,
        blocking: GradientBlocking,
        deal: Deal,
        sums: Buffer,
        dweight: Sequence[Buffer],
        dbias: Sequence[Buffer],
    ) -> None:
        self.k, self.blocking, self.sums = k, blocking, sums
        self.words = k.array_buffer("results", 4 * blocking.sums)
        weights, biases = blocking.weights, blocking.outputs
        channel = blocking.first_channels[2]
        first = Plane(self.words.address, 1, weights, 0)
        behind = Plane(self.words.address + 4 * weights, 1, biases, 0)
        self.weights = _Store(k, "weights", first, dweight, channel)
        self.biases = _Store(k, "biases", behind, dbias, channel + 1)
        self.place = k.scalar("words of earlier groups")
        with k.scope():
            group = k.argument("first group", *(groups.start for groups in deal.groups))
            k.smulis(group, k.constant(weights), self.place)

    def store(self, records: Records) -> None:
        """Sum the group's vectors over the lanes and start the transfer of their words."""
        k = self.k
        self.drain()
        vectors = k.point(k.vector_address("vectors"), self.sums)
        words = k.point(k.vector_address("words"), self.words)
        sum_lanes(k, vectors, words, self.blocking.sums)
        self.weights.start(self.place)
        k.sadd(self.place, k.constant(self.blocking.weights), self.place)
        with k.when(records.get("sums biases")):
            self.biases.start(records.get("output"))

    def drain(self) -> None:
        """Wait until the results of the last group are in DDR."""
        self.weights.wait()
        self.biases.wait()


def read_weights(words: Array, dweight: Array, blocking: GradientBlocking) -> None:
    """Fill dweight (O, C, kH, kW) from the words of all groups (uint32)."""
    shape, (tall, wide) = blocking.shape, (blocking.shape.rows.size, blocking.shape.columns.size)
    cuts = (
        (shape.outputs, blocking.outputs),
        (shape.channels, blocking.channels),
        (tall, blocking.tap_rows),
        (wide, blocking.tap_columns),
    )
    parts = (_slices(extent, step) for extent, step in cuts)
    for group, places in enumerate(product(*parts)):
        target = dweight[places]
        outputs, channels, *taps = target.shape
        tiles = (*taps, -(-outputs // OUTPUTS), -(-channels // CHANNELS), OUTPUTS, CHANNELS)
        first = group * blocking.weights
        part = words[first : first + int(np.prod(tiles))].view(np.float32).reshape(tiles)
        ordered = part.transpose(2, 4, 3, 5, 0, 1)
        whole = ordered.reshape(OUTPUTS * tiles[2], CHANNELS * tiles[3], *taps)
        target[:] = whole[:outputs, :channels]


def _slices(extent: int, step: int) -> list[slice]:
    return [slice(first, min(first + step, extent)) for first in range(0, extent, step)]
