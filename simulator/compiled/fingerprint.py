"""What names the machine code of a program: everything the code depends on, and nothing else.

Called by the compiled engine before it looks for kept code. That is the program's packets and
branch targets, the machine, the variant of the code, the host, and the sources of what generates
code. Names of labels and buffers and the author's lines are not part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from isa.machine import Machine
from isa.operands import Address, Label, Operand, Register, Update
from isa.program import Operation, Program

ROOT = Path(__file__).parents[2]

SOURCES = (
    "isa/descriptor.py", "isa/instruction.py", "isa/instructions/*.py", "isa/machine.py",
    "isa/operands.py", "isa/program.py", "isa/values.py", "simulator/*.py",
    "simulator/reference/*.py",
    "simulator/compiled/*.py", "simulator/compiled/ir/*.py",
)  # fmt: skip
"""Files that decide what the machine code is: generators of it, and what they translate."""

UPDATE_TEXT = {Update.NONE: "", Update.PRE: "<", Update.POST: ">"}


def fingerprint(program: Program, machine: Machine, variant: int = 0) -> bytes | None:
    """Return the key of a program's code; None where `code_key` has none."""
    return code_key([str(variant), *described(program, machine)])


def code_key(parts: Iterable[str]) -> bytes | None:
    """Return the key of code that is generated from `parts`, texts without line breaks.

    None if this process may run other sources than it sees: a file was edited after it was loaded,
    and nobody knows of which text the code would be.
    """
    sources = source_digest()
    if sources is None:
        return None
    # LLVM is loaded with it, and only engines that compile need that.
    from simulator.compiled.native import host_identity

    text = "\n".join([sources, repr(host_identity()), *parts])
    return hashlib.sha256(text.encode()).digest()


def described(program: Program, machine: Machine) -> Iterator[str]:
    """Yield, in lines, all that a generator of code may look at of a program and its machine."""
    yield repr(machine.values())
    yield f"{program.cores} cores, branches lead to {sorted(set(program.labels.values()))}"
    texts = _Texts(program.labels)
    for packet in program.packets:
        yield ";".join([texts.operation(operation) for operation in packet.operations])


def source_digest() -> str | None:
    """Return what stands in the sources; None if it may have changed since they were loaded."""
    if LOADED is None or stamps() != LOADED:
        return None
    try:
        return contents()
    except OSError:
        return None


@cache
def contents() -> str:
    each = (hashlib.sha256(path.read_bytes()).hexdigest() for path in _sources())
    return hashlib.sha256("".join(each).encode()).hexdigest()


def _sources() -> list[Path]:
    return sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))


def stamps() -> dict[Path, tuple[int, int]] | None:
    """Return when each source was changed, and its size; None if one cannot be looked at."""
    try:
        found = {path: path.stat() for path in _sources()}
    except OSError:
        return None
    return {path: (status.st_mtime_ns, status.st_size) for path, status in found.items()}


LOADED = stamps()
"""The sources when this module was loaded, which is when the others are."""


class _Texts:
    """Operations as text; an operand that occurs again, as most do, is written once."""

    def __init__(self, labels: Mapping[str, int]) -> None:
        self._labels = labels
        self._known: dict[int, str] = {}
        """By identity, which is good as long as the program lives; hashing would take longer."""

    def operation(self, operation: Operation) -> str:
        operands = [
            self._known.get(id(operand)) or self._operand(operand) for operand in operation.operands
        ]
        predicate = operation.predicate
        if predicate is not None:
            operands.append(f"{'!' if predicate.negated else '?'}{_register(predicate.register)}")
        return f"{operation.instruction.name} {operation.slot} {','.join(operands)}"

    def _operand(self, operand: Operand) -> str:
        text = self._known[id(operand)] = self._written(operand)
        return text

    def _written(self, operand: Operand) -> str:
        if isinstance(operand, Register):
            return _register(operand)
        if isinstance(operand, Address):
            offset = operand.offset
            offset_text = _register(offset) if isinstance(offset, Register) else offset
            sign = "-" if operand.negative else "+"
            return f"{_register(operand.base)}{UPDATE_TEXT[operand.update]}{sign}{offset_text}"
        if isinstance(operand, Label):
            return f"@{self._labels[operand.name]}"
        return str(operand)


def _register(register: Register) -> str:
    return f"{register.file._value_}{register.index}"
