"""One turn of a stretch in machine code: packets issue, results land, rules are kept.

Time is known when the code is written: every packet has its cycle, every result the cycle in which
it lands. What is known at run time only is whether a predicated operation sent a result.
"""

from __future__ import annotations

from attrs import evolve

from isa.instruction import Effect
from isa.operands import FILE_LENGTH, File, Register
from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.flights import Flight
from simulator.compiled.frame import UNKNOWN_BIT, Frame, Landing
from simulator.compiled.llvm_values import BIT, REGISTER, WORD
from simulator.compiled.packets import (
    LANE_MASK,
    OperationTranslator,
    Sent,
    bits_of,
    lanes_of,
)
from simulator.compiled.places import overlapping
from simulator.compiled.plan import Code
from simulator.compiled.stretches import branches, by_register, held_labels
from simulator.compiled.timing_only import TimingTranslator


class Turn(Frame):
    """The packets of a stretch, and what lands while they issue."""

    def _open(self) -> None:
        b = self.builder
        self.translator = self._make_translator()
        for flight, (value, bits) in self.arriving.items():
            lanes, bare = None, self.registers.uniform and not flight.result.partial
            if flight.result.whole_exchange or (flight.result.has_lanes and not bare):
                lanes = lanes_of(b, bits, self.lanes)
            sure = flight in self.plan.sure[self.entry]
            came = None if sure else b.icmp_signed("<", bits, REGISTER(0))
            sent = Sent(flight, value, came, lanes, self._unknown_on_its_way(flight, bits), bits)
            self.landings.append(Landing(flight.remaining, sent, -1))
        self.branches: list[tuple[int, Value | None, Value, int]] = []
        for branch, (taken, target) in self.coming.items():
            flag = b.icmp_unsigned("!=", taken, REGISTER(0))
            self.branches.append((branch.remaining, flag, target, branch.packet))

    def _make_translator(self) -> OperationTranslator:
        def descriptor(word: int) -> Value:
            return self._at(self.plan.record.descriptor + 4 * word)

        kind = TimingTranslator if self.plan.timing else OperationTranslator
        made = kind(
            self.builder, self.plan.program, self.plan.machine, self.registers, self.array,
            self.scalar, self._load("core"), descriptor, self.fault,
        )  # fmt: skip
        if isinstance(made, TimingTranslator):
            made.shadow = self.first.inttoptr(self._load("shadow"), ir.PointerType())
        return made

    def _unknown_on_its_way(self, flight: Flight, bits: Value) -> Value | None:
        if not self.plan.timing or flight.result.unseen:
            return None
        return self.builder.trunc(self.builder.lshr(bits, REGISTER(UNKNOWN_BIT)), BIT)

    def _packets(self) -> None:
        clock = 0
        self.multiplied = 0
        for issue in self.stretch.issues:
            self._land(clock, issue.time)
            clock = issue.time + 1
            if by_register(self.plan.program, issue.packet):
                self._refuse_elsewhere(issue.packet)
            self._issue(issue.time, issue.packet)
        self._land(clock, self.stretch.cycles - 1)
        if self.multiplied:
            self._count_lanes(self.builder.mul(self.lane_count, REGISTER(self.multiplied)))

    def _refuse_elsewhere(self, packet: int) -> None:
        """Leave before the first packet if its branch will lead to where no stretch begins."""
        b = self.builder
        operation = branches(self.plan.program, packet)[0]
        register = operation.sources[0]
        assert isinstance(register, Register)
        target = self.registers.read(register)
        elsewhere: Value = BIT(1)
        for place in held_labels(self.plan.program):
            elsewhere = b.and_(elsewhere, b.icmp_unsigned("!=", target, REGISTER(place)))
        if operation.predicate is not None:
            test = "==" if operation.predicate.negated else "!="
            condition = self.registers.read(operation.predicate.register)
            taken = b.icmp_unsigned(test, condition, REGISTER(0))
            elsewhere = b.and_(elsewhere, taken)
        leaving, staying = self._block("elsewhere"), self._block("here")
        b.cbranch(elsewhere, leaving, staying, rarely=True)
        ir.IRBuilder(leaving).ret(REGISTER(Code.ELSEWHERE))
        b.position_at_end(staying)

    def _issue(self, time: int, packet: int) -> None:
        """Emit one packet: all reads and computations, then its stores."""
        b, t = self.builder, self.translator
        for operation in self.plan.program.packets[packet].operations:
            if operation.instruction.effect is Effect.IDLE:
                continue
            for one in t.translate(operation, packet):
                sent = evolve(one, packet=packet)
                self.landings.append(Landing(time + one.flight.remaining, sent, time))
        if len(t.deferred.touched) > 1:
            meets = overlapping(b, t.deferred)
            if meets is not None:
                self.fault(meets)
        for store in t.deferred.stores:
            store()
        t.deferred.stores.clear()
        t.deferred.touched.clear()
        self._count_multiplies()
        self._take_branches(time)
        self._stall_on_banks(packet)

    def _stall_on_banks(self, packet: int) -> None:
        accesses, self.conflict = self.translator.accesses, REGISTER(0)
        if self.banks is not None and accesses:
            b = self.builder
            cycles = self.banks.cycles(b, self._at(self.plan.record.banks), accesses)
            self.stalls = b.add(self.stalls, cycles)
            self.conflict = cycles
            place = self._at(self.plan.record.bank_stalls + 8 * packet)
            b.store(b.add(b.load(place, typ=REGISTER, align=8), cycles), place, align=8)
        accesses.clear()

    def _count_multiplies(self) -> None:
        """Add the enabled lanes of the packet's VMAC slots to the counter."""
        b, always = self.builder, 0
        for allowed, own in self.translator.multiplied:
            if allowed is None and own is None:
                always += 1
                continue
            lanes = self._lanes_at_all() if own is None else self._count(own)
            if allowed is not None:
                lanes = b.select(allowed, lanes, REGISTER(0))
            self._count_lanes(lanes)
        self.translator.multiplied.clear()
        if self.registers.uniform:
            self.multiplied += always
        elif always:
            self._count_lanes(b.mul(self._lanes_at_all(), REGISTER(always)))

    def _count_lanes(self, lanes: Value) -> None:
        self.counted = self.builder.add(self.counted, lanes)

    def _lanes_at_all(self) -> Value:
        if self.registers.uniform:
            return self.lane_count
        return self.builder.ctpop(self.registers.read(LANE_MASK))

    def _count(self, own: Value) -> Value:
        b = self.builder
        return b.ctpop(bits_of(b, b.and_(self.registers.enabled(), own)))

    def _take_branches(self, time: int) -> None:
        b, latency = self.builder, self.plan.machine.latency["branch"]
        for packet, allowed, target in self.translator.actions.taken:
            outside = b.icmp_unsigned(">=", target, REGISTER(len(self.plan.program.packets)))
            if not by_register(self.plan.program, packet):
                self.fault(outside if allowed is None else b.and_(outside, allowed))
            for landing, earlier, _, _ in self.branches:
                if landing > time:
                    both = [flag for flag in (earlier, allowed) if flag is not None]
                    self.fault(b.and_(*both) if len(both) == 2 else both[0] if both else BIT(1))
            self.branches.append((time + latency, allowed, target, packet))
        self.translator.actions.taken.clear()
        for skipped in self.stretch.skipped:
            for landing, taken, _, packet in self.branches:
                due = landing == skipped.remaining and packet == skipped.packet
                if due and time < landing < time + self._cycles_at(time):
                    self.fault(BIT(1) if taken is None else taken)

    def _cycles_at(self, time: int) -> int:
        (packet,) = (issue.packet for issue in self.stretch.issues if issue.time == time)
        return self.plan.program.packets[packet].cycles

    # Landing ------------------------------------------------------------------------------------

    def _land(self, first: int, last: int) -> None:
        """Put results into their registers that land in the cycles `first` to `last`."""
        for time in range(first, last + 1):
            due = [landing for landing in self.landings if landing.time == time]
            if not due:
                continue
            self.landings = [landing for landing in self.landings if landing.time != time]
            for number, landing in enumerate(due):
                for earlier in due[:number]:
                    self._refuse_collision(earlier, landing)
            for landing in due:
                self._put(landing.sent)

    def _put(self, one: Sent) -> None:
        b, target = self.builder, one.flight.result.target
        if self.plan.timing:
            self._put_scalar(one)
            return
        value, old = one.value, self.registers.read(target)
        if one.flight.result.whole_exchange:
            value, mask = self._widened(value, old), self._widened_mask(one.mask)
            self.registers.write(target, b.select(mask, value, old))
            return
        if target.file is File.EXCHANGE:
            value = b.insert_element(old, b.trunc(value, WORD), WORD(target.index))
        if target.file is File.LANE_MASK:
            value = b.and_(value, REGISTER((1 << self.lanes) - 1))
        if one.mask is not None:
            value = b.select(one.mask, value, old)
        if one.sent is not None:
            value = b.select(one.sent, value, old)
        self.registers.write(target, value)

    def _put_scalar(self, one: Sent) -> None:
        """Put a result where a run without numbers keeps it, known or not."""
        b, target = self.builder, one.flight.result.target
        if one.flight.result.unseen:
            return
        value, unknown = one.value, one.unknown
        if target.file is File.LANE_MASK:
            value = b.and_(value, REGISTER((1 << self.lanes) - 1))
            if unknown is not None:
                self.fault(unknown if one.sent is None else b.and_(unknown, one.sent))
                unknown = None
        if one.sent is not None:
            old, before = self.registers.read(target), self.registers.flag(target)
            value = b.select(one.sent, value, old)
            if unknown is not None or before is not None:
                unknown = b.select(one.sent, unknown or BIT(0), before or BIT(0))
        self.registers.write(target, value, unknown)

    def _widened(self, value: Value, like: Value) -> Value:
        """Return lanes as entries of the exchange register; the further ones mean nothing."""
        count = like.type.count
        sources = [min(entry, self.lanes - 1) for entry in range(count)]
        mask = ir.Constant(ir.VectorType(WORD, count), sources)
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

    def _widened_mask(self, mask: Value | None) -> Value:
        """Return the lanes' mask as one of the exchange register, whose further entries stay."""
        assert mask is not None
        count = FILE_LENGTH[File.EXCHANGE]
        sources = [entry if entry < self.lanes else self.lanes for entry in range(count)]
        none = ir.Constant(mask.type, [0] * self.lanes)
        order = ir.Constant(ir.VectorType(WORD, count), sources)
        return self.builder.shuffle_vector(mask, none, order)

    def _refuse_collision(self, first: Landing, second: Landing) -> None:
        """Fault where two results meet: in one register, or at one unit's port."""
        b = self.builder
        one, other = first.sent.flight.result, second.sent.flight.result
        rule = self.plan.machine.issue.one_result_per_unit
        port = rule and one.port and one.port == other.port
        port = port and (first.issued == -1 or first.issued != second.issued)
        if self.plan.timing and (one.unseen or other.unseen) and not port:
            return
        exchange = one.whole_exchange or other.whole_exchange
        same = one.target == other.target or (exchange and one.target.file is other.target.file)
        if not port and not same:
            return
        meets = BIT(1)
        for landing in (first, second):
            if landing.sent.sent is not None:
                meets = b.and_(meets, landing.sent.sent)
        if self.plan.timing:
            self.fault(meets)
            return
        sent = [landing.sent.mask for landing in (first, second)]
        masks = [self.registers.enabled() if mask is None else mask for mask in sent]
        if not port and one.has_lanes and other.has_lanes:
            if self.registers.uniform:
                masks[0] = b.and_(masks[0], self.registers.enabled())
            common = b.bitcast(b.and_(*masks), ir.IntType(self.lanes))
            meets = b.and_(meets, b.icmp_unsigned("!=", common, ir.IntType(self.lanes)(0)))
        self.fault(meets)
