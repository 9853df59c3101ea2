"""The device program of max pooling backward as the paper has it, element by element.

    for every block of samples:
        zeros -> dx in DDR
        for every run of samples, every output position:            dz, index: DDR -> SM
            for every row of the window:                            its rows of dx: DDR -> SM
                for every channel and sample:
                    if the index is in this row:                    dx[index, sample] += dz
                its rows of dx: SM -> DDR

Everything waits for its transfers, and a row of a window is written before the next position reads
it. It stands beside `kernels.pooling.backward_rows` for comparison: the irregular accesses cost the
scalar unit dozens of cycles an element. Its predicates depend on tensor data, so it has no
timing-only runs.
"""

from __future__ import annotations

from isa import when_set
from isa.descriptor import Plane, TransferRequest
from isa.language.transfers import Descriptor
from isa.operands import File, Register
from isa.program import Buffer
from kernels.pooling.backward_layer import PoolingBackward
from kernels.samples.blocks import DeviceBlock, each_block, table_bytes

RESERVED_SCALAR_BYTES = 1024
"""SM for descriptors and the alignment of buffers, beside the table of blocks."""

LARGEST_ZEROS = 65_536
"""Bytes of AM that are filled with zeros and copied to dx again and again."""

ZEROS, GRADIENTS, INDICES, ROWS = range(4)
"""Channels."""


def emit_indexed(layer: PoolingBackward) -> None:
    """Emit the whole layer; KernelError if SM does not hold a position of one sample."""
    with each_block(layer.k, layer.split) as block:
        _emit_zeros(layer, block)
        _BlockScatter(layer, block).emit()


def _image_row(layer: PoolingBackward) -> int:
    """Return the matrix rows of a row of pixels of dx."""
    return layer.columns.input * layer.channels


def _window_row(layer: PoolingBackward) -> int:
    """Return the matrix rows of dx that a row of a window covers."""
    return layer.columns.size * layer.channels


