"""Memory operands in compiled code: bounds, loads at once, stores when the packet's loads are done.

A place checks an access before it is made; one that leaves its memory ends the stretch with a
fault. A lane that is not enabled, or an operation whose predicate is off, accesses nothing: what a
disabled lane loads never lands, so loads may read a little beyond the ends (`MARGIN_WORDS`).
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, frozen

from isa.values import Value
from simulator.compiled import ir
from simulator.compiled.llvm_values import BIT, REGISTER, WORD

MARGIN_WORDS = 64
"""Words that a memory has on both sides for the lanes of a vector that touch nothing."""

Fault = Callable[[Value], None]
"""Ends the stretch where a condition (i1) holds."""


@frozen
class Space:
    """One memory of the core: first byte address, words, and the host's pointer to its first."""

    base: int
    words: int
    pointer: Value


@define
class Deferred:
    """Stores of the packet in work: what makes each, and the words it touches as a bit mask."""

    stores: list[Callable[[], None]]
    touched: list[tuple[Space, Value, Value]]
    """Memory, first word (i64) and which of the words from there on (i64)."""


class ScalarPlace:
    """One access of SM; `allowed` is the predicate, None for none."""

    def __init__(
        self, builder: ir.IRBuilder, space: Space, address: Value, allowed: Value | None,
        fault: Fault, deferred: Deferred,
    ) -> None:  # fmt: skip
        self.builder, self.space, self.address = builder, space, address
        self.allowed, self.fault, self.deferred = allowed, fault, deferred

    def load_word(self, word: int) -> Value:
        return self.builder.load(self._pointer(self._index(word)), typ=WORD, align=4)

    def store_word(self, word: int, value: Value) -> None:
        index = self._index(word)

        def store() -> None:
            if self.allowed is None:
                self.builder.store(value, self._pointer(index), align=4)
                return
            with self.builder.if_then(self.allowed):
                self.builder.store(value, self._pointer(index), align=4)

        self.deferred.stores.append(store)
        touched = REGISTER(1)
        if self.allowed is not None:
            touched = self.builder.zext(self.allowed, REGISTER)
        self.deferred.touched.append((self.space, index, touched))

    def _index(self, word: int) -> Value:
        """Return the index of a word, 0 where the predicate is off; fault if it is outside."""
        b = self.builder
        offset = b.sub(self.address, REGISTER(self.space.base - 4 * word))
        outside = b.icmp_unsigned(">", offset, REGISTER(4 * self.space.words - 4))
        crooked = b.icmp_unsigned("!=", b.and_(offset, REGISTER(3)), REGISTER(0))
        wrong = b.or_(outside, crooked)
        if self.allowed is not None:
            wrong = b.and_(wrong, self.allowed)
            offset = b.select(self.allowed, offset, REGISTER(0))
        self.fault(wrong)
        return b.lshr(offset, REGISTER(2))

    def _pointer(self, index: Value) -> Value:
        return self.builder.gep(self.space.pointer, [index], source_etype=WORD)


class VectorPlace:
    """One access of AM by the lanes of a mask (<lanes x i1>), which holds the predicate."""

    def __init__(
        self, builder: ir.IRBuilder, space: Space, address: Value, mask: Value, lanes: int,
        fault: Fault, deferred: Deferred,
    ) -> None:  # fmt: skip
        self.builder, self.space, self.address = builder, space, address
        self.mask, self.lanes, self.fault, self.deferred = mask, lanes, fault, deferred

    def load_lanes(self, word: int, step: int) -> Value:
        b = self.builder
        pointer = self._pointer(self._index(word, step))
        return load_every(b, pointer, self.lanes, step)

    def store_lanes(self, word: int, step: int, value: Value) -> None:
        index = self._index(word, step)
        spread, mask = self._spread(value, step), self._spread(self.mask, step)

        def store() -> None:
            self._store(spread, self._pointer(index), mask)

        self.deferred.stores.append(store)
        bits = self.builder.bitcast(mask, ir.IntType(self.lanes * step))
        self.deferred.touched.append((self.space, index, self.builder.zext(bits, REGISTER)))

    def _store(self, value: Value, pointer: Value, mask: Value) -> None:
        name = f"llvm.masked.store.v{value.type.count}i32.p0"
        self.builder.call_named(name, ir.VoidType(), [value, pointer, WORD(4), mask])

    def _spread(self, value: Value, step: int) -> Value:
        """Return lane i in lane i * step, zeros between."""
        if step == 1:
            return value
        sources = [self.lanes] * (self.lanes * step)
        sources[::step] = range(self.lanes)
        zeros = ir.Constant(value.type, [0] * self.lanes)
        mask = ir.Constant(ir.VectorType(WORD, len(sources)), sources)
        return self.builder.shuffle_vector(value, zeros, mask)

    def _index(self, word: int, step: int) -> Value:
        """Return the index of lane 0's word; fault if an enabled lane's word is outside.

        Nearly always all lanes are inside, so only else are the enabled ones looked at.
        """
        b = self.builder
        offset = b.sub(self.address, REGISTER(self.space.base - 4 * word))
        span = 4 * ((self.lanes - 1) * step + 1)
        outside = b.icmp_unsigned(">", offset, REGISTER(max(0, 4 * self.space.words - span)))
        crooked = b.icmp_unsigned("!=", b.and_(offset, REGISTER(3)), REGISTER(0))
        doubtful = b.or_(outside, crooked)
        before = b.block
        with b.if_then(doubtful, rarely=True):
            bits = b.zext(b.bitcast(self.mask, ir.IntType(self.lanes)), REGISTER)
            doubt = doubt_function(b.module)
            safe = b.call(
                doubt, [offset, bits, REGISTER(4 * step), REGISTER(4 * self.space.words - 4)]
            )
            self.fault(b.icmp_signed("==", safe, REGISTER(OUTSIDE)))
            inner = b.block
        index = b.phi(REGISTER)
        index.add_incoming(offset, before)
        index.add_incoming(safe, inner)
        return b.ashr(index, REGISTER(2))

    def _pointer(self, index: Value) -> Value:
        return self.builder.gep(self.space.pointer, [index], source_etype=WORD)


