"""LLVM IR as text: what the builder writes is what LLVM reads, and what it leaves out is right."""

from __future__ import annotations

import ctypes
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as some

from simulator.compiled import ir
from simulator.compiled.native import Library, compile_module

INTEGER, BIT = ir.IntType(64), ir.IntType(1)
INSTRUCTIONS = ("add", "sub", "mul", "and_", "or_", "xor")
SIGNS = ("==", "!=", "<", "<=", ">", ">=")
NUMBERS = some.integers(-(2**63), 2**63 - 1) | some.sampled_from([0, 1, -1, 2, -(2**63)])


@cache
def machine_code() -> Library:
    """Return a function of two numbers for each instruction, which LLVM computes."""
    module = ir.Module()
    for name in (*INSTRUCTIONS, *(f"{kind}{sign}" for kind in "su" for sign in SIGNS)):
        function = ir.Function(module, ir.FunctionType(INTEGER, [INTEGER] * 2), name)
        b = ir.IRBuilder(function.append_basic_block("entry"))
        b.ret(b.zext(written(b, name, *function.args), INTEGER))
    return compile_module(module)


def written(b: ir.IRBuilder, name: str, left: ir.Value, right: ir.Value) -> ir.Value:
    if name in INSTRUCTIONS:
        value: ir.Value = getattr(b, name)(left, right)
        return value
    compare = b.icmp_signed if name[0] == "s" else b.icmp_unsigned
    return compare(name[1:], left, right)


FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def block() -> ir.Block:
    function = ir.Function(ir.Module(), ir.FunctionType(INTEGER, [INTEGER]), "f")
    return function.append_basic_block("entry")


@pytest.mark.parametrize("name", [*INSTRUCTIONS, *(k + sign for k in "su" for sign in SIGNS)])
@given(left=NUMBERS, right=NUMBERS)
def test_constants_are_computed_as_llvm_would(name: str, left: int, right: int) -> None:
    found = written(ir.IRBuilder(block()), name, INTEGER(left), INTEGER(right))
    assert isinstance(found, ir.Constant)
    assert found.constant == FUNCTION(machine_code().address(name))(left, right)


@pytest.mark.parametrize("name", INSTRUCTIONS)
@given(number=NUMBERS, argument=NUMBERS)
def test_what_is_left_out_changes_nothing(name: str, number: int, argument: int) -> None:
    expected = FUNCTION(machine_code().address(name))
    for order in (1, -1):
        place = block()
        (value,) = place.function.args
        found = written(ir.IRBuilder(place), name, *[value, INTEGER(number)][::order])
        if found is value:
            assert expected(*[argument, number][::order]) == argument
        elif isinstance(found, ir.Constant):
            assert expected(*[argument, number][::order]) == found.constant
        else:
            assert len(place.lines) == 1


@pytest.mark.parametrize(("number", "count"), [(0, 3), (63, 3)])
def test_shifts_of_constants(number: int, count: int) -> None:
    shifted = ir.IRBuilder(block()).shl(INTEGER(number), INTEGER(count))
    assert isinstance(shifted, ir.Constant)
    assert shifted.constant == number << count


def test_a_shift_that_llvm_leaves_undefined_is_left_to_it() -> None:
    assert not isinstance(ir.IRBuilder(block()).shl(INTEGER(1), INTEGER(64)), ir.Constant)


def test_the_text_of_a_function() -> None:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(INTEGER, [INTEGER]), "count")
    function.attributes |= {"nounwind", "alignstack(64)"}
    entry, again, done = (function.append_basic_block(name) for name in ("entry", "way", "way"))
    b = ir.IRBuilder(entry)
    b.branch(again)
    b.position_at_end(again)
    number = b.phi(INTEGER)
    following = b.add(number, INTEGER(1))
    number.add_incoming(INTEGER(0), entry)
    number.add_incoming(following, again)
    b.cbranch(b.icmp_signed("<", following, function.args[0]), again, done, rarely=True)
    assert (entry.is_terminated, done.is_terminated) == (True, False)
    b.position_at_end(done)
    choice = b.switch(following, again)
    choice.add_case(INTEGER(7), done)
    choice.add_case(INTEGER(-8), entry)
    assert str(module).splitlines() == [
        'define  i64 @"count"(i64 %a0) alignstack(64) nounwind {',
        "entry.0:",
        "br label %way.0",
        "way.0:",
        "%v1 = phi i64 [0, %entry.0], [%v2, %way.0]",
        "%v2 = add i64 %v1, 1",
        "%v3 = icmp slt i64 %v2, %a0",
        "br i1 %v3, label %way.0, label %way.1, !prof !0",
        "way.1:",
        "switch i64 %v2, label %way.0 [i64 7, label %way.1 i64 -8, label %entry.0]",
        "}",
        '!0 = !{ !"branch_weights", i32 1, i32 10000 }',
    ]


def test_constants_of_vectors() -> None:
    pair = ir.VectorType(ir.IntType(32), 2)
    assert str(ir.Constant(pair, [3, 4])) == "<2 x i32> <i32 3, i32 4>"
    assert str(ir.Constant(pair, 0)) == "<2 x i32> zeroinitializer"
    assert ir.Constant(pair, 9).lanes == [9, 9]
    assert str(ir.Constant(pair, ir.Undefined)) == "<2 x i32> undef"


def test_a_known_condition_chooses_at_once() -> None:
    place = block()
    (value,) = place.function.args
    b = ir.IRBuilder(place)
    assert b.select(BIT(1), value, INTEGER(3)) is value
    assert b.select(b.icmp_signed(">", INTEGER(1), INTEGER(2)), INTEGER(3), value) is value
    assert place.lines == []
