"""Ways through random programs: loops, parts, calls, jumps, barriers, in any nesting.

All of it keeps the rules by construction: counters live in registers of their own, a predicate that
steers is not touched while it counts, transfers are waited for where they were started, and all
cores come to the same barriers. Called by `generator`.
"""

from __future__ import annotations

from collections.abc import Callable

from isa.operands import Label, Predicate, Register
from simulator.fuzzing.state import State
from simulator.fuzzing.steady_loops import write_steady_loop
from simulator.fuzzing.transfers import InFlight, Transfers
from simulator.fuzzing.writer import Writer

DEEPEST = 3
"""How deep loops and parts nest."""


class Control:
    """Appends constructs to a program."""

    def __init__(self, writer: Writer, transfers: Transfers) -> None:
        self.writer, self.transfers, self.random = writer, transfers, writer.random
        self.subroutines: list[tuple[Label, Register]] = []
        self._returns: dict[Register, tuple[str, ...]] = {}
        self._scopes: list[list[InFlight]] = []
        self._depth = self._loops = self._divided = 0

    def body(self, packets: int) -> None:
        """Append constructs up to about so many packets; what they start they wait for."""
        writer = self.writer
        end = len(writer.packets) + packets
        self._scopes.append([])
        self._depth += 1
        while len(writer.packets) < end:
            left = end - len(writer.packets)
            constructs, weights = zip(*self._choices(left), strict=True)
            self.random.choices(constructs, weights)[0](left)
        for transfer in self._scopes[-1]:
            self.transfers.wait(transfer)
        self._depth -= 1
        self._scopes.pop()

    def write_subroutines(self) -> None:
        """Append the bodies of what was called, behind the end of the program."""
        writer = self.writer
        writer.memory = False
        for entry, link in self.subroutines:
            writer.place(entry)
            writer.fill(self.random.randint(0, 6))
            writer.computed[len(writer.packets)] = self._returns[link]
            writer.branch(link)
            writer.delay()

    # Choosing -----------------------------------------------------------------------------------

    def _choices(self, left: int) -> list[tuple[Callable[[int], None], float]]:
        branch = self.writer.machine.latency["branch"]
        found: list[tuple[Callable[[int], None], float]] = [
            (self._straight, 4), (self._snop, 0.7), (self._start, 2), (self._steady, 0.9),
        ]  # fmt: skip
        if self._scopes[-1]:
            found.append((self._wait, 2))
        if self.writer.settings.computed:
            found.append((self._call, 0.8))
        if not self._divided:
            found.append((self._barrier, 0.7))
        if self._depth < DEEPEST and left > branch + 4:
            found += [(self._loop, 1.5), (self._skip, 1.2), (self._either, 1)]
            if self.writer.settings.computed:
                found.append((self._jump, 0.9))
            if not self._divided and self.writer.settings.cores > 1:
                found.append((self._some_cores, 1.2))
        return found

    def _straight(self, left: int) -> None:
        self.writer.fill(self.random.randint(1, 8))

    def _snop(self, left: int) -> None:
        self.writer.idle(self.random.choice((1, 2, 3, 5, 9)))

    def _start(self, left: int) -> None:
        started = self.transfers.start(uniform=not self._divided)
        if started is not None:
            self._scopes[-1].append(started)

    def _wait(self, left: int) -> None:
        scope = self._scopes[-1]
        self.transfers.wait(scope.pop(self.random.randrange(len(scope))))

    def _barrier(self, left: int) -> None:
        self.writer.packet(self.writer.make("BARRIER"))
        if not self._loops:
            self.transfers.turn()

    def _delay(self, cycles: int | None = None) -> None:
        """Fill delay slots, perhaps with a wait for a transfer of this scope."""
        left = self.writer.machine.latency["branch"] - 1 if cycles is None else cycles
        scope = self._scopes[-1] if self._scopes else []
        simple = [transfer for transfer in scope if self._in_one_packet(transfer)]
        if simple and left > 1 and self.random.random() < 0.3:
            before = self.random.randint(0, left - 1)
            self.writer.delay(before)
            transfer = self.random.choice(simple)
            scope.remove(transfer)
            self.transfers.wait(transfer, in_one_packet=True)
            left -= before + 1
        self.writer.delay(left)

    def _in_one_packet(self, transfer: InFlight) -> bool:
        return transfer.members in (0, (1 << self.writer.settings.cores) - 1)

    # Loops --------------------------------------------------------------------------------------

    def _loop(self, left: int) -> None:
        """Append a loop that counts down, tested at its end."""
        writer, random = self.writer, self.random
        if writer.spare < 4:
            return
        counter, head = writer.take(), writer.label()
        writer.compute("SMOVI", random.choice((1, 2, 2, 3, 3, 4, 6)), counter)
        outer = writer.state.frozen
        usable = sorted(p for p in writer.palette.pointers if writer.state.usable(p) is not None)
        kept = frozenset(p for p in usable if random.random() < 0.4)
        writer.state.enter_loop(kept, writer.machine, writer.palette, writer.layout)
        writer.place(head)
        writer.packet(writer.make("SSUB", 1, counter, counter))
        self._loops += 1
        self.body(random.randint(1, max(2, left // 2)))
        self._loops -= 1
        self._again(head, counter)
        writer.state.frozen = outer
        writer.give(counter)

    def _steady(self, left: int) -> None:
        """Append a loop as kernels have them."""
        write_steady_loop(self.writer)

    def _again(self, head: Label, counter: Register) -> None:
        """Append the branch back while the counter is above 0."""
        writer, steering = self.writer, self.writer.palette.steering
        if self.random.random() < 0.5:
            writer.compute("SMOV", counter, steering)
            predicate = Predicate(steering)
        else:
            writer.compute("SEQ", counter, 0, steering)
            predicate = Predicate(steering, negated=True)
        if writer.settings.computed and self.random.random() < 0.4:
            register = writer.take()
            writer.compute("SMOVI", head, register)
            writer.computed[len(writer.packets)] = (head.name,)
            writer.branch(register, predicate)
            writer.give(register)
        else:
            writer.branch(head, predicate)
        self.writer.delay()

    # Parts --------------------------------------------------------------------------------------

    def _condition(self) -> Predicate:
        """Return a predicate of random work, different on each core as may be."""
        register = self.random.choice(
            [Register(self.writer.palette.steering.file, n) for n in (0, 1)]
        )
        return Predicate(register, self.random.random() < 0.5)

    def _part(self, left: int) -> None:
        """Append what only some ways or cores come to."""
        self._divided += 1
        self.body(self.random.randint(1, max(2, left // 3)))
        self._divided -= 1

    def _skip(self, left: int) -> None:
        """Append a part that is skipped or not."""
        writer, behind = self.writer, self.writer.label()
        writer.branch(behind, self._condition())
        self._delay()
        skipped = writer.state.copy()
        self._part(left)
        writer.place(behind)
        writer.state.meet(skipped)

    def _some_cores(self, left: int) -> None:
        """Append a part for some cores only."""
        writer, steering, behind = self.writer, self.writer.palette.steering, self.writer.label()
        if writer.spare < 2:
            return
        writer.compute("SCOREID", steering)
        name = self.random.choice(("SEQ", "SLT", "SAND"))
        cores = writer.settings.cores
        writer.compute(name, self.random.randrange(cores), steering, steering)
        writer.branch(behind, Predicate(steering, self.random.random() < 0.5))
        self._delay()
        skipped = writer.state.copy()
        self._part(left)
        writer.place(behind)
        writer.state.meet(skipped)

    def _either(self, left: int) -> None:
        """Append two parts of which one runs, chosen by two branches with opposite predicates."""
        writer, steering = self.writer, self.writer.palette.steering
        first, second, behind = writer.label(), writer.label(), writer.label()
        condition = self._condition()
        writer.compute("SMOV", condition.register, steering)
        opposite = Predicate(steering, not condition.negated)
        writer.branch(second, Predicate(steering, condition.negated))
        writer.branch(first, opposite)
        writer.delay(writer.machine.latency["branch"] - 2)
        to_second = writer.state.copy()
        writer.packet()
        self._two_parts(first, second, behind, to_second, left)

    def _jump(self, left: int) -> None:
        """Append two parts of which one runs, chosen by a register that holds a packet number."""
        writer = self.writer
        if writer.spare < 3:
            return
        first, second, behind = writer.label(), writer.label(), writer.label()
        target = writer.take()
        writer.compute("SMOVI", first, target)
        writer.compute("SMOVI", second, target, predicate=self._condition())
        writer.computed[len(writer.packets)] = (first.name, second.name)
        writer.branch(target)
        writer.give(target)
        self._delay()
        self._two_parts(first, second, behind, writer.state.copy(), left)

    def _two_parts(
        self, first: Label, second: Label, behind: Label, to_second: State, left: int
    ) -> None:
        writer = self.writer
        writer.place(first)
        self._part(left)
        writer.branch(behind)
        writer.delay()
        from_first = writer.state.copy()
        writer.restore(to_second)
        writer.place(second)
        self._part(left)
        writer.place(behind)
        writer.state.meet(from_first)

    # Calls --------------------------------------------------------------------------------------

    def _call(self, left: int) -> None:
        """Append a call of a subroutine, by its name or through a register."""
        writer, random = self.writer, self.random
        if writer.spare < 6:
            return
        if not self.subroutines or (len(self.subroutines) < 2 and random.random() < 0.5):
            self.subroutines.append((writer.label(), writer.take()))
            entry, link = self.subroutines[-1]
        else:
            entry, link = random.choice(self.subroutines)
        back = writer.label()
        writer.compute("SMOVI", back, link)
        if random.random() < 0.5:
            target = writer.take()
            writer.compute("SMOVI", entry, target)
            writer.computed[len(writer.packets)] = (entry.name,)
            writer.branch(target)
            writer.give(target)
        else:
            writer.branch(entry)
        self._delay()
        writer.place(back)
        self._returns[link] = (*self._returns.get(link, ()), back.name)
