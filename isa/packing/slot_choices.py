"""Which issue slots an operation of scheduled code may take, and in which order it prefers them.

The list scheduler and the modulo scheduler ask here; both refuse the same slots in the same words.
"""

from __future__ import annotations

from collections.abc import Sequence

from isa.errors import KernelError
from isa.machine import Machine
from isa.program import Operation


class SlotChoices:
    """Which slots each operation may take, the least wanted of the block first."""

    def __init__(self, operations: Sequence[Operation], machine: Machine) -> None:
        self._machine = machine
        self._allowed = {
            units: [slot for unit in units for slot in machine.slots_of(unit)]
            for units in {operation.instruction.units for operation in operations}
        }
        demand = dict.fromkeys(machine.issue.slots, 0.0)
        for operation in operations:
            slots = self._checked(operation)
            for slot in slots:
                demand[slot] += 1 / len(slots)
        for slots in self._allowed.values():
            slots.sort(key=lambda slot: (demand[slot], machine.issue.slots.index(slot)))

    def of(self, operation: Operation) -> Sequence[str]:
        """Return the author's slot, or every slot of the instruction's units."""
        return (operation.slot,) if operation.slot else self._allowed[operation.instruction.units]

    def _checked(self, operation: Operation) -> Sequence[str]:
        allowed = self._allowed[operation.instruction.units]
        units = " or ".join(unit.name for unit in operation.instruction.units)
        where = f"{operation.origin}: {operation}"
        if not allowed:
            raise KernelError(
                f"{where}: needs a slot of {units}; machine '{self._machine.name}' has none, its "
                f"slots are {', '.join(self._machine.issue.slots)}"
            )
        if operation.slot and operation.slot not in allowed:
            raise KernelError(
                f"{where}: cannot issue in slot '{operation.slot}'; choose one of "
                f"{', '.join(allowed)}"
            )
        return self.of(operation)
