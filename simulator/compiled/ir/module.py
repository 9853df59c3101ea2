"""Modules of LLVM IR, their functions and blocks; `str(module)` is what LLVM parses."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.compiled.ir.types import FunctionType
from simulator.compiled.ir.values import Phi, Value

RARE_AND_USUAL = "!0"
"""Metadata of a branch whose first way is hardly ever taken."""


class Module:
    """Functions by name; those without blocks are declared only."""

    def __init__(self) -> None:
        self.globals: dict[str, Function] = {}

    def get_unique_name(self, name: str) -> str:
        """Return the name, with a number if there is such a function already."""
        number, unique = 0, name
        while unique in self.globals:
            number += 1
            unique = f"{name}.{number}"
        return unique

    def __str__(self) -> str:
        weights = f'{RARE_AND_USUAL} = !{{ !"branch_weights", i32 1, i32 10000 }}'
        return "\n".join([*(str(function) for function in self.globals.values()), weights, ""])


class Block:
    """Instructions up to one that leads elsewhere, the last."""

    __slots__ = ("function", "is_terminated", "lines", "name", "ref")

    def __init__(self, function: Function, name: str) -> None:
        self.function, self.name, self.ref = function, name, f"%{name}"
        self.lines: list[str | Phi] = []
        self.is_terminated = False

    def written(self) -> Iterator[str]:
        """Yield the lines of the block."""
        yield f"{self.name}:"
        for line in self.lines:
            yield line if isinstance(line, str) else line.line


class Function(Value):
    """A function, and a pointer to it."""

    __slots__ = (
        "_names", "args", "attributes", "blocks", "function_type", "linkage", "module", "name",
        "results",
    )  # fmt: skip

    def __init__(self, module: Module, kind: FunctionType, name: str) -> None:
        super().__init__(kind, f'@"{name}"')
        self.module, self.name, self.function_type = module, name, kind
        self.args = tuple(Value(type_, f"%a{n}") for n, type_ in enumerate(kind.args))
        self.blocks: list[Block] = []
        self.attributes: set[str] = set()
        self.linkage = ""
        self.results = 0
        """Names given so far to what instructions return."""
        self._names: dict[str, int] = {}
        module.globals[name] = self

    def append_basic_block(self, name: str = "block") -> Block:
        """Return a new block; its name gets a number."""
        number = self._names.get(name, 0)
        self._names[name] = number + 1
        block = Block(self, f"{name}.{number}")
        self.blocks.append(block)
        return block

    def __str__(self) -> str:
        attributes = sorted(self.attributes)
        result = self.function_type.return_type.text
        if not self.blocks:
            arguments = ", ".join(arg.type.text for arg in self.args)
            return f"declare {result} {self.ref}({arguments}) {' '.join(attributes)}"
        arguments = ", ".join(map(str, self.args))
        head = " ".join(["define", self.linkage, result, f"{self.ref}({arguments})", *attributes])
        body = [line for block in self.blocks for line in block.written()]
        return "\n".join([f"{head} {{", *body, "}"])
