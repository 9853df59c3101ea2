"""The builder: every method appends an instruction to its block and returns the result.

Integer instructions of two constants are computed at once, and what adds 0 or multiplies by 1 is
left out: addresses and conditions are often known when the code is written, and LLVM does not
look at code that is not to be optimised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from simulator.compiled.ir.folding import folded, folded_comparison
from simulator.compiled.ir.module import RARE_AND_USUAL, Block, Function, Module
from simulator.compiled.ir.types import FunctionType, IntType, PointerType, Type, VectorType
from simulator.compiled.ir.values import Bitcast, Constant, Phi, Value

BIT, POINTER = IntType(1), PointerType()

SIGNED = {"==": "eq", "!=": "ne", "<": "slt", "<=": "sle", ">": "sgt", ">=": "sge"}
UNSIGNED = {"==": "eq", "!=": "ne", "<": "ult", "<=": "ule", ">": "ugt", ">=": "uge"}
ORDERED = {"==": "oeq", "!=": "one", "<": "olt", "<=": "ole", ">": "ogt", ">=": "oge"}


class Switch:
    """A branch by number; its cases come one by one."""

    def __init__(self, block: Block, head: str) -> None:
        self._block, self._place, self._head = block, len(block.lines), head
        self._cases: list[str] = []
        block.lines.append("")
        self._write()

    def add_case(self, number: Value, block: Block) -> None:
        """Lead to a block for a number."""
        self._cases.append(f"{number}, label {block.ref}")
        self._write()

    def _write(self) -> None:
        self._block.lines[self._place] = f"{self._head} [{' '.join(self._cases)}]"


class IRBuilder:
    """Appends to one block at a time."""

    def __init__(self, block: Block | None = None) -> None:
        if block is not None:
            self.position_at_end(block)

    def position_at_end(self, block: Block) -> None:
        """Go on in another block."""
        self.block = block
        self.function: Function = block.function
        self._append = block.lines.append

    @property
    def module(self) -> Module:
        """The module of the function."""
        return self.function.module

    # Arithmetic ---------------------------------------------------------------------------------

    def _new(self) -> str:
        function = self.function
        function.results += 1
        return f"%v{function.results}"

    def _two(self, operator: str, a: Value, b: Value) -> Value:
        ref = self._new()
        self._append(f"{ref} = {operator} {a.type.text} {a.ref}, {b.ref}")
        return Value(a.type, ref)

    def _integers(self, operator: str, a: Value, b: Value) -> Value:
        """Append an instruction of two integers, or vectors of them, unless it is known now."""
        if a.__class__ is Constant or b.__class__ is Constant:
            known = folded(operator, a, b)
            if known is not None:
                return known
        return self._two(operator, a, b)

    def add(self, a: Value, b: Value) -> Value:
        return self._integers("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self._integers("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self._integers("mul", a, b)

    def and_(self, a: Value, b: Value) -> Value:
        return self._integers("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        return self._integers("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        return self._integers("xor", a, b)

    def shl(self, a: Value, b: Value) -> Value:
        return self._integers("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        return self._two("lshr", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        return self._two("ashr", a, b)

    def sdiv(self, a: Value, b: Value) -> Value:
        return self._two("sdiv", a, b)

    def srem(self, a: Value, b: Value) -> Value:
        return self._two("srem", a, b)

    def urem(self, a: Value, b: Value) -> Value:
        return self._two("urem", a, b)

    def fadd(self, a: Value, b: Value) -> Value:
        return self._two("fadd", a, b)

    def fsub(self, a: Value, b: Value) -> Value:
        return self._two("fsub", a, b)

    def fmul(self, a: Value, b: Value) -> Value:
        return self._two("fmul", a, b)

    def fdiv(self, a: Value, b: Value) -> Value:
        return self._two("fdiv", a, b)

    def fneg(self, a: Value) -> Value:
        ref = self._new()
        self._append(f"{ref} = fneg {a.type.text} {a.ref}")
        return Value(a.type, ref)

    def not_(self, a: Value) -> Value:
        return self.xor(a, Constant(a.type, -1))

    # Comparison ---------------------------------------------------------------------------------

    def _compare(self, instruction: str, a: Value, b: Value) -> Value:
        ref, kind = self._new(), a.type
        self._append(f"{ref} = {instruction} {kind.text} {a.ref}, {b.ref}")
        return Value(BIT if kind.__class__ is not VectorType else _bits(kind.count), ref)

    def icmp_signed(self, sign: str, a: Value, b: Value) -> Value:
        if a.__class__ is Constant and b.__class__ is Constant:
            known = folded_comparison(sign, a, b, signed=True)
            if known is not None:
                return BIT(known)
        return self._compare(f"icmp {SIGNED[sign]}", a, b)

    def icmp_unsigned(self, sign: str, a: Value, b: Value) -> Value:
        if a.__class__ is Constant and b.__class__ is Constant:
            known = folded_comparison(sign, a, b, signed=False)
            if known is not None:
                return BIT(known)
        return self._compare(f"icmp {UNSIGNED[sign]}", a, b)

    def fcmp_ordered(self, sign: str, a: Value, b: Value) -> Value:
        return self._compare(f"fcmp {ORDERED[sign]}", a, b)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        if isinstance(condition, Constant) and condition.type == BIT:
            return a if condition.constant else b
        ref = self._new()
        self._append(f"{ref} = select {condition}, {a}, {b}")
        return Value(a.type, ref)

    # Conversion ---------------------------------------------------------------------------------

    def _convert(self, operator: str, a: Value, kind: Type) -> Value:
        if a.type == kind:
            return a
        ref = self._new()
        self._append(f"{ref} = {operator} {a.type.text} {a.ref} to {kind.text}")
        return Value(kind, ref)

    def zext(self, a: Value, kind: Type) -> Value:
        return self._convert("zext", a, kind)

    def sext(self, a: Value, kind: Type) -> Value:
        return self._convert("sext", a, kind)

    def trunc(self, a: Value, kind: Type) -> Value:
        return self._convert("trunc", a, kind)

    def sitofp(self, a: Value, kind: Type) -> Value:
        return self._convert("sitofp", a, kind)

    def inttoptr(self, a: Value, kind: Type) -> Value:
        return self._convert("inttoptr", a, kind)

    def ptrtoint(self, a: Value, kind: Type) -> Value:
        return self._convert("ptrtoint", a, kind)

    def bitcast(self, a: Value, kind: Type) -> Value:
        if a.type == kind:
            return a
        ref = self._new()
        self._append(f"{ref} = bitcast {a.type.text} {a.ref} to {kind.text}")
        return Bitcast(kind, ref, a)

    # Vectors ------------------------------------------------------------------------------------

    def insert_element(self, vector: Value, element: Value, index: Value) -> Value:
        ref = self._new()
        self._append(f"{ref} = insertelement {vector}, {element}, {index}")
        return Value(vector.type, ref)

    def extract_element(self, vector: Value, index: Value) -> Value:
        ref = self._new()
        self._append(f"{ref} = extractelement {vector}, {index}")
        return Value(vector.type.element, ref)

    def shuffle_vector(self, one: Value, other: Value, mask: Value) -> Value:
        ref = self._new()
        self._append(f"{ref} = shufflevector {one}, {other}, {mask}")
        return Value(VectorType(one.type.element, mask.type.count), ref)

    # Memory -------------------------------------------------------------------------------------

    def alloca(self, kind: Type) -> Value:
        ref = self._new()
        self._append(f"{ref} = alloca {kind.text}")
        return Value(POINTER, ref)

    def gep(self, pointer: Value, indices: Sequence[Value], source_etype: Type) -> Value:
        ref, (index,) = self._new(), indices
        self._append(f"{ref} = getelementptr {source_etype.text}, ptr {pointer.ref}, {index}")
        return Value(POINTER, ref)

    def load(self, pointer: Value, typ: Type, align: int = 0) -> Value:
        ref = self._new()
        aligned = f", align {align}" if align else ""
        self._append(f"{ref} = load {typ.text}, ptr {pointer.ref}{aligned}")
        return Value(typ, ref)

    def store(self, value: Value, pointer: Value, align: int = 0) -> None:
        aligned = f", align {align}" if align else ""
        self._append(f"store {value}, ptr {pointer.ref}{aligned}")

    def load_atomic(self, pointer: Value, ordering: str, align: int, typ: Type) -> Value:
        ref = self._new()
        self._append(f"{ref} = load atomic {typ.text}, ptr {pointer.ref} {ordering}, align {align}")
        return Value(typ, ref)

    def atomic_rmw(self, operator: str, pointer: Value, value: Value, ordering: str) -> Value:
        ref = self._new()
        self._append(f"{ref} = atomicrmw {operator} ptr {pointer.ref}, {value} {ordering}")
        return Value(value.type, ref)

    # Calls --------------------------------------------------------------------------------------

    def call(self, function: Function, arguments: Sequence[Value]) -> Value:
        return self.call_at(function, function.function_type, arguments)

    def call_at(self, place: Value, kind: FunctionType, arguments: Sequence[Value]) -> Value:
        """Call what an address leads to."""
        given, result = ", ".join(map(str, arguments)), kind.return_type
        called = f"call {result.text} {place.ref}({given})"
        if result.text == "void":
            self._append(called)
            return Value(result, "")
        ref = self._new()
        self._append(f"{ref} = {called}")
        return Value(result, ref)

    def call_named(self, name: str, result: Type, arguments: Sequence[Value]) -> Value:
        """Call a function of LLVM's or of the C library's, declared where it is not."""
        function = self.module.globals.get(name)
        if function is None:
            kind = FunctionType(result, [argument.type for argument in arguments])
            function = Function(self.module, kind, name)
        return self.call(function, arguments)

    def ctpop(self, a: Value) -> Value:
        return self.call_named(f"llvm.ctpop.{a.type}", a.type, [a])

    def ctlz(self, a: Value, zero_is_poison: Value) -> Value:
        return self.call_named(f"llvm.ctlz.{a.type}", a.type, [a, zero_is_poison])

    def cttz(self, a: Value, zero_is_poison: Value) -> Value:
        return self.call_named(f"llvm.cttz.{a.type}", a.type, [a, zero_is_poison])

    # Ways on ------------------------------------------------------------------------------------

    def _end(self, line: str) -> None:
        self._append(line)
        self.block.is_terminated = True

    def phi(self, kind: Type) -> Phi:
        """Return a value that depends on where control came from; it must be at the beginning."""
        phi = Phi(kind, self._new())
        self._append(phi)
        return phi

    def branch(self, block: Block) -> None:
        self._end(f"br label {block.ref}")

    def cbranch(self, condition: Value, then: Block, other: Block, *, rarely: bool = False) -> None:
        """Go on in a block or another; `rarely`: hardly ever in the first."""
        weights = f", !prof {RARE_AND_USUAL}" if rarely else ""
        self._end(f"br {condition}, label {then.ref}, label {other.ref}{weights}")

    @contextmanager
    def if_then(self, condition: Value, *, rarely: bool = False) -> Iterator[None]:
        """What is appended within happens only under the condition."""
        inner, after = (self.function.append_basic_block(name) for name in ("if", "endif"))
        self.cbranch(condition, inner, after, rarely=rarely)
        self.position_at_end(inner)
        yield
        if not self.block.is_terminated:
            self.branch(after)
        self.position_at_end(after)

    def switch(self, number: Value, otherwise: Block) -> Switch:
        self.block.is_terminated = True
        return Switch(self.block, f"switch {number}, label {otherwise.ref}")

    def ret(self, value: Value) -> None:
        self._end(f"ret {value}")

    def ret_void(self) -> None:
        self._end("ret void")

    def unreachable(self) -> None:
        self._end("unreachable")


@cache
def _bits(count: int) -> VectorType:
    return VectorType(BIT, count)
