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
from kernels.blocking import Blocking, Shape
from kernels.blocks import DeviceBlock, each_block
from kernels.chunks import Chunk, ChunkCursor
from kernels.columns import BatchSplit
from kernels.streams import Stream
from kernels.tiles import TileLoop

IMAGE_CHANNEL, WEIGHT_CHANNEL, OUTPUT_CHANNEL, BIAS_CHANNEL = 1, 3, 5, 0

NOTHING = Plane(0, 1, 1, 0)
"""A side of a descriptor whose fields device code fills in."""


@frozen
class Matrices:
    """The DDR buffers of a product: images by columns, packed weights, biases, outputs."""

    images: Buffer
    weights: Buffer
    bias: Buffer
    outputs: Buffer


@frozen
class Product:
    """A product to emit: its shape, its cut, its operands."""

    shape: Shape
    split: BatchSplit
    blocking: Blocking
    matrices: Matrices
    relu: bool = False

    @property
    def weight_block_bytes(self) -> int:
        """Bytes of a whole weight block in DDR."""
        return 4 * self.shape.weight_rows * self.blocking.block_outputs

    def emit(self, k: Builder) -> None:
        """Emit the whole product."""
        with each_block(k, self.split) as block:
            _BlockProduct(k, self, block).emit()


class _BlockProduct:
    """One block of samples: its streams and registers, and the loops over groups and chunks."""

    def __init__(self, k: Builder, product: Product, block: DeviceBlock) -> None:
        self.k, self.product, self.block = k, product, block
        self._take_buffers()
        self.cursor = ChunkCursor(
            k, product.shape, product.blocking, product.matrices.images, block
        )
        self.chunk = Chunk.take(k, "chunk")
        names = ("blocks in group", "group weights", "output address", "output busy",
                 "other output busy", "rows in work", "run in work")  # fmt: skip
        (self.blocks, self.group_weights, self.output_address, self.busy, self.other_busy,
         self.rows, self.run) = (k.scalar(name) for name in names)  # fmt: skip
        self.tiles = TileLoop(
            k, product.blocking, block, self.images, self.weights, self.outputs,
            self.biases, self.chunk, self.cursor.row_bytes, product.relu,
        )  # fmt: skip

    def _take_buffers(self) -> None:
        k, product, blocking = self.k, self.product, self.product.blocking
        row_bytes = 4 * product.split.largest
        weight_row = 4 * blocking.block_outputs
        images = k.array_buffer("image chunks", 2 * blocking.chunk * row_bytes)
        outputs = k.array_buffer("output sums", 2 * blocking.group_outputs * row_bytes)
        weights = k.scalar_buffer("weight blocks", 2 * blocking.chunk * weight_row)
        self.biases = k.scalar_buffer("biases", 4 * blocking.group_outputs)
        plain = TransferRequest(NOTHING, NOTHING)
        window_row = product.shape.columns.size * product.shape.channels * weight_row
        shared = TransferRequest(Plane(0, 1, 1, window_row), NOTHING, cores=self._mask)
        self.images = Stream.make(k, "image chunk", images, IMAGE_CHANNEL, plain)
        self.weights = Stream.make(k, "weight block", weights, WEIGHT_CHANNEL, shared)
        self.outputs = Stream.make(k, "outputs", outputs, OUTPUT_CHANNEL, plain)

    @property
    def _mask(self) -> int:
        """Cores that share a weight transfer; 0 for a core alone, which needs no broadcast."""
        active = self.product.split.active
        return (1 << active) - 1 if active > 1 else 0

    def emit(self) -> None:
        """Emit the loop over groups of outputs."""
        k, product = self.k, self.product
        bias = self._bias_descriptor()
        with k.scope():
            step = k.smulis(self.cursor.row_bytes, k.constant(self._image_row_step))
            k.set_field(self.images.descriptor, "source_stride", step)
        with k.loop("groups", product.blocking.groups) as left:
            self._begin_group(left, bias)
            self._chunks()
            self._drain_outputs()

    @property
    def _image_row_step(self) -> int:
        """Rows of the image matrix from one image row to the next."""
        return self.product.shape.columns.input * self.product.shape.channels

    def _bias_descriptor(self) -> Descriptor:
        words = self.product.blocking.group_outputs
        return self.k.descriptor(
            "biases",
            TransferRequest(
                Plane(0, 1, words, 0),
                Plane(self.biases.address, 1, words, 0),
                cores=self._mask,
            ),
        )

    def _begin_group(self, left: Register, bias: Descriptor) -> None:
        """Find the group's weights, outputs and size, and fetch its biases."""
        k, product, blocking = self.k, self.product, self.product.blocking
        with k.scope():
            group = k.ssub(left, k.constant(blocking.groups))
            self._find_weights(group)
            first = k.smulis(group, k.constant(blocking.group_outputs))
            self._find_outputs(first)
            start = k.sadd(k.constant(product.matrices.bias.address), k.sshfll(2, first))
            k.set_address(bias, "source", start)
        k.start(bias, BIAS_CHANNEL)
        for stream in (self.images, self.weights, self.outputs):
            stream.reset()
        k.smovi(0, self.busy)
        k.smovi(0, self.other_busy)
        k.wait(BIAS_CHANNEL)

    def _find_weights(self, group: Register) -> None:
        """Find the group's first weight block and how many it has."""
        k, product, blocking = self.k, self.product, self.product.blocking
        with k.scope():
            first = k.smulis(group, k.constant(blocking.group))
            left = k.ssub(first, k.constant(blocking.blocks))
            k.smin(left, k.constant(blocking.group), self.blocks)
            offset = k.smulis(first, k.constant(product.weight_block_bytes))
            k.sadd(k.constant(product.matrices.weights.address), offset, self.group_weights)

    def _find_outputs(self, first: Register) -> None:
        """Find where the group's outputs of the first position go, and their number."""
        k, shape, descriptor = self.k, self.product.shape, self.outputs.descriptor
        with k.scope():
            block_rows = k.constant(4 * shape.positions * shape.outputs)
            offset = k.smulis(self.block.first, block_rows)
            base = k.sadd(k.constant(self.product.matrices.outputs.address), offset)
            k.sadd(base, k.smulis(first, self.cursor.row_bytes), self.output_address)
        with k.scope():
            left = k.ssub(first, k.constant(shape.outputs))
            outputs = k.smin(left, k.constant(self.product.blocking.group_outputs))
            words = k.smulis(outputs, self.block.samples)
            k.set_field(descriptor, "source_row_words", words)
            k.set_field(descriptor, "destination_row_words", words)

    def _chunks(self) -> None:
        """Emit the loop over all chunks of all positions."""
        k, cursor = self.k, self.cursor
        cursor.restart()
        self._fetch_image(other=False)
        with k.scope():
            first = k.sadd(self.group_weights, cursor.chunk.weights)
            self._fetch_weights(first, cursor.chunk_rows, cursor.chunk_run, other=False)
        with k.until_zero("chunks", cursor.more):
            cursor.chunk.copy_to(k, self.chunk)
            k.smov(cursor.chunk_rows, self.rows)
            k.smov(cursor.chunk_run, self.run)
            cursor.advance()
            with k.when(cursor.more):
                self._fetch_image(other=True)
            with k.when(self.chunk.first), k.when(self.busy):
                self.outputs.wait()
            self.images.wait()
            self._weight_blocks()
            with k.when(self.chunk.last):
                self._store_outputs()
            self.images.turn()

    def _weight_blocks(self) -> None:
        """Work on the chunk with every weight block of the group, fetching one block ahead."""
        k, cursor = self.k, self.cursor
        address = k.sadd(self.group_weights, self.chunk.weights)
        self.tiles.begin_chunk()
        with k.loop("weight blocks", self.blocks) as left:
            another = k.slt(1, left)
            with k.when(another):
                k.sadd(address, k.constant(self.product.weight_block_bytes), address)
                self._fetch_weights(address, self.rows, self.run, other=True)
            with k.when_zero(another), k.when(cursor.more):
                following = k.sadd(self.group_weights, cursor.chunk.weights)
                self._fetch_weights(following, cursor.chunk_rows, cursor.chunk_run, other=True)
            self.weights.wait()
            self.tiles.emit()
            self.weights.turn()

    def _fetch_image(self, *, other: bool) -> None:
        """Start the transfer of the cursor's chunk."""
        k, cursor, descriptor = self.k, self.cursor, self.images.descriptor
        with k.scope():
            words = k.smulis(cursor.chunk_run, self.block.samples)
            k.set_address(descriptor, "source", cursor.image)
            k.set_field(descriptor, "source_rows", cursor.chunk_rows)
            k.set_field(descriptor, "source_row_words", words)
            total = k.smulis(words, cursor.chunk_rows)
            k.set_field(descriptor, "destination_row_words", total)
            half = self.images.other() if other else self.images.current
            k.set_field(descriptor, "destination_low", half)
        self.images.start(other=other)

    def _fetch_weights(
        self, address: Register, rows: Register, run: Register, *, other: bool
    ) -> None:
        """Start the transfer of a chunk of a weight block: `rows` window rows of `run` each."""
        k, descriptor = self.k, self.weights.descriptor
        with k.scope():
            words = k.smulis(run, k.constant(self.product.blocking.block_outputs))
            k.set_address(descriptor, "source", address)
            k.set_field(descriptor, "source_rows", rows)
            k.set_field(descriptor, "source_row_words", words)
            total = k.smulis(words, rows)
            k.set_field(descriptor, "destination_row_words", total)
            half = self.weights.other() if other else self.weights.current
            k.set_field(descriptor, "destination_low", half)
        self.weights.start(other=other)

    def _store_outputs(self) -> None:
        """Start the transfer of a finished position, and turn to the other half."""
        k, descriptor = self.k, self.outputs.descriptor
        k.set_address(descriptor, "destination", self.output_address)
        k.set_field(descriptor, "source_low", self.outputs.current)
        self.outputs.start(other=False)
        with k.scope():
            step = k.smulis(self.cursor.row_bytes, k.constant(self.product.shape.outputs))
            k.sadd(self.output_address, step, self.output_address)
        k.smov(self.other_busy, self.busy)
        k.smovi(1, self.other_busy)
        self.outputs.turn()

    def _drain_outputs(self) -> None:
        """Wait for the transfers of the last two positions."""
        with self.k.when(self.busy):
            self.outputs.wait()
        with self.k.when(self.other_busy):
            self.outputs.wait(other=True)
