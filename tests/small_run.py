"""A program of seven packets and a run of it on two cores, made by hand for reports and traces.

    packet  cycles  core 0  core 1  loop
    0       1       1       1             SMOVI | VLDW
    1       1       2       1       rows  two VFMULAS32
    2       3       2       1       rows  SNOP 3
    3       1       2       1       rows  SBR
    4       6       2       1       rows  SNOP 6
    5       1       1       1             DMAWAIT: core 0 waits 15 cycles, core 1 stands 6
    6       1       1       1             HALT

Core 0 issues for 1 + 2 * (1 + 3 + 1 + 6) + 1 + 1 = 25 cycles and halts at 25 + 15 = 40; core 1
issues for 14 and halts at 20. The last transfer ends at 50.
"""

from __future__ import annotations

from typing import Any

from isa.instruction import REGISTRY
from isa.language.kernel import Kernel, Work, kernel
from isa.language.parameters import Count, Pair
from isa.language.tensor import Tensor
from isa.operands import Address, File, Label, Predicate, Register, Update
from isa.program import Operation, Origin, Packet, Program
from simulator.result import (
    BARRIER,
    DMA_WAIT,
    ChipResult,
    CoreResult,
    StallPlace,
    TransferResult,
)


def vector(index: int) -> Register:
    return Register(File.VECTOR, index)


def scalar(index: int) -> Register:
    return Register(File.SCALAR, index)


def small_program(file: str = "rows.py") -> Program:
    """Return the program of the table above, its lines taken from `file`."""

    def operation(name: str, slot: str, line: int, *operands: Any, loop="", **more: Any):
        origin = Origin(file, line, loop)
        return Operation(REGISTRY[name], operands, slot=slot, origin=origin, **more)

    def packet(*operations: Operation) -> Packet:
        return Packet(operations, operations[0].origin)

    pointer = Address(Register(File.ADDRESS, 0), Update.POST, 16)
    macs = [(vector(4), vector(5), vector(n), vector(n)) for n in (6, 7)]
    packets = (
        packet(
            operation("SMOVI", "SMAC1", 2, 2, scalar(1)),
            operation("VLDW", "VLDST1", 2, pointer, vector(4), buffer="image"),
        ),
        packet(
            operation("VFMULAS32", "VMAC1", 4, *macs[0], loop="rows"),
            operation("VFMULAS32", "VMAC2", 5, *macs[1], loop="rows"),
        ),
        packet(operation("SNOP", "SBR", 3, 3, loop="rows")),
        packet(
            operation("SBR", "SBR", 3, Label("rows"), loop="rows", predicate=Predicate(scalar(0)))
        ),
        packet(operation("SNOP", "SBR", 3, 6, loop="rows")),
        packet(operation("DMAWAIT", "SBR", 6, 0)),
        packet(operation("HALT", "SBR", 7)),
    )
    labels = {"rows": 1, "rows_end": 5, "end": 7}
    return Program("rows", packets, labels, cores=2)


def small_result() -> ChipResult:
    """Return the run of the table above."""
    return ChipResult(
        cycles=50,
        cores=(
            CoreResult(40, (1, 2, 2, 2, 2, 1, 1), {StallPlace(5, DMA_WAIT, 0): 15}, vmac_lanes=64),
            CoreResult(20, (1, 1, 1, 1, 1, 1, 1), {StallPlace(5, BARRIER): 6}, vmac_lanes=16),
        ),
        transfers=(
            TransferResult(
                id=0,
                mask=0b11,
                channels=((0, 0), (1, 3)),
                source="x",
                destination="image",
                mode="broadcast",
                ddr_bytes=640,
                first_request=2,
                last_request=4,
                begin=10,
                end=39,
                packet=0,
            ),
            TransferResult(1, 0b1, ((0, 2),), "image", "z", "copy", 214, 30, 30, 40, 50, 0),
        ),
        ddr_bytes=854,
    )


def make_kernel(name: str = "rows", flops: int = 6400) -> Kernel:
    """Return a kernel that moves 640 bytes and needs 1,600 multiply-adds."""

    def rows(k: Any, batch: Count = 2, size: Pair = (1, 3)) -> None:
        """Do nothing."""

    rows.__name__ = name
    define = kernel(
        inputs=lambda p: {"x": Tensor((100,))},
        outputs=lambda p: {"z": Tensor((30, p.batch))},
        work=lambda p: Work(flops=flops, multiply_adds=1600 if flops else 0),
    )
    return define(rows)()
