"""Device control flow of the builder: loops and conditions that really branch.

Python loops unroll; `with k.loop(...)` makes one loop on the chip. Conditions of these branches
live in R0. Blocks inside are scheduled, so every result has landed when a loop turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

from isa.language.emitter import Emitter, unless, when_set
from isa.language.storage import LOOP_PREDICATE, block
from isa.operands import RI, Label, R, Register


class ControlFlow(Emitter):
    """Loops, conditions and subroutines."""

    def constant(self, value: int, to: Register | None = None) -> Register:
        """Put an integer of up to 64 bits into a scalar register; return it."""
        if isinstance(value, float):
            raise self.error(f"constant takes an integer; for a float use smovi({value})")
        if not isinstance(value, Integral) or not -(2**63) <= value < 2**64:
            raise self.error(f"constant takes an integer of up to 64 bits, got {value}")
        value = int(value)
        register = self.scalar(f"constant {value}") if to is None else to
        low = ((value + 2**31) & 0xFFFFFFFF) - 2**31
        self.smovi(low, register)
        if low != value:
            self.smovih(value >> 32, register, register)
        return register

    def number(self, value: int) -> int | Register:
        """Return an integer as an operand: itself where it fits, else in a register."""
        return value if RI.accepts(value) else self.constant(value)

    @block
    def loop(self, name: str, count: int | Register) -> Iterator[Register]:
        """Run the body `count` times on the device; yield the register that counts down to 1.

        A register count that may be zero skips the loop; an integer count must be at least 1.
        """
        if isinstance(count, bool) or not (isinstance(count, int) or R.accepts(count)):
            wanted = "count must be a whole number or a scalar register"
            raise self.error(f"loop '{name}': {wanted}, got {count}")
        if isinstance(count, int) and count < 1:
            raise self.error(f"loop '{name}' needs a count of at least 1, got {count}")
        with self.scope():
            left = self.scalar(f"loop {name}")
            after = self.new_label(f"{name}_end")
            if isinstance(count, int):
                self.constant(count, left)
            else:
                self.slt(0, count, LOOP_PREDICATE)
                self.smov(count, left)
                self.sbr(after, when=unless(LOOP_PREDICATE))
            top = self.label(name)
            with self.named_loop(name), self.scope():
                yield left
                self.ssub(1, left, left)
                self.slt(0, left, LOOP_PREDICATE)
                self.sbr(top, when=when_set(LOOP_PREDICATE))
            self.place(after)

    @block
    def until_zero(self, name: str, again: Register) -> Iterator[None]:
        """Run the body, and again for as long as the scalar register is not zero after it."""
        top = self.label(name)
        with self.named_loop(name), self.scope():
            yield
            self.smov(again, LOOP_PREDICATE)
            self.sbr(top, when=when_set(LOOP_PREDICATE))

    @block
    def named_loop(self, name: str) -> Iterator[None]:
        """Mark what is emitted inside as the loop `name`, for listings, traces and reports."""
        self._loops.append(name)
        try:
            yield
        finally:
            self._loops.pop()

    @block
    def phase(self, name: str) -> Iterator[None]:
        """Mark a part of the program: listings, traces and reports show it as they show loops."""
        with self.named_loop(name):
            yield

    @block
    def when(self, condition: Register) -> Iterator[None]:
        """Execute the body where the scalar register is not zero."""
        with self._skipping(condition, skip_if_set=False):
            yield

    @block
    def when_zero(self, condition: Register) -> Iterator[None]:
        """Execute the body where the scalar register is zero."""
        with self._skipping(condition, skip_if_set=True):
            yield

    @contextmanager
    def _skipping(self, condition: Register, skip_if_set: bool) -> Iterator[None]:
        after = self.new_label("after")
        if condition != LOOP_PREDICATE:
            self.smov(condition, LOOP_PREDICATE)
        test = when_set if skip_if_set else unless
        self.sbr(after, when=test(LOOP_PREDICATE))
        with self.scope():
            yield
        self.place(after)

    def call(self, routine: Label, link: Register) -> None:
        """Branch to a routine; `link` gets the packet number to return to."""
        back = self.new_label("return")
        self.smovi(back, link)
        self.sbr(routine)
        self.place(back)

    def ret(self, link: Register) -> None:
        """Return to where `link` says."""
        self.sbr(link)
