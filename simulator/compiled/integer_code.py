"""Plain Python over integers as machine code: the event code of the chip, from its one source.

A function may use 64-bit integers, `while`, `for ... in range`, `if`, comparisons, `and`/`or`,
`min`, `max`, `abs`, items of flat sequences, the constants of its module, primitives, and calls of
other such functions. All else is refused at translation. Meanings are Python's, floor division
included, as long as values fit in 64 bits; a step of `range` must be positive.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from attrs import define

from simulator.compiled import ir
from simulator.compiled.integer_expressions import (
    INTEGER,
    KINDS,
    Expressions,
    NotTranslatable,
    Typed,
)

AnyFunction = Callable[..., Any]

VOID = ir.VoidType()

INLINED_STATEMENTS = 2
"""Statements of a function that is not worth a call."""


class IntegerCode:
    """A module that takes Python functions, and with them whatever they call."""

    def __init__(self, module: ir.Module) -> None:
        self.module = module
        self._functions: dict[AnyFunction, ir.Function] = {}

    def add(self, function: AnyFunction, exported: bool = False) -> ir.Function:
        """Return a function of the module that does what the Python function does."""
        found = self._functions.get(function)
        if found is None:
            found = self._functions[function] = self._declare(function)
            _Body(self, function, found).write()
        if exported:
            found.linkage = ""
        return found

    def _declare(self, function: AnyFunction) -> ir.Function:
        kinds = [_kind(function, name) for name in inspect.signature(function).parameters]
        result = VOID if _kind(function, "return") == "None" else INTEGER
        written = ir.FunctionType(result, [KINDS[kind].type for kind in kinds])
        name = self.module.get_unique_name(function.__name__)
        declared = ir.Function(self.module, written, name)
        declared.linkage = "internal"
        declared.attributes.add("nounwind")
        if len(_definition(function).body) <= INLINED_STATEMENTS:
            declared.attributes.add("alwaysinline")
        return declared


@cache
def _definition(function: AnyFunction) -> ast.FunctionDef:
    """Return a function's tree, without its docstring."""
    found = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(found, ast.FunctionDef)
    if ast.get_docstring(found) is not None:
        del found.body[0]
    return found


def _kind(function: AnyFunction, name: str) -> str:
    kind = str(function.__annotations__.get(name))
    if kind in KINDS or (name == "return" and kind == "None"):
        return kind
    raise NotTranslatable(
        f"{function.__module__}.{function.__name__}: '{name}' is annotated {kind}; give one of "
        f"{', '.join(KINDS)}"
    )


@define
class _Loop:
    """Where `continue` and `break` lead."""

    onward: ir.Block
    after: ir.Block


