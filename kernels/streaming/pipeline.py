"""Hand-pinned software pipelines: each operation of a step has its cycle, and steps overlap.

A step is written once as a flat schedule (operation, cycle); a new step begins every `interval`
cycles. The pipeline emits the prologue that fills it, the loop that keeps it full, and the
epilogue that drains it. Values in flight cross from packet to packet on purpose: a register is
read in the cycle before its next value lands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from isa import Builder, when_set
from isa.machine import Machine
from isa.operands import Register

Emit = Callable[[], object]


def shortest_interval(machine: Machine) -> int:
    """Return the cycles from counting a step down to the first cycle of the next one."""
    return machine.latency["scalar_integer"] + machine.latency["branch"]


@define
class PinnedPipeline:
    """A loop whose steps start every `interval` cycles (the initiation interval).

    The interval is at least `shortest_interval`, so that a step counts down before it branches.
    """

    k: Builder
    name: str
    interval: int
    operations: list[tuple[int, Emit]] = field(factory=list)

    def at(self, cycle: int, emit: Emit) -> None:
        """Pin one operation of a step to a cycle >= 0, counted from the start of the step."""
        if cycle < 0:
            raise self.k.error(f"pipeline '{self.name}': cycle {cycle} is before the step's start")
        self.operations.append((cycle, emit))

    @property
    def stages(self) -> int:
        """Steps that overlap; the loop needs at least as many."""
        return max(cycle for cycle, _ in self.operations) // self.interval + 1

    def emit(self, left: Register, before: Sequence[Sequence[Emit]] = ()) -> None:
        """Emit the pipeline; predicate register `left` holds the number of steps, >= `stages`.

        The packets `before` it issue just before the first step; what they load may land while the
        pipeline fills.
        """
        k, overlap, shortest = self.k, self.stages - 1, shortest_interval(self.k.machine)
        if self.interval < shortest:
            raise k.error(
                f"pipeline '{self.name}': an interval of {self.interval} cycles is too short to "
                f"count down and branch; give it at least {shortest}"
            )
        k.ssub(overlap, left, left)
        for operations in before:
            with k.packet():
                for emit in operations:
                    emit()
        with k.named_loop(f"{self.name} prologue"):
            for stage in range(overlap):
                self._packets(range(stage + 1))
        with k.named_loop(self.name):
            top = k.label(self.name)
            self._packets(range(self.stages), lambda cycle: self._turn(cycle, left, top))
        with k.named_loop(f"{self.name} epilogue"):
            for stage in range(1, self.stages):
                last = stage == self.stages - 1
                self._packets(range(stage, self.stages), length=self._rest if last else None)

    @property
    def _rest(self) -> int:
        """Cycles of the last interval up to the last operation of the last step."""
        return max(cycle for cycle, _ in self.operations) % self.interval + 1

    def _packets(
        self,
        active: range,
        extra: Callable[[int], object] = lambda cycle: None,
        length: int | None = None,
    ) -> None:
        """Emit an interval, or its first `length` cycles, with the operations of active stages."""
        for cycle in range(length or self.interval):
            with self.k.packet():
                for time, emit in self.operations:
                    stage, place = divmod(time, self.interval)
                    if place == cycle and stage in active:
                        emit()
                extra(cycle)

    def _turn(self, cycle: int, left: Register, top: object) -> None:
        """Count down, and branch so that the delay slots end with the interval."""
        branch = self.interval - self.k.machine.latency["branch"]
        if cycle == self.interval - shortest_interval(self.k.machine):
            self.k.ssub(1, left, left, slot="SIEU")
        if cycle == branch:
            self.k.sbr(top, when=when_set(left))
