"""How a software-pipelined loop came out: what it costs, what bounds it, why it is not faster.

The builder puts one into the program for each `k.pipelined`; the listing shows it at the loop.
"""

from __future__ import annotations

from fractions import Fraction

from attrs import frozen


@frozen
class PipelinedLoop:
    """One pipelined loop. Cycles are those of one step, as its author wrote it.

    `steps_a_turn` steps make one turn of the loop that branches, in `turn_cycles` cycles.
    """

    name: str
    path: str
    """The loop as reports name it, with the loops around it."""
    turn_cycles: int
    steps_a_turn: int
    stages: int
    """Intervals from the first operation of a step to its last: so many steps overlap."""
    resource_bound: Fraction
    resource: str
    """The issue slots that give the bound."""
    recurrence_bound: Fraction
    recurrence: str
    """The chain of operations, from turn to turn, that gives the bound."""
    reason: str = ""
    """Why a step takes longer than both bounds; empty where it does not."""

    @property
    def interval(self) -> Fraction:
        """Cycles from step to step (the initiation interval)."""
        return Fraction(self.turn_cycles, self.steps_a_turn)

    @property
    def bound(self) -> Fraction:
        """The larger of both bounds."""
        return max(self.resource_bound, self.recurrence_bound)

    def lines(self) -> list[str]:
        """Return the report as text: what was reached, both bounds, and the reason for a gap."""
        turn = "1 step" if self.steps_a_turn == 1 else f"{self.steps_a_turn} steps"
        stages = "1 stage" if self.stages == 1 else f"{self.stages} stages"
        found = [
            f"pipelined '{self.name}': {number(self.interval)} cycles a step; {stages}, {turn} a "
            f"turn of {self.turn_cycles} cycles",
            f"bound by slots: {number(self.resource_bound)}, {self.resource}",
            f"bound by chains: {number(self.recurrence_bound)}, {self.recurrence}",
        ]
        return [*found, f"not faster: {self.reason}"] if self.reason else found


def number(value: Fraction) -> str:
    """Return a fraction as a decimal of at most two places."""
    return f"{float(value):.2f}".rstrip("0").rstrip(".")
