"""What a kernel function gets: the whole language, and the tensors of its kernel.

`Builder` joins emission, control flow and transfers with the host tensors that the program reads
and writes in DDR. `finish` closes the program and checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from isa.errors import KernelError, UsageError
from isa.instruction import REGISTRY, Effect
from isa.language.rearranging import Fill, filling, restoring
from isa.language.tensor import Tensor
from isa.language.transfers import Transfers
from isa.machine import Machine
from isa.packing.legality import check
from isa.program import Buffer, Program, TensorPlacement

Array = np.ndarray[Any, Any]


class UnknownParameterError(UsageError, AttributeError):
    """A parameter that the kernel does not have; `hasattr` sees that it is not there."""


class Parameters(SimpleNamespace):
    """The parameters of a kernel as attributes."""

    __slots__ = ("_kernel",)

    def __init__(self, kernel: str, values: Mapping[str, Any]) -> None:
        super().__init__(**values)
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        known = ", ".join(vars(self)) or "none"
        raise UnknownParameterError(
            f"kernel '{self._kernel}' has no parameter '{name}'; it has {known}"
        )


class Builder(Transfers):
    """A program under construction for `cores` cores of a machine; `p` has the parameters."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        cores: int,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        params: Mapping[str, Any],
    ) -> None:
        self.p = Parameters(name, params)
        self._declared_inputs, self._declared_outputs = inputs, outputs
        self._inputs: dict[str, TensorPlacement] = {}
        self._outputs: dict[str, TensorPlacement] = {}
        super().__init__(name, machine, cores)

    def input(
        self,
        name: str,
        size: int | None = None,
        place: Callable[[Array], Array] | None = None,
        *,
        fill: Fill | None = None,
    ) -> Buffer:
        """Return the DDR buffer of an input tensor.

        `place` turns the host tensor into an array whose bytes fill the buffer of `size` bytes;
        without it the tensor lies as on the host, C order, one 32-bit word an element. For large
        tensors `fill(array, words)` may itself write every 32-bit word (uint32) of the buffer.
        """
        tensor = self._tensor(name, self._declared_inputs, "input")
        if name not in self._inputs:
            buffer = self.ddr_buffer(name, tensor.words * 4 if size is None else size)
            step = fill or (filling(name, place) if place else self._plain(name, tensor, buffer))
            self._inputs[name] = TensorPlacement(
                buffer, tensor.shape, tensor.dtype, step, tensor.from_words
            )
        return self._inputs[name].buffer

    def _plain(self, name: str, tensor: Tensor, buffer: Buffer) -> Fill:
        """Return the step that places a tensor as it lies on the host."""
        if buffer.bytes != 4 * tensor.words:
            raise self.error(
                f"tensor '{name}': without place it takes {4 * tensor.words:,} bytes, the size "
                f"given to k.input is {buffer.bytes:,}; leave the size away or add place="
            )
        return tensor.to_words

    def output(
        self,
        name: str,
        size: int | None = None,
        read: Callable[[Array], Array] | None = None,
        *,
        restore: Fill | None = None,
    ) -> Buffer:
        """Return the DDR buffer of an output tensor.

        `read` turns the buffer's 32-bit words (uint32) into the host tensor; for large tensors
        `restore(words, array)` may itself write every element of it. A name that is also an input
        is updated in place and keeps the input's buffer.
        """
        tensor = self._tensor(name, self._declared_outputs, "output")
        if name not in self._outputs:
            shared = self._inputs.get(name)
            words = tensor.words * 4 if size is None else size
            buffer = shared.buffer if shared else self.ddr_buffer(name, words)
            step = restore or (restoring(name, read, tensor) if read else tensor.from_words)
            self._outputs[name] = TensorPlacement(
                buffer, tensor.shape, tensor.dtype, tensor.to_words, step
            )
        return self._outputs[name].buffer

    def _tensor(self, name: str, declared: Mapping[str, Tensor], kind: str) -> Tensor:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise self.error(f"kernel '{self.name}' declares no {kind} '{name}'; it has {known}")
        return declared[name]

    def finish(self) -> Program:
        """Close the program with a HALT if it needs one, check every rule, and return it."""
        for forgotten in self.unentered:
            word = forgotten.what.partition(" ")[0]
            raise KernelError(
                f"{forgotten.origin}: {forgotten.what} was never entered; write `with "
                f"k.{word}(...):`"
            )
        for name in self._declared_inputs:
            self.input(name)
        for name in self._declared_outputs:
            self.output(name)
        self._halt()
        program = Program(
            name=self.name,
            packets=tuple(self._packets),
            labels=dict(self._labels),
            cores=self.cores,
            inputs=self._inputs,
            outputs=self._outputs,
            scalar_data=self._scalar_words(),
            buffers=(*self.am_pool.buffers, *self.sm_pool.buffers, *self.ddr_pool.buffers),
            lifetimes=self._lifetimes(),
            ddr_bytes=self.ddr_pool.next - self.ddr_pool.base,
            pipelined=dict(self._pipelined),
        )
        check(program, self.machine)
        return program

    def _halt(self) -> None:
        """Add the last HALT unless the program ends with one that no label follows."""
        self.flush()
        operations = self._packets[-1].operations if self._packets else ()
        ended = any(o.instruction.effect is Effect.HALT and o.predicate is None for o in operations)
        if not ended or len(self._packets) in self._labels.values():
            self.emit(REGISTRY["HALT"])
            self.flush()

    def _lifetimes(self) -> dict[Buffer, range]:
        """Return the packets for which each buffer of AM and SM holds its bytes."""
        end = len(self._packets)
        return {
            buffer: range(pool.born[buffer], pool.died.get(buffer, end))
            for pool in (self.am_pool, self.sm_pool)
            for buffer in pool.buffers
        }

    def _scalar_words(self) -> tuple[tuple[tuple[int, Array], ...], ...]:
        """Return the initial pieces of SM for each core: (byte address, uint32 words)."""
        return tuple(
            tuple(
                (buffer.address, np.array([w & 0xFFFFFFFF for w in words[core]], np.uint32))
                for buffer, words in self._scalar_data
            )
            for core in range(self.cores)
        )
