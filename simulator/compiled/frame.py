"""The function of one stretch around its packets: what it begins with, and how it ends.

Registers and results in flight are read from the record in the first block and written back in the
last one. In between they are values; where a stretch leads back to itself they go round with it.
"""

from __future__ import annotations

from attrs import frozen

from isa.operands import File, Register
from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.bank_stalls import BankModel, most_stalls
from simulator.compiled.flights import Flight
from simulator.compiled.llvm_values import REGISTER, WORD
from simulator.compiled.native import FEWEST_QUICK_LANES, align_stack, leave_unoptimised
from simulator.compiled.packets import LANE_MASK, Registers, Sent, whole
from simulator.compiled.places import Space
from simulator.compiled.plan import Code, Plan
from simulator.compiled.stretches import Pending, Stretch, leads_back

BYTE = ir.IntType(8)
FUNCTION = ir.FunctionType(REGISTER, [ir.PointerType()])

# The state of a flight: its lanes from bit 0 on, then
PACKET_SHIFT = 40
PACKET_MASK = (1 << 22) - 1
"""The packet that sent it."""
UNKNOWN_BIT = 62
"""Set if nobody knows its value. Bit 63: it was sent."""


@frozen
class Landing:
    """A result on its way within the function, and the cycle of the stretch when it lands."""

    time: int
    sent: Sent
    issued: int
    """The cycle of its packet; -1 if it was on its way before."""


