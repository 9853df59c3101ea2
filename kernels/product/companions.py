"""Sums that meet another tensor on their way out: the mask of a ReLU, the update of weights.

The other tensor lies in DDR as the outputs do. Its rows are fetched when the first chunk of a
position begins and awaited by the first tile that needs them; two halves serve in turn.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder, when_set
from isa.descriptor import TransferRequest
from isa.language.allocation import RegisterBlock
from isa.operands import Register
from kernels.product.blocking import Blocking
from kernels.product.finish import Finish, Pointers
from kernels.product.placement import Outputs
from kernels.samples.blocks import DeviceBlock
from kernels.streaming.streams import LATER, Stream

LOAD_CHANNEL, STORE_CHANNEL = 7, 9


@frozen
class Mask:
    """The gradient of a ReLU with input `x`: 0 where x is 0 or less."""

    x: Outputs
    outputs: int
    """Outputs of the product, and so rows of x at a position."""

    def take(self, k: Builder, blocking: Blocking, block: DeviceBlock, row_bytes: int) -> Finish:
        return _Mask(k, self.x, self.outputs, blocking, block, row_bytes)


@frozen
class Update:
    """Gradient descent: weight - rate * sum, with one rounding, replaces the weight."""

    weights: Outputs
    outputs: int
    rate: float

    def take(self, k: Builder, blocking: Blocking, block: DeviceBlock, row_bytes: int) -> Finish:
        return _Update(k, self, blocking, block, row_bytes)


class _Companion(Finish):
    """The rows of another tensor beside the sums of a position."""

    has_tile = True

    def __init__(
        self,
        k: Builder,
        rows: Outputs,
        outputs: int,
        blocking: Blocking,
        block: DeviceBlock,
        row_bytes: int,
    ) -> None:
        self.k, self.rows, self.blocking, self.block = k, rows, blocking, block
        name = f"rows of {rows.buffer.name}"
        buffer = k.array_buffer(name, 2 * blocking.group_outputs * row_bytes)
        self.loads = Stream.make(k, name, buffer, LOAD_CHANNEL, TransferRequest(rows.plane, LATER))
        self.pending = k.scalar("rows under way")
        self.loads.reset()
        self._fill_up(outputs)

    def begin_group(self, outputs: Register) -> None:
        k = self.k
        self.rows.fill(k, self.loads.descriptor, "source", self.block, outputs)
        with k.scope():
            words = k.smulis(outputs, self.block.samples)
            k.set_field(self.loads.descriptor, "destination_row_words", words)

    def begin_position(self, offset: Register) -> None:
        k, descriptor = self.k, self.loads.descriptor
        with k.scope():
            address = k.sadd(k.number(self.rows.buffer.address), offset)
            k.set_address(descriptor, "source", address)
        self.loads.start_into(other=False)
        k.smovi(1, self.pending)

    def _arrive(self, output: Register, *pointers: Pointers) -> None:
        """Wait for the rows, once a position; point to the vectors of row `output`."""
        k = self.k
        with k.when(self.pending):
            self.loads.wait()
        k.smovi(0, self.pending)
        with k.scope():
            row = k.sadd(self.loads.current, k.smulis(output, self.block.row_bytes))
            for some in pointers:
                self._point(some, row)

    def _point(self, pointers: Pointers, row: Register) -> None:
        for pointer, offset in zip(pointers, self.block.offsets, strict=True):
            with self.k.scope():
                self.k.point_at(pointer, self.k.sadd(row, offset), self.loads.buffer)

    def _fill_up(self, outputs: int) -> None:
        """Write zeros where tiles read beyond the last output, and no transfer ever writes."""
        k, beyond = self.k, self.blocking.padded_outputs - outputs
        if not beyond:
            return
        first = outputs - (self.blocking.groups - 1) * self.blocking.group_outputs
        with k.scope():
            zero = k.vmovi(0)
            pointers = tuple(k.vector_address("row") for _ in self.block.offsets)
            for half in (0, self.loads.half):
                with k.scope():
                    start = k.constant(self.loads.buffer.address + half)
                    skipped = k.smulis(self.block.row_bytes, k.number(first))
                    self._point(pointers, k.sadd(start, skipped))
                with k.loop("rows beyond the outputs", beyond):
                    for pointer in pointers:
                        k.vstw(zero, pointer.post(self.block.row_step))


class _Mask(_Companion):
    def tile(
        self, output: Register, sums: RegisterBlock, loads: Pointers, stores: Pointers
    ) -> None:
        k, tile = self.k, self.blocking.tile
        self._arrive(output, loads)
        zero = k.vmovi(0)
        for o in range(tile.outputs):
            for v, pointer in enumerate(loads):
                with k.scope():
                    masked = k.lane_predicate("masked")
                    k.vfcmpges32(zero, k.vldw(pointer.post(self.block.row_step)), masked)
                    k.vmovi(0, sums[o, v], when=when_set(masked))

    def end_position(self, offset: Register) -> None:
        self.loads.turn()


class _Update(_Companion):
    ROUND = 4
    """Outputs that are updated together: the registers that a tile leaves."""

    def __init__(
        self, k: Builder, update: Update, blocking: Blocking, block: DeviceBlock, row_bytes: int
    ) -> None:
        super().__init__(k, update.weights, update.outputs, blocking, block, row_bytes)
        request = TransferRequest(LATER, update.weights.plane)
        self.stores = self.loads.sharing(k, "updated rows", STORE_CHANNEL, request).drain()
        self.stores.forget()
        self.rate = update.rate

    def begin_group(self, outputs: Register) -> None:
        super().begin_group(outputs)
        k, descriptor = self.k, self.stores.stream.descriptor
        self.rows.fill(k, descriptor, "destination", self.block, outputs)
        with k.scope():
            k.set_field(descriptor, "source_row_words", k.smulis(outputs, self.block.samples))

    def begin_position(self, offset: Register) -> None:
        self.stores.claim()
        super().begin_position(offset)

    def tile(
        self, output: Register, sums: RegisterBlock, loads: Pointers, stores: Pointers
    ) -> None:
        k, tile, step = self.k, self.blocking.tile, self.block.row_step
        self._arrive(output, loads, stores)
        rate = k.vmovi(-self.rate)
        places = [(o, v) for o in range(self.ROUND) for v in range(tile.vectors)]
        for first in range(0, tile.outputs, self.ROUND):
            with k.scope():
                weights = k.vectors("weights", self.ROUND, tile.vectors)
                for place in places:
                    k.vldw(loads[place[1]].post(step), weights[place])
                for o, v in places:
                    k.vfmulas32(rate, sums[first + o, v], weights[o, v], weights[o, v])
                for place in places:
                    k.vstw(weights[place], stores[place[1]].post(step))

    def end_position(self, offset: Register) -> None:
        with self.k.scope():
            self.stores.send(self.k.sadd(self.k.number(self.rows.buffer.address), offset))
        self.loads.turn()

    def end(self) -> None:
        self.stores.finish()
