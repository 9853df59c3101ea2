"""The builder's software-pipelined loops: `with k.pipelined(name, steps):`.

The body is collected as plain operations in order; `isa.pipelining` overlaps its steps. What is
emitted is a stretch that fills the pipeline, the loop, a stretch that drains it, and where steps
are counted on the device a loop that takes them one by one: all of them where they are too few, and
before the others those that do not fill a turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral

from attrs import evolve, frozen

from isa.errors import KernelError
from isa.instruction import REGISTRY, SYNCHRONISING, Effect, Unit
from isa.language.control_flow import ControlFlow
from isa.language.emitter import unless, when_set
from isa.language.storage import LOOP_PREDICATE, block
from isa.machine import Machine
from isa.operands import File, Label, R, Register
from isa.pipelined_loop import PipelinedLoop
from isa.pipelining.plan import Outcome, Plan, plan
from isa.pipelining.stretch import Stretches, Turns
from isa.pipelining.webs import written
from isa.program import Buffer, Operation, Origin, Packet

REFUSED = SYNCHRONISING | {Effect.BRANCH, Effect.IDLE}


@frozen
class _Loop:
    """A pipelined loop being emitted."""

    name: str
    prefix: str
    """Path of the loops around it, with a slash."""
    origin: Origin
    left: Register
    """Steps left, for the author."""
    turns: Register
    short: Register
    """Steps to take one by one."""

    def path(self, part: str = "") -> str:
        return f"{self.prefix}{self.name}{part}"


class PipelinedLoops(ControlFlow):
    """Loops whose steps overlap."""

    def __init__(self, name: str, machine: Machine, cores: int) -> None:
        super().__init__(name, machine, cores)
        self._body: list[Operation] | None = None
        self._body_name = ""
        self._pipelined: dict[str, PipelinedLoop] = {}

    @block
    def pipelined(
        self, name: str, steps: int | Register, apart: Sequence[Buffer] = ()
    ) -> Iterator[Register]:
        """Run the body `steps` times on the device, steps overlapping; yield the steps left.

        The body is plain operations in order and means what it would mean in `k.loop`. A register
        count, or an integer, may be 0. The yielded register counts down to 1. The author promises
        that no two steps touch the same bytes of a buffer in `apart`.
        """
        self._check_steps(name, steps)
        names = frozenset(buffer.name for buffer in apart)
        with self.scope():
            prefix = "".join(f"{loop}/" for loop in self._loops)
            loop = _Loop(
                name, prefix, self.origin(), *(self.scalar(f"{name}: {what}") for what in _COUNTS)
            )
            self.flush()
            before = self.registers.leases
            with self.scope():
                self._body, self._body_name = [], name
                try:
                    with self.named_loop(name):
                        yield loop.left
                    body = self._body
                finally:
                    self._body = None
                own = self.registers.lent_since(before)
                self._pipeline(loop, _counted(body, loop.left), own, steps, names)

    def _check_steps(self, name: str, steps: int | Register) -> None:
        if self._body is not None:
            raise self._refusal(f"pipelined loop '{name}'")
        number = isinstance(steps, Integral) and not isinstance(steps, bool) and steps >= 0
        if not (number or (R.accepts(steps) and steps != LOOP_PREDICATE)):
            wanted = "steps must be a whole number of at least 0 or a scalar register other than R0"
            raise self.error(f"pipelined loop '{name}': {wanted}, got {steps}")

    # The body -----------------------------------------------------------------------------------

    def _add(self, operation: Operation) -> None:
        if self._body is None:
            super()._add(operation)
            return
        if operation.instruction.effect in REFUSED:
            raise self._refusal(str(operation))
        self._body.append(operation)

    def flush(self) -> None:
        """End the current stretch of scheduled operations."""
        if self._body is not None:
            raise self._refusal("a label, pinned packet or buffer")
        super().flush()

    def _refusal(self, what: str) -> KernelError:
        return self.error(
            f"{what} cannot be inside pipelined loop '{self._body_name}': it takes plain "
            "operations only, which may be predicated; inner loops, conditions, calls, pinned "
            "packets, transfers, barriers and new buffers belong outside or into k.loop"
        )

    # The loop -----------------------------------------------------------------------------------

    def _pipeline(
        self,
        loop: _Loop,
        body: Sequence[Operation],
        own: set[Register],
        steps: int | Register,
        apart: frozenset[str],
    ) -> None:
        for operation in body:
            if LOOP_PREDICATE in (*operation.reads, *operation.writes):
                raise KernelError(
                    f"{operation.origin}: {operation}: R0 counts the turns of pipelined loop "
                    f"'{loop.name}'; take another register, a predicate with k.scalar_predicate"
                )
        if not body:
            return
        spare = self._spare(body, own)
        counted_on_device = isinstance(steps, Register)
        outcome = plan(body, self.machine, own, spare, powers_of_two=counted_on_device, apart=apart)
        if isinstance(steps, Register):
            self._counted_on_device(loop, body, outcome, steps)
        elif steps > 0:
            self._counted_now(loop, body, outcome, int(steps))

    def _spare(self, body: Sequence[Operation], own: set[Register]) -> dict[File, list[int]]:
        """Return the registers of each file that are free, or only the body's."""
        touched = {r for operation in body for r in (*operation.reads, *written(operation))}
        return {
            file: [
                index
                for index in self.registers.general(file)
                if (register := Register(file, index)) in own
                or (register not in touched and register not in self.registers.owner)
            ]
            for file in (File.SCALAR, File.VECTOR, File.ADDRESS, File.OFFSET)
        }

    def _counted_now(
        self, loop: _Loop, body: Sequence[Operation], outcome: Outcome, steps: int
    ) -> None:
        found = outcome.plan
        self.constant(steps, loop.left)
        if steps == 1:
            self._report(loop, outcome, self.label(loop.name))
            self._add_body(body, loop.path())
            self.flush()
            return
        if found is None:
            self.constant(steps, loop.short)
            self._report(loop, outcome, self._one_by_one(loop, body))
            return
        whole, rest = divmod(steps, found.steps)
        filling = found.stages - 1
        turns = max(0, whole - filling) // found.unroll
        if turns < 2:
            filling, turns = 0, 0
        else:
            self.constant(turns if found.counts_first else turns - 1, LOOP_PREDICATE)
        self.flush()
        left = Turns(whole - turns * found.unroll, rest, first=turns == 0, last=True)
        self._emit(loop, outcome, found, left, turns > 0)

    def _counted_on_device(
        self, loop: _Loop, body: Sequence[Operation], outcome: Outcome, steps: Register
    ) -> None:
        self.smov(steps, loop.left)
        found, end = outcome.plan, self.new_label(f"{loop.name}_end")
        if found is None:
            self.smov(steps, loop.short)
            self._skip_unless(loop.short, end)
            self._report(loop, outcome, self._one_by_one(loop, body))
            self.place(end)
            return
        pipe, after = self.new_label(f"{loop.name}_filling"), self.new_label(f"{loop.name}_rest")
        self._divide(loop, found, steps)
        self.sbr(pipe, when=when_set(LOOP_PREDICATE))
        self._skip_unless(loop.short, after)
        self._one_by_one(loop, body)
        self.place(after)
        self._skip_unless(loop.turns, end)
        self.place(pipe)
        if found.counts_first:
            self.smov(loop.turns, LOOP_PREDICATE)
        else:
            self.ssub(1, loop.turns, LOOP_PREDICATE)
        self.flush()
        self._emit(loop, outcome, found, Turns(found.stages - 1, last=True), looping=True)
        self.place(end)

    def _divide(self, loop: _Loop, found: Plan, steps: Register) -> None:
        """Set the turns of the loop, the steps to take before, and R0 if there are only turns."""
        turn = found.unroll * found.steps
        self.ssub(self.number((found.stages - 1) * found.steps), steps, loop.turns)
        self.smov(steps, loop.short)
        with self.scope():
            rest = self.sand(self.number(turn - 1), loop.turns)
            self.sshfar(turn.bit_length() - 1, loop.turns, loop.turns)
            self.slt(0, loop.turns, LOOP_PREDICATE)
            self.smov(rest, loop.short, when=when_set(LOOP_PREDICATE))
            self.sand(self.seq(0, loop.short), LOOP_PREDICATE, LOOP_PREDICATE)

    def _skip_unless(self, count: Register, label: Label) -> None:
        """Go to a label unless a count is above 0."""
        self.slt(0, count, LOOP_PREDICATE)
        self.sbr(label, when=unless(LOOP_PREDICATE))

    def _one_by_one(self, loop: _Loop, body: Sequence[Operation]) -> Label:
        """Run the body as many times as `short` says, at least once; return the loop's label."""
        top = self.label(f"short_{loop.name}")
        self._add_body(body, f"{loop.prefix}short {loop.name}")
        with self.named_loop(f"short {loop.name}"):
            self.ssub(1, loop.short, loop.short)
            self.slt(0, loop.short, LOOP_PREDICATE)
            self.sbr(top, when=when_set(LOOP_PREDICATE))
        return top

    def _add_body(self, body: Sequence[Operation], path: str) -> None:
        """Add the operations of a step as scheduled code of the loop `path`."""
        for operation in body:
            super()._add(evolve(operation, origin=evolve(operation.origin, loop=path)))

    def _emit(
        self, loop: _Loop, outcome: Outcome, found: Plan, turns: Turns, looping: bool
    ) -> None:
        """Emit the pipeline; `turns` are those that the loop's own turns leave over."""
        stretches, begin = Stretches(found, self.machine, loop.origin), 0
        label = self.new_label(loop.name)
        self._report(loop, outcome, label)
        if looping:
            begin = (found.stages - 1) * found.interval
            filling = Turns(found.stages - 1, first=True)
            packets = stretches.packets(loop.path(" prologue"), 0, begin, filling)
            self._extend(packets)
            self.place(label)
            self._extend(stretches.loop(loop.path(), self._turning(loop, found, label)))
            end = max(stretches.drained(turns), begin)
            self._extend(stretches.packets(loop.path(" epilogue"), begin, end, turns))
            return
        self.place(label)
        self._extend(stretches.packets(loop.path(), 0, max(stretches.drained(turns), 0), turns))

    def _extend(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            self._append(packet)

    def _turning(self, loop: _Loop, found: Plan, label: Label) -> dict[int, list[Operation]]:
        """Return what counts the turns down and branches."""
        count = Operation(
            REGISTRY["SSUB"], (1, LOOP_PREDICATE, LOOP_PREDICATE), slot=found.counter[1],
            origin=loop.origin,
        )  # fmt: skip
        slot = self.machine.slots_of(Unit.SBR)[0]
        again = when_set(LOOP_PREDICATE)
        branch = Operation(REGISTRY["SBR"], (label,), again, slot=slot, origin=loop.origin)
        extra: dict[int, list[Operation]] = {found.counter[0]: [count]}
        extra.setdefault(found.branch, []).append(branch)
        return extra

    def _report(self, loop: _Loop, outcome: Outcome, label: Label) -> None:
        found, reason = outcome.plan, outcome.reason
        if found is None:
            reason = f"{reason}; steps run one by one"
        self._pipelined[label.name] = PipelinedLoop(
            name=loop.name,
            path=loop.path(),
            turn_cycles=found.cycles if found else 0,
            steps_a_turn=found.unroll * found.steps if found else 1,
            stages=found.stages if found else 1,
            resource_bound=outcome.resource.cycles,
            resource=outcome.resource.cause,
            recurrence_bound=outcome.recurrence.cycles,
            recurrence=outcome.recurrence.cause,
            reason=reason,
        )


_COUNTS = ("steps left", "turns", "single steps")


def _counted(body: list[Operation], left: Register) -> list[Operation]:
    """Return the body with the count of steps left, where it is read."""
    if not any(left in operation.reads for operation in body):
        return body
    origin = body[-1].origin
    return [*body, Operation(REGISTRY["SSUB"], (1, left, left), origin=origin)]
