"""A stretch of packets as one function of machine code: `i64 stretch(ptr record)`.

The function reads the registers it touches, runs the stretch, as often as it leads back to itself,
and writes back what has changed. It returns a `Code`: go on with the stretch in `next`, or let
Python act. A fault leaves the record as it was when the function began.
"""

from __future__ import annotations

from attrs import evolve

from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.bank_stalls import BankModel
from simulator.compiled.flights import Flight
from simulator.compiled.frame import (
    BYTE,
    FUNCTION,
    PACKET_MASK,
    PACKET_SHIFT,
    UNKNOWN_BIT,
)
from simulator.compiled.llvm_values import BIT, REGISTER
from simulator.compiled.packets import Sent, bits_of
from simulator.compiled.plan import CODES, Code, Plan
from simulator.compiled.steady_code import FEWEST, SteadyFunction, counted_register
from simulator.compiled.steady_state import steady_state
from simulator.compiled.stretches import Entry, Pending, branch_targets, by_register
from simulator.compiled.turn import Turn


class StretchFunction(Turn):
    """Writes the function of one stretch into a module."""

    def write(self) -> None:
        """Write the whole function."""
        self._begin()
        self._open()
        self._packets()
        self._close()
        self._write_ends()

    def _close(self) -> None:
        """Count the turn, and go where the stretch leads."""
        b, stretch = self.builder, self.stretch
        self.turns = b.add(self.turns, REGISTER(1))
        if stretch.landing is None:
            self._leave(stretch.onward, self._stop_code())
            return
        (flag,) = (
            flag for landing, flag, _, packet in self.branches
            if landing == stretch.cycles and packet == stretch.landing.packet
        )  # fmt: skip
        if flag is None or stretch.always:
            self._take(stretch.landing)
            return
        taken, straight = self._block("taken"), self._block("straight")
        b.cbranch(flag, taken, straight)
        b.position_at_end(taken)
        self._take(stretch.landing)
        b.position_at_end(straight)
        self._leave(stretch.onward, None)

    def _take(self, branch: Pending) -> None:
        """Go where a branch leads: round again if that is here."""
        if self.turning:
            self._turn_again(self._departing(self.entry))
            return
        targets = branch_targets(self.plan.program, branch.packet)
        if not by_register(self.plan.program, branch.packet):
            self._leave(Entry(targets[0], self.stretch.onward.pending), None)
            return
        (register,) = (
            target for landing, _, target, packet in self.branches
            if landing == self.stretch.cycles and packet == branch.packet
        )  # fmt: skip
        choice = self.builder.switch(register, self.faulty)
        for target in targets:
            block = self._block("led")
            choice.add_case(REGISTER(target), block)
            self.builder.position_at_end(block)
            self._leave(Entry(target, self.stretch.onward.pending), None)

    def _stop_code(self) -> Value | None:
        """Return the code that hands over to Python behind the last packet; None if none does."""
        b, stops = self.builder, self.translator.actions.stops
        code: Value | None = None
        for number, (effect, allowed, channel) in enumerate(stops):
            for _, other, _ in stops[:number]:
                both = [flag for flag in (other, allowed) if flag is not None]
                self.fault(b.and_(*both) if len(both) == 2 else both[0] if both else BIT(1))
            here = REGISTER(CODES[effect])
            before = REGISTER(Code.ONWARD) if code is None else code
            code = here if allowed is None else b.select(allowed, here, before)
            old = self._load("channel")
            value = channel if allowed is None else b.select(allowed, channel, old)
            b.store(value, self._number("channel"))
        return code

    def _leave(self, entry: Entry, code: Value | None) -> None:
        """Go on at an entry by way of the record; the code says if Python must act before."""
        b = self.builder
        if code is not None:
            b.store(REGISTER(self.stretch.issues[-1].packet), self._number("last"))
            b.store(self.conflict, self._number("conflict"), align=8)
        departing = self._departing(entry)
        if entry.packet >= len(self.plan.program.packets):
            self._exit(-1, REGISTER(Code.END) if code is None else code)
            return
        self._store_departing(entry, departing)
        self._exit(self.plan.numbers[entry], REGISTER(Code.ONWARD) if code is None else code)

    def _store_departing(self, entry: Entry, departing: dict[Flight, tuple[Value, Value]]) -> None:
        """Write to the record what is on its way where the stretch leads."""
        b, record = self.builder, self.plan.record
        for flight in sorted(self.plan.flights[entry], key=str):
            value, state = departing.get(flight, (None, REGISTER(0)))
            self._store_flight(record.flights[entry, flight], flight, value, state)
        for branch in entry.pending:
            flag, target = self._branch_state(branch)
            b.store(flag, self._at(record.pending[entry, branch]), align=8)
            b.store(target, self._at(record.pending[entry, branch] + 8), align=8)

    def _branch_state(self, branch: Pending) -> tuple[Value, Value]:
        (found,) = (
            (flag, target) for landing, flag, target, packet in self.branches
            if landing == self.stretch.cycles + branch.remaining and packet == branch.packet
        )  # fmt: skip
        flag, target = found
        return (REGISTER(1) if flag is None else self.builder.zext(flag, REGISTER)), target

    def _departing(self, entry: Entry) -> dict[Flight, tuple[Value, Value]]:
        """Return value and state of what is on its way at the end; equal flights are one."""
        b, found = self.builder, dict[Flight, tuple[Value, Value]]()
        for landing in self.landings:
            one = landing.sent
            flight = Flight(one.flight.result, landing.time - self.stretch.cycles)
            state = REGISTER(-(2**63)) if one.sent is None else b.shl(
                b.zext(one.sent, REGISTER), REGISTER(63)
            )  # fmt: skip
            if flight.result.has_lanes and not self.plan.timing:
                state = b.or_(state, self._lane_bits_of(one))
            state = b.or_(state, self._packet_of(one))
            if one.unknown is not None:
                flag = b.shl(b.zext(one.unknown, REGISTER), REGISTER(UNKNOWN_BIT))
                state = b.or_(state, flag)
            value = one.value
            if flight in found:
                before, known = found[flight]
                both = b.and_(known, state)
                self.fault(b.icmp_signed("<", both, REGISTER(0)))
                came = b.icmp_signed("<", state, REGISTER(0))
                # A result that was not sent must not count as unknown.
                state = b.select(came, state, known)
                value = b.select(came, value, before)
            found[flight] = value, state
        return found

    def _packet_of(self, one: Sent) -> Value:
        """Return the packet that sent a result, where it stands in a state."""
        if isinstance(one.packet, int):
            return REGISTER((one.packet & PACKET_MASK) << PACKET_SHIFT)
        return self.builder.and_(one.packet, REGISTER(PACKET_MASK << PACKET_SHIFT))

    def _lane_bits_of(self, one: Sent) -> Value:
        """Return the lanes in which a vector on its way will land, as bits."""
        b = self.builder
        if one.mask is None:
            return self.lane_bits
        bits = bits_of(b, one.mask)
        return b.and_(bits, self.lane_bits) if self.registers.uniform else bits

    def _turn_again(self, departing: dict[Flight, tuple[Value, Value]]) -> None:
        """Go round, unless that would pass the limit or many turns can be run at once."""
        b = self.builder
        end = b.add(
            self._load("issue"),
            b.mul(b.add(self.turns, REGISTER(1)), REGISTER(self.stretch.cycles)),
        )
        if self.banks is not None:
            end = b.add(end, b.add(self.stalls, REGISTER(self.most_stalls)))
        self._leave_if(b.icmp_signed(">", end, self.limit), departing, self.number, Code.LIMIT)
        if self.entry in self.plan.steady:
            loop = self.plan.steady[self.entry]
            warm = b.icmp_unsigned("==", self.turns, REGISTER(loop.warm_up))
            left = self.registers.read(counted_register(loop))
            many = b.icmp_signed(">", left, REGISTER(FEWEST * loop.step))
            number = self.plan.steady_number(self.entry)
            self._leave_if(b.and_(warm, many), departing, number, Code.ONWARD)
        values = [self.registers.values[register] for register in self.circling]
        if self.plan.timing:
            flags = [self.registers.unknown[register] for register in self.circling]
            values += [BIT(0) if flag is None else flag for flag in flags]
        values += [self.turns, self.counted, self.stalls]
        for flight, (old, _) in self.arriving.items():
            values += departing.get(flight, (old, REGISTER(0)))
        for branch in self.coming:
            values += self._branch_state(branch)
        for phi, value in zip(self.round, values, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(self.body)

    def _leave_if(
        self, reason: Value, departing: dict[Flight, tuple[Value, Value]], number: int, code: Code
    ) -> None:
        """Leave before the next turn if there is reason to."""
        b, leaving, staying = self.builder, self._block("leaving"), self._block("staying")
        b.cbranch(reason, leaving, staying, rarely=True)
        b.position_at_end(leaving)
        self._store_departing(self.entry, departing)
        self._exit(number, REGISTER(code))
        b.position_at_end(staying)


def write_functions(module: ir.Module, plan: Plan) -> None:
    """Write the functions of all stretches, and `run`, which calls them."""
    found = {
        entry: steady_state(plan.program, plan.machine, stretch, plan.flights[entry], plan.timing)
        for entry, stretch in plan.stretches.items()
    }
    steady = {entry: loop for entry, loop in found.items() if loop is not None}
    plan = evolve(plan, steady=steady)
    banks = BankModel(module, plan.machine) if plan.machine.am.bank_model else None
    for stretch in plan.stretches.values():
        StretchFunction(module, plan, stretch, banks).write()
    for entry, loop in plan.steady.items():
        SteadyFunction(module, plan, loop, plan.steady_number(entry)).write()
    write_dispatcher(module, plan)


def _hand_over(b: ir.IRBuilder, run: ir.Function, code: Value, plan: Plan) -> None:
    """Return a code; for `Code.MASKS` go on in the other set of functions if there is one."""
    place = b.gep(run.args[0], [REGISTER(plan.record.numbers["masked"])], source_etype=BYTE)
    other = b.load(place, typ=REGISTER, align=8)
    wanted = b.and_(
        b.icmp_unsigned("==", code, REGISTER(Code.MASKS)),
        b.icmp_unsigned("!=", other, REGISTER(0)),
    )
    masked, returning = run.append_basic_block("masked"), run.append_basic_block("returning")
    b.cbranch(wanted, masked, returning)
    b.position_at_end(masked)
    pointer = b.inttoptr(other, ir.PointerType())
    b.ret(b.call_at(pointer, FUNCTION, [run.args[0]]))
    b.position_at_end(returning)
    b.ret(code)


def write_dispatcher(module: ir.Module, plan: Plan) -> None:
    """Write `run(ptr record)`: call one stretch after the other until Python must act."""
    run = ir.Function(module, FUNCTION, "run")
    b = ir.IRBuilder(run.append_basic_block("entry"))
    again, ended = run.append_basic_block("again"), run.append_basic_block("ended")
    b.branch(again)
    b.position_at_end(ended)
    code = b.phi(REGISTER)
    _hand_over(b, run, code, plan)
    b.position_at_end(again)
    offset = REGISTER(plan.record.numbers["next"])
    number = b.load(b.gep(run.args[0], [offset], source_etype=BYTE), typ=REGISTER, align=8)
    choice = b.switch(number, ended)
    code.add_incoming(REGISTER(Code.END), again)
    names = [f"stretch{number}" for number in range(len(plan.stretches))]
    names += [f"steady{plan.steady_number(entry)}" for entry in plan.steady]
    for index, name in enumerate(names):
        block = run.append_basic_block(f"call{index}")
        choice.add_case(REGISTER(index), block)
        b.position_at_end(block)
        returned = b.call(module.globals[name], [run.args[0]])
        b.cbranch(b.icmp_unsigned("==", returned, REGISTER(Code.ONWARD)), again, ended)
        code.add_incoming(returned, block)