class Frame:
    """The function of one stretch: its values, and their way from the record and back."""

    def __init__(
        self, module: ir.Module, plan: Plan, stretch: Stretch, banks: BankModel | None = None
    ) -> None:
        self.banks, self.stalls, self.conflict = banks, REGISTER(0), REGISTER(0)
        self.most_stalls = most_stalls(plan.program, plan.machine, stretch)
        self.plan, self.stretch, self.entry = plan, stretch, stretch.entry
        self.number = plan.numbers[stretch.entry]
        self.function = ir.Function(module, FUNCTION, f"stretch{self.number}")
        align_stack(self.function)
        self.record = self.function.args[0]
        self.lanes = plan.machine.vpu.lanes
        # The first block reads what the others need; it grows until all is written.
        self.first = ir.IRBuilder(self._block("entry"))
        self.checks, self.body = self._block("checks"), self._block("body")
        self.faulty, self.saving = self._block("fault"), self._block("save")
        self.builder = ir.IRBuilder(self.body)
        self.turning = leads_back(plan.program, stretch)
        if not self.turning and self.lanes >= FEWEST_QUICK_LANES:
            leave_unoptimised(self.function)
        self.registers = Registers(self.builder, self.lanes, self._from_record)
        self.registers.load_flag = self._flag_from_record
        self.registers.uniform = plan.is_uniform(stretch)
        self.landings: list[Landing] = []
        self.exits: list[tuple[ir.Block, Value, Value]] = []
        self._numbers: dict[str, Value] = {}

    def _block(self, name: str) -> ir.Block:
        return self.function.append_basic_block(name)

    # The record ---------------------------------------------------------------------------------

    def _at(self, offset: int, builder: ir.IRBuilder | None = None) -> Value:
        b = builder or self.builder
        return b.gep(self.record, [REGISTER(offset)], source_etype=BYTE)

    def _number(self, name: str) -> Value:
        return self._at(self.plan.record.numbers[name])

    def _load(self, name: str) -> Value:
        """Return a number of the record as it was when the function began."""
        if name not in self._numbers:
            place = self._at(self.plan.record.numbers[name], self.first)
            self._numbers[name] = self.first.load(place, typ=REGISTER, align=8)
        return self._numbers[name]

    def _from_record(self, register: Register) -> Value:
        place = self._at(self.plan.record.register(register), self.first)
        return self.first.load(place, typ=self.registers.kind(register), align=4)

    def _space(self, name: str, field: str) -> Space:
        memory = self.plan.machine.am if name == "AM" else self.plan.machine.sm
        address = self.first.inttoptr(self._load(field), ir.PointerType())
        return Space(memory.base, memory.bytes // 4, address)

    def _flag_from_record(self, register: Register) -> Value:
        place = self._at(self.plan.record.unknown_flag(register), self.first)
        byte = self.first.load(place, typ=BYTE, align=1)
        return self.first.icmp_unsigned("!=", byte, BYTE(0))

    def kind(self, flight: Flight) -> ir.Type:
        vector = flight.result.has_lanes
        return ir.VectorType(WORD, self.lanes) if vector else REGISTER

    def _read_flight(self, flight: Flight) -> tuple[Value, Value]:
        """Return a flight's value and state."""
        b, kind = self.first, self.kind(flight)
        offset = self.plan.record.flights[self.entry, flight]
        size = 4 * self.lanes if flight.result.has_lanes else 8
        value: Value = REGISTER(0)
        if not (self.plan.timing and flight.result.has_lanes):
            value = b.load(self._at(offset, b), typ=kind, align=4)
        return value, b.load(self._at(offset + size, b), typ=REGISTER, align=4)

    def _read_branch(self, branch: Pending) -> tuple[Value, Value]:
        """Return whether a branch on its way was taken, and its target."""
        b, place = self.first, self.plan.record.pending[self.entry, branch]
        taken, target = (
            b.load(self._at(place + offset, b), typ=REGISTER, align=8) for offset in (0, 8)
        )
        return taken, target

    # The beginning ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Read what is on its way, and let values go round where the stretch does."""
        arriving = sorted(self.plan.flights[self.entry], key=str)
        self.arriving = {flight: self._read_flight(flight) for flight in arriving}
        self.coming = {branch: self._read_branch(branch) for branch in self.entry.pending}
        self.turns: Value = REGISTER(0)
        self.counted: Value = REGISTER(0)
        self.round: list[ir.Phi] = []
        self.circling: list[Register] = []
        self._check_entry()
        if self.registers.uniform:
            self._known_lanes()
        if self.turning:
            self._go_round_with()
        self.array, self.scalar = self._space("AM", "array"), self._space("SM", "scalar")

    def _check_entry(self) -> None:
        """Leave at once, with nothing changed, at the limit, or under other masks than taken."""
        b = ir.IRBuilder(self.checks)
        end = b.add(self._load("issue"), REGISTER(self.stretch.cycles + self.most_stalls))
        self.limit = self.first.sub(self._load("limit"), self._load("stalled"))
        refused, going = self._block("limit"), self._block("going")
        b.cbranch(b.icmp_signed(">", end, self.limit), refused, going, rarely=True)
        ir.IRBuilder(refused).ret(REGISTER(Code.LIMIT))
        b.position_at_end(going)
        checked = self.registers.uniform and not self.plan.timing
        others = self._other_masks(b) if checked else []
        if others:
            some = others[0]
            for other in others[1:]:
                some = b.or_(some, other)
            masks, going = self._block("masks"), self._block("alike")
            b.cbranch(some, masks, going, rarely=True)
            ir.IRBuilder(masks).ret(REGISTER(Code.MASKS))
            b.position_at_end(going)
        b.branch(self.body)
        self.before = b.block

    def _other_masks(self, b: ir.IRBuilder) -> list[Value]:
        """Return for every vector on its way whether it has other lanes than VLR now says."""
        others, now = [], self.registers.read(LANE_MASK)
        for flight, (_, bits) in self.arriving.items():
            if flight.result.target.file is not File.VECTOR:
                continue
            came = b.icmp_signed("<", bits, REGISTER(0))
            sent = b.and_(bits, REGISTER((1 << self.lanes) - 1))
            if flight.result.partial:
                sent = b.or_(sent, now)
            others.append(b.and_(came, b.icmp_unsigned("!=", sent, now)))
        return others

    def _known_lanes(self) -> None:
        self.lane_bits = self.registers.read(LANE_MASK)
        self.registers.know_masks(self.first)
        self.lane_count = self.first.ctpop(self.lane_bits)

    def _go_round_with(self) -> None:
        """Make everything that a turn changes a value of the turn."""
        landing = {
            whole(flight.result.target)
            for issue in self.stretch.issues
            for flight in self.plan.sends[issue.packet]
            if issue.time + flight.remaining < self.stretch.cycles
            and not (self.plan.timing and flight.result.unseen)
        }
        landing |= {
            whole(flight.result.target)
            for flight in self.arriving
            if flight.remaining < self.stretch.cycles
            and not (self.plan.timing and flight.result.unseen)
        }
        self.circling = sorted(landing, key=Register.__str__)
        for register in self.circling:
            self.registers.write(register, self._phi(self.registers.read(register)))
        if self.plan.timing:
            for register in self.circling:
                self.registers.unknown[register] = self._phi(self._flag_from_record(register))
        self.turns, self.counted = self._phi(self.turns), self._phi(self.counted)
        self.stalls = self._phi(self.stalls)
        self.arriving = {
            flight: (self._phi(value), self._phi(state))
            for flight, (value, state) in self.arriving.items()
        }
        self.coming = {
            branch: (self._phi(taken), self._phi(target))
            for branch, (taken, target) in self.coming.items()
        }

    def _phi(self, start: Value) -> ir.Phi:
        phi = self.builder.phi(start.type)
        phi.add_incoming(start, self.before)
        self.round.append(phi)
        return phi

    # The end ------------------------------------------------------------------------------------

    def fault(self, wrong: Value) -> None:
        """End the function where `wrong` holds."""
        b, after = self.builder, self._block("right")
        b.cbranch(wrong, self.faulty, after, rarely=True)
        b.position_at_end(after)

    def _store_flight(self, place: int, flight: Flight, value: Value | None, state: Value) -> None:
        size = 4 * self.lanes if flight.result.has_lanes else 8
        if value is not None and not (self.plan.timing and flight.result.has_lanes):
            self.builder.store(value, self._at(place), align=4)
        self.builder.store(state, self._at(place + size), align=4)

    def _exit(self, following: int, code: Value) -> None:
        """End the function with a code, by way of the block that saves the registers."""
        self.exits.append((self.builder.block, REGISTER(following), code))
        self.builder.branch(self.saving)

    def _write_ends(self) -> None:
        """Write the blocks that all ways out share, and close the first one."""
        ir.IRBuilder(self.faulty).ret(REGISTER(Code.FAULT))
        b = self.builder
        b.position_at_end(self.saving)
        following, code = b.phi(REGISTER), b.phi(REGISTER)
        for block, number, reason in self.exits:
            following.add_incoming(number, block)
            code.add_incoming(reason, block)
        b.store(following, self._number("next"), align=8)
        for register, value in self._left_in_registers().items():
            b.store(value, self._at(self.plan.record.register(register)), align=4)
        if self.plan.timing:
            self._leave_unknown()
        issue = b.add(self._load("issue"), b.mul(self.turns, REGISTER(self.stretch.cycles)))
        b.store(issue, self._number("issue"), align=8)
        if self.banks is not None:
            stalled = b.add(self._load("stalled"), self.stalls)
            b.store(stalled, self._number("stalled"), align=8)
        b.store(b.add(self._load("vmac_lanes"), self.counted), self._number("vmac_lanes"), align=8)
        place = self._at(self.plan.record.counts + 8 * self.number)
        b.store(b.add(b.load(place, typ=REGISTER, align=8), self.turns), place, align=8)
        b.ret(code)
        self.first.branch(self.checks)

    def _leave_unknown(self) -> None:
        """Note which of the changed registers nobody knows."""
        b = self.builder
        for register in self.registers.changed:
            flag = self.registers.unknown[register]
            byte = BYTE(0) if flag is None else b.zext(flag, BYTE)
            b.store(byte, self._at(self.plan.record.unknown_flag(register)), align=1)

    def _left_in_registers(self) -> dict[Register, Value]:
        """Return what the changed registers hold, disabled lanes as they were."""
        b, registers = self.builder, self.registers
        found = {register: registers.values[register] for register in registers.changed}
        vectors = [r for r in found if r.file is File.VECTOR]
        if not registers.uniform or not vectors:
            return found
        some = b.icmp_unsigned("!=", self.lane_bits, REGISTER((1 << self.lanes) - 1))
        before = b.block
        with b.if_then(some, rarely=True):
            restored = {}
            for register in vectors:
                place = self._at(self.plan.record.register(register))
                old = b.load(place, typ=registers.kind(register), align=4)
                restored[register] = b.select(registers.enabled(), found[register], old)
            inner = b.block
        for register in vectors:
            merged = b.phi(registers.kind(register))
            merged.add_incoming(found[register], before)
            merged.add_incoming(restored[register], inner)
            found[register] = merged
        return found
