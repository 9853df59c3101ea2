"""A step written once, run as a pinned pipeline or, where there are too few of them, step by step.

The micro-kernels that know the cycle of each of their operations are written against `At`: they
say when an operation issues in the pipeline, in an order that is also right without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from isa import Builder
from isa.operands import Register
from kernels.streaming.pipeline import Emit, PinnedPipeline

At = Callable[[int, Emit], object]
"""Takes an operation of a step and its cycle, counted from the start of the step."""

CALLERS_LINES = True
"""Loops have the line of the micro-kernel whose steps they run."""


class PinnedSteps:
    """Steps that begin every `interval` cycles; `left` is the scalar predicate they count in."""

    def __init__(
        self, k: Builder, name: str, interval: int, left: Register, step: Callable[[At], None]
    ) -> None:
        self.k, self.name, self.left, self.step = k, name, left, step
        self.pipeline = PinnedPipeline(k, name, interval)
        step(self.pipeline.at)

    @property
    def stages(self) -> int:
        """Steps that the pipeline needs at least."""
        return self.pipeline.stages

    def enough(self, steps: Register) -> Register:
        """Return 1 in a register of this scope if there are steps enough for the pipeline."""
        enough: Register = self.k.scalar("enough steps")
        with self.k.scope():
            self.k.slt(self.k.constant(self.stages - 1), steps, enough)
        return enough

    def pipelined(self, steps: Register, before: Sequence[Sequence[Emit]] = ()) -> None:
        """Run at least `stages` steps, overlapping, behind the packets `before` them."""
        self.k.smov(steps, self.left)
        self.pipeline.emit(self.left, before)

    def one_by_one(self, steps: Register, before: Sequence[Sequence[Emit]] = ()) -> None:
        """Run any number of steps, each after the other and all after what is `before` them."""
        for emit in chain(*before):
            emit()
        with self.k.loop(f"short {self.name}", steps):
            self.step(lambda cycle, emit: emit())

    def run(self, steps: Register) -> None:
        """Run any number of steps the better way."""
        enough = self.enough(steps)
        with self.k.when(enough):
            self.pipelined(steps)
        with self.k.when_zero(enough):
            self.one_by_one(steps)
