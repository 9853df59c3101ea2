"""Stalls of the optional bank model in compiled code, from the functions of `simulator.banks`.

A stretch adds up the cycles of its packets in the core's record, by packet. Used by `turn`.
"""

from __future__ import annotations

from isa.machine import Machine
from isa.program import Program
from isa.values import Value
from simulator.banks import count_rows, take_busiest
from simulator.compiled import ir
from simulator.compiled.integer_code import IntegerCode
from simulator.compiled.llvm_values import REGISTER
from simulator.compiled.packets import Access
from simulator.compiled.stretches import Stretch


class BankModel:
    """The functions of the bank model in one module."""

    def __init__(self, module: ir.Module, machine: Machine) -> None:
        self.memory = machine.am
        code = IntegerCode(module)
        self._count, self._busiest = code.add(count_rows), code.add(take_busiest)

    def cycles(self, b: ir.IRBuilder, loads: Value, accesses: list[Access]) -> Value:
        """Return the extra cycles of a packet; `loads` points to a number for each bank."""
        banks, row_bytes = REGISTER(self.memory.banks), REGISTER(self.memory.bank_row_bytes)
        for access in accesses:
            offset = b.sub(access.address, REGISTER(self.memory.base))
            # Without its predicate it is an access of no row: from 1 to 0.
            size: Value = REGISTER(access.bytes)
            if access.allowed is not None:
                size = b.select(access.allowed, size, REGISTER(0))
                offset = b.select(access.allowed, offset, REGISTER(0))
            b.call(self._count, [loads, banks, row_bytes, offset, size])
        busiest = b.call(self._busiest, [loads, banks])
        some = b.icmp_signed(">", busiest, REGISTER(0))
        return b.select(some, b.sub(busiest, REGISTER(1)), REGISTER(0))


def most_stalls(program: Program, machine: Machine, stretch: Stretch) -> int:
    """Return more cycles than a turn of a stretch can ever stall."""
    total = 0
    for issue in stretch.issues:
        for operation in program.packets[issue.packet].operations:
            kind = operation.address_kind
            if kind is not None and kind.vector:
                size = kind.unit_bytes * machine.vpu.lanes
                total += size // machine.am.bank_row_bytes + 2
    return total if machine.am.bank_model else 0
