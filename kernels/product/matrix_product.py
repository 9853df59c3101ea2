"""A matrix product over windows: the device program of convolutions and fully connected layers.

    for every block of samples, every group of outputs:
        for every output position and chunk of its window:          images: DDR -> AM
            for every weight block of the group:                    weights: DDR -> every SM
                for every tile: load or start sums, inner product, store sums
        after the last chunk of a position: outputs AM -> DDR

While a chunk is worked on, the next one is under way; the same for weight blocks, whose transfer is
one broadcast to all cores. Nothing is padded and no window is copied together: chunks are the
image's own rows.
"""

from __future__ import annotations

from attrs import frozen

from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.language.transfers import Descriptor
from isa.operands import Register
from isa.program import Buffer
from kernels.product.blocking import Blocking, Shape
from kernels.product.chunks import Chunk, ChunkCursor
from kernels.product.finish import PLAIN, Recipe
from kernels.product.placement import Images, Outputs
from kernels.product.tiles import TileLoop
from kernels.product.weights import Weights
from kernels.samples.blocks import DeviceBlock, each_block
from kernels.samples.columns import BatchSplit
from kernels.streaming.streams import LATER, Stream

IMAGE_CHANNEL, WEIGHT_CHANNEL, OUTPUT_CHANNEL, BIAS_CHANNEL = 1, 3, 5, 0


@frozen
class Matrices:
    """The operands of a product in DDR; without biases the sums start at 0."""

    images: Images
    weights: Weights
    outputs: Outputs
    bias: Buffer | None = None


@frozen
class Product:
    """A product to emit: its shape, its cut, its operands, what is done with finished sums."""

    shape: Shape
    split: BatchSplit
    blocking: Blocking
    matrices: Matrices
    finish: Recipe = PLAIN

    def emit(self, k: Builder) -> None:
        """Emit the whole product; cores without samples skip it."""
        with each_block(k, self.split) as block:
            _BlockProduct(k, self, block).emit()


