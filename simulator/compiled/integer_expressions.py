"""Expressions of integer code: what a Python expression over integers is in LLVM's words.

Base of the functions that `simulator.compiled.integer_code` writes. A comparison is 0 or 1, as in
Python; `and` and `or` leave out what they need not know.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from inspect import isfunction, signature
from typing import Any, NoReturn

from attrs import frozen

from simulator.compiled import ir
from simulator.compiled.primitives import PRIMITIVES

INTEGER = ir.IntType(64)
BOOLEAN = ir.IntType(1)
POINTER = ir.PointerType()


@frozen
class Kind:
    """What a name may stand for: an integer, or a flat sequence of items of some width."""

    type: ir.Type
    item: ir.IntType | None = None


KINDS = {
    "int": Kind(INTEGER),
    "Record": Kind(POINTER, INTEGER),
    "Words": Kind(POINTER, ir.IntType(32)),
    "Flags": Kind(POINTER, ir.IntType(8)),
}
"""Annotations of parameters; items of Words and Flags are unsigned."""

COMPARISONS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


class NotTranslatable(TypeError):  # noqa: N818
    """A function uses what integer code does not have: a mistake in this project."""


@frozen
class Typed:
    """A value of the builder and its kind."""

    value: Any
    kind: str


class Expressions:
    """Writes expressions of one function where its builder stands."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        function: Callable[..., Any],
        called: Callable[[Callable[..., Any]], ir.Function],
    ) -> None:
        self.builder, self.function, self._called = builder, function, called
        self.slots: dict[str, Typed] = {}
        """Where each local name is kept, and its kind."""

    def refusal(self, node: ast.AST, what: str) -> NotTranslatable:
        """Return an error that names the place in the source."""
        code = self.function.__code__
        line = code.co_firstlineno + getattr(node, "lineno", 1) - 1
        text = ast.unparse(node).splitlines()[0]
        return NotTranslatable(
            f"{code.co_filename}:{line}: {self.function.__name__}: '{text}' {what}"
        )

    # Values -------------------------------------------------------------------------------------

    def integer(self, node: ast.expr) -> Any:
        """Return an expression as a 64-bit integer."""
        return self.as_integer(node, self.value(node))

    def as_integer(self, node: ast.expr, value: Typed) -> Any:
        """Return a value, which must be an integer."""
        if value.kind != "int":
            raise self.refusal(node, f"is {value.kind}, not an integer")
        return value.value

    def condition(self, node: ast.expr) -> Any:
        """Return as one bit whether an expression is true."""
        b = self.builder
        if isinstance(node, ast.BoolOp):
            return self._chain(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return b.not_(self.condition(node.operand))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        return b.icmp_signed("!=", self.integer(node), INTEGER(0))

    def value(self, node: ast.expr) -> Typed:
        """Return an expression as what it is."""
        writer = getattr(self, f"_value_{type(node).__name__}", None)
        if writer is None:
            raise self.refusal(node, "has no translation")
        value: Typed = writer(node)
        return value

    def _value_Constant(self, node: ast.Constant) -> Typed:  # noqa: N802
        if isinstance(node.value, bool) or not isinstance(node.value, int):
            self._refuse(node, "is no integer")
        return Typed(INTEGER(node.value), "int")

    def _value_Name(self, node: ast.Name) -> Typed:  # noqa: N802
        slot = self.slots.get(node.id)
        if slot is not None:
            value = self.builder.load(slot.value, typ=KINDS[slot.kind].type)
            return Typed(value, slot.kind)
        constant = self.function.__globals__.get(node.id)
        if not isinstance(constant, int):
            self._refuse(node, "is neither a local name nor an integer of the module")
        return Typed(INTEGER(int(constant)), "int")

    def _value_Subscript(self, node: ast.Subscript) -> Typed:  # noqa: N802
        place, kind = self.place(node)
        return Typed(self.load_item(place, kind), "int")

    def place(self, node: ast.Subscript) -> tuple[Any, str]:
        """Return where an item is, and the kind of its sequence."""
        sequence = self.value(node.value)
        item = KINDS[sequence.kind].item
        if item is None:
            self._refuse(node, "takes an item of something that has none")
        index = self.integer(node.slice)
        return self.builder.gep(sequence.value, [index], source_etype=item), sequence.kind

    def load_item(self, place: Any, kind: str) -> Any:
        """Return an item as an integer."""
        item = _item(kind)
        loaded = self.builder.load(place, typ=item, align=item.width // 8)
        return loaded if item is INTEGER else self.builder.zext(loaded, INTEGER)

    def store_item(self, place: Any, kind: str, value: Any) -> None:
        """Store an integer in an item."""
        item = _item(kind)
        stored = value if item is INTEGER else self.builder.trunc(value, item)
        self.builder.store(stored, place, align=item.width // 8)

    def _value_BinOp(self, node: ast.BinOp) -> Typed:  # noqa: N802
        left = self.integer(node.left)
        return Typed(self.operate(node, node.op, left, self.integer(node.right)), "int")

    def _value_UnaryOp(self, node: ast.UnaryOp) -> Typed:  # noqa: N802
        b = self.builder
        if isinstance(node.op, ast.USub):
            return Typed(b.sub(INTEGER(0), self.integer(node.operand)), "int")
        if isinstance(node.op, ast.Invert):
            return Typed(b.xor(self.integer(node.operand), INTEGER(-1)), "int")
        return self._as_number(node)

    def _value_Compare(self, node: ast.Compare) -> Typed:  # noqa: N802
        return self._as_number(node)

    def _value_BoolOp(self, node: ast.BoolOp) -> Typed:  # noqa: N802
        for part in node.values:
            # Python would give the last part itself, whatever number it is.
            if not isinstance(part, ast.BoolOp | ast.Compare) and not _is_not(part):
                self._refuse(part, "is no condition, but its chain is used as a number")
        return self._as_number(node)

    def _as_number(self, node: ast.expr) -> Typed:
        return Typed(self.builder.zext(self.condition(node), INTEGER), "int")

    def _value_IfExp(self, node: ast.IfExp) -> Typed:  # noqa: N802
        b, function = self.builder, self.builder.function
        chosen, other, after = (function.append_basic_block(n) for n in ("yes", "no", "after"))
        b.cbranch(self.condition(node.test), chosen, other)
        ends = []
        for block, part in ((chosen, node.body), (other, node.orelse)):
            b.position_at_end(block)
            value = self.integer(part)
            ends.append((value, b.block))
            b.branch(after)
        b.position_at_end(after)
        result = b.phi(INTEGER)
        for value, block in ends:
            result.add_incoming(value, block)
        return Typed(result, "int")

    # Conditions ---------------------------------------------------------------------------------

    def _chain(self, node: ast.BoolOp) -> Any:
        b, function = self.builder, self.builder.function
        after = function.append_basic_block("known")
        short = BOOLEAN(isinstance(node.op, ast.Or))
        ends = []
        for part in node.values[:-1]:
            condition = self.condition(part)
            ends.append((short, b.block))
            onward = function.append_basic_block("open")
            if isinstance(node.op, ast.And):
                b.cbranch(condition, onward, after)
            else:
                b.cbranch(condition, after, onward)
            b.position_at_end(onward)
        ends.append((self.condition(node.values[-1]), b.block))
        b.branch(after)
        b.position_at_end(after)
        result = b.phi(BOOLEAN)
        for value, block in ends:
            result.add_incoming(value, block)
        return result

    def _compare(self, node: ast.Compare) -> Any:
        b, result = self.builder, None
        left = self.integer(node.left)
        for operator, part in zip(node.ops, node.comparators, strict=True):
            sign = COMPARISONS.get(type(operator))
            if sign is None:
                self._refuse(node, "compares in a way that integers do not have")
            right = self.integer(part)
            found = b.icmp_signed(sign, left, right)
            result = found if result is None else b.and_(result, found)
            left = right
        return result

    # Arithmetic ---------------------------------------------------------------------------------

    def operate(self, node: ast.AST, operator: ast.operator, left: Any, right: Any) -> Any:
        """Return the result of a binary operator."""
        b = self.builder
        plain = {
            ast.Add: b.add, ast.Sub: b.sub, ast.Mult: b.mul, ast.BitAnd: b.and_, ast.BitOr: b.or_,
            ast.BitXor: b.xor, ast.LShift: b.shl, ast.RShift: b.ashr,
        }.get(type(operator))  # fmt: skip
        if plain is not None:
            return plain(left, right)
        rest = b.srem(left, right)
        # The host rounds towards zero, Python downwards: they differ where the rest has not the
        # divisor's sign.
        uneven = b.icmp_signed("!=", rest, INTEGER(0))
        opposed = b.icmp_signed("<", b.xor(rest, right), INTEGER(0))
        down = b.and_(uneven, opposed)
        if isinstance(operator, ast.Mod):
            return b.select(down, b.add(rest, right), rest)
        if isinstance(operator, ast.FloorDiv):
            return b.sub(b.sdiv(left, right), b.zext(down, INTEGER))
        return self._refuse(node, "uses an operator that integers do not have")

    # Calls --------------------------------------------------------------------------------------

    def _value_Call(self, node: ast.Call) -> Typed:  # noqa: N802
        if not isinstance(node.func, ast.Name) or node.keywords:
            self._refuse(node, "is not a plain call")
        name = node.func.id
        arguments = [self.value(argument) for argument in node.args]
        if name in ("min", "max", "abs"):
            return Typed(self._built_in(node, name, arguments), "int")
        function = self.function.__globals__.get(name)
        if function in PRIMITIVES:
            primitive = PRIMITIVES[function]
            values = [argument.value for argument in arguments]
            return Typed(primitive.write(self.builder, *values), primitive.result)
        if not isfunction(function):
            self._refuse(node, "calls something that is no function of integer code")
        called = self._called(function)
        wanted = [function.__annotations__[name] for name in signature(function).parameters]
        if [argument.kind for argument in arguments] != wanted:
            self._refuse(node, f"gives other arguments than ({', '.join(wanted)})")
        return Typed(self.builder.call(called, [a.value for a in arguments]), "int")

    def _built_in(self, node: ast.Call, name: str, arguments: list[Typed]) -> Any:
        b = self.builder
        values = [self.as_integer(node, argument) for argument in arguments]
        if name == "abs":
            negated = b.sub(INTEGER(0), values[0])
            return b.select(b.icmp_signed("<", values[0], INTEGER(0)), negated, values[0])
        sign, best = "<" if name == "min" else ">", values[0]
        for value in values[1:]:
            best = b.select(b.icmp_signed(sign, value, best), value, best)
        return best

    def _refuse(self, node: ast.AST, what: str) -> NoReturn:
        raise self.refusal(node, what)


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _item(kind: str) -> ir.IntType:
    item = KINDS[kind].item
    assert item is not None
    return item
