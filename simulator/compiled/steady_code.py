"""Machine code of loops in their steady state: many turns at once, without a check in between.

`i64 steady(ptr record)` takes over from a loop's own function at the beginning of a turn. It counts
the turns to come, sees that every load of all of them stays inside its memory, and lets each slice
of the accumulators run through them, a block of turns at a time. All else that the loop leaves
behind, such as addresses and results on their way, is what the last turns make of it, and is
computed once. Where anything is in doubt it changes nothing, and the loop goes on turn by turn.
"""

from __future__ import annotations

from attrs import frozen

from isa.instruction import Effect
from isa.operands import File, Register
from isa.program import Operation
from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.flights import Flight
from simulator.compiled.frame import FUNCTION
from simulator.compiled.linear import Amount
from simulator.compiled.llvm_values import BIT, REGISTER
from simulator.compiled.native import align_stack
from simulator.compiled.plan import Code, Plan
from simulator.compiled.slices import Slice, slices, turns_of_block
from simulator.compiled.steady_state import SCALARS, Definition, SteadyState, address_of
from simulator.compiled.steady_values import FromRecord, SteadyValues

FEWEST = 4
"""Turns that are worth it."""

MOST = 1 << 26
"""Turns at once: enough, and no address runs over 64 bits."""

LARGEST_STEP = 1 << 32
"""Bytes that an address may move a turn, for the same reason."""


@frozen
class Left:
    """What a result is found as when so many turns have passed: in its register or on its way."""

    definition: Definition
    turns: int
    """How many turns before the next one it was sent."""
    flight: Flight | None


def left_behind(loop: SteadyState) -> list[Left]:
    """Return what the loop's registers hold, and what is on its way, when a turn begins."""
    found = []
    for definitions in loop.of.values():
        last: tuple[int, Left] | None = None
        for definition in definitions:
            turns = 1
            while definition.lands - turns * loop.cycles >= 0:
                remaining = definition.lands - turns * loop.cycles
                found.append(Left(definition, turns, Flight(definition.flight.result, remaining)))
                turns += 1
            landed = definition.lands - turns * loop.cycles
            if last is None or landed > last[0]:
                last = landed, Left(definition, turns, None)
        assert last is not None
        found.append(last[1])
    return found