class _BlockProduct:
    """One block of samples: its streams and registers, and the loops over groups and chunks."""

    def __init__(self, k: Builder, product: Product, block: DeviceBlock) -> None:
        self.k, self.product, self.block = k, product, block
        self._take_buffers()
        matrices = product.matrices
        self.cursor = ChunkCursor(
            k, product.shape, product.blocking, matrices.images, matrices.weights, block
        )
        self.chunk = Chunk.take(k, "chunk")
        names = ("blocks in group", "first output of group", "output offset")
        self.blocks, self.first_output, self.offset = (k.scalar(name) for name in names)
        self.one_group = product.blocking.groups == 1
        self.more = self.cursor.more if self.one_group else k.scalar("more of group")
        self.finish = product.finish.take(k, product.blocking, block, 4 * product.split.largest)
        self.tiles = TileLoop(
            k, product.blocking, block, self.images, self.weights, self.outputs.stream,
            self.biases, self.chunk, self.finish,
        )  # fmt: skip

    def _take_buffers(self) -> None:
        k, product, blocking = self.k, self.product, self.product.blocking
        matrices, row_bytes = product.matrices, 4 * product.split.largest
        images = k.array_buffer("image chunks", 2 * blocking.chunk * row_bytes)
        outputs = k.array_buffer("output sums", 2 * blocking.group_outputs * row_bytes)
        weights = k.scalar_buffer("weight blocks", 8 * blocking.chunk * blocking.block_outputs)
        self.biases = None
        if matrices.bias is not None:
            self.biases = k.scalar_buffer("biases", 4 * blocking.group_outputs)
        fetched = TransferRequest(matrices.images.plane, LATER)
        shared = TransferRequest(matrices.weights.plane, LATER, cores=self._mask)
        stored = TransferRequest(LATER, matrices.outputs.plane)
        self.images = Stream.make(k, "image chunk", images, IMAGE_CHANNEL, fetched)
        self.weights = Stream.make(k, "weight block", weights, WEIGHT_CHANNEL, shared)
        self.outputs = Stream.make(k, "outputs", outputs, OUTPUT_CHANNEL, stored).drain()

    @property
    def _mask(self) -> int:
        """Cores that share a weight transfer; 0 for a core alone, which needs no broadcast."""
        active = self.product.split.active
        return (1 << active) - 1 if active > 1 else 0

    def emit(self) -> None:
        """Emit the loop over groups of outputs."""
        k, product = self.k, self.product
        bias = self._bias_descriptor()
        product.matrices.images.prepare(k, self.images.descriptor, self.block)
        for stream in (self.images, self.weights, self.outputs):
            stream.reset()
        self.cursor.restart()
        k.smovi(0, self.first_output)
        self._fetch_image(other=False)
        self._fetch_weights(self.first_output, self.cursor.chunk, other=False)
        with k.loop("groups", product.blocking.groups) as left:
            self._begin_group(left)
            self._fetch_biases(bias)
            self._chunks(left)
        self.outputs.finish()
        self.finish.end()

    def _bias_descriptor(self) -> Descriptor | None:
        if self.biases is None:
            return None
        words = self.biases.bytes // 4
        request = TransferRequest(
            Plane(0, 1, words, 0), Plane(self.biases.address, 1, words, 0), cores=self._mask
        )
        return self.k.descriptor("biases", request)

    def _fetch_biases(self, descriptor: Descriptor | None) -> None:
        k, bias = self.k, self.product.matrices.bias
        if descriptor is None or bias is None:
            return
        with k.scope():
            start = k.sadd(k.number(bias.address), k.sshfll(2, self.first_output))
            k.set_address(descriptor, "source", start)
        k.start(descriptor, BIAS_CHANNEL)
        k.wait(BIAS_CHANNEL)

    def _begin_group(self, left: Register) -> None:
        """Find the group's weight blocks and outputs."""
        k, blocking = self.k, self.product.blocking
        with k.scope():
            group = k.ssub(left, k.number(blocking.groups))
            k.smulis(group, k.number(blocking.group_outputs), self.first_output)
            blocks_left = k.ssub(
                k.smulis(group, k.number(blocking.group)), k.number(blocking.blocks)
            )
            k.smin(blocks_left, k.number(blocking.group), self.blocks)
        self._find_outputs()

    def _find_outputs(self) -> None:
        """Find where the group's outputs of the first position go, and their number."""
        k, rows, descriptor = self.k, self.product.matrices.outputs, self.outputs.stream.descriptor
        rows.begin(k, self.block, self.first_output, self.offset)
        with k.scope():
            left = k.ssub(self.first_output, k.number(self.product.shape.outputs))
            outputs = k.smin(left, k.number(self.product.blocking.group_outputs))
            rows.fill(k, descriptor, "destination", self.block, outputs)
            words = k.smulis(outputs, self.block.samples)
            k.set_field(descriptor, "source_row_words", words)
            self.finish.begin_group(outputs)

    def _chunks(self, groups_left: Register) -> None:
        """Emit the loop over all chunks of all positions; the first is under way already."""
        k, cursor = self.k, self.cursor
        with k.until_zero("chunks", self.more):
            cursor.chunk.copy_to(k, self.chunk)
            cursor.advance()
            if not self.one_group:
                self._look_beyond(groups_left)
            with k.when(cursor.more):
                self._fetch_image(other=True)
            with k.when(self.chunk.first):
                self.outputs.claim()
                self.finish.begin_position(self.offset)
            self.images.wait()
            self._weight_blocks()
            with k.when(self.chunk.last):
                self._store_outputs()
            self.images.turn()

    def _look_beyond(self, groups_left: Register) -> None:
        """Behind the last chunk of a group lies the first one of the next group."""
        k = self.k
        k.smov(self.cursor.more, self.more)
        with k.when_zero(self.more):
            k.slt(1, groups_left, self.cursor.more)
            with k.when(self.cursor.more):
                self.cursor.restart()

    def _weight_blocks(self) -> None:
        """Work on the chunk with every weight block of the group, fetching one block ahead."""
        k, cursor = self.k, self.cursor
        output = k.smov(self.first_output)
        self.tiles.begin_chunk()
        with k.loop("weight blocks", self.blocks) as left:
            another = k.slt(1, left)
            with k.when(another):
                k.sadd(output, k.number(self.product.blocking.block_outputs), output)
                self._fetch_weights(output, self.chunk, other=True)
            with k.when_zero(another), k.when(cursor.more):
                self._fetch_weights(self._next_output(output), cursor.chunk, other=True)
            self.weights.wait()
            self.tiles.emit()
            self.weights.turn()

    def _next_output(self, output: Register) -> Register:
        """Return the first output of the group of the next chunk; `output` is free for it."""
        k = self.k
        if self.one_group:
            return self.first_output
        k.smov(self.first_output, output)
        with k.when_zero(self.more):
            k.sadd(output, k.number(self.product.blocking.group_outputs), output)
        return output

    def _fetch_image(self, *, other: bool) -> None:
        """Start the transfer of the cursor's chunk."""
        k, chunk, descriptor = self.k, self.cursor.chunk, self.images.descriptor
        k.set_address(descriptor, "source", self.cursor.image)
        self.product.matrices.images.fill(k, descriptor, self.block, chunk.rows, chunk.run)
        with k.scope():
            words = k.smulis(k.smulis(chunk.rows, chunk.run), self.block.samples)
            k.set_field(descriptor, "destination_row_words", words)
        self.images.start_into(other=other)

    def _fetch_weights(self, output: Register, chunk: Chunk, *, other: bool) -> None:
        """Start the transfer of the weight block that begins with `output`, for a chunk."""
        k, weights, descriptor = self.k, self.product.matrices.weights, self.weights.descriptor
        with k.scope():
            base = k.sadd(k.number(weights.buffer.address), chunk.weights)
            block = k.smulis(output, k.number(weights.output_bytes))
            k.set_address(descriptor, "source", k.sadd(base, block))
            weights.fill(k, descriptor, chunk)
            steps = k.smulis(chunk.rows, chunk.run)
            words = k.smulis(steps, k.number(self.product.blocking.block_outputs))
            k.set_field(descriptor, "destination_row_words", words)
        self.weights.start_into(other=other)

    def _store_outputs(self) -> None:
        """Start the transfer of a finished position, and turn to the other half."""
        k, rows, stream = self.k, self.product.matrices.outputs, self.outputs.stream
        with k.scope():
            self.outputs.send(k.sadd(k.number(rows.buffer.address), self.offset))
        stream.turn()
        self.finish.end_position(self.offset)
        rows.advance(k, self.block, self.offset)
