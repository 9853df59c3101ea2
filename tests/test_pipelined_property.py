"""Random bodies do the same in `k.pipelined` as in `k.loop`: registers and memories, bit by bit.

A body is a list of drawn pieces. Every piece adds one or two operations to what was written before
it: it reads the author's registers, carried from step to step, or values that the body itself has
made; it loads, stores and moves pointers whose ways meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

import micro_programs
from isa import Builder, unless, when_set
from isa.operands import Register
from isa.program import Program
from micro_programs import AM, MACHINE, SM, VLR, program

WORDS = 4096
MIDDLE = 8192
"""Bytes from the start of both memories: pointers begin here and stay within WORDS."""


@define
class Body:
    """Registers that a body works with; draws choose among them by number."""

    k: Builder
    vectors: list[Register]
    scalars: list[Register]
    pointers: list[Register]
    words: list[Register]
    condition: Register
    lanes: Register
    own_vectors: list[Register] = field(factory=list)
    own_scalars: list[Register] = field(factory=list)

    def vector(self, number: int) -> Register:
        """Return a source: one of the author's, or a value of the body."""
        found = [*self.vectors, *self.own_vectors]
        return found[number % len(found)]

    def scalar(self, number: int) -> Register:
        found = [*self.scalars, *self.own_scalars]
        return found[number % len(found)]

    def target(self, number: int) -> Register:
        """Return one of the author's vectors, or a new one: half and half."""
        if number % 2:
            return self.vectors[number // 2 % len(self.vectors)]
        self.own_vectors.append(self.k.vector("value"))
        return self.own_vectors[-1]

    def scalar_target(self, number: int) -> Register:
        if number % 2:
            return self.scalars[number // 2 % len(self.scalars)]
        self.own_scalars.append(self.k.scalar("value"))
        return self.own_scalars[-1]

    def predicate(self, number: int) -> Any:
        choices = [None, None, None, when_set(self.condition), unless(self.condition)]
        return choices[number % len(choices)]

    def lane_predicate(self, number: int) -> Any:
        choices = [None, None, None, when_set(self.lanes), unless(self.lanes)]
        return choices[number % len(choices)]

    def address(self, number: int) -> Any:
        """Return a place in array memory, and perhaps a move of a pointer."""
        pointer = self.pointers[number % len(self.pointers)]
        step = (0, 4, 16, 32, -16, 1)[number // 7 % 6]
        return (pointer + step, pointer.post(step), pointer.pre(step))[number // 3 % 3]

    def word(self, number: int) -> Any:
        pointer = self.words[number % len(self.words)]
        step = (0, 1, 2, -1)[number // 7 % 4]
        return (pointer + step, pointer.post(step), pointer.pre(step))[number // 3 % 3]


Piece = Callable[[Body, int, int, int], object]


def _own_pair(body: Body, a: int, b: int, c: int) -> None:
    pair = body.k.vectors("pair", 2)
    body.k.vlddw(body.address(a), pair[0], when=body.predicate(c))
    body.own_vectors += pair


def _own_pointer(body: Body, a: int, b: int, c: int) -> None:
    k = body.k
    pointer = k.vector_address("own pointer") if b % 3 == 0 else body.pointers[0]
    k.smvaga(k.smvaag(body.pointers[a % len(body.pointers)]), pointer)
    k.vldw(pointer + a % 32, body.target(c))


def _own_condition(body: Body, a: int, b: int, c: int) -> None:
    k, target = body.k, body.target(c)
    with k.scope():
        condition = k.scalar_predicate("own condition")
        k.slt(body.scalar(a), body.scalar(b), condition)
        k.vadd(body.vector(a), body.vector(b), target, when=when_set(condition))


def _reused(body: Body, a: int, b: int, c: int) -> None:
    """Use one register number for two values, as scopes do."""
    k = body.k
    for number in (a, b):
        with k.scope():
            k.vadd(k.vldw(body.address(number)), body.vector(c), body.vectors[0])


PIECES: list[Piece] = [
    lambda t, a, b, c: t.k.vldw(t.address(a), t.target(b), when=t.predicate(c)),
    lambda t, a, b, c: t.k.vldw(t.address(a), t.target(b)),
    lambda t, a, b, c: t.k.vstw(t.vector(a), t.address(b), when=t.predicate(c)),
    lambda t, a, b, c: t.k.vstw(t.vector(a), t.address(b)),
    lambda t, a, b, c: t.k.vfmulas32(t.vector(a), t.vector(b), t.target(c)),
    lambda t, a, b, c: t.k.vfadds32(t.vector(a), t.vector(b), t.target(c)),
    lambda t, a, b, c: t.k.vadd(t.vector(a), t.vector(b), t.target(c)),
    lambda t, a, b, c: t.k.vadd(t.vector(a), t.vector(b), t.target(c), when=t.lane_predicate(a)),
    lambda t, a, b, c: t.k.vmov(t.vector(a), t.target(c), when=t.predicate(b)),
    lambda t, a, b, c: t.k.sadd(t.scalar(a), t.scalar(b), t.scalar_target(c)),
    lambda t, a, b, c: t.k.smulis(t.scalar(a), t.scalar(b), t.scalar_target(c)),
    lambda t, a, b, c: t.k.sldw(t.word(a), t.scalar_target(c)),
    lambda t, a, b, c: t.k.sstw(t.scalar(a), t.word(b), when=t.predicate(c)),
    lambda t, a, b, c: t.k.svbcast(t.scalar(a), t.target(c)),
    lambda t, a, b, c: t.k.slt(t.scalar(a), t.scalar(b), t.condition),
    lambda t, a, b, c: t.k.vslt(t.vector(a), t.vector(b), t.lanes),
    lambda t, a, b, c: t.k.vfsums32(t.vector(a), t.target(c)),
    lambda t, a, b, c: t.k.smvcgc_vlr(t.scalar(a), VLR),
    _own_pair,
    _own_pointer,
    _own_condition,
    _reused,
]
NUMBERS = st.integers(0, 400)
DRAWN = st.tuples(st.sampled_from(range(len(PIECES))), NUMBERS, NUMBERS, NUMBERS)
Drawn = Sequence[tuple[int, int, int, int]]


def written(pieces: Drawn, steps: int, *, pipelined: bool, counted: bool) -> tuple[Program, Any]:
    """Return a program with the body in a loop, and the author's registers."""
    kept: list[Register] = []

    def write(k: Builder) -> None:
        body = Body(
            k, list(k.vectors("v", 4)), list(k.scalars("s", 3)),
            [k.vector_address(name) for name in "xyz"], [k.scalar_address(name) for name in "ab"],
            k.scalar_predicate("condition"), k.lane_predicate("lanes"),
        )  # fmt: skip
        kept.extend([*body.vectors, *body.scalars, *body.pointers, *body.words])
        kept.extend([body.condition, body.lanes])
        count = k.constant(steps, k.scalar("count")) if counted else steps
        loop = k.pipelined if pipelined else k.loop
        with loop("random", count):
            for number, a, b, c in pieces:
                PIECES[number](body, a, b, c)

    return program(write, MACHINE), kept


def state(bench: micro_programs.Bench, kept: Sequence[Register]) -> tuple[Any, ...]:
    """Run from a fixed state; return what the author's registers and the memories hold."""
    data = np.random.default_rng(7)
    bench.place(AM, data.standard_normal(WORDS).astype(np.float32).view(np.uint32))
    bench.place(SM, data.integers(0, 50, WORDS))
    for number, register in enumerate(kept):
        if register.file.value == "AR":
            bench[register] = (AM if register.is_vector_half else SM) + MIDDLE + 64 * number
        elif register.file.value == "R":
            bench[register] = number
        else:
            bench[register] = [float(number + lane) for lane in range(16)]
    bench.run(1_000_000)
    registers = [bench[register] for register in [*kept, VLR]]
    return registers, bench.words(AM, WORDS), bench.words(SM, WORDS)


def same(pieces: Drawn, steps: int, counted: bool) -> bool:
    """Tell whether both loops end with the same registers and memories."""
    plain, kept = written(pieces, steps, pipelined=False, counted=counted)
    pipelined, its = written(pieces, steps, pipelined=True, counted=counted)
    assert its == kept
    states = [state(micro_programs.Bench(loop), kept) for loop in (plain, pipelined)]
    return bool(states[0] == states[1])


BODIES = st.integers(1, 12).flatmap(lambda n: st.lists(DRAWN, min_size=n, max_size=n))
STEPS = st.sampled_from([1, 2, 3, 5, 8, 13, 33])


@settings(max_examples=100)
@given(BODIES, STEPS, st.booleans())
def test_a_pipelined_loop_does_what_the_loop_does(pieces: Drawn, steps: int, counted: bool) -> None:
    assert same(pieces, steps, counted)


@settings(max_examples=6)
@given(BODIES, STEPS, st.booleans())
def test_it_does_so_in_machine_code(pieces: Drawn, steps: int, counted: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micro_programs, "COMPILED", True)
        assert same(pieces, steps, counted)