class SteadyFunction:
    """Writes the function of one loop."""

    def __init__(self, module: ir.Module, plan: Plan, loop: SteadyState, number: int) -> None:
        self.plan, self.loop = plan, loop
        self.entry = loop.stretch.entry
        self.left = left_behind(loop)
        self.function = ir.Function(module, FUNCTION, f"steady{number}")
        align_stack(self.function)
        # What does not change is computed in the first block; it grows until all is written.
        first = ir.IRBuilder(self._block("entry"))
        self.entered = FromRecord(plan, loop, first, self.function.args[0])
        self.checks = self._block("checks")
        self.builder = ir.IRBuilder(self.checks)

    def _block(self, name: str) -> ir.Block:
        return self.function.append_basic_block(name)

    def write(self) -> None:
        """Write the whole function."""
        b, entered = self.builder, self.entered
        refused, going = self._block("refused"), self._block("going")
        b.store(REGISTER(self.plan.numbers[self.entry]), entered.number("next"))
        turns = self._turns()
        enough = b.icmp_signed(">=", turns, REGISTER(FEWEST))
        right = b.and_(self._inside(turns), enough)
        if self.plan.timing:
            right = b.and_(right, self._all_known())
        b.cbranch(right, going, refused)
        ir.IRBuilder(refused).ret(REGISTER(Code.ONWARD))
        self.builder = ir.IRBuilder(going)
        for definition in self.loop.accumulators:
            self._keep(definition, entered.before(definition, self.builder))
        last = max(
            (x.turns for x in self.left if x.definition in self.loop.accumulators), default=1
        )
        if self.loop.accumulators:
            self._run_blocks(self.builder.sub(turns, REGISTER(last - 1)))
        self._finish(turns, last - 1)
        self._count(turns)
        self.builder.ret(REGISTER(Code.ONWARD))
        entered.builder.branch(self.checks)

    # Sums ---------------------------------------------------------------------------------------

    def _keep(self, definition: Definition, value: Value) -> None:
        self.builder.store(value, self._kept_at(definition), align=4)

    def _kept(self, definition: Definition) -> Value:
        return self.builder.load(self._kept_at(definition), typ=self.entered.vector, align=4)

    def _kept_at(self, definition: Definition) -> Value:
        """Return where a sum is while other slices run."""
        number = self.loop.accumulators.index(definition)
        offset = self.plan.record.sums + 4 * self.entered.lanes * number
        return self.entered.at(offset, self.builder)

    def _run_blocks(self, turns: Value) -> None:
        """Let every slice run through a block of turns, then through the next."""
        before, blocks, after = self.builder.block, self._block("blocks"), self._block("after")
        self.builder.branch(blocks)
        self.builder = b = ir.IRBuilder(blocks)
        done = b.phi(REGISTER)
        done.add_incoming(REGISTER(0), before)
        left, most = b.sub(turns, done), REGISTER(turns_of_block(self.loop))
        count = b.select(b.icmp_signed("<", left, most), left, most)
        for one in slices(self.loop):
            self._run_slice(one, done, count)
        b = self.builder
        ended = b.add(done, count)
        done.add_incoming(ended, b.block)
        b.cbranch(b.icmp_signed("<", ended, turns), blocks, after)
        self.builder = ir.IRBuilder(after)

    def _run_slice(self, one: Slice, done: Value, turns: Value) -> None:
        """Run a slice's sums through so many turns, after those that are done."""
        before, head, after = self.builder, self._block("slice"), self._block("sliced")
        b, phis = ir.IRBuilder(self._block("turn")), ir.IRBuilder(head)
        turn = SteadyValues(self.entered, b)

        def phi(kind: ir.Type, start: Value) -> Value:
            made = phis.phi(kind)
            made.add_incoming(start, before.block)
            return made

        def offset(amount: Amount) -> Value:
            return phi(REGISTER, before.mul(self.entered.amount(amount), done))

        turn.moved_by(offset)
        for d in one.accumulators:
            turn.sums[id(d)] = phi(self.entered.vector, self._kept(d))
        count = phi(REGISTER, turns)
        sums = {id(d): turn.value(d, 0) for d in one.accumulators}
        for amount, moved in turn.offsets.items():
            moved.add_incoming(b.add(moved, self.entered.amount(amount)), b.block)
        for key, sum_before in turn.sums.items():
            sum_before.add_incoming(sums[key], b.block)
        remaining = b.sub(count, REGISTER(1))
        count.add_incoming(remaining, b.block)
        b.cbranch(b.icmp_unsigned("!=", remaining, REGISTER(0)), head, after)
        phis.branch(b.block)
        before.branch(head)
        self.builder = ir.IRBuilder(after)
        for d in one.accumulators:
            self._keep(d, sums[id(d)])

    # What is left -------------------------------------------------------------------------------

    def _finish(self, turns: Value, more: int) -> None:
        """Run the sums through the last turns one by one, and write all results to the record."""
        b, entered = self.builder, self.entered
        # Each sum is read and written before the next, so that few values live at a time.
        last = [self._turn(b.sub(turns, REGISTER(more - number))) for number in range(more)]
        for definition in self.loop.accumulators:
            history = [self._kept(definition)]
            for turn in last:
                turn.sums = {id(definition): history[-1]}
                history.append(turn.value(definition, 0))
            for x in self.left:
                if x.definition is definition:
                    entered.leave(b, x.definition, x.flight, history[-x.turns])
        end = self._turn(turns)
        for x in self.left:
            if x.definition not in self.loop.accumulators:
                value = end.value(x.definition, -x.turns)
                entered.leave(b, x.definition, x.flight, value)
                if self.plan.timing:
                    flag = end.unknown(x.definition, -x.turns)
                    entered.leave_flag(b, x.definition, x.flight, flag)

    def _turn(self, number: Value) -> SteadyValues:
        b, entered = self.builder, self.entered
        turn = SteadyValues(entered, b)
        turn.moved_by(lambda amount: b.mul(entered.amount(amount), number))
        return turn

    # Whether, and how far ------------------------------------------------------------------------

    def _turns(self) -> Value:
        """Return the turns that lead back to the loop and keep within the limit."""
        b, loop, entered = self.builder, self.loop, self.entered
        time, branch = loop.branch
        assert branch.predicate is not None
        left = entered.initial(branch.predicate.register, time)
        step = REGISTER(loop.step)
        counted = b.and_(
            b.icmp_signed(">", left, REGISTER(0)),
            b.icmp_signed("==", b.srem(left, step), REGISTER(0)),
        )
        turns = b.select(counted, b.sdiv(left, step), REGISTER(0))
        until = b.sub(entered.load("limit"), b.add(entered.load("stalled"), entered.load("issue")))
        room = b.sdiv(until, REGISTER(loop.cycles))
        for most in (room, REGISTER(MOST)):
            turns = b.select(b.icmp_signed("<", turns, most), turns, most)
        return turns

    def _all_known(self) -> Value:
        """Return whether everybody knows what moves by a fixed step, and by which step."""
        b, entered = self.builder, self.entered
        registers, flags = set[Register](), list[Value | None]()
        for definition in self.loop.definitions:
            motion = self.loop.moves(definition)
            if motion is None:
                continue
            registers |= {register for register, _ in motion.step.products}
            registers.add(definition.target)
            for left in self.left:
                if left.definition is definition and left.flight is not None:
                    flags.append(entered.flight_flag(left.flight))
        for _, _, operation in self.loop.operations:
            registers |= {r for r in operation.reads if r not in self.loop.of and r.file in SCALARS}
        flags += [entered.flag(register) for register in sorted(registers, key=Register.__str__)]
        known: Value = BIT(1)
        for flag in flags:
            if flag is not None:
                known = b.and_(known, b.not_(flag))
        return known

    def _inside(self, turns: Value) -> Value:
        """Return whether every load of all turns lies inside its memory, at whole words."""
        b, right = self.builder, BIT(1)
        last = b.sub(turns, REGISTER(1))
        for time, _, operation in self.loop.operations:
            loads = operation.instruction.effect is Effect.LOAD
            if not loads or self.loop.is_left_out(operation):
                continue
            for holds in self._load_inside(last, time, operation):
                right = b.and_(right, holds)
        return right

    def _load_inside(self, last: Value, time: int, operation: Operation) -> list[Value]:
        b, entered = self.builder, self.entered
        machine, kind = self.plan.machine, operation.address_kind
        assert kind is not None
        address, _ = address_of(operation)
        motion = self.loop.motion(address.base, time)
        assert motion is not None
        memory = machine.am if kind.vector else machine.sm
        span = kind.unit_bytes * (machine.vpu.lanes if kind.vector else 1)
        step = entered.amount(motion.step)
        start = b.sub(entered.address(operation, time, 0), REGISTER(memory.base))
        room = REGISTER(4 * (memory.bytes // 4) - span)
        small = b.icmp_unsigned(
            "<", b.add(step, REGISTER(LARGEST_STEP)), REGISTER(2 * LARGEST_STEP)
        )
        words = b.icmp_unsigned("==", b.and_(b.or_(start, step), REGISTER(3)), REGISTER(0))
        end = b.add(start, b.mul(last, step))
        return [
            small, words, b.icmp_unsigned("<=", start, room), b.icmp_unsigned("<=", end, room)
        ]  # fmt: skip

    def _count(self, turns: Value) -> None:
        b, entered = self.builder, self.entered
        vmacs = sum(o.slot.startswith("VMAC") for _, _, o in self.loop.operations)
        lanes, record = b.mul(b.ctpop(entered.lane_bits), REGISTER(vmacs)), self.plan.record
        for offset, amount in (
            (record.numbers["issue"], REGISTER(self.loop.cycles)),
            (record.numbers["vmac_lanes"], lanes),
            (record.counts + 8 * self.plan.numbers[self.entry], REGISTER(1)),
        ):
            place = entered.at(offset, b)
            before = b.load(place, typ=REGISTER, align=8)
            b.store(b.add(before, b.mul(amount, turns)), place, align=8)


def counted_register(loop: SteadyState) -> Register:
    """Return the register that counts the turns down."""
    predicate = loop.branch[1].predicate
    assert predicate is not None
    assert predicate.register.file is File.SCALAR
    return predicate.register