OUTSIDE = -(1 << 63)


def doubt_function(module: ir.Module) -> ir.Function:
    """Return the function for accesses of which some lane may be outside its memory.

    It takes the offset of lane 0, the enabled lanes, the bytes from lane to lane and the offset of
    the memory's last word, and returns an offset to access, or `OUTSIDE`.
    """
    if "doubt" in module.globals:
        return module.globals["doubt"]
    function = ir.Function(module, ir.FunctionType(REGISTER, [REGISTER] * 4), "doubt")
    function.linkage = "internal"
    function.attributes.add("noinline")
    offset, bits, step, most = function.args
    b = ir.IRBuilder(function.append_basic_block())
    low = b.add(offset, b.mul(b.cttz(bits, BIT(0)), step))
    high = b.add(offset, b.mul(b.sub(REGISTER(63), b.ctlz(bits, BIT(0))), step))
    wrong = b.or_(b.icmp_unsigned(">", low, most), b.icmp_unsigned(">", high, most))
    crooked = b.icmp_unsigned("!=", b.and_(offset, REGISTER(3)), REGISTER(0))
    found = b.select(b.or_(wrong, crooked), REGISTER(OUTSIDE), offset)
    # nothing enabled: any place inside will do
    b.ret(b.select(b.icmp_unsigned("==", bits, REGISTER(0)), REGISTER(0), found))
    return function


class WholePlace:
    """Words at a pointer that is known to be right, for loads of all lanes or of one word."""

    def __init__(self, builder: ir.IRBuilder, pointer: Value, lanes: int) -> None:
        self.builder, self.pointer, self.lanes = builder, pointer, lanes

    def load_word(self, word: int) -> Value:
        return self.builder.load(self._at(word), typ=WORD, align=4)

    def load_lanes(self, word: int, step: int) -> Value:
        return load_every(self.builder, self._at(word), self.lanes, step)

    def _at(self, word: int) -> Value:
        return self.builder.gep(self.pointer, [REGISTER(word)], source_etype=WORD)


def load_every(builder: ir.IRBuilder, pointer: Value, lanes: int, step: int) -> Value:
    """Return every so many words from a pointer on, one a lane."""
    wide = builder.load(pointer, typ=ir.VectorType(WORD, lanes * step), align=4)
    if step == 1:
        return wide
    mask = ir.Constant(ir.VectorType(WORD, lanes), [lane * step for lane in range(lanes)])
    return builder.shuffle_vector(wide, ir.Constant(wide.type, ir.Undefined), mask)


def overlapping(builder: ir.IRBuilder, deferred: Deferred) -> Value | None:
    """Return whether two stores of the packet touch the same word (i1); None if none can."""
    b, found = builder, None
    for number, (space, first, words) in enumerate(deferred.touched):
        for other, start, taken in deferred.touched[number + 1 :]:
            if other is not space:
                continue
            distance = b.sub(start, first)
            ahead = b.icmp_signed(">=", distance, REGISTER(0))
            far = b.select(ahead, distance, b.sub(REGISTER(0), distance))
            near = b.icmp_unsigned("<", far, REGISTER(64))
            count = b.select(near, far, REGISTER(0))
            low, high = b.select(ahead, words, taken), b.select(ahead, taken, words)
            common = b.and_(b.lshr(low, count), high)
            meets = b.and_(near, b.icmp_unsigned("!=", common, REGISTER(0)))
            found = meets if found is None else b.or_(found, meets)
    return found