class _Body(Expressions):
    """Writes the statements of one function."""

    def __init__(self, code: IntegerCode, function: AnyFunction, written: ir.Function) -> None:
        builder = ir.IRBuilder(written.append_basic_block("entry"))
        super().__init__(builder, function, code.add)
        self.written = written
        self._loops: list[_Loop] = []
        self._slots = ir.IRBuilder(builder.block)
        self._source = _definition(function)

    def write(self) -> None:
        """Write the whole function."""
        body = self._block("body")
        self.builder.position_at_end(body)
        parameters = inspect.signature(self.function).parameters
        for argument, name in zip(self.written.args, parameters, strict=True):
            self._assign(name, Typed(argument, _kind(self.function, name)))
        self._statements(self._source.body)
        if not self.builder.block.is_terminated:
            if self.written.function_type.return_type is INTEGER:
                raise self.refusal(self._source, "may end without a value")
            self.builder.ret_void()
        self._slots.branch(body)

    def _statements(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:
                raise self.refusal(statement, "is never reached")
            writer = getattr(self, f"_write_{type(statement).__name__}", None)
            if writer is None:
                raise self.refusal(statement, "has no translation")
            writer(statement)

    # Statements, each by the name of its node ---------------------------------------------------

    def _write_Expr(self, node: ast.Expr) -> None:  # noqa: N802
        self.value(node.value)

    def _write_Pass(self, node: ast.Pass) -> None:  # noqa: N802
        pass

    def _write_Assign(self, node: ast.Assign) -> None:  # noqa: N802
        if len(node.targets) != 1:
            raise self.refusal(node, "assigns to more than one name")
        self._put(node.targets[0], self.value(node.value))

    def _write_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        if node.value is None:
            raise self.refusal(node, "assigns nothing")
        self._put(node.target, self.value(node.value))

    def _write_AugAssign(self, node: ast.AugAssign) -> None:  # noqa: N802
        if isinstance(node.target, ast.Subscript):
            place, kind = self.place(node.target)
            before = self.load_item(place, kind)
            self.store_item(
                place, kind, self.operate(node, node.op, before, self.integer(node.value))
            )
        else:
            before = self.integer(node.target)
            after = self.operate(node, node.op, before, self.integer(node.value))
            self._put(node.target, Typed(after, "int"))

    def _put(self, target: ast.expr, value: Typed) -> None:
        if isinstance(target, ast.Subscript):
            place, kind = self.place(target)
            self.store_item(place, kind, self.as_integer(target, value))
        elif isinstance(target, ast.Name):
            self._assign(target.id, value)
        else:
            raise self.refusal(target, "cannot be assigned to")

    def _assign(self, name: str, value: Typed) -> None:
        if name not in self.slots:
            slot = self._slots.alloca(KINDS[value.kind].type)
            self.slots[name] = Typed(slot, value.kind)
        elif self.slots[name].kind != value.kind:
            known = self.slots[name].kind
            raise self.refusal(self._source, f"'{name}' holds {known} and then {value.kind}")
        self.builder.store(value.value, self.slots[name].value)

    def _write_Return(self, node: ast.Return) -> None:  # noqa: N802
        if node.value is None:
            self.builder.ret_void()
        else:
            self.builder.ret(self.integer(node.value))

    def _write_If(self, node: ast.If) -> None:  # noqa: N802
        chosen, other, after = (self._block(name) for name in ("then", "else", "after"))
        self.builder.cbranch(self.condition(node.test), chosen, other)
        ends = [
            self._branch(block, part, after)
            for block, part in ((chosen, node.body), (other, node.orelse))
        ]
        self.builder.position_at_end(after)
        if all(ends):
            self.builder.unreachable()

    def _branch(self, block: ir.Block, statements: Iterable[ast.stmt], after: ir.Block) -> bool:
        """Write statements that lead to `after`; tell whether they end elsewhere."""
        self.builder.position_at_end(block)
        self._statements(statements)
        if self.builder.block.is_terminated:
            return True
        self.builder.branch(after)
        return False

    def _write_While(self, node: ast.While) -> None:  # noqa: N802
        test, body, after = (self._block(name) for name in ("test", "loop", "after"))
        self.builder.branch(test)
        self.builder.position_at_end(test)
        self.builder.cbranch(self.condition(node.test), body, after)
        self._loop(node, body, test, after)

    def _write_For(self, node: ast.For) -> None:  # noqa: N802
        ranged = node.iter
        plain = isinstance(ranged, ast.Call) and isinstance(ranged.func, ast.Name)
        if not plain or ranged.func.id != "range" or not isinstance(node.target, ast.Name):  # type: ignore[attr-defined]
            raise self.refusal(node, "goes over something else than a range")
        bounds = [self.integer(bound) for bound in ranged.args]  # type: ignore[attr-defined]
        first = bounds[0] if len(bounds) > 1 else INTEGER(0)
        end = bounds[min(1, len(bounds) - 1)]
        step = bounds[2] if len(bounds) > 2 else INTEGER(1)
        b, counter = self.builder, self._slots.alloca(INTEGER)
        b.store(first, counter)
        test, body, onward, after = (self._block(n) for n in ("test", "loop", "onward", "after"))
        b.branch(test)
        b.position_at_end(test)
        now = b.load(counter, typ=INTEGER)
        b.cbranch(b.icmp_signed("<", now, end), body, after)
        b.position_at_end(body)
        self._assign(node.target.id, Typed(now, "int"))
        self._loop(node, body, onward, after)
        b.position_at_end(onward)
        b.store(b.add(b.load(counter, typ=INTEGER), step), counter)
        b.branch(test)
        b.position_at_end(after)

    def _loop(
        self, node: ast.While | ast.For, body: ir.Block, onward: ir.Block, after: ir.Block
    ) -> None:
        if node.orelse:
            raise self.refusal(node, "has an else, which loops must not have")
        self._loops.append(_Loop(onward, after))
        self.builder.position_at_end(body)
        self._statements(node.body)
        if not self.builder.block.is_terminated:
            self.builder.branch(onward)
        self._loops.pop()
        self.builder.position_at_end(after)

    def _write_Break(self, node: ast.Break) -> None:  # noqa: N802
        self.builder.branch(self._loops[-1].after)

    def _write_Continue(self, node: ast.Continue) -> None:  # noqa: N802
        self.builder.branch(self._loops[-1].onward)

    def _block(self, name: str) -> ir.Block:
        return self.written.append_basic_block(name)