def _samples(layer: PoolingBackward) -> int:
    """Return the samples worked on together: what fits SM; an error if not even one does."""
    k, row = layer.k, _window_row(layer)
    reserved = RESERVED_SCALAR_BYTES + table_bytes(layer.split)
    sample, size = 4 * (2 * layer.channels + row), k.machine.sm.bytes
    if size < reserved + sample:
        raise k.error(
            f"SM has {size:,} bytes, {reserved + sample:,} are needed: dz and index of "
            f"{layer.channels} channels and the {row} values of a window's row, for a sample; use "
            'a larger sm.bytes, fewer channels, or variant "rows"'
        )
    return min(layer.split.largest, (size - reserved) // sample)


def _zero_vectors(layer: PoolingBackward) -> int:
    """Return the vectors of zeros that AM holds; an error if it holds none."""
    k = layer.k
    vector = 4 * k.machine.vpu.lanes
    count = min(LARGEST_ZEROS, k.machine.am.bytes) // vector
    if count < 1:
        raise k.error(
            f"AM has {k.machine.am.bytes} bytes, {vector} are needed: a vector of zeros; use a "
            "larger am.bytes"
        )
    return count


def _base(layer: PoolingBackward, block: DeviceBlock, tensor: Buffer, rows: int) -> Register:
    """Return the address of a block of a tensor of so many matrix rows."""
    k = layer.k
    base = k.scalar(f"{tensor.name} of the block")
    with k.scope():
        offset = k.smulis(block.first, k.number(4 * rows))
        k.sadd(k.number(tensor.address), offset, base)
    return base


def _emit_zeros(layer: PoolingBackward, block: DeviceBlock) -> None:
    """Fill a buffer with zeros and store it until the block's part of dx is full."""
    k, rows = layer.k, layer.rows.input * _image_row(layer)
    with k.scope():
        zeros = _zeros(layer)
        target = _base(layer, block, layer.dx, rows)
        plane = Plane(zeros.address, 1, 1, 0)
        descriptor = k.descriptor("zeros", TransferRequest(plane, Plane(0, 1, 1, 0)))
        left = k.smulis(block.samples, k.number(rows))
        with k.until_zero("zeros of dx", left):
            words = k.smin(left, k.number(zeros.bytes // 4))
            k.set_field(descriptor, "source_row_words", words)
            k.set_field(descriptor, "destination_row_words", words)
            k.set_address(descriptor, "destination", target)
            k.start(descriptor, ZEROS)
            k.sadd(target, k.sshfll(2, words), target)
            k.ssub(words, left, left)
            k.wait(ZEROS)


def _zeros(layer: PoolingBackward) -> Buffer:
    """Return a buffer of AM that device code has filled with zeros."""
    k, lanes, vectors = layer.k, layer.k.machine.vpu.lanes, _zero_vectors(layer)
    buffer = k.array_buffer("zeros", 4 * lanes * vectors)
    with k.scope():
        k.smvcgc_vlr(k.constant((1 << lanes) - 1), Register(File.LANE_MASK))
        zero, pointer = k.vmovi(0), k.point(k.vector_address("zeros"), buffer)
        with k.loop("zeros", vectors):
            k.vstw(zero, pointer.post(lanes))
    return buffer


class _BlockScatter:
    """The registers and buffers of one block of samples."""

    def __init__(self, layer: PoolingBackward, block: DeviceBlock) -> None:
        self.layer, self.block, self.k = layer, block, layer.k
        k, (rows, columns) = self.k, (layer.rows, layer.columns)
        self.run = run = _samples(layer)
        inputs = 4 * layer.channels * run
        self.gradients = k.scalar_buffer("dz of a position", inputs)
        self.indices = k.scalar_buffer("index of a position", inputs)
        self.window = k.scalar_buffer("row of a window", 4 * _window_row(layer) * run)
        self.fetches = [
            self._descriptor(buffer, layer.channels, inward=True)
            for buffer in (self.gradients, self.indices)
        ]
        self.read = self._descriptor(self.window, _window_row(layer), inward=True)
        self.write = self._descriptor(self.window, _window_row(layer), inward=False)
        outputs = rows.outputs * columns.outputs * layer.channels
        self.bases = [_base(layer, block, tensor, outputs) for tensor in (layer.dz, layer.index)]
        self.dx = _base(layer, block, layer.dx, rows.input * _image_row(layer))
        self.first, self.samples = k.scalar("first of the run"), k.scalar("samples of the run")
        self.position, self.row = k.scalar("row of dz"), k.scalar("row of dx")

    def _descriptor(self, buffer: Buffer, rows: int, *, inward: bool) -> Descriptor:
        """Describe the transfer between a run of samples of so many rows and a buffer of SM."""
        outside, inside = Plane(0, rows, 1, 0), Plane(buffer.address, 1, 1, 0)
        planes = (outside, inside) if inward else (inside, outside)
        name = f"{buffer.name} {'in' if inward else 'out'}"
        descriptor: Descriptor = self.k.descriptor(name, TransferRequest(*planes))
        return descriptor

    def emit(self) -> None:
        """Emit the loops over runs of samples and output positions."""
        k, layer = self.k, self.layer
        k.smovi(0, self.first)
        left = k.smov(self.block.samples)
        with k.until_zero("runs of samples", left):
            k.smin(left, k.number(self.run), self.samples)
            self._shape()
            k.smovi(0, self.position)
            line = k.smovi(0)
            with k.loop("output rows", layer.rows.outputs):
                k.smov(line, self.row)
                with k.loop("output columns", layer.columns.outputs):
                    self._one_position()
                    k.sadd(self.position, k.number(layer.channels), self.position)
                    step = layer.columns.stride * layer.channels
                    k.sadd(self.row, k.number(step), self.row)
                k.sadd(line, k.number(layer.rows.stride * _image_row(layer)), line)
            k.sadd(self.first, self.samples, self.first)
            k.ssub(self.samples, left, left)

    def _shape(self) -> None:
        """Fill in how many samples a row of each transfer has, and how far rows lie apart."""
        k, layer = self.k, self.layer
        for descriptor, (outside, inside), rows in (
            (self.fetches[0], ("source", "destination"), layer.channels),
            (self.fetches[1], ("source", "destination"), layer.channels),
            (self.read, ("source", "destination"), _window_row(layer)),
            (self.write, ("destination", "source"), _window_row(layer)),
        ):
            with k.scope():
                k.set_field(descriptor, f"{outside}_stride", self.block.row_bytes)
                k.set_field(descriptor, f"{outside}_row_words", self.samples)
                words = k.smulis(self.samples, k.number(rows))
                k.set_field(descriptor, f"{inside}_row_words", words)

    def _one_position(self) -> None:
        """Fetch dz and index of all channels; then go through the rows of the window."""
        k, layer = self.k, self.layer
        for descriptor, base, channel in zip(
            self.fetches, self.bases, (GRADIENTS, INDICES), strict=True
        ):
            k.set_address(descriptor, "source", self._address(base, self.position))
            k.start(descriptor, channel)
        k.wait(GRADIENTS)
        k.wait(INDICES)
        row = k.smov(self.row)
        with k.loop("rows of a window", layer.rows.size):
            address = self._address(self.dx, row)
            self._move(self.read, "source", address)
            self._add(row)
            self._move(self.write, "destination", address)
            k.sadd(row, k.number(_image_row(layer)), row)

    def _move(self, descriptor: Descriptor, side: str, address: Register) -> None:
        self.k.set_address(descriptor, side, address)
        self.k.start(descriptor, ROWS)
        self.k.wait(ROWS)

    def _address(self, base: Register, row: Register) -> Register:
        """Return where the run of samples begins in a matrix row."""
        k = self.k
        place = k.sadd(k.smulis(row, self.block.row_bytes), k.sshfll(2, self.first))
        address: Register = k.sadd(base, place)
        return address

    def _add(self, first_row: Register) -> None:
        """Add every dz whose index is among the rows from `first_row` on."""
        k, layer = self.k, self.layer
        with k.scope():
            names = ("dz", "index", "rows of dx")
            gradient, index, rows = (k.scalar_address(name) for name in names)
            offset, inside = k.scalar_offset("element"), k.scalar_predicate("inside")
            for pointer, buffer in (
                (gradient, self.gradients), (index, self.indices), (rows, self.window)
            ):  # fmt: skip
                k.point(pointer, buffer)
            window_row = k.number(_window_row(layer))
            with k.loop("channels", layer.channels), k.loop("samples", self.samples) as left:
                value, number = k.sldw(gradient.post(1)), k.sldw(index.post(1))
                place = k.ssub(first_row, number)
                k.sltu(place, window_row, inside)
                element = k.sadd(k.smulis(place, self.samples), k.ssub(left, self.samples))
                k.smvaga(element, offset)
                total = k.sldw(rows + offset, when=when_set(inside))
                k.sfadds32(total, value, total, when=when_set(inside))
                k.sstw(total, rows + offset, when=when_set(inside))
